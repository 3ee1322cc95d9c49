"""The short form's keys about images: bands, number of channels, mean and standard deviation."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from terrazzo.errors import UserError

RGB = 3
GREY = {"mean": [117.0], "std": [57.5]}  # ImageNet's, its colours weighted as a picture becomes grey


@dataclass(frozen=True)
class ImageKind:
    """How images are read (`loading`, of LoadImageFromFile), their channels, and their mean and std (`scale`).

    A picture has 8 bits, so that its brightness and colours can be played with.
    """

    channels: int = RGB
    loading: Mapping[str, Any] | None = None
    scale: Mapping[str, Any] | None = None
    is_picture: bool = True


def image_kind(values: Mapping[str, Any], data: Mapping[str, Any]) -> ImageKind:
    """What `data.bands`, `in_channels`, `mean` and `std` say: RGB, grey (`in_channels: 1`), or bands as stored.

    Raises UserError where they contradict each other, and for bands without mean and std.
    """
    bands, channels = data.get("bands"), values.get("in_channels")
    if bands is not None and not are_bands(bands):
        raise UserError(f"data.bands must be a list of band numbers from 1, such as [3, 2, 1, 7], not {bands!r}")
    if channels is not None and not (type(channels) is int and channels > 0):
        raise UserError(f"in_channels must be a whole number of at least 1, not {channels!r}")
    if bands is not None and channels not in (None, len(bands)):
        raise UserError(f"in_channels is {channels}, but data.bands names {len(bands)} bands; leave in_channels out")
    if bands is None and channels not in (None, 1, RGB):
        bands = list(range(1, channels + 1))
    count = channels or RGB if bands is None else len(bands)
    scale = normalisation(values, count)
    if bands is None:
        return ImageKind(count, {"color_type": "grayscale"} if count == 1 else {}, scale)
    if not scale:
        raise UserError(
            "images of other kinds than 8-bit RGB need `mean` and `std`, a number for each band: `terrazzo data stats "
            "CONFIG` computes them (or `mean: none`, to train on the values as they are)"
        )
    return ImageKind(count, {"bands": list(bands)}, scale, is_picture=False)


def are_bands(value: Any) -> bool:
    """Whether a value is a list of band numbers."""
    return isinstance(value, (list, tuple)) and bool(value) and all(type(band) is int and band > 0 for band in value)


def normalisation(values: Mapping[str, Any], channels: int) -> dict[str, Any]:
    """`mean` and `std` of the preprocessor; empty where the values name neither and ImageNet's do."""
    given = {key: values[key] for key in ("mean", "std") if values.get(key) is not None}
    if set(given.values() if all(isinstance(value, str) for value in given.values()) else ()) == {"none"}:
        return {"mean": None, "std": None}
    if len(given) == 1:
        raise UserError(f"`{next(iter(given))}` is given alone: `mean` and `std` go together")
    for key, value in given.items():
        numbers = isinstance(value, (list, tuple)) and all(isinstance(number, (int, float)) for number in value)
        if not numbers or len(value) != channels:
            raise UserError(f"`{key}` must be a list of {channels} numbers, one for each channel, not {value!r}")
        if key == "std" and min(value) <= 0:
            raise UserError(f"`std` must be above zero in each band, not {value!r}: leave out a band of one value")
    if not given and channels == 1:
        return dict(GREY)
    return {key: [float(number) for number in value] for key, value in given.items()}


def set_in_channels(model: dict[str, Any], channels: int) -> None:
    """Have a model's backbone, and the one inside it, take images of so many channels."""
    if channels == RGB:
        return
    for key in ("backbone", "image_encoder"):
        if isinstance(model.get(key), dict):
            widen(model[key], channels)


def widen(backbone: dict[str, Any], channels: int) -> None:
    inner = backbone.get("backbone_cfg")
    if isinstance(inner, dict):
        widen(inner, channels)
    if not isinstance(inner, dict) or "in_channels" in backbone:
        backbone["in_channels"] = channels
