"""People: their bodies, clothes and faces."""

from __future__ import annotations

from terrazzo.data.spec import declare, endings, legend, part, parts

LIP = declare(
    name="LIPDataset",
    about="Parts of the body and clothes, 'Look into Person' (Gong et al., CVPR 2017).",
    **legend("""
    Background #000000, Hat #800000, Hair #ff0000, Glove #005500, Sunglasses #aa0033, UpperClothes #ff5500,
    Dress #000055, Coat #0077dd, Socks #555500, Pants #005555, Jumpsuits #553300, Scarf #345680, Skirt #008000,
    Face #0000ff, Left-arm #33aadd, Right-arm #00ffff, Left-leg #55ffaa, Right-leg #aaff55, Left-shoe #ffff00,
    Right-shoe #ffaa00
    """),
    **endings(".jpg", ".png"),
    layout=parts("TrainVal_images/{}_images", "TrainVal_parsing_annotations/{}_segmentations", "train", "val"),
)
PERSON_PART = declare(
    name="PascalPersonPartDataset",
    aliases=("person_part",),
    about="Parts of the people in PASCAL VOC 2010 (Chen et al., CVPR 2014).",
    **legend("""
    background #000000, head #800000, torso #008000, upper_arm #808000, lower_arm #000080, upper_leg #800080,
    lower_leg #008080
    """),
    **endings(".jpg", ".png"),
    layout=parts("JPEGImages", "SegmentationPart", "train", "val", ann_file="ImageSets/SegmentationPart/{}.txt"),
)
FACE_OCCLUDED = declare(
    name="FaceOccludedDataset",
    about="Faces occluded by hands and objects, synthetic and real (Voo et al., CVPRW 2022).",
    **legend("background #000000, face #800000"),
    **endings(".jpg", ".png"),
    layout={
        **parts("{}/img", "{}/mask", "NatOcc_hand_sot", "NatOcc_object", "RandOcc", ann_file="train.txt"),
        "train": ("NatOcc_hand_sot", "NatOcc_object", "RandOcc"),
        "val": part("RealOcc/image", "RealOcc/mask", "RealOcc/split/val.txt"),
    },
)
