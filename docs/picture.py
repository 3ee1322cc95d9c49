"""Draw picture.png: street scenes, and below them what the network of `terrazzo demo` sees.

terrazzo demo
python docs/picture.py demo/best.safetensors docs/picture.png
"""

from __future__ import annotations

import argparse

import cv2
import numpy as np
from PIL import Image

import terrazzo as tz
from terrazzo.demo.scenes import CLASSES, PALETTE, draw_scene
from terrazzo.viz import legend, overlay, side_by_side

SMALL = (160, 224)  # height and width of the training scenes
SCALE = 2  # how much larger the pictures are
GAP = 8


def main() -> None:
    parser = argparse.ArgumentParser(description="Draw the picture of the README.")
    parser.add_argument("weights", help="best.safetensors of a demo")
    parser.add_argument("out", help="the PNG to write")
    parser.add_argument("--scenes", type=int, nargs="+", default=[10, 22, 4], help="their numbers")
    args = parser.parse_args()
    segmenter = tz.load(args.weights)
    images, painted = [], []
    large = (SMALL[0] * SCALE, SMALL[1] * SCALE)
    for number in args.scenes:
        drawn, _ = draw_scene(np.random.default_rng((2024, number)), (2 * large[0], 2 * large[1]))
        probabilities = segmenter(shrunk(drawn, SMALL)).probs.transpose(1, 2, 0)
        labels = cv2.resize(probabilities, large[::-1], interpolation=cv2.INTER_CUBIC).argmax(-1)
        images.append(cv2.bilateralFilter(shrunk(drawn, large), 7, 20, 3))  # without grain the file is small
        painted.append(overlay(images[-1], labels, PALETTE, 0.66))
    above, below = side_by_side(images, gap=GAP), side_by_side(painted, gap=GAP)
    space = np.full((GAP, above.shape[1], 3), 255, np.uint8)
    names = legend(CLASSES, PALETTE, above.shape[1], "below", size=22)
    sheet = np.concatenate([above, space, below, names])
    coarse = np.minimum((sheet.astype(int) + 2) // 4 * 4, 255).astype(np.uint8)
    Image.fromarray(coarse).save(args.out, optimize=True)


def shrunk(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    return np.asarray(cv2.resize(image, size[::-1], interpolation=cv2.INTER_AREA))


if __name__ == "__main__":
    main()
