"""From a clean drawing to something a camera might have taken: texture, glow, wet ground, lens and sensor."""

from __future__ import annotations

from functools import cache

import cv2
import numpy as np

from terrazzo.demo.scenes.canvas import BUILDING, CAR, PAVEMENT, PERSON, ROAD, SIGN, SKY, SUPERSAMPLING, TREE, Stage

GRAIN = {ROAD: 0.03, PAVEMENT: 0.03, BUILDING: 0.025, SKY: 0.004, CAR: 0.01, PERSON: 0.015, TREE: 0.06, SIGN: 0.01}


def expose(stage: Stage, picture: np.ndarray, label: np.ndarray) -> np.ndarray:
    """The finished photograph (H, W, 3) uint8 of a drawn `picture`."""
    rng, light = stage.rng, stage.light
    height, width = label.shape
    film: np.ndarray = picture.astype(np.float32)
    if light.wet:
        film = _mirror(stage, film, label)
    grain = np.array([GRAIN[kind] for kind in range(len(GRAIN))], np.float32)[label]
    fine = rng.standard_normal((height, width), np.float32)
    coarse = cv2.resize(
        rng.standard_normal((height // 12 + 1, width // 12 + 1), np.float32),
        (width, height),
        interpolation=cv2.INTER_CUBIC,
    )
    film = film * (1 + grain * (0.8 * fine + 0.5 * coarse))[..., None]
    for column, row, radius, colour in stage.glows:
        _add_glow(film, column / SUPERSAMPLING, row / SUPERSAMPLING, radius / SUPERSAMPLING, colour)
    film = np.asarray(cv2.GaussianBlur(film, (0, 0), rng.uniform(0.25, 0.6) * max(1.0, width / 480)), np.float32)
    film *= _vignette(height, width, round(float(rng.uniform(0.04, 0.2)), 2))
    film *= rng.normal(1, 0.015, 3).astype(np.float32) * rng.uniform(0.92, 1.08)
    film = (film - 128) * rng.uniform(0.98, 1.1) + 128
    noise = rng.uniform(1.0, 2.6) * (1.4 if light.lamps > 0.25 else 1.0)
    film += noise * rng.standard_normal((height, width, 1), np.float32)
    film += 0.5 * noise * rng.standard_normal((height, width, 3), np.float32)
    image = np.clip(film, 0, 255).astype(np.uint8)
    quality = int(rng.integers(72, 96))
    packed = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, quality])[1]
    return np.asarray(cv2.imdecode(packed, cv2.IMREAD_COLOR))


def _mirror(stage: Stage, film: np.ndarray, label: np.ndarray) -> np.ndarray:
    """Wet ground: roads and pavements show the street upside down, blurred downwards."""
    horizon = int(stage.camera.horizon / SUPERSAMPLING)
    height = film.shape[0]
    rows = np.clip(2 * horizon - np.arange(height) + 2, 0, height - 1)
    upside_down = cv2.GaussianBlur(film[rows], (0, 0), sigmaX=height / 100, sigmaY=height / 26)
    ground = (label == ROAD).astype(np.float32) + 0.6 * (label == PAVEMENT)
    strength = (ground * stage.light.wet)[..., None]
    return film * (1 - 0.18 * (strength > 0)) * (1 - strength) + upside_down * strength


@cache
def _vignette(height: int, width: int, strength: float) -> np.ndarray:
    y, x = np.mgrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j]
    return (1 - strength * (x * x + y * y) / 2)[..., None].astype(np.float32)


@cache
def _halo() -> np.ndarray:
    y, x = np.mgrid[-1:1:65j, -1:1:65j]
    return (np.clip(1 - np.hypot(x, y), 0, 1) ** 2.2).astype(np.float32)


def _add_glow(film: np.ndarray, column: float, row: float, radius: float, colour: tuple[float, float, float]) -> None:
    reach = max(2, round(radius))
    halo = cv2.resize(_halo(), (2 * reach + 1, 2 * reach + 1), interpolation=cv2.INTER_LINEAR)
    left, top = round(column) - reach, round(row) - reach
    height, width = film.shape[:2]
    x0, x1, y0, y1 = max(0, left), min(width, left + 2 * reach + 1), max(0, top), min(height, top + 2 * reach + 1)
    if x0 < x1 and y0 < y1:
        part = halo[y0 - top : y1 - top, x0 - left : x1 - left, None]
        film[y0:y1, x0:x1] += part * np.array(colour, np.float32)
