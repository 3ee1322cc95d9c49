"""COCO's annotations: one JSON file for many images."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from terrazzo.errors import UserError, some
from terrazzo.transforms.formats.base import LABEL_FORMATS, LabelFormat, read_json
from terrazzo.transforms.formats.raster import Patch, Shape, check_order, paint, rings, run_lengths
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
