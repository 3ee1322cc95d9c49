"""Types of the short form's values: how each is read as people write it, and how a message describes it."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, PlainValidator, StrictInt, StrictStr, WithJsonSchema

from terrazzo.config.duration import seconds
from terrazzo.config.monitoring import TRACKERS, Tracker
from terrazzo.config.sections import MAX_BATCH, MAX_PICTURES, MAX_WORKERS
from terrazzo.errors import UserError

MAX_CHANNELS = 4096
MAX_SIDE = 32768  # of a crop or an image, in pixels


@dataclass(frozen=True)
class Expected:
    """The rest of a message after "KEY must be", and the words that the type accepts where they are few."""

    text: str
    words: tuple[str, ...] = ()


# Readers raise ValueError for what they cannot read; the message comes from `Expected`


def only(*kinds: type) -> Callable[[Any], Any]:
    """Return a reader that takes values of these types as they are."""

    def read(value: Any) -> Any:
        if not isinstance(value, kinds):
            raise ValueError
        return value

    return read


def read_number(value: Any) -> Any:
    """Return a number as it is, and a text as the number that it spells: YAML 1.1 reads `1e-3` as a text."""
    if isinstance(value, bool):
        raise ValueError
    return float(value) if isinstance(value, str) else value


def read_size(value: Any) -> list[Any]:
    """Return [height, width] of `360x480`, `[360, 480]` or a single side."""
    if isinstance(value, (list, tuple)):
        return list(value)
    sides = value.lower().split("x") if isinstance(value, str) else [value]
    return sides * 2 if len(sides) == 1 else sides


def read_list(value: Any) -> Any:
    """Return a list or tuple as it is, and a single value as a list of one."""
    return value if isinstance(value, (list, tuple)) else [value]


def read_stopping_rule(value: Any) -> Any:
    """Return the rule that a number of validations stands for; `false` and 0 mean no rule."""
    return value if isinstance(value, Mapping) else {"patience": value} if value else None


def read_label_format(value: Any) -> Any:
    if not isinstance(value.get("type") if isinstance(value, Mapping) else value, str):
        raise ValueError
    return value


def read_duration(value: Any) -> Any:
    try:
        seconds(only(str, int, float)(value))
    except UserError:
        raise ValueError from None
    return value


# Numbers and switches

NUMBER = BeforeValidator(read_number)
Count = Annotated[int, Field(ge=1), NUMBER, Expected("a whole number of at least 1")]
Batch = Annotated[int, Field(ge=1, le=MAX_BATCH), NUMBER, Expected(f"a whole number from 1 to {MAX_BATCH}")]
Channels = Annotated[int, Field(ge=1, le=MAX_CHANNELS), NUMBER, Expected(f"a whole number from 1 to {MAX_CHANNELS}")]
Pictures = Annotated[int, Field(ge=0, le=MAX_PICTURES), NUMBER, Expected(f"a whole number from 0 to {MAX_PICTURES}")]
Workers = Annotated[int, Field(ge=0, le=MAX_WORKERS), NUMBER, Expected(f"a whole number from 0 to {MAX_WORKERS}")]
CountFromZero = Annotated[int, Field(ge=0), NUMBER, Expected("a whole number of at least 0")]
Seed = Annotated[int, Field(ge=0, le=2**63 - 1), NUMBER, Expected("a whole number from 0 to 2**63 - 1")]
Number = Annotated[float, NUMBER, Expected("a number")]
Rate = Annotated[float, Field(ge=0), NUMBER, Expected("a number of at least 0, such as 1e-3")]
Resolution = Annotated[float, Field(gt=0), NUMBER, Expected("metres a pixel above 0, such as 0.5")]
Microns = Annotated[float, Field(gt=0), NUMBER, Expected("microns a pixel above 0, such as 0.5")]
Side = Annotated[int, Field(ge=1, le=MAX_SIDE), NUMBER]
Factor = Annotated[float, Field(gt=0), NUMBER]
Share = Annotated[float, Field(ge=0, lt=1), NUMBER]
Strict = Annotated[bool, Field(strict=True)]  # beside numbers: 1 is not true
Switch = Annotated[bool, Expected("true or false")]
Precision = Annotated[bool | Literal["bf16", "fp16"], Expected("true, false, bf16 or fp16", ("bf16", "fp16"))]
EmaShare = Annotated[
    Strict | Share, Expected("true, false, or the share of the old average that is kept (0 to 1, such as 0.999)")
]
Finetuning = Annotated[Literal["full", "frozen", "lora"], Expected("full, frozen or lora", ("full", "frozen", "lora"))]
SwaShare = Annotated[
    Strict | Share, Expected("true, false, or the share of the run to average weights after (0 to 1, such as 0.75)")
]
Temperature = Annotated[Strict | Rate, Expected("true, false, or a temperature above 0, such as 0.01")]
Duration = Annotated[
    str | int | float,
    PlainValidator(read_duration),
    WithJsonSchema({"anyOf": [{"type": "string", "pattern": "^[0-9][0-9.:dhmsDHMS ]*$"}, {"type": "number"}]}),
    Expected("a length of time: 90 (seconds), 55m, 1h30m or 1:30:00"),
]

# Names and paths

PATH = BeforeValidator(lambda value: os.fspath(only(str, os.PathLike)(value)))
NAME = {"type": ["string", "number", "boolean"]}
Weights = Annotated[str, PATH, Expected("a file or a name of weights, auto or none")]
FolderName = Annotated[str, PATH, Expected("the path of a folder")]
Split = Annotated[str, PATH, Expected("the name of a folder, or of a file that lists names")]
ValidationSplit = Annotated[
    Annotated[str, PATH] | Annotated[float, Field(gt=0, lt=1), NUMBER],
    Field(union_mode="left_to_right"),
    Expected("the name of a folder, of a file that lists names, or a share between 0 and 1, such as 0.2"),
]
Name = Annotated[str, BeforeValidator(str), BeforeValidator(only(str, int, float)), WithJsonSchema(NAME)]
Suffix = Annotated[str | list[str], Expected("the end of a file's name, such as .png, or a list of them")]
Names = Annotated[
    list[Name],
    BeforeValidator(read_list),
    WithJsonSchema({"anyOf": [NAME, {"type": "array", "items": NAME}]}),
    Expected("a name or a list of names"),
]
Classes = Annotated[
    list[Name],
    Field(min_length=1),
    BeforeValidator(only(list, tuple)),
    Expected("the list of class names in the order of the label values"),
]
Trackers = Annotated[Tracker | list[Tracker], Expected(f"one or several of {', '.join(TRACKERS)}", tuple(TRACKERS))]
Unlabelled = Annotated[
    Literal["error", "skip", "background", "teacher"],
    Expected("error, skip, background or teacher", ("error", "skip", "background", "teacher")),
]
Storage = Annotated[Literal["ram", "disk"], Expected("ram or disk", ("ram", "disk"))]

# Images and labels

SIDE = {"type": "integer", "minimum": 1, "maximum": MAX_SIDE}
LABEL = {"type": ["integer", "string"]}
FORMATS = (  # those of terrazzo; users may register others
    "alpha", "class_masks", "coco", "cvat", "geojson", "kaggle_rle", "label_studio", "labelme", "rgb", "supervisely",
    "vector", "via", "voc", "yolo",
)  # fmt: skip
Size = Annotated[
    list[Side],
    Field(min_length=2, max_length=2),
    BeforeValidator(read_size),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "string", "pattern": r"^\s*[0-9]{1,5}\s*([xX]\s*[0-9]{1,5}\s*)?$"},
                SIDE,
                {"type": "array", "items": SIDE, "minItems": 2, "maxItems": 2},
            ]
        }
    ),
    Expected("height x width, such as 360x480"),
]
RatioRange = Annotated[
    list[Factor], Field(min_length=2, max_length=2), Expected("two factors above 0, such as [0.5, 2.0]")
]
PerChannel = Annotated[Literal["none"] | list[Number], Expected("a list of numbers, one for each channel, or none")]
Bands = Annotated[
    list[Annotated[int, Field(ge=1, le=MAX_CHANNELS), NUMBER]],
    Field(min_length=1, max_length=MAX_CHANNELS),
    Expected(f"a list of band numbers from 1 (to {MAX_CHANNELS}), such as [3, 2, 1, 7]"),
]
Colour = Annotated[list[Annotated[int, Field(ge=0, le=255), NUMBER]], Field(min_length=3, max_length=3)]
Palette = Annotated[list[Colour], Expected("a list of colours [red, green, blue], each from 0 to 255, one a class")]
LabelValues = Annotated[
    list[StrictInt | StrictStr],
    BeforeValidator(read_list),
    WithJsonSchema({"anyOf": [LABEL, {"type": "array", "items": LABEL}]}),
    Expected("a list of label values"),
]
LabelMap = Annotated[
    dict[StrictInt | StrictStr, StrictInt | StrictStr],
    WithJsonSchema({"type": "object", "additionalProperties": LABEL}),
    Expected("a mapping from label values to classes, such as {7: 1}"),
]
LabelFormat = Annotated[
    str | Mapping[str, Any],
    PlainValidator(read_label_format),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "string", "examples": list(FORMATS)},
                {
                    "type": "object",
                    "properties": {"type": {"type": "string", "examples": list(FORMATS)}},
                    "required": ["type"],
                },
            ]
        }
    ),
    Expected(f"the name of a format ({', '.join(FORMATS)}), or a mapping such as {{type: coco, holes: false}}"),
]
ClassWeights = Annotated[
    Literal["auto"] | list[Annotated[float, Field(ge=0), NUMBER]],
    Expected("`auto` or a list of numbers of at least 0, one for each class", ("auto",)),
]

# Parts of the model and of the run

Changes = Annotated[dict[str, Any], PlainValidator(only(dict)), WithJsonSchema({"type": "object"})]  # with lines
ModelChanges = Annotated[
    Changes,
    Expected(
        "a mapping of keys to change in the recipe's model, such as {backbone: {depth: 18}}, or "
        "{backbone: timm/convnext_tiny, head: fpn}"
    ),
]
OptimizerChanges = Annotated[
    Changes, Expected("a mapping of keys to change in the recipe's optimizer, such as {type: AdamW, lr: 0.001}")
]
ColourChanges = Annotated[
    Literal["none"] | Changes,
    Expected("none, or a mapping of options of PhotoMetricDistortion, such as {hue_delta: 9}", ("none",)),
]
FILES = {"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}, "minItems": 1}]}
OPTION = {"type": "number", "minimum": 0}
Teacher = Annotated[
    str | list[str] | dict[str, Any],
    PlainValidator(only(str, list, dict)),
    WithJsonSchema(
        {
            "anyOf": [
                *FILES["anyOf"],
                {
                    "type": "object",
                    "properties": {"weights": FILES, "loss_weight": OPTION, "temperature": OPTION, "features": OPTION},
                    "required": ["weights"],
                    "additionalProperties": False,
                },
            ]
        }
    ),
    Expected("a file of trained weights, several, or a mapping such as {weights: best.safetensors, features: 10}"),
]
CustomImports = Annotated[Changes, Expected("a mapping such as {imports: [my_head]}, the names of modules")]
