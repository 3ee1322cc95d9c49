"""Volumes of the Medical Segmentation Decathlon, listed in a dataset.json."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from terrazzo.data.spec import Listing, Source, declare, endings
from terrazzo.errors import UserError
from terrazzo.system.text import read_json


def read_dataset_json(source: Source) -> Listing:
    """The volumes and classes of a task's dataset.json (`training` in training, `test` in test mode).

    Raises UserError for a file that is missing or lacks a section, and for volumes that are not there.
    """
    path = source.ann_file or source.root / "dataset.json"
    try:
        index: dict[str, Any] = read_json(path)
        names = index["labels"]
        entries = index["test"] if source.test_mode else index["training"]
        found = [(entry, None) if isinstance(entry, str) else (entry["image"], entry.get("label")) for entry in entries]
        pairs: list[tuple[Path, Path | None]] = [
            (path.parent / image, path.parent / label if label else None)
            for image, label in found
            if not Path(image).name.startswith("._")  # left by the archive's maker
        ]
        classes = tuple(str(names[value]) for value in sorted(names, key=int))
        missing = [volume for pair in pairs for volume in pair if volume is not None and not volume.is_file()]
    except UserError as error:
        raise UserError(f"{error}; ann_file names the task's dataset.json") from None
    except (LookupError, TypeError, ValueError, AttributeError, OSError) as error:
        raise UserError(f"{path} is not a dataset.json of the Decathlon ({error}): download the task again") from error
    if missing:
        raise UserError(f"{path} lists {len(missing)} volumes that are missing, such as {missing[0]}")
    return Listing(pairs, classes)


DECATHLON = declare(
    name="DecathlonDataset",
    about="CT and MRI volumes of ten tasks (Antonelli et al., Nature Communications 2022).",
    **endings(".nii.gz", ".nii.gz"),
    layout={"train": {"ann_file": "dataset.json"}, "test": {"ann_file": "dataset.json", "test_mode": True}},
    read=read_dataset_json,
)
