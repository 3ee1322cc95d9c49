"""Every kind of official model as an ONNX file, beside itself in torch.

    python benchmarks/exports.py                                   # all kinds that exports.json does not hold yet
    python benchmarks/exports.py --kinds FastSCNN UNet+PSPHead --again
    python benchmarks/exports.py --page docs/export-models.md      # writes the table into the page

A kind is a combination of backbone, neck and head; its smallest official model stands for it, with weights that follow
from the names of its parameters and batch norms with the statistics of the images. Both sides see the same random
images at four sizes, two of them odd. Each kind runs in a process of its own with limits to its memory and time, and
`--results` holds what is finished.

A kind agrees if at every size at least 99.99 % of the labels are equal and no logit differs by more than 1e-4 standard
deviations of the logits. Where rounding alone moves the original further than that, the same model in double precision
decides: the export may lose one bit more than the original in single precision does, on one thread or on two; that is,
be at most twice as far from it, with at most twice as many other labels.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import resource
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import onnxruntime
import torch
from side import fill

import terrazzo as tz
import terrazzo.exporting.translations
from terrazzo.errors import UserError
from terrazzo.exporting.graph import Graph
from terrazzo.exporting.onnx_file import to_onnx
from terrazzo.exporting.trial import SIZES, blocks
from terrazzo.models.info import model_kind

LABELS, LOGITS = 0.9999, 1e-4
BIT = 2  # a factor of rounding errors: sums in another order
MINUTES = 15  # of a processor that one kind may take
NO_PART_OF_IT = {
    "auxiliary_head", "loss_decode", "sampler", "train_cfg", "test_cfg", "data_preprocessor", "num_classes",
    "out_channels", "drop_path_rate", "dropout_ratio", "pretrained", "init_cfg",
}  # fmt: skip
MARK = "<!-- written by benchmarks/exports.py -->"


def kinds() -> dict[str, list[str]]:
    """The recipes of each kind, one for each architecture."""
    found: dict[str, dict[str, str]] = {}
    for name in tz.recipes.names():
        model = tz.load_config(name).to_dict()["model"]
        found.setdefault(model_kind(model), {}).setdefault(json.dumps(architecture(model), sort_keys=True), name)
    return {kind: [*models.values()] for kind, models in sorted(found.items())}


def architecture(spec: Any) -> Any:
    """A model's config without what leaves its operators and widths as they are."""
    if isinstance(spec, dict):
        return {key: architecture(value) for key, value in spec.items() if key not in NO_PART_OF_IT}
    return [architecture(value) for value in spec] if isinstance(spec, (list, tuple)) else spec


def smallest(recipes: list[str]) -> str:
    """The recipe whose model has the fewest parameters."""

    def size(name: str) -> int:
        with torch.device("meta"):
            return sum(parameter.numel() for parameter in tz.build_model(name).parameters())

    return min(recipes, key=size) if len(recipes) > 1 else recipes[0]


def survey(recipes: list[str]) -> dict[str, Any]:
    """Export one kind and compare: at each size the share of equal labels, and the largest distances of logits."""
    if tz.load_config(recipes[0]).to_dict()["model"]["type"] == "DepthEstimator":
        return {"recipe": recipes[0], "failure": "estimates depth; exports are of class maps"}
    row: dict[str, Any] = {"recipe": smallest(recipes)}
    model: Any = tz.build_model(row["recipe"]).eval()
    fill(model)
    bands = 3 if model.preprocess.mean is None else model.preprocess.mean.numel()
    calibrate(model, bands)
    row["parameters"] = sum(parameter.numel() for parameter in model.parameters())
    graph = Graph(model, ("labels", "logits")).eval()

    began = time.perf_counter()
    try:
        file = to_onnx(graph, torch.randint(0, 255, (2, 203, 301, bands), dtype=torch.uint8)).SerializeToString()
    except UserError as problem:
        return row | {"failure": str(problem)}
    row |= {"seconds": time.perf_counter() - began, "bytes": len(file), "sizes": {}}
    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    images = {f"{h}x{w}": blocks(1 + number % 2, h, w, bands) for number, (h, w) in enumerate(SIZES)}
    exported = {size: session.run(None, {"image": image}) for size, image in images.items()}
    original = {size: run(graph, image) for size, image in images.items()}
    for size, (labels, logits) in exported.items():
        row["sizes"][size] = {
            "labels": float((labels == original[size][0]).mean()),
            "logits": distance(logits, original[size][1]),
        }
    if agrees(row):
        return row

    # Which of both is nearer to double precision
    torch.set_num_threads(2)
    again = {size: run(graph, image) for size, image in images.items()}
    torch.set_num_threads(1)
    with double_precision(model):
        judge = Graph(model, graph.outputs).eval()
        exact = {size: run(judge, image) for size, image in images.items()}
    for size, found in row["sizes"].items():
        labels, logits = exact[size]
        found["exact"] = {
            name: {"labels": float((side[size][0] == labels).mean()), "logits": distance(side[size][1], logits)}
            for name, side in (("export", exported), ("original", original), ("original, two threads", again))
        }
    return row


def calibrate(model: Any, bands: int) -> None:
    """Give batch norms the statistics of images: with random ones, some networks amplify rounding without bound."""
    norms = [module for module in model.modules() if isinstance(module, torch.nn.modules.batchnorm._BatchNorm)]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None
        norm.train()
    with torch.inference_mode():
        images = torch.from_numpy(blocks(8, 128, 192, bands)).permute(0, 3, 1, 2)
        model.decode(model.preprocess.pad_for_test(model.preprocess(images)))
    model.eval()


def run(graph: Any, images: Any) -> list[Any]:
    """Labels and logits in torch, as arrays."""
    with torch.inference_mode():
        return [value.numpy() for value in graph(torch.from_numpy(images))]


def distance(logits: Any, other: Any) -> float:
    """The largest difference, in standard deviations of the second."""
    return float(abs(logits - other).max() / other.std())


@contextmanager
def double_precision(model: Any) -> Iterator[None]:
    """A model with all it computes in double precision."""
    model.double()
    torch.set_default_dtype(torch.float64)
    try:
        yield
    finally:
        torch.set_default_dtype(torch.float32)
        model.float()


def agrees(row: dict[str, Any]) -> bool:
    """Return whether labels and logits are equal to the original's within the two bounds."""
    return all(found["labels"] >= LABELS and found["logits"] <= LOGITS for found in row["sizes"].values())


def rounds(row: dict[str, Any]) -> bool:
    """Return whether the export is as near to double precision as the original, to a bit, wherever they differ."""
    for found in row["sizes"].values():
        if found["labels"] >= LABELS and found["logits"] <= LOGITS:
            continue
        export, *originals = found["exact"].values()
        if export["logits"] > BIT * max(side["logits"] for side in originals):
            return False
        lost = 1 - min(side["labels"] for side in originals)
        if 1 - export["labels"] > BIT * lost + (1 - LABELS):
            return False
    return True


def verdict(row: dict[str, Any]) -> str:
    """`equal`, `equal within rounding`, `differs`, or why there is no file."""
    if "failure" in row:
        return row["failure"]
    return "equal" if agrees(row) else "equal within rounding" if rounds(row) else "differs"


def in_own_process(recipes: list[str], gibibytes: int) -> dict[str, Any]:
    """The survey of a kind by a process that may allocate so much memory, and take MINUTES."""
    context = multiprocessing.get_context("fork")  # the libraries are imported once
    receiver, sender = context.Pipe(duplex=False)

    def work() -> None:
        resource.setrlimit(resource.RLIMIT_DATA, (gibibytes << 30, gibibytes << 30))
        resource.setrlimit(resource.RLIMIT_CPU, (60 * MINUTES, 60 * MINUTES))
        try:
            sender.send(survey(recipes))
        except Exception as problem:
            sender.send({"recipe": recipes[0], "failure": f"{type(problem).__name__}: {problem}".splitlines()[0]})

    process = context.Process(target=work)
    process.start()
    sender.close()
    try:
        return receiver.recv()
    except EOFError:
        process.join()
        return {"recipe": recipes[0], "failure": f"ended by signal {-(process.exitcode or 0)}"}


def table(results: dict[str, Any]) -> Iterator[str]:
    """The rows of the page's table."""
    columns = ("kind", "recipe", "parameters", "file", "labels", "logits", "export, original: from double", "result")
    yield "| " + " | ".join(columns) + " |"
    yield "|---" * len(columns) + "|"
    for kind, row in sorted(results.items()):
        cells = [kind, f"`{row['recipe']}`", "", "", "", "", ""]
        if "sizes" in row:
            sizes = row["sizes"].values()
            worst = max(sizes, key=lambda found: found["logits"])
            cells[2:6] = [
                f"{row['parameters'] / 1e6:.1f} M",
                f"{row['bytes'] / 1e6:.0f} MB",
                f"{100 * min(found['labels'] for found in sizes):.3f} %",
                f"{worst['logits']:.0e}",
            ]
            if "exact" in worst:
                export, *originals = worst["exact"].values()
                cells[6] = f"{export['logits']:.0e}, {max(side['logits'] for side in originals):.0e}"
        yield "| " + " | ".join([*cells, verdict(row)]) + " |"


def write_page(path: Path, results: dict[str, Any]) -> None:
    """Replace what follows MARK in a page."""
    head, mark, _ = path.read_text(encoding="utf-8").partition(MARK)
    assert mark, f"{path} has no line {MARK}"
    counts: dict[str, int] = {}
    for row in results.values():
        name = "not exported" if "failure" in row else verdict(row)
        counts[name] = counts.get(name, 0) + 1
    told = ", ".join(f"{count} {name}" for name, count in counts.items())
    measured = f"{len(results)} of {len(kinds())} kinds: {told}."
    text = "\n".join([f"{head}{MARK}", "", measured, "", *table(results), ""])
    path.write_text(text, encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kinds", nargs="+", metavar="TEXT", help="those whose name contains one of these")
    parser.add_argument("--again", action="store_true", help="also those that --results holds")
    parser.add_argument("--results", type=Path, default=Path("exports.json"), metavar="F.json")
    parser.add_argument("--memory", type=int, default=12, metavar="GiB", help="of one kind's process (default 12)")
    parser.add_argument("--page", type=Path, metavar="F.md", help="only write the table of --results into this page")
    args = parser.parse_args()
    results: dict[str, Any] = json.loads(args.results.read_text()) if args.results.exists() else {}
    if args.page:
        write_page(args.page, results)
        return
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    for kind, recipes in kinds().items():
        chosen = args.kinds is None or any(text in kind for text in args.kinds)
        if chosen and (args.again or kind not in results):
            row = results[kind] = in_own_process(recipes, args.memory)
            print(f"{kind} ({row['recipe']}): {verdict(row)}", flush=True)
            args.results.write_text(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
