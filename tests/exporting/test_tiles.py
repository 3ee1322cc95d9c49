"""Files for QGIS Deepness and geodeep, which cut maps into tiles."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import numpy as np
import pytest
import torch

import terrazzo as tz
from support.exports import need, picture, random_segmenter, set_windows
from support.tiny import save_image
from terrazzo.errors import UserError

PYTHON = os.environ.get("TERRAZZO_GEODEEP_PYTHON", sys.executable)
GEODEEP = """
import sys
import numpy as np
import rasterio
from geodeep import geodeep

# its smoothing of the finished class map is left out
geodeep.median_filter = geodeep.filter_small_segments = lambda mask, settings: mask
source, tiff, model, out = sys.argv[1:]
with rasterio.open(source) as file:
    image = file.read()
place = rasterio.transform.from_origin(5e5, 5e6, 0.1, 0.1)
profile = {"driver": "GTiff", "count": 3, "dtype": "uint8", "crs": "EPSG:32633", "transform": place}
with rasterio.open(tiff, "w", height=image.shape[1], width=image.shape[2], photometric="RGB", **profile) as file:
    file.write(image)
np.save(out, geodeep.segment(tiff, model, output_type="raw"))
"""


def scores(path, image):
    """What a reader of tiles gets for one."""
    import onnxruntime

    session = onnxruntime.InferenceSession(path)
    [tiles], [output] = session.get_inputs(), session.get_outputs()
    assert tiles.type == "tensor(float)" and tiles.shape[1:] == [3, *image.shape[:2]]
    assert len(output.shape) == 4 and output.shape[2:] == [*image.shape[:2]]
    unit = (image.transpose(2, 0, 1)[None] / 255).astype(np.float32)
    return session.run(None, {tiles.name: unit})[0][0], session.get_modelmeta().custom_metadata_map


def test_tiles_in_and_probabilities_out(tmp_path):
    need("onnx")
    segmenter, image = random_segmenter(change=set_windows("slide")), picture(32, 32)
    report = tz.export(segmenter, tmp_path / "m.onnx", reader="deepness")
    found, texts = scores(report.path, image)
    segmenter.model.test_cfg = {"mode": "whole"}
    assert np.abs(found - segmenter(image).probs).max() < 1e-5
    values = {key: json.loads(texts[key]) for key in ("model_type", "class_names", "resolution", "tiles_size")}
    assert values == {
        "model_type": "Segmentor",
        "class_names": {"0": "class 0", "1": "class 1", "2": "class 2"},
        "resolution": 10.0,
        "tiles_size": 32,
    }
    assert texts["tiles_overlap"] == "38" and texts["seg_thresh"] == "0.0"
    assert "10 cm per pixel, as nothing else was given" in str(report)
    with pytest.raises(UserError, match="takes tiles of maps"):
        tz.load(report.path)


@pytest.mark.slow
@pytest.mark.parametrize("threshold", [0.2, 0.6])
def test_the_likelier_of_two_classes_is_the_one_above_the_threshold(threshold, tmp_path):
    need("onnx")
    loss = {"type": "CrossEntropyLoss", "use_sigmoid": True}
    segmenter = random_segmenter(num_classes=2, out_channels=1, threshold=threshold, loss_decode=loss)
    image = picture(64, 64)
    foreground = segmenter(image).probs[1]
    with torch.no_grad():  # about half of the pixels are above the threshold
        logits = np.log(foreground / (1 - foreground))
        segmenter.model.decode_head.conv_seg.bias += np.log(threshold / (1 - threshold)) - float(np.median(logits))
    tz.export(segmenter, tmp_path / "m.onnx", reader="deepness", size=(64, 64), resolution=20)
    found, texts = scores(tmp_path / "m.onnx", image)
    assert (found.argmax(0) == segmenter(image).labels).mean() > 0.999
    assert np.allclose(found.sum(0), 1) and found.min() >= 0 and texts["resolution"] == "20"


@pytest.mark.slow
def test_geodeep_gives_the_labels(exported, tmp_path):
    if subprocess.run([PYTHON, "-c", "import geodeep"], capture_output=True).returncode:
        pytest.skip(f"{PYTHON} has no geodeep (set TERRAZZO_GEODEEP_PYTHON)")
    model = tz.export(exported.best, tmp_path / "m.onnx", reader="deepness", size=(64, 64)).path
    image = picture(64, 64, seed=4)
    files = [save_image(tmp_path / "i.png", image), tmp_path / "map.tif", model, tmp_path / "mask.npy"]
    result = subprocess.run([PYTHON, "-c", GEODEEP, *map(str, files)], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert np.array_equal(np.load(files[-1]), tz.load(exported.best, device="cpu")(image).labels)
