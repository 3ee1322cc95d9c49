"""Peak memory and speed of `terrazzo predict` on scenes of growing size: four bands of 16 bits in a tiled GeoTIFF.

    python benchmarks/scenes.py --sides 5000 20000 40000 --model fast --overlap 0.125
    python benchmarks/scenes.py --sides 20000 --model street

Each scene is predicted by a process of its own. `street` is a network of the bundled model's size, `fast` a Fast-SCNN;
both take four bands and are untrained, which changes neither memory nor speed.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import rasterio
from rasterio.transform import from_origin
from rasterio.windows import Window
from safetensors.torch import save_file

import terrazzo as tz
from terrazzo.hub.cache import BUNDLED

BANDS = 4
CLASSES = ["water", "forest", "field", "road", "house", "bare", "rail", "garden", "orchard", "vineyard", "other"]
TILE = 512


def save_scene(path: Path, side: int) -> None:
    """Write a scene of smooth random shapes, a row of tiles at a time."""
    profile = {"driver": "GTiff", "count": BANDS, "height": side, "width": side, "dtype": "uint16", "bigtiff": "yes"}
    tiles = {"tiled": True, "blockxsize": TILE, "blockysize": TILE, "compress": "deflate", "zlevel": 1}
    place = {"crs": "EPSG:32633", "transform": from_origin(500_000, 4_600_000, 0.5, 0.5)}
    rng = np.random.default_rng(0)
    with rasterio.open(path, "w", **profile, **tiles, **place) as file:
        for top in range(0, side, TILE):
            rows = min(TILE, side - top)
            coarse = rng.integers(0, 20_000, (BANDS, rows // 32 + 1, side // 32 + 1), dtype=np.uint16)
            values = coarse.repeat(32, 1).repeat(32, 2)[:, :rows, :side]
            file.write(np.ascontiguousarray(values), window=Window(0, top, side, rows))


def save_model(path: Path, kind: str) -> None:
    """Write an untrained model for such scenes as a file of its own."""
    if kind == "street":
        import safetensors

        with safetensors.safe_open(BUNDLED["street"], "np") as file:
            model = json.loads(file.metadata()["config"])["model"]
    else:
        model = tz.recipes.family("fastscnn")["model"]
    model["decode_head"]["num_classes"] = len(CLASSES)
    model.pop("auxiliary_head", None)
    model["backbone"]["in_channels"] = BANDS
    model["test_cfg"] = {"mode": "whole"}
    statistics = {"mean": [10_000.0] * BANDS, "std": [5_000.0] * BANDS, "bgr_to_rgb": False}
    model["data_preprocessor"] = {"type": "SegDataPreProcessor", "size": [512, 512], **statistics}
    pipeline = [{"type": "LoadImageFromFile", "bands": [1, 2, 3, 4]}, {"type": "PackSegInputs"}]
    data = {"type": "BaseSegDataset", "metainfo": {"classes": CLASSES}, "pipeline": pipeline}
    config = {"model": model, "test_dataloader": {"batch_size": 1, "dataset": data}}
    palette = [[40 * index, 255 - 30 * index, 60] for index in range(len(CLASSES))]
    metadata = {"config": json.dumps(config), "classes": json.dumps(CLASSES), "palette": json.dumps(palette)}
    weights = {name: value.contiguous() for name, value in tz.build_model(model).state_dict().items()}
    save_file(weights, path, {"format": "terrazzo", **metadata})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sides", type=int, nargs="+", default=[5000, 20000], help="pixels of the scenes' sides")
    parser.add_argument("--model", choices=["street", "fast"], default="fast")
    parser.add_argument("--overlap", help="as of `terrazzo predict`")
    parser.add_argument("--memory", default="2G", help="as of `terrazzo predict`")
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()), help="for scenes and results")
    args = parser.parse_args()
    print("| scene | peak memory | time | megapixels a second |\n|---|---|---|---|", flush=True)
    with tempfile.TemporaryDirectory(dir=args.folder) as folder:
        model = Path(folder) / "model.safetensors"
        save_model(model, args.model)
        for side in args.sides:
            scene = Path(folder) / f"{side}.tif"
            save_scene(scene, side)
            command = [sys.executable, "-m", "terrazzo", "predict", scene, "--model", model, "--out", f"{folder}/out"]
            command += ["--memory", args.memory, *(["--overlap", args.overlap] if args.overlap else [])]
            started = time.perf_counter()
            process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
            _, status, usage = os.wait4(process.pid, 0)
            seconds = time.perf_counter() - started
            if status:
                raise SystemExit(f"predicting {scene} failed")
            speed = side**2 / 1e6 / seconds
            print(
                f"| {side:,} x {side:,} | {usage.ru_maxrss / 1024:,.0f} MiB | {seconds:,.0f} s | {speed:.2f} |",
                flush=True,
            )
            scene.unlink()


if __name__ == "__main__":
    main()
