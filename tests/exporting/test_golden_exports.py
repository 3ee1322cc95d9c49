"""One official model of each combination of backbone, neck and head as ONNX, beside itself in torch."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from support import golden_models as golden
from support.exports import need
from terrazzo.exporting.graph import Graph
from terrazzo.exporting.onnx_file import to_onnx
from terrazzo.exporting.trial import SIZES, blocks

LABELS, LOGITS = 0.9999, 1e-4  # the least share of equal labels, the largest difference in deviations of the logits
ROUNDING = 20  # times the original's distance from itself in double precision, or from itself on two threads


def kinds() -> list:
    found = {}
    for version in ("v1", "v0"):
        for record in golden.records(version).values():
            spec = record["model"]
            parts = [spec.get("backbone"), spec.get("neck"), spec["decode_head"]]
            parts = [part[-1] if isinstance(part, list) else part for part in parts]
            names = "+".join(part["type"] for part in parts if part)
            found.setdefault(names, pytest.param(version, record, id=names))
    return list(found.values())


def rounding(model, x, logits) -> float:
    """How far rounding moves the logits, in their deviations."""
    torch.set_num_threads(2)
    others = [model.decode(x)]
    torch.set_num_threads(1)
    others.append(model.double().decode(x.double()).float())
    model.float()
    return max(float((other - logits).abs().max() / logits.std()) for other in others)


@pytest.mark.slow
@pytest.mark.parametrize(("version", "record"), kinds())
def test_equal_at_four_sizes(version, record, tmp_path):
    need("onnx")
    import onnxruntime

    torch.set_num_threads(1)
    model = golden.build(version, record["model"]).eval()
    golden.fill(model.state_dict())
    graph = Graph(model, ("labels", "logits")).eval()
    content = to_onnx(graph, torch.randint(0, 255, (2, 203, 301, 3), dtype=torch.uint8)).SerializeToString()
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    for number, (height, width) in enumerate(SIZES):
        images = blocks(1 + number % 2, height, width, 3)
        labels, logits = session.run(None, {"image": images})
        with torch.inference_mode():
            expected, reference = (value.numpy() for value in graph(torch.from_numpy(images)))
        distance = np.abs(logits - reference).max() / reference.std()
        same = (labels == expected).mean()
        if same >= LABELS and distance <= LOGITS:
            continue
        with torch.inference_mode():
            x = model.preprocess.pad_for_test(model.preprocess(torch.from_numpy(images).permute(0, 3, 1, 2)))
            noise = rounding(model, x, model.decode(x))
        assert distance <= max(LOGITS, ROUNDING * noise), (height, width)
        assert same >= LABELS or noise > 0.01, (height, width)
