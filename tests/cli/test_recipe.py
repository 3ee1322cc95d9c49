"""`terrazzo recipe`, and recipes by name in configs."""

from __future__ import annotations

import pytest

import terrazzo as tz
from terrazzo.cli.main import main
from terrazzo.errors import UserError
from terrazzo.recipes.about import ABOUT


def test_list_sorts_by_the_published_score(capsys):
    assert main(["recipe", "list", "--method", "segformer", "--dataset", "cityscapes", "--sort", "mIoU"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[1].startswith("segformer_mit-b5_8xb1-160k_cityscapes-1024x1024") and "82.25" in lines[1]


def test_every_family_says_what_it_is_good_for(capsys):
    assert sorted(ABOUT) == sorted(tz.recipes.families())
    assert main(["recipe", "families"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert any(line.split()[:4] == ["segformer", "13", "82.2", "49.6"] for line in lines)
    assert max(map(len, lines)) <= 120


@pytest.mark.parametrize("name", ["mobilenet_v3", "mobilenetv3"])
def test_a_family_is_shown_with_its_recipes(name, capsys):
    assert main(["recipe", "show", name]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "mobilenet_v3: small and fast on phones" and lines[-1].startswith("4 recipes")


def test_the_list_has_no_line_of_240_columns(capsys):
    assert main(["recipe", "list", "--old"]) == 0
    assert max(map(len, capsys.readouterr().out.splitlines())) <= 130


def test_search_needs_all_words(capsys):
    assert main(["recipe", "search", "unet", "drive", "dice"]) == 0
    names = [line.split()[0] for line in capsys.readouterr().out.splitlines()[1:-1]]
    assert names and all("dice" in name and "drive" in name for name in names)


def test_show_says_what_the_name_means(capsys):
    assert main(["recipe", "show", "pspnet_r50-d8_4xb2-40k_cityscapes-512x1024"]) == 0
    shown = capsys.readouterr().out
    for part in (
        "# 4 devices x 2 images = 8 a step, 40000 iterations",
        "mIoU: 77.85",
        "memory: 6.1 GB",
        "type: PSPHead",
        "base_batch_size: 8",
    ):
        assert part in shown


def test_show_counts_accumulated_batches(capsys):
    assert main(["recipe", "show", "beit-large_upernet_8xb1-amp-160k_ade20k-640x640"]) == 0
    assert "8 devices x 1 image x 2 batches a step = 16 a step" in capsys.readouterr().out


@pytest.mark.parametrize(
    "name", ["pspnet_r50-d8_4xb2-40k_cityscapes-512x1024", "pspnet_r50-d8_512x1024_40k_cityscapes"]
)
def test_names_of_both_versions_give_the_same_model(name):
    config = tz.load_config(name, {"model.decode_head.num_classes": 4})
    assert config.model.decode_head.type == "PSPHead" and config.model.decode_head.num_classes == 4
    assert config.train_dataloader.batch_size == 2


def test_the_short_form_takes_a_recipe_name_for_its_model():
    data = {"root": "d", "classes": ["a", "b", "c"]}
    config = tz.load_config({"recipe": "segformer_mit-b0_8xb1-160k_cityscapes-1024x1024", "data": data})
    assert config.model.decode_head.num_classes == 3 and config.optim_wrapper.optimizer.type == "AdamW"


def test_an_unknown_name_answers_with_the_nearest():
    with pytest.raises(UserError, match="pspnet_r50-d8_4xb2-40k_cityscapes-512x1024"):
        tz.load_config("pspnet_r50-d8_4xb2-40k_cityscape-512x1024x")


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (["--dataset", "citiscapes"], "no recipe has the data set 'citiscapes'; did you mean 'cityscapes'"),
        (["--method", "segfromer"], "no recipe has the method 'segfromer'; did you mean 'segformer'"),
        (["--method", "segformer", "--dataset", "drive"], "no recipe matches"),
    ],
)
def test_a_filter_that_nothing_passes_is_named(call, message, capsys):
    assert main(["recipe", "list", *call]) == 1
    assert message.lower() in capsys.readouterr().err.lower()
