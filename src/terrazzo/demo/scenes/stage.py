"""The stage of a drawn street scene: classes, hours of the day, and a canvas in perspective for picture and labels."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

Array = np.ndarray
Numbers = npt.ArrayLike


def colours(words: str) -> Array:
    """RGB colours (N, 3) from hexadecimal words."""
    return np.array([list(bytes.fromhex(word)) for word in words.split()], float)


CLASSES = ("road", "pavement", "building", "sky", "car", "person", "tree", "sign")
COLOURS = colours("6e6080 d896be ba825a 70b2e6 2c4abe e23e4a 5c9e42 face38")
PALETTE: tuple[tuple[int, ...], ...] = tuple(tuple(map(int, colour)) for colour in COLOURS)
LABELS = {name: index for index, name in enumerate(CLASSES)}
IGNORED = 255
GRAIN = np.array([0.03, 0.03, 0.025, 0.004, 0.01, 0.015, 0.06, 0.01], np.float32)  # noise of each class's surface
SHINE = np.array([1, 0.6, 0, 0, 0, 0, 0, 0], np.float32)  # of each class when wet
SUPERSAMPLING = 3  # odd, so that a label is sampled in the middle of the picture's pixel
SUBPIXEL_BITS = 4
NEAR = 0.8  # metres; nothing nearer is drawn
UP, FRONT = (0.0, 1.0, 0.0), (0.0, 0.45, -0.89)  # normals: of the ground, of upright things that face the camera

# of an hour and its weather: share of the scenes; colours of the sky from the zenith down, the ambient light, the sun
# and the haze; visibility (metres); elevation and azimuth of the sun (degrees, the latter from straight ahead); how
# dark shadows are, how many windows are lit (above zero, cars shine), clouds, strength of the ground's mirror image
HOURS: tuple[tuple[Any, ...], ...] = (
    (0.34, "3f80d2 7fb6ea d2e8f4", "99a6bd", "807561", "cadeee", 230, (36, 62), (60, 165), 0.38, 0, 0.55, 0),
    (0.14, "9eaaba bcc4ce d8dce0", "ccd4e0", "0f0f0f", "ced4da", 150, (50, 70), (60, 165), 0, 0, 0.9, 0),
    (0.10, "788496 9aa4b2 bec4cc", "a8b3c7", "080808", "b6bec8", 85, (50, 70), (60, 165), 0, 0.22, 0.8, 0.42),
    (0.16, "425292 a87e9e faa674 ffd696", "8a8099", "9e662e", "ecb088", 140, (7, 15), (60, 165), 0.34, 0.3, 0.6, 0),
    (0.10, "1e2a5c 484e8a a07c9e e8a48c", "767aa6", "000000", "887694", 120, (20, 40), (60, 165), 0, 0.55, 0.4, 0.14),
    (0.08, "c4cad0 ced2d6 d4d6d8", "c7ccd6", "0a0a0a", "d1d4d7", 34, (40, 60), (60, 165), 0, 0.1, 0, 0),
    (0.08, "70a4d6 bed0dc fff0cc", "808294", "948057", "fae8c6", 95, (13, 21), (0, 16), 0.42, 0, 0.35, 0),
)


@dataclass
class Stage:
    """One scene in the making: x to the right, y up and z ahead in metres; picture and labels painted together."""

    rng: np.random.Generator
    height: int
    width: int

    def __post_init__(self) -> None:
        rng, size = self.rng, (self.height * SUPERSAMPLING, self.width * SUPERSAMPLING)
        self.x, self.glows = 0.0, list[tuple[Array, float, Array]]()  # of the camera; pixel, radius, colour
        self.picture, self.label = np.zeros((*size, 3), np.uint8), np.full(size, LABELS["sky"], np.uint8)
        self.focal, self.eye = rng.uniform(0.85, 1.05) * max(size), rng.uniform(2.2, 2.9)
        self.centre, self.horizon = size[1] * rng.uniform(0.4, 0.6), size[0] * rng.uniform(0.44, 0.56)
        self.curve = rng.normal(0, 0.0012) if rng.random() < 0.6 else 0.0
        hour = HOURS[int(rng.choice(len(HOURS), p=[hour[0] for hour in HOURS]))]
        _, sky, *lights, self.visibility, elevation, azimuth, self.shadow, self.lamps, self.clouds, self.wet = hour
        up, around = np.radians(rng.uniform(*elevation)), np.radians(rng.uniform(*azimuth)) * rng.choice([-1, 1])
        self.to_sun = np.array([np.sin(around) * np.cos(up), np.sin(up), np.cos(around) * np.cos(up)])
        self.sky, (ambient, sun, self.haze) = colours(sky), colours(" ".join(lights))
        self.ambient, self.sun, self.mirrored = ambient / 255, sun / 255, self.sky[[0, -1]].mean(0)

    def shade(self, colour: Array, normal: Iterable[float] | None, z: float) -> Array:
        """The colour of a surface with this unit normal, `z` metres away; that of a light without a normal."""
        if normal is not None:
            facing = max(0.0, sum(a * b for a, b in zip(normal, self.to_sun, strict=True)))
            colour = colour * (self.ambient + self.sun * facing)
        return np.asarray(self.haze + (colour - self.haze) * math.exp(-z / self.visibility))

    def project(self, points: Numbers) -> Array:
        """Points (..., 3) in metres as pixels (..., 2) of the canvas."""
        points = np.asarray(points, float)
        z = np.maximum(points[..., 2], NEAR)
        pixels, scale = np.empty((*z.shape, 2)), self.focal / z
        pixels[..., 0] = self.centre + (points[..., 0] - self.x + self.curve * z * z) * scale
        pixels[..., 1] = self.horizon + (self.eye - points[..., 1]) * scale
        return pixels

    def sees(self, points: Numbers) -> bool:
        """Return whether some of what is between points (N, 3) in metres may be in the picture."""
        columns, width = self.project(points)[:, 0], self.label.shape[1]
        return bool(columns.max() > -0.1 * width and columns.min() < 1.1 * width)

    def paint(self, shapes: Array, colour: Array, kind: str = "", width: float = 0) -> None:
        """Fill a polygon (N, 2) or several (M, N, 2), in pixels, or draw a line; without a `kind` the labels stay."""
        corners = list((shapes.reshape(-1, *shapes.shape[-2:]) * (1 << SUBPIXEL_BITS)).astype(np.int32))
        for canvas, value in ((self.picture, colour.tolist()), (self.label, LABELS.get(kind))):
            if width and value is not None:
                cv2.polylines(canvas, corners, False, value, max(1, round(width)), cv2.LINE_8, SUBPIXEL_BITS)
            elif value is not None:
                cv2.fillPoly(canvas, corners, value, cv2.LINE_8, SUBPIXEL_BITS)

    def carpet(self, x0: Numbers, x1: Numbers, z0: Numbers, z1: Numbers, colour: Array, kind: str = "") -> None:
        """Paint rectangles on the ground from x `x0` to `x1` and from z `z0` to `z1`, all of which broadcast."""
        corners = rectangles(x0, x1, z0, z1)[..., [0, 2, 1]]
        depths = corners[:, :2, 2].mean(1)
        for z in np.unique(depths[corners[:, 1, 2] > NEAR])[::-1]:
            self.paint(self.project(corners[depths == z]), self.shade(colour, UP, float(z)), kind)

    def cast_shadows(self, prisms: list[tuple[Array, float, float]]) -> None:
        """Darken the ground below prisms, each an outline (N, 2) in x and z and the heights of its foot and top."""
        if not self.shadow:
            return
        mask, ground = np.zeros(self.label.shape, np.uint8), self.picture[int(self.horizon) - 2 :]
        step = -self.to_sun[[0, 2]] / max(float(self.to_sun[1]), 0.12)
        for outline, foot, top in prisms:
            both = np.concatenate([outline + step * foot, outline + step * top]).astype(np.float32)
            hull = np.insert(cv2.convexHull(both)[:, 0], 1, 0.0, axis=1)
            cv2.fillPoly(mask, [self.project(hull).astype(np.int32)], 1)
        cv2.copyTo(cv2.convertScaleAbs(ground, alpha=1 - 0.92 * self.shadow), mask[-len(ground) :], ground)

    def developed(self) -> tuple[Array, Array]:
        """The photograph (H, W, 3), with wet ground, grain, glow and lens, and its labels (H, W), both uint8."""
        rng, middle, (height, width) = self.rng, SUPERSAMPLING // 2, (self.height, self.width)
        film: Array = cv2.resize(self.picture, (width, height), interpolation=cv2.INTER_AREA).astype(np.float32)
        label = np.ascontiguousarray(self.label[middle::SUPERSAMPLING, middle::SUPERSAMPLING])
        if self.wet:  # the street upside down, blurred downwards
            rows = np.clip(2 * int(self.horizon / SUPERSAMPLING) - np.arange(height) + 2, 0, height - 1)
            strength = (self.wet * SHINE[label])[..., None]
            film += (cv2.GaussianBlur(film[rows], (0, 0), height / 100, sigmaY=height / 26) * 0.94 - film) * strength
        film *= (1 + GRAIN[label] * rng.standard_normal(label.shape, np.float32))[..., None]
        for pixel, radius, colour in self.glows:
            pixel, radius = pixel / SUPERSAMPLING, radius / SUPERSAMPLING
            (left, top), (right, bottom) = np.clip((pixel - radius, pixel + radius + 1), 0, (width, height)).astype(int)
            y, x = np.ogrid[top:bottom, left:right]
            halo = np.clip(1 - np.hypot(x - pixel[0], y - pixel[1]) / radius, 0, 1) ** 2.2
            film[top:bottom, left:right] += halo[..., None] * colour
        film = cv2.GaussianBlur(film, (0, 0), rng.uniform(0.25, 0.6) * max(1.0, width / 480))
        film *= (rng.normal(1, 0.015, 3) * rng.uniform(0.94, 1.12)).astype(np.float32)
        film += np.float32(rng.uniform(1.0, 2.8)) * rng.standard_normal(film.shape, np.float32)
        return np.clip(film, 0, 255).astype(np.uint8), label


def rectangles(left: Numbers, right: Numbers, low: Numbers, high: Numbers) -> Array:
    """Corners (M, 4, 3) of upright rectangles at z 0, clockwise from the lower left; the arguments broadcast."""
    corners = np.zeros((*np.broadcast(left, right, low, high).shape, 4, 3))
    corners[..., :2, 0], corners[..., 2:, 0] = np.asarray(left)[..., None], np.asarray(right)[..., None]
    corners[..., ::3, 1], corners[..., 1:3, 1] = np.asarray(low)[..., None], np.asarray(high)[..., None]
    return corners.reshape(-1, 4, 3)
