"""How many modules and models of projects built on MMSegmentation run here, given their checkouts.

python benchmarks/plugins.py CHECKOUT... [--imports] [--peer PYTHON] [--out results.jsonl]

Each project runs in a process of its own: every module of its own that imports the packages is imported, and every
config is loaded, its model built, run on an image and, with random labels, trained for one loss. Nothing is kept.
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import json
import re
import signal
import subprocess
import sys
import tempfile
import traceback
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

PACKAGES = "mmseg|mmcv|mmengine|mmdet|mmpretrain|mmcls"
IMPORT = re.compile(rf"^\s*(?:from|import)\s+(?:{PACKAGES})\b", re.MULTILINE)
SKIPPED = {
    "configs",
    "local_configs",
    "tests",
    "docs",
    "tools",
    "demo",
    ".dev",
    ".dev_scripts",
    "examples",
    "setup.py",
}
ELSEWHERE = {  # no segmentation
    "docs", "tests", "detection", "hlg-detection", "classification", "wsdm2023", "object_detection", "Object Detection",
    "autonomous_driving",
}  # fmt: skip
OTHER_TASKS = {"ImageClassifier", "FasterRCNN", "MaskRCNN", "CascadeRCNN", "SwinUNETR_SelfSupervisor"}
# what no installation of the packages could run: message -> reason
BROKEN = {
    r"there is no config file": "base file that the checkout lacks",
    r"neither a file nor in the cache|Hugging Face hub model": "download",
    r"invalid syntax|syntax error|SyntaxError": "syntax error of the author's",
    r"NameError|cannot import name": "name that the project does not define",
}
SECONDS = 300
CONFIGS = ("configs", "local_configs")  # folders


@contextlib.contextmanager
def limit(seconds: int) -> Iterator[None]:
    def stop(*_: Any) -> None:
        raise TimeoutError(f"more than {seconds} seconds of processor time")

    signal.signal(signal.SIGPROF, stop)
    signal.setitimer(signal.ITIMER_PROF, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)


def foreign_package(problem: BaseException) -> str:
    """The package that a module needs and that is neither a project's own nor one that is answered; or ""."""
    seen: BaseException | None = problem
    while seen is not None:
        name = (seen.name or "") if isinstance(seen, ModuleNotFoundError) else ""
        folders = [*map(Path, sys.path[:2] + sys.path[-1:])]
        own = any(folder.joinpath(name.partition(".")[0]).exists() for folder in folders)
        there = any(folder.joinpath(*name.split(".")).with_suffix(".py").is_file() for folder in folders)
        if name and not there and not re.match(rf"({PACKAGES})\b", name):
            return "module that the checkout lacks" if own else name.partition(".")[0]
        if type(seen).__name__ == "URLError":  # weights of the internet
            return "download"
        if kernel := re.search(r"(?i)cuda|nvcc|triton|\.so\b", str(seen)):
            return kernel.group().lower()
        for pattern, why in BROKEN.items():
            if re.search(pattern, f"{type(seen).__name__}: {seen}"):
                return why
        seen = seen.__cause__ or seen.__context__
    return ""


def reason(problem: BaseException) -> str:
    frames = traceback.extract_tb(problem.__traceback__)
    place = f"{Path(frames[-1].filename).name}:{frames[-1].lineno}"
    return f"{type(problem).__name__}: {' '.join(str(problem).split())[:400]} [{place}]"


def roots(checkout: Path) -> list[Path]:
    """The folders of a checkout from which the modules of configs are imported."""
    from terrazzo.config.projects import project_of

    found = {project_of(path / "x.py") for name in CONFIGS for path in checkout.rglob(name) if path.is_dir()}
    return sorted(root for root in found if not any(part in ELSEWHERE for part in root.relative_to(checkout).parts))


def own_modules(root: Path) -> list[Path]:
    """A project's own modules that import the packages."""
    from terrazzo.compat.finder import MODULES
    from terrazzo.config.projects import module_name

    files = []
    for path in sorted(root.rglob("*.py")):
        inside = path.relative_to(root)
        if (
            (SKIPPED | ELSEWHERE) & set(inside.parts)
            or module_name(path, root) in MODULES
            or path.name in ("train.py", "test.py")
        ):
            continue
        with contextlib.suppress(OSError):
            text = path.read_text(encoding="utf-8", errors="replace")
            if IMPORT.search(text) and path.name != "__init__.py":
                files.append(path)
    return files


def try_imports(root: Path) -> Iterator[dict[str, Any]]:
    import importlib

    from terrazzo.compat import add_fork
    from terrazzo.compat.forks import import_file
    from terrazzo.config.projects import module_name

    add_fork(root)
    sys.path.insert(0, str(root))
    importlib.invalidate_caches()
    for path in own_modules(root):
        row: dict[str, Any] = {"kind": "import", "file": str(path)}
        try:
            with limit(SECONDS):
                import_file(module_name(path, root), root)
        except (Exception, SystemExit) as problem:
            row["error"] = reason(problem)
            row["foreign"] = foreign_package(problem)
        yield row


def is_config(path: Path) -> bool:
    text = path.read_text(encoding="utf-8", errors="replace")
    return "_base_" not in path.parts and ("_base_" in text or "model" in text or "read_base" in text)


def own_names(root: Path) -> set[str]:
    """The names under which a project's own files register something."""
    from terrazzo.compat.finder import MODULES
    from terrazzo.config.projects import registering

    return {name for name, modules in registering(root).items() if any(module not in MODULES for module in modules)}


def words(path: Path, seen: frozenset[Path] = frozenset()) -> set[str]:
    """The words of a config and of its bases."""
    if path in seen or not path.is_file():
        return set()
    text = path.read_text(encoding="utf-8", errors="replace")
    found = set(re.findall(r"\w+", text))
    for base in re.findall(r"['\"]([^'\"\n]+\.py)['\"]", text):
        found |= words((path.parent / base).resolve(), seen | {path})
    for dots, module in re.findall(r"from (\.+)([\w.]*) import", text):
        folder = path.parents[len(dots) - 1]
        found |= words(folder.joinpath(*module.split(".")).with_suffix(".py"), seen | {path})
    return found


def try_configs(root: Path, most: int, keep: Path | None = None) -> Iterator[dict[str, Any]]:
    import torch

    import terrazzo as tz
    from terrazzo.models.protocols import as_segmentor

    inside = ((path, {*path.relative_to(root).parts}) for path in sorted(root.rglob("*.py")))
    paths = [path for path, parts in inside if parts & {*CONFIGS} and not parts & ELSEWHERE and is_config(path)]
    own = own_names(root)
    seen: collections.Counter[str] = collections.Counter()
    for path in paths:
        if not own & (found := words(path)) or OTHER_TASKS & found:
            continue  # an official model, or none of segmentation
        row: dict[str, Any] = {"kind": "config", "file": str(path), "stage": "load"}
        try:
            with limit(SECONDS):
                torch.manual_seed(0)
                config = tz.load_config(path, trust=True)
                row["own"] = bool(own_types(config.to_dict().get("model")))
                key = f"{path.parent.name}/{sorted(own_types(config.to_dict().get('model')))}"
                seen[key] += 1
                if not row["own"] or seen[key] > most:
                    continue
                row["stage"] = "build"
                with torch.device("cpu"):
                    model: Any = as_segmentor(tz.build_model(config))
                size = 128
                try:
                    run(model, bands_of(config), size, row)
                except (RuntimeError, ValueError, ArithmeticError):
                    if (size := crop_of(config)) == 128:
                        raise
                    run(model, bands_of(config), size, row)  # a model of one size
                row["stage"] = "done"
                if keep is not None:
                    keep_run(keep, path, root, config, model, size)
        except (Exception, SystemExit) as problem:
            row["error"] = reason(problem)
            row["foreign"] = foreign_package(problem)
        yield row


def run(model: Any, bands: int, size: int, row: dict[str, Any]) -> None:
    """Predict an image, and train for one loss of two with random labels."""
    import torch

    row["stage"] = "forward"
    images = torch.randn(2, bands, size, size)
    with torch.no_grad():
        row["classes"] = int(model.eval()(images[:1]).shape[1])
    row["stage"] = "loss"
    labels = torch.randint(0, max(model.final_head.num_classes, 2), (2, size, size))
    losses = model.train().loss(images, labels)
    total = sum(value for name, value in losses.items() if "loss" in name)
    total.backward()
    row["loss"] = float(total)


def crop_of(config: Any) -> int:
    """The side of the images that a model is trained on, or of those that its backbone is made for."""
    values = config.to_dict()
    side = values["model"].get("backbone", {}).get("img_size") or values.get("crop_size") or 128
    return min(1024, int(min(side) if isinstance(side, (list, tuple)) else side))


def bands_of(config: Any) -> int:
    """The channels of a model's images, by its preprocessor's mean or its backbone; pairs of images have six."""
    found = config.to_dict()
    section = found.get("data_preprocessor") or found["model"].get("data_preprocessor") or {}
    if isinstance(section, dict) and section.get("mean"):
        return len(section["mean"])
    backbone = found["model"].get("backbone") or {}
    return int(backbone.get("in_channels") or backbone.get("input_channels") or 3)


def keep_run(folder: Path, path: Path, root: Path, config: Any, model: Any, size: int) -> None:
    """Keep a model's weights, its logits and its losses without random parts, for the peer to compute them too."""
    import torch

    torch.manual_seed(1)
    images = torch.randn(2, bands_of(config), size, size)
    labels = torch.randint(0, max(model.final_head.num_classes, 2), (2, size, size))
    with torch.no_grad():
        model.eval()
        logits = model(images)
        losses = {name: float(value.mean()) for name, value in model.loss(images, labels).items()}
    content: dict[str, Any] = {
        "config": str(path),
        "root": str(root),
        "scope": config.to_dict().get("default_scope") or "mmseg",
        "state": model.state_dict(),
        "images": images,
        "labels": labels,
        "logits": logits,
        "losses": losses,
    }
    own = [sys.modules[type(part).__module__] for part in model.modules() if type(part).__module__ in sys.modules]
    files = {str(module.__file__) for module in own if str(getattr(module, "__file__", "")).startswith(str(root))}
    content["modules"] = sorted(files)
    name = re.sub(r"\W+", "-", str(path.relative_to(root.parent.parent)))
    torch.save(content, folder / f"{name}.pt")


def own_types(model: Any) -> set[str]:
    """The types in a model's config that its project defines."""
    from terrazzo.config.projects import texts_in
    from terrazzo.registry import MODELS

    names = {text.rpartition(".")[2].rstrip(">") for text in texts_in(model)}
    return {name for name in names if name in MODELS.raw} - {"EncoderDecoder", "CascadeEncoderDecoder"}


EXPORTS = (
    "mmcv.cnn mmcv.image mmcv.transforms mmengine.config mmengine.dataset mmengine.device mmengine.dist "
    "mmengine.evaluator mmengine.fileio mmengine.hooks mmengine.hub mmengine.infer mmengine.logging mmengine.model "
    "mmengine.optim mmengine.registry mmengine.runner mmengine.structures mmengine.utils mmengine.visualization "
    "mmseg.apis mmseg.datasets mmseg.datasets.transforms mmseg.engine mmseg.evaluation mmseg.models "
    "mmseg.models.backbones mmseg.models.decode_heads mmseg.models.losses mmseg.models.necks mmseg.models.segmentors "
    "mmseg.models.utils mmseg.registry mmseg.structures mmseg.utils mmseg.visualization"
)
LIST = (
    "import importlib, json, sys; print(json.dumps({name: sorted(n for n in getattr(importlib.import_module(name), "
    "'__all__', ()) if not n.startswith('_')) for name in sys.argv[1:]}))"
)


def state_of(item: Any) -> str:
    """What a name does here."""
    from terrazzo.compat.engine import hooks, tools
    from terrazzo.compat.models import layers

    if advice := getattr(item, "advice", None):
        return f"can be imported, does not run: {advice}"
    idle = (tools.plain_decorator, tools.TABLE["init_dist"], layers.unchanged)
    if item in idle or (isinstance(item, type) and issubclass(item, hooks.Place)):
        return "accepted; terrazzo does this itself"
    origin = str(getattr(item, "__module__", ""))
    shown = "" if origin.startswith("terrazzo.compat") else f"; it is `{origin}.{getattr(item, '__name__', '')}`"
    return "works" + (shown if origin.startswith("terrazzo.") else "")


def names_table(peer: Path) -> str:
    """A page of the names that the packages export, with what each does here."""
    from terrazzo.compat import finder

    run = subprocess.run([peer, "-c", LIST, *EXPORTS.split()], capture_output=True, text=True, check=True, cwd="/")
    exported = json.loads(run.stdout.splitlines()[-1])
    lines = ["# Names of MMSegmentation's packages", ""]
    lines += [
        "Made by `python benchmarks/plugins.py --names docs/names.md --peer PYTHON`, PYTHON having the packages.",
        "",
    ]
    answered = {name for names in exported.values() for name in names}
    further = [name for name in finder.public_names() if name not in answered]
    for module, names in exported.items():
        known = [name for name in names if name not in finder.FOLDERS.split()]
        found = {name: finder.look_up(name) for name in known}
        lines += [f"## {module}", "", "| Name | State |", "| --- | --- |"]
        lines += [
            f"| `{name}` | {'not answered' if item is None else state_of(item)} |" for name, item in found.items()
        ]
        lines.append("")
    lines += ["## Further names, of 0.x and of inner modules", "", "| Name | State |", "| --- | --- |"]
    lines += [f"| `{name}` | {state_of(finder.look_up(name))} |" for name in further]
    return "\n".join(lines) + "\n"


def survey(root: Path, most: int, imports: bool, keep: Path | None) -> None:
    """Print one JSON object a line for a project."""
    import terrazzo.compat  # noqa: F401

    warnings.simplefilter("ignore")
    rows = try_imports(root) if imports else try_configs(root, most, keep)
    for row in rows:
        print("ROW " + json.dumps(row), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("checkouts", nargs="*", type=Path)
    parser.add_argument("--names", type=Path, metavar="FILE", help="write the table of names (with --peer)")
    parser.add_argument("--one", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--imports", action="store_true", help="import modules only; build no model")
    parser.add_argument("--configs", action="store_true", help="build models only")
    parser.add_argument("--most", type=int, default=1, help="configs of a folder with the same types")
    parser.add_argument("--keep", type=Path, metavar="FOLDER", help="keep weights, logits and losses of what runs")
    parser.add_argument("--peer", type=Path, metavar="PYTHON", help="compare with that Python's packages")
    parser.add_argument("--out", type=Path, help="write the rows as JSON lines")
    args = parser.parse_args()
    if args.names:
        args.names.write_text(names_table(args.peer), encoding="utf-8")
        return
    if args.one:
        survey(args.checkouts[0].resolve(), args.most, args.imports, args.keep)
        return
    if args.peer:
        args.keep = args.keep or Path(tempfile.mkdtemp())
    if args.keep:
        args.keep.mkdir(parents=True, exist_ok=True)
    kept = ["--keep", str(args.keep.resolve())] if args.keep else []
    rows = []
    for checkout in args.checkouts:
        for root in roots(checkout.resolve()):
            for flag in (["--imports"] if not args.configs else []) + ([] if args.imports else ["--configs"]):
                command = [sys.executable, __file__, str(root), "--one", flag, "--most", str(args.most), *kept]
                result = subprocess.run(command, capture_output=True, text=True, check=False, cwd=root)
                own = [json.loads(line[4:]) for line in result.stdout.splitlines() if line.startswith("ROW ")]
                rows += own
                if args.out:
                    args.out.write_text("\n".join(map(json.dumps, rows)) + "\n", encoding="utf-8")
                if result.returncode:
                    print(f"{root}: {result.stderr[-2000:]}")
                done = sum("error" not in row for row in own)
                print(f"{flag[2:]:8} {done:4} of {len(own):4}  {root}", flush=True)
    summary(rows)
    if args.peer:
        script = Path(__file__).with_name("plugins_peer.py").resolve()
        subprocess.run([args.peer, script, *sorted(args.keep.glob("*.pt"))], check=False)
        failed = [row["file"] for row in rows if row["kind"] == "config" and "error" in row and not row.get("foreign")]
        for checkout in args.checkouts:
            for root in roots(checkout.resolve()):
                if own := [file for file in failed if Path(file).is_relative_to(root)]:
                    subprocess.run([args.peer, "-W", "ignore", script, *own], check=False, cwd=root)


def summary(rows: list[dict[str, Any]]) -> None:
    """Print how many rows of each kind are done, those that need another package apart, and the reasons of the rest."""
    for kind in ("import", "config"):
        own = [row for row in rows if row["kind"] == kind and (kind == "import" or row.get("own") or "error" in row)]
        foreign = collections.Counter(row["foreign"] for row in own if row.get("foreign"))
        other = [row for row in own if not row.get("foreign")]
        print(f"{kind}: {sum('error' not in row for row in other)} of {len(other)}", end="; ")
        print(
            f"{foreign.total()} need other packages or kernels, or are broken themselves: {dict(foreign.most_common())}"
        )
        for row in other:
            if "error" in row:
                print(f"  {row['file']} [{row.get('stage', 'import')}]\n    {row['error']}")


if __name__ == "__main__":
    main()
