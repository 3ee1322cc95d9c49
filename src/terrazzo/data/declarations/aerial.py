"""Images from above and below: aerial, satellite, underwater."""

from __future__ import annotations

from typing import Any

from terrazzo.data.spec import BINARY, declare, endings, legend, parts

TILES = ("img_dir/{}", "ann_dir/{}")

LOVEDA = declare(
    name="LoveDADataset",
    about="Land cover from space, urban and rural (Wang et al., NeurIPS 2021). Label 0 means 'no data'.",
    **legend("""
    background #ffffff, building #ff0000, road #ffff00, water #0000ff, barren #9f81b7, forest #00ff00,
    agricultural #ffc380
    """),
    **endings(".png", ".png"),
    reduce_zero_label=True,
    layout=parts(*TILES, "train", "val", "test"),
    counts={"train": 2522, "val": 1669, "test": 1796},
)

GROUND = legend("""
    impervious_surface #ffffff, building #0000ff, low_vegetation #00ffff, tree #00ff00, car #ffff00, clutter #ff0000
""")
POTSDAM = declare(
    name="PotsdamDataset",
    about="ISPRS Potsdam at 5 cm, cut into tiles. Label 0 is the margin between the classes.",
    **GROUND,
    **endings(".png", ".png"),
    reduce_zero_label=True,
    layout=parts(*TILES, "train", "val"),
    counts={"train": 3456, "val": 2016},
)
VAIHINGEN = declare(
    name="ISPRSDataset",
    aliases=("vaihingen",),
    about="ISPRS Vaihingen at 9 cm, cut into tiles. Label 0 is the margin between the classes.",
    **GROUND,
    **endings(".png", ".png"),
    reduce_zero_label=True,
    layout=parts(*TILES, "train", "val"),
    counts={"train": 344, "val": 398},
)
ISAID = declare(
    name="iSAIDDataset",
    about="Objects in the images of DOTA, cut into tiles (Waqas Zamir et al., CVPRW 2019).",
    **legend("""
    background #000000, ship #00003f, store_tank #003f3f, baseball_diamond #003f00, tennis_court #003f7f,
    basketball_court #003fbf, Ground_Track_Field #003fff, Bridge #007f3f, Large_Vehicle #007f7f,
    Small_Vehicle #00007f, Helicopter #0000bf, Swimming_pool #0000ff, Roundabout #00bf7f, Soccer_ball_field #007fbf,
    plane #007fff, Harbor #00649b
    """),
    **endings(".png", "_instance_color_RGB.png"),
    layout=parts(*TILES, "train", "val", "test"),
    counts={"train": 33978, "val": 11644},
)


def pair(split: str) -> dict[str, Any]:
    """The folders of images before and after, and of the masks of change."""
    return {"data_prefix": {"img_path": f"{split}/A", "img_path2": f"{split}/B", "seg_map_path": f"{split}/label"}}


LEVIR_CD = declare(
    name="LEVIRCDDataset",
    aliases=("levir",),
    about="Buildings built or demolished between two images (Chen and Shi, Remote Sensing 2020).",
    **legend("background #000000, changed #ffffff"),
    img_suffix=".png",
    img_suffix2=".png",
    seg_map_suffix=".png",
    layout={split: pair(split) for split in ("train", "val", "test")},
    counts={"train": 7120, "val": 1024, "test": 2048},
)

MASSACHUSETTS_ROADS = declare(
    name="MassachusettsRoadsDataset",
    about="Roads of Massachusetts at 1 m (Mnih, 2013).",
    **legend("background #000000, road #ffffff"),
    **endings((".tiff", ".tif"), (".tif", ".tiff")),
    label_map=BINARY,
    layout=parts("tiff/{}", "tiff/{}_labels", "train", "val", "test"),
)
MASSACHUSETTS_BUILDINGS = declare(
    name="MassachusettsBuildingsDataset",
    about="Buildings of Boston at 1 m (Mnih, 2013).",
    **legend("background #000000, building #ffffff"),
    **endings(".png", ".png"),
    label_map=BINARY,
    layout=parts("png/{}", "png/{}_labels", "train", "val", "test"),
)
SUIM = declare(
    name="SUIMDataset",
    about="Underwater scenes (Islam et al., IROS 2020); convert its colour masks to class indices.",
    **legend("""
    background #000000, diver #0000ff, plant #00ff00, wreck #00ffff, robot #ff0000, reef #ff00ff, fish #ffff00,
    sea_floor #ffffff
    """),
    **endings(".jpg", (".png", ".bmp")),
    layout=parts("{}/images", "{}/masks", train="train_val", test="TEST"),
)
