"""Logits and losses of users' modules in MMSegmentation's own packages, beside those that terrazzo computed.

PEER_PYTHON benchmarks/plugins_peer.py FILE.pt...      (files that `benchmarks/plugins.py --keep FOLDER` wrote)
PEER_PYTHON benchmarks/plugins_peer.py CONFIG.py...    (in a project's folder: how configs that fail here end there)

Runs in an environment with the real packages, of 0.x or 1.x, without terrazzo: the same module files, weights, images
and labels. Each file has a process of its own; a fork of 0.x runs with its own mmseg.
"""

from __future__ import annotations

import importlib.util
import re
import subprocess
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
    sys.path[:] = dict.fromkeys([*sys.path, kept["root"]])
    logits, found = (newer if importlib.util.find_spec("mmengine") else older)(kept)
    losses = {name: float(value.mean()) for name, value in found.items() if "loss" in name}
    ours = {name: value for name, value in kept["losses"].items() if "loss" in name}
    if missing := set(losses) ^ set(ours):
        raise ValueError(f"losses differ in name: {sorted(missing)}")
    differences = [abs(losses[name] - value) / max(1.0, abs(value)) for name, value in ours.items()]
    return float((logits - kept["logits"]).abs().max()), max(differences)


def import_files(kept: dict[str, Any]) -> None:
    """Import the modules of a model that neither its config nor another module has imported."""
    for file in kept["modules"]:
        if not any(getattr(module, "__file__", None) == file for module in [*sys.modules.values()]):
            import_file(file, kept["root"])


def newer(kept: dict[str, Any]) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """The logits and the losses in 1.x."""
    from mmengine.config import Config
    from mmengine.registry import MODELS, init_default_scope

    init_default_scope(kept["scope"])
    spec = Config.fromfile(kept["config"]).model  # imports what it names, by `custom_imports` or as classes
    import_files(kept)
    spec.pop("pretrained", None)
    spec.pop("data_preprocessor", None)
    model = MODELS.build(spec).eval()
    model.load_state_dict(kept["state"], strict=True)
    samples = samples_of(kept["labels"])
    with torch.no_grad():
        logits = model.encode_decode(kept["images"], [samples[0].metainfo] * len(samples))
        return logits, model.loss(kept["images"], samples)


def older(kept: dict[str, Any]) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """The logits and the losses in 0.x, a fork's own mmseg with whatever version of mmcv there is."""
    import mmcv
    from mmcv import Config

    package = Path(kept["root"], "mmseg", "__init__.py")
    if package.is_file():
        sys.path.insert(0, kept["root"])
        if version := re.search(r"MMCV_MIN = '([\d.]+)'", package.read_text(encoding="utf-8")):
            mmcv.__version__ = version[1]
    from mmseg.models import build_segmentor

    config = Config.fromfile(kept["config"])
    import_files(kept)
    config.model.pop("pretrained", None)
    model = build_segmentor(config.model, config.get("train_cfg"), config.get("test_cfg")).eval()
    model.load_state_dict(kept["state"], strict=True)
    shape = (*kept["images"].shape[2:], 3)
    meta = {"img_shape": shape, "ori_shape": shape, "pad_shape": shape, "filename": "", "flip": False}
    given = (kept["images"], [meta] * len(kept["images"]))
    with torch.no_grad():
        return model.encode_decode(*given), model.forward_train(*given, kept["labels"].unsqueeze(1))


def try_config(path: str) -> None:
    """Build the model of a project's config, run it and train it for one loss. Raises what the packages raise."""
    from mmengine.config import Config
    from mmengine.registry import init_default_scope
    from mmseg.registry import MODELS
    from mmseg.utils import register_all_modules

    register_all_modules()
    config = Config.fromfile(path)
    init_default_scope(config.get("default_scope") or "mmseg")
    mean = (config.model.get("data_preprocessor") or {}).get("mean")
    model = MODELS.build(config.model)
    bands = len(mean) if mean else (config.model.get("backbone") or {}).get("in_channels", 3)
    images, labels = torch.randn(2, bands, 128, 128), torch.randint(0, model.num_classes, (2, 128, 128))
    with torch.no_grad():
        model.eval()(images)
    model.train().loss(images, samples_of(labels))


def samples_of(labels: torch.Tensor) -> list[Any]:
    """The samples of a batch's labels (N, H, W), whose images have not been changed."""
    from mmengine.structures import PixelData
    from mmseg.structures import SegDataSample

    size = tuple(labels.shape[1:])
    meta = {"img_shape": size, "ori_shape": size, "pad_shape": size}
    return [SegDataSample(metainfo=meta, gt_sem_seg=PixelData(data=label[None])) for label in labels]


def show_configs(paths: list[str]) -> None:
    if importlib.util.find_spec("mmengine") is None:
        return  # configs of 0.x do not say which modules they need
    sys.path.insert(0, str(Path.cwd()))
    for path in paths:
        print(f"{path}: {end_of(path)}", flush=True)


def end_of(path: str) -> str:
    try:
        try_config(path)
    except Exception as problem:
        text = " ".join(f"{type(problem).__name__}: {problem}".split())
        return f"fails there too: {text[:200]}"
    return "runs there"


def main() -> None:
    warnings.simplefilter("ignore")
    if sys.argv[1:] and sys.argv[1].endswith(".py"):
        show_configs(sys.argv[1:])
        return
    if len(sys.argv) == 2:
        print(outcome(sys.argv[1]))
        return
    ran, equal = 0, 0
    for path in sys.argv[1:]:
        command = [sys.executable, "-W", "ignore", __file__, path]
        result = subprocess.run(command, capture_output=True, text=True, check=False)
        line = ([line for line in result.stdout.splitlines() if line.startswith(Path(path).stem)] or [""])[-1]
        print(line or f"{Path(path).stem}: {result.stderr[-200:]}", flush=True)
        found = re.search(r"logits (\S+), losses (\S+)$", line)
        ran += found is not None
        equal += found is not None and max(map(float, found.groups())) <= TOLERANCE
    print(f"equal to {TOLERANCE:g}: {equal} of {ran} that run there")


def outcome(path: str) -> str:
    """What becomes of a kept model there, in one line."""
    try:
        logits, losses = compare(torch.load(path, weights_only=True))
    except Exception as problem:
        frame = traceback.extract_tb(problem.__traceback__)[-1]
        place = f"{Path(frame.filename).name}:{frame.lineno}"
        text = " ".join(str(problem).split())
        return f"{Path(path).stem}: does not run there: {type(problem).__name__}: {text[:200]} [{place}]"
    return f"{Path(path).stem}: logits {logits:.1e}, losses {losses:.1e}"


if __name__ == "__main__":
    main()
