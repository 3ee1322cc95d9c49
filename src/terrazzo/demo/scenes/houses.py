"""Houses of a drawn street: walls in perspective with windows, shops, balconies and roofs."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from terrazzo.demo.scenes.canvas import BUILDING, SUPERSAMPLING, Colour, Span, Stage, mixed, scaled
from terrazzo.demo.scenes.street import AWNINGS, CREAM, FACADES, ROOFS, SHUTTERS


@dataclass(frozen=True)
class Style:
    """How one house looks."""

    wall: Colour
    trim: Colour
    roof: Colour
    accent: Colour
    floors: int
    floor: float  # height of a floor, metres
    ground_floor: float
    bay: float  # distance between windows
    window: tuple[float, float]  # share of the bay's width, of the floor's height
    pitched: bool
    shop: bool
    shutters: bool
    balconies: bool
    office: bool

    @property
    def height(self) -> float:
        return self.ground_floor + self.floors * self.floor + 0.5


def random_style(stage: Stage, tall: float) -> Style:
    """A house style; `tall` between 0 (village) and 1 (city centre)."""
    rng = stage.rng
    office = rng.random() < 0.25 * tall
    wall = np.array(stage.choice(FACADES)) * rng.uniform(0.92, 1.05)
    if office:
        wall = np.array(stage.choice(((128, 140, 152), (206, 208, 208), (92, 100, 112), (170, 160, 148))))
    floors = int(rng.integers(1, 3) + rng.binomial(5, 0.6 * tall) + (rng.integers(2, 6) if office else 0))
    dark = rng.random() < 0.25
    return Style(
        wall=tuple(np.minimum(wall, 250)),
        trim=tuple(wall * 0.72) if dark else tuple(0.4 * wall + 0.6 * np.array(CREAM)),
        roof=stage.choice(ROOFS),
        accent=stage.choice(AWNINGS) if rng.random() < 0.7 else stage.choice(SHUTTERS),
        floors=floors,
        floor=rng.uniform(2.9, 3.5),
        ground_floor=rng.uniform(3.3, 4.2),
        bay=rng.uniform(2.2, 3.2),
        window=(0.86, 0.62) if office else (rng.uniform(0.36, 0.5), rng.uniform(0.5, 0.64)),
        pitched=not office and rng.random() < 0.7,
        shop=rng.random() < 0.35 + 0.35 * tall,
        shutters=not office and rng.random() < 0.3,
        balconies=not office and rng.random() < 0.25,
        office=office,
    )


@dataclass(frozen=True)
class Wall:
    """A vertical rectangle over a line on the ground; `u` runs along it from `start`, `out` stands off it."""

    start: tuple[float, float]
    direction: tuple[float, float]
    length: float
    normal: tuple[float, float, float]

    @classmethod
    def between(cls, start: tuple[float, float], end: tuple[float, float], viewer: float) -> Wall:
        """The wall whose face is turned to a viewer at x = `viewer`, z = 0."""
        dx, dz = end[0] - start[0], end[1] - start[1]
        length = float(np.hypot(dx, dz))
        normal = (dz / length, -dx / length)
        if normal[0] * (viewer - start[0]) - normal[1] * start[1] < 0:
            normal = (-normal[0], -normal[1])
        return cls(start, (dx / length, dz / length), length, (normal[0], 0.0, normal[1]))

    def quads(self, u0: Span, u1: Span, y0: Span, y1: Span, out: float = 0.0, flare: float = 0.0) -> np.ndarray:
        """Rectangles (M, 4, 3) in metres between `u0` and `u1`, heights `y0` and `y1`; the arguments broadcast.

        They stand `out` from the wall, at their foot by `flare` further, as an awning does.
        """
        points = np.empty((*np.broadcast(u0, u1, y0, y1).shape, 4, 3))
        for axis, way, start, normal in (
            (0, self.direction[0], self.start[0], self.normal[0]),
            (2, self.direction[1], self.start[1], self.normal[2]),
        ):
            base = start + normal * out
            points[..., :2, axis] = np.asarray(way * u0 + base)[..., None]
            points[..., 2:, axis] = np.asarray(way * u1 + base)[..., None]
            if flare:
                points[..., ::3, axis] += normal * flare
        points[..., ::3, 1] = np.asarray(y0)[..., None]
        points[..., 1:3, 1] = np.asarray(y1)[..., None]
        return points.reshape(-1, 4, 3)


def draw_house(stage: Stage, style: Style, x: float, side: int, near: float, far: float, before: float | None) -> None:
    """A house whose front stands along the street at `x`, z from `near` to `far`.

    `before` is the height of the house that adjoins on our side; None leaves a corner, with windows at that end too.
    """
    back = x + side * 11.0
    eye = stage.camera.x
    front = Wall.between((x, max(near, 0.8)), (x, far), eye)
    if style.pitched:
        _draw_roof(stage, style, x, side, max(near, 0.8), far)
    hidden = before is not None and before > style.height + (3.2 if style.pitched else 0)
    if near > 1.5 and not hidden:
        end = Wall.between((x, near), (back, near), eye)
        _draw_wall(stage, style, end, windows=before is None, shop=False)
        if style.pitched:
            tip = style.height + 3.2
            gable = np.array([(x, style.height, near), (x + side * 5.5, tip, near), (back, style.height, near)])
            tone = stage.light.shade(style.wall, end.normal, near)
            stage.canvas.polygons(stage.camera.project(gable), tone, BUILDING)
    _draw_wall(stage, style, front, windows=True, shop=style.shop)


def draw_row(stage: Stage, z: float, left: float, right: float, tall: float) -> None:
    """Houses side by side across the end of the street, facing the camera."""
    x = left
    while x < right:
        style = random_style(stage, tall)
        width = stage.rng.uniform(8, 15)
        wall = Wall.between((x, z), (x + width, z), stage.camera.x)
        if style.pitched:
            slope = wall.quads(0.0, width, style.height, style.height + 2.6, -4.0, 4.3)
            tone = stage.light.shade(style.roof, (0, 0.8, -0.6), z)
            stage.canvas.polygons(stage.camera.project(slope), tone, BUILDING)
        _draw_wall(stage, style, wall, windows=True, shop=style.shop)
        x += width


def _draw_roof(stage: Stage, style: Style, x: float, side: int, near: float, far: float) -> None:
    eave, ridge, height = x - side * 0.35, x + side * 5.5, style.height
    zs = np.linspace(near, far, 4)
    lower = np.stack([np.full(4, eave), np.full(4, height - 0.1), zs], -1)
    upper = np.stack([np.full(4, ridge), np.full(4, height + 3.2), zs], -1)
    tone = stage.light.shade(style.roof, (-side * 0.5, 0.86, 0), (near + far) / 2)
    stage.canvas.polygons(stage.camera.project(np.concatenate([lower, upper[::-1]])), tone, BUILDING)
    for z in stage.rng.uniform(near + 1, far - 1, int(stage.rng.integers(0, 3))):
        if z < 8:
            continue
        foot, mid = height + 1.8, x + side * 3.4
        block = np.array([(mid, foot, z), (mid, height + 4.2, z), (mid + 0.8, height + 4.2, z), (mid + 0.8, foot, z)])
        stage.canvas.polygons(stage.camera.project(block), stage.light.shade((150, 96, 80), (0, 0, -1), z), BUILDING)


def _draw_wall(stage: Stage, style: Style, wall: Wall, windows: bool, shop: bool) -> None:
    """A whole wall, in sections so that it fades into the haze; the far ones first."""
    camera, light, canvas = stage.camera, stage.light, stage.canvas
    if not stage.sees(camera.project(wall.quads(0.0, wall.length, 0.0, style.height))):
        return
    bays = max(1, round(wall.length / style.bay))
    edges = np.linspace(0, wall.length, bays + 1)
    span = abs(wall.direction[1]) * wall.length
    sections = min(bays, 1 + int(10 * span / light.visibility) + (wall.start[1] < 6))
    parts = np.array_split(np.arange(bays), sections)
    lows = np.array([style.height - 0.45, style.ground_floor - 0.15])  # a cornice, a ledge
    highs = np.array([style.height, style.ground_floor + 0.05])
    for part in parts[::-1] if wall.direction[1] > 0 else parts:
        left, right = edges[part], edges[part + 1]
        z = wall.start[1] + wall.direction[1] * (left[0] + right[-1]) / 2
        canvas.polygons(
            camera.project(wall.quads(left, right, 0.0, style.height)),
            light.shade(style.wall, wall.normal, z),
            BUILDING,
        )
        pixels = camera.focal / max(z, 1.0) / SUPERSAMPLING  # in a metre
        if not windows or pixels * style.floor < 5:
            continue
        ledges = wall.quads(left[0], right[-1], lows, highs, 0.12)
        canvas.polygons(camera.project(ledges), light.shade(style.trim, wall.normal, z), BUILDING)
        if not shop:
            plinth = light.shade(scaled(style.trim, 0.8), wall.normal, z)
            canvas.polygons(camera.project(wall.quads(left[0], right[-1], 0.0, 0.7, 0.02)), plinth, BUILDING)
        _draw_windows(stage, style, wall, left, right, z, shop, pixels)
        if shop:
            _draw_shops(stage, style, wall, left, right, z, pixels)


def _draw_windows(
    stage: Stage, style: Style, wall: Wall, left: np.ndarray, right: np.ndarray, z: float, shop: bool, pixels: float
) -> None:
    """Windows on a grid of floors and bays with their frames, shutters and balconies, and doors below."""
    rng, camera, light, canvas = stage.rng, stage.camera, stage.light, stage.canvas
    middle, half = ((left + right) / 2)[:, None], float(right[0] - left[0]) * style.window[0] / 2
    base = style.ground_floor + np.arange(0 if shop else -1, style.floors) * style.floor
    low, high = base + style.floor * (0.9 - style.window[1]) + 0.05, base + style.floor * 0.86

    def draw(shapes: np.ndarray, colour: Colour, kind: int | None = None) -> None:
        if len(shapes):
            canvas.polygons(camera.project(shapes), colour, kind)

    trim = light.shade(style.trim, wall.normal, z)
    if pixels > 5:
        frame = 0.0 if style.office else 0.12
        draw(wall.quads(middle - half - frame, middle + half + frame, low - 0.16, high + frame), trim)
        sill = light.shade(scaled(style.trim, 1.06), wall.normal, z)
        draw(wall.quads(middle - half - 0.2, middle + half + 0.2, low - 0.24, low - 0.1, 0.12), sill)
    panes = wall.quads(middle - half, middle + half, low, high)
    kinds = rng.random(len(panes))
    lit = kinds < light.lamps
    dark, bright = glass_tones(stage, wall, z)
    draw(panes[~lit & (kinds < 0.75)], dark)
    draw(panes[~lit & (kinds >= 0.75)], bright)
    draw(panes[lit], light.glow((255, 214, 138), z))
    if pixels > 7:
        upper = wall.quads(middle - half, middle + half, high - (high - low) * 0.35, high)
        draw(upper[~lit], mixed(dark, bright, 0.3))
        bars = [wall.quads(middle - half, middle + half, high - 0.42, high - 0.36)]
        draw(np.concatenate([wall.quads(middle - 0.04, middle + 0.04, low, high), *bars]), trim)
    if style.shutters and pixels > 4:
        leaf, tone = half * 0.62, light.shade(style.accent, wall.normal, z)
        hinges = np.concatenate([middle - half - leaf, middle + half])
        draw(wall.quads(hinges, hinges + leaf, low, high, 0.05), tone)
    if style.balconies and pixels > 4 and len(base) > 1:
        rails = wall.quads(middle - half - 0.3, middle + half + 0.3, low[1:] - 0.35, low[1:] + 0.55, 0.55)
        draw(rails, light.shade((70, 74, 80), wall.normal, z), BUILDING)
    doors = middle[rng.random(len(middle)) < 0.3]
    if not shop and len(doors):
        draw(wall.quads(doors - 0.75, doors + 0.75, 0.0, 2.65, 0.02), trim)
        draw(wall.quads(doors - 0.55, doors + 0.55, 0.1, 2.4, 0.03), light.shade(style.accent, wall.normal, z))


def _draw_shops(
    stage: Stage, style: Style, wall: Wall, left: np.ndarray, right: np.ndarray, z: float, pixels: float
) -> None:
    """Shop windows with name boards and striped awnings."""
    camera, light, canvas = stage.camera, stage.light, stage.canvas
    top, margin = style.ground_floor - 0.9, 0.12 * float(right[0] - left[0])
    dark, bright = glass_tones(stage, wall, z)
    open_late = light.lamps > 0.2
    accent = light.shade(style.accent, wall.normal, z)
    for shapes, tone in (
        (wall.quads(left + 0.05, right - 0.05, 0.0, top + 0.65, 0.03), scaled(accent, 0.55)),
        (
            wall.quads(left + margin, right - margin, 0.45, top, 0.03),
            light.glow((255, 222, 158), z) if open_late else dark,
        ),
        (
            wall.quads(left + margin, (left + right) / 2, top * 0.5, top, 0.03),
            light.glow((255, 236, 190), z) if open_late else bright,
        ),
        (wall.quads(left, right, top + 0.1, top + 0.65, 0.06), accent),
    ):
        canvas.polygons(camera.project(shapes), tone)
    if pixels > 6:
        letters = (left + margin)[:, None] + np.arange(5) * (right[0] - left[0] - 2 * margin) / 5
        words = wall.quads(letters, letters + 0.22, top + 0.25, top + 0.48, 0.07)
        canvas.polygons(camera.project(words), light.shade(CREAM, wall.normal, z))
    if style.bay > 2.6:
        stripes = np.linspace(left[0], right[-1], 6 * len(left) + 1)
        cloth = camera.project(wall.quads(stripes[:-1], stripes[1:], top - 0.55, top + 0.1, 0.05, 1.05))
        facing = (wall.normal[0] * 0.6, 0.8, wall.normal[2] * 0.6)
        canvas.polygons(cloth[::2], light.shade(style.accent, facing, z), BUILDING)
        canvas.polygons(cloth[1::2], light.shade(CREAM, facing, z), BUILDING)


def glass_tones(stage: Stage, wall: Wall, z: float) -> tuple[Colour, Colour]:
    """Glass that shows the dark room behind it, and glass that mirrors the sky."""
    light = stage.light
    sky, room = mixed(light.sky[0], light.sky[-1], 0.5), (52, 62, 76)
    return light.shade(mixed(room, sky, 0.18), wall.normal, z), light.glow(mixed(room, sky, 0.62), z)
