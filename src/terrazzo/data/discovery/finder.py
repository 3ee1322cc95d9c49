"""The finder of images and labels in a folder, of `data init`, `data check DIR` and `--data-root` alike."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import numpy as np

from terrazzo.data.discovery.class_folders import class_masks
from terrazzo.data.discovery.files import (
    LABEL_WORDS,
    OTHER_PICTURES,
    FileTree,
    Place,
    place_of,
    split_of,
    split_word,
    split_word_in,
    words_in,
)
from terrazzo.data.discovery.layouts import HELD_OUT, FolderLayout
from terrazzo.data.discovery.leftovers import labelled_count, with_leftovers
from terrazzo.data.discovery.lists import split_lists
from terrazzo.data.discovery.naming import Rule, joined, naming_rule
from terrazzo.data.discovery.scenes import polygons_and_scenes, with_windows
from terrazzo.data.discovery.splits import ANY_SPLIT, Location, Pictures, combine
from terrazzo.data.discovery.volumes import volumes_and_labels
from terrazzo.data.spec import IMAGE_SUFFIXES, LABEL_SUFFIXES
from terrazzo.errors import UserError, some
from terrazzo.system.text import read_json, read_text
from terrazzo.transforms.decode import decode_image
from terrazzo.transforms.formats.base import LABEL_FORMATS
from terrazzo.transforms.formats.shapes import ListedImages, read_content
from terrazzo.transforms.opening import read_bytes
from terrazzo.transforms.slides import SLIDE_SUFFIXES

MOST_INDEX_FILES = 12  # in a folder; more JSON files are one per image
NO_INDEX = "submission"  # in the name of a table that shows the form of results
SHAPE_SUFFIXES = (".json", ".geojson", ".txt")  # of labels that are not pictures
MOST_TRIED = 20  # files of one suffix whose format is looked for
NOT_LABELS = ("classes", "labels", "notes")  # stems of text files beside labels
MARKS = (*(word for word in LABEL_WORDS if len(word) > 1), "superpixels")  # words in the names of labels beside images
EXAMPLES = 2  # pictures of a folder whose values are read where its name says nothing
FEW_VALUES = 64  # that class maps have at most
MOST_FOLDERS = 30  # of images or labels without a counterpart by their names, whose files are compared
WAYS_IN = {  # of files that hold images and labels, but are not pictures
    ".parquet": "`terrazzo data convert parquet DIR OUT` writes the images and labels of a Hugging Face data set",
    ".gz": "unpack archives; NIfTI volumes belong in imagesTr/ and labelsTr/ (or images/ and labels/)",
    ".nii": "NIfTI volumes belong in imagesTr/ and labelsTr/ (or images/, labels/)",
    **dict.fromkeys(SLIDE_SUFFIXES, "slides: name them in a config, with `windows` and `microns`"),
    ".zip": "archives: unpack them",
    ".tar": "archives: unpack them",
    ".dcm": "DICOM: write the slices as pictures",
    ".xml": "boxes or outlines in XML: export them as masks, COCO or Labelme",
    ".mat": "MATLAB arrays: write them as pictures or .npy",
    ".h5": "HDF5: write the arrays as .npy",
    ".npz": "arrays in one file: write each as .npy",
}


def find_layout(root: Path) -> FolderLayout:
    """The images and labels below a folder. Raises UserError, naming what is there instead, if there are none."""
    if not root.is_dir():
        raise UserError(f"there is no folder {root}")
    tree = FileTree(root)
    pictures = tree.holding(IMAGE_SUFFIXES)
    layout = volumes_and_labels(tree)
    if layout is not None:
        return layout
    if not pictures:
        raise UserError(f"{root} holds no image ({', '.join(IMAGE_SUFFIXES)}), but {contents(tree)}")
    for strategies in (
        (polygons_and_scenes,),
        (partial(index_files, suffix=".json"),),
        (listed_pairs,),
        (class_masks,),
        (two_folders, one_folder),
        (partial(index_files, suffix=".csv"),),  # masks beside them are surer than their run lengths
    ):
        layouts = [layout for strategy in strategies if (layout := strategy(tree, pictures)) is not None]
        if layouts:
            return with_windows(with_leftovers(max(layouts, key=labelled_count), tree))
    raise UserError(
        f"{root}: which files are images and which are labels? There are {contents(tree)}. Looked for images/ and "
        "labels/ (or masks, annotations, img_dir and ann_dir, JPEGImages and SegmentationClass ...), with train/ and "
        "val/ in or above them; for labels beside the images (a.jpg and a_mask.png, a.json, a.txt); for lists of pairs "
        "(train.txt, train.csv); and for one file of COCO, VIA, Label Studio or Kaggle's run lengths"
    )


def contents(tree: FileTree) -> str:
    """The number of files of each kind in each folder, as text, with what helps for kinds that are not read."""
    counts = {
        folder: Counter(path.suffix.lower() or path.name for path in paths) for folder, paths in tree.folders.items()
    }
    listed = some(
        (f"{count} {suffix} in {folder}/" for folder, kinds in counts.items() for suffix, count in kinds.items()), 8
    )
    ways = dict.fromkeys(way for suffix, way in WAYS_IN.items() if any(suffix in kinds for kinds in counts.values()))
    return "; ".join([listed or "nothing", *ways])


def listed_pairs(tree: FileTree, pictures: Pictures) -> FolderLayout | None:
    """Images and labels that files list in pairs."""
    files = [path for paths in tree.holding((*LABEL_SUFFIXES, ".json")).values() for path in paths]
    lists = split_lists(tree, files, pairs=True)
    if lists is None:
        return None
    images, labels = lists.folders()
    splits: dict[str, str | float] = {**lists.splits}
    if "val" not in splits:
        splits["val"] = HELD_OUT
    form = label_form(tree, [label for _, label in lists.pairs])
    found = f"pairs of images and labels in {', '.join(lists.splits.values())}"
    return FolderLayout(tree.root, images, labels, splits, form, found=found)


# Two folders


class Counterpart(NamedTuple):
    """A folder of images and one of labels, the words in their paths that say so, and the rule of their names."""

    images: PurePosixPath
    labels: PurePosixPath
    kind: tuple[str, str]
    rule: Rule
    location: Location


def two_folders(tree: FileTree, pictures: Pictures) -> FolderLayout | None:
    """Images in one folder and labels in another, by the words for them in their paths or by their files' names."""
    places = {folder: place_of(folder) for folder in tree.folders}
    labels = {
        folder: place for folder, place in places.items() if place.role.kind == "label" and has_labels(tree, folder)
    }
    if not labels and 1 < len(pictures) <= MOST_FOLDERS:
        labels = {folder: places[folder] for folder, paths in pictures.items() if look_like_labels(tree.root, paths)}
    images = {folder: places[folder] for folder in pictures if folder not in labels}
    found = list(by_words(images, labels, tree))
    if not any(pair.rule.count for pair in found):
        found = list(by_names(images, labels, tree)) or found
    if not found:
        return None

    # where there are several kinds of images or labels, the one that pairs most of them counts
    totals: Counter[tuple[str, str]] = Counter()
    for pair in found:
        totals[pair.kind] += pair.rule.count
    kind = min(totals, key=lambda kind: (-totals[kind], preference(kind[1])))
    chosen = [pair for pair in found if pair.kind == kind]
    locations = list(dict.fromkeys(pair.location for pair in chosen))
    image_pattern, label_pattern, splits = combine(locations, tree, pictures)
    rule = joined([pair.rule for pair in chosen])
    images_of, labels_of = (some(map(str, folders)) for folders in zip(*(one[:2] for one in locations), strict=True))
    return FolderLayout(
        tree.root,
        image_pattern.removesuffix(ANY_SPLIT),
        label_pattern.removesuffix(ANY_SPLIT),
        splits,
        label_form(tree, tree.folders[max(chosen, key=lambda pair: pair.rule.count).labels]),
        rule.image,
        rule.label,
        found=f"found {images_of} and {labels_of}",
    )


def by_words(
    images: Mapping[PurePosixPath, Place], labels: Mapping[PurePosixPath, Place], tree: FileTree
) -> Iterator[Counterpart]:
    """The folders whose paths differ in the words for images and labels alone."""
    near: dict[tuple[str, ...], list[PurePosixPath]] = {}
    for folder, place in labels.items():
        near.setdefault(place.around, []).append(folder)
    for folder, place in images.items():
        for other in near.get(place.around, ()):
            rule = naming_rule(names(tree, folder, IMAGE_SUFFIXES), label_names(tree, other))
            is_alike = labels[other].key == place.key
            if (rule is None and not (is_alike and place.role.kind)) or not (is_alike or is_free(place, labels[other])):
                continue
            word = split_word(folder.parts)
            depths = (place.depth, labels[other].depth) if place.role.kind else (len(folder.parts), len(other.parts))
            cut = Location(up_to(folder, depths[0], word), up_to(other, depths[1], word), word)
            yield Counterpart(
                folder, other, (place.role.word, labels[other].role.word), rule or Rule(None, None, 0), cut
            )


def is_free(images: Place, labels: Place) -> bool:
    """Report whether the further words in the names of two folders set them apart from no others: no split's."""
    return not any(map(split_of, (*images.role.rest, *labels.role.rest))) and images.role.kind == "image"


def up_to(folder: PurePosixPath, index: int, word: str) -> PurePosixPath:
    """The part of a path up to that of an index, or up to the one that names the split."""
    named = next((at for at, part in enumerate(folder.parts) if word and word in part), index)
    return PurePosixPath(*folder.parts[: 1 + max(index, named)])


def by_names(
    images: Mapping[PurePosixPath, Place], labels: Mapping[PurePosixPath, Place], tree: FileTree
) -> Iterator[Counterpart]:
    """The folder of labels for each folder of images whose files have the names of most of them."""
    for folder, place in list(images.items())[:MOST_FOLDERS]:
        ours, found = names(tree, folder, IMAGE_SUFFIXES), []
        word = split_word(folder.parts)
        for other, label_place in list(labels.items())[:MOST_FOLDERS]:
            has_other_split = bool(word) and split_of(split_word(other.parts)) not in (None, split_of(word))
            rule = None if has_other_split else naming_rule(ours, label_names(tree, other))
            if rule is not None:
                kind = (place.role.word, label_place.role.word)
                found.append(Counterpart(folder, other, kind, rule, Location(folder, other, word)))
        if found:
            yield min(
                found,
                key=lambda pair: (
                    pair.location.word not in str(pair.labels),
                    -pair.rule.count,
                    preference(pair.kind[1]),
                ),
            )


def preference(word: str) -> int:
    """The rank of a word for labels in the order of preference."""
    return LABEL_WORDS.index(word) if word in LABEL_WORDS else len(LABEL_WORDS)


def names(tree: FileTree, folder: PurePosixPath, suffixes: Sequence[str]) -> list[str]:
    """The names of the files of a folder with these suffixes."""
    return [path.name for path in tree.folders.get(folder, ()) if path.suffix.lower() in suffixes]


def label_names(tree: FileTree, folder: PurePosixPath) -> list[str]:
    """The names of the labels in a folder."""
    form = label_form(tree, tree.folders.get(folder, ()))
    return names(tree, folder, LABEL_SUFFIXES if form is None else LABEL_FORMATS.get(form).suffixes if form else ())


def has_labels(tree: FileTree, folder: PurePosixPath) -> bool:
    """Report whether a folder holds labels, and none that only show others in colour or by object."""
    words = {word.lower() for part in folder.parts for word in words_in(part)}
    return label_form(tree, tree.folders[folder]) != "" and words.isdisjoint(OTHER_PICTURES)


def look_like_labels(root: Path, paths: Sequence[PurePosixPath]) -> bool:
    """Report whether pictures hold few values, as class maps do."""
    try:
        found = [decode_image(read_bytes(root / path), "color", name=str(path)) for path in paths[:EXAMPLES]]
    except (UserError, OSError):
        return False
    return all(len(np.unique(picture.reshape(-1, picture.shape[2]), axis=0)) <= FEW_VALUES for picture in found)


def label_form(tree: FileTree, paths: Iterable[PurePosixPath]) -> str | None:
    """The format of labels: None for pictures, or an empty string for files that are not labels."""
    files = [path for path in paths if not is_other_text(path)]
    if any(path.suffix.lower() in LABEL_SUFFIXES for path in files):
        return None
    return shape_format(tree.root, files) or ""


def shape_format(root: Path, paths: Sequence[PurePosixPath]) -> str | None:
    """The format that recognises the first JSON or text file of which one does, of labels with a file for each image.

    Raises UserError for a damaged file.
    """
    forms = {name: form for name in LABEL_FORMATS if not (form := LABEL_FORMATS.get(name)).is_index}
    for suffix in SHAPE_SUFFIXES:
        fitting = {name: form for name, form in forms.items() if suffix in form.suffixes}
        for path in [path for path in paths if path.suffix.lower() == suffix][:MOST_TRIED]:
            content = read_text(root / path) if suffix == ".txt" else read_json(root / path)
            for name, form in fitting.items():
                if form.recognises(content):
                    return name
    return None


def is_other_text(path: PurePosixPath) -> bool:
    """Report whether a file beside labels holds class names, a list of images or notes."""
    return path.stem in NOT_LABELS or (path.suffix == ".txt" and split_word_in(path.stem) != "")


# One folder


class Beside(NamedTuple):
    """The form of labels among their images, and the rule of their names."""

    label_format: str | None
    rule: Rule


def one_folder(tree: FileTree, pictures: Pictures) -> FolderLayout | None:
    """Labels beside their images: pictures with another ending, or JSON or text files."""
    forms = {folder: form for folder in pictures if (form := labels_beside(tree, tree.folders[folder])) is not None}
    if not forms:
        return None
    totals: Counter[str | None] = Counter()
    for form in forms.values():
        totals[form.label_format] += form.rule.count
    label_format = totals.most_common(1)[0][0]
    chosen = {folder: form.rule for folder, form in forms.items() if form.label_format == label_format}
    words = {folder: split_word(folder.parts) for folder in chosen}
    images, labels, splits = combine([Location(folder, folder, words[folder]) for folder in chosen], tree, pictures)
    rule = joined(list(chosen.values()))
    return FolderLayout(
        tree.root, images, labels, splits, label_format, rule.image, rule.label, found="labels beside their images"
    )


def labels_beside(tree: FileTree, paths: Sequence[PurePosixPath]) -> Beside | None:
    """The form of the labels among images; None where no image has one."""
    pictures = [path.name for path in paths if path.suffix.lower() in LABEL_SUFFIXES]
    found = []
    words = {name: {word.lower() for word in words_in(PurePosixPath(name).stem)} for name in pictures}
    for mark in [mark for mark in MARKS if any(mark in known for known in words.values())]:
        labels = [name for name in pictures if mark in words[name]]
        images = [name for name in pictures if name not in labels and name.lower().endswith(IMAGE_SUFFIXES)]
        rule = naming_rule(images, labels) if labels else None
        if rule is not None and rule.label is not None:
            found.append(Beside(None, replace(rule, image=rule.image or suffix_of(images))))
    if not found:
        stems = {PurePosixPath(picture).stem for picture in pictures} | set(pictures)
        beside = [path for path in paths if path.suffix.lower() in SHAPE_SUFFIXES and path.stem in stems]
        name = shape_format(tree.root, [path for path in beside if not is_other_text(path)])
        if name:
            found.append(Beside(name, Rule(None, None, len(beside))))
    return max(found, key=lambda form: form.rule.count, default=None)


def suffix_of(names: Sequence[str]) -> str | list[str]:
    """The suffixes of image files."""
    found = sorted({PurePosixPath(name).suffix.lower() for name in names})
    return found[0] if len(found) == 1 else found


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
    images, labels, splits = combine(list(found.values()), tree, pictures)
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
