"""Finding images and labels in a folder that nobody has described: which folders, which splits, which form."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from terrazzo.data.spec import IMAGE_SUFFIXES
from terrazzo.errors import UserError

IMAGE_WORDS = (
    "images", "image", "imgs", "img", "img_dir", "jpegimages", "leftimg8bit", "rgb", "pictures", "photos", "input",
    "inputs", "x",
)  # fmt: skip
LABEL_WORDS = (
    "labels", "label", "masks", "mask", "annotations", "annotation", "ann_dir", "annots", "segmentationclass",
    "segmentationclassaug", "gt", "ground_truth", "groundtruth", "targets", "target", "seg", "segmentations", "y",
)  # fmt: skip
SPLIT_WORDS = {
    "train": ("train", "training", "train2017", "train2014", "trainval"),
    "val": ("val", "valid", "validation", "val2017", "val2014", "dev"),
    "test": ("test", "testing", "test2017"),
}
LABEL_ENDINGS = (
    "_mask",
    "_label",
    "_labels",
    "_seg",
    "_gt",
    "_segmentation",
    "_annotation",
    "-mask",
    "-label",
    ".mask",
)
LIST_FOLDERS = ("", "ImageSets/Segmentation", "ImageSets", "splits", "lists")
FEW = 12  # files of a folder that may be COCO's; more of them are one an image
SHARE = 0.2  # of the images, where nothing says which ones are for validation
FORMATS = {".json": "labelme", ".txt": "yolo"}  # of labels that are no pictures


@dataclass
class Layout:
    """Where a data set's images and labels lie, in the words of the short form; `label_format` None: pictures."""

    images: str
    labels: str
    splits: dict[str, Any] = field(default_factory=dict)  # what `train`, `val`, `test` are to say
    label_format: str | None = None
    image_suffix: Any = None
    label_suffix: Any = None
    found: str = ""  # how, for the comment


class Tree:
    """The files below a folder, by their folders."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.folders: dict[PurePosixPath, list[PurePosixPath]] = {}
        for path in sorted(root.rglob("*")):
            relative = PurePosixPath(path.relative_to(root).as_posix())
            if not any(part.startswith((".", "__MACOSX")) for part in relative.parts) and path.is_file():
                self.folders.setdefault(relative.parent, []).append(relative)

    def holding(self, suffixes: Sequence[str]) -> dict[PurePosixPath, list[PurePosixPath]]:
        """The folders with files of these suffixes, and these files."""
        kept = {
            folder: [path for path in paths if path.suffix.lower() in suffixes]
            for folder, paths in self.folders.items()
        }
        return {folder: paths for folder, paths in kept.items() if paths}


def find_layout(root: Path) -> Layout:
    """Images and labels below a folder. Raises UserError, naming what is looked for, where they are not found."""
    if not root.is_dir():
        raise UserError(f"there is no folder {root}")
    tree = Tree(root)
    pictures = tree.holding(IMAGE_SUFFIXES)
    if not pictures:
        raise UserError(f"{root} holds no image ({', '.join(IMAGE_SUFFIXES)})")
    for strategy in (coco_files, two_folders, one_folder):
        layout = strategy(tree, pictures)
        if layout is not None:
            return layout
    raise UserError(
        f"{root}: which files are images and which are labels? Looked for images/ and labels/ (or masks, annotations, "
        "img_dir and ann_dir, JPEGImages and SegmentationClass ...), with train/ and val/ in or above them; for labels "
        "beside the images (a.jpg and a_mask.png, a.json, a.txt); and for a COCO file"
    )


def split_of(word: str) -> str | None:
    """The split that a folder's or a file's name stands for."""
    return next((split for split, words in SPLIT_WORDS.items() if word.lower() in words), None)


def pattern(places: Iterable[tuple[PurePosixPath, str]]) -> str | None:
    """The path that splits have in common, with {split} for each one's word; None where they have none in common."""
    patterns = {with_split(path, word) for path, word in places}
    return patterns.pop() if len(patterns) == 1 else None


def patterns(found: Mapping[str, tuple[PurePosixPath, PurePosixPath, str]]) -> tuple[str | None, str | None]:
    """The patterns of the images' and of the labels' places, from (images, labels, word) of each split."""
    entries = list(found.values())
    return pattern((images, word) for images, _, word in entries), pattern(
        (labels, word) for _, labels, word in entries
    )


def with_split(path: PurePosixPath, word: str) -> str:
    """A path with {split} for the folder called `word`, or for that word in the file's name."""
    if not word:
        return str(path)
    if word in path.parts:
        place = path.parts.index(word)
        return str(PurePosixPath(*path.parts[:place], "{split}", *path.parts[place + 1 :]))
    return str(path.with_name(path.name.replace(word, "{split}", 1)))


def shortened(path: str) -> str:
    """`images/{split}` as `images`, below which splits are looked for anyway."""
    return path.removesuffix("/{split}")


def words_for(words: Mapping[str, str]) -> dict[str, Any]:
    """The entries `train`, `val` and `test`: left out where the folder's name is the split's."""
    entries: dict[str, Any] = {split: word for split, word in words.items() if word != split}
    if "val" not in words:
        entries |= {"train": words["train"], "val": SHARE} if "train" in words else {"val": SHARE}
    if "test" in words:
        entries["test"] = words["test"]
    return entries


# Two folders


def two_folders(tree: Tree, pictures: Mapping[PurePosixPath, Any]) -> Layout | None:
    """Folders whose paths differ in one word alone, that of images in one and that of labels in the other."""
    pairs = [pair for folder in pictures for pair in counterparts(folder, tree)]
    if not pairs:
        return None
    example, example_labels, *names = pairs[0]  # of several kinds of labels beside the images, the first word counts
    found: dict[str, tuple[PurePosixPath, PurePosixPath, str]] = {}
    for images, labels, *words in pairs:
        word = next((part for part in images.parts if split_of(part)), "")
        if words == names:
            found.setdefault(split_of(word) or "", (top(images, words[0], word), top(labels, words[1], word), word))
    if "train" in found:
        found.pop("", None)
        places = patterns(found)
        if None in places:
            found = {"train": found["train"]}
            places = patterns(found)
        splits = words_for({split: entry[2] for split, entry in found.items()})
    elif "" in found:
        found = {"": found[""]}
        places, splits = (str(found[""][0]), str(found[""][1])), listed_splits(tree)
    else:
        return None
    folders = ", ".join(str(entry[0]) for entry in found.values())
    return Layout(
        shortened(str(places[0])),
        shortened(str(places[1])),
        splits,
        form_of(tree.folders[example_labels]),
        *endings(tree, example, example_labels),
        found=f"found {folders} and {', '.join(str(entry[1]) for entry in found.values())}",
    )


def top(folder: PurePosixPath, *words: str) -> PurePosixPath:
    """The folder that is the last of these words; those inside it are walked through."""
    last = max(folder.parts.index(word) for word in words if word)
    return PurePosixPath(*folder.parts[: last + 1])


def counterparts(images: PurePosixPath, tree: Tree) -> Iterator[tuple[PurePosixPath, PurePosixPath, str, str]]:
    """Folders of labels for one of images: (images, labels, the word of one, the word of the other)."""
    for place, part in enumerate(images.parts):
        if part.lower() not in IMAGE_WORDS:
            continue
        parent, below = PurePosixPath(*images.parts[:place]), images.parts[place + 1 :]
        siblings = {
            folder.parts[place]: folder
            for folder in tree.folders
            if len(folder.parts) > place and folder.parts[:place] == parent.parts
        }
        for word in LABEL_WORDS:
            for name in siblings:
                labels = parent / name / PurePosixPath(*below)
                if name.lower() == word and labels in tree.folders and form_of(tree.folders[labels]) != "":
                    yield images, labels, part, name


def form_of(paths: Sequence[PurePosixPath]) -> str | None:
    """What labels are: None for pictures, `labelme`, `yolo`, or empty for none of these."""
    suffixes = [path.suffix.lower() for path in paths]
    if any(suffix in IMAGE_SUFFIXES for suffix in suffixes):
        return None
    per_image = [path.suffix.lower() for path in paths if path.stem not in ("classes", "labels", "notes")]
    return next((FORMATS[suffix] for suffix in FORMATS if suffix in per_image), "")


def listed_splits(tree: Tree) -> dict[str, Any]:
    """Split files: `train.txt` and `val.txt` where they usually lie; otherwise a share is for validation."""
    for folder in map(PurePosixPath, LIST_FOLDERS):
        names = {path.stem.lower(): path for path in tree.folders.get(folder, ()) if path.suffix == ".txt"}
        found = {split: str(names[word]) for split, words in SPLIT_WORDS.items() for word in words if word in names}
        if "train" in found:
            return found if "val" in found else {"train": found["train"], "val": SHARE}
        if "default" in names:  # CVAT's
            return {"train": str(names["default"]), "val": SHARE}
    return {"train": "", "val": SHARE}


def endings(tree: Tree, images: PurePosixPath, labels: PurePosixPath) -> tuple[Any, Any]:
    """Endings that images and labels add to the name that they have in common; None where those are mere suffixes."""
    ours, theirs = ([path.name for path in tree.folders[folder]] for folder in (images, labels))
    stems = {name.rpartition(".")[0]: name for name in ours}
    others = {name.rpartition(".")[0]: name for name in theirs}
    if len(set(stems) & set(others)) * 2 >= len(stems):
        return None, None
    for stem, name in stems.items():
        for other, label in others.items():
            common = common_start(stem, other)
            ending, label_ending = name[len(common) :], label[len(common) :]
            fitting = sum(one.endswith(ending) and one[: -len(ending)] + label_ending in theirs for one in ours)
            if common and fitting * 2 >= len(ours):
                return ending, label_ending
        break
    return None, None


def common_start(one: str, other: str) -> str:
    length = next((k for k, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))
    return one[:length]


# One folder


def one_folder(tree: Tree, pictures: Mapping[PurePosixPath, Any]) -> Layout | None:
    """Labels beside their images: with an ending of their own, or as JSON or text files."""
    found: dict[str, tuple[PurePosixPath, str]] = {}
    kinds = {}
    for folder in pictures:
        kind = beside(tree.folders[folder])
        if kind is not None:
            word = next((part for part in folder.parts if split_of(part)), "")
            found.setdefault(split_of(word) or "", (folder, word))
            kinds[folder] = kind
    if not found:
        return None
    if "train" in found:
        found.pop("", None)
        template = pattern(found.values())
        if template is None:
            found = {"train": found["train"]}
            template = pattern(found.values())
        splits = words_for({split: word for split, (_, word) in found.items()})
    else:
        found = {"": next(iter(found.values()))}
        template, splits = str(found[""][0]), {**listed_splits(tree)}
    form, image_suffix, label_suffix = kinds[next(iter(found.values()))[0]]
    place = str(template)
    return Layout(place, place, splits, form, image_suffix, label_suffix, found="labels beside their images")


def beside(paths: Sequence[PurePosixPath]) -> tuple[str | None, Any, Any] | None:
    """(format, image suffixes, label suffix) of labels among images, None where most images have none."""
    pictures = {path.name.lower() for path in paths if path.suffix.lower() in IMAGE_SUFFIXES}
    names = {path.name.lower() for path in paths}
    for ending in LABEL_ENDINGS:
        labels = {name for name in pictures if name.rpartition(".")[0].endswith(ending)}
        images = {name.rpartition(".")[0]: name.rpartition(".")[2] for name in pictures - labels}
        fitting = {
            label.rpartition(".")[2] for label in labels if label.rpartition(".")[0].removesuffix(ending) in images
        }
        if labels and len(labels) * 2 >= len(images) and fitting:
            suffixes = sorted({f".{suffix}" for suffix in images.values()})
            return None, suffixes[0] if len(suffixes) == 1 else suffixes, f"{ending}.{min(fitting)}"
    for suffix, form in FORMATS.items():
        if sum(name.rpartition(".")[0] + suffix in names for name in pictures) * 2 >= len(pictures):
            return form, None, None
    return None


# COCO


def coco_files(tree: Tree, pictures: Mapping[PurePosixPath, Any]) -> Layout | None:
    """Files of COCO's form, and the folders of the images that they list."""
    found: dict[str, tuple[PurePosixPath, PurePosixPath, str]] = {}
    many = {folder for folder, paths in tree.holding((".json",)).items() if len(paths) > FEW}
    for path in sorted(
        path for folder, paths in tree.holding((".json",)).items() if folder not in many for path in paths
    ):
        listed = coco_images(tree.root / path)
        if listed is None:
            continue
        word = next((part for part in (*words_in(path.stem), *path.parts[:-1]) if split_of(part)), "")
        folder = folder_of(listed, pictures, word)
        if folder is not None:
            found.setdefault(split_of(word) or "", (folder, path, word))
    if not found:
        return None
    if "train" in found and "val" in found:
        found.pop("", None)
        images, labels = patterns(found)
        if images is not None and labels is not None:
            splits = words_for({split: entry[2] for split, entry in found.items()})
            return Layout(shortened(images), labels, splits, "coco", found="COCO files, one a split")
    folder, path, _ = found.get("train") or next(iter(found.values()))
    return Layout(str(folder), str(path), {"train": "", "val": SHARE}, "coco", found="one COCO file")


def words_in(stem: str) -> list[str]:
    """`instances_train2017` -> instances, train2017."""
    return stem.replace("-", "_").replace(".", "_").split("_")


def coco_images(path: Path) -> list[str] | None:
    """The file names that a COCO file lists; None for any other JSON, and for one without outlines."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        has_outlines = any(entry.get("segmentation") for entry in content["annotations"])
        return [str(image["file_name"]) for image in content["images"]] if has_outlines else None
    except (ValueError, KeyError, TypeError, AttributeError):
        return None


def folder_of(listed: Sequence[str], pictures: Mapping[PurePosixPath, Any], word: str) -> PurePosixPath | None:
    """The folder below which images of these names lie, one of the split's if there are several."""
    names = {PurePosixPath(name) for name in listed}
    places = set()
    for folder, paths in pictures.items():
        for parent in (folder, *folder.parents):
            if any(path.relative_to(parent) in names for path in paths):
                places.add(parent)
        if any(PurePosixPath(path.name) in names for path in paths):
            places.add(folder)
    fitting = sorted(places, key=lambda place: (word not in place.parts, len(place.parts)))
    return fitting[0] if fitting else None
