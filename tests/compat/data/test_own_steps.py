"""Users' own steps that load or change labels: their checks, their mapping, and pipelines without labels."""

from __future__ import annotations

import importlib
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from compat.data.test_datasets import section
from terrazzo.data.build import build_dataset
from terrazzo.data.checks.run import check_labels, check_splits
from terrazzo.data.checks.survey import SplitSurvey
from terrazzo.data.dataset import LoadError
from terrazzo.errors import UserError
from terrazzo.exporting.plan import predicting_steps
from terrazzo.transforms.compose import Compose


@pytest.fixture
def steps():
    return importlib.import_module("labels")


def opened(root, *names, **more):
    """A data set whose pipeline has these steps after the one that reads images."""
    spec = section("OldDataset", root, **more)
    first, last = spec["pipeline"][0], spec["pipeline"][-1]
    return build_dataset({**spec, "pipeline": [first, *({"type": name} for name in names), last]})


def findings(data):
    return check_splits([SplitSurvey.of("val", [data])], images=False).findings


def rewrite_labels(root, change):
    for path in sorted((root / "data/train").glob("*_classes.png")):
        label = np.array(Image.open(path))
        Image.fromarray(change(label)).save(path)


def with_void(label):
    label[:4] = 3
    return label


def test_labels_are_checked_as_an_own_step_reads_them(older, steps, photos):
    rewrite_labels(photos, with_void)
    with pytest.raises(UserError, match="outside the 3 classes 0-2: 3 "):
        check_labels(opened(photos, "LoadAnnotations"), "val")
    data = opened(photos, "LoadWithoutVoid")
    assert findings(data) == [] and set(np.unique(data[0].label)) == {0, 1, 2, 255}
    rewrite_labels(photos, lambda label: np.where(label == 3, 7, label).astype(np.uint8))
    with pytest.raises(UserError, match="outside the 3 classes 0-2: 7 "):
        check_labels(opened(photos, "LoadWithoutVoid"), "val")


def test_masks_of_colours_are_what_an_own_step_makes_of_them(older, steps, photos):
    rewrite_labels(photos, lambda label: steps.COLOURS[label])
    data = opened(photos, "ReadColourMasks")
    check_labels(data, "val")
    assert set(np.unique(data.read_label(data.pairs[0][1]))) == {0, 1, 2}


def test_steps_after_reading_may_make_labels_right(older, steps, photos):
    rewrite_labels(photos, with_void)
    data = opened(photos, "LoadAnnotations", "VoidTo255")
    check_labels(data, "val")
    (found,) = findings(data)
    assert found.severity == "advice" and "VoidTo255, of the project's own, may change that" in found.message
    assert set(np.unique(data[0].label)) == {0, 1, 2, 255}
    rewrite_labels(photos, lambda label: np.where(label == 3, 7, label).astype(np.uint8))
    sample = opened(photos, "LoadAnnotations", "VoidTo255")[0]
    assert isinstance(sample, LoadError) and "VoidTo255 gives" in sample.message and ": 7 " in sample.message


def test_a_data_set_that_makes_its_items_may_make_labels_right(older, photos):
    from mmseg.datasets import DATASETS

    @DATASETS.register_module()
    class WithoutVoid(older.OldDataset):
        def __getitem__(self, index):
            item = super().__getitem__(index)
            item.label[item.label == 3] = 255
            return item

    rewrite_labels(photos, with_void)
    data = build_dataset(section("WithoutVoid", photos))
    check_labels(data, "val")
    assert set(np.unique(data[0].label)) == {0, 1, 2, 255}
    rewrite_labels(photos, lambda label: np.where(label == 3, 7, label).astype(np.uint8))
    assert "WithoutVoid gives" in build_dataset(section("WithoutVoid", photos))[0].message


def test_an_own_step_maps_labels_once_as_the_data_set_tells_it(older, steps, photos):
    data = opened(photos, "LoadWithoutVoid", reduce_zero_label=True)
    assert [*np.unique(data[0].label)] == [0, 1, 255]
    data = opened(photos, "LoadWithoutVoid", metainfo={"classes": ("road", "sky")})
    assert [*np.unique(data[0].label)] == [0, 1, 255] and data[0].label[0, 0] == 1
    assert [*np.unique(opened(photos, "LoadWithoutVoid", ignore=[1])[0].label)] == [0, 2, 255]


def test_images_alone_are_predicted_without_steps_for_labels(steps, newer):
    names = ["LoadImageFromFile", "LoadWithoutVoid", "Resize", "VoidTo255", "LoadAnnotations", "PackSegInputs"]
    pipeline = [{"type": name, **({"scale": (64, 48)} if name == "Resize" else {})} for name in names]
    assert [type(step).__name__ for step in Compose(pipeline).after_reading().as_written()] == ["Resize"]
    exported = predicting_steps(SimpleNamespace(steps=pipeline))
    assert [step["type"] for step in exported] == ["LoadImageFromFile", "Resize", "LoadAnnotations", "PackSegInputs"]
