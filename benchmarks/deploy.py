"""Models as they are deployed on a processor, beside themselves in torch; and beside Ultralytics.

    python benchmarks/deploy.py --check CAMVID.yaml --ultralytics PEER/bin/python
    python benchmarks/deploy.py --cases fast-scnn segformer-b0 --ways torch openvino-bf16

All run on one thread and take their steps in turn: an image in memory to its class map at the same size. `speed` is the
median over the steps of torch's time in single precision by this one's, on the wall and of the processes. The bundled
model is also scored on the validation set of --check. The other models have weights that follow from the names of their
parameters, which matter little to speed.

Ultralytics' smallest semantic model (yolo26n-sem, random weights) runs in its own environment as the ONNX file that it
exports itself, beside ours of like size as the ONNX file that we export: both from a 512x512 image to its class map.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path
from statistics import median
from typing import Any

from turns import answer, in_turn, ratio

try:
    from terrazzo.exporting.ways import WAYS
except ImportError:  # in Ultralytics' environment
    WAYS = {}

RECIPES = {
    "segformer-b0": ("segformer_mit-b0_8xb2-160k_ade20k-512x512", (512, 512)),
    "fast-scnn": ("fast_scnn_8xb4-160k_cityscapes-512x1024", (512, 1024)),
}
CASES = ("street", *RECIPES, "ultralytics")
STREET_SIZE, PEER_SIZE = (360, 480), (512, 512)
# times as fast as torch in single precision: what each should reach
AIMS = {
    ("street", "onnxruntime"): 1.6,
    ("street", "openvino-int8"): 4.0,
    ("segformer-b0", "openvino-bf16"): 3.0,
    ("fast-scnn", "onnxruntime"): 2.0,
    ("fast-scnn", "openvino-bf16"): 2.0,
}


def write_checkpoint(path: Path, recipe: str) -> Path:
    """A self-contained checkpoint of a recipe's model, whose images stay as they are."""
    from safetensors.torch import save_file
    from side import fill

    import terrazzo as tz
    from terrazzo.data.spec import dataset_spec
    from terrazzo.inference.saved_config import describe

    config = tz.load_config(recipe).to_dict()
    model: Any = tz.build_model(config["model"])
    fill(model)
    dataset = config["test_dataloader"]["dataset"]
    dataset["pipeline"] = [{"type": "LoadImageFromFile"}]
    spec = dataset_spec(dataset["type"])
    save_file(model.state_dict(), path, describe(config, spec.classes, spec.palette))
    return path


def compare(case: str, folder: Path, args: argparse.Namespace) -> list[dict[str, Any]]:
    """The rows of one of our models."""
    from terrazzo.exporting.benchmark import benchmark

    options = {"threads": 1, "steps": args.steps, "ways": args.ways}
    if case == "street":
        return benchmark(["street"], STREET_SIZE, args.check, **options)["results"]
    recipe, size = RECIPES[case]
    path = write_checkpoint(folder / f"{case}.safetensors", recipe)
    return benchmark([path], size, **options)["results"]


def markdown(case: str, row: dict[str, Any]) -> str:
    """A row of the table."""
    if "failure" in row:
        return f"| {case} | {row['runtime']} | {row['failure']} | | | | | |"
    aim = AIMS.get((case, row["runtime"]))
    score = "" if row["mIoU"] is None else f"{row['mIoU']:.2f}"
    milliseconds, memory = f"{1000 * row['median']:.0f} ms", f"{(row['memory'] or 0) / 2**20:.0f} MiB"
    speeds = f"{row['speed']:.2f} | {row['cpu_speed']:.2f}" + ("" if aim is None else f" (aim {aim})")
    size = f"{row['bytes'] / 1e6:.1f} MB"
    return f"| {case} | {row['runtime']} | {milliseconds} | {speeds} | {memory} | {size} | {score} |"


def peer() -> Any:
    """A step of Ultralytics' model, in the ONNX file that it writes."""
    import os

    import cv2
    import numpy as np
    import onnxruntime
    from ultralytics import YOLO

    height, width = PEER_SIZE
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        model = YOLO("yolo26n-sem.yaml")
        parameters = sum(value.numel() for value in model.model.parameters())
        path = model.export(format="onnx", imgsz=PEER_SIZE, simplify=True)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    small = np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)
    image = cv2.resize(small, (width, height), interpolation=cv2.INTER_CUBIC)
    name = session.get_inputs()[0].name

    def step() -> dict[str, Any]:
        x = np.ascontiguousarray(image.transpose(2, 0, 1)[None]).astype(np.float32) / 255
        (labels,) = session.run(None, {name: x})
        assert labels.shape == (1, height, width)
        return {"parameters": parameters}

    return step


def beside_ultralytics(python: str, folder: Path, steps: int) -> None:
    """Both models in turn."""
    import terrazzo as tz

    recipe, _ = RECIPES["fast-scnn"]
    checkpoint = write_checkpoint(folder / "ours.safetensors", recipe)
    file = tz.export(checkpoint, folder / "ours.onnx").path
    task = json.dumps({"model": str(file), "size": PEER_SIZE})
    commands = {
        "Fast-SCNN": [sys.executable, "-W", "ignore", "-m", "terrazzo.exporting.stopwatch", task],
        "yolo26n-sem": [python, "-W", "ignore", str(Path(__file__).resolve()), "--peer"],
    }
    times = in_turn(commands, steps)
    for name, part in times.items():
        print(f"{name}: {1000 * median(part['wall']):.1f} ms")
    print(f"yolo26n-sem: {times['yolo26n-sem']['result']['parameters'] / 1e6:.2f} M parameters")
    print(f"times as fast as yolo26n-sem: {ratio(times):.2f} (wall), {ratio(times, 'cpu'):.2f} (cpu)")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", nargs="+", default=list(CASES), choices=CASES)
    parser.add_argument("--ways", nargs="+", default=list(WAYS), choices=list(WAYS), help="of running our models")
    parser.add_argument("--check", metavar="CONFIG", help="score the bundled model on this config's validation set")
    parser.add_argument("--ultralytics", metavar="PYTHON", help="of an environment with ultralytics (default: no peer)")
    parser.add_argument("--steps", type=int, default=15)
    parser.add_argument("--peer", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.peer:
        answer(peer)
        return
    columns = ("model", "runtime", "median", "speed (wall)", "speed (cpu)", "memory", "file", "mIoU")
    print("| " + " | ".join(columns) + " |\n" + "|---" * len(columns) + "|", flush=True)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for case in args.cases:
            if case != "ultralytics":
                for row in compare(case, folder, args):
                    print(markdown(case, row), flush=True)
        if "ultralytics" in args.cases and args.ultralytics:
            beside_ultralytics(args.ultralytics, folder, args.steps)


if __name__ == "__main__":
    main()
