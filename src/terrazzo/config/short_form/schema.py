"""The keys of the short form: types, defaults and descriptions, and the JSON Schema that editors read."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, GetJsonSchemaHandler, model_validator
from pydantic.fields import FieldInfo
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue

from terrazzo import recipes
from terrazzo.config.short_form import types as t

FILE = Path(__file__).with_name("schema.json")  # what `json_schema` returns, for editors
DIALECT = "https://json-schema.org/draft/2020-12/schema"


def key(about: str, default: Any = None, **more: Any) -> Any:
    """A key of the short form: what it does, and its default; `...` makes it required."""
    return Field(default, description=about, **more)


class Keys(BaseModel):
    """A section of the short form; an empty key counts as omitted unless it is one of `never_empty`."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)
    never_empty: ClassVar[frozenset[str]] = frozenset()

    @model_validator(mode="before")
    @classmethod
    def without_empty_keys(cls, values: Any) -> Any:
        if not isinstance(values, Mapping):
            return values
        may_be_empty = cls.model_fields.keys() - cls.never_empty
        return {key: value for key, value in values.items() if value is not None or key not in may_be_empty}


class EarlyStopping(Keys):
    """The condition that ends training before its last step."""

    patience: t.Count = key("Validations without a better score after which training ends.", 5)
    min_delta: t.Number = key("The gain over the best score that counts as better.", 0.0)

    @classmethod
    def __get_pydantic_json_schema__(cls, schema: Any, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        return {"anyOf": [{"type": "integer", "minimum": 1}, {"const": False}, handler(schema)]}


class DataKeys(Keys):
    """Images, labels and classes of a data set."""

    never_empty = frozenset({"root", "images", "labels", "classes"})

    root: t.FolderName = key("Folder of the data set, relative to this file.", ".")
    images: t.FolderName = key(
        "Folder of the images below `root`, with a folder for each split; `{split}` inserts its name.", "images"
    )
    labels: t.FolderName = key(
        "Folder of the labels below `root`, laid out as the images; a file for formats with one for many images.",
        "labels",
    )
    train: t.Split | None = key("Folder of the training images, or a file that lists their names (default: train).")
    val: t.ValidationSplit | None = key(
        "Folder of the validation images, a file that lists their names, or the share of the training images to hold "
        "out, such as 0.2 (default: val)."
    )
    test: t.Split | None = key("Folder of the test images, or a file that lists their names (default: those of `val`).")
    folds: t.Count | None = key(
        "Parts of the training images for cross-validation: one of them, the `fold`, takes the place of `val`."
    )
    fold: t.Count | None = key("Number of the part to validate on, from 1 on (default: 1); `--fold` of `train`.")
    groups: t.Split | None = key(
        "Table below `root` with lines `image,group`: a group is never split between training and validation."
    )
    classes: t.Classes = key("Class names, in the order of the label values.", ...)
    palette: t.Palette | None = key("A colour [red, green, blue] for each class.")
    ignore: t.LabelValues | None = key("Label values whose pixels do not count; names of classes in a `label_format`.")
    label_map: t.LabelMap | None = key(
        "Stored label value (or name, in a `label_format`) to class, or to 255: ignored."
    )
    reduce_zero_label: t.Switch | None = key("Ignore label 0 and lower the other label values by one.")
    bands: t.Bands | None = key("Bands to read from TIFF or .npy images, numbered from 1; needs `mean` and `std`.")
    resolution: t.Resolution | None = key("Metres a pixel, to which GeoTIFF images and labels are resampled.")
    microns: t.Microns | None = key("Microns a pixel, at which whole-slide images (.svs, .ndpi, .mrxs) are read.")
    windows: t.Size | None = key(
        "Height x width of the windows in which GeoTIFF scenes are read: at random places in training, on a grid in "
        "validation; a share for `val` then holds out blocks of the ground."
    )
    label_format: t.LabelFormat | None = key(
        f"Format of labels that are not images of class numbers: {', '.join(t.FORMATS)}, or a mapping of its `type` "
        "and options."
    )
    image_suffix: t.Suffix | None = key("End of the image files' names, such as .jpg; a beginning too in img_*.png.")
    label_suffix: t.Suffix | None = key("End of the label files' names, such as _mask.png or mask_*.png.")
    exclude: t.Names | None = key("Ends of the paths of images to skip; `*` stands for anything.")
    unlabelled: t.Unlabelled | None = key("What images without a label are (default: error).")
    cache: t.Storage | None = key("Where decoded images and labels are kept between epochs.")


class ShortForm(Keys):
    """A terrazzo config in the short form: a recipe, data, and what differs from the defaults."""

    never_empty = frozenset({"data", "crop", "ratio_range"})

    recipe: Annotated[str | None, t.Expected("a family or a recipe of `terrazzo recipe list`")] = key(
        "A family of networks, such as fastscnn or segformer, or a name from `terrazzo recipe list`; omitted where "
        "`model` names a backbone and a head."
    )
    data: Annotated[DataKeys, t.Expected("a section with root, images, labels and classes")] = key(
        "Where images and labels are stored, and the classes.", ...
    )
    model: t.ModelChanges | None = key(
        "Keys to change in the recipe's model, as the 1.x vocabulary names them; without a recipe a `backbone`, such "
        "as timm/convnext_tiny, and a `head`: fpn, uper, segformer, unet, linear, eomt, aspp, psp or fcn."
    )
    optimizer: t.OptimizerChanges | None = key(
        "Keys to change in the recipe's optimizer; another `type` starts without the recipe's keys."
    )
    lr: t.Rate | None = key(
        "Learning rate (default: the recipe's); it rises over the first twentieth of the run and falls to 0 afterwards."
    )
    pretrained: t.Weights | None = key(
        "Weights that the backbone starts from: a file, a name of `terrazzo weights get` such as mit_b0, none, or "
        "auto: the published ones where they are on this machine."
    )
    load_from: t.Weights | None = key(
        "Weights that the whole model starts from: a file, a run's folder, a recipe, or `street`, the bundled model."
    )
    teacher: t.Teacher | None = key(
        "Trained models that the model also learns from: a file, several, or a mapping of `weights` and options."
    )
    finetune: t.Finetuning | None = key(
        "What training changes of the backbone: all of it (default: full), nothing (frozen), or a low-rank part (lora)."
    )
    freeze: t.Names | None = key(
        "Parts of the model that keep their weights and statistics, such as backbone or backbone.layer1."
    )
    batch: t.Batch = key("Images in a training step, on each device.", 8)
    iterations: t.Count | None = key("Training steps of the whole run (default: 20000).")
    epochs: t.Count | None = key("Epochs of the whole run, instead of `iterations`.")
    val_interval: t.Count | None = key(
        "Steps, or epochs if `epochs` is set, between validations (default: 1/20 of the run)."
    )
    checkpoint_interval: t.Count | None = key(
        "Steps between checkpoints, or epochs with `epochs` (default: `val_interval`)."
    )
    log_interval: t.Count | None = key("Steps between lines of the log (default: 50, fewer in a short run).")
    resize: t.Size | None = key(
        "Height x width that images are scaled to fit into, such as 540x720, in training, validation and prediction."
    )
    ratio_range: t.RatioRange = key("Training images are scaled by a random factor between these two.", [0.5, 2.0])
    crop: t.Size = key(
        "Height x width of the crops that training sees, such as 360x480.", [512, 512], examples=["512x512"]
    )
    photometric: t.ColourChanges | None = key(
        "Options of PhotoMetricDistortion, which varies brightness and colours in training, or none: without it."
    )
    in_channels: t.Channels | None = key(
        "Channels of the images: 3 (default), 1 for greyscale, or the number of bands."
    )
    mean: t.PerChannel | None = key("Mean of each channel, as `terrazzo data stats` computes it, or none: no scaling.")
    std: t.PerChannel | None = key("Standard deviation of each channel (`terrazzo data stats` computes it), or none.")
    class_weight: t.ClassWeights | None = key("Weight of each class in the loss; auto: from how often each occurs.")
    rare_class_sampling: t.Temperature = key(
        "Show images with rare classes more often; a number sets the temperature (true: 0.01).", False
    )
    rare_class_crops: t.Names | None = key(
        "Names of rare classes: every other training crop is taken around a pixel of one that the image has."
    )
    amp: t.Precision = key("Mixed precision: true (the best type of the device), bf16 or fp16.", False)
    ema: t.EmaShare = key("Score and save a moving average of the weights that keeps this share (true: 0.999).", False)
    swa: t.SwaShare = key("Score and save the mean of the weights from this share of the run on (true: 0.75).", False)
    early_stopping: Annotated[
        EarlyStopping | None,
        BeforeValidator(t.read_stopping_rule),
        t.Expected("a number of validations, or a mapping of patience and min_delta"),
    ] = key("End training after this many validations without a better score.")
    time_limit: t.Duration | None = key(
        "Longest time of a session, such as 11h30m; the run is then saved, to be resumed."
    )
    skip_nan: t.CountFromZero | None = key(
        "Steps that may be skipped because loss or gradient is not finite (default: 0)."
    )
    workers: t.Workers = key("Processes that read and augment images, for each device.", 4)
    seed: t.Seed = key("Seed of all random numbers; makes a run repeatable.", 0)
    deterministic: t.Switch = key("Use only algorithms that give the same bits in every run: may be slower.", False)
    compile: t.Switch | None = key("Run training steps through torch.compile.")
    channels_last: t.Switch | None = key("Store channels last in memory, which suits convolutions in mixed precision.")
    activation_checkpointing: t.Switch | None = key(
        "Compute activations of the backbone again in the backward pass: less memory, more time."
    )
    fsdp: t.Switch = key("Shard weights, gradients and optimizer states among the devices.", False)
    find_unused_parameters: t.Switch | None = key(
        "Let several devices train a model with parameters that get no gradient."
    )
    custom_imports: t.CustomImports | None = key(
        "Your own modules, which register models: {imports: [names]}; imported with --trust-config only."
    )
    track: t.Trackers | None = key("Where curves and pictures are sent besides the work dir: one tracker or several.")
    val_pictures: t.Pictures | None = key("Validation samples painted at every validation (default: 4; 0: none).")


class PlainSchema(GenerateJsonSchema):
    """JSON Schema without titles and without null: editors should complain about an empty key."""

    def field_title_should_be_set(self, schema: Any) -> bool:
        return False

    def nullable_schema(self, schema: Any) -> JsonSchemaValue:
        return self.generate_inner(schema["schema"])

    def default_schema(self, schema: Any) -> JsonSchemaValue:
        made = super().default_schema(schema)
        if made.get("default", ...) is None:
            del made["default"]
        return made


def json_schema() -> dict[str, Any]:
    """Return the JSON Schema (draft 2020-12) of the short form."""
    schema = ShortForm.model_json_schema(schema_generator=PlainSchema)
    families = recipes.families()
    names = {*families, *(name.replace("_", "") for name in families), *(n for n in recipes.names() if "_" not in n)}
    schema["properties"]["recipe"] = {
        "description": schema["properties"]["recipe"]["description"],
        "anyOf": [{"enum": sorted(names)}, {"type": "string", "pattern": "^[^_]+_.*[0-9]"}],
        "examples": ["fastscnn", "segformer", "pspnet_r50-d8_4xb2-40k_cityscapes-512x1024"],
    }
    paths = {"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}]}
    schema["properties"]["_base_"] = {"description": "The file, or files, whose values this one changes.", **paths}
    # what a file has whose base may not have it
    schema["if"] = {"required": ["_base_"]}
    schema["else"] = {
        "required": schema.pop("required"),
        "anyOf": [{"required": ["recipe"]}, {"required": ["model"]}],
        "properties": {"data": {"required": schema["$defs"]["DataKeys"].pop("required")}},
    }
    return {"$schema": DIALECT, **schema, "title": "terrazzo short form"}


def editor_line() -> str:
    """Return the comment that makes an editor complete and check the config whose first line it is."""
    return f"# yaml-language-server: $schema={FILE.as_uri()}"


def key_field(key: str) -> FieldInfo | None:
    """Return the declaration of a dotted key of the short form; None for other keys."""
    section, _, name = key.rpartition(".")
    models: dict[str, type[Keys]] = {"": ShortForm, "data": DataKeys, "early_stopping": EarlyStopping}
    return models[section].model_fields.get(name) if section in models else None


def key_names() -> list[str]:
    """Return every key of the short form, dotted."""
    return [*ShortForm.model_fields, *(f"data.{key}" for key in DataKeys.model_fields)]
