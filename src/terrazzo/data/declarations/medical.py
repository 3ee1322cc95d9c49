"""Medical images: retinas, organs, skin."""

from __future__ import annotations

from terrazzo.data.spec import declare, endings, legend, part, parts

VESSELS = legend("background #787878, vessel #06e6e6")
RETINA = parts("images/{}", "annotations/{}", train="training", val="validation")
BINARY = {value: int(value > 127) for value in range(256)}  # masks of 0 and 255, blurred where they are JPEG

CHASE_DB1 = declare(
    name="ChaseDB1Dataset",
    about="Vessels of children's retinas, first observer (Fraz et al., TBME 2012).",
    **VESSELS,
    **endings(".png", "_1stHO.png"),
    layout=RETINA,
    counts={"train": 20, "val": 8},
)
DRIVE = declare(
    name="DRIVEDataset",
    about="Vessels of the retina, first observer (Staal et al., TMI 2004).",
    **VESSELS,
    **endings(".png", "_manual1.png"),
    layout=RETINA,
    counts={"train": 20, "val": 20},
)
HRF = declare(
    name="HRFDataset",
    about="Vessels in photographs of 3504x2336 pixels (Budai et al., IJBI 2013).",
    **VESSELS,
    **endings(".png", ".png"),
    layout=RETINA,
    counts={"train": 15, "val": 30},
)
STARE = declare(
    name="STAREDataset",
    about="Vessels of healthy and ill retinas, first observer (Hoover et al., TMI 2000).",
    **VESSELS,
    **endings(".png", ".ah.png"),
    layout=RETINA,
    counts={"train": 10, "val": 10},
)
REFUGE = declare(
    name="REFUGEDataset",
    about="Optic disc and cup, for glaucoma (Orlando et al., Medical Image Analysis 2020).",
    classes=("background", " Optic Cup", "Optic Disc"),  # the space is part of the name in published checkpoints
    palette=((120, 120, 120), (6, 230, 230), (56, 59, 120)),
    **endings(".png", ".png"),
    layout=RETINA | {"test": part("images/test", "annotations/test")},
    counts={"train": 400, "val": 400, "test": 400},
)
SYNAPSE = declare(
    name="SynapseDataset",
    about="Organs in slices of abdominal CT (Landman et al., MICCAI challenge 2015).",
    **legend("""
    background #000000, aorta #0000ff, gallbladder #00ff00, left_kidney #ff0000, right_kidney #00ffff, liver #ff00ff,
    pancreas #ffff00, spleen #3cffff, stomach #f0f0f0
    """),
    **endings(".jpg", ".png"),
    layout=parts("img_dir/{}", "ann_dir/{}", "train", "val"),
)
KVASIR = declare(
    name="KvasirDataset",
    aliases=("kvasir_seg",),
    about="Polyps in colonoscopy, Kvasir-SEG (Jha et al., MMM 2020).",
    **legend("background #000000, polyp #ffffff"),
    **endings(".jpg", ".jpg"),
    label_map=BINARY,
    layout=parts("images", "masks", "train", "val", ann_file="{}.txt"),
)
ISIC = declare(
    name="ISICDataset",
    aliases=("isic2018",),
    about="Skin lesions, ISIC 2018 task 1 (Codella et al., 2019).",
    **legend("background #000000, lesion #ffffff"),
    **endings(".jpg", "_segmentation.png"),
    label_map=BINARY,
    layout=parts(
        "ISIC2018_Task1-2_{}_Input", "ISIC2018_Task1_{}_GroundTruth", train="Training", val="Validation", test="Test"
    ),
)
