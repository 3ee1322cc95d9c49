"""The labels of OpenVINO files beside the original's: run as written, and with the library's default precision.

    python benchmarks/precision.py IMAGE... --files street.xml street-bf16.xml [--model runs/street]

The default precision of a processor without bfloat16 is single precision; the two columns are then equal.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

import terrazzo as tz
from terrazzo.inference.openvino_runtime import import_openvino


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("images", nargs="+", type=Path)
    parser.add_argument("--files", nargs="+", type=Path, required=True)
    parser.add_argument("--model", help="what the files were exported from (default: the bundled model)")
    arguments = parser.parse_args()
    segmenter = tz.load(arguments.model, device="cpu")
    images = [segmenter.read(path)[0] for path in arguments.images]
    expected = [segmenter(image).labels for image in images]
    core = import_openvino().Core()
    print(f"{'equal labels, % (lowest of the images)':40} as written   by default")
    for path in arguments.files:
        shares = []
        for settings in ({"INFERENCE_PRECISION_HINT": "f32"}, {}):
            compiled = core.compile_model(path, "CPU", settings)
            found = [compiled({0: image[None]})[0][0] for image in images]
            shares.append(100 * min(np.mean(one == other) for one, other in zip(found, expected, strict=True)))
        print(f"{path.name:40} {shares[0]:10.2f} {shares[1]:12.2f}")


if __name__ == "__main__":
    main()
