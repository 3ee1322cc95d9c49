"""Heads and backbones of a user's own: the documented example, trust, entry points, and porting."""

from __future__ import annotations

import importlib
import importlib.metadata
import re
import sys

import numpy as np
import pytest
import torch
from PIL import Image

import terrazzo as tz
from support.paths import REPOSITORY
from terrazzo.cli.main import main
from terrazzo.errors import UserError
from terrazzo.porting import COUNTERPARTS, check_ported
from terrazzo.registry import MODELS, Registry, model_type

PAGE = REPOSITORY / "docs" / "extending.md"
BLOCKS = re.findall(r"^```\w+\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
FILES = {match[1]: block for block in BLOCKS if (match := re.match(r"# (\S+\.\w+)\n", block))}


@pytest.fixture(autouse=True)
def _leave_no_trace(monkeypatch):
    """Neither modules nor types of one test are there in the next."""
    MODELS.load()
    types, modules = dict(MODELS.types), set(sys.modules)
    monkeypatch.setattr(sys, "path", list(sys.path))
    yield
    MODELS.types = types
    for name in set(sys.modules) - modules:
        if "terrazzo" not in name and str(getattr(sys.modules[name], "__file__", "")).startswith("/tmp"):
            del sys.modules[name]


@pytest.fixture
def example(tmp_path):
    """The folder of the documented example, with a few images."""
    for name, text in FILES.items():
        (tmp_path / name).write_text(text)
    rng = np.random.default_rng(0)
    for split in ("train", "val"):
        for kind in ("images", "labels"):
            (tmp_path / "data/street" / kind / split).mkdir(parents=True)
        for index in range(2):
            label = np.repeat(np.array([2, 1, 0], np.uint8), 24)[:, None].repeat(72, axis=1)
            image = np.clip(label[..., None] * 80 + rng.normal(0, 9, (72, 72, 3)), 0, 255).astype(np.uint8)
            Image.fromarray(image).save(tmp_path / f"data/street/images/{split}/{index}.png")
            Image.fromarray(label).save(tmp_path / f"data/street/labels/{split}/{index}.png")
    return tmp_path


def test_the_documented_head_is_short():
    lines = sum(FILES[name].count("\n") for name in ("strip_head.py", "street.yaml")) + 1  # and the command
    assert lines <= 40


def test_the_documented_head_trains_tests_and_predicts(example, monkeypatch, capsys):
    monkeypatch.chdir(example)
    short = ["--cfg-options", "iterations=2", "batch=2", "workers=0", "val_interval=2"]
    assert main(["train", "street.yaml", "--trust-config", "--work-dir", "run", "--device", "cpu", *short]) == 0
    image, best = "data/street/images/val/0.png", "run/best.safetensors"
    assert main(["test", "street.yaml", best, "--trust-config", "--device", "cpu"]) == 0
    assert main(["model", "info", "street.yaml", "--trust-config"]) == 0
    assert "StripHead" in capsys.readouterr().out
    del sys.modules["strip_head"]  # as in another process
    assert main(["predict", image, "--model", best, "--device", "cpu"]) == 1
    assert "--trust-config" in capsys.readouterr().err
    assert main(["predict", image, "--model", best, "--device", "cpu", "--trust-config"]) == 0


def test_the_documented_backbone_is_built(example, monkeypatch):
    monkeypatch.syspath_prepend(example)
    importlib.import_module("two_steps")  # as in a script: no custom_imports
    head = {"type": "FCNHead", "in_channels": 32, "channels": 8, "num_classes": 3}
    model = tz.build_model({"type": "EncoderDecoder", "backbone": {"type": "TwoSteps"}, "decode_head": head})
    assert model(torch.zeros(1, 3, 32, 48)).shape == (1, 3, 32, 48)


@pytest.mark.parametrize("use", [tz.build_model, lambda cfg: tz.train(cfg, work_dir="w")])
def test_code_runs_only_where_it_is_trusted(example, monkeypatch, use):
    monkeypatch.chdir(example)
    config = tz.load_config(example / "street.yaml")  # reading it is harmless
    with pytest.raises(UserError, match=r"asks for code to be run: strip_head.*--trust-config.*trust=True"):
        use(config)
    assert "strip_head" not in sys.modules
    assert type(tz.build_model(tz.load_config(example / "street.yaml", trust=True)).decode_head).__name__ == "StripHead"


@pytest.mark.parametrize(
    "imports", ["mmcls.models", ["mmpretrain.models"], ["mmdet.models", "mmseg.models"], "mmdet.models"]
)
def test_the_toolboxes_need_no_import(imports):
    model = {"type": "EncoderDecoder", "backbone": {"type": "ERFNet"},
             "decode_head": {"type": "FCNHead", "in_channels": 16, "channels": 8, "num_classes": 3}}  # fmt: skip
    tz.build_model({"model": model, "custom_imports": {"imports": imports, "allow_failed_imports": False}})


def test_a_module_of_the_toolboxes_that_no_release_has_is_named(tmp_path):
    config = tmp_path / "config.py"
    model = {"type": "EncoderDecoder", "backbone": {"type": "ERFNet"},
             "decode_head": {"type": "FCNHead", "in_channels": 16, "channels": 8, "num_classes": 3}}  # fmt: skip
    config.write_text(f"custom_imports = dict(imports=['mmseg.models', 'mmseg.models.losses.own'])\nmodel = {model}\n")
    with pytest.raises(UserError, match=r"asks for code to be run: mmseg\.models\.losses\.own\. "):
        tz.build_model(tz.load_config(config))
    missing = rf"names 'mmseg\.models\.losses\.own', which no release of mmseg has, .* below {tmp_path}"
    with pytest.raises(UserError, match=missing):
        tz.load_config(config, trust=True)
    with pytest.warns(UserWarning, match=missing):
        tz.build_model(tz.load_config(config, {"custom_imports.allow_failed_imports": True}, trust=True))
    (tmp_path / "mmseg/models/losses").mkdir(parents=True)
    (tmp_path / "mmseg/models/losses/own.py").write_text("from mmseg.models.losses import CrossEntropyLoss\n")
    tz.build_model(tz.load_config(config, trust=True))
    assert "mmseg.models.losses.own" in sys.modules


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("import no_such_package\n", r"broken.py:1: importing 'broken' fails: ModuleNotFoundError: .*no_such_package"),
        ("x = 1\ny = x / 0\n", r"broken.py:2: importing 'broken' fails: ZeroDivisionError"),
        ("def f(:\n", r"broken.py:1: importing 'broken' fails: invalid syntax"),
        (FILES["strip_head.py"].replace("StripHead", "PSPHead"), "registered twice"),
        (None, "names 'broken': No module named 'broken'.*PYTHONPATH"),
    ],
)
def test_a_module_that_fails_is_named_with_its_line(tmp_path, text, message):
    folder = tmp_path / "terrazzo"  # as a clone of the repository is named, in which a user writes modules too
    folder.mkdir()
    if text is not None:
        (folder / "broken.py").write_text(text)
    config = folder / "config.py"
    config.write_text('custom_imports = dict(imports=["broken"])\n')
    with pytest.raises(UserError, match=message):
        tz.load_config(config, trust=True)
    with pytest.warns(UserWarning, match=message):
        tz.load_config(config, {"custom_imports.allow_failed_imports": True}, trust=True)


def test_a_module_that_is_hidden_by_another_is_an_error(tmp_path):
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "same_name.py").write_text("")
        (tmp_path / folder / "config.py").write_text('custom_imports = dict(imports="same_name")\n')
    tz.load_config(tmp_path / "a/config.py", trust=True)
    with pytest.raises(UserError, match="rename one of them"):
        tz.load_config(tmp_path / "b/config.py", trust=True)


def test_modules_are_found_beside_the_base_file_that_names_them(tmp_path):
    (tmp_path / "base").mkdir()
    (tmp_path / "base/base.py").write_text('custom_imports = dict(imports=["base_module"])\n')
    (tmp_path / "base/base_module.py").write_text("")
    (tmp_path / "child.py").write_text('_base_ = "base/base.py"\n')
    tz.load_config(tmp_path / "child.py", trust=True)
    assert "base_module" in sys.modules


def test_installed_packages_register_by_an_entry_point(tmp_path, monkeypatch):
    (tmp_path / "plugin.py").write_text(
        "from tests_registry import REGISTRY\n\n@REGISTRY.register\nclass Plugged:\n    pass\n"
    )
    info = tmp_path / "plugin-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: plugin\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[terrazzo.tests]\nplugged = plugin\n")
    monkeypatch.syspath_prepend(tmp_path)
    registry = Registry("test type", group="terrazzo.tests")
    monkeypatch.setitem(sys.modules, "tests_registry", type("Module", (), {"REGISTRY": registry}))
    assert list(registry) == ["Plugged"]


def test_models_come_from_the_group_that_is_documented():
    assert MODELS.group == "terrazzo.models"


FOREIGN = '''
import torch
from mmcv.cnn import ConvModule
from mmseg.models.decode_heads.decode_head import BaseDecodeHead
from mmseg.models.utils import resize
from mmseg.registry import MODELS


@MODELS.register_module()
class ForeignHead(BaseDecodeHead):
    """Two maps, one upon the other."""

    def __init__(self, **kwargs):
        super().__init__(input_transform="multiple_select", **kwargs)
        self.conv = ConvModule(sum(self.in_channels), self.channels, 1, norm_cfg=self.norm_cfg)

    def forward(self, inputs):
        fine, coarse = self._transform_inputs(inputs)
        coarse = resize(input=coarse, size=fine.shape[2:], mode="bilinear", warning=False)
        return self.cls_seg(self.conv(torch.cat([fine, coarse], dim=1)))
'''


def test_a_module_is_ported_and_works_so(tmp_path):
    module, config = tmp_path / "foreign_head.py", tmp_path / "config.py"
    module.write_text(FOREIGN)
    head = {"type": "ForeignHead", "in_channels": [64, 128], "in_index": [0, 1], "channels": 8, "num_classes": 3}
    model = {"type": "EncoderDecoder", "backbone": {"type": "FastSCNN"}, "decode_head": head}
    config.write_text(f'custom_imports = dict(imports=["foreign_head"])\nmodel = {model!r}\n')
    with pytest.raises(UserError, match=r"from terrazzo\.registry import MODELS") as caught:
        check_ported(module, model_type)
    assert str(caught.value).count("->") == 8
    assert main(["port", str(module)]) == 0  # makes the same changes
    module.write_text((tmp_path / "foreign_head_terrazzo.py").read_text())
    importlib.invalidate_caches()
    model = tz.build_model(tz.load_config(config, trust=True))
    losses = model.loss(torch.zeros(2, 3, 64, 64), torch.zeros(2, 64, 64, dtype=torch.int64))
    assert set(losses) == {"decode.loss_ce", "decode.acc_seg"}


@pytest.mark.parametrize(
    ("line", "advice"),
    [
        ("from mmseg.models.builder import HEADS", "from terrazzo.registry import MODELS as HEADS"),
        ("from mmcv.cnn import build_norm_layer", "from terrazzo.models.layers import build_norm as build_norm_layer"),
        ("from mmengine.model import BaseModule", "from torch.nn import Module as BaseModule"),
        ("from mmcv.runner import BaseModule, auto_fp16", "terrazzo has no auto_fp16: omit it"),
        ("from mmseg.models.decode_heads import FCNHead", "from terrazzo.models.heads.fcn import FCNHead"),
        ("from mmseg.models.backbones.resnet import ResNetV1c as R", "models.backbones.resnet import ResNetV1c as R"),
        ("import mmseg.models", "import the names that are used"),
    ],
)
def test_each_import_has_its_counterpart(tmp_path, line, advice):
    path = tmp_path / "module.py"
    path.write_text(line + "\n")
    with pytest.raises(UserError, match=re.escape(advice)):
        check_ported(path, model_type)


@pytest.mark.parametrize(
    "text",
    [
        "import torch\nfrom terrazzo.registry import MODELS\n",
        "try:\n    from mmseg.registry import MODELS\nexcept ImportError:\n    from terrazzo.registry import MODELS\n",
        "from mmengine.fileio import load\n",  # of no concern to models
    ],
)
def test_what_needs_no_change_is_left_alone(tmp_path, text):
    path = tmp_path / "module.py"
    path.write_text(text)
    check_ported(path, model_type)


NORMS = """
try:
    from mmcv.cnn import (build_norm_layer,
                          kaiming_init)
    from mmcv.runner import auto_fp16
except ImportError:
    pass
from mmcv.cnn import ConvModule; import torch
from mmseg.models import FCNHead, HEADS
from mmseg.ops import resize
from .parts import helper


@HEADS.register_module('Wide', force=True)
class WideHead(FCNHead):
    def __init__(self, init_cfg=None, **kwargs):
        super().__init__(init_cfg=init_cfg, **kwargs)
        self.norm = build_norm_layer(dict(type='BN'),
                                     num_features=8, postfix=1)[1]
        self.name, layer = build_norm_layer(dict(type='BN'), 8)
        kaiming_init(self.conv_seg, a=1)

    def _forward_feature(self, inputs):
        return resize(input=self.norm(inputs),
                      size=(8, 8), warning=False)

    def loss_by_feat(self, seg_logits, batch_data_samples):
        return {}

    def init_weights(self):
        kaiming_init(self.norm)
"""
PORTED = """
try:
    from terrazzo.models.layers import build_norm as build_norm_layer
    # from mmcv.cnn import kaiming_init  (kaiming_init: write nn.init.kaiming_normal_(layer.weight, mode='fan_out'))
    pass  # from mmcv.runner import auto_fp16  (terrazzo has no auto_fp16: omit it)
except ImportError:
    pass
from terrazzo.models.layers import ConvBlock as ConvModule; import torch
from terrazzo.models.heads.fcn import FCNHead
from terrazzo.registry import MODELS as HEADS
from terrazzo.models.layers import resize
from .parts import helper


@HEADS.register(name='Wide')
class WideHead(FCNHead):
    def __init__(self, init_cfg=None, **kwargs):
        super().__init__(**kwargs)
        self.norm = build_norm_layer(dict(type='BN'),
                                     channels=8)
        self.name, layer = build_norm_layer(dict(type='BN'), 8)
        kaiming_init(self.conv_seg, a=1)

    def _forward_feature(self, inputs):
        return resize(x=self.norm(inputs),
                      size=(8, 8), mode="nearest")

    def loss_by_feat(self, seg_logits, batch_data_samples):
        return {}

    def init_weights(self):
        kaiming_init(self.norm)
"""
TO_DECIDE = """
line 3: from mmcv.cnn import build_norm_layer, kaiming_init
line 5: from mmcv.runner import auto_fp16
line 20: build_norm_layer(dict(type='BN'), 8)  (it gives the layer alone, without its name)
line 21: kaiming_init(self.conv_seg, a=1)  (write nn.init.kaiming_normal_(self.conv_seg.weight, mode='fan_out'), \
and nn.init.constant_(self.conv_seg.bias, 0) where it has a bias)
line 23: def _forward_feature  (nothing here calls it: override features(inputs) instead)
line 27: def loss_by_feat  (nothing here calls it: override losses(logits, labels) instead, labels N, H, W)
line 30: def init_weights  (nothing here calls it: initialise in __init__)
line 31: kaiming_init(self.norm)  (write nn.init.kaiming_normal_(self.norm.weight, mode='fan_out'), \
and nn.init.constant_(self.norm.bias, 0) where it has a bias)
"""


def test_what_is_not_mechanical_is_listed_and_not_left_as_it_was(tmp_path, capsys):
    module = tmp_path / "wide.py"
    module.write_text(NORMS)
    assert main(["port", str(module)]) == 0
    assert (tmp_path / "wide_terrazzo.py").read_text() == PORTED
    told = " ".join(capsys.readouterr().out.split())
    for decision in TO_DECIDE.strip().splitlines():
        assert f"to decide, {decision}".replace("  ", " ") in told


@pytest.mark.parametrize("name", COUNTERPARTS)
def test_every_counterpart_exists(name):
    module, counterpart, _ = COUNTERPARTS[name]
    assert hasattr(importlib.import_module(module), counterpart)


def test_a_class_that_is_run_twice_replaces_itself():
    def define():
        @MODELS.register
        class Notebook:
            pass

        return Notebook

    define()
    second = define()
    assert MODELS.get("Notebook") is second
