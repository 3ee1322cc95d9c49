"""Medical images: retinas, organs, skin."""

from __future__ import annotations

from terrazzo.data.spec import BINARY, declare, endings, legend, part, parts

RETINA = parts("images/{}", "annotations/{}", train="training", val="validation")

for name, label_ending, counts, about in (
    (
        "ChaseDB1Dataset",
        "_1stHO.png",
        (20, 8),
        "Vessels of children's retinas, first observer (Fraz et al., TBME 2012).",
    ),
    ("DRIVEDataset", "_manual1.png", (20, 20), "Vessels of the retina, first observer (Staal et al., TMI 2004)."),
    ("HRFDataset", ".png", (15, 30), "Vessels in photographs of 3504x2336 pixels (Budai et al., IJBI 2013)."),
    (
        "STAREDataset",
        ".ah.png",
        (10, 10),
        "Vessels of healthy and ill retinas, first observer (Hoover et al., TMI 2000).",
    ),
):
    declare(
        name=name,
        about=about,
        **legend("background #787878, vessel #06e6e6"),
        **endings(".png", label_ending),
        layout=RETINA,
        counts=dict(zip(("train", "val"), counts, strict=True)),
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
