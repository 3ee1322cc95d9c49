"""The parts of a Segmenter that go into the graph, and the metadata of the file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import compress
from typing import Any

import torch

import terrazzo
from terrazzo.errors import UserError
from terrazzo.exporting.graph import Graph
from terrazzo.inference.exported import RESIZINGS, ModelFacts
from terrazzo.inference.exported_model import is_outside
from terrazzo.inference.segmenter import Segmenter
from terrazzo.inference.torch_runtime import TorchRuntime
from terrazzo.models.checks import BLENDINGS
from terrazzo.transforms.base import class_of, is_ours
from terrazzo.transforms.compose import Compose, works_on
from terrazzo.transforms.resize import Resize


@dataclass(frozen=True)
class Plan:
    """A graph to be exported, and the facts that its file states."""

    graph: Graph
    facts: ModelFacts

    def adding(self, *outputs: str) -> Plan:
        """The same plan with these outputs beside its own."""
        names = list(dict.fromkeys((*self.facts.outputs, *outputs)))
        return Plan(self.graph.changed(outputs=names), replace(self.facts, outputs=names))

    def at(self, precision: str, **quantization: Any) -> Plan:
        """The plan of the same model at another precision, of which 8-bit integers state how they were made."""
        graph = self.graph.in_bf16() if precision == "bf16" else self.graph
        return Plan(graph, replace(self.facts, precision=precision, quantization=quantization))


def make_plan(segmenter: Segmenter, outputs: Sequence[str], size: Sequence[int] | None, licence: str = "") -> Plan:
    """The plan of a Segmenter that runs a torch model. Raises UserError for one whose steps no graph can contain.

    Its resizing and averaging over a mirrored view are in the graph. Windows are not: the file states them, and the
    steps before them.
    """
    runtime = segmenter.runtime
    if not isinstance(runtime, TorchRuntime):
        raise UserError("this is an exported model already: export the checkpoint that it comes from")
    model = runtime.model.float().cpu().eval()
    if model.target != "label":
        raise UserError("only models of classes can be exported; this one estimates depth")
    changing = [step for step in segmenter.pipeline.as_written() if not getattr(step, "packs", False)]
    steps = [step for step in changing if not getattr(step, "reads", ())]
    if others := [step for step in steps if type(step).__name__ not in RESIZINGS]:
        raise UserError(
            f"the test pipeline has {class_of(others[0]).__name__}, which an exported graph cannot contain: remove it"
        )
    windows, mirror = windows_of(model.test_cfg, steps)
    inside = () if windows else tuple(steps)
    preprocess = model.preprocess
    facts = ModelFacts(
        classes=list(segmenter.classes),
        palette=[list(map(int, colour)) for colour in segmenter.palette],
        bands=runtime.bands,
        image_type="uint8" if getattr(segmenter.reader, "bands", None) is None else "float32",
        threshold=runtime.threshold,
        pipeline=[spec for spec in predicting_steps(segmenter) if windows or is_outside(spec)],
        suffixes=list(segmenter.suffixes),
        windows=windows,
        outputs=list(outputs),
        size=None if size is None else list(size),
        preprocessing={
            "resizing": [repr(step) for step in inside],
            "mirror": mirror,
            "crop": None if preprocess.size is None else list(preprocess.size),
            "mean": None if preprocess.mean is None else preprocess.mean.flatten().tolist(),
            "std": None if preprocess.std is None else preprocess.std.flatten().tolist(),
            "channels": "RGB" if preprocess.rgb else "BGR",
            "size_divisor": preprocess.test_divisor,
            "padded_size": None if preprocess.test_size is None else list(preprocess.test_size),
            "align_corners": model.final_head.align_corners,
        },
        training_images=segmenter.fingerprint.values() if segmenter.fingerprint else {},
        source=segmenter.source,
        licence=licence,
        terrazzo=terrazzo.__version__,
    )
    plan = Plan(Graph(model, outputs, inside, mirror), facts)
    if size is not None:
        check_size(plan, size)
    return plan


def one_size(size: Sequence[int] | None) -> str:
    """The advice where a graph for images of any size fails: nothing if it is for one size already."""
    return "" if size else "; --size HxW exports it for images of one size, which may work"


def check_size(plan: Plan, size: Sequence[int]) -> None:
    """Raise UserError for a size of images that the model does not run on."""
    height, width = size
    try:
        with torch.inference_mode():
            plan.graph(torch.zeros(1, height, width, plan.facts.bands, dtype=getattr(torch, plan.facts.image_type)))
    except RuntimeError as problem:
        raise UserError(
            f"--size {height}x{width}: the model does not run on such images, which may be too small for it "
            f"({str(problem).splitlines()[0]})"
        ) from problem


def predicting_steps(segmenter: Segmenter) -> list[Any]:
    """The steps as configured, without those of users' own that are for labels, which nobody else has."""
    whole = Compose(segmenter.steps)
    steps, reader = whole.as_written(), whole.reader("image")
    kept = [step is reader or is_ours(step) or works_on(step, ("image",)) for step in steps]
    return list(compress(segmenter.steps, kept))


def windows_of(test_cfg: dict[str, Any], steps: Sequence[Any]) -> tuple[dict[str, Any], bool]:
    """The windows that a model's test_cfg asks for, empty where one holds every image; and its mirroring."""
    mode = test_cfg.get("mode", "whole")
    if mode == "whole":
        return {}, False
    crop = test_cfg["crop_size"]
    for step in steps:
        if isinstance(step, Resize) and step.scale is not None:
            longest = max(step.scale) if step.keep_ratio else 0
            fits = longest <= min(crop) if step.keep_ratio else step.scale[0] <= crop[1] and step.scale[1] <= crop[0]
            if fits:
                return {}, mode == "slide_flip"
    windows = {"crop_size": list(crop), "stride": list(test_cfg["stride"])}
    return windows | {"blending": test_cfg.get("blending", BLENDINGS[0])}, mode == "slide_flip"
