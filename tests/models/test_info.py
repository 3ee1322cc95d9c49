"""`terrazzo model`: what a model costs, told without computing anything, and which types there are."""

from __future__ import annotations

import pytest
import torch

import terrazzo as tz
from terrazzo.cli.main import main
from terrazzo.errors import UserError
from terrazzo.models.info import crop_size, list_types, measure, model_info
from terrazzo.registry import MODELS

HEAD = {"type": "FCNHead", "in_channels": 128, "in_index": 2, "channels": 16, "num_classes": 3}
HEAD |= {"num_convs": 1, "concat_input": False}
SMALL = {
    "type": "EncoderDecoder",
    "backbone": {"type": "FastSCNN", "norm_cfg": {"type": "BN"}},
    "decode_head": HEAD,
    "auxiliary_head": HEAD | {"in_index": 0, "in_channels": 64},
}


def convolution(inputs: int, outputs: int, kernel: int, size: int) -> int:
    return 2 * inputs * outputs * kernel**2 * size**2


def test_a_head_costs_what_its_convolutions_do():
    info = model_info({"model": SMALL}, size=(64, 64))
    head = next(part for part in info.parts if part.name == "decode_head")
    assert head.parameters == 128 * 16 * 9 + 16 + 16 * 3 + 3  # no norm: both convolutions have a bias
    assert head.flops == convolution(128, 16, 3, 8) + convolution(16, 3, 1, 8)
    assert info.parameters == sum(p.numel() for p in tz.build_model(SMALL).parameters())
    assert info.weight_bytes > 4 * info.parameters  # batch norms keep statistics beside
    assert info.output_shape == (1, 3, 64, 64)


def test_auxiliary_heads_cost_nothing_at_inference():
    parts = {part.name: part for part in model_info({"model": SMALL}, size=(64, 64)).parts}
    assert parts["auxiliary_head"].parameters > 0
    assert parts["auxiliary_head"].flops == 0


def test_features_are_told_with_their_strides():
    features = model_info({"model": SMALL}, size=(64, 128)).features
    assert [(x.source, x.channels, x.stride, x.height, x.width) for x in features] == [
        ("backbone", 64, 8, 8, 16),
        ("backbone", 128, 32, 2, 4),
        ("backbone", 128, 8, 8, 16),
    ]


@pytest.mark.parametrize(
    "recipe", ["segformer_mit-b0_8xb2-160k_ade20k-512x512", "pointrend_r50_4xb4-160k_ade20k-512x512"]
)
def test_the_meta_device_counts_as_the_cpu_does(recipe):
    config = tz.recipes.recipe(recipe)
    on_cpu = measure(tz.build_model(config), torch.zeros(1, 3, 128, 128))
    assert model_info(config, size=(128, 128)) == on_cpu


def test_memory_is_the_most_that_is_alive_at_one_time():
    class Widen(torch.nn.Module):
        def forward(self, x):
            doubled = torch.cat([x, x], dim=1)
            return doubled.relu()[:, :1]  # 1 + 2 + 2 maps live here, and the view none

    megabyte = torch.empty(1, 1, 512, 512, device="meta")
    assert measure(Widen(), megabyte).activation_bytes == 5 * 2**20


def test_a_model_that_reads_values_is_run_on_the_cpu():
    ham = {"type": "LightHamHead", "in_channels": [64, 128, 128], "in_index": [0, 1, 2], "ham_channels": 16}
    ham |= {"channels": 16, "num_classes": 3, "input_transform": "multiple_select"}
    model = SMALL | {"decode_head": ham}
    assert model_info({"model": model}, size=(64, 64)).flops > 0


CROP = {"type": "RandomCrop", "crop_size": 320}


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ({"model": {"data_preprocessor": {"size": (512, 1024)}}}, (512, 1024)),
        ({"model": {}, "train_dataloader": {"dataset": {"pipeline": [CROP]}}}, (320, 320)),
        ({"model": {}}, (512, 512)),
    ],
)
def test_the_size_is_that_of_the_crops(config, expected):
    assert crop_size(config) == expected


def test_every_type_is_listed_once_with_a_line():
    listed = list_types()
    assert listed["heads"]["PSPHead"].startswith("PSPNet head")
    assert set(listed) <= {"backbones", "necks", "heads", "losses", "segmentors", "own"}
    names = [name for types in listed.values() for name in types]
    assert sorted({MODELS.types[name] for name in names}, key=str) == sorted(set(MODELS.types.values()), key=str)
    assert len(names) == len(set(MODELS.types.values()))
    assert all(about for kind in listed if kind != "own" for about in listed[kind].values())
    with pytest.raises(UserError, match="did you mean 'heads'"):
        list_types("head")


def test_the_commands(tmp_path, capsys):
    path = tmp_path / "small.py"
    path.write_text(f"model = {SMALL!r}\n")
    assert main(["model", "info", str(path), "--size", "64x128"]) == 0
    told = capsys.readouterr().out
    assert "EncoderDecoder, one image of 3x64x128, 3 output channels" in told
    assert "FastSCNN" in told and "MiB of weights" in told
    assert main(["model", "list", "--kind", "necks"]) == 0
    told = capsys.readouterr().out
    assert "MultiLevelNeck" in told and "PSPHead" not in told
    assert main(["model", "info", "pspnet_r50-d8_4xb2-40k_cityscapes-512x1024x"]) == 1
    with pytest.raises(SystemExit, match="2"):
        main(["model", "info", str(path), "--size", "64*64"])
