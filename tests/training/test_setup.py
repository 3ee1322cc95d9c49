"""The setup of a run: everything is built once, and the first step is near."""

from __future__ import annotations

import copy
import traceback
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch

import terrazzo as tz
from support.tiny import fit, make_streets, model_config, short_form, tiny_config, write_config
from terrazzo.cli.main import main
from terrazzo.data.dataset import SegmentationDataset
from terrazzo.errors import UserError
from terrazzo.models.info import model_info
from terrazzo.models.segmentors.encoder_decoder import EncoderDecoder
from terrazzo.registry import MODELS
from terrazzo.training.monitoring.run_header import inference_cost


@pytest.fixture(scope="module")
def streets(tmp_path_factory) -> Path:
    return make_streets(tmp_path_factory.mktemp("streets"))


@pytest.fixture
def built(monkeypatch) -> Counter[str]:
    """Constructions by type."""
    counts: Counter[str] = Counter()
    for kind in (SegmentationDataset, EncoderDecoder):

        def counting(self: Any, *args: Any, kind: type = kind, original: Any = kind.__init__, **kwargs: Any) -> None:
            counts[kind.__name__] += 1
            original(self, *args, **kwargs)

        monkeypatch.setattr(kind, "__init__", counting)
    return counts


@pytest.mark.parametrize("check", [True, False])
def test_a_run_opens_each_split_and_builds_the_model_once(streets, tmp_path, built, check):
    fit(tiny_config(streets, steps=2), tmp_path / "run", check=check)
    assert built == {"SegmentationDataset": 2, "EncoderDecoder": 1}


def test_so_does_a_run_with_class_weights_from_the_labels(streets, tmp_path, built):
    config = short_form(streets, iterations=2, class_weight="auto", rare_class_sampling=True)
    fit(config, tmp_path / "run")
    assert built == {"SegmentationDataset": 2, "EncoderDecoder": 1}


def test_so_does_the_command(streets, tmp_path, built, capsys):
    config = write_config(tmp_path / "street.yaml", short_form(streets, iterations=2))
    assert main(["train", str(config), "--work-dir", str(tmp_path / "run"), "--device", "cpu"]) == 0
    assert "GFLOPs for an image of 32x32" in capsys.readouterr().out
    assert built == {"SegmentationDataset": 2, "EncoderDecoder": 1}


def test_the_first_step_is_at_most_six_calls_below_train(streets, tmp_path, monkeypatch):
    depths, original = [], torch.optim.SGD.step

    def step(self: Any, *args: Any, **kwargs: Any) -> Any:
        names = [frame.name for frame in traceback.extract_stack()]
        depths.append(len(names) - 1 - names.index("train"))
        return original(self, *args, **kwargs)

    monkeypatch.setattr(torch.optim.SGD, "step", step)
    fit(tiny_config(streets, steps=1), tmp_path / "run")
    assert depths[0] <= 6


def test_the_cost_is_the_models_own_and_counting_it_changes_nothing():
    config = {"model": model_config(), "crop_size": (24, 24)}
    model = tz.build_model(config)
    before = copy.deepcopy(model.state_dict())
    expected = model_info(config).flops / 1e9
    assert inference_cost(model, config) == f"; {expected:.3g} GFLOPs for an image of 24x24"
    assert model.training and all(parameter.requires_grad for parameter in model.parameters())
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_auxiliary_heads_are_tried_before_the_first_step():
    config = {"model": model_config(), "crop_size": (24, 24)}
    config["model"]["auxiliary_head"] = config["model"]["decode_head"] | {"in_channels": 5}
    config["model"]["data_preprocessor"]["size"] = (24, 24)
    with pytest.raises(UserError, match=r"on images of 24x24: at model\.auxiliary_head.* takes 5 channels and gets 4"):
        inference_cost(tz.build_model(config), config)


def test_a_custom_model_without_a_part_of_the_contract_is_refused(streets, tmp_path, monkeypatch):
    class Bare(torch.nn.Module):
        target = "label"

        def __init__(self, data_preprocessor: Any = None) -> None:
            super().__init__()
            self.preprocess = data_preprocessor

    monkeypatch.setitem(MODELS.types, "Bare", Bare)
    with pytest.raises(UserError, match="Bare has no final_head, decode, loss"):
        fit(tiny_config(streets, model={"type": "Bare"}), tmp_path / "run")
