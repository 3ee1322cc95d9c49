"""The converter of parquet files, in which the Hugging Face Hub publishes data sets."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from terrazzo.data.converters.base import Job, Options, converter, copy
from terrazzo.data.converters.raw import Missing, Raw
from terrazzo.data.discovery.files import role_of, split_of, split_word, words_in
from terrazzo.data.spec import declare, parts
from terrazzo.errors import UserError
from terrazzo.system.extras import import_extra
from terrazzo.transforms.opening import PNG

PARQUET = declare(
    name="ParquetDataset",
    about="Images and labels from parquet files, as `terrazzo data convert parquet` writes them.",
    layout=parts("images/{}", "labels/{}", "train", "val", "test"),
    data_prefix={"img_path": "images", "seg_map_path": "labels"},
)


@converter(
    "parquet",
    "ParquetDataset",
    "the .parquet files of a data set of the Hugging Face Hub, with a column of images and one of labels",
    example="data/train-00000-of-00001.parquet",
    splits=("train", "val", "test"),
    optional=("val", "test"),
)
def parquet(raw: Raw, options: Options) -> list[Job]:
    """The rows of each split, numbered, and the files that name classes."""
    files = raw.matching_files("*.parquet")
    if not files:
        raise Missing("there are no .parquet files")
    jobs, counts = [], dict.fromkeys(PARQUET.layout, 0)
    for path in files:
        split = split_of(split_word((*words_in(path.stem), path.parent.name))) or "train"
        table = open_parquet(path)
        columns = columns_of(path, table.schema_arrow)
        first = next(rows(path, 0, columns), None)
        for group in range(table.num_row_groups):
            start, count = counts[split], table.metadata.row_group(group).num_rows
            folders = ("images", "labels")[: len(first or ())]
            outputs = [
                f"{folder}/{split}/{number:06d}{suffix_of(example)}"
                for number in range(start, start + count)
                for folder, example in zip(folders, first or (), strict=True)
            ]
            jobs.append(Job(tuple(outputs), partial(contents, path, group, columns)))
            counts[split] += count
    return [*jobs, *(copy(path.name, path) for path in raw.matching_files("id2label.json")[:1])]


def open_parquet(path: Path) -> Any:
    """Open a parquet file. Raises UserError for a damaged one, and where the library is missing."""
    pyarrow = import_extra("pyarrow", "parquet", "parquet files")
    parquet = import_extra("pyarrow.parquet", "parquet", "parquet files")
    try:
        return parquet.ParquetFile(path)
    except (pyarrow.ArrowException, OSError) as error:
        raise UserError(f"cannot read {path}: {error}") from error


def columns_of(path: Path, schema: Any) -> list[str]:
    """The columns of images and of labels. Raises UserError where the names of the columns do not tell."""
    pictures = [field.name for field in schema if "bytes" in str(field.type) or "binary" in str(field.type)]
    labels = [name for name in pictures if role_of(name).kind == "label"]
    images = [name for name in pictures if name not in labels and role_of(name).kind == "image"] or [
        name for name in pictures if name not in labels
    ]
    if not images:
        raise UserError(f"{path}: none of its columns ({', '.join(schema.names)}) holds images")
    if not labels:
        raise UserError(f"{path}: which column holds the labels? Its columns of pictures are {', '.join(pictures)}")
    return [images[0], labels[0]]


def rows(path: Path, group: int, columns: Sequence[str]) -> Iterator[list[bytes]]:
    """The encoded image and label of each row of a group; the image alone where there is no label."""
    for row in open_parquet(path).read_row_group(group, columns=list(columns)).to_pylist():
        cells = (row[name]["bytes"] if isinstance(row[name], dict) else row[name] for name in columns)
        yield [cell for cell in cells if cell is not None]


def contents(path: Path, group: int, columns: Sequence[str]) -> list[bytes]:
    """The encoded pictures of a group of rows, in order."""
    return [cell for row in rows(path, group, columns) for cell in row]


def suffix_of(picture: bytes) -> str:
    """The suffix for an encoded picture."""
    kinds = {PNG: ".png", b"\xff\xd8": ".jpg", b"II*\0": ".tif", b"MM\0*": ".tif", b"RIFF": ".webp", b"BM": ".bmp"}
    return next((suffix for start, suffix in kinds.items() if picture.startswith(start)), ".png")
