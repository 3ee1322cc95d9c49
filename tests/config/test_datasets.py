"""The data of a split as a typed tree."""

from __future__ import annotations

import pytest

from support.tiny import dataset_config, tiny_config
from terrazzo.config.datasets import (
    ConcatenatedData,
    FolderData,
    MixedData,
    RepeatedData,
    data_tree,
    folders,
    same_files,
    with_pipeline,
)
from terrazzo.config.experiment import make_experiment
from terrazzo.data.build import build_dataset
from terrazzo.errors import UserError

FOLDER = {"type": "BaseSegDataset", "data_root": "data", "metainfo": {"classes": ["sky", "road"]}}


def test_a_section_becomes_a_tree_that_knows_its_keys():
    inner = {"type": "mmseg.ConcatDataset", "datasets": [FOLDER, FOLDER | {"data_root": "more"}], "lazy_init": True}
    mixed = {"type": "MultiImageMixDataset", "dataset": inner, "pipeline": [{"type": "RandomMosaic"}]}
    tree = data_tree({"type": "RepeatDataset", "times": 3, "dataset": mixed}, "train_dataloader.dataset")
    assert isinstance(tree, RepeatedData) and tree.times == 3
    assert isinstance(tree.dataset, MixedData) and isinstance(tree.dataset.dataset, ConcatenatedData)
    assert [(data.data_root, data.where) for data in folders(tree)] == [
        ("data", "train_dataloader.dataset.dataset.dataset.datasets.0"),
        ("more", "train_dataloader.dataset.dataset.dataset.datasets.1"),
    ]
    changed = with_pipeline(tree, [{"type": "PackSegInputs"}])
    assert [len(data.pipeline) for data in folders(changed)] == [1, 1]
    assert same_files(tree, changed) and not same_files(tree, tree.dataset)


def test_the_same_files_at_another_key_are_the_same():
    assert same_files(data_tree(FOLDER, "val_dataloader.dataset"), data_tree(FOLDER, "test_dataloader.dataset"))
    assert not same_files(data_tree(FOLDER), data_tree(FOLDER | {"test_mode": True})), "an index file may list others"


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ({"type": "RepeatDataset", "dataset": FOLDER}, r"RepeatDataset at here needs the argument times"),
        (
            {"type": "RepeatDataset", "dataset": FOLDER, "time": 2},
            r"at here has no argument 'time'; did you mean 'times'",
        ),
        ({"type": "ConcatDataset", "datasets": []}, r"here.*`datasets` is empty"),
        ({"type": "ClassBalancedDataset", "dataset": FOLDER, "oversample_thr": 2}, r"here.*oversample_thr is a share"),
        ({"type": "ConcatDataset", "datasets": [FOLDER, "more"]}, r"here\.datasets\.1 is a data set with a `type`"),
    ],
)
def test_a_mistake_in_a_wrapper_is_named(section, message):
    with pytest.raises(UserError, match=message):
        data_tree(section, "here")


def test_an_unknown_key_of_a_folder_matters_only_where_it_is_opened(tmp_path):
    config = tiny_config(tmp_path)
    config["test_dataloader"]["dataset"] = dataset_config(tmp_path, "val") | {"type": "TheirDataset", "tiles": 4}
    assert make_experiment(config).test.dataset.mistake.startswith("TheirDataset at test_dataloader.dataset has no")
    with pytest.raises(UserError, match=r"BaseSegDataset at dataset has no argument 'ignor'; did you mean 'ignore'"):
        build_dataset(dataset_config(tmp_path, "val") | {"ignor": [3]})


def test_a_tree_is_a_value():
    assert data_tree(FOLDER) == FolderData(data_root="data", metainfo={"classes": ["sky", "road"]})
