"""Cars, vans and buses of a drawn street: a side profile, drawn out to a small body and turned into place."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import cv2
import numpy as np

from terrazzo.demo.scenes.canvas import CAR, Colour, Stage, mixed

PAINTS: tuple[Colour, ...] = (
    (196, 48, 44), (44, 92, 160), (232, 232, 230), (58, 62, 70), (158, 164, 170), (34, 110, 96), (226, 178, 52),
    (236, 236, 232), (94, 124, 150), (120, 40, 52), (208, 120, 60), (84, 88, 96), (146, 178, 172),
)  # fmt: skip
GLASS: Colour = (62, 76, 90)
TYRE: Colour = (34, 34, 38)
DARK: Colour = (44, 46, 50)
HEADLIGHT: Colour = (250, 246, 222)
TAILLIGHT: Colour = (206, 34, 30)


@dataclass(frozen=True)
class Model:
    """A side profile from tail to nose as (metres along, height); glass marks the sloping panes among its segments."""

    profile: tuple[tuple[float, float], ...]
    belt: float  # height where the body ends and the windows begin
    width: float  # half
    roof_width: float  # half
    glass: tuple[int, ...]
    wheels: tuple[float, float]
    wheel: float  # radius
    panes: tuple[tuple[float, float, float, float], ...]  # side windows: foot and top from tail, foot and top from nose

    @property
    def length(self) -> float:
        return self.profile[-1][0]

    @property
    def height(self) -> float:
        return max(height for _, height in self.profile)


HATCHBACK = Model(
    ((0, 0.3), (-0.06, 0.62), (0, 0.95), (0.42, 1.42), (0.8, 1.5), (2.1, 1.5),
     (2.95, 1.02), (3.85, 0.86), (4.02, 0.6), (3.98, 0.28)),
    0.97, 0.88, 0.64, (2, 5), (0.72, 3.2), 0.32, ((0.42, 0.66, 1.42, 1.42), (1.52, 1.52, 2.62, 2.08)),
)  # fmt: skip
SALOON = Model(
    ((0, 0.32), (-0.05, 0.66), (0.05, 0.92), (0.85, 0.98), (1.5, 1.42), (2.5, 1.45),
     (3.3, 0.98), (4.35, 0.84), (4.52, 0.6), (4.48, 0.3)),
    0.96, 0.9, 0.64, (3, 5), (0.85, 3.65), 0.33, ((1.08, 1.6, 1.98, 1.98), (2.08, 2.08, 3.0, 2.46)),
)  # fmt: skip
VAN = Model(
    ((0, 0.35), (-0.03, 1.05), (0.08, 2.0), (0.25, 2.12), (3.5, 2.1), (4.25, 1.25),
     (4.95, 1.05), (5.08, 0.7), (5.05, 0.32)),
    1.1, 0.97, 0.86, (1, 4), (0.9, 4.1), 0.36, ((3.0, 3.0, 3.95, 3.45),),
)  # fmt: skip
BUS = Model(
    ((0, 0.4), (-0.02, 1.2), (0.08, 2.85), (0.3, 3.05), (9.7, 3.05), (9.95, 2.6), (10.1, 1.15), (10.1, 0.4)),
    1.2, 1.24, 1.2, (1, 5), (2.2, 8.0), 0.48, 
    tuple((0.4 + 1.6 * i, 0.4 + 1.6 * i, 1.8 + 1.6 * i, 1.8 + 1.6 * i) for i in range(6)),
)  # fmt: skip


@dataclass(frozen=True)
class Face:
    """A face of the body, or something painted on one: its place among the points, its colour (None: the paint)."""

    span: slice
    colour: Colour | None


@dataclass(frozen=True)
class Body:
    """A model drawn out to solid faces, in its own axes: x across, y up, z from tail to nose with 0 in the middle."""

    points: np.ndarray  # P, 3
    faces: tuple[tuple[Face, ...], ...]  # of each side its outline, then what is painted on it
    normals: np.ndarray  # F, 3, outwards
    centres: np.ndarray  # F, 3


def random_model(stage: Stage) -> Model:
    """Mostly cars, some vans, now and then a bus."""
    return [HATCHBACK, SALOON, VAN, BUS][int(stage.rng.choice(4, p=[0.46, 0.34, 0.15, 0.05]))]


def draw_car(stage: Stage, model: Model, x: float, z: float, heading: float, paint: Colour) -> None:
    """A car with its middle at (x, z); `heading` is the angle of its nose from the z axis."""
    light, canvas = stage.light, stage.canvas
    body = solid(model, z < 40)
    turn = np.array([[np.cos(heading), 0, -np.sin(heading)], [0, 1, 0], [np.sin(heading), 0, np.cos(heading)]])
    place = np.array([x, 0.0, z])
    pixels = stage.camera.project(body.points @ turn + place)
    if not stage.sees(pixels):
        return
    normals, centres = body.normals @ turn, body.centres @ turn + place
    to_eye = (stage.camera.x, stage.camera.eye, 0.0) - centres
    visible = np.flatnonzero((normals * to_eye).sum(-1) > 0)
    order = visible[np.argsort(-(to_eye**2).sum(-1)[visible], kind="stable")]
    canvas.polygons(pixels[:4], light.shade((40, 42, 48), (0, 1, 0), z))
    canvas.polygons(pixels[4:20].reshape(4, 4, 2), light.shade(TYRE, (0, 0.3, -0.9), z), CAR)
    for index in order:
        facing = (float(normals[index, 0]), float(normals[index, 1]), float(normals[index, 2]))
        for face in body.faces[index]:
            shape = pixels[face.span]
            shines = light.lamps > 0 and face.colour in (HEADLIGHT, TAILLIGHT)
            if shines:
                tone = light.glow(face.colour, z)  # type: ignore[arg-type]
                column, row = shape.mean(0)
                strength = (150, 140, 105) if face.colour is HEADLIGHT else (120, 22, 14)
                stage.glows.append((float(column), float(row), stage.camera.focal / z * 0.55, strength))
            elif face.colour is GLASS:
                tone = glass_shine(stage, facing, z)
            else:
                tone = light.shade(paint if face.colour is None else face.colour, facing, z)
            canvas.polygons(shape, tone, CAR)


def glass_shine(stage: Stage, facing: tuple[float, float, float], z: float) -> Colour:
    """Car glass: dark, brighter the more of the sky it mirrors."""
    sky, share = mixed(stage.light.sky[0], stage.light.sky[-1], 0.5), 0.12 + 0.5 * max(0.0, facing[1])
    return stage.light.shade(mixed(GLASS, sky, share), (0, 0.4, -0.3), z)


Painted = list[tuple[np.ndarray, Colour | None]]  # an outline (N, 3) and what lies on it, each with its colour


@cache
def solid(model: Model, near: bool) -> Body:
    """The faces of a model; lights, plates and wheel caps only for one that is `near`."""
    half, length, wheel = model.width, model.length, model.wheel
    under = np.array([(-half, 0, 0.1), (-half, 0, length - 0.1), (half, 0, length - 0.1), (half, 0, 0.1)])
    pieces = [under]
    for left in (-half + 0.04, half - 0.26):  # the tyres as seen from behind or before
        right = left + 0.22
        ends = (model.wheels[0] - wheel, model.wheels[1] + wheel)
        pieces += [np.array([(left, 0, z), (left, 0.4, z), (right, 0.4, z), (right, 0, z)]) for z in ends]
    sides = _shell(model)
    if near:
        _dress_ends(model, sides)
    sides += [_flank(model, side, near) for side in (-1, 1)]
    faces, normals, centres, at = [], [], [], sum(map(len, pieces))
    inside = np.array([0, 0.75, length / 2])
    for side in sides:
        outline = side[0][0]
        normal = np.cross(outline[1] - outline[0], outline[2] - outline[0])
        normal /= np.linalg.norm(normal)
        centre = outline.mean(0)
        normals.append(normal if normal @ (centre - inside) > 0 else -normal)
        centres.append(centre)
        group = []
        for shape, colour in side:
            group.append(Face(slice(at, at + len(shape)), colour))
            pieces.append(shape)
            at += len(shape)
        faces.append(tuple(group))
    middle = (0, 0, length / 2)
    return Body(np.concatenate(pieces) - middle, tuple(faces), np.array(normals), np.array(centres) - middle)


def _reach(model: Model, height: float) -> float:
    """Half the body's width at a height."""
    return model.width + (model.roof_width - model.width) * max(
        0.0, (height - model.belt) / (model.height - model.belt)
    )


def _shell(model: Model) -> list[Painted]:
    """The strips across the body, from the tail over the roof to the nose."""
    strips: list[Painted] = []
    for index, ((z0, y0), (z1, y1)) in enumerate(zip(model.profile[:-1], model.profile[1:], strict=True)):
        w0, w1 = _reach(model, y0), _reach(model, y1)
        outline = np.array([(-w0, y0, z0), (-w1, y1, z1), (w1, y1, z1), (w0, y0, z0)])
        pane: Painted = [(outline + (outline.mean(0) - outline) * 0.1, GLASS)] if index in model.glass else []
        strips.append([(outline, None), *pane])
    return strips


def _band(outline: np.ndarray, left: float, right: float, low: float, high: float) -> np.ndarray:
    """The part of a strip between shares of its width and height."""
    a, b, c, d = outline
    corners = []
    for across, up in ((left, low), (left, high), (right, high), (right, low)):
        foot, head = a + (d - a) * across, b + (c - b) * across
        corners.append(foot + (head - foot) * up)
    return np.array(corners)


def _dress_ends(model: Model, strips: list[Painted]) -> None:
    """Lights, bumpers and number plates on tail and nose."""
    bumper, tail = strips[0], strips[1] if 1 not in model.glass else strips[0]
    chin, nose = strips[-1], strips[-2] if len(strips) - 2 not in model.glass else strips[-1]
    bumper.append((_band(bumper[0][0], 0, 1, 0, 0.4), DARK))
    chin.append((_band(chin[0][0], 0, 1, 0.6, 1), DARK))
    foot = 0.6 if tail is bumper else 0.15
    for left, right in ((0.02, 0.2), (0.8, 0.98)):
        tail.append((_band(tail[0][0], left, right, foot, 0.9), TAILLIGHT))
        nose.append((_band(nose[0][0], left + 0.02, right - 0.02, 0.3, 0.95), HEADLIGHT))
    tail.append((_band(tail[0][0], 0.36, 0.64, 0.1, 0.55), (236, 220, 130)))
    nose.append((_band(nose[0][0], 0.28, 0.72, 0.1, 0.7), DARK))
    chin.append((_band(chin[0][0], 0.36, 0.64, 0.1, 0.5), (236, 236, 230)))


def _flank(model: Model, side: int, near: bool) -> Painted:
    """A side with its windows and wheels."""

    def upright(corners: list[tuple[float, float]]) -> np.ndarray:
        return np.array([(side * _reach(model, y), y, z) for z, y in corners])

    top = model.height - 0.12
    flank: Painted = [(upright(list(model.profile)), None)]
    for foot, head, foot_end, head_end in model.panes:
        low = model.belt + 0.03
        flank.append((upright([(foot, low), (head, top), (head_end, top), (foot_end, low)]), GLASS))
    end, radius = model.length - 0.15, model.wheel
    flank.append((upright([(0.1, 0.28), (0.1, 0.4), (end, 0.4), (end, 0.28)]), DARK))
    angles = np.linspace(0, 2 * np.pi, 15)[:-1]
    arch = np.linspace(0, np.pi, 9)
    for hub in model.wheels:
        flank.append((upright([(hub + 1.2 * radius * np.cos(a), radius * (1 + 1.2 * np.sin(a))) for a in arch]), DARK))
        flank.append((upright([(hub + radius * np.cos(a), radius * (1 + np.sin(a))) for a in angles]), TYRE))
        if near:
            cap = [(hub + 0.58 * radius * np.cos(a), radius * (1 + 0.58 * np.sin(a))) for a in angles]
            flank.append((upright(cap), (168, 170, 174)))
    return flank


def car_shadow(stage: Stage, model: Model, x: float, z: float, heading: float) -> np.ndarray:
    """Its shadow's outline on the ground (N, 3)."""
    half, length = model.width, model.length / 2
    across, along = np.array([(-half, -length), (-half, length), (half, length), (half, -length)]).T
    cos, sin = np.cos(heading), np.sin(heading)
    base = np.stack([x + across * cos + along * sin, z + along * cos - across * sin], -1)
    roof = base * 0.8 + np.array((x, z)) * 0.2 + np.array(stage.shadow_step) * model.height
    hull = cv2.convexHull(np.concatenate([base, roof]).astype(np.float32))[:, 0]
    return np.stack([hull[:, 0], np.zeros(len(hull)), hull[:, 1]], -1)
