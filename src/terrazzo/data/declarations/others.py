"""Underwater scenes, and cracks in roads."""

from __future__ import annotations

from terrazzo.data.spec import declare, endings, legend, parts

SUIM = declare(
    name="SUIMDataset",
    about="Underwater scenes (Islam et al., IROS 2020); convert its colour masks to class indices.",
    **legend("""
    background #000000, diver #0000ff, plant #00ff00, wreck #00ffff, robot #ff0000, reef #ff00ff, fish #ffff00,
    sea_floor #ffffff
    """),
    **endings(".jpg", (".png", ".bmp")),
    layout=parts("{}/images", "{}/masks", train="train_val", test="TEST"),
    counts={"train": 1525, "test": 110},
)
CRACK_FOREST = declare(
    name="CrackForestDataset",
    about="Cracks in road surfaces (Shi et al., TITS 2016), with masks of 0 and 255.",
    **legend("background #000000, crack #ffffff"),
    **endings(".jpg", ".png"),
    label_map={value: int(value > 127) for value in range(256)},
    layout=parts("image", "mask", "train", "val", ann_file="{}.txt"),
)
