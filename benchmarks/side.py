"""One side of a paired benchmark: builds a model, then does one step for each line it is told on standard input.

Runs in terrazzo's environment or in MMSegmentation's, so it imports nothing of either at its top.
"""

from __future__ import annotations

import json
import math
import os
import sys
import time
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn


def fill(model: nn.Module) -> None:
    """Weights that follow from the parameters' names alone, so that both sides have the same."""
    state = model.state_dict()
    with torch.no_grad():
        for name, value in state.items():
            if not value.is_floating_point():
                continue
            noise = np.random.Generator(np.random.PCG64(zlib.crc32(name.encode())))
            x = noise.standard_normal(value.numel(), dtype=np.float32)
            if name.endswith("running_var"):
                x = np.float32(0.5) + np.abs(x * np.float32(0.5))
            elif value.ndim >= 2 and not name.endswith("running_mean"):
                x *= np.float32(math.sqrt(1 / math.prod(value.shape[1:])))
            elif name.endswith(("weight", "gamma", "scale")):
                x = 1 + x * np.float32(0.1)
            else:
                x *= np.float32(0.1)
            value.copy_(torch.from_numpy(x).view(value.shape))


def noise(shape: tuple[int, ...]) -> Tensor:
    return torch.from_numpy(np.random.Generator(np.random.PCG64(0)).standard_normal(shape, dtype=np.float32))


def blocks(count: int, classes: int, height: int, width: int) -> Tensor:
    """Labels in squares of 32 pixels."""
    small = np.random.Generator(np.random.PCG64(1)).integers(0, classes, (count, -(-height // 32), -(-width // 32)))
    return torch.from_numpy(small).repeat_interleave(32, 1).repeat_interleave(32, 2)[:, :height, :width].contiguous()


class Terrazzo:
    """terrazzo's models, by recipe name."""

    def build(self, name: str) -> nn.Module:
        import terrazzo as tz

        return tz.build_model(tz.load_config(name))

    def classes(self, model: Any) -> int:
        return model.final_head.num_classes

    def logits(self, model: Any, images: Tensor) -> Tensor:
        return model(images)

    def losses(self, model: Any, images: Tensor, labels: Tensor) -> dict[str, Any]:
        return model.loss(images, labels)


class Peer:
    """MMSegmentation's models, from the configs in its wheel."""

    def build(self, name: str) -> nn.Module:
        import mmseg
        from mmengine.config import Config, ConfigDict
        from mmseg.registry import MODELS
        from mmseg.utils import register_all_modules

        register_all_modules(init_default_scope=True)
        folder = Path(mmseg.__file__).parent / ".mim" / "configs"
        config = Config.fromfile(next(folder.glob(f"*/{name}.py"))).model.to_dict()
        return MODELS.build(ConfigDict(without_weights(config)))

    def classes(self, model: Any) -> int:
        return model.decode_head[-1].num_classes if isinstance(model.decode_head, nn.ModuleList) else model.num_classes

    def logits(self, model: Any, images: Tensor) -> Tensor:
        size = tuple(images.shape[-2:])
        meta = {"img_shape": size, "ori_shape": size, "pad_shape": size, "batch_input_shape": size}
        return model.whole_inference(images, [meta] * len(images))

    def losses(self, model: Any, images: Tensor, labels: Tensor) -> dict[str, Any]:
        from mmengine.structures import PixelData
        from mmseg.structures import SegDataSample

        size = tuple(images.shape[-2:])
        meta = {"img_shape": size, "ori_shape": size, "pad_shape": size, "batch_input_shape": size}
        samples = []
        for label in labels:
            sample = SegDataSample(metainfo=meta)
            sample.gt_sem_seg = PixelData(data=label[None])
            samples.append(sample)
        return model.loss(images, samples)


def without_weights(spec: Any) -> Any:
    """A model dict without what would be downloaded."""
    if isinstance(spec, dict):
        return {key: without_weights(value) for key, value in spec.items() if key not in ("init_cfg", "pretrained")}
    return [without_weights(item) for item in spec] if isinstance(spec, list) else spec


class Steps:
    """A model with its input, ready for single steps."""

    def __init__(self, side: Any, name: str, task: str, shape: tuple[int, ...]) -> None:
        self.side, self.task = side, task
        torch.manual_seed(0)
        self.model = side.build(name)
        fill(self.model)
        self.model.train(task == "train")
        self.images = noise(shape)
        self.labels = blocks(shape[0], side.classes(self.model), *shape[2:])
        trained = [parameter for parameter in self.model.parameters() if parameter.requires_grad]
        self.optimizer = torch.optim.SGD(trained, lr=1e-4)

    def forward(self) -> Tensor:
        with torch.inference_mode():
            return self.side.logits(self.model, self.images)

    def train(self) -> Tensor:
        self.optimizer.zero_grad(set_to_none=True)
        losses = self.side.losses(self.model, self.images, self.labels)
        total = sum(
            sum(value) if isinstance(value, list) else value.mean() for name, value in losses.items() if "loss" in name
        )
        total.backward()
        self.optimizer.step()
        return total.detach()

    def step(self) -> dict[str, Any]:
        """Seconds of one step, on the wall and of this process, and a few numbers of its result."""
        wall, own = time.perf_counter(), time.process_time()
        result = self.forward() if self.task == "forward" else self.train()
        wall, own = time.perf_counter() - wall, time.process_time() - own
        flat = result.flatten().double()
        seen = flat[torch.linspace(0, len(flat) - 1, 64, dtype=torch.float64).long()].tolist()
        return {"wall": wall, "cpu": own, "values": seen, "deviation": float(flat.std(correction=0))}


def main() -> None:
    sides = {"terrazzo": Terrazzo, "mmseg": Peer}
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print goes to standard error
    side, name, task, shape, threads = sys.argv[1:]
    torch.set_num_threads(int(threads))
    steps = Steps(sides[side](), name, task, tuple(map(int, shape.split("x"))))
    print(json.dumps({"ready": sum(p.numel() for p in steps.model.parameters())}), file=answers, flush=True)
    for _ in sys.stdin:
        print(json.dumps(steps.step()), file=answers, flush=True)


if __name__ == "__main__":
    main()
