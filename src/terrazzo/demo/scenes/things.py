"""The things of a drawn street: houses, cars, people, trees, signs and traffic lights."""

from __future__ import annotations

import cv2
import numpy as np

from terrazzo.demo.scenes.stage import FRONT, LABELS, SUPERSAMPLING, UP, Array, Numbers, Stage, colours, rectangles

FACADES = colours("eedec0 d08060 ac5c4a e4b870 a6b69c 92aabe e6b0a4 b6b2aa f0ece4 70807a d8a850 689694 c49676 d6c8b2")
OFFICES, ROOFS = colours("808c98 ced0d0 5c6470 aaa094"), colours("5c6270 b66246 7a5844 8a4638")
ACCENTS = colours("c43a34 286e5c 2c548c dea632 783c60 3e685c 56708e 804236")
CREAM, ROOM, LAMP, BARK, SOIL = colours("f6f2e8 343e4c ffd68a 604e40 74644e")
GROUND_FLOOR, FLOOR, RIDGE = 3.7, 3.2, 3.2  # heights in metres; of a ridge above the eaves


class House:
    """The looks of a house; `tall` is between 0 (village) and 1 (city centre)."""

    def __init__(self, rng: np.random.Generator, tall: float) -> None:
        self.office, pitched, self.shop = (rng.random(3) < (0.25 * tall, 0.7, 0.35 + 0.35 * tall)).tolist()
        wall = rng.choice(OFFICES if self.office else FACADES) * rng.uniform(0.92, 1.05)
        self.wall, self.roof, self.accent = np.minimum(wall, 250), rng.choice(ROOFS), rng.choice(ACCENTS)
        self.floors = int(rng.integers(1, 3) + rng.binomial(5, 0.6 * tall) + self.office * rng.integers(2, 6))
        self.height, self.pitched = GROUND_FLOOR + self.floors * FLOOR + 0.5, pitched and not self.office


def draw_house(stage: Stage, house: House, start: Numbers, end: Numbers, back: Array, corner: bool = False) -> None:
    """A house with its front from `start` to `end` and its depth along `back`, (x, z); a `corner` has windows, too."""
    near, far, eaves, tip = np.asarray(start, float), np.asarray(end, float), house.height - 0.1, house.height + RIDGE
    if house.pitched:
        slope = ((near - 0.03 * back, eaves), (near + back / 2, tip), (far + back / 2, tip), (far - 0.03 * back, eaves))
        tone = stage.shade(house.roof, (-0.05 * back[0], 0.86, -0.05 * back[1]), (near[1] + far[1]) / 2)
        stage.paint(stage.project([(x, y, z) for (x, z), y in slope]), tone, "building")
    if back[0]:
        draw_wall(stage, house, near, near + back, windows=corner, shop=False)
        gable = [(x, y, z) for (x, z), y in ((near, eaves), (near + back / 2, tip), (near + back, eaves))]
        if house.pitched:
            stage.paint(stage.project(gable), stage.shade(house.wall, (0, 0, -1), near[1]), "building")
    draw_wall(stage, house, near, far, windows=True, shop=house.shop)


def draw_wall(stage: Stage, house: House, start: Array, end: Array, windows: bool, shop: bool) -> None:
    """A wall over a line on the ground with its ledges, windows on a grid of floors and bays, and shops or doors."""
    rng, length, z = stage.rng, float(np.hypot(*(end - start))), float(start[1] + end[1]) / 2
    if not stage.sees([(start[0], 0, start[1]), (end[0], 0, end[1])]):
        return
    along = (end - start) / length
    outwards = np.array((along[1], -along[0])) * np.sign(along[1] * (stage.x - start[0]) + along[0] * start[1])

    def paint(left, right, low, high, colour, kind="", out=0.02, flare=0.0, lit=False):  # type: ignore[no-untyped-def]
        """Rectangles between distances along the wall and heights, `out` before it and their foot a further `flare`."""
        corners = rectangles(left, right, low, high)
        corners[..., ::2] = start + corners[..., :1] * along + outwards * out
        corners[:, ::3, ::2] += outwards * flare
        if len(corners):
            normal = None if lit else (outwards[0], flare, outwards[1])
            stage.paint(stage.project(corners), stage.shade(colour, normal, z), kind)

    paint(0, length, 0, house.height, house.wall, "building", out=0)
    if not windows:
        return
    trim = house.wall * 0.72 if house.floors % 3 == 0 else 0.4 * house.wall + 0.6 * CREAM
    bays = max(1, round(length / rng.uniform(2.2, 3.2)))
    bay, left = length / bays, np.linspace(0, length, bays, endpoint=False)
    for top, thick in ((house.height, 0.45), (GROUND_FLOOR + 0.05, 0.2)):
        paint(0, length, top - thick, top, trim, "building", out=0.12)

    # windows: frames, then dark rooms, the mirrored sky or lamps, then sills, bars and shutters
    tall = 0.62 if house.office else rng.uniform(0.5, 0.64)
    half, middle = bay * (0.43 if house.office else rng.uniform(0.18, 0.25)), left[:, None] + bay / 2
    sills = GROUND_FLOOR + np.arange(0 if shop else -1, house.floors) * FLOOR
    low, high = sills + FLOOR * (0.9 - tall) + 0.05, sills + FLOOR * 0.86
    paint(middle - half - 0.12, middle + half + 0.12, low - 0.16, high + 0.12, trim)
    dark, bright = ROOM + (stage.mirrored - ROOM) * 0.18, ROOM + (stage.mirrored - ROOM) * 0.62
    look = rng.random((bays, len(low))) + (rng.random((bays, len(low))) < stage.lamps)
    for least, most, colour in ((0, 0.75, dark), (0.75, 1, bright), (1, 2, LAMP)):
        column, floor = np.nonzero((look >= least) & (look < most))
        u = middle[column, 0]
        paint(u - half, u + half, low[floor], high[floor], colour, lit=colour is LAMP)
    if stage.focal / z > 9 * SUPERSAMPLING:  # near
        paint(middle - half - 0.2, middle + half + 0.2, low - 0.24, low - 0.1, trim * 1.06, out=0.12)
        paint(middle - 0.04, middle + 0.04, low, high, trim)
        paint(middle - half, middle + half, high - 0.42, high - 0.36, trim)
    if rng.random() < 0.25 and not house.office:
        hinges = np.concatenate([middle - half * 1.62, middle + half])
        paint(hinges, hinges + half * 0.62, low, high, house.accent, out=0.05)

    # the ground floor: doors, or shops with a name board and striped awnings
    if not shop:
        doors = middle[rng.random(bays) < 0.3]
        paint(0, length, 0, 0.7, trim * 0.8)
        paint(doors - 0.75, doors + 0.75, 0, 2.65, trim)
        paint(doors - 0.55, doors + 0.55, 0.1, 2.4, house.accent)
        return
    late, board = stage.lamps > 0.2, GROUND_FLOOR - 0.8
    paint(left + 0.05, left + bay - 0.05, 0, board, house.accent * 0.55)
    paint(left + 0.3, left + bay - 0.3, 0.45, board, LAMP if late else dark, lit=late)
    paint(left + 0.3, left + bay / 2, board / 2, board, LAMP * 1.08 if late else bright, lit=late)
    paint(left, left + bay, board, board + 0.55, house.accent, out=0.06)
    paint(left + bay * 0.25, left + bay * 0.75, board + 0.2, board + 0.35, CREAM, out=0.07)
    stripes = np.linspace(0, length, 6 * bays, endpoint=False)
    for u, colour in ((stripes[::2], house.accent), (stripes[1::2], CREAM)) if rng.random() < 0.6 else ():
        paint(u, u + bay / 6, board - 0.65, board, colour, "building", out=0.05, flare=0.8)


def table(text: str) -> Array:
    """Numbers (rows, columns): values separated by blanks, rows by commas."""
    return np.array([[float(value) for value in row.split()] for row in text.split(",")])


def oval(x: float, y: float, across: float, up: float, start: float = 0, stop: float = 360) -> Array:
    """Points (N, 2) of an ellipse from `start` to `stop` degrees, counterclockwise from the right."""
    angles = np.radians(np.linspace(start, stop, 22))
    return np.stack([x + across * np.cos(angles), y + up * np.sin(angles)], -1)


PAINTS = colours("c4302c 2c5ca0 e8e8e6 3a3e46 9ea4aa 226e60 e2b234 ecece8 5e7c96 782834 d0783c 545860 92b2ac")
GLASS, DARK, TYRE, CAP, HEAD, TAIL, PLATE = colours("3e4c5a 2c2e32 222226 a8aaae faf6de ce221e ece0a0")
# of a car: length, heights of belt and roof, where the cabin begins and ends below and above as shares of the length
MODELS = (
    (4.0, 0.95, 1.5, (0.01, 0.74), (0.12, 0.54)),
    (4.5, 0.94, 1.45, (0.16, 0.76), (0.31, 0.56)),
    (4.9, 1.1, 2.1, (0.0, 0.87), (0.03, 0.7)),
)
# corners, clockwise from outside, of the sides of a box: back, left, front, right, top
SIDES = np.array(((0, 4, 7, 3), (1, 5, 4, 0), (2, 6, 5, 1), (3, 7, 6, 2), (4, 5, 6, 7)))


def panel(left: float, right: float, low: float, high: float) -> Array:
    """Corners (4, 2) of a rectangle, clockwise from the lower left."""
    return rectangles(left, right, low, high)[0, :, :2]


WHEELS = [(tone, oval(u, 0.1, 0.083 * r, 0.5 * r)) for u in (0.18, 0.8) for tone, r in ((TYRE, 1), (CAP, 0.55))]
TYRES = [(TYRE, panel(0.03, 0.16, -0.4, 0)), (TYRE, panel(0.84, 0.97, -0.4, 0)), (DARK, panel(0, 1, 0, 0.25))]
TAILS = [(TAIL, panel(u, u + 0.18, 0.45, 0.85)) for u in (0.02, 0.8)] + [(PLATE, panel(0.36, 0.64, 0.35, 0.65))]
HEADS = [(HEAD, panel(u, u + 0.17, 0.4, 0.8)) for u in (0.03, 0.8)] + [(DARK, panel(0.26, 0.74, 0.4, 0.75))]
PANE, PANES = [(GLASS, panel(0.06, 0.94, 0.12, 0.9))], [(GLASS, panel(u, u + 0.41, 0.12, 0.9)) for u in (0.06, 0.53)]
# what is painted on the sides of the body and of the cabin, in shares of each
DETAILS = [TYRES + TAILS, WHEELS, TYRES + HEADS, WHEELS, []], [PANE, PANES, PANE, PANES, []]


def draw_car(stage: Stage, model: int, x: float, z: float, heading: float, paint: Array) -> None:
    """A car with its middle at (x, z); `heading` is the angle of its nose from the z axis."""
    (length, belt, roof, below, above), half = MODELS[model], 0.9
    cos, sin, eye = np.cos(heading), np.sin(heading), np.array((stage.x, stage.eye, 0.0))
    turn, place = np.array([[cos, 0, -sin], [0, 1, 0], [sin, 0, cos]]), (x, 0, z)
    under = rectangles(-half, half, -length / 2, length / 2)[..., [0, 2, 1]] @ turn + place
    stage.paint(stage.project(under), stage.shade(DARK, UP, z))
    body, cabin = ((half, 0.28, (0, 1)), (half, belt, (0.01, 0.99))), ((half, belt, below), (0.75 * half, roof, above))
    for levels, details in zip((body, cabin), DETAILS, strict=True):
        rings = [np.insert(panel(-w, w, *np.subtract(ends, 0.5) * length), 1, y, axis=1) for w, y, ends in levels]
        corners = np.concatenate(rings) @ turn + place
        for (a, b, c, d), painted in zip(corners[SIDES], details, strict=True):
            if cv2.contourArea(stage.project((a, b, c, d)).astype(np.float32), oriented=True) <= 0:
                continue  # it faces away
            normal = np.cross(b - a, c - b)
            normal *= np.sign(normal @ (eye - a)) / np.linalg.norm(normal)
            glass = GLASS + (stage.mirrored - GLASS) * (0.12 + 0.5 * max(0.0, float(normal[1])))
            for colour, points in ((paint, panel(0, 1, 0, 1)), *painted):
                across, up = points.T[..., None]
                pixels = stage.project((a + (d - a) * across) * (1 - up) + (b + (c - b) * across) * up)
                shines = stage.lamps and (colour is HEAD or colour is TAIL)
                if shines:
                    stage.glows.append((pixels.mean(0), 0.55 * stage.focal / z, colour * 0.6))
                tone = stage.shade(glass if colour is GLASS else colour, None if shines else normal, z)
                stage.paint(pixels, tone, "car")


# of an upright figure: the name of a colour, its brightness, a line's width (0: filled), points (across, up, swing)
Piece = tuple[str, float, float, Array]


def piece(name: str, points: str | Array, bright: float = 1.0, width: float = 0.0) -> Piece:
    spots = table(points) if isinstance(points, str) else points
    return name, bright, width, np.pad(spots, ((0, 0), (0, 3 - spots.shape[1])))


BODY = (
    piece("leg", "0 .49 -.1, .02 .27 -.6, 0 .03 -1, .045 .025 -1", 0.78, 0.085),
    piece("leg", "0 .49 .1, .02 .27 .6, 0 .03 1, .045 .025 1", 1.0, 0.085),
    piece("top", "-.08 .79 0, -.1 .62 .36, -.06 .48 .9", 0.75, 0.06),
    piece("top", "-.115 .8, -.08 .83, .08 .83, .115 .8, .09 .47, -.09 .47"),
    piece("top", ".1 .79 0, .13 .63 -.27, .09 .5 -.9", 1.06, 0.062),
    piece("skin", ".09 .49 -.9, .09 .47 -.9", 1.0, 0.055),
    piece("skin", "0 .82, 0 .87", 0.85, 0.06),
    piece("skin", oval(0.01, 0.925, 0.062, 0.074)),
    piece("hair", oval(-0.004, 0.942, 0.068, 0.07, -2, 182)),
)
EXTRAS = (  # a coat, long hair, a head from behind, a bag
    piece("top", "-.085 .62, -.14 .33, .14 .33, .085 .62", 0.92),
    piece("hair", "-.055 .94, -.06 .83", 1.0, 0.05),
    piece("hair", oval(0, 0.93, 0.066, 0.074)),
    piece("bag", ".1 .52, .2 .52, .21 .38, .09 .38"),
)
CLOTHES = colours("c63e3a 345c98 ecc452 48846e 3c3e4a e2ded4 965c8c e28448 6e8cb0 785e48 d4788c 566040")
TROUSERS = colours("2e3448 46484e 5c5246 3a547c 24242a 968870")
SKINS, HAIRS = colours("f4d0b4 e2b28e bc8460 885a40 5c3c2e"), colours("2c221e 5c3e2a 966a42 d6b474 a8a6a4 823a28")
SIGN_NAMES = ("pole", "red", "white", "blue", "yellow", "green", "black", "dim")
SIGN_COLOURS = dict(zip(SIGN_NAMES, colours("94969a ce2a28 f4f2ec 285cb2 f0b82c 28b46e 26282c 464a50"), strict=True))
DISC, TRIANGLE, SQUARE = oval(0, 0, 1, 1), table("-1.05 -.66, 1.05 -.66, 0 1.1"), table("-1 -1, -1 1, 1 1, 1 -1") * 0.9
TOP, MIDDLE, BOTTOM = (oval(0, up, 0.25, 0.25) for up in (0.6, 0, -0.6))
BOX = piece("black", "-.4 -1, -.4 1, .4 1, .4 -1")
STEM = piece("white", "-.35 -.6, -.35 .65, -.12 .65, -.12 -.6")
SIGNS = (
    (piece("red", DISC), piece("white", "-.66 -.16, -.66 .16, .66 .16, .66 -.16")),
    (piece("red", DISC), piece("white", DISC * 0.74)),
    (piece("red", TRIANGLE), piece("white", TRIANGLE * 0.62)),
    (piece("red", -TRIANGLE), piece("white", -TRIANGLE * 0.62)),
    (piece("blue", DISC), piece("white", "-.1 -.6, -.1 .1, -.4 .1, 0 .62, .4 .1, .1 .1, .1 -.6")),
    (piece("blue", SQUARE), piece("white", oval(0, 0.27, 0.44, 0.4)), piece("blue", oval(0, 0.27, 0.2, 0.17)), STEM),
    (piece("white", "0 -1.1, 1.1 0, 0 1.1, -1.1 0"), piece("yellow", "0 -.8, .8 0, 0 .8, -.8 0")),
    (BOX, piece("red", TOP, 2), piece("dim", MIDDLE), piece("dim", BOTTOM)),
    (BOX, piece("dim", TOP), piece("dim", MIDDLE), piece("green", BOTTOM, 2)),
)


def draw_figure(
    stage: Stage, pieces: tuple[Piece, ...], spot: Array, size: float, kind: str, tones: dict[str, Array], stride: float
) -> None:
    """Pieces above a `spot` (x, y, z), `size` metres to their unit, mirrored if negative; arms and legs swing."""
    names, bright, widths, shapes = zip(*pieces, strict=True)
    points, scale = np.concatenate(shapes), abs(size) * stage.focal / spot[2]
    across = np.sign(size) * (points[:, 0] + stride * points[:, 2])
    pixels = stage.project(spot) + scale * np.stack([across, -points[:, 1]], -1)
    shades = stage.shade(np.array([tones[name] for name in names]) * np.array(bright)[:, None], FRONT, spot[2])
    outlines = np.split(pixels, np.cumsum([len(shape) for shape in shapes])[:-1])
    for outline, shade, width in zip(outlines, shades, widths, strict=True):
        stage.paint(outline, shade, kind, width * scale)


def draw_person(stage: Stage, x: float, z: float) -> None:
    """A person walking or standing, larger than life."""
    rng, spot = stage.rng, np.array((x, 0.0, z))
    if not stage.sees(spot[None]):
        return
    size = 1.25 * (rng.uniform(1.55, 1.85) if rng.random() > 0.15 else rng.uniform(1.0, 1.3)) * rng.choice([-1, 1])
    books = {"top": CLOTHES, "leg": TROUSERS, "skin": SKINS, "hair": HAIRS, "bag": CLOTHES}
    tones = {name: book[rng.integers(len(book))] for name, book in books.items()}
    pieces = (*BODY, *(extra for extra in EXTRAS if rng.random() < 0.3))
    stage.paint(stage.project(spot + np.insert(oval(0, 0, 0.3, 0.3), 1, 0.0, axis=1)), stage.shade(DARK * 1.8, UP, z))
    draw_figure(stage, pieces, spot, size, "person", tones, rng.uniform(0.03, 0.13))


def draw_sign(stage: Stage, x: float, z: float) -> None:
    """A traffic sign or a traffic light on its pole, larger than life."""
    size, number = stage.rng.uniform(0.68, 0.87), int(stage.rng.integers(len(SIGNS)))
    spot, pole = np.array((x, stage.rng.uniform(2.2, 2.7) + size, z)), stage.shade(SIGN_COLOURS["pole"], FRONT, z)
    stage.paint(stage.project((spot * (1, 0, 1), spot)), pole, "sign", 0.19 * stage.focal / z)
    draw_figure(stage, SIGNS[number], spot, size, "sign", SIGN_COLOURS, 0.0)


SEASONS = [colours(words) for words in ("5c8a3e 4a7a42 769844 568258", "ce8434 be5a30 d6aa46", "ecb2c0 f0ccd2")]


def draw_tree(stage: Stage, x: float, z: float, height: float, leaf: Array) -> None:
    """A trunk and a crown of leaf clusters, darker below and away from the sun, with sprigs of leaves."""
    rng, foot, metre, radius = stage.rng, stage.project((x, 0.0, z)), stage.focal / z, stage.rng.uniform(0.26, 0.33)
    scale = metre * height
    stage.paint(foot + scale * oval(0, 0, 0.1, 0.016), stage.shade(SOIL, UP, z))
    for branch, width in (("0 0, .01 .68", 0.042), ("0 .3, -.14 .62", 0.02), ("0 .3, .13 .62", 0.02)):
        stage.paint(foot + table(branch) * (scale, -scale), stage.shade(BARK, FRONT, z), "tree", width * scale)
    crown, size = foot - (0, 0.69 * scale), np.array((radius, 0.33)) * scale

    def scattered(count: int, reach: float) -> Array:
        angle, far = rng.uniform(0, 2 * np.pi, count), reach * np.sqrt(rng.uniform(0.05, 1, count))
        return crown + np.stack([np.cos(angle), np.sin(angle)], -1) * far[:, None] * size

    spots, sizes = scattered(18, 0.73), radius * scale * rng.uniform(0.3, 0.46, 18)
    towards = stage.to_sun[:2] * (1, -1) * min(1.0, 0.4 + float(stage.sun.sum()))
    for bright, swell, push in ((0.62, 1.12, -0.1), (0.84, 0.95, 0.06), (1.08, 0.6, 0.24)):
        tone = stage.shade(leaf * bright, (0, 0.8, -0.6), z).tolist()
        for (column, row), reach in zip(spots + size * push * (towards - (0, 0.35)), sizes * swell, strict=True):
            cv2.circle(stage.picture, (int(column), int(row)), int(reach), tone, -1)
            cv2.circle(stage.label, (int(column), int(row)), int(reach), LABELS["tree"], -1)
    for bright in (0.74, 0.92, 1.1, 1.24) if metre > 8 * SUPERSAMPLING else ():
        sprigs = scattered(22, 0.88)[:, None] + oval(0, 0, 0.12, 0.08) * metre
        stage.paint(sprigs, stage.shade(leaf * bright, (0, 0.8, -0.6), z), "tree")
