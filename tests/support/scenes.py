"""Scenes and models of four bands for tests of prediction in windows."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file

import terrazzo as tz
from support.tiny import model_config, street

CLASSES = ["water", "forest", "field", "road"]
PALETTE = [[30, 90, 200], [20, 110, 40], [220, 200, 90], [120, 120, 120]]
BANDS = 4


def save_model(
    path: Path,
    seed: int = 1,
    loading: dict[str, Any] | None = None,
    bands: int = BANDS,
    spread: tuple[float, float] = (20_000.0, 12_000.0),
) -> Path:
    """A self-contained file with an untrained UNet of four channels, for scenes of `bands` bands of 16 bits.

    `spread` is the mean and the deviation of a band: 120 and 60 for pictures.
    """
    torch.manual_seed(seed)
    model = model_config(len(CLASSES))
    model["backbone"]["in_channels"] = bands
    model["data_preprocessor"] |= {"mean": [spread[0]] * bands, "std": [spread[1]] * bands, "bgr_to_rgb": False}
    loading = {"type": "LoadImageFromFile", "bands": list(range(1, bands + 1)), **(loading or {})}
    data = {
        "type": "BaseSegDataset",
        "pipeline": [loading, {"type": "PackSegInputs"}],
        "metainfo": {"classes": CLASSES},
    }
    config = {"model": model, "test_dataloader": {"batch_size": 1, "dataset": data}}
    texts = {"format": "terrazzo", "config": config, "classes": CLASSES, "palette": PALETTE}
    weights = {name: value.contiguous() for name, value in tz.build_model(model).state_dict().items()}
    metadata = {name: value if isinstance(value, str) else json.dumps(value) for name, value in texts.items()}
    save_file(weights, path, metadata)
    return path


def landscape(height: int, width: int, bands: int = BANDS) -> np.ndarray:
    """An image (bands, height, width) uint16 of repeated streets."""
    tile = np.concatenate(
        [np.concatenate([street(4 * row + column, 96, 128)[0] for column in range(4)], 1) for row in range(4)]
    )
    whole = np.tile(tile, (-(-height // len(tile)), -(-width // tile.shape[1]), 1))[:height, :width]
    values = np.concatenate([whole, 255 - whole[..., :1]], 2)[..., :bands]
    return (values.astype(np.uint16) * 200 + 100).transpose(2, 0, 1)


def save_scene(
    path: Path, image: np.ndarray, origin: tuple[float, float] = (500_000.0, 4_600_000.0), **profile: Any
) -> Path:
    """A GeoTIFF of an image (bands, height, width) in UTM zone 33N with pixels of half a metre."""
    import rasterio
    from rasterio.transform import from_origin

    settings = {
        "driver": "GTiff", "count": len(image), "height": image.shape[1], "width": image.shape[2], "dtype": image.dtype,
        "crs": "EPSG:32633", "transform": from_origin(*origin, 0.5, 0.5), "tiled": True, "blockxsize": 128,
        "blockysize": 128, "compress": "deflate",
    }  # fmt: skip
    with rasterio.open(path, "w", **(settings | profile)) as file:
        file.write(image)
    return path
