"""Segmenters that run something other than torch."""

from __future__ import annotations

import subprocess
import sys

from support.tiny import environment

ANOTHER_RUNTIME = """
import sys
import numpy as np
from terrazzo.inference.segmenter import Segmenter


class Halves:
    \"\"\"The scores of a network that takes images at half their size, whose right half is class 1.\"\"\"

    def __init__(self, image, placement):
        self.window, self.size = placement.window, placement.size
        assert image.shape == (8, 16, 3) and image.dtype == np.uint8

    def labels(self):
        return np.repeat([0, 1], self.size[1] // 2)[None].repeat(self.size[0], 0).astype(np.uint8)

    def probabilities(self):
        return np.stack([self.labels() == 0, self.labels() == 1]).astype(np.float32)


class Runtime:
    classes, palette = ["left", "right"], [[255, 0, 0], [0, 0, 255]]
    bands, threshold, device = 3, None, "cpu"

    def infer(self, images, placements):
        return [Halves(image, placement) for image, placement in zip(images, placements, strict=True)]


segmenter = Segmenter(Runtime(), [{"type": "LoadImageFromFile"}, {"type": "Resize", "scale": (16, 8)}])
prediction = segmenter(np.zeros((16, 32, 3), np.uint8))
assert prediction.labels.shape == (16, 32) and prediction.labels.sum() == 256
assert prediction.confidence.min() == 1 and prediction.classes == ["left", "right"]
assert prediction.overlay(1.0)[0, -1].tolist() == [0, 0, 255]
print("torch" in sys.modules)
"""


def test_a_segmenter_needs_no_torch_but_that_of_its_runtime():
    result = subprocess.run([sys.executable, "-c", ANOTHER_RUNTIME], env=environment(), capture_output=True, text=True)
    assert result.stdout.strip() == "False", result.stderr
