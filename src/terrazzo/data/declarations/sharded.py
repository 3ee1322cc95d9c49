"""Images and labels in shards: tar archives as webdataset has them, and parquet files of the Hugging Face Hub."""

from __future__ import annotations

import glob
import re
from collections.abc import Iterator
from pathlib import Path

from terrazzo.data.discovery.files import role_of
from terrazzo.data.pairs import ending_of
from terrazzo.data.spec import IMAGE_SUFFIXES, LABEL_SUFFIXES, Listing, Source, declare
from terrazzo.errors import UserError
from terrazzo.transforms.members import SHARDS, cells, open_parquet, row_name, tar_members, version

BRACES = re.compile(r"\{(\d+)\.\.(\d+)\}")
Pairs = Iterator[tuple[Path, Path | None]]


def read_shards(source: Source) -> Listing:
    """The pairs in all shards of `img_path`; `seg_map_path` is the end of the labels' names, or their column."""
    shards = list(shard_files(source.images))
    if not shards:
        raise UserError(f"there is no shard {source.images}: name .tar or .parquet files, such as train-*.tar")
    label = None if source.labels is None else source.labels.name
    readers = {".tar": tar_pairs, ".parquet": parquet_pairs}
    wrong = next((shard for shard in shards if shard.suffix.lower() not in readers), None)
    if wrong is not None:
        raise UserError(f"{wrong} is not a shard: they are {' and '.join(SHARDS)} files")
    pairs = [pair for shard in shards for pair in readers[shard.suffix.lower()](shard, label)]
    if not pairs:
        raise UserError(f"{shards[0]} contains no image{'' if label is None else f' with a label ({label})'}")
    return Listing(pairs, ())


def shard_files(pattern: Path) -> Iterator[Path]:
    """The files of a pattern, which may count as in `train-{0000..0012}.tar`; of a folder its shards."""
    text = str(pattern)
    found = BRACES.search(text)
    if found:
        for number in range(int(found[1]), int(found[2]) + 1):
            yield from shard_files(Path(text.replace(found[0], str(number).zfill(len(found[1])))))
    elif pattern.is_dir():
        yield from sorted(path for path in pattern.iterdir() if path.suffix.lower() in SHARDS)
    else:
        yield from sorted(Path(path) for path in glob.glob(text, recursive=True) if Path(path).is_file())  # noqa: PTH207


def tar_pairs(shard: Path, label: str | None) -> Pairs:
    """Images and labels of a tar archive, in their order: files of one name up to the first dot."""
    samples: dict[str, list[str]] = {}
    for name in tar_members(shard, version(shard)):
        folder, _, file = name.rpartition("/")
        samples.setdefault(f"{folder}/{file.partition('.')[0]}", []).append(name)
    for key, names in samples.items():
        ends = {name: name[name.rfind("/") + 1 :].partition(".")[2] for name in names}
        labels = [name for name, end in ends.items() if (end == label if label is not None else is_label(end))]
        images = [name for name in names if name not in labels and ending_of(name, IMAGE_SUFFIXES)]
        if label is None and not labels and len(images) == 2:  # photograph and map
            labels = [name for name in images if name.lower().endswith((".png", ".npy"))][-1:]
            images = [name for name in images if name not in labels]
        if len(images) != 1 or len(labels) != 1:
            if not images and not labels:
                continue
            raise UserError(
                f"{shard}: the sample {key.strip('/')} has {', '.join(ends.values())}, in which one image and one "
                f"label {'cannot be told' if label is None else f'({label}) are not found'}: name the end of the "
                "labels' names, `labels: seg.png` (seg_map_path)"
            )
        yield shard / images[0], shard / labels[0]


def is_label(end: str) -> bool:
    """Return whether the end of a name, such as `seg.png`, is that of a label."""
    return ending_of(f".{end}", LABEL_SUFFIXES) is not None and role_of(end.rpartition(".")[0]).kind == "label"


def parquet_pairs(shard: Path, label: str | None) -> Pairs:
    """Images and labels of the rows of a parquet file."""
    from terrazzo.data.converters.parquet import columns_of, suffix_of

    key = version(shard)
    table = open_parquet(shard, key)
    image, found = columns_of(shard, table.schema_arrow)
    if label is not None and label not in table.schema_arrow.names:
        raise UserError(f"{shard} has no column '{label}' (seg_map_path): it has {', '.join(table.schema_arrow.names)}")
    columns = [image, label or found]
    first = [next((cell for cell in cells(shard, key, 0, column) if cell), b"") for column in columns]
    suffixes = [suffix_of(cell) for cell in first]
    for group in range(table.num_row_groups):
        for row in range(table.metadata.row_group(group).num_rows):
            names = [row_name(group, row, *about) for about in zip(columns, suffixes, strict=True)]
            yield shard / names[0], shard / names[1]


SHARDED = declare(
    name="ShardedDataset",
    about="Images and labels in tar archives (webdataset) or parquet files (Hugging Face), read in place.",
    aliases=("shards", "webdataset"),
    read=read_shards,
)
