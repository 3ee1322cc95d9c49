"""Run a `.py` config as Python, only if the user has declared the file trusted."""

from __future__ import annotations

import ast
import importlib
import importlib.util
import traceback
import types
from pathlib import Path
from typing import Any

from terrazzo.config.python_files.evaluate import BASE_KEY, Evaluator, is_base_assignment, is_read_base
from terrazzo.config.python_files.expressions import show_line
from terrazzo.config.python_files.limits import weigh
from terrazzo.config.reading.merge import merge
from terrazzo.config.reading.section import Section, convert
from terrazzo.config.reading.variables import Variables
from terrazzo.errors import UserError

HIDDEN = (types.ModuleType, types.FunctionType, types.BuiltinFunctionType, type)


def run_trusted(path: Path, text: str, lines: list[str], evaluator: Evaluator) -> Section:
    """Run a file and return its public variables; `evaluator` reads its base files and names imported types.

    Raises UserError with the line of the file that raised an exception.
    """
    tree = ast.parse(text, str(path))
    namespace: dict[str, Any] = {"__name__": "config", "__file__": str(path), BASE_KEY: evaluator.names.get(BASE_KEY)}
    module = _Fill(evaluator.variables, namespace).visit(tree)
    try:
        for statement in module.body:
            if is_base_assignment(statement):
                continue
            if is_read_base(statement) or _names_types(statement, evaluator, path):
                evaluator.execute(statement)
                namespace.update(evaluator.names)
            else:
                imports = isinstance(statement, (ast.Import, ast.ImportFrom))  # of a user's modules, perhaps
                if imports:
                    prepare(path)
                before = set(namespace)
                if _merges(statement, namespace):
                    continue
                exec(compile(ast.Module([statement], type_ignores=[]), str(path), "exec"), namespace)
                if imports:  # files that build on this one have these names too
                    evaluator.imported |= (names := set(namespace) - before)
                    evaluator.names |= {name: namespace[name] for name in names}
        public = _public(namespace, module, path, evaluator)
        weigh(public, evaluator.budget)
        return public
    except UserError:
        raise
    except Exception as error:
        steps = traceback.walk_tb(error.__traceback__)
        numbers = [number for frame, number in steps if frame.f_code.co_filename == str(path)]
        raise UserError(show_line(path, (numbers or [1])[-1], lines, f"{type(error).__name__}: {error}")) from error


def _merges(statement: ast.stmt, namespace: dict[str, Any]) -> bool:
    """Do what the method `merge` of a dict of a config does, which Python's have not; False for other statements."""
    call: Any = getattr(statement, "value", None)
    if not isinstance(call, ast.Call) or getattr(call.func, "attr", "") != "merge" or len(call.args) != 1:
        return False
    parts = [ast.fix_missing_locations(ast.Expression(part)) for part in (call.func.value, call.args[0])]  # type: ignore[attr-defined]
    base, other = (eval(compile(part, "config", "eval"), namespace) for part in parts)
    if not (isinstance(base, dict) and isinstance(other, dict)):
        return False
    merged = merge(convert(base, Section), convert(other, Section))
    base.clear()
    base.update(merged)
    return True


def prepare(path: Path) -> None:
    """Let the imports of a config find its project's modules."""
    importlib.import_module("terrazzo.compat").prepare(path)


def _names_types(statement: ast.stmt, evaluator: Evaluator, path: Path) -> bool:
    """Check for an import from OpenMMLab's toolboxes, whose types we have, or from a package that is not installed."""
    if not isinstance(statement, ast.ImportFrom) or statement.level or not evaluator.may_name(statement.module or ""):
        return False
    package = (statement.module or "").split(".")[0]
    if package.startswith("mm"):
        return True
    if importlib.util.find_spec(package) is None:
        prepare(path)
    return importlib.util.find_spec(package) is None


def _public(namespace: dict[str, Any], module: ast.Module, path: Path, evaluator: Evaluator) -> Section:
    lines: dict[str, int] = {}
    for statement in module.body:
        for node in ast.walk(statement):
            if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
                lines[node.id] = node.lineno
    public = Section()
    for name, value in namespace.items():
        if not name.startswith("_") and not isinstance(value, HIDDEN) and name not in evaluator.imported:
            origin = f"{path}:{lines[name]}" if name in lines else evaluator.names.origin_of(name)
            public.put(name, convert(value, Section, origin), origin)
    return public


class _Fill(ast.NodeTransformer):
    """A transformer that puts the values of `{{ }}` variables into a syntax tree."""

    def __init__(self, variables: Variables, namespace: dict[str, Any]) -> None:
        self.variables, self.namespace = variables, namespace

    def visit_Name(self, node: ast.Name) -> ast.AST:
        if self.variables.is_variable(node.id):
            self.namespace[f"_{node.id}"] = self.variables.value(node.id)
            return ast.copy_location(ast.Name(f"_{node.id}", node.ctx), node)
        return node

    def visit_Constant(self, node: ast.Constant) -> ast.AST:
        if not isinstance(node.value, str):
            return node
        value = self.variables.fill(node.value)
        if isinstance(value, str):
            return ast.copy_location(ast.Constant(value), node)
        name = f"_value_{len(self.namespace)}"
        self.namespace[name] = value
        return ast.copy_location(ast.Name(name, ast.Load()), node)

    def visit_JoinedStr(self, node: ast.JoinedStr) -> ast.AST:
        for part in node.values:
            if isinstance(part, ast.Constant):
                part.value = str(self.variables.fill(str(part.value)))
            else:
                self.generic_visit(part)
        return node
