"""One scene put together, and a data set of them written."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import cv2
import numpy as np

from terrazzo.demo.scenes.canvas import SUPERSAMPLING, Camera, Canvas, Stage
from terrazzo.demo.scenes.cars import PAINTS, car_shadow, draw_car, random_model
from terrazzo.demo.scenes.film import expose
from terrazzo.demo.scenes.houses import draw_house, draw_row, random_style
from terrazzo.demo.scenes.lights import random_light
from terrazzo.demo.scenes.street import Layout, cast_shadows, draw_backdrop, draw_ground, draw_sky
from terrazzo.demo.scenes.styles import STYLES, Style
from terrazzo.demo.scenes.things import (
    AUTUMN,
    BLOSSOM,
    LEAVES,
    draw_lamp,
    draw_person,
    draw_sign,
    draw_traffic_light,
    draw_tree,
    person_shadow,
    tree_shadow,
)

Thing = tuple[float, Callable[[], None]]  # distance, and how to draw it
IGNORED = 255


def draw_scene(
    rng: np.random.Generator, size: tuple[int, int] = (192, 256), style: str = "rich"
) -> tuple[np.ndarray, np.ndarray]:
    """One street at some hour: image (H, W, 3) RGB and label (H, W), both uint8, the label indexing CLASSES.

    The "simple" of STYLES has short streets with few, large things; remnants of a few pixels are labelled IGNORED.
    """
    height, width = size
    look = STYLES[style]
    plan = _random_plan(rng, look)
    wide, tall = width * SUPERSAMPLING, height * SUPERSAMPLING
    camera = Camera(
        focal=rng.uniform(*look.focal) * max(wide, tall),
        centre=wide * rng.uniform(0.4, 0.6),
        horizon=tall * rng.uniform(0.44, 0.56),
        x=rng.uniform(-0.35, 0.75) * plan.road * (1 if plan.keep_right else -1) * 0.8,
        eye=rng.uniform(*look.eye),
        curve=rng.normal(0, 0.0012) if rng.random() < 0.6 else 0.0,
    )
    stage = Stage(Canvas(height, width), camera, random_light(rng), rng)
    draw_sky(stage)
    draw_backdrop(stage)
    draw_ground(stage, plan)
    things: list[Thing] = []
    shadows: list[np.ndarray] = []
    busy = rng.uniform(0.2, 1.0)
    _plan_houses(stage, plan, things, shadows)
    _plan_traffic(stage, plan, look, things, shadows, busy)
    _plan_trees(stage, plan, look, things, shadows)
    _plan_signs(stage, plan, look, things)
    _plan_people(stage, plan, look, things, shadows, busy)
    cast_shadows(stage, shadows)
    for _, draw in sorted(things, key=lambda thing: -thing[0]):
        draw()
    picture, label = stage.canvas.developed()
    image = expose(stage, picture, label)
    return image, _without_specks(label, look.speck)


def _without_specks(label: np.ndarray, smallest: int) -> np.ndarray:
    """The class map with patches of fewer than `smallest` pixels IGNORED."""
    kept = label.copy()
    for kind in np.unique(label) if smallest else ():
        _, patches, numbers, _ = cv2.connectedComponentsWithStats((label == kind).astype(np.uint8), connectivity=8)
        small = numbers[:, cv2.CC_STAT_AREA] < smallest
        small[0] = False  # the rest of the picture
        kept[small[patches]] = IGNORED
    return kept


def write_scenes(
    folder: Path,
    train: int = 240,
    val: int = 48,
    size: tuple[int, int] = (192, 256),
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
    *,
    test: int = 0,
    style: str = "rich",
    processes: int = 1,
) -> dict[str, int]:
    """Write images/SPLIT/NNNN.png and labels/SPLIT/NNNN.png; returns how many in each split.

    `progress` is called with the number written and the total. A scene depends on style, seed, split and number only.
    """
    counts = {"train": train, "val": val} | ({"test": test} if test else {})
    jobs = []
    for index, (split, count) in enumerate(counts.items()):
        for kind in ("images", "labels"):
            (Path(folder) / kind / split).mkdir(parents=True, exist_ok=True)
        jobs += [(split, number, (seed, index, number)) for number in range(count)]
    write = partial(_write_scene, Path(folder), size, style)
    with ExitStack() as stack:
        run: Callable[..., Iterable[None]] = map
        if processes > 1:
            run = partial(stack.enter_context(ProcessPoolExecutor(processes)).map, chunksize=4)
        for done, _ in enumerate(run(write, jobs), 1):
            if progress is not None:
                progress(done, len(jobs))
    return counts


def _write_scene(folder: Path, size: tuple[int, int], style: str, job: tuple[str, int, tuple[int, ...]]) -> None:
    split, number, seed = job
    image, label = draw_scene(np.random.default_rng(seed), size, style)
    for kind, array in (("images", image[..., ::-1]), ("labels", label)):
        path = folder / kind / split / f"{number:04d}.png"
        if not cv2.imwrite(str(path), array, [cv2.IMWRITE_PNG_COMPRESSION, 1]):
            raise OSError(f"could not write {path}")


def _random_plan(rng: np.random.Generator, look: Style) -> Layout:
    parking = 2.1 if rng.random() < look.parking else 0.0
    lanes = 2 if rng.random() < look.wide else 1
    road = lanes * rng.uniform(2.9, 3.4) + parking
    crossing = rng.uniform(*look.crossing) if rng.random() < 0.5 else None
    zebra = None
    if rng.random() < 0.6:
        zebra = crossing - 4.5 if crossing is not None else rng.uniform(6, 22)
    return Layout(
        road=road,
        fronts=(-road - rng.uniform(*look.pavement), road + rng.uniform(*look.pavement)),
        lanes=lanes,
        parking=parking,
        crossing=crossing,
        crossing_width=rng.uniform(6.5, 9),
        zebra=zebra,
        end=rng.uniform(*look.end) if rng.random() >= look.open_end else 150.0,
        keep_right=bool(rng.random() < 0.7),
        brick=look.brick,
    )


def _plan_houses(stage: Stage, plan: Layout, things: list[Thing], shadows: list[np.ndarray]) -> None:
    rng = stage.rng
    tall = rng.uniform(0, 1)
    if plan.end < 120:
        things.append((plan.end + 10, partial(draw_row, stage, plan.end + 8, -70.0, 70.0, tall)))
        plan_end = plan.end
    else:
        plan_end = 120.0
    gaps = rng.uniform(0, 0.22)
    for side, front in zip((-1, 1), plan.fronts, strict=True):
        z = rng.uniform(-6, 2)
        before: float | None = 0.0  # height of the last house, None after a gap
        while z < plan_end:
            style = random_style(stage, tall)
            far = min(z + rng.uniform(7, 16), plan_end)
            if plan.crossing is not None and z < plan.crossing + plan.crossing_width + 2.5:
                far = min(far, plan.crossing - 2.5)
            if far - max(z, 0.8) > 3:
                setback = front + side * (rng.uniform(0, 1.5) if rng.random() < 0.2 else 0)
                things.append((far, partial(draw_house, stage, style, setback, side, z, far, before)))
                shadows.append(_house_shadow(stage, setback, side, z, far, style.height))
                before = None if setback != front else style.height
            if plan.crossing is not None and plan.crossing - 8 < far <= plan.crossing and far + 3 > plan.crossing - 2.5:
                far, before = plan.crossing + plan.crossing_width + 2.5, None
            elif rng.random() < gaps:
                width = rng.uniform(4, 9)
                for _ in range(2):
                    x, depth = front + side * rng.uniform(2, 6), far + rng.uniform(0, width)
                    leaf = stage.choice(LEAVES)
                    things.append((depth, partial(draw_tree, stage, x, depth, rng.uniform(5, 9), leaf, False)))
                far, before = far + width, None
            z = far


def _house_shadow(stage: Stage, front: float, side: int, near: float, far: float, height: float) -> np.ndarray:
    dx, dz = np.array(stage.shadow_step) * height
    back = front + side * 11
    corners = np.array([(front, near), (front, far), (back, far), (back, near)])
    hull = cv2.convexHull(np.concatenate([corners, corners + np.array([dx, dz])]).astype(np.float32))[:, 0]
    return np.stack([hull[:, 0], np.zeros(len(hull)), hull[:, 1]], -1)


def _plan_traffic(
    stage: Stage, plan: Layout, look: Style, things: list[Thing], shadows: list[np.ndarray], busy: float
) -> None:
    rng, lane = stage.rng, (plan.road - plan.parking) / plan.lanes

    def add(x: float, z: float, heading: float, gap: float) -> float:
        model = random_model(stage)
        reach = model.length / 2
        paint = stage.choice(PAINTS)
        z += reach
        things.append((z - reach * abs(np.cos(heading)), partial(draw_car, stage, model, x, z, heading, paint)))
        shadows.append(car_shadow(stage, model, x, z, heading))
        return z + reach + gap

    for side in (-1, 1):
        away = (side > 0) == plan.keep_right
        for index in range(plan.lanes):
            own = abs(side * lane * (index + 0.5) - stage.camera.x) < 1.7
            z = rng.uniform(8, 22) if own else rng.uniform(6, 20)
            while z < min(plan.end, look.reach):
                if rng.random() < busy:
                    x = side * lane * (index + 0.5) + rng.normal(0, 0.12)
                    z = add(x, z, rng.normal(0, 0.02) + (0.0 if away else np.pi), rng.uniform(4, 22))
                else:
                    z += rng.uniform(6, 25)
        if plan.parking:
            z, share = rng.uniform(4, 9), rng.uniform(0.2, 0.95)
            while z < min(plan.end - 5, 90, look.reach):
                blocked = plan.crossing is not None and plan.crossing - 8 < z < plan.crossing + plan.crossing_width + 1
                blocked |= plan.zebra is not None and plan.zebra - 6 < z < plan.zebra + 4
                if rng.random() < share and not blocked:
                    heading = rng.normal(0, 0.03) + (0.0 if away or rng.random() < 0.2 else np.pi)
                    z = add(side * (plan.road - 1.02), z, heading, rng.uniform(0.7, 1.6))
                else:
                    z += 5.5
    if plan.crossing is not None:
        for _ in range(rng.binomial(2, busy * 0.6)):
            far_lane = rng.random() < 0.5
            z = plan.crossing + plan.crossing_width * (0.75 if far_lane else 0.25) - 2
            add(rng.uniform(-14, 14), z, np.pi / 2 * (1 if far_lane != plan.keep_right else -1), 0)


def _plan_trees(stage: Stage, plan: Layout, look: Style, things: list[Thing], shadows: list[np.ndarray]) -> None:
    rng = stage.rng
    book = LEAVES if (season := rng.random()) < 0.72 else AUTUMN if season < 0.88 else BLOSSOM
    slim = bool(rng.random() < look.slim)
    for side in (-1, 1):
        if rng.random() < 0.42:
            continue
        spacing, z = rng.uniform(7, 14), rng.uniform(5, 14)
        leaf = np.array(stage.choice(book))
        while z < min(plan.end, look.reach):
            crossing = plan.crossing is not None and plan.crossing - 3 < z < plan.crossing + plan.crossing_width + 3
            if not crossing and rng.random() < 0.85:
                x, height = side * (plan.road + 0.9), rng.uniform(4.5, 7.5)
                tone = tuple(leaf * rng.uniform(0.88, 1.1))
                things.append((z, partial(draw_tree, stage, x, z, height, tone, slim)))
                shadows.append(tree_shadow(stage, x, z, height))
            z += spacing * rng.uniform(0.8, 1.2)
    if plan.end >= 120 or rng.random() < 0.3:
        for _ in range(rng.integers(0, 7)):
            x, z, height = rng.uniform(-25, 25), min(plan.end, 140) + 3, rng.uniform(6, 11)
            things.append((z, partial(draw_tree, stage, x, z, height, LEAVES[1], False)))


def _plan_signs(stage: Stage, plan: Layout, look: Style, things: list[Thing]) -> None:
    rng = stage.rng
    ours = 1 if plan.keep_right else -1
    lamps = rng.random() < look.lamps
    for side in (-1, 1):
        x, seen = side * (plan.road + 0.5), side == ours or not look.backs
        for _ in range(rng.integers(1, 4) if side == ours else rng.integers(0, 3)):
            z = rng.uniform(*look.signs)
            things.append((z, partial(draw_sign, stage, x, z, seen, look.boldness)))
        if lamps:
            posts = np.arange(rng.uniform(5, 18), min(plan.end, 100), 24).tolist()
            things += [(z, partial(draw_lamp, stage, x, z, side)) for z in posts]
        if plan.crossing is not None and rng.random() < 0.75:
            z = plan.crossing - 2.2 if side == ours else plan.crossing + plan.crossing_width + 1.5
            if z < 1.5 * look.signs[1]:
                things.append((z, partial(draw_traffic_light, stage, x, z, seen, look.boldness)))


def _plan_people(
    stage: Stage, plan: Layout, look: Style, things: list[Thing], shadows: list[np.ndarray], busy: float
) -> None:
    rng, (nearest, farthest) = stage.rng, look.people

    def add(x: float, z: float) -> None:
        things.append((z, partial(draw_person, stage, x, z, look.tallness)))
        shadows.append(person_shadow(stage, x, z))

    for side, front in zip((-1, 1), plan.fronts, strict=True):
        inner, outer = side * (plan.road + 0.7), front - side * 0.5
        for _ in range(rng.poisson(look.crowd * (1 + 2 * busy))):
            x, z = (
                rng.uniform(min(inner, outer), max(inner, outer)),
                nearest + (farthest - nearest) * rng.beta(1.0, 1.9),
            )
            add(x, z)
            if rng.random() < 0.3:
                add(x + rng.choice([-0.55, 0.55]), z + rng.uniform(-0.2, 0.4))
    if plan.zebra is not None:
        for _ in range(rng.poisson(1.3)):
            add(rng.uniform(-plan.road, plan.road), plan.zebra + rng.uniform(0.4, 2.6))
