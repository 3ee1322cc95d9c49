"""How the source is laid out: which floor imports which, how fast it starts, how long its files are."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

import terrazzo
from support.paths import REPOSITORY
from support.tiny import environment

ROOT = Path(terrazzo.__file__).parent
FILES = sorted(ROOT.rglob("*.py"))
FLOORS = (
    "system", "hub", "recipes", "config", "models", "transforms", "data", "metrics", "viz", "inference", "evaluation",
    "web", "exporting", "serving", "integrations", "training", "checkpoints", "demo", "compat", "cli",
)  # fmt: skip
# the single modules beside these folders are the first floor; `__init__` forwards to all, `__main__` starts the cli
DOORS = ("__init__", "__main__")
CORE = {"torch", "numpy", "scipy", "PIL", "yaml", "safetensors", "rich", "cv2", "pydantic", "matplotlib"}


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def floor_of(parts: tuple[str, ...]) -> int | None:
    """The floor of a module given below `terrazzo`: 0 for single modules, None for the package itself."""
    if not parts or parts[0] in DOORS:
        return None
    return 1 + FLOORS.index(parts[0]) if parts[0] in FLOORS else 0


@cache
def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def imported(node: ast.AST) -> list[str]:
    """The modules that an import statement names."""
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if isinstance(node, ast.ImportFrom) and node.level == 0:
        if node.module == "terrazzo":
            return [f"terrazzo.{alias.name}" for alias in node.names]
        return [str(node.module)]
    return []


def imports(path: Path) -> Iterator[tuple[int, str]]:
    """(line, module) of every import of a file, those inside functions included."""
    for node in ast.walk(tree_of(path)):
        yield from ((node.lineno, name) for name in imported(node))


def top_imports(path: Path) -> Iterator[tuple[int, str]]:
    """(line, module) of what is imported when the file is, `if TYPE_CHECKING` left out."""
    waiting: list[ast.AST] = [tree_of(path)]
    while waiting:
        for node in ast.iter_child_nodes(waiting.pop()):
            if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
                continue
            if not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)):
                waiting.append(node)
            yield from ((node.lineno, name) for name in imported(node))


def test_a_floor_imports_only_from_floors_above():
    wrong = []
    for path in FILES:
        own = floor_of(path.relative_to(ROOT).with_suffix("").parts)
        for line, name in imports(path):
            other = floor_of(tuple(name.split(".")[1:])) if name.startswith("terrazzo.") else None
            if own is not None and other is not None and other > own:
                wrong.append(f"{name_of(path)}, line {line}, imports {name}, which stands below it")
    assert not wrong, "\n".join(wrong)


def test_floors():
    assert [floor_of((folder, "module")) for folder in FLOORS] == list(range(1, len(FLOORS) + 1))
    assert floor_of(("errors",)) == 0
    assert floor_of(("__init__",)) is floor_of(("__main__",)) is None


def test_every_folder_is_a_floor():
    folders = {path.parent.name for path in ROOT.glob("*/*.py")}
    assert folders == set(FLOORS)


def test_no_import_is_relative():
    for path in FILES:
        for node in ast.walk(tree_of(path)):
            assert not (isinstance(node, ast.ImportFrom) and node.level), f"{name_of(path)}, line {node.lineno}"


def test_no_extra_library_at_a_modules_top():
    known = CORE | {"terrazzo"} | set(sys.stdlib_module_names)
    extra = [
        f"{name_of(path)}, line {line}: import {name} where it is needed, it comes with an extra"
        for path in FILES
        for line, name in top_imports(path)
        if name.partition(".")[0] not in known
    ]
    assert not extra, "\n".join(extra)


def test_the_core_is_what_the_package_asks_for():
    text = (REPOSITORY / "pyproject.toml").read_text(encoding="utf-8")
    section = text.split("\ndependencies = [")[1].split("]")[0]
    names = set(re.findall(r'"([\w-]+)', section))
    other_names = {"pillow": "PIL", "pyyaml": "yaml", "opencv-python-headless": "cv2"}
    assert {other_names.get(name, name) for name in names} == CORE


def tables(path: Path) -> Iterator[ast.stmt]:
    """The tables of data: what is assigned at a module's top over more than a few lines."""
    assigned = (node for node in tree_of(path).body if isinstance(node, (ast.Assign, ast.AnnAssign)))
    return (node for node in assigned if node.end_lineno - node.lineno > 3)


def lines_of_code(path: Path) -> int:
    """Lines outside tables of data."""
    lines = len(path.read_text(encoding="utf-8").splitlines())
    return lines - sum(node.end_lineno - node.lineno + 1 for node in tables(path))


def test_files_are_short():
    long = {name_of(path): lines for path in FILES if (lines := lines_of_code(path)) >= 420}
    assert not long, f"one idea a file: {long}"


def docstrings(path: Path) -> Iterator[str]:
    for node in ast.walk(tree_of(path)):
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
            yield ast.get_docstring(node) or ""


def test_docstrings_open_with_a_noun_or_a_verb():
    openings = re.compile(r"(What|Whether|That|How|Where|When|If)\b")
    found = [
        f"{name_of(path)}: {text.splitlines()[0]}"
        for path in FILES
        for text in docstrings(path)
        if openings.match(text)
    ]
    assert not found, "\n".join(found)


def tracked() -> list[Path]:
    listed = subprocess.run(["git", "ls-files"], cwd=REPOSITORY, capture_output=True, text=True)
    if listed.returncode:
        pytest.skip("not a git checkout")
    paths = [REPOSITORY / name for name in listed.stdout.splitlines()]
    return [path for path in paths if path.is_file() and path != Path(__file__)]


WORKPLACE = re.compile(r"(?<![\w.])/work/(?!flow)\w+|shared/(design|style|golden|data)\b|/tmp/BRIEF")


def test_no_file_mentions_where_it_was_written():
    for path in tracked():
        try:
            text = path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue
        found = WORKPLACE.search(text)
        assert not found, f"{path.relative_to(REPOSITORY)} mentions {found}"


# Starting


def seconds(*command: str) -> float:
    """The shortest of five times: the machine may be busy."""
    times = []
    for _ in range(5):
        started = time.perf_counter()
        subprocess.run(command, env=environment(), check=True, capture_output=True)
        times.append(time.perf_counter() - started)
    return min(times)


def test_import_is_fast():
    bare = seconds(sys.executable, "-c", "pass")
    assert seconds(sys.executable, "-c", "import terrazzo") < 0.3 + bare


def test_help_is_fast():
    bare = seconds(sys.executable, "-c", "pass")
    assert seconds(sys.executable, "-m", "terrazzo", "--help") < 0.6 + bare


HEAVY = {"torch", "numpy", "cv2", "scipy", "PIL", "rich", "yaml", "safetensors", "pydantic", "matplotlib"}


def imported_by(statement: str, names: set[str]) -> str:
    """Those of the modules that a statement imports."""
    code = f"import sys; {statement}; print(*(set(sys.modules) & {names}))"
    result = subprocess.run([sys.executable, "-c", code], env=environment(), capture_output=True, text=True)
    assert result.stderr == ""
    return result.stdout.strip()


@pytest.mark.parametrize("statement", ["import terrazzo", "import terrazzo.cli.main as m; m.make_parser('train')"])
def test_nothing_heavy_is_imported_at_the_start(statement):
    assert imported_by(statement, HEAVY) == ""


def test_a_recipe_is_read_without_pydantic():
    statement = "import terrazzo as tz; tz.load_config('pspnet_r50-d8_4xb2-40k_cityscapes-512x1024')"
    assert imported_by(statement, {"pydantic"}) == ""
    short = "tz.load_config({'recipe': 'unet', 'data': {'classes': ['a', 'b']}})"
    assert imported_by(f"import terrazzo as tz; {short}", {"pydantic"}) == "pydantic"


BUILDING_AND_LOADING = """
import sys
import numpy as np
import terrazzo as tz
for family in ("segformer", "mask2former", "segnext", "knet", "unet"):
    tz.build_model(tz.recipes.family(family))
assert set(np.unique(tz.load(device="cpu")(np.zeros((64, 96, 3), np.uint8)).labels)) <= set(range(11))
print(*sorted({"torch._dynamo", "scipy"} & set(sys.modules)))
"""


def test_building_and_loading_models_import_neither_the_compiler_nor_scipy():
    result = subprocess.run(
        [sys.executable, "-c", BUILDING_AND_LOADING], env=environment(), capture_output=True, text=True
    )
    assert (result.stdout.strip(), result.returncode) == ("", 0), result.stderr


def test_every_public_name_is_there():
    for name in terrazzo.__all__:
        assert getattr(terrazzo, name) is not None
    assert terrazzo.recipes.__name__ == "terrazzo.recipes"
    with pytest.raises(AttributeError, match="has no attribute 'nonsense'"):
        _ = terrazzo.nonsense
