"""The interface of label formats, and the classes of names in their files."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from terrazzo.arguments import check_arguments
from terrazzo.errors import UserError, nearest
from terrazzo.registry import Registry
from terrazzo.transforms.labels import IGNORED

BACKGROUND = ("background", "_background_", "__background__")
OTHER = ("error", "ignore", "background")
LABEL_FORMATS = Registry("label format", "terrazzo.transforms.formats")


@dataclass(frozen=True)
class ClassNames:
    """The classes in their order, and the treatment of other names: renamed, ignored, or by `other`.

    `other` is `error`, `ignore` or `background` and applies to every name that is not in `classes`.
    """

    classes: Sequence[str]
    renamed: Mapping[str, Any]
    ignored: Sequence[str]
    other: str = "error"

    @cached_property
    def background(self) -> int:
        """The class of pixels that nothing covers: the one called background, or IGNORED without such a class."""
        return next((index for index, name in enumerate(self.classes) if name.lower() in BACKGROUND), IGNORED)

    def index(self, name: str, where: Any) -> int:
        """The class of a name found in the file `where`. Raises UserError for an unknown name."""
        name = self.renamed.get(name, name)
        if name in self.classes:
            return list(self.classes).index(name)
        if isinstance(name, int):
            return name if 0 <= name < len(self.classes) else IGNORED
        if name in self.ignored or name == "__ignore__":
            return IGNORED
        if name.lower() in BACKGROUND:
            return self.background
        if self.other == "error":
            raise UserError(
                f"{where} has the label '{name}', which is not one of the classes {', '.join(self.classes)}"
                f"{nearest(name, self.classes)} Add it to the classes, rename it with `label_map: {{{name}: CLASS}}`, "
                f"ignore its pixels with `ignore: [{name}]`, or all such labels with `other: ignore` (or background) "
                "in the label_format"
            )
        return self.background if self.other == "background" else IGNORED


class LabelFormat:
    """A reader of label files of one form as class maps. `root` is the folder (or single file) of a split's labels."""

    suffixes: tuple[str, ...] = ()
    by_name = True  # the files name their classes, which may thus be omitted or reordered
    is_index = False  # one file holds the labels of many images
    names_classes = False  # the files name or number their classes
    unlabelled = "skip"  # the usual meaning of an image without a label: `skip`, or `background`
    own_classes: tuple[str, ...] = ()  # those that the files name, in their order
    names: ClassNames
    palette: Sequence[Sequence[int]] = ()

    def read(self, path: Path, image: Path | None, size: tuple[int, int]) -> np.ndarray:
        """The class map (H, W) of a label; `size` is the image's (height, width), or zeros if unknown."""
        raise NotImplementedError

    @classmethod
    def recognises(cls, content: Any) -> Collection[str] | bool:
        """Report whether the content of a file of these suffixes is of this format; if it `is_index`, its images."""
        return False

    def find_labels(self, images: Sequence[Path], folder: Path) -> list[Path | None]:
        """The label of each image below `folder`, for a format that `is_index`; None where the file has none."""
        raise NotImplementedError

    def describe(self, paths: Sequence[Path]) -> tuple[tuple[str, ...], str]:
        """The classes in label files, and how they were found, for a format that `names_classes`."""
        raise NotImplementedError


def make_label_format(
    spec: Any,
    root: Path,
    classes: Sequence[str] = (),
    palette: Sequence[Sequence[int]] = (),
    label_map: Mapping[Any, Any] | None = None,
    ignore: Sequence[Any] = (),
) -> LabelFormat:
    """A label format by its name, or by a dict of `type` and options. Raises UserError for an unknown one.

    Without `classes`, they are those that the files name, after `background`.
    """
    options = dict(spec) if isinstance(spec, Mapping) else {"type": spec}
    kind = options.pop("type", None)
    if not isinstance(kind, str):
        raise UserError(f"label_format must name a format ({', '.join(LABEL_FORMATS)}), not {spec!r}")
    factory = LABEL_FORMATS.get(kind, "label_format")
    other = options.pop("other", "error")
    if other not in (*OTHER, *(("nearest",) if kind == "rgb" else ())):
        raise UserError(f"label_format: other is {', '.join(OTHER)}, not {other!r}{nearest(str(other), OTHER)}")
    classes = classes or tuple(options.pop("classes", ()))
    options.pop("classes", None)
    check_arguments(factory, {"root": root, **options}, kind, "label_format")
    made = factory(root=root, **options)
    names = classes or with_background(made.own_classes)
    if not names:
        raise UserError(f"the label format {kind} needs class names: give `classes` (in a .py config: metainfo)")
    if len(names) > IGNORED:
        raise UserError(f"the label format {kind} has {len(names)} classes; a label can hold {IGNORED}: give `classes`")
    renamed = {str(old): new for old, new in (label_map or {}).items() if isinstance(old, str) and not old.isdecimal()}
    unknown = [new for new in renamed.values() if isinstance(new, str) and new not in names]
    if unknown:
        raise UserError(f"label_map: '{unknown[0]}' is not one of the classes{nearest(unknown[0], names)}")
    made.names = ClassNames(tuple(names), renamed, [name for name in ignore if isinstance(name, str)], other)
    made.palette = palette
    return made


def with_background(classes: Sequence[str]) -> tuple[str, ...]:
    """The classes, preceded by one called background if none of them is."""
    has_one = not classes or any(name.lower() in BACKGROUND for name in classes)
    return tuple(classes) if has_one else (BACKGROUND[0], *classes)


def search_upwards(root: Path, names: Sequence[str], levels: int = 3) -> Path | None:
    """The first file with one of these names in a folder or in the `levels` folders above it."""
    nearest_folder = root if root.is_dir() else root.parent
    for folder in (nearest_folder, *nearest_folder.absolute().parents[:levels]):
        for name in names:
            if (folder / name).is_file():
                return folder / name
    return None
