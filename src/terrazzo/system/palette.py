"""Colours for classes: those that a user writes down, those that their names suggest, and distinct ones for others."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from PIL import ImageColor

from terrazzo.errors import UserError, nearest

Palette = list[tuple[int, int, int]]
# The first ones are chosen by eye; the rest are as far from each other as possible.
FIRST = (
    (31, 119, 180), (255, 127, 14), (44, 160, 44), (214, 39, 40), (148, 103, 189), (140, 86, 75), (227, 119, 194),
    (127, 127, 127), (188, 189, 34), (23, 190, 207), (255, 215, 80), (0, 63, 92), (173, 255, 180), (120, 0, 60),
)  # fmt: skip
APART = 20  # in CIELAB: the least distance between the colours of classes whose names suggest them
# words of class names, in the singular, and the colour that most people expect
SUGGESTED = {
    "#c8c8c8": "background void other unlabeled unlabelled unknown clutter 背景",
    "#87ceeb": "sky 天空",
    "#3c78c8": "water sea lake river ocean pond pool canal wetland 水 水体 河流",
    "#2e8b3c": "vegetation tree forest woodland foliage plant shrub bush 植被 树 树木 森林 林地",
    "#96d250": "grass lawn meadow field terrain rangeland grassland 草 草地",
    "#e6c84b": "agriculture agricultural crop cropland farmland farm wheat 农田 耕地",
    "#a0703c": "soil earth ground dirt bare barren mud 土壤 裸地",
    "#e1d29b": "sand beach desert 沙",
    "#f0f5ff": "snow ice glacier cloud 雪 云",
    "#73737d": "road street asphalt runway highway 道路 路",
    "#d7a0c8": "sidewalk pavement footpath path 人行道",
    "#be5a46": "building house roof wall urban 建筑 建筑物 房屋",
    "#eb2d2d": "person pedestrian people human rider man woman fire tumor tumour lesion polyp 人 行人",
    "#2850dc": "car vehicle truck bus van 车 车辆 汽车",
    "#f58cbe": "bicyclist cyclist bicycle bike motorcycle motorbike 自行车",
    "#f5dc28": "sign symbol light lane marking 标志",
    "#aa6eeb": "fence railing guardrail barrier 围栏",
    "#f0913c": "pole column lamp 杆",
}
WORDS = {word: tuple(bytes.fromhex(colour[1:])) for colour, words in SUGGESTED.items() for word in words.split()}


def default_palette(num_classes: int) -> Palette:
    """Distinct RGB colours, always the same; fewer classes get the first ones."""
    return list(_distinct((None,) * num_classes))


def suggested_palette(classes: Sequence[str]) -> list[list[int]]:
    """Distinct RGB colours, those of sky, vegetation, water and other common names as one expects them."""
    return [list(colour) for colour in _distinct(tuple(_wanted(name) for name in classes))]


def _wanted(name: str) -> tuple[int, ...] | None:
    """The colour that a class name suggests, by its last word that suggests one: a parking car is a car."""
    words = re.findall(r"[^\W\d_]+", re.sub("(?<=[a-z])(?=[A-Z])", " ", name))
    known = (WORDS.get(form) for word in reversed(words) for form in (word.lower(), word.lower().removesuffix("s")))
    return next((colour for colour in known if colour), None)


@cache
def _distinct(wanted: tuple[tuple[int, ...] | None, ...]) -> tuple[tuple[int, int, int], ...]:
    """A colour for each class: the wanted one or the nearest that is not taken, else one far from all others."""
    levels = np.linspace(0, 255, 22).round().astype(np.uint8)
    grid = np.stack(np.meshgrid(levels, levels, levels, indexing="ij"), -1).reshape(-1, 1, 3)
    asked = np.array([colour for colour in wanted if colour], np.uint8).reshape(-1, 1, 3)
    grid = np.concatenate([np.array(FIRST, np.uint8)[:, None], asked, grid])
    lab = cv2.cvtColor(grid.astype(np.float32) / 255, cv2.COLOR_RGB2Lab)[:, 0]
    # neither black nor white, which are for text and ignored pixels
    usable = (lab[:, 0] > 22) & (lab[:, 0] < 93)
    usable[: len(FIRST) + len(asked)] = True
    distance = np.where(usable, np.inf, -1.0)
    chosen: dict[int, int] = {}  # class -> its colour in the grid

    def choose(number: int, index: int) -> None:
        chosen[number] = index
        distance[:] = np.minimum(distance, np.linalg.norm(lab - lab[index], axis=1))

    place = len(FIRST)
    for number, colour in enumerate(wanted):
        if colour is not None:
            from_wanted = np.linalg.norm(lab - lab[place], axis=1)
            free = distance >= APART
            choose(number, int(np.where(free, from_wanted, np.inf).argmin()) if free.any() else int(distance.argmax()))
            place += 1
    first = iter(range(len(FIRST)))
    for number in range(len(wanted)):
        if number not in chosen:
            spare = APART if asked.size else 1e-9  # of the first ones, those that no name has taken
            index = next((index for index in first if distance[index] >= spare), None)
            choose(number, int(distance.argmax()) if index is None else index)
    return tuple((int(r), int(g), int(b)) for r, g, b in grid[[chosen[number] for number in range(len(wanted))], 0])


def written_palette(text: str, classes: Sequence[str], palette: Sequence[Sequence[int]]) -> list[list[int]]:
    """The colours that a user writes for some or all classes; the other classes keep those of `palette`.

    `names` is what the names suggest; else `road=#804080,sky=skyblue`, or a file: JSON of names and colours or of
    colours alone, or lines of `128 64 128`, `#804080` or `road #804080`. Raises UserError for anything else.
    """
    if text == "names":
        return suggested_palette(classes)
    found: Any
    path = Path(text)
    if path.is_file():
        found = _read_colours(path)
    elif "=" in text:
        parts = (part.partition("=") for part in re.split(r",(?=[^,=()]+=)", text))
        found = {name.strip(): colour for name, _, colour in parts}
    else:
        raise UserError(f"--palette {text}: there is no such file; give one, `names`, or road=#804080,sky=skyblue")
    if not isinstance(found, Mapping):
        if len(found) != len(classes):
            raise UserError(f"--palette {text} has {len(found)} colours, but the model {len(classes)} classes")
        found = dict(zip(classes, found, strict=True))
    result = [list(map(int, colour)) for colour in palette]
    for name, colour in found.items():
        if name not in classes:
            raise UserError(f"--palette {text}: '{name}' is not a class of the model{nearest(name, classes)}")
        result[list(classes).index(name)] = _as_colour(colour, f"--palette {text}: {name}")
    return result


def _read_colours(path: Path) -> Any:
    """The colours of a file, by class or in the order of classes."""
    try:
        content = path.read_text(encoding="utf-8-sig")
        if path.suffix.lower() == ".json":
            return json.loads(content)
    except ValueError as problem:
        raise UserError(f"cannot read the palette {path}: {problem}") from None
    lines = [line.strip() for line in content.splitlines() if line.strip()]
    parts = [re.fullmatch(r"(.*?)[\s,;:]*(#[0-9a-fA-F]{6}|\d+[\s,;]+\d+[\s,;]+\d+)", line) for line in lines]
    if wrong := [line for line, part in zip(lines, parts, strict=True) if part is None]:
        raise UserError(
            f"{path}: '{wrong[0]}' is neither `128 64 128` nor `#804080`, with or without a class before it"
        )
    named = [(part.group(1), part.group(2)) for part in parts if part]
    return dict(named) if all(name for name, _ in named) else [colour for _, colour in named]


def _as_colour(value: Any, place: str) -> list[int]:
    """A colour as numbers from 0 to 255."""
    try:
        if isinstance(value, str) and not re.match(r"\s*\d", value):
            value = ImageColor.getrgb(value)
        numbers = [int(part) for part in (re.split(r"[\s,;]+", value.strip()) if isinstance(value, str) else value)]
    except (ValueError, TypeError):
        numbers = []
    if len(numbers) < 3 or not all(0 <= number <= 255 for number in numbers):
        raise UserError(f"{place}: {value!r} is not a colour: write [128, 64, 128], #804080 or a name such as skyblue")
    return numbers[:3]
