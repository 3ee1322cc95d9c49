"""Whole projects: modules found by the types in a config, in a fork's own package and beside it."""

from __future__ import annotations

import copy
import subprocess
import sys
import warnings

import numpy as np
import pytest
import torch
from PIL import Image

import terrazzo as tz
from support.old_configs import old_config
from support.tiny import environment
from terrazzo.cli.main import main
from terrazzo.errors import UserError
from terrazzo.recipes import recipe

BACKBONE = """
import torch
from torch import nn
from ..builder import BACKBONES
from .parts import width_of


@BACKBONES.register_module()
class ForkBackbone(nn.Module):
    def __init__(self, depth=2, drop=0.1, pretrained=None):
        super().__init__()
        self.rates = [x.item() for x in torch.linspace(0, drop, depth)]
        self.conv = nn.Conv2d(3, width_of(depth), 3, 2, 1)
        self.loaded = None

    def init_weights(self, pretrained=None):
        self.loaded = pretrained

    def forward(self, x):
        return [self.conv(x)]
"""
HEAD = """
from mmseg.models import FCNHead, OCRHead
from mmseg.models.builder import HEADS
from mmseg.models.backbones import ForkBackbone


@HEADS.register_module()
class FCNHead(FCNHead):
    own = ForkBackbone
"""
MODEL = """
model = dict(type="EncoderDecoder", pretrained=None, backbone=dict(type="ForkBackbone", depth=4{more}),
             decode_head=dict(type="{head}", in_channels=8, channels=8, num_classes=3))
"""


@pytest.fixture
def fork(tmp_path):
    """A project with its own copy of the package: an author's files among official ones."""
    backbones = tmp_path / "mmseg" / "models" / "backbones"
    backbones.mkdir(parents=True)
    (tmp_path / "mmseg/__init__.py").write_text("raise ImportError('needs mmcv-full==1.2')\n")
    (tmp_path / "mmseg/models/builder.py").write_text("raise ImportError('an official file is not run')\n")
    (tmp_path / "mmseg/models/__init__.py").write_text("from .backbones import *\n")
    (backbones / "__init__.py").write_text("from .fork_backbone import ForkBackbone\n")
    (backbones / "fork_backbone.py").write_text(BACKBONE)
    (backbones / "parts.py").write_text("def width_of(depth):\n    return 2 * depth\n")
    (tmp_path / "extra" / "heads").mkdir(parents=True)
    (tmp_path / "extra/heads/own_head.py").write_text(HEAD)
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs/x.py").write_text(MODEL.format(head="FCNHead", more=""))
    return tmp_path


def test_a_forks_own_modules_are_found_by_type(fork):
    model = tz.build_model(tz.load_config(fork / "configs/x.py", trust=True))
    assert type(model.backbone).__module__ == "mmseg.models.backbones.fork_backbone"
    assert model.decode_head.own is type(model.backbone)
    assert model(torch.zeros(1, 3, 32, 32)).shape == (1, 3, 32, 32)


def test_a_copy_of_an_official_class_that_nothing_imports_may_fail(fork):
    (fork / "LICENSE").write_text("")
    (fork / "__init__.py").write_text("")  # at the top of a repository, which is no package
    (fork / "extra/heads/own_head.py").write_text("import no_such_package\n" + HEAD)
    with pytest.warns(UserWarning, match="No module named 'no_such_package'; nothing imports that file, so FCNHead is"):
        model = tz.build_model(tz.load_config(fork / "configs/x.py", trust=True))
    assert type(model.decode_head).__module__.startswith("terrazzo.")


@pytest.mark.parametrize("folder", ["mmseg", "projects/own"])
def test_configs_inside_the_package_or_one_of_the_projects_find_the_forks_modules(fork, folder):
    own = fork / "projects" / "own"
    (own / "heads").mkdir(parents=True)
    (own / "parts.py").write_text("WIDTH = 8\n")
    imports = "from ..parts import WIDTH\nfrom mmseg.models.backbones import unet\n"
    (own / "heads/project_head.py").write_text(imports + HEAD.replace("class FCNHead", "class Project"))
    (fork / folder / "configs").mkdir(exist_ok=True)
    path = fork / folder / "configs" / "x.py"
    path.write_text(MODEL.format(head="Project", more=""))
    model = tz.build_model(tz.load_config(path, trust=True))
    kinds = type(model.backbone).__module__, type(model.decode_head).__module__
    assert kinds == ("mmseg.models.backbones.fork_backbone", "projects.own.heads.project_head")


def test_a_checkpoint_finds_the_modules_of_its_project(fork, tmp_path, monkeypatch):
    import numpy as np
    from safetensors.torch import save_file

    from terrazzo.inference.saved_config import describe

    monkeypatch.chdir(fork)
    config = tz.load_config("configs/x.py", trust=True)
    model = tz.build_model(config)
    assert config["custom_imports"]["project"] == "."
    save_file(model.state_dict(), "model.safetensors", describe(config, "abc", [[0, 0, 0]] * 3))
    labels = tz.load("model.safetensors", device="cpu", trust=True)(np.zeros((32, 32, 3), np.uint8)).labels
    assert labels.shape == (32, 32)
    del sys.modules["mmseg.models.backbones.fork_backbone"]  # as in another process
    with pytest.raises(tz.errors.UserError, match=r"asks for code to be run: .*fork_backbone.*trust=True"):
        tz.load("model.safetensors", device="cpu")


@pytest.mark.parametrize("moved", [False, True])
def test_a_checkpoint_finds_its_project_from_another_folder(fork, tmp_path_factory, monkeypatch, moved):
    """Also what `custom_imports` names, which is in the folder above `configs`, and what that imports."""
    import numpy as np
    from safetensors.torch import save_file

    from terrazzo.inference.saved_config import describe

    (fork / "own_loss.py").write_text(
        "from beside_configs import WEIGHT\nfrom mmseg.models.builder import LOSSES\nfrom torch import nn\n\n\n"
        "@LOSSES.register_module()\nclass OwnLoss(nn.Module):\n    weight = WEIGHT\n"
    )
    (fork / "configs/beside_configs.py").write_text("WEIGHT = 2\n")
    (fork / "configs/x.py").write_text(
        MODEL.format(head="FCNHead", more="") + "model['decode_head']['loss_decode'] = dict(type='OwnLoss')\n"
        "custom_imports = dict(imports=['own_loss'])\n"
    )
    monkeypatch.chdir(fork)
    config = tz.load_config("configs/x.py", trust=True)
    weights = tmp_path_factory.mktemp("elsewhere") / "model.safetensors"
    save_file(tz.build_model(config).state_dict(), weights, describe(config, "abc", [[0, 0, 0]] * 3))
    monkeypatch.setattr(sys, "path", [folder for folder in sys.path if not folder.startswith(str(fork))])
    for name in ("mmseg.models.backbones.fork_backbone", "own_loss", "beside_configs"):
        del sys.modules[name]  # as in another process
    monkeypatch.chdir(weights.parent)
    if moved:
        monkeypatch.chdir(fork.rename(weights.parent / "moved"))
    model = tz.load(weights, device="cpu", trust=True)
    assert model(np.zeros((32, 32, 3), np.uint8)).labels.shape == (32, 32)
    assert sys.modules["own_loss"].OwnLoss.weight == 2


OWN = """
from mmcv.cnn import Scale
from mmengine.model import BaseModule
from mmseg.models import BaseDecodeHead
from torch import nn


class Backbone(BaseModule):
    def __init__(self, norm, init_cfg=None):
        super().__init__(init_cfg)
        self.body, self.scale = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), norm(8)), Scale(0)

    def forward(self, x):
        return [self.body(x) * self.scale.scale]


class Head(BaseDecodeHead):
    def forward(self, inputs):
        return self.cls_seg(self._transform_inputs(inputs))
"""
NAMES_CLASSES = """
from mmengine.config import read_base
from mmengine.model.weight_init import ConstantInit
from own_parts.net import Backbone, Head
with read_base():
    from .base import *

backbone = dict(type=Backbone, norm=InstanceNorm2d, init_cfg=dict(type=ConstantInit, val=0.25, layer="Conv2d"))
head = dict(type=Head, in_channels=8, channels=8, num_classes=3)
model = dict(type=EncoderDecoder, backbone=backbone, decode_head=head)
"""


def test_classes_that_a_config_names_themselves_are_built_and_found_again(tmp_path, monkeypatch):
    import numpy as np
    from safetensors.torch import save_file

    from terrazzo.inference.saved_config import describe
    from terrazzo.plugins import CLASSES

    for folder in ("configs", "own_parts"):
        (tmp_path / folder).mkdir()
    (tmp_path / "own_parts/net.py").write_text(OWN)
    base = "from mmseg.models import EncoderDecoder\nfrom torch.nn import InstanceNorm2d\n"
    (tmp_path / "configs/base.py").write_text(base)
    (tmp_path / "configs/x.py").write_text(NAMES_CLASSES)
    monkeypatch.chdir(tmp_path)
    config = tz.load_config("configs/x.py", trust=True)
    assert config["model"]["decode_head"]["type"] == "<own_parts.net.Head>"
    model = tz.build_model(config)
    assert type(model.backbone.body[1]) is torch.nn.InstanceNorm2d
    assert (model.backbone.body[0].weight == 0.25).all() and model.backbone.scale.scale.dtype == torch.float32
    save_file(model.state_dict(), "model.safetensors", describe(config, "abc", [[0, 0, 0]] * 3))
    CLASSES.clear()  # as in another process
    del sys.modules["own_parts.net"]
    with pytest.raises(tz.errors.UserError, match=r"asks for code to be run: own_parts.net"):
        tz.load("model.safetensors", device="cpu")
    labels = tz.load("model.safetensors", device="cpu", trust=True)(np.zeros((32, 32, 3), np.uint8)).labels
    assert labels.shape == (32, 32)


def test_of_two_modules_that_register_a_class_the_one_that_the_package_imports_is_meant(fork):
    folder = fork / "mmseg/models/losses"
    folder.mkdir()
    loss = (
        "from torch import nn\nfrom mmseg.models.builder import LOSSES\n\n\n@LOSSES.register_module()\n"
        "class OwnLoss(nn.Module):\n    kept = {}\n"
    )
    (folder / "__init__.py").write_text("from .used_loss import OwnLoss\n")
    for name in ("earlier_loss", "used_loss"):
        (folder / f"{name}.py").write_text(loss.format(name == "used_loss"))
    (fork / "configs/x.py").write_text(
        MODEL.format(head="FCNHead", more="") + "model['decode_head']['loss_decode'] = dict(type='OwnLoss')\n"
    )
    assert tz.build_model(tz.load_config(fork / "configs/x.py", trust=True)).decode_head.criteria[0].kept


def test_a_config_of_an_experiment_finds_the_modules_of_the_current_folder(tmp_path, monkeypatch):
    (tmp_path / "own_net.py").write_text(
        "from mmseg.models.builder import BACKBONES\nfrom torch import nn\n\n\n@BACKBONES.register_module()\n"
        "class FirstBackbone(nn.Conv2d):\n"
        "    asked = 'never'\n\n"
        "    def init_weights(self, pretrained):  # as until 0.12\n        self.asked = pretrained\n"
    )
    folder = tmp_path / "exp/first"
    folder.mkdir(parents=True)
    sizes = "in_channels=3, out_channels=8, kernel_size=3"
    backbone = f"dict(type='FirstBackbone', {sizes})"
    (folder / "config.py").write_text(MODEL.format(head="FCNHead", more="") + f"model['backbone'] = {backbone}\n")
    monkeypatch.chdir(tmp_path)
    assert tz.build_model(tz.load_config("exp/first/config.py", trust=True)).backbone.asked is None


def test_model_info_runs_a_backbone_that_reads_values(fork, capsys):
    assert main(["model", "info", str(fork / "configs/x.py"), "--trust-config"]) == 0
    assert "ForkBackbone" in capsys.readouterr().out


def test_pretrained_weights_are_loaded_by_the_modules_own_method_when_training_starts(fork, tmp_path):
    from terrazzo.training.pretrained import load_pretrained

    torch.save({"state_dict": {}}, tmp_path / "weights.pth")
    path = str(tmp_path / "weights.pth")
    (fork / "configs/x.py").write_text(MODEL.format(head="FCNHead", more=f", pretrained={path!r}"))
    config = tz.load_config(fork / "configs/x.py", trust=True)
    model = tz.build_model(config)
    assert model.backbone.loaded is None
    assert "own init_weights" in load_pretrained(model, None, config["model"])
    assert model.backbone.loaded == path


OWN_PAD = """
from mmseg.datasets.builder import PIPELINES
from mmseg.datasets.pipelines import Pad


@PIPELINES.register_module(force=True)
class Pad(Pad):
    def __init__(self, size, edge_pad_val):
        super().__init__(size=size)
        self.edge_pad_val = edge_pad_val
"""


def test_a_projects_own_steps_and_hooks_may_have_further_keys(fork):
    (fork / "mmseg/datasets").mkdir()
    (fork / "mmseg/datasets/own_pad.py").write_text(OWN_PAD)
    old = copy.deepcopy(old_config())
    old["data"]["train"]["pipeline"] += [{"type": "Pad", "size": (8, 8), "edge_pad_val": 3}]
    old["checkpoint_config"] = {"interval": 2, "best_type": "mIoU"}
    config = fork / "configs/old.py"
    config.write_text("\n".join(f"{key} = {value!r}" for key, value in old.items()))
    with pytest.raises(UserError, match="has no key"):
        tz.load_config(config)
    with pytest.warns(UserWarning, match="checkpoint_config: keys without effect: best_type"):
        new = tz.load_config(config, trust=True)
    assert new["train_dataloader"]["dataset"]["pipeline"][-1] == {"type": "Pad", "size": (8, 8), "edge_pad_val": 3}
    assert new["default_hooks"]["checkpoint"]["interval"] == 2


def test_a_class_is_found_by_the_name_that_it_is_registered_under(fork):
    file = fork / "mmseg/models/backbones/fork_backbone.py"
    file.write_text(BACKBONE.replace("register_module()", "register_module(name=['Fork-1', 'Fork-2'])"))
    config = fork / "configs/x.py"
    config.write_text(config.read_text().replace("ForkBackbone", "Fork-2"))
    assert type(tz.build_model(tz.load_config(config, trust=True)).backbone).__name__ == "ForkBackbone"


def test_a_class_may_be_registered_in_a_branch_of_a_file_of_the_whole_repository(tmp_path):
    """As backbones for several toolboxes are, whose configs of segmentation are in a folder of their own."""
    text = BACKBONE.replace("from ..builder", "from mmseg.models.builder").replace("from .parts import width_of", "")
    head, _, rest = text.replace("width_of(depth)", "8").partition("@BACKBONES")
    (tmp_path / "models").mkdir()
    (tmp_path / "LICENSE").write_text("")
    branch = "\n".join(f"    {line}" for line in f"@BACKBONES{rest}".splitlines())
    (tmp_path / "models/both.py").write_text(f"{head}\nif BACKBONES is not None:\n{branch}\n")
    (tmp_path / "segmentation/configs").mkdir(parents=True)
    config = tmp_path / "segmentation/configs/x.py"
    config.write_text(MODEL.format(head="FCNHead", more=""))
    assert type(tz.build_model(tz.load_config(config, trust=True)).backbone).__module__ == "models.both"
    del sys.modules["models"]


def test_a_trained_model_needs_no_file_that_its_author_starts_from(fork, tmp_path):
    """Building goes on without weights that an author's own code loads; training asks for them."""
    from terrazzo.training.pretrained import load_pretrained

    path = tmp_path / "weights.pth"
    file = fork / "mmseg/models/backbones/fork_backbone.py"
    load = f"from mmcv.runner import load_checkpoint\n        load_checkpoint(self, {str(path)!r})"
    file.write_text(BACKBONE.replace("self.loaded = pretrained", load))
    config = tz.load_config(fork / "configs/x.py", trust=True)
    model = tz.build_model(config)
    with pytest.raises(UserError, match=r"weights\.pth' are neither a file"):
        load_pretrained(model, None, config["model"])
    assert "random weights" in load_pretrained(model, "none", config["model"])
    torch.save({"state_dict": model.backbone.state_dict()}, path)
    assert "own init_weights" in load_pretrained(model, None, config["model"])


def test_types_pass_through_a_star_import(tmp_path):
    (tmp_path / "base.py").write_text("from mmseg.models import EncoderDecoder, FCNHead\nwidth = 4\n")
    (tmp_path / "child.py").write_text(
        "from mmengine.config import read_base\nwith read_base():\n    from .base import *\n"
        "model = dict(type=EncoderDecoder, decode_head=dict(type=FCNHead, channels=width))\n"
    )
    model = tz.load_config(tmp_path / "child.py")["model"]
    assert (model["type"], model["decode_head"]["type"]) == ("EncoderDecoder", "FCNHead")


def test_a_missing_base_of_an_older_file_has_the_values_of_the_older_release(tmp_path):
    bases = ["models/upernet_swin.py", "datasets/ade20k.py", "default_runtime.py", "schedules/schedule_160k.py"]
    (tmp_path / "old.py").write_text(
        f"_base_ = {[f'../_base_/{name}' for name in bases]}\n"
        "model = dict(decode_head=dict(num_classes=150))\ndata = dict(samples_per_gpu=2)\n"
        "optimizer = dict(_delete_=True, type='AdamW', lr=1e-4)\nlr_config = dict(warmup='linear', warmup_iters=1500)\n"
    )
    with pytest.warns(UserWarning, match=r"old.py:1: there is no config file .*0\.x's own values stand for it"):
        config = tz.load_config(tmp_path / "old.py")
    assert config["optim_wrapper"]["optimizer"] == {"type": "AdamW", "lr": 1e-4}
    assert config["model"]["data_preprocessor"]["mean"] == [123.675, 116.28, 103.53]
    assert config["train_dataloader"]["batch_size"] == 2
    assert config["train_dataloader"]["dataset"]["data_prefix"]["img_path"] == "images/training"
    assert {step["type"] for step in config["param_scheduler"]} == {"LinearLR", "PolyLR"}
    official = recipe("pspnet_r50-d8_4xb4-160k_ade20k-512x512")
    pipelines = [item["train_dataloader"]["dataset"]["pipeline"] for item in (config, official)]
    assert [step["type"] for step in pipelines[0]] == [step["type"] for step in pipelines[1]]


@pytest.mark.parametrize("base", ["default_runtime", "models/fcn_r50-d8"])
def test_a_file_with_an_optimizer_alone_is_of_the_older_release(tmp_path, base):
    text = f"_base_ = '_base_/{base}.py'\noptimizer = dict(type='AdamW', lr=6e-5)\n"
    (tmp_path / "old.py").write_text(text)
    with pytest.warns(UserWarning, match=r"0\.x's own values stand for it"):
        config = tz.load_config(tmp_path / "old.py")
    assert config["optim_wrapper"]["optimizer"] == {"type": "AdamW", "lr": 6e-5}
    (tmp_path / "new.py").write_text(text + "optim_wrapper = dict(type='OptimWrapper', optimizer=optimizer)\n")
    with pytest.raises(UserError, match=f"terrazzo's own is 'mmseg::_base_/{base}.py': write that"):
        tz.load_config(tmp_path / "new.py")


def test_a_missing_base_without_a_counterpart_is_an_error(tmp_path):
    (tmp_path / "new.py").write_text("_base_ = '_base_/datasets/mydata_512x512.py'\n")
    with pytest.raises(tz.errors.UserError, match="there is no config file") as caught:
        tz.load_config(tmp_path / "new.py")
    assert "mmseg::" not in str(caught.value)


def test_scripts_train_score_and_predict(photos, newer, monkeypatch):
    from mmengine.config import Config
    from mmengine.runner import Runner
    from mmseg.apis import MMSegInferencer, inference_model, inference_segmentor, init_model, show_result_pyplot

    from compat.engine.test_runs import CONFIG
    from compat.models.test_segmentors import NEWER

    monkeypatch.chdir(photos)
    words = {"module": "newer", "transform": "NewTransform", "dataset": "NewDataset", "hook": "NewHook", "model": NEWER}
    (photos / "config.py").write_text(CONFIG.format(**words, metrics='dict(type="IoUMetric", iou_metrics=["mIoU"])'))
    cfg = Config.fromfile("config.py")
    cfg.work_dir = "run"
    cfg.train_cfg.max_iters = 1
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        Runner.from_cfg(cfg).train()
        model = init_model("config.py", "run/last.safetensors", device="cpu")
        result = inference_model(model, "data/val/0_photo.png")
    assert result.pred_sem_seg.data.shape == (1, 48, 64) and result.seg_logits.data.shape == (3, 48, 64)
    assert result.metainfo_keys() == ["img_path", "ori_shape", "img_shape", "scale_factor"]
    assert result.metainfo["img_path"] == "data/val/0_photo.png" and result.ori_shape == (48, 64)

    # logits, not what they become: of constant ones those of the last layer, at the image's own size
    torch.nn.init.zeros_(model.decode_head.conv_seg.weight)
    model.decode_head.conv_seg.bias.data = torch.tensor([-3.0, 40.0, 5.0])
    photo = np.array(Image.open("data/val/0_photo.png"))[..., ::-1]
    constant = inference_model(model, photo)
    assert torch.equal(constant.seg_logits.data.amax((1, 2)), torch.tensor([-3.0, 40.0, 5.0]))
    assert constant.metainfo["img_path"] is None
    model = init_model("config.py", "run/last.safetensors", device="cpu")

    # of a step that resizes
    cfg.test_pipeline.insert(1, {"type": "Resize", "scale": (32, 24), "keep_ratio": True})
    cfg.test_dataloader.dataset.pipeline = cfg.test_pipeline
    for weights in (None, "run/last.safetensors"):
        small = inference_model(init_model(cfg, weights, device="cpu"), photo)
        assert (small.img_shape, small.scale_factor, small.seg_logits.data.shape) == ((24, 32), (0.5, 0.5), (3, 48, 64))
    picture = show_result_pyplot(model, "data/val/0_photo.png", result, show=False, out_file="out/a.png")
    assert picture.shape == (48, 64, 3) and (photos / "out/a.png").is_file()
    (labels,) = inference_segmentor(model, "data/val/0_photo.png")
    assert (labels == result.pred_sem_seg.data[0].numpy()).all()
    cfg.load_from = "run/last.safetensors"
    assert "mIoU" in Runner.from_cfg(cfg).test()
    found = MMSegInferencer("config.py", "run/last.safetensors", device="cpu")("data/val/0_photo.png", out_dir="seen")
    assert (found["predictions"] == labels).all()
    assert {path.name for path in (photos / "seen").rglob("*.*")} == {"0_photo.jpg", "0_photo_pred.png"}

    # in colours of one's own, and those of a published data set
    assert "pspnet_r50-d8_4xb2-40k_cityscapes-512x1024" in MMSegInferencer.list_models("mmseg", patterns="pspnet")
    given = {"classes": ["x", "y", "z"], "palette": [[9, 8, 7]] * 3}
    inferencer = MMSegInferencer("config.py", "run/last.safetensors", device="cpu", **given)
    assert inferencer.visualizer.dataset_meta == given
    picture = inferencer("data/val/0_photo.png", return_vis=True, opacity=1.0)["visualization"]
    assert picture.shape == (48, 64, 3) and (picture == (9, 8, 7)).all()
    named = MMSegInferencer("config.py", "run/last.safetensors", dataset_name="cityscapes", device="cpu")
    assert named.visualizer.dataset_meta["classes"][0] == "road"
    assert not named("data/val/0_photo.png")["visualization"]


def test_older_scripts_train_and_predict(photos, monkeypatch):
    from mmcv import Config
    from mmcv.parallel import MMDataParallel
    from mmseg.apis import (
        inference_segmentor,
        init_random_seed,
        set_random_seed,
        show_result_pyplot,
        single_gpu_test,
        train_segmentor,
    )
    from mmseg.datasets import build_dataloader, build_dataset
    from mmseg.datasets.builder import DATASETS
    from mmseg.datasets.custom import CustomDataset
    from mmseg.models import build_segmentor

    @DATASETS.register_module()
    class Walls(CustomDataset):
        CLASSES = ("sky", "wall", "road")
        PALETTE = ((0, 0, 255), (128, 128, 128), (64, 0, 64))

        def __init__(self, split, **kwargs):
            super().__init__(img_suffix="_photo.png", seg_map_suffix="_classes.png", split=split, **kwargs)

    monkeypatch.chdir(photos)
    (photos / "config.py").write_text("\n".join(f"{key} = {value!r}" for key, value in old_config().items()))
    cfg = Config.fromfile("config.py")
    cfg.model.decode_head.update(in_channels=16, channels=8, num_convs=1, num_classes=3)
    loss = {"type": "CrossEntropyLoss", "loss_weight": 0.4}
    cfg.model.auxiliary_head = {**cfg.model.decode_head, "loss_decode": loss}
    cfg.runner.max_iters = cfg.evaluation.interval = cfg.checkpoint_config.interval = 1
    cfg.data.samples_per_gpu, cfg.data.workers_per_gpu = 2, 0
    for part in ("train", "val", "test"):
        folder = "train" if part == "train" else "val"
        (photos / "data" / f"{folder}.txt").write_text("0\n1\n2\n")
        cfg.data[part].update(type="Walls", data_root="data", img_dir=folder, ann_dir=folder, split=f"{folder}.txt")
    cfg.work_dir, cfg.device = "run", "cpu"
    cfg.seed = set_random_seed(init_random_seed(0))
    datasets = [build_dataset(cfg.data.train)]
    assert len(datasets[0]) == 3
    model = build_segmentor(cfg.model)
    with pytest.raises(UserError, match="init_segmentor"):
        inference_segmentor(model, "data/val/0_photo.png")
    torch.nn.init.constant_(model.decode_head.conv_seg.bias, 7.0)
    before = copy.deepcopy(model.state_dict())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        train_segmentor(model, datasets, cfg, distributed=False, validate=True, meta={})
    assert any(not torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert ((model.decode_head.conv_seg.bias - 7.0).abs() < 0.5).all()  # the weights that were given
    (labels,) = result = inference_segmentor(model, "data/val/0_photo.png")
    assert labels.shape == (48, 64) and model.CLASSES == ["sky", "wall", "road"]
    assert show_result_pyplot(model, "data/val/0_photo.png", result).shape == (48, 64, 3)
    palette = [[255, 0, 0], [255, 0, 0], [255, 0, 0]]
    model.show_result("data/val/0_photo.png", result, palette=palette, out_file="red.png", opacity=1.0)
    assert (np.asarray(Image.open("red.png")) == (255, 0, 0)).all()

    # scores as tools/test.py computes them
    data = build_dataset(cfg.data.test, {"test_mode": True})
    loader = build_dataloader(data, samples_per_gpu=1, workers_per_gpu=0, dist=False, shuffle=False)
    maps = single_gpu_test(MMDataParallel(model, device_ids=[0]), loader)
    scores = data.evaluate(maps, metric="mIoU")
    assert (maps[0] == labels).all() and {"aAcc", "mAcc", "IoU.sky", "Acc.road"} < scores.keys()
    assert data.evaluate(single_gpu_test(model, loader, pre_eval=True), metric=["mIoU"], logger="silent") == scores
    logged = (photos / "run/log.txt").read_text()
    assert f"mIoU {100 * scores['mIoU']:.2f}" in logged

    # and of weights that are loaded later
    torch.nn.init.constant_(model.decode_head.conv_seg.weight, 0.0)
    model.decode_head.conv_seg.bias.data = torch.tensor([0.0, 0.0, 9.0])
    assert (inference_segmentor(model, "data/val/0_photo.png")[0] == 2).all()


def test_a_package_whose_imports_fail_is_named_with_the_reason(tmp_path):
    (tmp_path / "configs").mkdir()
    (tmp_path / "parts").mkdir()
    (tmp_path / "parts/__init__.py").write_text("import no_such_package\n")
    (tmp_path / "parts/own.py").write_text(
        "from parts import Missing\nfrom mmseg.registry import MODELS\n@MODELS.register_module()\nclass Own: ...\n"
    )
    (tmp_path / "configs/x.py").write_text("model = dict(type='Own')\n")
    with pytest.raises(tz.errors.UserError, match=r"parts has no Missing, as .* No module named 'no_such_package'"):
        tz.load_config(tmp_path / "configs/x.py", trust=True)


def test_the_first_name_that_a_process_asks_for_may_be_an_official_class():
    code = "import terrazzo.compat; from terrazzo.compat.finder import look_up; print(look_up('PSPHead').__name__)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment())
    assert done.stdout.strip().endswith("PSPHead"), done.stderr
