"""What configs in public projects do that the official files do not: they are read, or the line at fault is named."""

from __future__ import annotations

import json
import warnings
from pathlib import Path

import pytest

from terrazzo import recipes
from terrazzo.config.experiment import make_experiment
from terrazzo.config.load import load_config
from terrazzo.errors import UserError
from terrazzo.models.build import build_model

MODEL = """
norm_cfg = dict(type='SyncBN', requires_grad=True)
model = dict(
    type='EncoderDecoder', backbone=dict(type='ERFNet', norm_cfg=norm_cfg),
    decode_head=dict(type='FCNHead', in_channels=16, channels=8, num_classes=3, norm_cfg=norm_cfg))
"""
PSPNET = "pspnet_r50-d8_4xb2-40k_cityscapes-512x1024"


@pytest.fixture
def read(tmp_path, monkeypatch):
    """Read the text of a `.py` config."""
    monkeypatch.delenv("TERRAZZO_MMSEG_CONFIGS", raising=False)

    def load(text: str, **options):
        path = Path(tmp_path, "config.py")
        path.write_text(text, encoding="utf-8")
        return load_config(path, **options)

    return load


def as_lists(value):
    return json.loads(json.dumps(value))


# mmseg::


@pytest.mark.parametrize("name", [PSPNET, "mask2former_swin-t_8xb2-160k_ade20k-512x512"])
def test_a_recipe_by_its_scoped_path_is_a_base(read, name):
    config = read(f"_base_ = ['mmseg::{name.partition('_')[0]}/{name}.py']\nlog_level = 'DEBUG'\n")
    expected = recipes.recipe(name) | {"log_level": "DEBUG"}
    assert {key: as_lists(config[key]) for key in expected} == expected
    assert config.train_pipeline == config.train_dataloader.dataset.pipeline
    assert config.crop_size == tuple(config.data_preprocessor["size"])


def test_a_recipe_of_0x_by_its_scoped_path(read):
    with pytest.warns(UserWarning, match="0.x vocabulary"):
        config = read("_base_ = 'mmseg::fcn/fcn_r50-d8_769x769_40k_cityscapes.py'\noptimizer = dict(lr=0.1)\n")
    assert config.optim_wrapper.optimizer.lr == 0.1 and config.model.decode_head.type == "FCNHead"


def test_the_parts_of_a_recipe_make_it(read):
    config = read(
        "_base_ = ['mmseg::_base_/models/pspnet_r50-d8.py', 'mmseg::_base_/datasets/cityscapes.py',\n"
        "          'mmseg::_base_/default_runtime.py', 'mmseg::_base_/schedules/schedule_40k.py']\n"
        "crop_size = {{ _base_.crop_size }}\n"
        "data_preprocessor = dict(size=crop_size)\n"
        "model = dict(data_preprocessor=data_preprocessor)\n"
    )
    expected = recipes.recipe(PSPNET)
    assert {key: as_lists(config[key]) for key in expected} == expected


@pytest.mark.parametrize(
    ("part", "key", "value"),
    [
        ("models/upernet_swin", "model.backbone.embed_dims", 96),
        ("models/fcn_unet_s5-d16", "model.backbone.type", "UNet"),
        ("models/segformer_mit-b0", "model.decode_head.type", "SegformerHead"),
        ("datasets/ade20k_640x640", "crop_size", (640, 640)),
        ("datasets/pascal_voc12_aug", "dataset_type", "PascalVOCDataset"),
        ("datasets/drive", "crop_size", (64, 64)),
        ("schedules/schedule_160k", "train_cfg.max_iters", 160000),
        ("default_runtime", "default_scope", "mmseg"),
    ],
)
def test_parts_that_the_recipe_book_has(read, part, key, value):
    found = read(f"_base_ = ['mmseg::_base_/{part}.py']\n")
    for step in key.split("."):
        found = found[step]
    assert found == value


def test_a_lazy_file_takes_parts_by_import(read):
    text = "with read_base():\n    from mmseg.configs._base_.default_runtime import *\nlog_level = 'DEBUG'\n"
    assert read(text).default_scope == "mmseg"


@pytest.mark.parametrize(
    ("base", "message"),
    [
        ("mmseg::_base_/models/nonsense.py", "TERRAZZO_MMSEG_CONFIGS"),
        ("mmseg::pspnet/nonsense.py", "TERRAZZO_MMSEG_CONFIGS"),
        ("mmdet::_base_/models/mask-rcnn_r50_fpn.py", "TERRAZZO_MMDET_CONFIGS"),
        (f"../pspnet/{PSPNET}.py", f"terrazzo's own is 'mmseg::pspnet/{PSPNET}.py'"),
        ("../_base_/models/pspnet_r50-d8.py", "terrazzo's own is 'mmseg::_base_/models/pspnet_r50-d8.py'"),
        ("../_base_/models/mine.py", "there is no config file"),
    ],
)
def test_a_base_that_is_not_here_is_named_with_the_way_out(read, base, message):
    with pytest.raises(UserError, match=r"config\.py:1: ") as caught:
        read(f"_base_ = ['{base}']\n")
    assert message in str(caught.value)


# What is read


@pytest.mark.parametrize(
    "text",
    [
        "param_scheduler = None\ntrain_dataloader = None\ntrain_cfg = None\noptim_wrapper = None\nval_cfg = None\n"
        "val_evaluator = None\nvis_backends = None\nvisualizer = dict(vis_backends=vis_backends)\n",
        "model['_scope_'] = 'mmseg'\nmodel['decode_head'].update(dict(_scope_='mmseg'))\n",
        "model['data_preprocessor'] = dict(_scope_='mmseg', type='SegDataPreProcessor', mean=[0] * 3, std=[1] * 3)\n",
        "custom_imports = dict(imports=['mmseg', 'mmseg.datasets', 'mmseg.engine'], allow_failed_imports=False)\n",
        "work_dir = './work_dirs/{{ fileBasenameNoExtension }}'\ndata_root = '{{$NOT_SET_ANYWHERE:data/x}}'\n",
        "images = 5800\nbatch = 8\nlength = int(images / batch)\nif length > 3:\n    step = 1\nelse:\n    step = 2\n",
        "val_evaluator = dict(type='IoUMetric', iou_metrics=['mIoU'], output_dir='out', prefix='val')\n",
        "spare = norm_cfg\ndel spare\nmodel.update(dict(auxiliary_head=None))\nmodel.setdefault('pretrained', None)\n",
        "train_pipeline = []\nval_pipeline = []\ntest_pipeline = []\nname = 'mine'\ntotal_iters = 10\n"
        "val_dataloader = None\n",
    ],
)
def test_read_and_built_without_a_word(read, text):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        build_model(make_experiment(read(MODEL + text)).model)


def test_lazy_types_of_torch_and_mmseg(read):
    config = read(
        "from torch.nn import SyncBatchNorm as BN\n"
        "from torch.optim import AdamW\n"
        "from mmengine.optim import OptimWrapper\n"
        "from mmseg.models import EncoderDecoder, ERFNet, FCNHead\n"
        "norm_cfg = dict(type=BN, requires_grad=True)\n"
        "model = dict(type=EncoderDecoder, backbone=dict(type=ERFNet, norm_cfg=norm_cfg),\n"
        "             decode_head=dict(type=FCNHead, in_channels=16, channels=8, num_classes=3))\n"
        "optim_wrapper = dict(type=OptimWrapper, optimizer=dict(type=AdamW, lr=1e-4))\n"
    )
    build_model(make_experiment(config).model)
    assert config.optim_wrapper.optimizer.type == "AdamW"


def test_the_best_of_several_metrics_is_the_first(read):
    hook = "default_hooks = dict(checkpoint=dict(type='CheckpointHook', save_best=['mDice', 'mIoU']))\n"
    config = read(MODEL + hook + "train_cfg = dict(type='IterBasedTrainLoop', max_iters=10)\n")
    with pytest.warns(UserWarning, match=r"config.py:\d+: .*save_best names 2 scores: the first"):
        assert make_experiment(config).run.best.name == "mDice"


def test_sections_of_the_other_vocabulary_are_told(read):
    text = "train_dataloader = None\ndata = dict(samples_per_gpu=2)\nrunner = dict(max_iters=3)\n"
    with pytest.warns(UserWarning, match=r"no effect: 'data' \(train_dataloader.*'runner' \(train_cfg\)"):
        read(MODEL + text)


def test_a_file_may_state_both_optimizers_and_the_wrappers_counts(read):
    wrapper = "optim_wrapper = dict(type='OptimWrapper', optimizer=dict(type='AdamW', lr=0.001))\n"
    text = MODEL + "optimizer = dict(type='SGD', lr=0.1)\n"
    with pytest.warns(UserWarning, match=r"no effect: 'optimizer' \(optim_wrapper"):
        assert read(text + wrapper).optim_wrapper.optimizer.type == "AdamW"
    with pytest.raises(UserError, match="no effect in the 1"):
        read(text + "train_dataloader = None\n")


# What is refused, with the line and the way out


@pytest.mark.parametrize(
    "line",
    [
        "import os",
        "import numpy as np",
        "from glob import glob",
        "print(f'training {norm_cfg}')",
        "x = list(map(lambda v: 2 * v, [1, 2]))",
        "x = locals()",
        "try:\n    import apex\nexcept ImportError:\n    apex = None",
        "def steps(n):\n    return 2 * n",
    ],
)
def test_what_needs_python_names_its_line_and_trust_config(read, line):
    with pytest.raises(UserError, match=r"config\.py:7: .*") as caught:
        read(f"{MODEL}\n{line}\n")
    assert "--trust-config" in str(caught.value) and line.splitlines()[0] in str(caught.value)


def test_what_was_refused_is_read_if_it_is_trusted(read):
    text = MODEL + "import os.path as osp\nroot = osp.join('data', 'x')\nprint('hello')\nlr = float(max(1, 2))\n"
    assert read(text, trust=True).root == "data/x"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("custom_imports = dict(imports='datasets.mine')\n", "custom_imports asks for code to be run: datasets.mine"),
        ("test_cfg = dict(type='mmrazor.PTQLoop', calibrate_steps=3)\n", "test_cfg has no key 'calibrate_steps'"),
        ("val_evaluator = dict(type='IoUMetric', metric='mIoU')\n", "no key 'metric'; it is iou_metrics"),
        ("model['_scope_'] = 'mmrazor'\n", "no model type is called 'mmrazor.EncoderDecoder'"),
        ("model['backbone']['type'] = 'MambaVisionBackbone'\n", "no model type is called 'MambaVisionBackbone'"),
    ],
)
def test_what_is_not_part_of_terrazzo_is_named(read, text, message):
    with pytest.raises(UserError, match=message):
        build_model(make_experiment(read(MODEL + text)).model)
