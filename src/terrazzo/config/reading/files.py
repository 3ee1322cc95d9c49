"""Read a config file with everything that it builds on."""

from __future__ import annotations

import ast
import functools
import os
import re
import stat
import sys
import warnings
from dataclasses import dataclass
from pathlib import Path
from types import FunctionType
from typing import Any

from terrazzo.config.config import Config
from terrazzo.config.python_files.evaluate import BASE_KEY, Evaluator, is_base_assignment, is_read_base
from terrazzo.config.python_files.expressions import MISTAKES, show_line
from terrazzo.config.python_files.limits import MAX_FILE_BYTES, MAX_FILES, ComputeBudget, Refused, weigh
from terrazzo.config.python_files.trusted import run_trusted
from terrazzo.config.reading.bases import base_rate, contained_recipe, recipe_base
from terrazzo.config.reading.markup import read_markup
from terrazzo.config.reading.merge import apply_overrides, merge, merge_bases
from terrazzo.config.reading.section import ImportedName, InheritedSection, Section, convert
from terrazzo.config.reading.variables import Variables
from terrazzo.config.v0.bases import older_base
from terrazzo.config.v0.upgrade import NEWER, OWN
from terrazzo.errors import UserError, nearest
from terrazzo.recipes.published import RecipeRecord

SUFFIXES = (".py", ".yaml", ".yml", ".json")
# `optimizer` is a section of 0.x, and a variable beside sections of 1.x
OLD_SECTION = re.compile(rf"^({'|'.join(OWN)}|optimizer)\s*=", re.MULTILINE)
NEW_SECTION = re.compile(rf"^({'|'.join(NEWER)})\s*=", re.MULTILINE)
MAX_CHAIN = 30  # base files of base files
TOOLBOXES = ("mmseg", "mmengine", "mmcv", "mmdet", "mmpretrain", "mmcls", "torch", "terrazzo")


def read_config(path: str | Path, *, overrides: dict[str, Any] | None = None, trust: bool = False) -> Config:
    """Read a config file as written: merged with its base files and resolved, in its own vocabulary.

    `.py` files are evaluated by a safe subset of Python; `trust=True` runs them, and their base files, instead.
    `overrides` sets dotted keys. Raises UserError that names the file, the line and the key at fault.
    """
    reader = Reader(trust)
    values = reader.read(Path(path))
    recipe = reader.recipe if base_rate(values) == reader.recipe_rate else None  # another rate is for another batch
    config = Config({}, path, recipe=recipe, secrets=reader.secrets)
    return config.with_values(apply_overrides(values, overrides or {}))


@dataclass(frozen=True)
class Source:
    """A parsed `.py` file, shared by all readings of it."""

    lines: list[str]
    text: str  # with a name instead of each `{{ }}` variable
    found: list[Any]
    tree: ast.Module
    uses_base: bool  # as a name: `_base_.model.backbone`


@functools.lru_cache(maxsize=256)
def parse_python(path: Path, text: str) -> Source:
    """Parse a `.py` file. Raises UserError with the line of a syntax error."""
    variables = Variables(path, ComputeBudget())
    replaced = variables.extract(text)
    lines = text.splitlines()
    try:
        tree = ast.parse(replaced, str(path))
    except SyntaxError as error:
        raise UserError(show_line(path, error.lineno or 1, lines, f"syntax error: {error.msg}")) from None
    except (RecursionError, MemoryError, ValueError) as error:
        raise UserError(f"{path}: cannot be parsed as Python ({str(error) or 'it is nested too deeply'})") from None
    uses_base = any(isinstance(node, ast.Name) and node.id == BASE_KEY for node in ast.walk(tree))
    return Source(lines, replaced, variables.found, tree, uses_base)


class Reader:
    """The reading of one config: its cost so far, and the chain of files that leads to the one being read."""

    def __init__(self, trust: bool = False) -> None:
        self.trust = trust
        self.recipe: RecipeRecord | None = None  # that a base file, or the file itself, was expanded from
        self.recipe_rate: tuple[Any, Any] = (None, None)
        self.budget = ComputeBudget()
        self.secrets: dict[str, Any] = {}  # read from the environment
        self.files = 0
        self.chain: list[str] = []
        self.types: dict[str, Any] = {}  # that the file read last has imported

    def read(self, path: Path, asked_by: str = "", lazy: bool = False) -> Section:
        """Read the public keys of a file, merged into those of its base files."""
        text = load_text(path, asked_by)
        identity = os.path.realpath(path)
        if identity in self.chain:
            way = " -> ".join([*self.chain[self.chain.index(identity) :], identity])
            raise UserError(f"{asked_by or path}: the base files form a cycle: {way}")
        self.files += 1
        if self.files > MAX_FILES or len(self.chain) >= MAX_CHAIN:
            raise UserError(f"{asked_by or path}: more than {MAX_FILES} base files, or a chain of over {MAX_CHAIN}")
        self.chain.append(identity)
        try:
            self.budget.spend(len(text) // 2)
            return self.read_python(path, text, lazy) if path.suffix.lower() == ".py" else self.read_markup(path, text)
        except Refused as refusal:
            raise UserError(f"{path}: the config {refusal}") from None
        finally:
            self.chain.pop()

    def read_python(self, path: Path, text: str, lazy: bool) -> Section:
        source = parse_python(path, text)
        variables = Variables(path, self.budget, source.found, trust=self.trust, secrets=self.secrets)
        evaluator = Evaluator(path, source.lines, variables, self.budget)
        assignments = [statement for statement in source.tree.body if is_base_assignment(statement)]
        if len(assignments) > 1:
            raise UserError(show_line(path, assignments[1].lineno, source.lines, "_base_ is assigned twice"))
        base = Section()
        if assignments:
            names = evaluator.evaluate(assignments[0].value)  # type: ignore[attr-defined]
            base = self.read_bases(path, names, f"{path}:{assignments[0].lineno}")
        evaluator.variables.base = base
        if source.uses_base:
            evaluator.names[BASE_KEY] = self.inherited(base)
        self.allow_imports(evaluator, source.tree, classic=bool(assignments), lazy=lazy)
        if self.trust:
            own = run_trusted(path, source.text, source.lines, evaluator)
        else:
            own = evaluator.run(source.tree)
        values = merge(base, own)
        named = {name: evaluator.names.get(name) for name in evaluator.imported}
        self.types = {
            name: kind for name, kind in named.items() if isinstance(kind, (ImportedName, type, FunctionType))
        }
        self.record_recipe(contained_recipe(path.stem, values), values)
        return values

    def record_recipe(self, recipe: RecipeRecord | None, values: Section) -> None:
        """Remember the recipe that the values read so far come from, unless it is None."""
        if recipe is not None:
            self.recipe, self.recipe_rate = recipe, base_rate(values)

    def allow_imports(self, evaluator: Evaluator, tree: ast.Module, classic: bool, lazy: bool) -> None:
        """Let a lazy config name types by importing them; nothing is imported, and never from the standard library."""
        if classic:
            return
        lazy = lazy or any(is_read_base(statement) for statement in tree.body)

        def may_import(module: str) -> bool:
            package = module.split(".")[0]
            return package in TOOLBOXES or (lazy and bool(package) and package not in sys.stdlib_module_names)

        def import_base(node: ast.ImportFrom) -> Section:
            return self.inherited(self.read_imported(evaluator.path, node, f"{evaluator.path}:{node.lineno}"))

        evaluator.may_import, evaluator.import_base = may_import, import_base
        evaluator.base_types = lambda: self.types

    def read_markup(self, path: Path, text: str) -> Section:
        variables = Variables(path, self.budget, trust=self.trust, secrets=self.secrets)
        own = read_markup(variables.extract(text), path, self.budget, variables.is_variable)
        names = fill(own.pop(BASE_KEY, []), variables, "")
        variables.base = self.read_bases(path, names, own.origin_of(BASE_KEY) or str(path))
        if variables.found:
            own = fill(own, variables, str(path))
            self.budget.spend(weigh(own, self.budget))
        for key in list(own):
            if not isinstance(key, str):
                raise UserError(f"{own.origin_of(key)}: the key {key!r} at the top of a config must be a name")
            if key.startswith("_"):
                del own[key]
        return merge(variables.base, own)

    def inherited(self, base: Section) -> Section:
        """Copy the values of a base file, for the file that builds on it to use and change. Raises Refused."""
        self.budget.spend(weigh(base, ComputeBudget()))
        return convert(base, InheritedSection)

    def read_bases(self, path: Path, names: Any, where: str) -> Section:
        """Read the base files that a file names, merged with each other."""
        names = [names] if isinstance(names, str) else names
        if not isinstance(names, (list, tuple)) or not all(isinstance(name, str) and name for name in names):
            raise UserError(f"{where}: _base_ is a file or a list of files, not {str(names)[:80]!r}")
        return merge_bases([(name, self.read_base(path, name, where)) for name in names])

    def read_base(self, path: Path, name: str, where: str) -> Section:
        """Read a base file: relative to the folder of `path`, or `scope::path` below a folder that the user names.

        `mmseg::path` without such a folder comes from the recipe book.
        """
        scope, scoped, rest = name.partition("::")
        if scoped:
            return self.read_scoped(scope, rest.removeprefix("configs/"), where)
        if "://" in name:
            raise UserError(f"{where}: {name} is an address; download the file and name its path")
        found = Path(os.path.normpath(path.parent / os.path.expanduser(name)))  # noqa: PTH111 (`~unknown/` stays)
        if not os.path.exists(found) and recipe_base(name.lstrip("./")) is not None:  # noqa: PTH110 (long names)
            older = older_base(name.lstrip("./")) if self.is_older(where) else None
            if older is not None:
                warnings.warn(f"{where}: there is no config file {found}: MMSegmentation 0.x's own values stand for it")
                return older
            raise UserError(
                f"{where}: there is no config file {found}; terrazzo's own is 'mmseg::{name.lstrip('./')}': write that"
            )
        return self.read(found, where)

    def is_older(self, where: str) -> bool:
        """Report whether the file being read, or one that has it as a base, has sections that only 0.x had."""
        texts = [load_text(Path(path), where) for path in self.chain]
        return any(map(OLD_SECTION.search, texts)) and not any(map(NEW_SECTION.search, texts))

    def read_scoped(self, scope: str, name: str, where: str, lazy: bool = False) -> Section:
        """Read a file of another toolbox, or the recipe that replaces one of MMSegmentation's. Raises UserError."""
        variable = f"TERRAZZO_{scope.upper()}_CONFIGS"
        if variable in os.environ:
            return self.read(Path(os.environ[variable], name), where, lazy)
        base = recipe_base(name) if scope == "mmseg" else None
        if base is None and (own := self.project_file(scope, name)) is not None:
            return self.read(own, where, lazy)
        if base is None:
            raise UserError(
                f"{where}: no recipe replaces {scope}::{name}; set {variable} to the folder that holds {scope}'s "
                "configs (the one with _base_ in it), or give the file's path"
            )
        values, recipe = base
        self.types = {}
        self.record_recipe(recipe, values)
        self.budget.spend(weigh(values, ComputeBudget()))
        return values

    def project_file(self, package: str, name: str) -> Path | None:
        """The file among the configs of a project that has this package: in a folder above one that is being read."""
        above = dict.fromkeys(folder for path in self.chain for folder in Path(path).resolve().parents)
        found = (
            Path(place, name)
            for root in above
            if (root / package).is_dir()
            for place in (root / "configs", root / package / "configs")
        )
        return next((file for file in found if file.is_file()), None)

    def read_imported(self, path: Path, node: ast.ImportFrom, where: str) -> Section:
        """Read the file of a `from ..module import name` within read_base()."""
        parts = (node.module or "").split(".")
        if not node.module:
            raise UserError(f"{where}: name the base file within read_base(): from {'.' * node.level}file import *")
        if not node.level:
            scope, *parts = parts
            return self.read_scoped(scope, "/".join(parts[parts[:1] == ["configs"] :]) + ".py", where, lazy=True)
        folder = path.parent.joinpath(*[os.pardir] * (node.level - 1))
        return self.read(Path(os.path.normpath(folder.joinpath(*parts))).with_suffix(".py"), where, lazy=True)


def fill(value: Any, variables: Variables, origin: str | None) -> Any:
    """Return a value from YAML or JSON with its variables filled in."""
    try:
        if isinstance(value, str):
            return variables.fill(value, quoted=False)
        if isinstance(value, list):
            return [fill(item, variables, origin) for item in value]
        if isinstance(value, Section):
            filled = Section()
            for key, item in value.items():
                own = value.origin_of(key) or origin
                filled.put(fill(key, variables, own), fill(item, variables, own), own)
            return filled
    except UserError:
        raise
    except Refused as refusal:
        raise UserError(f"{origin}: the config {refusal}; if you trust its author: --trust-config") from None
    except MISTAKES as error:
        raise UserError(f"{origin}: {error}") from None
    return value


def _open_without_waiting(path: str, flags: int) -> int:
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))  # a named pipe would wait for its writer


def load_text(path: Path, asked_by: str) -> str:
    """Read the text of a regular file of bounded size. Raises UserError."""
    where = f"{asked_by}: " if asked_by else ""
    if path.suffix.lower() not in SUFFIXES:
        raise UserError(f"{where}{path} is not a config file: its name must end in {', '.join(SUFFIXES)}")
    try:
        with open(path, "rb", opener=_open_without_waiting) as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise UserError(f"{where}{path} is not a regular file")
            content = file.read(MAX_FILE_BYTES + 1)
    except IsADirectoryError:
        raise UserError(f"{where}{path} is a folder, not a config file") from None
    except FileNotFoundError:
        hint = nearest(path.name, [other.name for other in path.parent.glob("*") if other.suffix in SUFFIXES])
        base = "; base files are looked for from the folder of the file that names them" if asked_by else ""
        raise UserError(f"{where}there is no config file {path}{hint}{base}") from None
    except (OSError, ValueError) as error:
        raise UserError(f"{where}{path} cannot be read: {getattr(error, 'strerror', None) or error}") from None
    if len(content) > MAX_FILE_BYTES:
        raise UserError(f"{where}{path} is larger than a config may be ({MAX_FILE_BYTES:,} bytes)")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise UserError(f"{where}{path}:{line}: the file is not UTF-8 text") from None
