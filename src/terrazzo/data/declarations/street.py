"""Street scenes seen from a car, and road surfaces."""

from __future__ import annotations

from terrazzo.data.spec import BINARY, declare, endings, legend, part, parts
from terrazzo.recipes.datasets import MAPILLARY_CLASSES, MAPILLARY_COLOURS, metainfo

STREET = legend("""
    road #804080, sidewalk #f423e8, building #464646, wall #66669c, fence #be9999, pole #999999,
    traffic light #faaa1e, traffic sign #dcdc00, vegetation #6b8e23, terrain #98fb98, sky #4682b4, person #dc143c,
    rider #ff0000, car #00008e, truck #000046, bus #003c64, train #005064, motorcycle #0000e6, bicycle #770b20
""")

CITYSCAPES = declare(
    name="CityscapesDataset",
    about="Streets of 50 cities, finely annotated (Cordts et al., CVPR 2016).",
    **STREET,
    **endings("_leftImg8bit.png", "_gtFine_labelTrainIds.png"),
    layout=parts("leftImg8bit/{}", "gtFine/{}", "train", "val", "test"),
    counts={"train": 2975, "val": 500, "test": 1525},
)
DARK_ZURICH = declare(
    name="DarkZurichDataset",
    about="Zurich at night, for testing (Sakaridis et al., ICCV 2019).",
    **STREET,
    **endings("_rgb_anon.png", "_gt_labelTrainIds.png"),
    layout={"val": part("rgb_anon/val/night/GOPR0356", "gt/val/night/GOPR0356")},
)
NIGHT_DRIVING = declare(
    name="NightDrivingDataset",
    about="Driving at night, for testing (Dai and Van Gool, ITSC 2018).",
    **STREET,
    **endings("_leftImg8bit.png", "_gtCoarse_labelTrainIds.png"),
    layout={"test": part("leftImg8bit/test/night", "gtCoarse_daytime_trainvaltest/test/night")},
)
BDD100K = declare(
    name="BDD100KDataset",
    about="Diverse driving in the classes of Cityscapes (Yu et al., CVPR 2020).",
    **STREET,
    **endings(".jpg", ".png"),
    layout=parts("images/10k/{}", "labels/sem_seg/masks/{}", "train", "val"),
)
CAMVID = declare(
    name="CamVidDataset",
    about="Cambridge from a car, the 11 classes and 480x360 selection of SegNet (Brostow et al., PRL 2009).",
    **legend("""
    sky #808080, building #800000, pole #c0c080, road #804080, pavement #3c28de, tree #808000, sign #c08080,
    fence #404080, car #400080, pedestrian #404000, bicyclist #0080c0
    """),
    **endings(".png", ".png"),
    ignore=(11,),  # void
    layout=parts("{}", "{}annot", "train", "val", "test"),
)
VISTAS = metainfo(MAPILLARY_CLASSES, MAPILLARY_COLOURS)
MAPILLARY_V1 = declare(
    name="MapillaryDataset_v1",
    about="Streets of the world in 65 classes and 'unlabeled' (Neuhold et al., ICCV 2017).",
    classes=(*VISTAS["classes"], "Unlabeled"),
    palette=(*VISTAS["palette"], (0, 0, 0)),
    **endings(".jpg", ".png"),
    layout=parts("{}/images", "{}/v1.2/labels", train="training", val="validation"),
)
MAPILLARY_V2 = declare(
    name="MapillaryDataset_v2",
    about="The images of Mapillary v1 in 123 classes and 'unlabeled'.",
    **legend("""
    Bird #a52a2a, Ground Animal #00c000, Ambiguous Barrier #faaa1f, Concrete Block #faaa20, Curb #c4c4c4,
    Fence #be9999, Guard Rail #b4a5b4, Barrier #5a7896, Road Median #faaa21, Road Side #faaa22,
    Lane Separator #808080, Temporary Barrier #faaa23, Wall #66669c, Bike Lane #8040ff, Crosswalk - Plain #8c8cc8,
    Curb Cut #aaaaaa, Driveway #faaa24, Parking #faaaa0, Parking Aisle #faaa25, Pedestrian Area #606060,
    Rail Track #e6968c, Road #804080, Road Shoulder #6e6e6e, Service Lane #6e6e6e, Sidewalk #f423e8,
    Traffic Island #80c480, Bridge #966464, Building #464646, Garage #969696, Tunnel #96785a, Person #dc143c,
    Person Group #dc143c, Bicyclist #ff0000, Motorcyclist #ff0064, Other Rider #ff00c8,
    Lane Marking - Dashed Line #ffffff, Lane Marking - Straight Line #ffffff, Lane Marking - Zigzag Line #faaa1d,
    Lane Marking - Ambiguous #faaa1c, Lane Marking - Arrow (Left) #faaa1a, Lane Marking - Arrow (Other) #faaa19,
    Lane Marking - Arrow (Right) #faaa18, Lane Marking - Arrow (Split Left or Straight) #faaa16,
    Lane Marking - Arrow (Split Right or Straight) #faaa15, Lane Marking - Arrow (Straight) #faaa14,
    Lane Marking - Crosswalk #ffffff, Lane Marking - Give Way (Row) #faaa13, Lane Marking - Give Way (Single) #faaa12,
    Lane Marking - Hatched (Chevron) #faaa0c, Lane Marking - Hatched (Diagonal) #faaa0b, Lane Marking - Other #ffffff,
    Lane Marking - Stop Line #ffffff, Lane Marking - Symbol (Bicycle) #faaa10, Lane Marking - Symbol (Other) #faaa0f,
    Lane Marking - Text #faaa0f, Lane Marking (only) - Dashed Line #ffffff, Lane Marking (only) - Crosswalk #ffffff,
    Lane Marking (only) - Other #ffffff, Lane Marking (only) - Test #ffffff, Mountain #40aa40, Sand #e6a032,
    Sky #4682b4, Snow #beffff, Terrain #98fb98, Vegetation #6b8e23, Water #00aa1e, Banner #ffff80, Bench #fa001e,
    Bike Rack #648cb4, Catch Basin #dc8080, CCTV Camera #de2828, Fire Hydrant #64aa1e, Junction Box #282828,
    Mailbox #212121, Manhole #6480a0, Parking Meter #1414ff, Phone Booth #8e0000, Pothole #466496,
    Signage - Advertisement #faab1e, Signage - Ambiguous #faac1e, Signage - Back #faad1e,
    Signage - Information #faae1e, Signage - Other #faaf1e, Signage - Store #fab01e, Street Light #d2aa64,
    Pole #999999, Pole Group #999999, Traffic Sign Frame #808080, Utility Pole #000050, Traffic Cone #d23c3c,
    Traffic Light - General (Single) #faaa1e, Traffic Light - Pedestrians #faaa1e,
    Traffic Light - General (Upright) #faaa1e, Traffic Light - General (Horizontal) #faaa1e,
    Traffic Light - Cyclists #faaa1e, Traffic Light - Other #faaa1e, Traffic Sign - Ambiguous #c0c0c0,
    Traffic Sign (Back) #c0c0c0, Traffic Sign - Direction (Back) #c0c0c0, Traffic Sign - Direction (Front) #dcdc00,
    Traffic Sign (Front) #dcdc00, Traffic Sign - Parking #0000c4, Traffic Sign - Temporary (Back) #c0c0c0,
    Traffic Sign - Temporary (Front) #dcdc00, Trash Can #8c8c14, Bicycle #770b20, Boat #9600ff, Bus #003c64,
    Car #00008e, Caravan #00005a, Motorcycle #0000e6, On Rails #005064, Other Vehicle #804040, Trailer #00006e,
    Truck #000046, Vehicle Group #00008e, Wheeled Slow #0000c0, Water Valve #aaaaaa, Car Mount #202020,
    Dynamic #6f4a00, Ego Vehicle #780a0a, Ground #510051, Static #6f6f00, Unlabeled #000000
    """),
    **endings(".jpg", ".png"),
    layout=parts("{}/images", "{}/v2.0/labels", train="training", val="validation"),
)
CRACK_FOREST = declare(
    name="CrackForestDataset",
    about="Cracks in road surfaces (Shi et al., TITS 2016), with masks of 0 and 255.",
    **legend("background #000000, crack #ffffff"),
    **endings(".jpg", ".png"),
    label_map=BINARY,
    layout=parts("image", "mask", "train", "val", ann_file="{}.txt"),
)
