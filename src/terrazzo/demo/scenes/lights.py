"""Hours and weathers of the drawn streets."""

from __future__ import annotations

import numpy as np

from terrazzo.demo.scenes.canvas import Colour, Light

# name, share of scenes, sky from zenith to horizon, ambient, sun,
# haze, visibility, elevation (degrees), shadow, lamps, clouds, wet
LIGHTS: tuple[tuple, ...] = (
    ("day", 0.34, ((70, 136, 212), (132, 184, 232), (206, 228, 242)), (0.60, 0.65, 0.74), (0.50, 0.46, 0.38),
     (202, 222, 238), 230, (36, 62), 0.38, 0.0, 0.55, 0.0),
    ("overcast", 0.14, ((158, 170, 186), (188, 196, 206), (216, 220, 224)), (0.80, 0.83, 0.88), (0.06, 0.06, 0.06),
     (206, 212, 218), 150, (50, 70), 0.0, 0.0, 0.9, 0.0),
    ("rain", 0.10, ((120, 132, 150), (154, 164, 178), (190, 196, 204)), (0.66, 0.70, 0.78), (0.03, 0.03, 0.03),
     (182, 190, 200), 85, (50, 70), 0.0, 0.22, 0.8, 0.42),
    ("dusk", 0.16, ((66, 82, 146), (168, 126, 158), (250, 166, 116), (255, 214, 150)), (0.54, 0.50, 0.60),
     (0.62, 0.40, 0.18), (236, 176, 136), 140, (7, 15), 0.34, 0.3, 0.6, 0.0),
    ("evening", 0.10, ((30, 42, 92), (72, 78, 138), (160, 124, 158), (232, 164, 140)), (0.42, 0.44, 0.62),
     (0.0, 0.0, 0.0), (136, 118, 148), 120, (20, 40), 0.0, 0.55, 0.4, 0.14),
    ("fog", 0.08, ((196, 202, 208), (206, 210, 214), (212, 214, 216)), (0.78, 0.80, 0.84), (0.04, 0.04, 0.04),
     (209, 212, 215), 34, (40, 60), 0.0, 0.1, 0.0, 0.0),
    ("backlight", 0.08, ((112, 164, 214), (190, 208, 220), (255, 240, 204)), (0.50, 0.51, 0.58), (0.58, 0.50, 0.34),
     (250, 232, 198), 95, (13, 21), 0.42, 0.0, 0.35, 0.0),
)  # fmt: skip


def random_light(rng: np.random.Generator) -> Light:
    """One of LIGHTS, with the sun somewhere that suits it."""
    shares = np.array([row[1] for row in LIGHTS])
    name, _, sky, ambient, sun, haze, visibility, elevation, shadow, lamps, clouds, wet = LIGHTS[
        int(rng.choice(len(LIGHTS), p=shares / shares.sum()))
    ]
    height = np.radians(rng.uniform(*elevation))
    if name == "backlight":
        azimuth = np.radians(rng.uniform(-16, 16))
    else:  # from behind or the side, so that what we see is lit
        azimuth = np.radians(rng.choice([-1, 1]) * rng.uniform(60, 165))
    towards = (np.sin(azimuth) * np.cos(height), np.sin(height), np.cos(azimuth) * np.cos(height))
    tint: np.ndarray = rng.normal(1, 0.02, 3)

    def tinted(colour: Colour) -> Colour:
        r, g, b = np.clip(np.array(colour) * tint, 0, 255)
        return float(r), float(g), float(b)

    return Light(
        name, tuple(tinted(c) for c in sky), ambient, sun, tinted(haze), visibility * rng.uniform(0.8, 1.25),
        (float(towards[0]), float(towards[1]), float(towards[2])), shadow, lamps, clouds, wet,
    )  # fmt: skip
