"""The datasets of recipes: where each is stored, how it is read, and the loaders built from that."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

from terrazzo.recipes.parts import Spec


@dataclass(frozen=True)
class Data:
    """A dataset as recipes use it; pairs are (training, validation)."""

    kind: str
    root: str
    num_classes: int
    images: tuple[str, str]
    labels: tuple[str, str]
    splits: tuple[str, str] | None = None
    scale: tuple[int, int] | None = (2048, 512)  # width, height to which images are fitted; None: their own size
    test_scale: tuple[int, int] | None = None  # where it is not `scale`
    reduce_zero_label: bool = False
    options: Spec = field(default_factory=dict)  # more arguments of the dataset
    test_options: Spec = field(default_factory=dict)  # and those of only its validation part
    repeat: int = 0  # times that a tiny dataset is repeated
    metric: str = "mIoU"
    slide: bool = False  # tested window by window
    tta: bool = True
    light: bool = False  # two images and two workers a device
    gentle: bool = False  # learns at 0.004


FOLDERS = (("img_dir/train", "img_dir/val"), ("ann_dir/train", "ann_dir/val"))
SPLITS = (("images/training", "images/validation"), ("annotations/training", "annotations/validation"))
CITYSCAPES = (("leftImg8bit/train", "leftImg8bit/val"), ("gtFine/train", "gtFine/val"))
CONTEXT = (("JPEGImages", "JPEGImages"), ("SegmentationClassContext", "SegmentationClassContext"))
CONTEXT_SPLITS = ("ImageSets/SegmentationContext/train.txt", "ImageSets/SegmentationContext/val.txt")
VOC_SPLITS = ("ImageSets/Segmentation/train.txt", "ImageSets/Segmentation/val.txt")
DSDL_SPLITS = ("dsdl/dsdl_SemSeg_full/set-train/train.yaml", "dsdl/dsdl_SemSeg_full/set-val/val.yaml")
CITYSCAPES_CLASSES = ["road", "sidewalk", "building", "wall", "fence", "pole", "traffic_light", "traffic_sign",
    "vegetation", "terrain", "sky", "person", "rider", "car", "truck", "bus", "train", "motorcycle",
    "bicycle"]  # fmt: skip


# 65 of the 66 classes of Mapillary Vistas 1.2: the last, "Unlabeled", is omitted
MAPILLARY_CLASSES = (
    "Bird,Ground Animal,Curb,Fence,Guard Rail,Barrier,Wall,Bike Lane,Crosswalk - Plain,Curb Cut,Parking,"
    "Pedestrian Area,Rail Track,Road,Service Lane,Sidewalk,Bridge,Building,Tunnel,Person,Bicyclist,Motorcyclist,"
    "Other Rider,Lane Marking - Crosswalk,Lane Marking - General,Mountain,Sand,Sky,Snow,Terrain,Vegetation,Water,"
    "Banner,Bench,Bike Rack,Billboard,Catch Basin,CCTV Camera,Fire Hydrant,Junction Box,Mailbox,Manhole,Phone Booth,"
    "Pothole,Street Light,Pole,Traffic Sign Frame,Utility Pole,Traffic Light,Traffic Sign (Back),Traffic Sign (Front),"
    "Trash Can,Bicycle,Boat,Bus,Car,Caravan,Motorcycle,On Rails,Other Vehicle,Trailer,Truck,Wheeled Slow,"
    "Car Mount,Ego Vehicle"
)
MAPILLARY_COLOURS = (
    "a52a2a00c000c4c4c4be9999b4a5b45a789666669c8040ff8c8cc8aaaaaafaaaa0606060e6968c8040806e6e6ef423e8966464464646"
    "96785adc143cff0000ff0064ff00c8c88080ffffff40aa40e6a0324682b4beffff98fb986b8e2300aa1effff80fa001e648cb4dcdcdc"
    "dc8080de282864aa1e2828282121216480a08e0000466496d2aa64999999808080000050faaa1ec0c0c0dcdc008c8c14770b209600ff"
    "003c6400008e00005a0000e600506480404000006e0000460000c0202020780a0a"
)
VOC_CLASSES = (
    "aeroplane,bicycle,bird,boat,bottle,bus,car,cat,chair,cow,diningtable,dog,horse,motorbike,person,pottedplant,sheep,"
    "sofa,train,tvmonitor"
)
VOC_COLOURS = (
    "800000008000808000000080800080008080808080400000c00000408000c08000400080c00080408080c0808000400080400000c000"
    "80c000004080"
)


def metainfo(classes: str, colours: str) -> Spec:
    """Names of classes and their colours, six hexadecimal digits each."""
    values = list(bytes.fromhex(colours))
    return {"classes": classes.split(","), "palette": [values[at : at + 3] for at in range(0, len(values), 3)]}


def retina(kind: str, root: str, scale: tuple[int, int]) -> Data:
    """Vessels of the eye: a few pictures, many small crops."""
    return Data(kind, root, 2, *SPLITS, scale=scale, repeat=40000, metric="mDice", slide=True)


def dsdl(root: str, inner: str, num_classes: int, scale: tuple[int, int], light: bool, **options: Any) -> Data:
    """A dataset described in DSDL."""
    folder = (f"raw/{inner}", f"raw/{inner}")
    return Data("DSDLSegDataset", f"data/{root}", num_classes, folder, folder, DSDL_SPLITS,
                scale, options=options, tta=False, light=light)  # fmt: skip


ADE20K = Data("ADE20KDataset", "data/ade/ADEChallengeData2016", 150, *SPLITS, reduce_zero_label=True)
PASCAL_CONTEXT = Data("PascalContextDataset", "data/VOCdevkit/VOC2010/", 60, *CONTEXT, CONTEXT_SPLITS, (520, 520),
    slide=True, tta=False, gentle=True)  # fmt: skip
PASCAL_59 = replace(PASCAL_CONTEXT, kind="PascalContextDataset59", num_classes=59, reduce_zero_label=True, tta=True)
MAPILLARY = Data("MapillaryDataset_v1", "data/mapillary/", 65, ("training/images", "validation/images"),
    ("training/v1.2/labels", "validation/v1.2/labels"), scale=(2048, 1024),
    options={"metainfo": metainfo(MAPILLARY_CLASSES, MAPILLARY_COLOURS)})  # fmt: skip
DATASETS: dict[str, Data] = {
    "ade20k": ADE20K,
    "chase-db1": retina("ChaseDB1Dataset", "data/CHASE_DB1", (960, 999)),
    "cityscapes": Data("CityscapesDataset", "data/cityscapes/", 19, *CITYSCAPES, scale=(2048, 1024), light=True),
    "coco-stuff10k": Data(
        "COCOStuffDataset", "data/coco_stuff10k", 171, ("images/train2014", "images/test2014"),
        ("annotations/train2014", "annotations/test2014"), reduce_zero_label=True, options={"reduce_zero_label": True}),
    "coco-stuff164k": Data(
        "COCOStuffDataset", "data/coco_stuff164k", 171, ("images/train2017", "images/val2017"),
        ("annotations/train2017", "annotations/val2017")),
    "drive": retina("DRIVEDataset", "data/DRIVE", (584, 565)),
    "dsdl-cityscapes": dsdl("CityScapes", "CityScapes", 19, (2048, 1024), True, used_labels=CITYSCAPES_CLASSES),
    "dsdl-voc": dsdl("PASCAL_VOC2012", "VOCdevkit/VOC2012", 21, (2048, 512), False),
    "hrf": retina("HRFDataset", "data/HRF", (2336, 3504)),
    "isaid": Data("iSAIDDataset", "data/iSAID", 16, *FOLDERS, scale=(896, 896)),
    "levir": Data(
        "LEVIRCDDataset", "data/LEVIRCD", 2, ("train/A", "test/A"), ("train/label", "test/label"), scale=(256, 256)),
    "loveda": Data("LoveDADataset", "data/loveDA", 7, *FOLDERS, test_scale=(1024, 1024), reduce_zero_label=True),
    "mapillary_v1": MAPILLARY,
    "mapillay_v1_65": MAPILLARY,  # as the one official name spells it
    "nyu": Data(
        "NYUDataset", "data/nyu", 150, ("images/train", "images/test"), ("annotations/train", "annotations/test"),
        test_options={"test_mode": True}),
    "occluded-faces": Data(
        "FaceOccludedDataset", "data/occlusion-aware-face-dataset", 2, ("NatOcc_hand_sot/img", "RealOcc/image"),
        ("NatOcc_hand_sot/mask", "RealOcc/mask"), ("train.txt", "RealOcc/split/val.txt"), (512, 512), light=True),
    "pascal-context": PASCAL_CONTEXT,
    "pascal-context-59": PASCAL_59,
    "pascal_context": PASCAL_59,  # in the names of SAN
    "potsdam": Data("PotsdamDataset", "data/potsdam", 6, *FOLDERS, scale=(512, 512), reduce_zero_label=True),
    "stare": retina("STAREDataset", "data/STARE", (605, 700)),
    "vaihingen": Data("ISPRSDataset", "data/vaihingen", 6, *FOLDERS, scale=(512, 512), reduce_zero_label=True),
    "voc12aug": Data(
        "PascalVOCDataset", "data/VOCdevkit/VOC2012", 21, ("JPEGImages",) * 2, ("SegmentationClass",) * 2, VOC_SPLITS),
}  # fmt: skip
# Street scenes at night, to test on: type, root, images, labels
NIGHT = {
    "dark-zurich": ("DarkZurichDataset", "data/dark_zurich/", "rgb_anon/val/night/GOPR0356", "gt/val/night/GOPR0356"),
    "night-driving": (
        "NightDrivingDataset", "data/NighttimeDrivingTest/", "leftImg8bit/test/night",
        "gtCoarse_daytime_trainvaltest/test/night"),
}  # fmt: skip


def dataset(word: str) -> Data:
    """A dataset by the word of recipe names; an unknown word is a folder `data/WORD` with images/ and labels/."""
    folders = (("images/train", "images/val"), ("labels/train", "labels/val"))
    return DATASETS.get(word) or Data("BaseSegDataset", f"data/{word}", 19, *folders, scale=None)


def scale_for(data: Data, crop: tuple[int, int]) -> tuple[int, int] | None:
    """The scale that goes with a crop: larger crops of ADE20K and the odd ones of Cityscapes have their own."""
    if data.kind == "CityscapesDataset" and crop in ((769, 769), (768, 768)):
        return (2049, 1025)
    if data.kind == "ADE20KDataset" and crop == (640, 640):
        return (2560, 640)
    return data.scale


def load_labels(data: Data) -> Spec:
    return {"type": "LoadAnnotations"} | ({"reduce_zero_label": True} if data.reduce_zero_label else {})


def train_pipeline(data: Data, crop: tuple[int, int]) -> list[Spec]:
    """Random scale, crop, flip and colour."""
    scale = scale_for(data, crop)
    steps: list[Spec] = [
        {"type": "LoadImageFromFile"},
        load_labels(data),
        {"type": "RandomResize", "scale": scale and list(scale), "ratio_range": [0.5, 2.0], "keep_ratio": True},
        {"type": "RandomCrop", "crop_size": list(crop), "cat_max_ratio": 0.75},
        {"type": "RandomFlip", "prob": 0.5},
        {"type": "PhotoMetricDistortion"},
    ]
    if data.kind == "PascalVOCDataset":
        steps.append({"type": "Pad", "size": list(crop)})
    return [*steps, {"type": "PackSegInputs"}]


def resize_steps(scale: tuple[int, int] | None) -> list[Spec]:
    return [{"type": "Resize", "scale": list(scale), "keep_ratio": True}] if scale else []


def test_pipeline(data: Data, crop: tuple[int, int]) -> list[Spec]:
    steps = resize_steps(data.test_scale or scale_for(data, crop))
    return [{"type": "LoadImageFromFile"}, *steps, load_labels(data), {"type": "PackSegInputs"}]


def split(data: Data, which: int, pipeline: list[Spec]) -> Spec:
    """The training (0) or validation (1) part of a dataset."""
    key = "depth_map_path" if data.kind == "NYUDataset" else "seg_map_path"
    prefix = {"img_path": data.images[which], key: data.labels[which]}
    if data.kind == "LEVIRCDDataset":
        prefix["img_path2"] = data.images[which].replace("A", "B")
    section: Spec = {"type": data.kind, "data_root": data.root, **data.options, "data_prefix": prefix}
    if data.splits:
        section["ann_file"] = data.splits[which]
    more = data.test_options if which == 1 else {}
    return section | {"pipeline": pipeline} | more


def train_dataset(data: Data, pipeline: list[Spec]) -> Spec:
    """The training part, repeated or joined if the dataset requires it."""
    section = split(data, 0, pipeline)
    if data.kind == "PascalVOCDataset":
        prefix = section["data_prefix"] | {"seg_map_path": "SegmentationClassAug"}
        more = section | {"data_prefix": prefix, "ann_file": "ImageSets/Segmentation/aug.txt"}
        return {"type": "ConcatDataset", "datasets": [section, more]}
    return {"type": "RepeatDataset", "times": data.repeat, "dataset": section} if data.repeat else section


def night_dataset(word: str) -> Spec:
    kind, root, images, labels = NIGHT[word]
    steps = [*resize_steps((1920, 1080)), {"type": "LoadAnnotations"}, {"type": "PackSegInputs"}]
    prefix = {"img_path": images, "seg_map_path": labels}
    return {"type": kind, "data_root": root, "data_prefix": prefix, "pipeline": [{"type": "LoadImageFromFile"}, *steps]}
