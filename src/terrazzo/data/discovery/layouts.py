"""The images and labels of a folder as dataset sections and as entries of the short form."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from terrazzo.config.short_form import expand as short_form
from terrazzo.data.pairs import Folders, Pair, indexed_pairs, suffixes
from terrazzo.data.spec import IMAGE_SUFFIXES, LABEL_SUFFIXES
from terrazzo.transforms.formats.base import LABEL_FORMATS, LabelFormat

HELD_OUT = 0.2  # share of the images for validation if neither folders nor lists name them


@dataclass(frozen=True)
class FolderLayout:
    """The images and labels below `root` in the words of the short form.

    `splits` gives each split of the folder: a folder's name, the file that lists its images, the share of the images
    held out for it, or an empty string for all of them. Labels without a `label_format` are pictures.
    """

    root: Path
    images: str
    labels: str
    splits: Mapping[str, str | float]
    label_format: str | Mapping[str, str] | None = None
    image_suffix: str | Sequence[str] | None = None
    label_suffix: str | Sequence[str] | None = None
    exclude: Sequence[str] = ()  # images without a label, or of another split
    unlabelled: str | None = None
    unlabelled_count: int = 0
    has_volumes: bool = False  # each slice of which is an image
    windows: int | None = None  # side of those in which scenes are read
    found: str = ""  # how it was found, for a comment
    notes: Sequence[str] = ()  # on images and labels that are left out

    @property
    def has_holdout(self) -> bool:
        """Report whether a share of the training images serves as validation images."""
        return isinstance(self.splits.get("val"), float)

    def entries(self) -> dict[str, Any]:
        """The entries of the short form's `data`. A split whose folder has the split's own name needs none."""
        splits = {
            split: word
            for split, word in self.splits.items()
            if word and (word != split or split == "test" or self.has_holdout)
        }
        form = {key: getattr(self, key) for key in ("label_format", "image_suffix", "label_suffix", "windows")}
        form |= {"exclude": list(self.exclude) or None, "unlabelled": self.unlabelled}
        given = {key: value for key, value in form.items() if value is not None}
        return {"images": self.images, "labels": self.labels, **splits, **given}

    def section(self, split: str) -> dict[str, Any]:
        """The dataset section of a split, without classes; without a test set, `test` is the validation data."""
        name = "val" if split == "test" and split not in self.splits else split
        assert name in self.splits, f"{self.root} has no {split} split"
        data = short_form.read_data({"root": str(self.root), "classes": ["any"], **self.entries()})
        section = short_form.dataset(data, name, None)
        return {key: value for key, value in section.items() if key != "metainfo"}

    def described_sections(self) -> list[dict[str, Any]]:
        """The sections whose labels show the classes: those of training and validation data, else those of any split.

        A section that is held out of another one is not repeated.
        """
        names = [split for split in ("train", "val") if split in self.splits] or list(self.splits)
        return [self.section(name) for name in names if not (name == "val" and self.has_holdout)]


def format_name(section: Mapping[str, Any]) -> str | None:
    """The name of a dataset section's label format."""
    label_format = section.get("label_format")
    return label_format.get("type") if isinstance(label_format, Mapping) else label_format


def open_format(label_format: str | Mapping[str, Any], labels: Path) -> LabelFormat:
    """The reader of the labels in a folder or file, of a format by its name or with options."""
    options = dict(label_format) if isinstance(label_format, Mapping) else {"type": label_format}
    return LABEL_FORMATS.get(options.pop("type"))(labels, **options)


def section_pairs(section: Mapping[str, Any], *, strict: bool = True) -> list[Pair]:
    """The images and label files of a dataset section, a holdout included whole.

    Raises PairingError for files that are missing; without `strict` an image may have no label.
    """
    root, folders, name = Path(section["data_root"]), section.get("data_prefix") or {}, format_name(section)
    form = LABEL_FORMATS.get(name) if name else None
    found = Folders(
        root / folders.get("img_path", ""),
        root / folders.get("seg_map_path", ""),
        suffixes(section.get("img_suffix") or IMAGE_SUFFIXES),
        suffixes(section.get("seg_map_suffix") or (form and form.suffixes) or LABEL_SUFFIXES),
        root / section["ann_file"] if section.get("ann_file") else None,
        suffixes(section.get("exclude", ())),
        section.get("unlabelled", "error"),
    )
    if form is not None and form.is_index:
        assert found.labels is not None
        return indexed_pairs(found, open_format(section["label_format"], found.labels), strict=strict)
    return found.pairs() if strict else found.candidates()
