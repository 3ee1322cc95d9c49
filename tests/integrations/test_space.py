"""The example of a Hugging Face Space, where Gradio is installed."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import terrazzo as tz
from support.paths import REPOSITORY
from support.tiny import street


@pytest.fixture(scope="module")
def app():
    pytest.importorskip("gradio")
    spec = importlib.util.spec_from_file_location("space", REPOSITORY / "examples" / "space" / "app.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_its_page_shows_the_models_classes(app):
    photo = Image.fromarray(street(0, 96, 128)[0])
    prediction = tz.load()(photo)
    (shown, masks), shares = app.segment(photo, 0)
    assert shown is photo and [name for _, name in masks] == [name for name, _ in shares]
    for mask, name in masks:
        assert np.array_equal(mask, prediction.labels == prediction.classes.index(name))
    assert sum(mask.sum() for mask, _ in masks) == prediction.labels.size
    (_, masks), _ = app.segment(photo, 0.9)
    assert sum(mask.sum() for mask, _ in masks) == (prediction.confidence >= 0.9).sum()


def test_its_page_answers_over_http(app, tmp_path):
    from gradio_client import Client, handle_file

    Image.fromarray(street(1, 96, 128)[0]).save(tmp_path / "photo.png")
    _, address, _ = app.demo.launch(prevent_thread_lock=True, quiet=True)
    try:
        client = Client(address, verbose=False)
        picture, table = client.predict(handle_file(tmp_path / "photo.png"), 0.0, api_name="/segment")
        assert Path(picture["image"]).is_file() and picture["annotations"]
        assert [row[0] for row in table["data"]] == [one["label"] for one in picture["annotations"]]
        with pytest.raises(Exception, match="Choose a photo"):
            client.predict(None, 0.0, api_name="/segment")
    finally:
        app.demo.close()
