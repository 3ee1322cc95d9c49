"""The auto-annotation function, called as CVAT's own driver calls it, without a server.

In another Python with `cvat-sdk` and `cvat-cli`: `python -m pytest tests/integrations`.
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import MagicMock

import cv2
import numpy as np
import pytest
from PIL import Image

import terrazzo as tz
from support.scenes import save_model
from support.tiny import save_image, street
from terrazzo.errors import UserError
from terrazzo.integrations.cvat import create

MODULE = "terrazzo.integrations.cvat"


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    return save_model(tmp_path_factory.mktemp("model") / "model.safetensors", bands=3, spread=(120.0, 60.0))


@pytest.fixture(scope="module")
def picture(tmp_path_factory) -> Path:
    return save_image(tmp_path_factory.mktemp("picture") / "street.png", street(0, 48, 64)[0])


@pytest.fixture(scope="module")
def function(model):
    """The function as `cvat-cli --function-module MODULE -p model=str:PATH` makes it."""
    common = pytest.importorskip("cvat_cli._internal.common", reason="needs cvat-cli and cvat-sdk")
    name, value = common.parse_function_parameter(f"model=str:{model}")
    return common.FunctionLoader(MODULE, None, {name: value}).load()


def shapes_of(function, picture, monkeypatch, **options):
    """The shapes that CVAT's driver uploads for a task of one image, whose labels are numbered from 100."""
    from cvat_sdk import models
    from cvat_sdk.auto_annotation import driver

    labels = [
        models.Label(id=100 + index, name=name, attributes=[], sublabels=[], type="any")
        for index, name in enumerate(function.segmenter.classes)
    ]
    media = SimpleNamespace(load_image=lambda: Image.open(picture))
    samples = [SimpleNamespace(frame_name=picture.name, frame_index=7, media=media)]
    monkeypatch.setattr(driver, "TaskDataset", lambda *_, **__: SimpleNamespace(labels=labels, samples=samples))
    client = MagicMock()
    driver.annotate_task(client, 1, function, **options)
    upload = client.tasks.api.partial_update_annotations.call_args.kwargs["patched_labeled_data_request"]
    assert all(shape.frame == 7 for shape in upload.shapes)
    return upload.shapes


def test_masks_are_those_of_the_model(function, model, picture, monkeypatch):
    from cvat_sdk.masks import decode_mask

    classes = tz.load(model).classes
    labels = tz.load(model)(picture).labels
    assert [label.name for label in function.spec.labels] == classes
    found = {shape.label_id - 100: shape for shape in shapes_of(function, picture, monkeypatch)}
    assert sorted(found) == np.unique(labels).tolist()
    for index, shape in found.items():
        assert shape.type.value == "mask"
        assert np.array_equal(decode_mask(shape.points, image_width=64, image_height=48), labels == index)


def test_polygons_and_thresholds(function, model, picture, monkeypatch):
    prediction = tz.load(model)(picture)
    filled = np.full(prediction.labels.shape, 255, np.uint8)
    for shape in shapes_of(function, picture, monkeypatch, conv_mask_to_poly=True):
        assert shape.type.value == "polygon"
        ring = np.array(shape.points).reshape(-1, 2) - 0.5
        cv2.fillPoly(filled, [np.round(ring * 256).astype(np.int32)], shape.label_id - 100, shift=8)
    assert (filled == prediction.labels).mean() > 0.8
    limit = float(np.median(prediction.confidence))
    sure = shapes_of(function, picture, monkeypatch, conf_threshold=limit)
    assert sum(sum(shape.points[1:-4:2]) for shape in sure) == (prediction.confidence >= limit).sum()


@pytest.mark.skipif(find_spec("cvat_sdk") is not None, reason="cvat-sdk is installed")
def test_without_the_sdk_the_pip_line_is_told(model):
    with pytest.raises(UserError, match=r'pip install "terrazzo\[cvat\]"'):
        create(str(model))
