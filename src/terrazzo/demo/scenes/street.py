"""The street itself, drawn from far to near: sky, ground with its markings, and houses."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from terrazzo.demo.scenes.canvas import BUILDING, PAVEMENT, ROAD, SKY, SUPERSAMPLING, TREE, Colour, Stage, clip_near

FACADES: tuple[Colour, ...] = (
    (238, 222, 192), (208, 128, 96), (172, 92, 74), (228, 184, 112), (166, 182, 156), (146, 170, 190), (230, 176, 164),
    (182, 178, 170), (240, 236, 228), (112, 122, 136), (216, 168, 80), (104, 150, 148), (196, 150, 118),
    (214, 200, 178),
)  # fmt: skip
ROOFS: tuple[Colour, ...] = ((92, 98, 112), (182, 98, 70), (122, 88, 68), (138, 70, 56))
AWNINGS: tuple[Colour, ...] = ((196, 58, 52), (40, 110, 92), (44, 84, 140), (222, 166, 50), (120, 60, 96))
SHUTTERS: tuple[Colour, ...] = ((62, 104, 92), (86, 112, 142), (128, 66, 54), (90, 96, 104), (208, 200, 184))
PAVINGS: tuple[Colour, ...] = ((190, 182, 172), (176, 176, 178), (204, 188, 168), (182, 168, 160))
BRICKS: tuple[Colour, ...] = ((216, 168, 140), (206, 156, 126), (222, 182, 148), (200, 160, 140))
ASPHALTS: tuple[Colour, ...] = ((122, 124, 130), (132, 130, 132), (110, 114, 122), (140, 134, 128))
CREAM: Colour = (246, 242, 232)


@dataclass(frozen=True)
class Layout:
    """The plan of a street in metres: x of the kerbs and house fronts, z of what crosses it and of its end."""

    road: float  # half the road's width
    fronts: tuple[float, float]  # x of the house fronts, left and right
    lanes: int  # in each direction
    parking: float  # width of the parking strip on either side, or 0
    crossing: float | None  # z of the near kerb of a street that crosses
    crossing_width: float
    zebra: float | None  # z of the near edge of a zebra crossing
    end: float
    keep_right: bool
    brick: bool  # pavements of brick instead of stone


def draw_sky(stage: Stage) -> None:
    """A gradient with clouds and, where the sun stands before the camera, its glow."""
    canvas, light, rng = stage.canvas, stage.light, stage.rng
    height, width = canvas.height, canvas.width
    horizon = stage.camera.horizon / SUPERSAMPLING
    rows = np.clip(np.arange(height) / horizon, 0, 1) * (len(light.sky) - 1)
    tones = np.array(light.sky)
    gradient = np.stack([np.interp(rows, np.arange(len(tones)), tones[:, c]) for c in range(3)], -1)
    sky = np.repeat(gradient[:, None], width, axis=1).astype(np.float32)

    bodies, tops = np.zeros((height, width), np.uint8), np.zeros((height, width), np.uint8)
    for _ in range(rng.binomial(9, light.clouds)):
        x, y = rng.uniform(-0.1, 1.1) * width, horizon * rng.beta(1.4, 1.6)
        size = rng.uniform(0.03, 0.075) * width * (0.4 + 0.8 * (1 - y / horizon))
        puffs = int(rng.integers(4, 9))
        for offset, lift, radius in zip(
            np.linspace(-1, 1, puffs), rng.uniform(0, 0.5, puffs), rng.uniform(0.5, 1, puffs), strict=True
        ):
            reach = size * radius * (1.15 - abs(offset) * 0.7)
            middle = (round(x + offset * size * 0.34 * puffs), round(y - lift * size * (1 - abs(offset))))
            cv2.ellipse(bodies, middle, (round(reach), round(reach * 0.62)), 0, 0, 360, 255, -1)
            middle = (middle[0], round(middle[1] - 0.22 * reach))
            cv2.ellipse(tops, middle, (round(reach * 0.8), round(reach * 0.4)), 0, 0, 360, 255, -1)
    soft = width / 110
    lit, base = np.array(light.sky[-1]) * 0.35 + np.array((255, 252, 246)) * 0.65, np.array(light.sky[-1]) * 0.93
    low_sun = 1 - light.towards_sun[1]
    lit = lit * (1 - 0.35 * low_sun * (light.lamps > 0)) + np.array((255, 176, 140)) * 0.35 * low_sun * (
        light.lamps > 0
    )
    for mask, tone, strength in ((bodies, base, 0.7), (tops, lit, 0.85)):
        alpha = cv2.GaussianBlur(mask, (0, 0), soft).astype(np.float32)[..., None] * (strength / 255)
        sky += (tone.astype(np.float32) - sky) * alpha

    x, y, z = light.towards_sun
    if z > 0.3 and sum(light.sun) > 0.5:
        column = stage.camera.centre + stage.camera.focal * x / z
        row = stage.camera.horizon - stage.camera.focal * y / z
        ys, xs = np.mgrid[:height, :width].astype(np.float32)
        distance = np.hypot(xs - column / SUPERSAMPLING, ys - row / SUPERSAMPLING)[..., None] / width
        sky += (np.array((255, 244, 214), np.float32) - sky) * (0.75 * np.exp(-distance / 0.16))
        sky += (255 - sky) * np.clip((0.032 - distance) / 0.008, 0, 1)
        stage.glows.append((column, row, 0.5 * canvas.picture.shape[1], (120, 96, 56)))
    canvas.picture[:] = cv2.resize(
        np.clip(sky, 0, 255).astype(np.uint8), canvas.label.shape[::-1], interpolation=cv2.INTER_LINEAR
    )
    canvas.label[:] = SKY


def draw_backdrop(stage: Stage) -> None:
    """Hazy roofs or tree tops along the horizon."""
    rng, camera = stage.rng, stage.camera
    width, far = stage.canvas.picture.shape[1], 160.0
    trees = rng.random() < 0.4
    column = -0.05 * width
    tones = (96, 128, 92) if trees else (150, 144, 140)
    while column < 1.05 * width:
        step = width * rng.uniform(0.02, 0.07)
        top = camera.horizon - width * (rng.uniform(0.02, 0.035) if trees else rng.uniform(0.02, 0.085))
        tone = stage.light.shade(tuple(np.array(tones) * rng.uniform(0.85, 1.1)), (0, 0.3, -0.9), far)
        if trees:
            stage.canvas.ellipse((column, camera.horizon), (step, camera.horizon - top), tone, TREE)
        else:
            left, right, low = column, column + step + 2, camera.horizon + 3
            stage.canvas.polygons(np.array([(left, low), (left, top), (right, top), (right, low)]), tone, BUILDING)
        column += step


def draw_ground(stage: Stage, plan: Layout) -> None:
    """Pavement, road, kerbs, markings, in strips that fade into the haze."""
    rng = stage.rng
    stone = np.array(stage.choice(BRICKS if plan.brick else PAVINGS))
    asphalt = np.array(stage.choice(ASPHALTS))
    kerb, edges = tuple(stone * 1.12), np.concatenate([[1.0], np.geomspace(3, 500, 20)])
    near, far = edges[-2::-1], edges[:0:-1]
    stage.canvas.label[int(stage.camera.horizon) :] = PAVEMENT
    stage.carpet(-400, 400, near, far, tuple(stone), PAVEMENT)
    stage.carpet(-plan.road - 0.16, plan.road + 0.16, near, far, kerb, PAVEMENT)
    stage.carpet(-plan.road, plan.road, near, far, tuple(asphalt), ROAD)
    if plan.parking:
        for left in (-plan.road, plan.road - plan.parking):
            stage.carpet(left, left + plan.parking, near, far, tuple(asphalt * 1.09))
    _paving_joints(stage, plan, tuple(stone * 0.9))
    if plan.crossing is not None:
        start, stop, lane = plan.crossing, plan.crossing + plan.crossing_width, plan.road - 0.05
        stage.carpet(-90, 90, start - 0.16, stop + 0.16, kerb, PAVEMENT)
        stage.carpet(-90, 90, start, stop, tuple(asphalt), ROAD)
        stage.carpet(-lane, lane, start - 1, stop + 1, tuple(asphalt), ROAD)
    _wear(stage, plan, asphalt)
    _markings(stage, plan, rng)


def _paving_joints(stage: Stage, plan: Layout, tone: Colour) -> None:
    for side, front in zip((-1, 1), plan.fronts, strict=True):
        inner, outer = sorted((side * (plan.road + 0.16), front + side * 3))
        z, x = np.arange(2.0, 16, 1.1), np.arange(inner + 1.0, outer, 1.3)
        stage.carpet(inner, outer, z, z + 0.05, tone)
        stage.carpet(x, x + 0.04, 1.5, 18, tone)


def _wear(stage: Stage, plan: Layout, asphalt: np.ndarray) -> None:
    """Mended patches and manhole covers."""
    rng = stage.rng
    for _ in range(rng.integers(1, 5)):
        x, z = rng.uniform(-plan.road + 0.8, plan.road - 1.5), rng.uniform(4, 26)
        w, d = rng.uniform(0.6, 1.6), rng.uniform(1.2, 5)
        tone = tuple(asphalt * rng.choice([0.86, 0.92, 1.08]))
        stage.ground([(x, z), (x + 0.05, z + d), (x + w, z + d), (x + w - 0.08, z)], tone)
    for _ in range(rng.integers(0, 3)):
        x, z = rng.uniform(-plan.road + 1, plan.road - 1), rng.uniform(5, 18)
        angles = np.linspace(0, 2 * np.pi, 17)[:-1]
        for radius, factor in ((0.36, 0.62), (0.29, 0.8)):
            rim = [(x + radius * np.cos(a), z + radius * np.sin(a)) for a in angles]
            stage.ground(rim, tuple(asphalt * factor))


def _markings(stage: Stage, plan: Layout, rng: np.random.Generator) -> None:
    paint: Colour = (238, 236, 226)
    middle = (240, 196, 84) if rng.random() < 0.3 else paint

    def along(x: float, dash: float, gap: float, half: float, tone: Colour) -> None:
        z = np.arange(1.0 - rng.uniform(0, dash + gap), min(plan.end, 110), dash + gap)
        for start, stop in stops:
            z = z[(z + dash < start) | (z > stop)]
        stage.carpet(x - half, x + half, np.maximum(z, 0.8), z + dash, tone)

    stops = []
    if plan.crossing is not None:
        stops.append((plan.crossing - 1.5, plan.crossing + plan.crossing_width + 1.5))
    if plan.zebra is not None:
        stops.append((plan.zebra - 1.5, plan.zebra + 4))
    if rng.random() < 0.35:
        along(-0.14, 2, 0.0, 0.06, middle)
        along(0.14, 2, 0.0, 0.06, middle)
    else:
        along(0.0, 3, 4.5, 0.09, middle)
    lane = (plan.road - plan.parking) / plan.lanes
    for index in range(1, plan.lanes):
        for side in (-1, 1):
            along(side * lane * index, 2.5, 4.5, 0.08, paint)
    for side in (-1, 1):
        if plan.parking:
            along(side * (plan.road - plan.parking), 0.7, 0.7, 0.05, paint)
        elif rng.random() < 0.6:
            along(side * (plan.road - 0.35), 2, 0.0, 0.06, paint)
    if plan.zebra is not None:
        x = np.arange(-plan.road + 0.4, plan.road - 0.4, 1.05)
        stage.carpet(x, x + 0.55, plan.zebra, plan.zebra + 3, paint)
        side = 1 if plan.keep_right else -1
        left, right = sorted((side * 0.15, side * (plan.road - 0.4)))
        stage.carpet(left, right, plan.zebra - 1.4, plan.zebra - 1.1, paint)


def cast_shadows(stage: Stage, shapes: list[np.ndarray]) -> None:
    """Darken the ground under shapes (N, 3) that lie on it, once however many overlap."""
    canvas, light = stage.canvas, stage.light
    if light.shadow <= 0 or not shapes:
        return
    top = max(0, int(stage.camera.horizon) - 2)
    mask = np.zeros(canvas.label.shape, np.uint8)
    for shape in shapes:
        clipped = _clip_shape(stage, shape)
        if clipped is not None:
            cv2.fillPoly(mask, [clipped], 1)
    keep = (1 - light.shadow * np.array([1.0, 0.94, 0.82]))[None, None]
    below = canvas.picture[top:]
    dark = cv2.multiply(below, np.broadcast_to(keep, below.shape).astype(np.float32), dtype=cv2.CV_8U)
    cv2.copyTo(dark, mask[top:], below)


def _clip_shape(stage: Stage, shape: np.ndarray) -> np.ndarray | None:
    """A ground polygon as integer pixels, or None where it lies behind the camera."""
    clipped = clip_near(shape)
    if len(clipped) < 3:
        return None
    return stage.camera.project(clipped).astype(np.int32)
