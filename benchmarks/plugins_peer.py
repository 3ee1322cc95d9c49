"""Logits and losses of users' modules in MMSegmentation's own packages, beside those that terrazzo computed.

PEER_PYTHON benchmarks/plugins_peer.py FILE.pt...      (files that `benchmarks/plugins.py --keep FOLDER` wrote)

Runs in an environment with the real packages, without terrazzo: the same module files, weights, images and labels.
"""

from __future__ import annotations

import importlib.util
import json
import sys
import traceback
import warnings
from pathlib import Path
from typing import Any

import torch

TOLERANCE = 1e-4


def import_file(file: str, root: str) -> None:
    """Import a module of a project by its name below the root, or alone where a package above it fails."""
    name = ".".join(Path(file).relative_to(root).with_suffix("").parts)
    try:
        importlib.import_module(name)
    except Exception:
        spec = importlib.util.spec_from_file_location(name, file)
        module = importlib.util.module_from_spec(spec)  # type: ignore[arg-type]
        sys.modules[name] = module
        spec.loader.exec_module(module)  # type: ignore[union-attr]


def compare(kept: dict[str, Any]) -> tuple[float, float]:
    """The largest differences of logits and of losses."""
    from mmengine.registry import MODELS, init_default_scope
    from mmengine.structures import PixelData
    from mmseg.structures import SegDataSample

    init_default_scope(kept["scope"])
    if kept["root"] not in sys.path:
        sys.path.append(kept["root"])
    for file in kept["modules"]:
        import_file(file, kept["root"])
    spec = json.loads(kept["model"])
    spec.pop("pretrained", None)
    model = MODELS.build(spec).eval()
    model.load_state_dict(kept["state"], strict=True)
    size = tuple(kept["images"].shape[2:])
    meta = {"img_shape": size, "ori_shape": size, "pad_shape": size}
    samples = [SegDataSample(metainfo=meta, gt_sem_seg=PixelData(data=label[None])) for label in kept["labels"]]
    with torch.no_grad():
        logits = model.encode_decode(kept["images"], [meta] * len(samples))
        losses = {name: float(value.mean()) for name, value in model.loss(kept["images"], samples).items()}
    missing = set(losses) ^ set(kept["losses"])
    if missing:
        raise ValueError(f"losses differ in name: {sorted(missing)}")
    differences = [abs(losses[name] - value) / max(1.0, abs(value)) for name, value in kept["losses"].items()]
    return float((logits - kept["logits"]).abs().max()), max(differences)


def main() -> None:
    warnings.simplefilter("ignore")
    equal, ran = 0, 0
    for path in sys.argv[1:]:
        kept = torch.load(path, weights_only=True)
        try:
            logits, losses = compare(kept)
        except Exception as problem:
            frame = traceback.extract_tb(problem.__traceback__)[-1]
            place = f"{Path(frame.filename).name}:{frame.lineno}"
            print(f"{Path(path).stem}: does not run there: {type(problem).__name__}: {str(problem)[:200]} [{place}]")
            continue
        ran += 1
        equal += max(logits, losses) <= TOLERANCE
        print(f"{Path(path).stem}: logits {logits:.1e}, losses {losses:.1e}", flush=True)
    print(f"equal to {TOLERANCE:g}: {equal} of {ran} that run there")


if __name__ == "__main__":
    main()
