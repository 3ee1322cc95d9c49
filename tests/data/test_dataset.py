"""Data sets: which files belong together, what their values mean, and which sample comes when."""

from __future__ import annotations

import itertools
import warnings
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

from support.tiny import CLASSES, dataset_config, make_streets, save_image, save_label, street
from terrazzo.config.datasets import data_tree
from terrazzo.config.experiment import LoaderSettings
from terrazzo.data.build import build_dataset, open_dataset
from terrazzo.data.dataset import SegmentationDataset
from terrazzo.data.loaders import TrainingSampler, make_loader
from terrazzo.data.pairs import held_out
from terrazzo.data.spec import declare
from terrazzo.errors import UserError
from terrazzo.registry import DATASETS


@pytest.fixture(scope="module")
def streets(tmp_path_factory) -> Path:
    return make_streets(tmp_path_factory.mktemp("streets"))


def open_streets(root: Path, **options) -> SegmentationDataset:
    return build_dataset(dataset_config(root, "train") | options)


def write_pair(root: Path, stem: str, image_suffix: str, label_suffix: str) -> np.ndarray:
    image, label = street(0)
    save_image(root / "images" / "train" / (stem + image_suffix), image)
    path = root / "labels" / "train" / (stem + label_suffix)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(label).save(path)
    return label


@pytest.mark.parametrize("image_suffix", [".png", ".jpg", ".jpeg", ".tif", ".tiff", ".webp", ".bmp", ".PNG", ".JPG"])
@pytest.mark.parametrize("label_suffix", [".png", ".tif", ".bmp"])
def test_pairs_by_stem_in_every_format(tmp_path, image_suffix, label_suffix):
    label = write_pair(tmp_path, "a", image_suffix, label_suffix)
    sample = open_streets(tmp_path)[0]
    assert sample.image.shape == (32, 40, 3) and sample.image.dtype == np.uint8
    np.testing.assert_array_equal(sample.label, label)
    lossy = image_suffix.lower() in (".jpg", ".jpeg", ".webp")
    difference = np.abs(sample.image.astype(int) - street(0)[0]).mean()
    assert difference < (25 if lossy else 1e-9), "the channels are in RGB order"


def test_subfolders_and_other_files_in_the_folder(streets, tmp_path):
    for folder in ("berlin", "rome"):
        write_pair(tmp_path, f"{folder}/a", ".jpg", ".png")
    (tmp_path / "images" / "train" / "notes.txt").write_text("nothing")
    (tmp_path / "images" / "train" / ".hidden.png").write_text("nothing")
    found = [(image.parent.name, label.parent.name) for image, label in open_streets(tmp_path).pairs]
    assert found == [("berlin", "berlin"), ("rome", "rome")]


@pytest.mark.parametrize(
    "lines",
    ["a\nb\n", "a.jpg\nb.jpg", "\n a \n\nb", "train/a train/a\ntrain/b.jpg train/b.png", "a b c\n"],
    ids=["stems", "names", "blank lines", "image and label", "spaces"],
)
def test_split_files(tmp_path, lines):
    for stem in ("a", "b", "c", "a b c"):
        write_pair(tmp_path, stem, ".jpg", ".png")
    (tmp_path / "split.txt").write_text(lines)
    prefix = {"img_path": "images/train", "seg_map_path": "labels/train"}
    if "train/" in lines:
        prefix = {"img_path": "images", "seg_map_path": "labels"}
    pairs = open_streets(tmp_path, ann_file="split.txt", data_prefix=prefix).pairs
    expected = ["a b c"] if "c" in lines else ["a", "b"]
    assert [image.stem for image, _ in pairs] == expected
    assert [label.stem for _, label in pairs] == expected


def test_labels_without_an_image_are_warned_of(streets, tmp_path):
    make_streets(tmp_path, train=2)
    (tmp_path / "images" / "train" / "01.png").unlink()
    with pytest.warns(UserWarning, match=r"1 labels in .*train have no image of the same name: 01.png"):
        assert len(open_streets(tmp_path)) == 1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        open_streets(streets)


def palette_png(path: Path, label: np.ndarray) -> None:
    image = Image.fromarray(label)
    image.putpalette([200, 10, 10, 10, 200, 10, 10, 10, 200] + [0] * 759)
    image.save(path)


@pytest.mark.parametrize(
    "write",
    [
        lambda path, label: cv2.imwrite(str(path), label),
        lambda path, label: cv2.imwrite(str(path), label.astype(np.uint16)),
        palette_png,
        lambda path, label: cv2.imwrite(str(path), np.repeat(label[..., None], 3, -1)),
        lambda path, label: np.save(path.with_suffix(".npy"), label.astype(np.int64)),
    ],
    ids=["8 bits", "16 bits", "palette", "three equal channels", "npy"],
)
def test_label_files_hold_class_indices(tmp_path, write):
    image, label = street(0)
    save_image(tmp_path / "images" / "train" / "a.png", image)
    path = tmp_path / "labels" / "train" / "a.png"
    path.parent.mkdir(parents=True)
    write(path, label)
    sample = open_streets(tmp_path, seg_map_suffix=[".png", ".npy"])[0]
    np.testing.assert_array_equal(sample.label, label)


@pytest.mark.parametrize(
    ("stored", "options", "expected"),
    [
        ([0, 1, 2, 255], {}, [0, 1, 2, 255]),
        ([0, 1, 3, 255], {"reduce_zero_label": True}, [255, 0, 2, 255]),
        ([0, 1, 7, 2], {"label_map": {7: 1}}, [0, 1, 1, 2]),
        ([0, 1, 2, 255], {"label_map": {0: 1, 1: 0}}, [1, 0, 2, 255]),
        ([0, 255, 255, 0], {"label_map": {255: 1}}, [0, 1, 1, 0]),
        ([0, 1, 11, 12], {"ignore": [11, 12]}, [0, 1, 255, 255]),
        ([0, 1, 2, 300], {"ignore": [300]}, [0, 1, 2, 255]),
        ([0, 1, 3, 4], {"reduce_zero_label": True, "label_map": {2: 1}, "ignore": [4]}, [255, 0, 1, 255]),
    ],
)
def test_stored_values_become_classes(tmp_path, stored, options, expected):
    save_image(tmp_path / "images" / "train" / "a.png", np.zeros((2, 2, 3), np.uint8))
    values = np.array(stored).reshape(2, 2)
    save_label(tmp_path / "labels" / "train" / "a.png", values.astype(np.uint16 if values.max() > 255 else np.uint8))
    dataset = open_streets(tmp_path, **options)
    assert dataset[0].label.ravel().tolist() == expected
    path = dataset.pairs[0][1]
    assert dataset.check_label(path).tolist() == [expected.count(index) for index in range(3)]


@pytest.fixture
def declared():
    declare(name="TinyStreets", classes=CLASSES, palette=[[1, 1, 1], [2, 2, 2], [3, 3, 3]])
    yield "TinyStreets"
    del DATASETS.types["TinyStreets"]


@pytest.mark.parametrize(
    ("classes", "mapping", "palette"),
    [
        (CLASSES, {0: 0, 1: 1, 2: 2}, [1, 2, 3]),
        (["car", "sky"], {0: 1, 1: 255, 2: 0}, [3, 1]),
        (["road"], {0: 255, 1: 0, 2: 255}, [2]),
        (["a", "b", "c"], {0: 0, 1: 1, 2: 2}, [1, 2, 3]),  # other names altogether: the values stay
    ],
)
def test_a_subset_of_the_declared_classes_is_remapped_by_name(streets, declared, classes, mapping, palette):
    dataset = build_dataset(dataset_config(streets, "train", classes) | {"type": declared})
    np.testing.assert_array_equal(dataset[0].label, np.vectorize(mapping.get)(open_streets(streets)[0].label))
    assert [colour[0] for colour in dataset.palette] == palette


def augmented(root: Path, seed: int = 0) -> SegmentationDataset:
    return build_dataset(dataset_config(root, "train", augment=True), seed=seed)


def batches(dataset, workers: int, count: int = 9) -> list:
    loader = iter(make_loader(dataset, TrainingSampler(len(dataset), 2, seed=5), workers))
    found = [next(loader) for _ in range(count)]
    if workers:
        loader._shutdown_workers()
    return found


def joined(root: Path, *orders: list[str], **options) -> list[SegmentationDataset]:
    """Data sets of the same files whose classes are named in several orders, as a model of three classes takes them."""
    parts = [dataset_config(root, "train") | {"metainfo": {"classes": names}} | options for names in orders]
    tree = data_tree({"type": "ConcatDataset", "datasets": parts}, "train_dataloader.dataset")
    return open_dataset(LoaderSettings(dataset=tree), 3, "train_dataloader").leaves()


def test_classes_in_another_order_are_mapped_by_name(streets):
    first, second = joined(streets, ["sky", "road", "car"], ["road", "car", "sky"])
    assert first.classes == second.classes == ("sky", "road", "car")
    plain, moved = first[0].label, second[0].label
    assert np.array_equal(moved, np.array([1, 2, 0], np.uint8)[plain])  # 0 is road there, which is 1 here
    assert second.mapping.classes_of([0, 1, 2, 255]) == [1, 2, 0, 255]
    assert np.array_equal(second.read_label(second.pairs[0][1]), moved)


def test_fewer_classes_are_mapped_by_name_and_stay_bounded(streets):
    _, second = joined(streets, ["sky", "road", "car"], ["car", "sky"], ignore=[2])
    assert second.mapping.classes_of([0, 1, 2]) == [2, 0, 255]
    _, second = joined(streets, ["sky", "road", "car"], ["car", "sky"])
    with pytest.raises(UserError, match="outside the 3 classes"):
        second.check_label(second.pairs[0][1])


def test_classes_of_other_names_are_refused_with_both_lists(streets):
    with pytest.raises(
        UserError, match=r"has the classes sky, rode, car, the others have sky, road, car.*did you mean"
    ):
        joined(streets, ["sky", "road", "car"], ["sky", "rode", "car"])


def test_a_text_is_no_list_of_classes(streets, tmp_path):
    with pytest.raises(UserError, match=r"metainfo.classes must be a list of names, not 'forgery'.*\('forgery',\)"):
        open_streets(streets, metainfo={"classes": "forgery"})
    (tmp_path / "names.txt").write_text("sky\nroad\ncar\n")
    assert open_streets(streets, metainfo={"classes": str(tmp_path / "names.txt")}).classes == ("sky", "road", "car")


def test_samples_do_not_depend_on_the_number_of_workers(streets):
    alone, shared = batches(augmented(streets), 0), batches(augmented(streets), 2)
    for one, other in zip(alone, shared, strict=True):
        assert torch.equal(one.image, other.image)
        assert torch.equal(one.targets["label"], other.targets["label"])
        assert [sample.image_path for sample in one.samples] == [sample.image_path for sample in other.samples]


def test_every_epoch_and_every_seed_draws_anew(streets):
    dataset = augmented(streets)
    crops = [dataset[epoch, 0].image for epoch in range(8)]
    assert any(not np.array_equal(crops[0], crop) for crop in crops[1:])
    np.testing.assert_array_equal(dataset[3, 0].image, dataset[3, 0].image)
    others = [augmented(streets, seed=1)[epoch, 0].image for epoch in range(8)]
    assert any(not np.array_equal(one, other) for one, other in zip(crops, others, strict=True))
    first, second = (order.epoch(number) for order in [TrainingSampler(20, 4)] for number in (0, 1))
    assert sorted(index for _, index in first) == list(range(20)) == sorted(index for _, index in second)
    assert [index for _, index in first] != [index for _, index in second]


@pytest.mark.parametrize("by_epoch", [False, True])
@pytest.mark.parametrize("drop_last", [False, True])
@pytest.mark.parametrize(("length", "batch"), [(6, 2), (7, 2), (7, 3), (3, 8), (1, 1), (5, 5)])
def test_an_order_can_start_anywhere(length, batch, by_epoch, drop_last):
    options = {"seed": 2, "by_epoch": by_epoch, "drop_last": drop_last}
    order = TrainingSampler(length, batch, **options)
    whole = list(itertools.islice(order, 12))
    for seen in range(1, 10):
        rest = TrainingSampler(length, batch, start=order.position(seen), **options)
        assert list(itertools.islice(rest, 12 - seen)) == whole[seen:]
        assert rest.position(5) == order.position(seen + 5)


@pytest.mark.parametrize("by_epoch", [False, True])
def test_an_order_goes_on_with_batches_of_another_size(by_epoch):
    before = TrainingSampler(10, 4, by_epoch=by_epoch)
    seen = [index for batch in itertools.islice(before, 1) for _, index in batch]
    after = TrainingSampler(10, 3, by_epoch=by_epoch, start=before.position(1))
    seen += [index for batch in itertools.islice(after, after.batches_from(4)) for _, index in batch]
    assert sorted(seen) == list(range(10))


def test_an_uneven_last_batch_gives_every_process_as_many():
    orders = [TrainingSampler(7, 2, by_epoch=True, rank=rank, world=2) for rank in (0, 1)]
    sizes = [[len(batch) for batch in itertools.islice(order, 2)] for order in orders]
    assert sizes == [[2, 2], [2, 2]]


@pytest.mark.parametrize(
    ("by_epoch", "drop_last", "sizes"),
    [(False, False, [3, 3, 3, 3, 3]), (True, False, [3, 3, 1, 3, 3]), (True, True, [3, 3, 3, 3, 3])],
)
def test_what_happens_at_the_end_of_an_epoch(by_epoch, drop_last, sizes):
    generator = iter(TrainingSampler(7, 3, by_epoch=by_epoch, drop_last=drop_last))
    assert [len(next(generator)) for _ in range(5)] == sizes


def test_iterations_see_every_image_equally_often():
    generator = iter(TrainingSampler(7, 3))
    drawn = [index for _ in range(14) for _, index in next(generator)]
    assert [drawn.count(index) for index in range(7)] == [6] * 7


def test_processes_share_a_batch_without_overlap():
    orders = [iter(TrainingSampler(12, 2, rank=rank, world=2)) for rank in (0, 1)]
    whole = iter(TrainingSampler(12, 4))
    for _ in range(6):
        parts = [next(order) for order in orders]
        assert sorted(parts[0] + parts[1]) == sorted(next(whole))


def test_concatenated_and_repeated_data_sets(streets):
    part = dataset_config(streets, "train", augment=True)
    val = dataset_config(streets, "val")
    both = build_dataset({"type": "ConcatDataset", "datasets": [part, val]})
    assert len(both) == 9 and list(both.classes) == CLASSES
    assert both[0, 6].image_path == streets / "images" / "val" / "00.png"
    repeated = build_dataset({"type": "RepeatDataset", "dataset": part, "times": 3})
    assert len(repeated) == 18
    assert repeated[0, 0].image_path == repeated[0, 6].image_path
    drawn = [repeated[0, index].image for index in (0, 6, 12)] + [repeated[1, index].image for index in (0, 6, 12)]
    assert len({image.tobytes() for image in drawn}) > 1, "every repetition draws its own randomness"


def test_smaller_images_are_padded_in_a_batch(tmp_path):
    for stem, size in (("a", (20, 30)), ("b", (32, 24))):
        image, label = street(1, *size)
        save_image(tmp_path / "images" / "train" / f"{stem}.png", image)
        save_label(tmp_path / "labels" / "train" / f"{stem}.png", label)
    batch = next(iter(make_loader(open_streets(tmp_path), [[(0, 0), (0, 1)]], 0)))
    assert batch.image.shape == (2, 3, 32, 30) and batch.sizes == [(20, 30), (32, 24)]
    assert (batch.targets["label"][0, 20:] == 255).all() and (batch.targets["label"][1, :, 24:] == 255).all()
    assert (batch.image[0, :, 20:] == 0).all()


@pytest.mark.parametrize(("count", "share", "held"), [(10, 0.2, 2), (2, 0.2, 1), (2, 0.9, 1), (100, 0.25, 25)])
def test_a_share_is_held_out_by_name(count, share, held):
    names = [f"{number}.png" for number in range(count)]
    train, val = (held_out(names, share, part) for part in ("train", "val"))
    assert len(val) == held and sorted(train + val) == list(range(count))
    backwards = held_out(names[::-1], share, "val")
    assert {names[place] for place in val} == {names[::-1][place] for place in backwards}


@pytest.mark.parametrize(
    ("names", "share", "part"), [(["a"], 0.2, "val"), (["a", "b"], 1.5, "val"), (["a", "b"], 0.5, "x")]
)
def test_shares_that_are_none(names, share, part):
    with pytest.raises(UserError, match=r"leaves nothing|part is 'train' or 'val'"):
        held_out(names, share, part)


def test_folds_and_groups():
    names = [f"p{number // 3}_{number % 3}.png" for number in range(15)]
    groups = [name[:2] for name in names]
    held = [held_out(names, 0.2, "val", groups=groups, folds=5, fold=fold) for fold in range(1, 6)]
    assert sorted(itertools.chain.from_iterable(held)) == list(range(15))
    assert all(len({groups[place] for place in part}) == 1 and len(part) == 3 for part in held)
    train, val = (held_out(names, 0.4, part, groups=groups) for part in ("train", "val"))
    assert len(val) == 6 and sorted(train + val) == list(range(15))
    assert not {groups[place] for place in train} & {groups[place] for place in val}
    with pytest.raises(UserError, match="no fold 6 of 6: 5 groups make folds 1 to 5"):
        held_out(names, 0.2, "val", groups=groups, folds=6, fold=6)


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ("00.png\n", "line 1: '00.png' has no group"),
        ("x.png,a\n", "lists none of the images"),
        (None, "there is no file"),
    ],
)
def test_tables_of_groups_that_do_not_fit(tmp_path, table, message):
    make_streets(tmp_path)
    if table is not None:
        (tmp_path / "groups.csv").write_text(table)
    with pytest.raises(UserError, match=message):
        open_streets(tmp_path, holdout={"share": 0.2, "part": "val", "groups": "groups.csv"})
