"""COCO's annotations: one JSON file for many images."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from terrazzo.errors import UserError, some
from terrazzo.transforms.formats.base import LABEL_FORMATS
from terrazzo.transforms.formats.raster import Patch, rings, run_lengths, trimmed
from terrazzo.transforms.formats.shapes import IGNORED_NAME, IndexLabels


@LABEL_FORMATS.register(name="coco")
class CocoLabels(IndexLabels):
    """Polygons and run lengths of a COCO file (Lin et al., ECCV 2014).

    A polygon inside another one of the same object is a hole unless `holes` is false, as in pycocotools. `crowd` is
    `class`, or `ignore` for regions marked as crowds. Categories of one name are one class; an object without a
    segmentation, a mere box, covers nothing.
    """

    names_classes = True
    usual_order = "area"
    noun = "object"
    about = "a COCO file with images, annotations and categories"

    def __init__(
        self, root: Path, order: str = "", line_width: int = 0, holes: bool = True, crowd: str = "class"
    ) -> None:
        if crowd not in ("class", "ignore"):
            raise UserError(f"label_format: crowd is 'class' or 'ignore', not {crowd!r}")
        self.holes, self.crowd = holes, crowd
        super().__init__(root, order, line_width)

    @classmethod
    def recognises(cls, content: Any) -> list[str]:
        names = super().recognises(content)
        return names if names and any(one.get("segmentation") for one in content["annotations"]) else []

    @classmethod
    def images(cls, content: Any) -> Mapping[str, Any]:
        categories = {entry["id"]: str(entry["name"]) for entry in content["categories"]}
        labels: dict[str, dict[str, Any]] = {}
        by_id: dict[Any, dict[str, Any]] = {}
        for entry in content["images"]:
            label = labels.setdefault(str(entry["file_name"]), {**entry, "objects": []})
            if by_id.setdefault(entry["id"], label) is not label:
                raise UserError(f"two of its images have the id {entry['id']}")
        for annotation in content["annotations"]:
            if annotation["image_id"] not in by_id:
                raise UserError(
                    f"annotation {annotation.get('id')} belongs to image {annotation['image_id']}, which `images` does "
                    "not list"
                )
            by_id[annotation["image_id"]]["objects"].append((annotation, categories))
        return labels

    @classmethod
    def classes(cls, content: Any) -> list[str]:
        return [str(entry["name"]) for entry in content["categories"]]

    def describe(self, paths: Sequence[Path]) -> tuple[tuple[str, ...], str]:
        names, source = super().describe(paths)
        repeated = [name for name, count in Counter(self.listed_classes).items() if count > 1]
        return names, f"{source}; one class for several categories called {some(repeated)}" if repeated else source

    def size_of(self, content: Any) -> tuple[Any, Any]:
        return content.get("height"), content.get("width")

    def objects(self, content: Any) -> Any:
        return content["objects"]

    def place(self, item: Any, number: int) -> str:
        return f"annotation {item[0].get('id')}"

    def name_of(self, item: Any) -> str:
        annotation, categories = item
        if annotation["category_id"] not in categories:
            raise ValueError(f"category {annotation['category_id']}, which `categories` does not list")
        is_ignored = self.crowd == "ignore" and annotation.get("iscrowd")
        return IGNORED_NAME if is_ignored else categories[annotation["category_id"]]

    def covers(self, item: Any) -> bool:
        return bool(item[0].get("segmentation"))

    def patch(self, item: Any, size: tuple[int, int]) -> Patch:
        segmentation = item[0]["segmentation"]
        if not isinstance(segmentation, dict):
            return rings(segmentation, size, self.holes)
        own = tuple(int(side) for side in segmentation["size"])
        if own != size:
            raise ValueError(f"run lengths for {own[0]}x{own[1]} pixels in an image of {size[0]}x{size[1]}")
        return trimmed(run_lengths(segmentation["counts"], *size))
