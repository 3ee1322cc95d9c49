"""The short form's keys: the JSON Schema for editors, and values as people write them."""

import json
from pathlib import Path

import pytest
import yaml

import terrazzo as tz
from support.paths import REPOSITORY
from terrazzo import recipes
from terrazzo.cli.main import main
from terrazzo.config.config import Config
from terrazzo.config.short_form import types
from terrazzo.config.short_form.schema import FILE, DataKeys, ShortForm, editor_line, json_schema
from terrazzo.errors import UserError
from terrazzo.transforms.formats.base import LABEL_FORMATS

BASE = {"recipe": "fastscnn", "data": {"root": "d", "classes": ["a", "b", "c"]}}


def with_key(key: str, value: object) -> dict:
    """The least short form with a key set."""
    section, _, name = key.rpartition(".")
    return BASE | ({name: value} if not section else {section: BASE[section] | {name: value}})


def load(key: str, value: object) -> Config:
    return tz.load_config(with_key(key, value))


@pytest.fixture(scope="module")
def validator():
    reason = "jsonschema is not installed: pip install 'terrazzo[dev]'"
    jsonschema = pytest.importorskip("jsonschema", reason=reason)
    jsonschema.Draft202012Validator.check_schema(json_schema())
    return jsonschema.Draft202012Validator(json_schema())


def test_the_bundled_schema_is_up_to_date():
    way_out = "write it again: terrazzo config schema --out src/terrazzo/config/short_form/schema.json"
    assert json.loads(FILE.read_text(encoding="utf-8")) == json_schema(), way_out


def test_every_key_is_described_in_a_sentence():
    schema = json_schema()
    sections = [schema, *(part for part in schema["$defs"].values() if "properties" in part)]
    sections.append(schema["$defs"]["EarlyStopping"]["anyOf"][-1])
    assert len(sections) == 3
    for section in sections:
        assert section["additionalProperties"] is False
        for key, value in section["properties"].items():
            assert value["description"].endswith(".") and value["description"][0].isupper(), key
            assert value.keys() & {"type", "anyOf", "enum", "$ref"}, key
    assert set(schema["properties"]) == {*ShortForm.model_fields, "_base_"}
    needed = schema["else"]
    assert schema["if"] == {"required": ["_base_"]} and needed["required"] == ["data"]
    assert needed["anyOf"] == [{"required": ["recipe"]}, {"required": ["model"]}]
    assert needed["properties"] == {"data": {"required": ["classes"]}}


def test_the_schema_names_every_family_and_accepts_every_recipe(validator):
    accepts = validator.evolve(schema=json_schema()["properties"]["recipe"]).is_valid
    families = recipes.families()
    assert all(map(accepts, [*families, *(name.replace("_", "") for name in families), *recipes.names()]))
    assert not accepts("unett") and not accepts(3)


def test_the_schema_names_every_label_format():
    assert list(types.FORMATS) == sorted(LABEL_FORMATS)


CONFIGS = sorted((REPOSITORY / "configs").glob("*.yaml"))


@pytest.mark.parametrize("path", CONFIGS, ids=[path.stem for path in CONFIGS])
def test_the_schema_accepts_the_bundled_configs(path: Path, validator):
    values = yaml.safe_load(path.read_text(encoding="utf-8"))
    assert [error.message for error in validator.iter_errors(values)] == []


# Each with the key of the expanded config that it sets
ACCEPTED = [
    ("lr", "1e-3", "optim_wrapper.optimizer.lr", 0.001),
    ("lr", 1, "optim_wrapper.optimizer.lr", 1.0),
    ("iterations", 20000.0, "train_cfg.max_iters", 20000),
    ("iterations", "2e4", "train_cfg.max_iters", 20000),
    ("iterations", 30, "train_cfg.val_interval", 10),
    ("iterations", 400, "default_hooks.logger.interval", 20),
    ("iterations", 4, "train_cfg.val_interval", 4),
    ("batch", 4.0, "train_dataloader.batch_size", 4),
    ("crop", "360x480", "model.data_preprocessor.size", [360, 480]),
    ("crop", "360 X 480", "model.data_preprocessor.size", [360, 480]),
    ("crop", [360, 480], "model.data_preprocessor.size", [360, 480]),
    ("crop", 512, "model.data_preprocessor.size", [512, 512]),
    ("crop", 512.0, "model.data_preprocessor.size", [512, 512]),
    ("resize", "64x32", "val_dataloader.dataset.pipeline.1.scale", [32, 64]),
    ("photometric", {"hue_delta": 9}, "train_dataloader.dataset.pipeline.5.hue_delta", 9),
    ("photometric", "none", "train_dataloader.dataset.pipeline.5.type", "PackSegInputs"),
    ("early_stopping", 3, "custom_hooks.0.patience", 3),
    ("early_stopping", {"patience": 3, "min_delta": 0.1}, "custom_hooks.0.min_delta", 0.1),
    ("ema", True, "custom_hooks.0.momentum", 0.001),
    ("amp", "fp16", "optim_wrapper.dtype", "float16"),
    ("time_limit", "1h30m", "train_cfg.time_limit", "1h30m"),
    ("time_limit", 90, "train_cfg.time_limit", 90),
    ("track", ["csv", "wandb"], "track", ["csv", "wandb"]),
    ("data.val", 0.2, "val_dataloader.dataset.holdout.share", 0.2),
    ("data.val", "20", "val_dataloader.dataset.data_prefix.img_path", "images/20"),
    ("data.ignore", 11, "train_dataloader.dataset.ignore", [11]),
    ("data.label_map", {7: 1, "8": 255}, "train_dataloader.dataset.label_map", {7: 1, "8": 255}),
    ("data.classes", [True, 1.5, "road"], "train_dataloader.dataset.metainfo.classes", ["True", "1.5", "road"]),
]


@pytest.mark.parametrize(("key", "value", "target", "expected"), ACCEPTED)
def test_values_as_people_write_them(key, value, target, expected, validator):
    config = load(key, value)
    found = config._values
    for part in target.split("."):
        found = found[int(part)] if part.isdecimal() else found[part]
    assert found == expected and (isinstance(found, dict) or type(found) is type(expected))
    if value not in ("1e-3", "2e4"):  # numbers to editors, which read YAML 1.2
        assert validator.is_valid(json.loads(json.dumps(with_key(key, value))))


# Each with words of the message
REFUSED = [
    ("recipe", 3, "recipe must be a family or a recipe"),
    ("recipe", None, "recipe is empty"),
    ("data", "street", "data must be a section with root, images, labels and classes, not 'street'"),
    ("data.root", None, "data.root is empty: it must be the path of a folder"),
    ("data.images", None, "data.images is empty"),
    ("data.root", 3, "data.root must be the path of a folder, not 3"),
    ("data.train", -1, "data.train must be the name of a folder, .*, not -1"),
    ("data.val", -1, "data.val must be the name of a folder, .* a share between 0 and 1"),
    ("data.val", True, "data.val must be .*, not True"),
    ("data.classes", "sky", "data.classes must be the list of class names"),
    ("data.classes", [], "data.classes must be the list of class names"),
    ("data.classes", ["sky", None], r"data.classes must be .* \(item 2: None\)"),
    ("data.palette", [[0, 0, 0], [0, 0, 300], [1, 1, 1]], r"data.palette must be .* \(item 2: \[0, 0, 300\]\)"),
    ("data.ignore", [True], "data.ignore must be a list of label values"),
    ("data.label_map", [7], "data.label_map must be a mapping"),
    ("data.label_map", {7: -1}, "`data.label_map` must map label values to classes 0 to 2 .* not 7 to -1"),
    ("data.label_format", 5, "data.label_format must be the name of a format .* not 5"),
    ("data.cache", "rma", "data.cache must be ram or disk, not 'rma'; did you mean 'ram'"),
    ("data.bands", [1, 1e9], r"data.bands must be a list of band numbers from 1 .* \(item 2: 1000000000.0\)"),
    ("model", "x", "model must be a mapping of keys to change in the recipe's model, .* not 'x'"),
    ("optimizer", "AdamW", "optimizer must be a mapping .*type: AdamW.* not 'AdamW'"),
    ("batch", True, "batch must be a whole number .* not True"),
    ("batch", 1e12, "batch must be .* from 1 to 65536, not 1000000000000.0"),
    ("workers", 1e9, "workers must be a whole number from 0 to 1024"),
    ("in_channels", 1e9, "in_channels must be .* from 1 to 4096, not 1000000000.0"),
    ("val_pictures", 1e9, "val_pictures must be a whole number from 0 to 1000, not 1000000000.0"),
    ("crop", "1x99999999", "crop must be height x width, such as 360x480, not '1x99999999'"),
    ("crop", None, "crop is empty"),
    ("crop", [1, 2, 3], "crop must be height x width"),
    ("crop", True, "crop must be height x width"),
    ("seed", 2**64, "seed must be a whole number from 0 to"),
    ("lr", float("nan"), "lr must be a number of at least 0"),
    ("ratio_range", [0, 1], "ratio_range must be two factors above 0"),
    ("photometric", False, "photometric must be none, or a mapping of options of PhotoMetricDistortion"),
    ("amp", "pf16", "amp must be true, false, bf16 or fp16, not 'pf16'; did you mean"),
    ("swa", 1, "swa must be .* the share of the run"),
    ("early_stopping", "soon", "early_stopping must be a number of validations, or a mapping"),
    ("early_stopping", {"patince": 3}, "unknown key 'early_stopping.patince'; did you mean 'patience'"),
    ("early_stopping", {"patience": 0}, "early_stopping.patience must be a whole number of at least 1, not 0"),
    ("time_limit", "soon", "time_limit must be a length of time: 90 .*, not 'soon'"),
    ("track", "tensorbord", "track must be .*, not 'tensorbord'; did you mean 'tensorboard'"),
    ("custom_imports", "my_head", "custom_imports must be a mapping such as"),
    ("compile", "maybe", "compile must be true or false, not 'maybe'"),
    ("pretrained", 3, "pretrained must be a file or a name of weights"),
    ("class_weight", [1, -1, 1], r"class_weight must be `auto` or a list of numbers .* \(item 2: -1\)"),
    ("rare_class_sampling", -1, "rare_class_sampling must be true, false, or a temperature"),
]  # fmt: skip


@pytest.mark.parametrize(("key", "value", "message"), REFUSED)
def test_a_wrong_value_is_answered_with_key_and_value(key, value, message, validator):
    with pytest.raises(UserError, match=message) as caught:
        load(key, value)
    assert str(caught.value).startswith("the short form: ") and "\n" not in str(caught.value)
    is_number = value == value and value != {7: -1}  # JSON has no NaN; the bounds of label_map depend on the classes
    assert not is_number or not validator.is_valid(json.loads(json.dumps(with_key(key, value))))


@pytest.mark.parametrize(
    "key", ["batch", "lr", "iterations", "epochs", "mean", "model", "data.palette", "ema", "track"]
)
def test_an_empty_key_counts_as_omitted(key):
    assert load(key, None).to_dict() == tz.load_config(BASE).to_dict()


def test_several_mistakes_are_listed_with_their_lines(tmp_path):
    path = tmp_path / "street.yaml"
    path.write_text("recipe: unet\ndata:\n  root:\n  classes: [a, b]\n  valid: v\nbatch: x\nmodel: x\n")
    with pytest.raises(UserError) as caught:
        tz.load_config(path, {"seed": -1})
    first, *lines = str(caught.value).splitlines()
    assert first == f"{path}: 5 problems"
    for line, words in {
        3: "data.root is empty",
        5: "unknown key 'data.valid'",
        6: "batch must",
        7: "model must",
    }.items():
        assert sum(text.startswith(f"  {path}:{line}: ") and words in text for text in lines) == 1
    assert any(text.startswith("  --cfg-options: seed must be") for text in lines)


def test_overrides_go_into_the_short_form_or_into_what_it_expands_to():
    config = tz.load_config(BASE, {"batch": 3, "data.root": "e", "train_cfg.val_begin": 7, "val_pictures": 2})
    assert config.train_dataloader.batch_size == 3 and config.train_dataloader.dataset.data_root == "e"
    assert config.train_cfg.val_begin == 7 and config.val_pictures == 2
    with pytest.raises(UserError, match="--cfg-options: unknown key 'bacth'; did you mean 'batch'"):
        tz.load_config(BASE, {"bacth": 3})


def test_missing_keys_are_named(tmp_path):
    path = tmp_path / "street.yaml"
    path.write_text("recipe: unet\ndata:\n  root: d\n")
    with pytest.raises(UserError, match=rf"{path}:2: `data.classes` is missing: the list of class names"):
        tz.load_config(path)
    path.write_text("recipe: unet\n")
    with pytest.raises(UserError, match="`data` is missing: a section with root"):
        tz.load_config(path)


def test_an_unknown_recipe_is_answered_with_its_line(tmp_path):
    path = tmp_path / "street.yaml"
    path.write_text("data: {classes: [a, b]}\nrecipe: unett\n")
    with pytest.raises(UserError, match=rf"{path}:2: no recipe .*'unet'"):
        tz.load_config(path)


def test_config_schema_writes_a_file_or_prints(tmp_path, capsys):
    assert main(["config", "schema"]) == 0
    assert json.loads(capsys.readouterr().out) == json_schema()
    target = tmp_path / "terrazzo.schema.json"
    assert main(["config", "schema", "--out", str(target)]) == 0
    assert "# yaml-language-server: $schema=terrazzo.schema.json" in capsys.readouterr().out
    assert json.loads(target.read_text()) == json_schema()
    assert main(["config", "schema", "--out", str(tmp_path / "schema.yaml")]) == 1
    assert "must end in .json" in capsys.readouterr().err


def test_the_line_for_editors_names_the_bundled_schema():
    assert editor_line() == f"# yaml-language-server: $schema={FILE.as_uri()}" and FILE.is_file()
    assert " " not in editor_line().partition("$schema=")[2]


def test_data_keys_that_are_kept_have_the_names_of_the_schema():
    from terrazzo.config.short_form.data import KEPT

    assert KEPT.keys() <= DataKeys.model_fields.keys()
