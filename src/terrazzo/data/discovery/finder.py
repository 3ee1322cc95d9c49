"""The finder of images and labels in a folder, of `data init`, `data check DIR` and `--data-root` alike."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from os.path import commonprefix
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from terrazzo.data.discovery.files import IMAGE_WORDS, LABEL_WORDS, SPLIT_WORDS, FileTree, split_of, split_word
from terrazzo.data.discovery.layouts import HELD_OUT, FolderLayout, section_pairs, with_unlabelled
from terrazzo.data.pairs import PairingError
from terrazzo.data.spec import IMAGE_SUFFIXES
from terrazzo.errors import UserError
from terrazzo.system.text import read_json, read_text
from terrazzo.transforms.formats.base import LABEL_FORMATS
from terrazzo.transforms.formats.shapes import ListedImages, read_content

LABEL_MARKS = ("_mask", "_label", "_labels", "_seg", "_gt", "_segmentation", "_annotation", "-mask", "-label", ".mask")
ANY_SPLIT = "/{split}"  # at the end of a path, below which the short form looks for splits anyway
MOST_INDEX_FILES = 12  # in a folder; more JSON files are one per image
NO_INDEX = "submission"  # in the name of a table that shows the form of results
SHAPE_SUFFIXES = (".json", ".txt")  # of labels that are not pictures
MOST_TRIED = 20  # files of one suffix whose format is looked for
MOST_KINDS = 20  # label files compared with one image
NOT_LABELS = ("classes", "labels", "notes")  # stems of text files beside labels
# of several kinds of label pictures for each image, those with the first word in their ending are taken
PREFERRED_ENDINGS = ("trainids", "labelids", "")
AVOIDED_ENDINGS = ("color", "colour", "instance")

Pictures = Mapping[PurePosixPath, Sequence[PurePosixPath]]


def find_layout(root: Path) -> FolderLayout:
    """The images and labels below a folder. Raises UserError, naming what is looked for, if there are none."""
    if not root.is_dir():
        raise UserError(f"there is no folder {root}")
    tree = FileTree(root)
    pictures = tree.holding(IMAGE_SUFFIXES)
    if not pictures:
        raise UserError(f"{root} holds no image ({', '.join(IMAGE_SUFFIXES)})")
    of_tables = partial(index_files, suffix=".csv")  # masks beside them are surer than their run lengths
    for strategy in (partial(index_files, suffix=".json"), two_folders, one_folder, of_tables):
        layout = strategy(tree, pictures)
        if layout is not None:
            return with_unlabelled(without_unlabelled_test(layout))
    raise UserError(
        f"{root}: which files are images and which are labels? Looked for images/ and labels/ (or masks, annotations, "
        "img_dir and ann_dir, JPEGImages and SegmentationClass ...), with train/ and val/ in or above them; for labels "
        "beside the images (a.jpg and a_mask.png, a.json, a.txt); and for a COCO file"
    )


def without_unlabelled_test(layout: FolderLayout) -> FolderLayout:
    """The layout without its test split if none of the test images has a label, as benchmarks publish them."""
    if "test" not in layout.splits or len(layout.splits) == 1:
        return layout
    try:
        labelled = any(label is not None for _, label in section_pairs(layout.section("test"), strict=False))
    except PairingError:  # its list names images that are not there
        labelled = False
    if labelled:
        return layout
    return replace(layout, splits={split: word for split, word in layout.splits.items() if split != "test"})


# Splits


class Location(NamedTuple):
    """The images and labels (a folder or a COCO file) of a split, and the word in their paths that names it."""

    images: PurePosixPath
    labels: PurePosixPath
    word: str


Combined = tuple[
    str, str, dict[str, "str | float"]
]  # images and labels, {split} in the paths, each split's word for it


def combine(found: Mapping[str, Location], tree: FileTree, pictures: Pictures) -> Combined:
    """The common form of the locations of splits; the split "" is that of images which no folder assigns to one."""
    named = {split: found[split] for split in SPLIT_WORDS if split in found}
    if "" in found and "train" not in named:
        return whole(found[""], tree)

    # splits whose folders have nothing in common cannot be written as one entry: the first one is taken alone
    patterns = common_patterns(named)
    if patterns is None or "{split}" not in patterns[0]:
        split, location = next(iter(named.items()))
        named, patterns = {split: location}, common_patterns({split: location})
        if patterns is None or "{split}" not in patterns[0]:
            return whole(location, tree)
    images, labels = patterns
    splits: dict[str, str | float] = {split: location.word for split, location in named.items()}

    # validation images without labels are a mistake, which whoever opens the split reports
    parent = PurePosixPath(images.partition("{split}")[0])
    for word in tree.subfolders.get(parent, ()) if "train" in splits and "val" not in splits else ():
        folder = PurePosixPath(images.replace("{split}", word))
        if split_of(word) == "val" and any(folder in (path, *path.parents) for path in pictures):
            splits["val"] = word
    if "train" in splits and "val" not in splits:
        splits["val"] = HELD_OUT
    return images, labels, splits


def whole(location: Location, tree: FileTree) -> Combined:
    """All images of a folder, with the lists that assign them to splits if there are any."""
    listed = tree.split_lists(PurePosixPath(), location.images.parent)
    splits: dict[str, str | float] = {**(listed or {"train": ""})}
    if "train" in splits and "val" not in splits:
        splits["val"] = HELD_OUT
    return str(location.images), str(location.labels), splits


def common_patterns(found: Mapping[str, Location]) -> tuple[str, str] | None:
    """The paths of images and of labels with {split} for each split's word; None where the splits differ otherwise."""
    images = {with_split(location.images, location.word) for location in found.values()}
    labels = {with_split(location.labels, location.word) for location in found.values()}
    return (images.pop(), labels.pop()) if len(images) == len(labels) == 1 else None


def with_split(path: PurePosixPath, word: str) -> str:
    """A path with {split} for the folder called `word`, or for that word in the file's name."""
    if word in path.parts:
        index = path.parts.index(word)
        return str(PurePosixPath(*path.parts[:index], "{split}", *path.parts[index + 1 :]))
    return str(path.with_name(path.name.replace(word, "{split}", 1))) if path.name else str(path)


# Two folders


class Counterpart(NamedTuple):
    """A folder of images and one of labels whose paths differ in one word."""

    images: PurePosixPath
    labels: PurePosixPath
    image_word: str
    label_word: str

    def location(self) -> Location:
        """The folders of the split, above those inside it such as one for each city."""
        word = split_word(self.images.parts)
        return Location(up_to(self.images, self.image_word, word), up_to(self.labels, self.label_word, word), word)


def up_to(folder: PurePosixPath, *words: str) -> PurePosixPath:
    """The part of a path that ends with the last of these words."""
    return PurePosixPath(*folder.parts[: 1 + max(folder.parts.index(word) for word in words if word)])


def two_folders(tree: FileTree, pictures: Pictures) -> FolderLayout | None:
    """Images in one folder and labels in another, by the words for them in their paths."""
    pairs = [pair for folder in pictures for pair in counterparts(folder, tree)]
    if not pairs:
        return None
    example = pairs[0]  # where there are several kinds of labels, the first of LABEL_WORDS counts
    found: dict[str, Location] = {}
    for pair in pairs:
        if pair[2:] == example[2:]:
            location = pair.location()
            found.setdefault(split_of(location.word) or "", location)
    images, labels, splits = combine(found, tree, pictures)
    images_of, labels_of = zip(*((str(one.images), str(one.labels)) for one in found.values()), strict=True)
    return FolderLayout(
        tree.root,
        images.removesuffix(ANY_SPLIT),
        labels.removesuffix(ANY_SPLIT),
        splits,
        label_form(tree, example.labels),
        *common_endings(tree.folders[example.images], tree.folders[example.labels]),
        found=f"found {', '.join(images_of)} and {', '.join(labels_of)}",
    )


def counterparts(images: PurePosixPath, tree: FileTree) -> Iterator[Counterpart]:
    """The folders of labels for a folder of images."""
    for index, part in enumerate(images.parts):
        if part.lower() not in IMAGE_WORDS:
            continue
        parent, below = PurePosixPath(*images.parts[:index]), images.parts[index + 1 :]
        siblings = [name for name in tree.subfolders.get(parent, ()) if name.lower() in LABEL_WORDS]
        for name in sorted(siblings, key=lambda name: LABEL_WORDS.index(name.lower())):
            labels = parent.joinpath(name, *below)
            if label_form(tree, labels) != "":
                yield Counterpart(images, labels, part, name)


def label_form(tree: FileTree, folder: PurePosixPath) -> str | None:
    """The format of labels: None for pictures, or an empty string for files that are not labels."""
    paths = [path for path in tree.folders.get(folder, ()) if path.stem not in NOT_LABELS]
    if any(path.suffix.lower() in IMAGE_SUFFIXES for path in paths):
        return None
    return shape_format(tree.root, paths) or ""


def shape_format(root: Path, paths: Sequence[PurePosixPath]) -> str | None:
    """The format that recognises the first JSON or text file of which one does, of labels with a file for each image.

    Raises UserError for a damaged file.
    """
    forms = {name: form for name in LABEL_FORMATS if not (form := LABEL_FORMATS.get(name)).is_index}
    for suffix in SHAPE_SUFFIXES:
        fitting = {name: form for name, form in forms.items() if suffix in form.suffixes}
        for path in [path for path in paths if path.suffix.lower() == suffix][:MOST_TRIED]:
            content = read_json(root / path) if suffix == ".json" else read_text(root / path)
            for name, form in fitting.items():
                if form.recognises(content):
                    return name
    return None


def common_endings(images: Sequence[PurePosixPath], labels: Sequence[PurePosixPath]) -> tuple[str | None, str | None]:
    """The endings that images and labels add to a common name; None where these are mere suffixes."""
    ours, theirs = [path.name for path in images], {path.name for path in labels}
    stems, others = {PurePosixPath(name).stem for name in ours}, {PurePosixPath(name).stem for name in theirs}
    if len(stems & others) * 2 >= len(stems):
        return None, None
    first = next(name for name in ours if name.lower().endswith(IMAGE_SUFFIXES))
    stem = PurePosixPath(first).stem
    starts = {label: commonprefix([stem, PurePosixPath(label).stem]).rstrip("_-.") for label in theirs}  # noqa: RUF071 - by characters
    fitting = []
    for label in sorted(theirs, key=lambda label: (-len(starts[label]), label))[:MOST_KINDS]:
        ending, label_ending = first[len(starts[label]) :], label[len(starts[label]) :]
        if starts[label] and label_ending.lower().endswith((*IMAGE_SUFFIXES, *SHAPE_SUFFIXES)):
            paired = sum(one.endswith(ending) and one.removesuffix(ending) + label_ending in theirs for one in ours)
            if paired * 2 >= len(ours):
                fitting.append((ending, label_ending))
    return min(fitting, key=lambda pair: ending_rank(pair[1]), default=(None, None))


def ending_rank(ending: str) -> tuple[bool, int, int, str]:
    """The order in which endings of labels are preferred, the best one first."""
    lowered = ending.lower()
    avoided = any(word in lowered for word in AVOIDED_ENDINGS)
    preferred = next(index for index, word in enumerate(PREFERRED_ENDINGS) if word in lowered)
    return avoided, preferred, len(ending), ending


# One folder


Beside = tuple["str | None", "str | Sequence[str] | None", "str | None"]  # label_format, image_suffix, label_suffix


def one_folder(tree: FileTree, pictures: Pictures) -> FolderLayout | None:
    """Labels beside their images: pictures with another ending, or JSON or text files."""
    found: dict[str, Location] = {}
    forms: dict[PurePosixPath, Beside] = {}
    for folder in pictures:
        form = labels_beside(tree, folder)
        if form is not None:
            word = split_word(folder.parts)
            found.setdefault(split_of(word) or "", Location(folder, folder, word))
            forms[folder] = form
    if not found:
        return None
    images, labels, splits = combine(found, tree, pictures)
    first = found.get("train") or found.get("") or next(iter(found.values()))
    return FolderLayout(tree.root, images, labels, splits, *forms[first.images], found="labels beside their images")


def labels_beside(tree: FileTree, folder: PurePosixPath) -> Beside | None:
    """The form of the labels among images; None where most images have none."""
    paths = tree.folders[folder]
    pictures = {path.name.lower() for path in paths if path.suffix.lower() in IMAGE_SUFFIXES}
    {path.name.lower() for path in paths}
    for ending in LABEL_MARKS:
        labels = {name for name in pictures if name.rpartition(".")[0].endswith(ending)}
        images = {name.rpartition(".")[0]: name.rpartition(".")[2] for name in pictures - labels}
        fitting = {
            label.rpartition(".")[2] for label in labels if label.rpartition(".")[0].removesuffix(ending) in images
        }
        if labels and len(labels) * 2 >= len(images) and fitting:
            found = sorted({f".{suffix}" for suffix in images.values()})
            return None, found[0] if len(found) == 1 else found, f"{ending}.{min(fitting)}"
    stems = {picture.rpartition(".")[0] for picture in pictures} | pictures
    beside = [path for path in paths if path.suffix.lower() in SHAPE_SUFFIXES and path.stem.lower() in stems]
    name = shape_format(tree.root, beside)
    return (name, None, None) if name else None


# One file for many images


def index_files(tree: FileTree, pictures: Pictures, suffix: str) -> FolderLayout | None:
    """Files with the labels of many images, and the folders of the images that they list."""
    found: dict[str, Location] = {}
    forms: dict[PurePosixPath, str] = {}
    for paths in tree.holding((suffix,)).values():
        for path in paths if len(paths) <= MOST_INDEX_FILES else ():
            name, listed = index_format(tree.root / path)
            word = split_word((*re.split(r"[-_.]", path.stem), *path.parts[:-1]))  # such as instances_train2017
            folder = folder_of(listed, pictures, word)
            if folder is not None:
                found.setdefault(split_of(word) or "", Location(folder, path, word))
                forms[path] = name
    if not found:
        return None
    first = forms[(found.get("train") or next(iter(found.values()))).labels]
    found = {split: location for split, location in found.items() if forms[location.labels] == first}
    images, labels, splits = combine(found, tree, pictures)
    kind = f"{first} files, one for each split" if len(found) > 1 else f"one {first} file"
    return FolderLayout(tree.root, images.removesuffix(ANY_SPLIT), labels, splits, first, found=kind)


def index_format(path: Path) -> tuple[str, Collection[str]]:
    """The format of a file with the labels of many images, and these images; none for any other file."""
    forms = {name: form for name in LABEL_FORMATS if (form := LABEL_FORMATS.get(name)).is_index}
    if NO_INDEX in path.stem.lower():
        return "", ()
    try:
        content = read_content(path)
    except UserError:  # whoever reads it for its labels reports it
        return "", ()
    for name, form in forms.items():
        listed = form.recognises(content) if path.suffix.lower() in form.suffixes else ()
        if listed:
            return name, listed
    return "", ()


def folder_of(listed: Collection[str], pictures: Pictures, word: str) -> PurePosixPath | None:
    """The folder below which images of these names are stored, that of the split if there are several."""
    names, found = ListedImages(listed), set()
    for folder, paths in pictures.items() if listed else ():
        for parent in (folder, *folder.parents):
            if any(path.relative_to(parent).as_posix() in names.names for path in paths):
                found.add(parent)
        if any(names.name_of(PurePosixPath(path.name)) is not None for path in paths):
            found.add(folder)
    return min(found, key=lambda folder: (word not in folder.parts, len(folder.parts), folder), default=None)
