"""Class maps in the forms that labelling tools import, each of which the label formats read back."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import Any, ClassVar
from xml.sax.saxutils import quoteattr

import numpy as np
import yaml

from terrazzo.inference.scenes.vectors import save_with_ogr
from terrazzo.system.files import write_whole
from terrazzo.system.painting import colour_map, save_class_map, save_picture
from terrazzo.system.printable import printable
from terrazzo.transforms.formats.base import BACKGROUND
from terrazzo.transforms.formats.colours import voc_colour
from terrazzo.transforms.formats.label_studio import packed
from terrazzo.transforms.formats.outlines import outlines, polygons, run_lengths
from terrazzo.transforms.georeference import apply
from terrazzo.transforms.scenes import georeference


class Tool:
    """A folder that a labelling tool opens or imports: images as they are, and their labels in its form.

    The class called background, and pixels without a class, are left unlabelled.
    """

    images: ClassVar[str] = "images"  # the folder of the images

    def __init__(self, folder: Path, classes: Sequence[str], palette: Sequence[Sequence[int]]) -> None:
        self.folder = folder
        self.classes = [" ".join(printable(name).split()) for name in classes]  # in files of XML and of lines
        self.background = next((index for index, name in enumerate(self.classes) if name.lower() in BACKGROUND), None)
        self.shown = [index for index in range(len(classes)) if index != self.background]
        self.palette = distinct(palette, self.background)

    def add(self, name: PurePosixPath, labels: np.ndarray, image: Path) -> None:
        """Write the class map (H, W) of an image, which is stored as `image` and called `name` among the images."""
        raise NotImplementedError

    def finish(self) -> None:
        """Write what all images share."""

    def masks(self, labels: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
        """The classes in a class map (H, W), each with its mask."""
        present = np.unique(labels)
        yield from ((index, labels == index) for index in self.shown if index in present)

    def colour(self, index: int) -> str:
        """The colour of a class as #rrggbb."""
        return "#{:02x}{:02x}{:02x}".format(*self.palette[index])

    def write(self, path: str, content: Any) -> None:
        """Write a file of the folder: text, or anything else as JSON."""
        file = self.folder / path
        file.parent.mkdir(parents=True, exist_ok=True)
        write_whole(file, content if isinstance(content, str) else json.dumps(content, ensure_ascii=False))

    def picture(self, path: str) -> Path:
        """The path of a picture in the folder, which can be written."""
        file = self.folder / path
        file.parent.mkdir(parents=True, exist_ok=True)
        return file


class Labelme(Tool):
    """A JSON file of polygons beside each image."""

    images = ""

    def add(self, name: PurePosixPath, labels: np.ndarray, image: Path) -> None:
        shapes: list[dict[str, Any]] = [
            {"label": self.classes[index], "points": ring, "group_id": None, "shape_type": "polygon", "flags": {}}
            for index, mask in self.masks(labels)
            for ring in outlines(mask, smallest=0)
        ]
        content: dict[str, Any] = {
            "version": "5.5.0",
            "flags": {},
            "shapes": shapes,
            "imagePath": name.name,
            "imageData": None,
        }
        size = {"imageHeight": labels.shape[0], "imageWidth": labels.shape[1]}
        self.write(f"{name.with_suffix('')}.json", content | size)

    def finish(self) -> None:
        self.write("labels.txt", "".join(f"{name}\n" for name in self.classes))


class Coco(Tool):
    """One file with the run lengths of each class in each image."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.entries: list[dict[str, Any]] = []
        self.annotations: list[dict[str, Any]] = []

    def add(self, name: PurePosixPath, labels: np.ndarray, image: Path) -> None:
        height, width = labels.shape
        number = len(self.entries) + 1
        self.entries.append({"id": number, "file_name": str(name), "height": height, "width": width})
        for index, mask in self.masks(labels):
            rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
            sides = [int(edges[-1] - edges[0] + 1) for edges in (columns, rows)]
            self.annotations.append(
                {
                    "id": len(self.annotations) + 1,
                    "image_id": number,
                    "category_id": index + 1,
                    "segmentation": run_lengths(mask),
                    "area": int(mask.sum()),
                    "bbox": [int(columns[0]), int(rows[0]), *sides],
                    "iscrowd": 0,
                }
            )

    def finish(self) -> None:
        categories = [{"id": index + 1, "name": self.classes[index], "supercategory": ""} for index in self.shown]
        content = {"images": self.entries, "annotations": self.annotations, "categories": categories}
        self.write("annotations/instances_default.json", content)


class Cvat(Tool):
    """Its "Segmentation mask 1.1": masks in the classes' colours, and the labels for a new task."""

    images = "JPEGImages"

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.names: list[str] = []

    def add(self, name: PurePosixPath, labels: np.ndarray, image: Path) -> None:
        self.names.append(str(name.with_suffix("")))
        save_picture(self.picture(f"SegmentationClass/{self.names[-1]}.png"), colour_map(labels, self.palette))

    def finish(self) -> None:
        lines = [f"{self.classes[index]}:{','.join(map(str, self.palette[index]))}::" for index in self.shown]
        name = "background" if self.background is None else self.classes[self.background]
        self.write("labelmap.txt", "\n".join(["# label:color_rgb:parts:actions", f"{name}:0,0,0::", *lines, ""]))
        self.write("ImageSets/Segmentation/default.txt", "".join(f"{name}\n" for name in self.names))
        labels = [{"name": self.classes[index], "color": self.colour(index), "attributes": []} for index in self.shown]
        self.write("task.json", labels)


class LabelStudio(Tool):
    """Tasks with brush strokes as predictions, and the labelling interface that they are for.

    The images are addressed as files of the local storage whose root is the folder.
    """

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.tasks: list[dict[str, Any]] = []

    def add(self, name: PurePosixPath, labels: np.ndarray, image: Path) -> None:
        height, width = labels.shape
        size = {"original_width": width, "original_height": height, "image_rotation": 0}
        common = {"from_name": "label", "to_name": "image", "type": "brushlabels", **size}
        result = [
            {
                "id": f"{len(self.tasks)}-{index}",
                **common,
                "value": {"format": "rle", "rle": packed(mask), "brushlabels": [self.classes[index]]},
            }
            for index, mask in self.masks(labels)
        ]
        data = {"image": f"/data/local-files/?d={self.images}/{name}"}
        self.tasks.append({"data": data, "predictions": [{"model_version": "terrazzo", "result": result}]})

    def finish(self) -> None:
        self.write("tasks.json", self.tasks)
        labels = "".join(
            f"    <Label value={quoteattr(self.classes[index])} background={quoteattr(self.colour(index))}/>\n"
            for index in self.shown
        )
        image = '  <Image name="image" value="$image" zoom="true"/>\n'
        brush = f'  <BrushLabels name="label" toName="image">\n{labels}  </BrushLabels>\n'
        self.write("interface.xml", f"<View>\n{image}{brush}</View>\n")


class GeoJson(Tool):
    """A file of polygons with holes for each image: in degrees for one with coordinates, else in its pixels."""

    def add(self, name: PurePosixPath, labels: np.ndarray, image: Path) -> None:
        found = [(index, region) for index, mask in self.masks(labels) for region in polygons(mask)]
        place, path = georeference(image), f"labels/{name.with_suffix('')}.geojson"
        if place is not None and place.crs:
            import shapely

            def on_ground(ring: list[list[int]]) -> list[tuple[float, float]]:
                return [apply(place.transform, x, y) for x, y in ring]

            shapes = [
                shapely.Polygon(on_ground(region["exterior"]), [on_ground(hole) for hole in region["holes"]])
                for _, region in found
            ]
            names = np.array([self.classes[index] for index, _ in found], object)
            save_with_ogr(self.picture(path), np.array(shapes, object), {"class": names}, place.crs)
            return
        features = [
            {
                "type": "Feature",
                "geometry": {
                    "type": "Polygon",
                    "coordinates": [[*ring, ring[0]] for ring in (region["exterior"], *region["holes"])],
                },
                "properties": {
                    "objectType": "annotation",  # of QuPath, as the classification is
                    "classification": {"name": self.classes[index], "color": self.palette[index]},
                },
            }
            for index, region in found
        ]
        self.write(path, {"type": "FeatureCollection", "features": features})


class Yolo(Tool):
    """A text file of polygons for each image, and the data.yaml that names the classes."""

    images = "images/train"

    def add(self, name: PurePosixPath, labels: np.ndarray, image: Path) -> None:
        size = np.array(labels.shape[::-1])
        lines = [
            f"{self.shown.index(index)} {' '.join(f'{share:.6f}' for share in (np.array(ring) / size).ravel())}\n"
            for index, mask in self.masks(labels)
            for ring in outlines(mask, smallest=0)
        ]
        self.write(f"labels/train/{name.with_suffix('')}.txt", "".join(lines))

    def finish(self) -> None:
        names = {number: self.classes[index] for number, index in enumerate(self.shown)}
        content = {"train": self.images, "val": self.images, "names": names}
        self.write("data.yaml", yaml.safe_dump(content, sort_keys=False, allow_unicode=True))


class FiftyOne(Tool):
    """Its JSON dataset with segmentations: masks that number the classes from 1, as it does not show 0."""

    images = "fields/images"  # beside the masks, as their paths are relative in `fields` alone
    field = "labels"

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.samples: list[dict[str, Any]] = []
        self.values = np.zeros(1 << 16, np.uint16)
        self.values[self.shown] = np.arange(1, len(self.shown) + 1)

    def add(self, name: PurePosixPath, labels: np.ndarray, image: Path) -> None:
        path = f"fields/{self.field}/{name.with_suffix('')}.png"
        save_class_map(self.picture(path), self.values[labels])
        label = {"_cls": "Segmentation", "tags": [], "mask_path": path}
        self.samples.append({"filepath": f"{self.images}/{name}", "tags": [], self.field: label})

    def finish(self) -> None:
        self.write("samples.json", {"samples": self.samples})
        names = {str(number): self.classes[index] for number, index in enumerate(self.shown, 1)}
        info = {"default_classes": list(names.values()), "default_mask_targets": names}
        self.write("metadata.json", {"media_type": "image", "info": info})
        zero = "background" if self.background is None else self.classes[self.background]
        self.write("classes.txt", "".join(f"{number} {name}\n" for number, name in {"0": zero, **names}.items()))


TOOLS: dict[str, type[Tool]] = {
    "labelme": Labelme,
    "coco": Coco,
    "cvat": Cvat,
    "label-studio": LabelStudio,
    "geojson": GeoJson,
    "yolo": Yolo,
    "fiftyone": FiftyOne,
}


def distinct(palette: Sequence[Sequence[int]], background: int | None) -> list[list[int]]:
    """The palette with a black background, or VOC's colours where two classes share one or another is black."""
    colours = [[0, 0, 0] if index == background else list(map(int, one)) for index, one in enumerate(palette)]
    shown = {tuple(colour) for index, colour in enumerate(colours) if index != background} - {(0, 0, 0)}
    if len(shown) == len(colours) - (background is not None):
        return colours
    return [[0, 0, 0] if index == background else list(voc_colour(index + 1)) for index in range(len(colours))]
