"""The short form's keys about images: bands, number of channels, mean and standard deviation."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from terrazzo.config.short_form.messages import Problem

if TYPE_CHECKING:
    from terrazzo.config.short_form.schema import ShortForm

RGB = 3
GREY = {"mean": [117.0], "std": [57.5]}  # ImageNet's, its colours weighted as a picture becomes grey


@dataclass(frozen=True)
class ImageKind:
    """How images are read (`loading`, of LoadImageFromFile), their channels, and their mean and std (`scale`).

    A picture has 8 bits, so that its brightness and colours can be varied.
    """

    channels: int = RGB
    loading: Mapping[str, Any] = field(default_factory=dict)
    scale: Mapping[str, Any] = field(default_factory=dict)
    is_picture: bool = True


def bands_of(form: ShortForm) -> list[int] | None:
    """Return the bands to read; None for pictures, in RGB or grey."""
    if form.data.bands is None and form.in_channels not in (None, 1, RGB):
        return list(range(1, form.in_channels + 1))
    return form.data.bands


def channels_of(form: ShortForm) -> int:
    bands = bands_of(form)
    return form.in_channels or RGB if bands is None else len(bands)


def image_kind(form: ShortForm) -> ImageKind:
    """Return what `data.bands`, `in_channels`, `mean` and `std` specify: RGB, grey, or bands as stored."""
    bands, channels = bands_of(form), channels_of(form)
    scale = normalisation(form, channels)
    if bands is None:
        return ImageKind(channels, {"color_type": "grayscale"} if channels == 1 else {}, scale)
    return ImageKind(channels, {"bands": list(bands)}, scale, is_picture=False)


def image_problems(form: ShortForm) -> Iterator[Problem]:
    """Yield contradictions among the keys about images, and bands without mean and std."""
    bands, channels = form.data.bands, channels_of(form)
    if bands is not None and form.in_channels not in (None, len(bands)):
        text = f"in_channels is {form.in_channels}, but data.bands names {len(bands)} bands; omit in_channels"
        yield Problem("in_channels", text)
    given = {key: value for key, value in (("mean", form.mean), ("std", form.std)) if value is not None}
    if set(map(str, given.values())) == {"none"}:
        return
    if len(given) == 1:
        (key,) = given
        yield Problem(key, f"`{key}` is given alone: `mean` and `std` go together")
    for key, value in given.items():
        if isinstance(value, str) or len(value) != channels:
            text = f"`{key}` must be a list of {channels} numbers, one for each channel, not {value!r}"
            yield Problem(key, text)
        elif key == "std" and min(value) <= 0:
            yield Problem(key, f"`std` must be above zero in each band, not {value!r}: omit a band of one value")
    if bands_of(form) is not None and not given:
        yield Problem(
            "data.bands" if bands is not None else "in_channels",
            "images of other kinds than 8-bit RGB need `mean` and `std`, a number for each band: `terrazzo data stats "
            "CONFIG` computes them (or `mean: none`, to train on the values as they are)",
        )


def normalisation(form: ShortForm, channels: int) -> dict[str, Any]:
    """Return `mean` and `std` of the preprocessor; empty where ImageNet's apply."""
    if "none" in (form.mean, form.std):
        return {"mean": None, "std": None}
    if form.mean is None or form.std is None:
        return dict(GREY) if channels == 1 else {}
    return {"mean": list(form.mean), "std": list(form.std)}


def set_in_channels(model: dict[str, Any], channels: int) -> None:
    """Make a model's backbone, and the one inside it, take images of `channels` channels."""
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
