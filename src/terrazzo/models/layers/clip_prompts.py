"""Sentences around a class name, over which a text encoder's embedding of the class is averaged."""

from __future__ import annotations

SIZES = ("small", "medium", "large")

# ViLD's sentences (Gu et al., ICLR 2022) as open-vocabulary segmentation uses them
VILD = (
    "a photo of a {}.",
    "This is a photo of a {}",
    "There is a {} in the scene",
    "There is the {} in the scene",
    "a photo of a {} in the scene",
    *(f"a photo of a {size} {{}}." for size in SIZES),
    *(f"This is a photo of a {size} {{}}." for size in SIZES),
    *(f"There is a {size} {{}} in the scene." for size in SIZES),
)

# CLIP's sentences for ImageNet (Radford et al., ICML 2021), most of them with both "a" and "the"
PICTURES = (
    *("photo", "bad photo", "good photo", "bright photo", "dark photo", "blurry photo", "cropped photo"),
    *("close-up photo", "pixelated photo", "low resolution photo", "jpeg corrupted photo", "black and white photo"),
    *("sculpture", "rendering", "rendition", "tattoo", "drawing", "painting", "sketch", "doodle"),
)
LOOKS = ("hard to see", "clean", "dirty", "cool", "nice", "weird", "small", "large")
MATERIALS = ("embroidered", "plastic", "origami", "toy", "cartoon", "plushie")
IMAGENET = (
    *(f"a {picture} of {article} {{}}." for picture in PICTURES for article in ("a", "the")),
    *(f"a photo of {article} {look} {{}}." for look in LOOKS for article in ("a", "the")),
    *(f"{article} {material} {{}}." for material in MATERIALS for article in ("a", "the")),
    *(f"{picture} of {article} {{}}." for picture in ("graffiti", "art", "itap") for article in ("a", "the")),
    *("a {} in a video game.", "the {} in a video game."),
    *("a photo of many {}.", "a photo of my {}.", "a photo of one {}.", "itap of my {}."),
)

PROMPTS = {"vild": VILD, "imagenet": IMAGENET}
