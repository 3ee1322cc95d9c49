"""Keys, logits, losses and gradients of every golden model equal MMSegmentation's."""

import pytest
import torch

from support import golden_models as golden
from terrazzo.models.layers.activation import ACTIVATIONS
from terrazzo.models.layers.conv import CONVS
from terrazzo.models.layers.norm import NORMS
from terrazzo.registry import MODELS

torch.set_num_threads(2)  # the facts were measured with more than one, and some depend on it (golden_models.Tolerance)

NAMES_OF_LAYERS = {"SegDataPreProcessor", "InterpConv", *ACTIVATIONS, *NORMS, *CONVS}


def kind(record: dict) -> tuple:
    """The types of a model's backbone, neck and heads."""
    parts = ("backbone", "neck", "decode_head")
    return tuple(tuple(sorted(golden.type_names(record["model"].get(part)))) for part in parts)


def cases(values: str | None = None) -> list:
    """Every golden model; of 0.x, logits, and losses of large networks, are slow where 1.x has the same parts."""
    found = []
    newer = {kind(record) for record in golden.records("v1").values()}
    known = (NAMES_OF_LAYERS | set(MODELS)) - {"VPD"}  # needs a diffusion library, and no facts were measured of it
    for version in ("v0", "v1"):
        for record in golden.records(version).values():
            if (values is not None and values not in record) or "skipped" in record.get(values, ()):
                continue
            missing = {name for name in golden.type_names(record["model"]) if name.rpartition(".")[2] not in known}
            marks = [pytest.mark.skip(reason=f"not part of terrazzo: {sorted(missing)}")] if missing else []
            is_large = not {"BEiT", "MAE", "VisionTransformer"}.isdisjoint(golden.type_names(record["model"]))
            if version == "v0" and kind(record) in newer and (values == "logits" or (values == "train" and is_large)):
                marks.append(pytest.mark.slow)
            name = f"{golden.label(version, record)}-{record['id'][:4]}"
            found.append(pytest.param(version, record, id=name, marks=marks))
    return found


@pytest.mark.parametrize(("version", "record"), cases())
def test_state_dict_has_the_published_names_shapes_and_order(version, record):
    golden.check_keys(version, record)


@pytest.mark.parametrize(("version", "record"), cases("logits"))
def test_logits_equal_golden(version, record):
    golden.check_logits(version, record)


@pytest.mark.parametrize(("version", "record"), cases("train"))
def test_losses_and_gradients_equal_golden(version, record):
    golden.check_train(version, record)
