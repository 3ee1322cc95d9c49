"""Optimizer constructors of users, and the parts of a run that their code builds by name."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from terrazzo.training.optim.build import USER_CONSTRUCTORS


def test_a_constructor_builds_its_optimizer_and_wrapper_itself():
    from mmengine.optim import DefaultOptimWrapperConstructor
    from mmengine.registry import OPTIM_WRAPPER_CONSTRUCTORS, OPTIM_WRAPPERS, OPTIMIZERS

    @OPTIM_WRAPPER_CONSTRUCTORS.register_module()
    class BiasesLast(DefaultOptimWrapperConstructor):
        def __call__(self, model):
            wrapper, optimizer = self.optim_wrapper_cfg.copy(), self.optimizer_cfg.copy()
            wrapper.setdefault("type", "OptimWrapper")
            named = sorted(model.named_parameters(), key=lambda item: item[0].endswith("bias"))
            optimizer["params"] = [{"params": [value], "lr": self.base_lr / 10**value.ndim} for _, value in named]
            made = OPTIM_WRAPPERS.build(wrapper, default_args={"optimizer": OPTIMIZERS.build(optimizer)})
            assert isinstance(made.optimizer, torch.optim.AdamW)
            return made

    groups = USER_CONSTRUCTORS["BiasesLast"](nn.Linear(2, 3), {"lr": 1.0, "weight_decay": 0.1}, {})
    assert [(group["lr"], group["params"][0].ndim) for group in groups] == [(0.01, 2), (0.1, 1)]
    del USER_CONSTRUCTORS["BiasesLast"]


@pytest.mark.parametrize(
    ("registry", "name"),
    [("OPTIM_WRAPPERS", "AmpOptimWrapper"), ("LOOPS", "IterBasedTrainLoop"), ("DATA_SAMPLERS", "DefaultSampler"),
     ("VISUALIZERS", "SegLocalVisualizer"), ("VISBACKENDS", "mmengine.LocalVisBackend"), ("RUNNERS", "Runner"),
     ("TASK_UTILS", "OHEMPixelSampler"), ("TASK_UTILS", "mmdet.HungarianAssigner"), ("FUNCTIONS", "pseudo_collate")],
)  # fmt: skip
def test_registries_have_the_official_types(registry, name):
    import mmengine.registry as theirs

    assert getattr(theirs, registry).get(name).__name__ == name.rpartition(".")[2]
    assert getattr(theirs, registry).get("Nonsense") is None
