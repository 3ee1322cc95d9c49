"""Outlines of objects: COCO, with one JSON file for many images, Labelme and YOLO, with one file for each image."""

from __future__ import annotations

import base64
import binascii
import json
import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from terrazzo.errors import UserError, some
from terrazzo.transforms.decode import decode_image, read_size
from terrazzo.transforms.formats.base import BACKGROUND, LABEL_FORMATS, LabelFormat, search_upwards
from terrazzo.transforms.formats.raster import Patch, Shape, check_order, disc, paint, polygon, rings, run_lengths
from terrazzo.transforms.labels import IGNORED


@LABEL_FORMATS.register(name="coco")
class CocoLabels(LabelFormat):
    """Polygons and run lengths of a COCO file (Lin et al., ECCV 2014); `root` is the file, or a folder with one.

    Smaller objects are painted over larger ones, or with `order: file` later ones over earlier ones. A polygon inside
    another one of the same object is a hole unless `holes` is false, as in pycocotools. `crowd` is `class`, or `ignore`
    for regions marked as crowds. The path of an image's label is FILE.json/IMAGE.
    """

    suffixes = (".json",)
    is_index = True

    def __init__(self, root: Path, order: str = "area", holes: bool = True, crowd: str = "class") -> None:
        check_order(order)
        if crowd not in ("class", "ignore"):
            raise UserError(f"label_format: crowd is 'class' or 'ignore', not {crowd!r}")
        self.order, self.holes, self.crowd = order, holes, crowd
        self.file = single_json(root)
        content = read_json(self.file)
        try:
            self.categories = {entry["id"]: str(entry["name"]) for entry in content["categories"]}
            self.images = {Path(str(entry["file_name"])).as_posix(): entry for entry in content["images"]}
            known = {entry["id"] for entry in content["images"]}
            self.annotations: dict[Any, list[dict[str, Any]]] = defaultdict(list)
            for annotation in content["annotations"]:
                if annotation["image_id"] not in known:
                    raise UserError(
                        f"{self.file}: annotation {annotation.get('id')} belongs to image "
                        f"{annotation['image_id']}, which `images` does not list"
                    )
                self.annotations[annotation["image_id"]].append(annotation)
        except (KeyError, TypeError) as error:
            raise UserError(
                f"{self.file} is not a COCO file with images, annotations and categories ({error})"
            ) from error
        self.own_classes = tuple(self.categories.values())
        self.names_by_file: dict[str, list[str]] = defaultdict(list)
        for name in self.images:
            self.names_by_file[Path(name).name].append(name)

    def find_labels(self, images: Sequence[Path], folder: Path) -> list[Path]:
        names = [self.name_of(path.relative_to(folder)) for path in images]
        missing = [path for path, name in zip(images, names, strict=True) if name is None]
        if missing:
            raise UserError(
                f"{len(missing)} of {len(images)} images in {folder} are not in {self.file}: "
                f"{some(path.name for path in missing)}; add them to its "
                "`images` (without annotations if they show no object), or list the images to use in a split file"
            )
        return [self.file / str(name) for name in names]

    def name_of(self, image: Path) -> str | None:
        """The `file_name` of an image by its path below the folder: the same path, or the only one with that name."""
        if image.as_posix() in self.images:
            return image.as_posix()
        same = self.names_by_file.get(image.name, [])
        return same[0] if len(same) == 1 else None

    def read(self, path: Path, image: Path | None, size: tuple[int, int]) -> np.ndarray:
        name = path.relative_to(self.file).as_posix()
        entry = self.images[name]
        try:
            own = (int(entry["height"]), int(entry["width"]))
        except (KeyError, TypeError, ValueError):
            raise UserError(f"{self.file}: the image {name} has no height and width") from None
        shapes = []
        for annotation in self.annotations.get(entry["id"], ()):
            where = f"{self.file}, annotation {annotation.get('id')} of {name},"
            category = annotation.get("category_id")
            if category not in self.categories:
                raise UserError(f"{where} has category {category}, which `categories` does not list")
            index = self.names.index(self.categories[category], self.file)
            if self.crowd == "ignore" and annotation.get("iscrowd"):
                index = IGNORED
            shapes.append(Shape(index, self.patch(annotation.get("segmentation"), own, where)))
        return paint(shapes, own, self.names.background, self.order)

    def patch(self, segmentation: Any, size: tuple[int, int], where: str) -> Patch:
        """The pixels of an object. Raises UserError for one without an outline."""
        if not segmentation:
            raise UserError(f"{where} has no segmentation; a box alone does not make a label: remove it from the file")
        try:
            if isinstance(segmentation, dict):
                return Patch(0, 0, run_lengths(segmentation["counts"], *map(int, segmentation["size"])))
            return rings(segmentation, size, self.holes)
        except (UserError, KeyError, TypeError, ValueError, IndexError) as error:
            raise UserError(f"{where} has a broken segmentation ({error})") from error


def single_json(root: Path) -> Path:
    """A JSON file, or the only one in a folder. Raises UserError if there is not exactly one."""
    if root.is_file():
        return root
    found = sorted(root.glob("*.json")) if root.is_dir() else []
    if len(found) != 1:
        listed = f"{len(found)}: {', '.join(path.name for path in found[:5])}" if found else "none"
        raise UserError(f"{root} must be a COCO file, or a folder with one .json; it has {listed}")
    return found[0]


def read_json(path: Path) -> Any:
    """Read a JSON file. Raises UserError for a damaged one."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, OSError) as error:
        raise UserError(f"cannot read {path}: {error}") from error


@LABEL_FORMATS.register(name="labelme")
class LabelmeLabels(LabelFormat):
    """Polygons, rectangles, circles and masks, later ones over earlier ones, or with `order: area` smaller over larger.

    A shape labelled `_background_` cuts a hole; the pixels of one labelled `__ignore__` are ignored.
    """

    suffixes = (".json",)

    def __init__(self, root: Path, order: str = "file") -> None:
        check_order(order)
        self.order = order

    def read(self, path: Path, image: Path | None, size: tuple[int, int]) -> np.ndarray:
        content = read_json(path)
        try:
            own = (int(content["imageHeight"]), int(content["imageWidth"]))
            shapes = [
                Shape(self.names.index(str(shape["label"]), path), patch_of(shape, own, f"{path}, shape {number}"))
                for number, shape in enumerate(content["shapes"], 1)
            ]
        except (KeyError, TypeError, IndexError, ValueError) as error:
            if isinstance(error, UserError):
                raise
            raise UserError(f"{path} is not a Labelme file with shapes and the image's size ({error!r})") from error
        return paint(shapes, own, self.names.background, self.order)


def patch_of(shape: dict[str, Any], size: tuple[int, int], where: str) -> Patch:
    """The pixels of a shape. Raises UserError for one without an area."""
    kind, points = shape.get("shape_type") or "polygon", shape["points"]
    if kind == "polygon" and len(points) > 2:
        return polygon(points, size)
    if kind == "rectangle":
        (left, top), (right, bottom) = points[0], points[-1] if len(points) == 2 else points[2]
        return polygon([(left, top), (right, top), (right, bottom), (left, bottom)], size)
    if kind == "circle":
        return disc(points[0], math.dist(points[0], points[1]), size)
    if kind == "mask":
        return pasted_mask(shape, size, where)
    raise UserError(
        f"{where} ('{shape['label']}') is a {kind} of {len(points)} points, which covers no area: remove it"
    )


def pasted_mask(shape: dict[str, Any], size: tuple[int, int], where: str) -> Patch:
    """The pixels of a mask drawn by hand or by a model, a PNG placed at the corner of its box."""
    try:
        data = base64.b64decode(shape["mask"], validate=True)
    except binascii.Error as error:
        raise UserError(f"{where} has a damaged mask ({error})") from error
    mask = decode_image(data, "grayscale_ignore_orientation", name=where)[..., 0] > 0
    left, top = (round(number) for number in shape["points"][0])
    return Patch(top, left, mask[: size[0] - top, : size[1] - left])


NAME_FILES = ("data.yaml", "data.yml", "dataset.yaml", "classes.txt", "obj.names")


def as_names(value: Any, where: Any) -> tuple[str, ...]:
    """Class names given as a list or as a mapping from their numbers. Raises UserError for anything else."""
    if isinstance(value, Mapping) and all(index in value for index in range(len(value))):
        value = [value[index] for index in range(len(value))]
    if not isinstance(value, (list, tuple)) or not value:
        raise UserError(f"{where}: `names` must list the classes, or map their numbers from 0 on to them")
    return tuple(str(name) for name in value)


def names_in(path: Path) -> tuple[str, ...]:
    """Read class names from a data.yaml or a text file with one per line. Raises UserError for a damaged file."""
    text = path.read_text(encoding="utf-8")
    if path.suffix not in (".yaml", ".yml"):
        return tuple(line.strip() for line in text.splitlines() if line.strip())
    try:
        content = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise UserError(f"cannot read {path}: {error}") from error
    return as_names(content.get("names") if isinstance(content, Mapping) else None, path)


@LABEL_FORMATS.register(name="yolo")
class YoloLabels(LabelFormat):
    """Polygons, smaller ones over larger ones, or with `order: file` later ones over earlier ones.

    The files hold numbers, which `names` lists the names of. Without it a data.yaml or classes.txt near the labels
    does, else they number the classes without the background. An empty file stands for an image without objects.
    """

    suffixes = (".txt",)

    def __init__(self, root: Path, order: str = "area", names: Any = None) -> None:
        check_order(order)
        self.order = order
        found = search_upwards(root, NAME_FILES) if names is None else None
        if names is not None:
            self.own_classes = as_names(names, "label_format")
        elif found is not None:
            self.own_classes = names_in(found)
        self.by_name = bool(self.own_classes)

    def read(self, path: Path, image: Path | None, size: tuple[int, int]) -> np.ndarray:
        if not sum(size):
            if image is None:
                raise UserError(
                    f"{path} holds shares of the image's size: put LoadImageFromFile before LoadAnnotations"
                )
            size = read_size(image)
        numbered = self.own_classes or tuple(name for name in self.names.classes if name.lower() not in BACKGROUND)
        shapes = []
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
            where, parts = f"{path}, line {number}", line.split()
            if not parts:
                continue
            try:
                index, points = int(parts[0]), np.array(parts[1:], np.float64)
            except ValueError as error:
                raise UserError(f"{where}: '{line[:40]}' is not `class x y x y ...` ({error})") from error
            if len(points) < 6 or len(points) % 2:
                kind = "a box" if len(points) == 4 else f"{len(points)} numbers"
                raise UserError(f"{where} is {kind}, not the x and y of at least three points")
            if not 0 <= index < len(numbered):
                raise UserError(f"{where} has class {index}; there are {len(numbered)}: {', '.join(numbered)}")
            outline = points.reshape(-1, 2) * (size[1], size[0])
            shapes.append(Shape(self.names.index(numbered[index], path), polygon(outline, size)))
        return paint(shapes, size, self.names.background, self.order)
