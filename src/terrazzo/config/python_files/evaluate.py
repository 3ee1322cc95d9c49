"""Interpret a `.py` config statement by statement; expressions.py evaluates the expressions within bounds."""

from __future__ import annotations

import ast
from collections.abc import Callable, Mapping

from terrazzo.config.python_files.expressions import BASE_KEY, ExpressionEvaluator
from terrazzo.config.python_files.limits import WORDS, Refused, check_key, weigh
from terrazzo.config.python_files.operations import in_place, iterate
from terrazzo.config.reading.section import ImportedName, Section
from terrazzo.errors import nearest

TYPE_SCOPES = ("mmdet", "mmpretrain", "mmcls")  # 1.x files write `mmdet.DiceLoss`, which differs from `DiceLoss`


class Break(Exception):
    """`break` on its way to its loop."""


class Continue(Exception):
    """`continue` on its way to its loop."""


def is_base_assignment(statement: ast.stmt) -> bool:
    """Check for the statement `_base_ = ...`."""
    return (
        isinstance(statement, ast.Assign)
        and len(statement.targets) == 1
        and isinstance(statement.targets[0], ast.Name)
        and statement.targets[0].id == BASE_KEY
    )


def is_read_base(statement: ast.stmt) -> bool:
    """Check for the statement `with read_base(): ...`."""
    if not isinstance(statement, ast.With) or len(statement.items) != 1 or statement.items[0].optional_vars:
        return False
    call = statement.items[0].context_expr
    return isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and call.func.id == "read_base"


class Evaluator(ExpressionEvaluator):
    """The interpreter of one file.

    `import_base` reads the file of a `from .x import y` within `with read_base():`; `may_import` permits the types of a
    module to be named by an import statement, which imports nothing.
    """

    import_base: Callable[[ast.ImportFrom], Section] | None = None
    base_types: Callable[[], Mapping[str, ImportedName]] = dict  # that the base file read last has imported
    may_import: Callable[[str], bool] | None = None
    loops = 0

    def run(self, tree: ast.Module) -> Section:
        """Interpret a file and return its public variables. Raises UserError with the file and the line."""
        for statement in tree.body:
            if not is_base_assignment(statement):
                self.execute(statement)
        public = Section()
        for name, value in self.names.items():
            if not name.startswith("_") and name not in self.imported:
                public.put(name, value, self.names.origin_of(name))
        try:
            self.budget.spend(weigh(public, self.budget))
        except Refused as refusal:
            raise self.blame(refusal, tree.body[-1]) from None
        return public

    # Statements

    def execute(self, node: ast.stmt) -> None:
        """Interpret a statement. Raises UserError with the file and the line."""
        self.interpret(node, "do", "a statement")

    def execute_all(self, body: list[ast.stmt]) -> None:
        for statement in body:
            self.execute(statement)

    def do_Expr(self, node: ast.Expr) -> None:
        self.evaluate(node.value)

    def do_Pass(self, node: ast.Pass) -> None:
        pass

    def do_Assert(self, node: ast.Assert) -> None:
        if not self.evaluate(node.test):
            message = self.evaluate(node.msg) if node.msg else ""
            raise AssertionError(f"the assertion fails {message}".rstrip())

    def do_Assign(self, node: ast.Assign) -> None:
        value = self.evaluate(node.value)
        for target in node.targets:
            self.assign(target, value)

    def do_AnnAssign(self, node: ast.AnnAssign) -> None:
        if node.value is not None:
            self.assign(node.target, self.evaluate(node.value))

    def do_AugAssign(self, node: ast.AugAssign) -> None:
        kind, target = type(node.op), node.target
        if isinstance(target, ast.Name):
            value = self.evaluate(ast.copy_location(ast.Name(target.id, ast.Load()), target))
            self.assign(target, in_place(kind, value, self.evaluate(node.value), self.budget))
            return
        owner = self.evaluate(target.value)
        key = self.key_of(owner, target)
        value = in_place(kind, self.item(owner, key), self.evaluate(node.value), self.budget)
        self.set_item(owner, key, value, target)

    def do_Delete(self, node: ast.Delete) -> None:
        for target in node.targets:
            if isinstance(target, ast.Name):
                self.lookup(target.id)
                self.names.pop(target.id)
            elif isinstance(target, (ast.Subscript, ast.Attribute)):
                owner = self.evaluate(target.value)
                key = self.key_of(owner, target)
                check_key(key, self.budget)
                self.budget.spend(len(owner) // 64)
                del owner[key]
            else:
                raise Refused("deletes something that configs cannot")

    def do_If(self, node: ast.If) -> None:
        self.execute_all(node.body if self.evaluate(node.test) else node.orelse)

    def do_For(self, node: ast.For) -> None:
        items = iterate(self.evaluate(node.iter), self.budget)
        self.loops += 1
        try:
            for item in items:
                self.assign(node.target, item)
                try:
                    self.execute_all(node.body)
                except Continue:
                    continue
        except Break:
            return
        finally:
            self.loops -= 1
        self.execute_all(node.orelse)

    def do_Break(self, node: ast.Break) -> None:
        if not self.loops:
            raise ValueError("`break` outside of a loop")
        raise Break

    def do_Continue(self, node: ast.Continue) -> None:
        if not self.loops:
            raise ValueError("`continue` outside of a loop")
        raise Continue

    def may_name(self, module: str) -> bool:
        return self.may_import is not None and self.may_import(module)

    def do_ImportFrom(self, node: ast.ImportFrom) -> None:
        module = node.module or ""
        if node.level or not self.may_name(module) or any(alias.name == "*" for alias in node.names):
            raise Refused(WORDS[ast.ImportFrom])
        scope = module.split(".")[0]
        prefix = f"{scope}." if scope in TYPE_SCOPES else ""
        for alias in node.names:
            self.bind(alias.asname or alias.name, ImportedName(prefix + alias.name), node)
            self.imported.add(alias.asname or alias.name)

    def do_Import(self, node: ast.Import) -> None:
        for alias in node.names:
            if not self.may_name(alias.name):
                raise Refused(WORDS[ast.Import])
            name = alias.asname or alias.name.split(".")[0]
            self.bind(name, ImportedName(alias.name.split(".")[-1]), node)
            self.imported.add(name)

    def do_With(self, node: ast.With) -> None:
        if self.import_base is None or not is_read_base(node):
            raise Refused(WORDS[ast.With])
        for statement in node.body:
            if not isinstance(statement, ast.ImportFrom):
                raise Refused("has something other than `from ... import ...` within read_base()")
            base = self.import_base(statement)
            types = dict(self.base_types())
            for alias in statement.names:
                taken = Section()
                chosen = types if alias.name == "*" else {alias.name: types[alias.name]} if alias.name in types else {}
                for name, kind in chosen.items():
                    self.bind(alias.asname or name, kind, statement)
                    self.imported.add(alias.asname or name)
                if alias.name == "*":
                    taken.absorb(base)
                elif chosen:
                    continue
                elif alias.name in base:
                    taken.put(alias.asname or alias.name, base[alias.name], base.origin_of(alias.name))
                else:
                    raise NameError(f"the base file has no variable '{alias.name}'{nearest(alias.name, base)}")
                self.imported -= set(taken)
                self.names.absorb(taken)
