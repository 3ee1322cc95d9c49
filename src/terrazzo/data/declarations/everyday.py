"""Everyday scenes, indoors and outdoors."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from terrazzo.data.spec import declare, endings, legend, part, parts

ADE20K = declare(
    name="ADE20KDataset",
    aliases=("ade",),
    about="Scenes of every kind (Zhou et al., CVPR 2017). Label 0 means 'something else'.",
    **legend("""
    wall #787878, building #b47878, sky #06e6e6, floor #503232, tree #04c803, ceiling #787850, road #8c8c8c,
    bed  #cc05ff, windowpane #e6e6e6, grass #04fa07, cabinet #e005ff, sidewalk #ebff07, person #96053d, earth #787846,
    door #08ff33, table #ff0652, mountain #8fff8c, plant #ccff04, curtain #ff3307, chair #cc4603, car #0066c8,
    water #3de6fa, painting #ff0633, sofa #0b66ff, shelf #ff0747, house #ff09e0, sea #0907e6, mirror #dcdcdc,
    rug #ff095c, field #7009ff, armchair #08ffd6, seat #07ffe0, fence #ffb806, desk #0aff47, rock #ff290a,
    wardrobe #07ffff, lamp #e0ff08, bathtub #6608ff, railing #ff3d06, cushion #ffc207, base #ff7a08, box #00ff14,
    column #ff0829, signboard #ff0599, chest of drawers #0633ff, counter #eb0cff, sand #a09614, sink #00a3ff,
    skyscraper #8c8c8c, fireplace #fa0a0f, refrigerator #14ff00, grandstand #1fff00, path #ff1f00, stairs #ffe000,
    runway #99ff00, case #0000ff, pool table #ff4700, pillow #00ebff, screen door #00adff, stairway #1f00ff,
    river #0bc8c8, bridge #ff5200, bookcase #00fff5, blind #003dff, coffee table #00ff70, toilet #00ff85,
    flower #ff0000, book #ffa300, hill #ff6600, bench #c2ff00, countertop #008fff, stove #33ff00, palm #0052ff,
    kitchen island #00ff29, computer #00ffad, swivel chair #0a00ff, boat #adff00, bar #00ff99, arcade machine #ff5c00,
    hovel #ff00ff, bus #ff00f5, towel #ff0066, light #ffad00, truck #ff0014, tower #ffb8b8, chandelier #001fff,
    awning #00ff3d, streetlight #0047ff, booth #ff00cc, television receiver #00ffc2, airplane #00ff52,
    dirt track #000aff, apparel #0070ff, pole #3300ff, land #00c2ff, bannister #007aff, escalator #00ffa3,
    ottoman #ff9900, bottle #00ff0a, buffet #ff7000, poster #8fff00, stage #5200ff, van #a3ff00, ship #ffeb00,
    fountain #08b8aa, conveyer belt #8500ff, canopy #00ff5c, washer #b800ff, plaything #ff001f, swimming pool #00b8ff,
    stool #00d6ff, barrel #ff0070, basket #5cff00, waterfall #00e0ff, tent #70e0ff, bag #46b8a0, minibike #a300ff,
    cradle #9900ff, oven #47ff00, ball #ff00a3, food #ffcc00, step #ff008f, tank #00ffeb, trade name #85ff00,
    microwave #ff00eb, pot #f500ff, animal #ff007a, bicycle #fff500, lake #0abed4, dishwasher #d6ff00, screen #00ccff,
    blanket #1400ff, sculpture #ffff00, hood #0099ff, sconce #0029ff, vase #00ffcc, traffic light #2900ff,
    tray #29ff00, ashcan #ad00ff, fan #00f5ff, pier #4700ff, crt screen #7a00ff, plate #00ffb8, monitor #005cff,
    bulletin board #b8ff00, shower #0085ff, radiator #ffd600, glass #19c2c2, clock #66ff00, flag #5c00ff
    """),
    **endings(".jpg", ".png"),
    reduce_zero_label=True,
    layout=parts("images/{}", "annotations/{}", train="training", val="validation"),
    counts={"train": 20210, "val": 2000},
)

VOC_SPLIT = "ImageSets/Segmentation/{}.txt"
PASCAL_VOC = declare(
    name="PascalVOCDataset",
    aliases=("voc", "voc12", "voc12aug"),
    about="20 kinds of objects and the background (Everingham et al., 2012); `aug` by Hariharan et al., ICCV 2011.",
    **legend("""
    background #000000, aeroplane #800000, bicycle #008000, bird #808000, boat #000080, bottle #800080, bus #008080,
    car #808080, cat #400000, chair #c00000, cow #408000, diningtable #c08000, dog #400080, horse #c00080,
    motorbike #408080, person #c08080, pottedplant #004000, sheep #804000, sofa #00c000, train #80c000,
    tvmonitor #004080
    """),
    **endings(".jpg", ".png"),
    layout={
        **parts("JPEGImages", "SegmentationClass", "train", "val", ann_file=VOC_SPLIT),
        "aug": part("JPEGImages", "SegmentationClassAug", VOC_SPLIT.format("aug")),
        "trainaug": ("train", "aug"),
    },
    counts={"train": 1464, "val": 1449, "aug": 9118},
)

CONTEXT = legend("""
    aeroplane #b47878, bag #06e6e6, bed #503232, bedclothes #04c803, bench #787850, bicycle #8c8c8c, bird #cc05ff,
    boat #e6e6e6, book #04fa07, bottle #e005ff, building #ebff07, bus #96053d, cabinet #787846, car #08ff33,
    cat #ff0652, ceiling #8fff8c, chair #ccff04, cloth #ff3307, computer #cc4603, cow #0066c8, cup #3de6fa,
    curtain #ff0633, dog #0b66ff, door #ff0747, fence #ff09e0, floor #0907e6, flower #dcdcdc, food #ff095c,
    grass #7009ff, ground #08ffd6, horse #07ffe0, keyboard #ffb806, light #0aff47, motorbike #ff290a,
    mountain #07ffff, mouse #e0ff08, person #6608ff, plate #ff3d06, platform #ffc207, pottedplant #ff7a08,
    road #00ff14, rock #ff0829, sheep #ff0599, shelves #0633ff, sidewalk #eb0cff, sign #a09614, sky #00a3ff,
    snow #8c8c8c, sofa #fa0a0f, table #14ff00, track #1fff00, train #ff1f00, tree #ffe000, truck #99ff00,
    tvmonitor #0000ff, wall #ff4700, water #00ebff, window #00adff, wood #1f00ff
""")
CONTEXT_LAYOUT = parts(
    "JPEGImages", "SegmentationClassContext", "train", "val", ann_file="ImageSets/SegmentationContext/{}.txt"
)
PASCAL_CONTEXT = declare(
    name="PascalContextDataset",
    aliases=("pcontext", "voc2010"),
    about="PASCAL VOC 2010 with every pixel annotated, 59 classes and the background (Mottaghi et al., CVPR 2014).",
    classes=("background", *CONTEXT["classes"]),
    palette=((120, 120, 120), *CONTEXT["palette"]),
    **endings(".jpg", ".png"),
    layout=CONTEXT_LAYOUT,
    counts={"train": 4998, "val": 5105},
)
PASCAL_CONTEXT_59 = declare(
    name="PascalContextDataset59",
    aliases=("pcontext59",),
    about="PASCAL Context without the background: label 0 is ignored.",
    **CONTEXT,
    **endings(".jpg", ".png"),
    reduce_zero_label=True,
    layout=CONTEXT_LAYOUT,
)

COCO_STUFF = declare(
    name="COCOStuffDataset",
    aliases=("cocostuff10k", "cocostuff164k"),
    about="80 kinds of things and 91 of stuff (Caesar et al., CVPR 2018), 164k images or the older 10k.",
    **legend("""
    person #00c040, bicycle #00c040, car #004060, motorcycle #80c0c0, airplane #004040, bus #00c0e0, train #00c0c0,
    truck #80c040, boat #00c060, traffic light #80c040, fire hydrant #8020c0, stop sign #0000e0,
    parking meter #000040, bench #00a0c0, bird #800060, cat #8000c0, dog #0020c0, horse #8080e0, sheep #0000c0,
    cow #80a0c0, elephant #808000, bear #800020, zebra #802000, giraffe #800080, backpack #408020, umbrella #00a000,
    handbag #000000, tie #c080a0, suitcase #002000, frisbee #008080, skis #4080a0, snowboard #80a000,
    sports ball #008000, kite #c08020, baseball bat #806080, baseball glove #000080, skateboard #400020,
    surfboard #00e080, tennis racket #800000, bottle #c000a0, wine glass #006080, cup #808080, fork #4000a0,
    knife #80e080, spoon #808040, bowl #c00020, banana #806000, apple #8000c0, sandwich #008020, orange #40e000,
    broccoli #000040, carrot #8080a0, hot dog #406000, pizza #0080c0, donut #0080a0, cake #c0e000, chair #008040,
    couch #808020, potted plant #c02080, bed #0040c0, dining table #000020, toilet #40a080, tv #804040,
    laptop #8000a0, mouse #402080, remote #80c0c0, keyboard #0000a0, cell phone #c0a080, microwave #80c000,
    oven #800060, toaster #c02000, sink #804080, refrigerator #408060, book #40a000, clock #004000, vase #c080e0,
    scissors #402000, teddy bear #00c080, hair drier #4080e0, toothbrush #c0a000, banner #00c000, blanket #c08060,
    branch #c06080, bridge #004080, building-other #400060, bush #40e080, cabinet #804000, cage #c000e0,
    cardboard #406080, carpet #80c080, ceiling-other #4000e0, ceiling-tile #c0e080, cloth #80c040, clothes #c00060,
    clouds #c06000, counter #8040c0, cupboard #008060, curtain #00e000, desk-stuff #404040, dirt #8080e0,
    door-stuff #006000, fence #40c0c0, floor-marble #0080e0, floor-other #80e000, floor-stone #40c040,
    floor-tile #808060, floor-wood #802080, flower #4000c0, fog #004060, food-other #00a080, fruit #c00040,
    furniture-other #8040e0, grass #002080, gravel #c080c0, ground-other #0040e0, hill #80a080, house #c08000,
    leaves #804020, light #802040, mat #c00080, metal #40c020, mirror-stuff #00a040, moss #400000, mountain #c0c0a0,
    mud #002040, napkin #408080, net #40c0a0, paper #80a040, pavement #408000, pillow #c0c020, plant-other #8060c0,
    plastic #400080, platform #404020, playingfield #00e0c0, railing #c00000, railroad #c040a0, river #0060c0,
    road #c08080, rock #4040a0, roof #80e0c0, rug #c08040, salad #c04020, sand #806040, sea #c000c0, shelf #00c020,
    sky-other #40e040, skyscraper #400040, snow #80c0a0, solid-other #406040, stairs #4080c0, stone #00c0a0,
    straw #c0e040, structural-other #408040, table #80c020, tent #c020c0, textile-other #4040c0, towel #004020,
    tree #40a0c0, vegetable #c04040, wall-brick #8040a0, wall-concrete #4020c0, wall-other #c0c0c0,
    wall-panel #0040a0, wall-stone #c0a0c0, wall-tile #c0c000, wall-wood #804060, water-other #c02040,
    waterdrops #c04080, window-blind #40c060, window-other #40a040, wood #404000
    """),
    **endings(".jpg", "_labelTrainIds.png"),
    layout=parts("images/{}", "annotations/{}", train="train2017", val="val2017")
    | {
        "train10k": part("images/train2014", "annotations/train2014", reduce_zero_label=True),
        "val10k": part("images/test2014", "annotations/test2014", reduce_zero_label=True),
    },
    counts={"train": 118287, "val": 5000, "train10k": 9000, "val10k": 1000},
)


def room_of(image: Path) -> dict[str, Any]:
    """The kind of room in an image's name (`home_office_0001_rgb_00010.jpg`), or -1."""
    digits = [index for index, letter in enumerate(image.name) if letter.isdigit()]
    room = image.name[: digits[0] - 1] if digits and digits[0] else ""
    return {"category_id": NYU.classes.index(room) if room in NYU.classes else -1}


ROOMS = """
    printer_room bathroom living_room study conference_room study_room kitchen home_office bedroom dinette playroom
    indoor_balcony laundry_room basement excercise_room foyer home_storage cafe furniture_store office_kitchen
    student_lounge dining_room reception_room computer_lab classroom office bookstore
"""
NYU = declare(
    name="NYUDataset",
    about="Depth indoors (Silberman et al., ECCV 2012); the classes are kinds of rooms.",
    classes=tuple(ROOMS.split()),
    img_suffix=".jpg",
    depth_map_suffix=".png",
    data_prefix={"img_path": "images", "depth_map_path": "annotations"},
    layout={
        "train": {"data_prefix": {"img_path": "images/train", "depth_map_path": "annotations/train"}},
        "test": {"data_prefix": {"img_path": "images/test", "depth_map_path": "annotations/test"}, "test_mode": True},
    },
    describe=room_of,
)
