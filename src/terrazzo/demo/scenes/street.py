"""A street put together from its sky, ground and things."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from itertools import pairwise

import cv2
import numpy as np

from terrazzo.demo.scenes import things
from terrazzo.demo.scenes.stage import IGNORED, SUPERSAMPLING, Array, Stage, colours, rectangles

BRICKS, ASPHALTS = colours("d8a88c ce9c7e deb694 c8a08c"), colours("7a7c82 848284 6e727a 8c8680")
WHITE, YELLOW, CLOUD, SUN, RED = colours("eeece2 f0c454 fffcf6 fff4d6 ffb08c")
SMALLEST = 24  # pixels; smaller patches of a class are IGNORED
REACH = 24  # metres within which there are cars and trees
NOWHERE = 1e3  # metres; z of a crossing that a street lacks


def draw_scene(rng: np.random.Generator, size: tuple[int, int] = (192, 256)) -> tuple[Array, Array]:
    """Draw a street: image (H, W, 3) RGB and label (H, W), both uint8; the label indexes CLASSES or is IGNORED."""
    street = Street(rng, *size)
    street.draw_sky()
    street.draw_ground()
    street.plan_houses()
    street.plan_cars()
    street.plan_pavements()
    street.cast_shadows(street.shadows)
    for _, draw in sorted(street.plan, key=lambda planned: -planned[0]):
        draw()
    image, label = street.developed()
    for kind in np.unique(label):
        _, patches, facts, _ = cv2.connectedComponentsWithStats((label == kind).astype(np.uint8), connectivity=8)
        small = facts[:, cv2.CC_STAT_AREA] < SMALLEST
        label[small[patches] & (patches > 0)] = IGNORED
    return image, label


class Street(Stage):
    """A street along z, in metres."""

    def __post_init__(self) -> None:
        super().__post_init__()
        rng = self.rng
        self.parking = 2.1 * (rng.random() < 0.3)  # width
        self.road, self.right_hand = rng.uniform(2.9, 3.4) + self.parking, int(rng.choice((1, -1), p=(0.7, 0.3)))
        self.fronts = (-1, -self.road - rng.uniform(3.4, 5.6)), (1, self.road + rng.uniform(3.4, 5.6))  # sides, x
        start = rng.uniform(12, 16) if rng.random() < 0.5 else NOWHERE
        self.crossing, self.end = (start, start + rng.uniform(6.5, 9)), rng.uniform(36, 60)
        self.zebra = NOWHERE if rng.random() > 0.6 else rng.uniform(6, 22) if start == NOWHERE else start - 4.5
        self.tall, self.busy = rng.uniform(0, 1), rng.uniform(0.2, 1.0)
        self.x = rng.uniform(-0.28, 0.6) * self.road * self.right_hand
        self.plan: list[tuple[float, Callable[[], None]]] = []  # distance, and how to draw what is there
        self.shadows: list[tuple[Array, float, float]] = []  # outline, heights of foot and top

    def plan_houses(self) -> None:
        """Houses along both sides, with gaps at the crossing, and across the end."""
        before, rng = self.crossing[0] - 2.5, self.rng
        for side, front in self.fronts:
            z, corner, back = rng.uniform(-6, 1), False, np.array((side * 11.0, 0.0))
            while z < self.end:
                near, far = max(z, 1.5), min(z + rng.uniform(7, 16), self.end)
                near_crossing, far = z < before <= far, before if z < before < far else far
                if far - near > 2:
                    start, end, house = (front, near), (front, far), things.House(rng, self.tall)
                    self.plan.append((far, partial(things.draw_house, self, house, start, end, back, corner)))
                    self.shadows.append((np.array([start, end, end + back, start + back]), 0, house.height))
                z, corner = self.crossing[1] + 2.5 if near_crossing else far, near_crossing
        for left, right in pairwise(np.arange(-60, 61, 12) + rng.uniform(0, 10)):
            house, z = things.House(rng, self.tall), self.end + 8
            self.plan.append((z + 1, partial(things.draw_house, self, house, (left, z), (right, z), np.array((0, 9)))))

    def plan_cars(self) -> None:
        """Cars in both lanes, parked, and in the crossing street."""
        rng, road, parking, middle = self.rng, self.road, self.parking, sum(self.crossing) / 2

        def add(x: float, z: float, heading: float) -> float:
            model, paint = int(rng.choice(len(things.MODELS), p=(0.5, 0.34, 0.16))), rng.choice(things.PAINTS)
            half, cos, sin = things.MODELS[model][0] / 2, np.cos(heading), np.sin(heading)
            outline = rectangles(-0.85, 0.85, -0.94 * half, 0.94 * half)[0, :, :2] @ np.array([[cos, -sin], [sin, cos]])
            self.shadows.append((np.add(outline, (x, z + half)), 0, 1.4))
            draw = partial(things.draw_car, self, model, x, z + half, heading, paint)
            self.plan.append((z + half * (1 - abs(cos)), draw))
            return float(z + 2 * half)

        for side in (-1, 1):
            heading, lane = np.pi * (side != self.right_hand), side * (road - parking) / 2
            rows = [(lane, rng.uniform(7, 21), self.busy, 4.0, 22.0)]
            rows += [(side * (road - 1.02), rng.uniform(4, 9), 0.6, 0.7, 1.6)] * bool(parking)
            for x, z, share, least, most in rows:
                while z < REACH:
                    taken = rng.random() < share and (x == lane or abs(z - middle) > 11)
                    z = add(x + rng.normal(0, 0.1), z, heading + rng.normal(0, 0.02)) if taken else z + 3
                    z += rng.uniform(least, most)
        for z, heading in ((self.crossing[0] - 0.5, -np.pi / 2), (self.crossing[1] - 4.5, np.pi / 2)):
            if rng.random() < 0.6 * self.busy and middle < NOWHERE:
                add(rng.uniform(-14, 14), z, heading * self.right_hand)

    def plan_pavements(self) -> None:
        """Trees, signs and people, some of them on the zebra."""
        rng, road, season = self.rng, self.road, things.SEASONS[int(self.rng.choice(3, p=(0.72, 0.16, 0.12)))]
        crowd = [(x, self.zebra + rng.uniform(0.4, 2.6)) for x in rng.uniform(-road, road, rng.poisson(1.3))]
        for side, front in self.fronts:
            kerb, post, leaf = side * (road + 0.9), side * (road + 0.5), rng.choice(season)
            for z in np.arange(rng.uniform(5, 14), REACH, rng.uniform(7, 14)) if rng.random() < 0.6 else ():
                if abs(z - sum(self.crossing) / 2) > 7:
                    tall, tone = rng.uniform(4.5, 7.5), leaf * rng.uniform(0.88, 1.1)
                    self.plan.append((z, partial(things.draw_tree, self, kerb, z, tall, tone)))
                    self.shadows.append((things.oval(kerb, z, 0.12, 0.12), 0, tall / 2))
                    self.shadows.append((things.oval(kerb, z, 0.3 * tall, 0.3 * tall), 0.5 * tall, 0.8 * tall))
            for z in rng.choice((6.5, 9, 11.5), rng.integers(0, 2) + (side == self.right_hand), replace=False):
                self.plan.append((z, partial(things.draw_sign, self, post, z)))
                self.shadows.append((things.oval(post, z, 0.1, 0.1), 0, 2.5))
            spots, width = rng.random((rng.poisson(3.5 * (1 + 2 * self.busy)), 2)), abs(front) - road - 1.2
            crowd += [(side * (road + 0.7 + across * width), 4.5 + 5.5 * far**1.7) for across, far in spots]
        self.plan += [(z, partial(things.draw_person, self, x, z)) for x, z in crowd]
        self.shadows += [(things.oval(x, z, 0.2, 0.2), 0, 1.9) for x, z in crowd]

    def draw_sky(self) -> None:
        """A gradient with soft clouds and, where the sun is ahead, its glow."""
        size, rows = (self.width, self.height), np.clip(np.arange(self.height) * SUPERSAMPLING / self.horizon, 0, 1)
        gradient = [np.interp(rows, np.linspace(0, 1, len(self.sky)), tones) for tones in self.sky.T]
        film = np.stack(gradient, -1, dtype=np.float32)[:, None].repeat(self.width, 1)
        cells = (self.rng.random(count, np.float32) for count in ((9, 6), (18, 14), (40, 36)))
        octaves = [cv2.resize(values, size, interpolation=cv2.INTER_CUBIC) for values in cells]
        noise = np.tensordot((0.6, 0.28, 0.12), octaves, 1)
        warm = 0.35 * (1 - self.to_sun[1]) * (self.lamps > 0)
        cover = np.clip((noise - 0.86 + 0.4 * self.clouds) * 5, 0, 0.85)[..., None] * (self.clouds > 0)
        film += ((self.sky[-1] * 0.35 + CLOUD * 0.65) * (1 - warm) + RED * warm - film) * cover
        if self.to_sun[2] > 0.8:
            ahead = np.array((self.centre, self.horizon)) + self.focal * self.to_sun[:2] * (1, -1) / self.to_sun[2]
            self.glows += [(ahead, share * self.focal, SUN * bright) for share, bright in ((0.5, 0.45), (0.1, 1))]
        cv2.resize(np.clip(film, 0, 255).astype(np.uint8), self.label.shape[::-1], dst=self.picture)

    def draw_ground(self) -> None:
        """Pavements, road, kerbs and markings, in strips that fade into the haze."""
        rng, road, (start, stop), edges = self.rng, self.road, self.crossing, np.geomspace(2, 400, 12)
        stone, asphalt = rng.choice(BRICKS), rng.choice(ASPHALTS)
        kerb = stone * 1.12
        for half, colour, kind in ((400, stone, "pavement"), (road + 0.16, kerb, "pavement"), (road, asphalt, "road")):
            self.carpet(-half, half, edges[:-1], edges[1:], colour, kind)
        for side, front in self.fronts:
            inner, outer = sorted((side * (road + 0.16), front + side * 3))
            joints, lines = np.arange(2.0, 16, 1.1), np.arange(inner + 1.0, outer, 1.3)
            self.carpet(inner, outer, joints, joints + 0.05, stone * 0.9)
            self.carpet(lines, lines + 0.04, 1.5, 18, stone * 0.9)
        self.carpet(-90, 90, start - 0.16, stop + 0.16, kerb, "pavement")
        self.carpet(-90, 90, start, stop, asphalt, "road")
        self.carpet(0.05 - road, road - 0.05, start - 1, stop + 1, asphalt, "road")
        x, z = rng.uniform(0.8 - road, road - 1.5, 3), rng.uniform(4, 26, 3)
        self.carpet(x, x + 1.2, z, z + 3, asphalt * rng.choice([0.88, 1.08]))  # mended patches

        # lines that leave the crossing and the zebra free
        middle = [(0.14, 2, 0, 0.06), (-0.14, 2, 0, 0.06)] if rng.random() < 0.35 else [(0.0, 3, 4.5, 0.09)]
        sides = [(road - self.parking, 0.7, 0.7, 0.05)] if self.parking else [(road - 0.35, 2, 0, 0.06)]
        tone = YELLOW if rng.random() < 0.3 else WHITE
        for x, dash, gap, half in [*middle, *sides, *((-x, *rest) for x, *rest in sides)]:
            z = np.arange(1 - rng.uniform(0, dash + gap), self.end, dash + gap)
            for first, last in ((self.zebra - 1.5, self.zebra + 4), (start - 1.5, stop + 1.5)):
                z = z[(z + dash < first) | (z > last)]
            self.carpet(x - half, x + half, np.maximum(z, 0.8), z + dash, tone if abs(x) < 0.2 else WHITE)
        x = np.arange(0.4 - road, road - 0.4, 1.05)
        self.carpet(x, x + 0.55, self.zebra, self.zebra + 3, WHITE)
