"""The converter of NYU depth."""

from __future__ import annotations

from terrazzo.data.converters.base import Job, Options, converter, copy
from terrazzo.data.converters.raw import Raw


@converter(
    "nyu",
    "NYUDataset",
    "sync.zip (kitchen_0028b/rgb_00045.jpg, sync_depth_00045.png) and official_splits/test",
    example="sync/kitchen_0028b/rgb_00045.jpg, with sync_depth_00045.png",
    splits=("train", "test"),
)
def nyu(raw: Raw, options: Options) -> list[Job]:
    """Colour images with their depth in millimetres, named after the room; images without depth are skipped.

    `test` folders hold the test set; training data are the synchronised frames, else the official training half.
    """
    depths = {
        (path.parent, path.stem.removeprefix("sync_depth_")): path
        for path in raw.matching_files("*/*/sync_depth_*.png")
    }
    jobs = []
    found = raw.matching_files("*/*/rgb_*.jpg")
    official = [path for path in found if "official_splits" in raw.files[path]]
    synchronised = [path for path in found if path not in set(official) and "test" not in raw.files[path]]
    for path in found:
        key = (path.parent, path.stem.removeprefix("rgb_"))
        split = "test" if "test" in raw.files[path] else "train"
        if key not in depths or (split == "train" and synchronised and path in set(official)):
            continue
        name = f"{path.parent.name}_{key[1]}"
        jobs += [copy(f"images/{split}/{name}.jpg", path), copy(f"annotations/{split}/{name}.png", depths[key])]
    return jobs
