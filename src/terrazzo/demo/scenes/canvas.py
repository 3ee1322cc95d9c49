"""What a drawn street scene stands on: classes, camera, light, and a canvas that holds picture and labels."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import cv2
import numpy as np

CLASSES = ("road", "pavement", "building", "sky", "car", "person", "tree", "sign")
ROAD, PAVEMENT, BUILDING, SKY, CAR, PERSON, TREE, SIGN = range(len(CLASSES))
PALETTE = (
    (110, 96, 128),
    (216, 150, 190),
    (186, 130, 90),
    (112, 178, 230),
    (44, 74, 190),
    (226, 62, 74),
    (92, 158, 66),
    (250, 206, 56),
)

SUPERSAMPLING = 3  # odd, so that a label has its sample in the middle of the picture's pixel
SUBPIXEL_BITS = 4
NEAR = 0.7  # metres; nothing nearer is drawn

Colour = tuple[float, float, float]
Span = float | np.ndarray


def scaled(colour: Colour, factor: float) -> Colour:
    """A colour made darker or lighter."""
    return colour[0] * factor, colour[1] * factor, colour[2] * factor


def mixed(one: Colour, other: Colour, share: float) -> Colour:
    """A colour between two, `share` of the way to the other."""
    keep = 1 - share
    return one[0] * keep + other[0] * share, one[1] * keep + other[1] * share, one[2] * keep + other[2] * share


@dataclass(frozen=True)
class Camera:
    """A pinhole above a street along z, x to the right and y up, in metres; the street may bend by `curve`."""

    focal: float
    centre: float
    horizon: float
    x: float
    eye: float
    curve: float

    def project(self, points: np.ndarray) -> np.ndarray:
        """Points (..., 3) in metres to pixels (..., 2) of the canvas."""
        z = np.maximum(points[..., 2], NEAR)
        scale = self.focal / z
        pixels = np.empty((*points.shape[:-1], 2))
        pixels[..., 0] = self.centre + (points[..., 0] - self.x + self.curve * z * z) * scale
        pixels[..., 1] = self.horizon + (self.eye - points[..., 1]) * scale
        return pixels

    def at(self, x: float, y: float, z: float) -> tuple[float, float, float]:
        """Pixel column and row of one point, and the pixels in a metre there."""
        scale = self.focal / max(z, NEAR)
        return self.centre + (x - self.x + self.curve * z * z) * scale, self.horizon + (self.eye - y) * scale, scale


@dataclass(frozen=True)
class Light:
    """Sun, sky and air: what colours look like by the way a surface faces and by its distance."""

    name: str
    sky: tuple[Colour, ...]  # from the zenith down to the horizon
    ambient: Colour
    sun: Colour
    haze: Colour
    visibility: float  # metres
    towards_sun: tuple[float, float, float]
    shadow: float  # how much of the light a shadow takes
    lamps: float = 0.0  # share of windows that are lit; above zero, cars and street lamps shine
    clouds: float = 0.5
    wet: float = 0.0  # how strongly the ground mirrors

    def shade(self, colour: Colour, normal: tuple[float, float, float], z: float) -> Colour:
        """The colour of a surface with this unit `normal`, `z` metres away."""
        (nx, ny, nz), (sx, sy, sz) = normal, self.towards_sun
        facing = max(0.0, nx * sx + ny * sy + nz * sz)
        clear = math.exp(-z / self.visibility)
        (red, green, blue), (r, g, b), (hr, hg, hb) = colour, self.haze_free(facing), self.haze
        return (
            hr + (red * r - hr) * clear,
            hg + (green * g - hg) * clear,
            hb + (blue * b - hb) * clear,
        )

    def haze_free(self, facing: float) -> Colour:
        """The light on a surface near by, by the cosine of its angle to the sun."""
        (ar, ag, ab), (sr, sg, sb) = self.ambient, self.sun
        return ar + sr * facing, ag + sg * facing, ab + sb * facing

    def glow(self, colour: Colour, z: float) -> Colour:
        """The colour of something that shines by itself, `z` metres away."""
        clear = math.exp(-z / (2 * self.visibility))
        (red, green, blue), (hr, hg, hb) = colour, self.haze
        return hr + (red - hr) * clear, hg + (green - hg) * clear, hb + (blue - hb) * clear


def fixed_point(points: np.ndarray) -> np.ndarray:
    """Pixels to the integers with a binary fraction that OpenCV draws with."""
    return (points * (1 << SUBPIXEL_BITS)).astype(np.int32)


def clip_near(points: np.ndarray, near: float = 1.0) -> np.ndarray:
    """The part of a polygon (N, 3) with z of at least `near`."""
    kept = []
    for index, point in enumerate(points):
        before = points[index - 1]
        if (before[2] < near) != (point[2] < near):
            kept.append(before + (point - before) * (near - before[2]) / (point[2] - before[2]))
        if point[2] >= near:
            kept.append(point)
    return np.array(kept).reshape(-1, 3)


@dataclass
class Canvas:
    """A supersampled picture and its labels, always painted with the same shapes."""

    height: int
    width: int
    picture: np.ndarray = field(init=False)
    label: np.ndarray = field(init=False)

    def __post_init__(self) -> None:
        self.picture = np.zeros((self.height * SUPERSAMPLING, self.width * SUPERSAMPLING, 3), np.uint8)
        self.label = np.full(self.picture.shape[:2], SKY, np.uint8)

    def polygons(self, shapes: np.ndarray, colour: Colour, kind: int | None = None) -> None:
        """Fill one polygon (N, 2) or several (M, N, 2), in pixels; `kind` None leaves the labels as they are."""
        points = list(fixed_point(shapes)) if shapes.ndim == 3 else [fixed_point(shapes)]
        cv2.fillPoly(self.picture, points, colour, cv2.LINE_8, SUBPIXEL_BITS)
        if kind is not None:
            cv2.fillPoly(self.label, points, kind, cv2.LINE_8, SUBPIXEL_BITS)

    def line(self, points: list[tuple[float, float]], width: float, colour: Colour, kind: int | None = None) -> None:
        """A polyline with round ends."""
        thickness = max(1, round(width))
        joints = [fixed_point(np.array(points))]
        cv2.polylines(self.picture, joints, False, colour, thickness, cv2.LINE_8, SUBPIXEL_BITS)
        if kind is not None:
            cv2.polylines(self.label, joints, False, kind, thickness, cv2.LINE_8, SUBPIXEL_BITS)

    def ellipse(
        self, centre: tuple[float, float], axes: tuple[float, float], colour: Colour, kind: int | None = None,
        start: float = 0, end: float = 360,
    ) -> None:  # fmt: skip
        """A filled ellipse, or the sector of it from `start` to `end` degrees (clockwise from the right)."""
        unit = 1 << SUBPIXEL_BITS
        middle = (int(centre[0] * unit), int(centre[1] * unit))
        radii = (int(axes[0] * unit), int(axes[1] * unit))
        cv2.ellipse(self.picture, middle, radii, 0, start, end, colour, -1, cv2.LINE_8, SUBPIXEL_BITS)
        if kind is not None:
            cv2.ellipse(self.label, middle, radii, 0, start, end, kind, -1, cv2.LINE_8, SUBPIXEL_BITS)

    def disc(self, centre: tuple[float, float], radius: float, colour: Colour, kind: int) -> None:
        """A filled circle to the nearest whole pixel, which is quick."""
        middle, reach = (int(centre[0]), int(centre[1])), int(radius)
        cv2.circle(self.picture, middle, reach, colour, -1)
        cv2.circle(self.label, middle, reach, kind, -1)

    def text(self, words: str, centre: tuple[float, float], height: float, colour: Colour) -> None:
        """Block letters around a point; a marking, without a label of its own."""
        scale, stroke = height / 22, max(1, round(height / 5))
        (width, tall), _ = cv2.getTextSize(words, cv2.FONT_HERSHEY_SIMPLEX, scale, stroke)
        foot = (round(centre[0] - width / 2), round(centre[1] + tall / 2))
        cv2.putText(self.picture, words, foot, cv2.FONT_HERSHEY_SIMPLEX, scale, colour, stroke)

    def developed(self) -> tuple[np.ndarray, np.ndarray]:
        """Picture (averaged) and labels (sampled in the middle of each pixel) at the final size."""
        picture = cv2.resize(self.picture, (self.width, self.height), interpolation=cv2.INTER_AREA)
        middle = SUPERSAMPLING // 2
        return picture, np.ascontiguousarray(self.label[middle::SUPERSAMPLING, middle::SUPERSAMPLING])


@dataclass
class Stage:
    """One scene in the making."""

    canvas: Canvas
    camera: Camera
    light: Light
    rng: np.random.Generator
    glows: list[tuple[float, float, float, Colour]] = field(default_factory=list)  # column, row, radius, colour

    def sees(self, pixels: np.ndarray) -> bool:
        """Whether the box around pixels (..., 2) touches the canvas."""
        low, high = pixels.reshape(-1, 2).min(0), pixels.reshape(-1, 2).max(0)
        height, width = self.canvas.label.shape
        return bool(high[0] > 0 and high[1] > 0 and low[0] < width and low[1] < height)

    def choice(self, items: tuple[Colour, ...]) -> Colour:
        """One of `items`, evenly."""
        return items[int(self.rng.integers(len(items)))]

    def ground(self, points: list[tuple[float, float]], colour: Colour) -> None:
        """A polygon on the ground, its corners (x, z) in metres; a marking, without a label of its own."""
        flat = clip_near(np.array([(x, 0.0, z) for x, z in points]))
        if len(flat) >= 3:
            tone = self.light.shade(colour, (0, 1, 0), float(flat[:, 2].mean()))
            self.canvas.polygons(self.camera.project(flat), tone)

    def carpet(self, left: Span, right: Span, near: Span, far: Span, colour: Colour, kind: int | None = None) -> None:
        """Rectangles on the ground, between x `left` and `right` and z `near` and `far`; the arguments broadcast."""
        shape = np.broadcast(left, right, near, far).shape
        flat = np.zeros((*shape, 4, 3))
        flat[..., :2, 0], flat[..., 2:, 0] = np.asarray(left)[..., None], np.asarray(right)[..., None]
        flat[..., 0::3, 2], flat[..., 1:3, 2] = np.asarray(near)[..., None], np.asarray(far)[..., None]
        flat = flat.reshape(-1, 4, 3)
        depths = flat[:, :2, 2].mean(1).tolist()
        for pixels, z in zip(self.camera.project(flat), depths, strict=True):
            if z > 0:
                self.canvas.polygons(pixels, self.light.shade(colour, (0, 1, 0), z), kind)

    @property
    def shadow_step(self) -> tuple[float, float]:
        """How far in x and z the shadow of a point one metre high falls."""
        x, y, z = self.light.towards_sun
        return -x / max(y, 0.12), -z / max(y, 0.12)
