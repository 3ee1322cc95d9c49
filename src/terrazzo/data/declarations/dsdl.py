"""Data sets described in DSDL, the data set description language of OpenDataLab."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from terrazzo.config.reading.markup import read_yaml
from terrazzo.data.spec import Listing, Source, declare
from terrazzo.errors import UserError
from terrazzo.system.text import read_json


def read_dsdl(source: Source) -> Listing:
    """The images, label maps and classes of a DSDL file such as `set-train/train.yaml`.

    Class 0 is the background; those of the class domain count from 1. Raises UserError for missing entries.
    """
    path = source.ann_file
    if path is None:
        raise UserError("DSDLSegDataset needs ann_file, the DSDL file of a split (dsdl/.../set-train/train.yaml)")
    content = load(path)
    definitions = imported(path, content)
    try:
        data = content["data"]
        kind, domain = re.fullmatch(r"(\w+)\[\s*\w+\s*=\s*(\w+)\s*\]", data["sample-type"]).groups()  # type: ignore[union-attr]
        fields = definitions[kind]["$fields"]
        image_key = next(key for key, field in fields.items() if field.split("[")[0] == "Image")
        label_key = next(key for key, field in fields.items() if field.split("[")[0] == "LabelMap")
        classes = [str(name).split("[")[0] for name in definitions[domain]["classes"]]
        where = data.get("sample-path", "$local")
        samples = data["samples"] if where == "$local" else load(path.parent / where)["samples"]
        pairs = [
            (source.images / sample[image_key], (source.labels or source.images) / sample[label_key])
            for sample in samples
        ]
    except (KeyError, TypeError, AttributeError, StopIteration) as error:
        raise UserError(
            f"{path} does not describe a segmentation data set ({type(error).__name__}: {error}): it needs "
            "data.sample-type `Struct[cdom=Domain]`, that struct with an Image and a LabelMap field, the class domain, "
            "and samples"
        ) from error
    return Listing([*pairs], ("background", *classes))


def imported(path: Path, content: dict[str, Any]) -> dict[str, Any]:
    """The definitions of a file and of the files that it imports."""
    found = dict(content)
    for name in content.get("$import") or ():
        target = path.parent / f"{name}.yaml"
        if target.is_file():  # common templates may be elsewhere; the reader names missing definitions
            found |= imported(target, load(target))
    return found


def load(path: Path) -> dict[str, Any]:
    """Read a YAML or JSON file. Raises UserError naming it."""
    return read_json(path) if path.suffix == ".json" else read_yaml(path)


DSDL = declare(
    name="DSDLSegDataset",
    aliases=("dsdl",),
    about="Any data set with a description in DSDL; `used_labels` chooses classes by name.",
    layout={
        split: {
            "data_prefix": {"img_path": "raw", "seg_map_path": "raw"},
            "ann_file": f"dsdl/dsdl_SemSeg_full/set-{split}/{split}.yaml",
        }
        for split in ("train", "val")
    },
    read=read_dsdl,
)
