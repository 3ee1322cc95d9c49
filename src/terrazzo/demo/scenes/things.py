"""What stands and walks on the pavements of a drawn street: people, trees, signs, traffic lights, street lamps."""

from __future__ import annotations

import numpy as np

from terrazzo.demo.scenes.canvas import PERSON, SIGN, SUPERSAMPLING, TREE, Colour, Stage, scaled

CLOTHES: tuple[Colour, ...] = (
    (198, 62, 58), (52, 92, 152), (236, 196, 82), (72, 132, 110), (60, 62, 74), (226, 222, 212), (150, 92, 140),
    (226, 132, 72), (110, 140, 176), (120, 94, 72), (212, 120, 140), (86, 96, 64),
)  # fmt: skip
TROUSERS: tuple[Colour, ...] = ((46, 52, 72), (70, 72, 78), (92, 82, 70), (58, 84, 124), (36, 36, 42), (150, 136, 112))
SKINS: tuple[Colour, ...] = ((244, 208, 180), (226, 178, 142), (188, 132, 96), (136, 90, 64), (92, 60, 46))
HAIRS: tuple[Colour, ...] = (
    (44, 34, 30),
    (92, 62, 42),
    (150, 108, 66),
    (214, 180, 116),
    (168, 166, 164),
    (130, 58, 40),
)
LEAVES: tuple[Colour, ...] = ((92, 138, 62), (74, 122, 66), (118, 152, 68), (86, 130, 88))
AUTUMN: tuple[Colour, ...] = ((206, 132, 52), (190, 90, 48), (214, 170, 70))
BLOSSOM: tuple[Colour, ...] = ((236, 178, 192), (240, 204, 210))
UP_FRONT = (0.0, 0.45, -0.89)


def draw_person(stage: Stage, x: float, z: float, height: float = 1.0) -> None:
    """Someone walking, standing, or carrying an umbrella."""
    rng, canvas, light = stage.rng, stage.canvas, stage.light
    tall = rng.uniform(1.55, 1.85) if rng.random() > 0.15 else rng.uniform(1.0, 1.3)
    u, v, scale = stage.camera.at(x, 0, z)
    size = tall * height * scale

    def tone(colour: Colour, factor: float = 1.0) -> Colour:
        return light.shade(scaled(colour, factor), UP_FRONT, z)

    def at(across: float, up: float) -> tuple[float, float]:
        return u + across * size, v - up * size

    top, leg = stage.choice(CLOTHES), stage.choice(TROUSERS)
    skin, hair = stage.choice(SKINS), stage.choice(HAIRS)
    facing = int(rng.choice([-1, 1]))
    stride = rng.uniform(0.03, 0.13)
    back = rng.random() < 0.5
    dress, coat = rng.random() < 0.22, rng.random() < 0.3
    canvas.ellipse((u, v), (0.16 * size, 0.035 * size), light.shade((78, 76, 78), (0, 1, 0), z))
    hip = 0.49
    for step, factor in ((-facing * stride, 0.78), (facing * stride, 1.0)):
        knee = (at(step * 0.6 + facing * 0.02, 0.27), at(step, 0.03))
        canvas.line([at(step * 0.1, hip), *knee], 0.088 * size, tone(skin if dress else leg, factor), PERSON)
        canvas.line([knee[1], at(step + facing * 0.045, 0.025)], 0.05 * size, tone((46, 40, 38), factor), PERSON)
    swing = facing * stride * 0.9
    canvas.line([at(0.08 * -facing, 0.79), at(-0.1 * facing + swing * 0.4, 0.62), at(swing - 0.06 * facing, 0.48)],
                0.06 * size, tone(top, 0.75), PERSON)  # fmt: skip
    if dress or coat:
        hem = 0.3 if dress else 0.36
        skirt = np.array([at(-0.085, 0.62), at(-0.14, hem), at(0.14, hem), at(0.085, 0.62)])
        canvas.polygons(skirt, tone(top, 0.92), PERSON)
    chest = [at(-0.115, 0.8), at(-0.08, 0.83), at(0.08, 0.83), at(0.115, 0.8), at(0.09, 0.47), at(-0.09, 0.47)]
    canvas.polygons(np.array(chest), tone(top), PERSON)
    canvas.polygons(np.array([at(0.115, 0.8), at(0.03, 0.83), at(0.04, 0.47), at(0.09, 0.47)]), tone(top, 0.86), PERSON)
    canvas.line([at(0.1 * facing, 0.79), at(0.13 * facing - swing * 0.3, 0.63), at(0.09 * facing - swing, 0.5)],
                0.062 * size, tone(top, 1.06), PERSON)  # fmt: skip
    canvas.ellipse(at(0.09 * facing - swing, 0.48), (0.028 * size, 0.03 * size), tone(skin), PERSON)
    canvas.line([at(0, 0.82), at(0, 0.87)], 0.06 * size, tone(skin, 0.85), PERSON)
    canvas.ellipse(at(0.01 * facing, 0.925), (0.062 * size, 0.074 * size), tone(skin), PERSON)
    canvas.ellipse(at(-0.004 * facing, 0.942), (0.068 * size, 0.07 * size), tone(hair), PERSON, 178, 362)
    if back:
        canvas.ellipse(at(0, 0.93), (0.066 * size, 0.074 * size), tone(hair), PERSON)
    elif rng.random() < 0.5:  # long hair
        canvas.line([at(-0.055 * facing, 0.94), at(-0.06 * facing, 0.83)], 0.05 * size, tone(hair), PERSON)
    _draw_belongings(stage, at, size, z, facing, back)


def _draw_belongings(stage: Stage, at, size: float, z: float, facing: int, back: bool) -> None:  # type: ignore[no-untyped-def]
    canvas, light, luck = stage.canvas, stage.light, stage.rng.random()
    tone = light.shade(stage.choice(CLOTHES), UP_FRONT, z)
    if luck < (0.35 if light.wet else 0.04):
        hand, tip = at(0.1 * facing, 0.6), at(0.04 * facing, 1.22)
        canvas.line([hand, tip], 0.018 * size, light.shade((60, 60, 64), UP_FRONT, z), PERSON)
        canvas.ellipse(at(0.04 * facing, 1.05), (0.36 * size, 0.2 * size), tone, PERSON, 180, 360)
    elif luck < 0.55 and back:
        canvas.polygons(np.array([at(-0.08, 0.8), at(0.08, 0.8), at(0.09, 0.56), at(-0.09, 0.56)]), tone, PERSON)
    elif luck < 0.7:
        bag = [at(across * facing, up) for across, up in ((0.1, 0.52), (0.2, 0.52), (0.21, 0.38), (0.09, 0.38))]
        canvas.polygons(np.array(bag), tone, PERSON)


def person_shadow(stage: Stage, x: float, z: float) -> np.ndarray:
    """A narrow lozenge on the ground (N, 3)."""
    dx, dz = np.array(stage.shadow_step) * 1.7
    side = np.array((dz, -dx)) / (np.hypot(dx, dz) + 1e-6) * 0.2
    foot, neck, tip = np.array((x, z)), np.array((x + dx * 0.8, z + dz * 0.8)), np.array((x + dx, z + dz))
    corners = np.array([foot - side, foot + side, neck + side, tip, neck - side])
    return np.insert(corners, 1, 0.0, axis=1)


def draw_tree(stage: Stage, x: float, z: float, height: float, leaf: Colour, slim: bool) -> None:
    """A trunk and a crown of leaf clusters, darker below and away from the sun."""
    rng, canvas, light = stage.rng, stage.canvas, stage.light
    u, v, scale = stage.camera.at(x, 0, z)
    trunk, crown = height * (0.2 if slim else 0.36), height * (0.42 if slim else 0.33)
    radius = height * (0.11 if slim else rng.uniform(0.26, 0.33))
    bark = light.shade((96, 78, 64), UP_FRONT, z)
    if z < 40:
        canvas.ellipse((u, v), (0.62 * scale, 0.1 * scale), light.shade((116, 100, 84), (0, 1, 0), z))
    canvas.line([(u, v), (u + 0.05 * scale, v - (trunk + crown) * scale)], height * 0.042 * scale, bark, TREE)
    middle = v - (trunk + crown) * scale
    for lean in (-0.5, 0.45):
        branch = [(u, v - trunk * 0.85 * scale), (u + lean * radius * scale, v - (trunk + crown * 0.8) * scale)]
        canvas.line(branch, height * 0.02 * scale, bark, TREE)
    count = 8 if height * scale < 30 * SUPERSAMPLING else 10 if slim else 16
    angle, reach = rng.uniform(0, 2 * np.pi, count), np.sqrt(rng.uniform(0.05, 1, count))
    spots = np.stack([np.cos(angle) * reach * radius * 0.72, np.sin(angle) * reach * crown * 0.74], -1)
    sizes = radius * rng.uniform(0.3, 0.46, count)
    towards = np.array((light.towards_sun[0], light.towards_sun[1]))
    strength = min(1.0, sum(light.sun))
    for factor, swell, push in ((0.62, 1.12, -0.1), (0.84, 0.95, 0.06), (1.08, 0.6, 0.24)):
        offset = towards * push * radius * (0.4 + 0.6 * strength) + (0, push * radius * 0.35)
        tone = light.shade(scaled(leaf, factor), (0, 0.8, -0.6), z)
        for (dx, dy), size in zip(spots + offset, sizes * swell, strict=True):
            canvas.disc((u + dx * scale, middle - dy * scale), size * scale, tone, TREE)
    if scale / SUPERSAMPLING > 8:  # near: single leaves
        sprigs = 90
        angle, reach = rng.uniform(0, 2 * np.pi, sprigs), 0.88 * np.sqrt(rng.uniform(0, 1, sprigs))
        factors = rng.choice([0.76, 0.92, 1.08, 1.22], sprigs)
        for dx, dy, factor in zip(np.cos(angle) * reach * radius, np.sin(angle) * reach * crown, factors, strict=True):
            tone = light.shade(scaled(leaf, factor * (0.9 + 0.18 * dy / crown)), (0, 0.8, -0.6), z)
            canvas.ellipse((u + dx * scale, middle - dy * scale), (0.13 * scale, 0.09 * scale), tone, TREE)


def tree_shadow(stage: Stage, x: float, z: float, height: float) -> np.ndarray:
    """The crown's blot on the ground with a stalk to the trunk (N, 3)."""
    dx, dz = np.array(stage.shadow_step) * height * 0.65
    radius = height * 0.3
    angles = np.linspace(0.3, 2 * np.pi - 0.3, 18)
    start = np.arctan2(-dz, -dx)
    wobble = 1 + 0.12 * np.sin(5 * angles)
    rim = [
        (x + dx + radius * w * np.cos(start + a), z + dz + radius * w * np.sin(start + a))
        for a, w in zip(angles, wobble, strict=True)
    ]
    return np.array([(x - 0.12, 0, z), *((a, 0.0, b) for a, b in rim), (x + 0.12, 0, z)])


def draw_sign(stage: Stage, x: float, z: float, seen: bool, boldness: float = 1.0) -> None:
    """A traffic sign on its pole, from the front if it is for us to be `seen`, else its grey back."""
    rng, canvas, light = stage.rng, stage.canvas, stage.light
    u, v, scale = stage.camera.at(x, 0, z)
    pole, plate = rng.uniform(2.2, 2.7), rng.uniform(0.36, 0.46) * boldness
    canvas.line(
        [(u, v), (u, v - pole * scale)], 0.1 * boldness * scale, light.shade((148, 150, 154), UP_FRONT, z), SIGN
    )
    height = v - (pole + plate * 0.5) * scale
    red, white, blue = ((206, 42, 40), (244, 242, 236), (40, 92, 178))

    def tone(colour: Colour) -> Colour:
        return light.shade(colour, UP_FRONT, z)

    def disc(radius: float, colour: Colour) -> None:
        canvas.ellipse((u, height), (radius * scale, radius * scale), tone(colour), SIGN)

    def shape(points: list[tuple[float, float]], colour: Colour) -> None:
        canvas.polygons(np.array([(u + a * scale, height - b * scale) for a, b in points]), tone(colour), SIGN)

    kind = int(rng.integers(6))
    triangle = [(-0.95, -0.6), (0.95, -0.6), (0, 1.0)]
    if not seen:
        disc(plate, (134, 136, 140))
    elif kind == 0:  # a limit
        disc(plate, red)
        disc(plate * 0.76, white)
        canvas.text(str(rng.choice([30, 50, 70])), (u, height), plate * 0.72 * scale, tone((40, 40, 44)))
    elif kind == 1:  # no entry
        disc(plate, red)
        shape([(a * plate, b * plate) for a, b in ((-0.66, -0.16), (-0.66, 0.16), (0.66, 0.16), (0.66, -0.16))], white)
    elif kind in (2, 3):  # warning, give way
        flip = -1 if kind == 3 else 1
        shape([(a * plate * 1.1, flip * b * plate * 1.1) for a, b in triangle], red)
        shape([(a * plate * 0.68, flip * (b * plate * 0.68 - 0.03)) for a, b in triangle], white)
    elif kind == 4:  # ahead only
        disc(plate, blue)
        shape(
            [
                (a * plate, b * plate)
                for a, b in ((-0.1, -0.6), (-0.1, 0.1), (-0.4, 0.1), (0, 0.62), (0.4, 0.1), (0.1, 0.1), (0.1, -0.6))
            ],
            white,
        )
    else:  # parking
        shape([(a * plate, b * plate) for a, b in ((-0.9, -0.9), (-0.9, 0.9), (0.9, 0.9), (0.9, -0.9))], blue)
        shape([(a * plate, b * plate) for a, b in ((-0.35, -0.6), (-0.35, 0.65), (-0.1, 0.65), (-0.1, -0.6))], white)
        bowl, unit = (u + 0.02 * plate * scale, height - 0.27 * plate * scale), plate * scale
        canvas.ellipse(bowl, (0.44 * unit, 0.4 * unit), tone(white), SIGN)
        canvas.ellipse(bowl, (0.2 * unit, 0.17 * unit), tone(blue), SIGN)
        shape([(a * plate, b * plate) for a, b in ((-0.35, -0.6), (-0.35, 0.65), (-0.12, 0.65), (-0.12, -0.6))], white)


def draw_traffic_light(stage: Stage, x: float, z: float, seen: bool, boldness: float = 1.0) -> None:
    """A pole with three lamps, one of them lit towards us."""
    canvas, light = stage.canvas, stage.light
    u, v, scale = stage.camera.at(x, 0, z)
    pole = light.shade((86, 92, 92), UP_FRONT, z)
    canvas.line([(u, v), (u, v - 2.5 * scale)], 0.14 * boldness * scale, pole, SIGN)
    half, foot, unit = 0.24 * boldness * scale, v - 2.4 * scale, boldness * scale
    box = np.array([(u - half, foot), (u - half, foot - 1.1 * unit), (u + half, foot - 1.1 * unit), (u + half, foot)])
    canvas.polygons(box, light.shade((38, 42, 44), UP_FRONT, z), SIGN)
    if not seen:
        return
    lit = int(stage.rng.choice([0, 1, 2], p=[0.42, 0.13, 0.45]))
    for index, colour in enumerate(((255, 62, 48), (255, 190, 56), (70, 232, 132))):
        centre = (u, foot - (0.9 - 0.35 * index) * unit)
        bright = light.glow(colour, z) if index == lit else light.shade(scaled(colour, 0.28), UP_FRONT, z)
        canvas.ellipse(centre, (0.15 * unit, 0.15 * unit), bright, SIGN)
        if index == lit:
            stage.glows.append((*centre, 0.55 * unit, scaled(colour, 0.4)))


def draw_lamp(stage: Stage, x: float, z: float, side: int) -> None:
    """A street lamp whose arm reaches over the road."""
    canvas, light = stage.canvas, stage.light
    u, v, scale = stage.camera.at(x, 0, z)
    metal = light.shade((78, 86, 90), UP_FRONT, z)
    arm = [
        (u, v),
        (u, v - 5.6 * scale),
        (u - side * 0.3 * scale, v - 6.0 * scale),
        (u - side * 1.3 * scale, v - 6.1 * scale),
    ]
    canvas.line(arm, 0.13 * scale, metal, SIGN)
    canvas.line([(u, v), (u, v - 1.1 * scale)], 0.2 * scale, metal, SIGN)
    head = (u - side * 1.5 * scale, v - 6.05 * scale)
    colour = light.glow((255, 232, 176), z) if light.lamps else light.shade((200, 204, 204), UP_FRONT, z)
    canvas.ellipse(head, (0.38 * scale, 0.12 * scale), colour, SIGN)
    if light.lamps:
        stage.glows.append((*head, 1.6 * scale, (110, 84, 44)))
