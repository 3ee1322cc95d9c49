"""Evaluate the expressions of a `.py` config: its syntax tree is interpreted, nothing is executed."""

from __future__ import annotations

import ast
from collections.abc import Callable
from pathlib import Path
from typing import Any

from terrazzo.config.python_files.limits import (
    MAX_ITEMS,
    MAX_KEYS,
    MAX_NESTING,
    WORDS,
    ComputeBudget,
    Refused,
    check,
    check_key,
    check_length,
    weigh,
)
from terrazzo.config.python_files.operations import (
    FUNCTIONS,
    UNARY,
    binary,
    call_method,
    compare,
    formatted,
    has_method,
    iterate,
)
from terrazzo.config.reading.merge import merge
from terrazzo.config.reading.section import ImportedName, InheritedSection, Section
from terrazzo.config.reading.variables import Variables
from terrazzo.errors import UserError, nearest

BASE_KEY = "_base_"
MISTAKES = (
    ArithmeticError, AssertionError, AttributeError, LookupError, NameError, RecursionError, TypeError, ValueError,
)  # fmt: skip


class ExpressionEvaluator:
    """The evaluator of one file's expressions; `names` holds its variables with their origins."""

    def __init__(self, path: Path, lines: list[str], variables: Variables, budget: ComputeBudget) -> None:
        self.path, self.lines, self.variables, self.budget = path, lines, variables, budget
        self.names = Section()
        self.imported: set[str] = set()  # names of types, which are not variables
        self.scopes: list[dict[str, Any]] = []  # of comprehensions, the innermost last
        self.nesting = 0

    def blame(self, error: Exception, node: ast.AST) -> UserError:
        """Return an error at `node` as a UserError that shows the line."""
        line = getattr(node, "lineno", 1)
        if isinstance(error, UserError):
            return error
        if isinstance(error, Refused):
            text = f"the config {error}; configs are evaluated by a safe subset of Python"
            return UserError(
                f"{show_line(self.path, line, self.lines, text)}\n"
                "Rewrite it in plain values, or, if you trust its author, run it as Python: --trust-config (trust=True)"
            )
        text = f"no key or item {error}" if isinstance(error, KeyError) else str(error) or type(error).__name__
        return UserError(show_line(self.path, line, self.lines, text))

    def evaluate(self, node: ast.expr) -> Any:
        """The value of an expression. Raises UserError with the file and the line."""
        return self.interpret(node, "get", "an expression")

    def interpret(self, node: ast.AST, prefix: str, kind: str) -> Any:
        """Call the method of this class, `PREFIX_TYPE`, that handles a node. Raises UserError."""
        self.nesting += 1
        try:
            self.budget.spend()
            if self.nesting > MAX_NESTING:
                raise Refused("is nested too deeply")
            name = type(node).__name__
            handler: Callable[[Any], Any] | None = getattr(self, f"{prefix}_{name}", None)
            if handler is None:
                raise Refused(WORDS.get(type(node), f"uses {kind} that configs cannot ({name})"))
            return handler(node)
        except (Refused, *MISTAKES) as error:
            raise self.blame(error, node) from None
        finally:
            self.nesting -= 1

    # Values and operators

    def get_Constant(self, node: ast.Constant) -> Any:
        if isinstance(node.value, str):
            return self.variables.fill(node.value)
        if isinstance(node.value, (bytes, complex)) or node.value is ...:
            raise Refused(f"uses a value of type {type(node.value).__name__}")
        return check(node.value, self.budget)

    def get_Name(self, node: ast.Name) -> Any:
        if self.variables.is_variable(node.id):
            return self.variables.value(node.id)
        return self.lookup(node.id)

    def lookup(self, name: str) -> Any:
        if name.startswith("__"):
            raise Refused(f"uses the name {name}")
        for scope in reversed(self.scopes):
            if name in scope:
                return scope[name]
        if name in self.names:
            return self.names[name]
        if name in FUNCTIONS or name == "dict":
            raise Refused(f"uses the function {name} as a value")
        raise NameError(f"the name '{name}' is not defined{nearest(name, [*self.names, *FUNCTIONS])}")

    def get_Tuple(self, node: ast.Tuple) -> tuple[Any, ...]:
        return tuple(self.items(node.elts))

    def get_List(self, node: ast.List) -> list[Any]:
        return self.items(node.elts)

    def get_Set(self, node: ast.Set) -> set[Any]:
        return self.call_function("set", [self.items(node.elts)], {})

    def items(self, nodes: list[ast.expr]) -> list[Any]:
        """The values of expressions, starred ones unpacked."""
        values: list[Any] = []
        for node in nodes:
            if isinstance(node, ast.Starred):
                values.extend(iterate(self.evaluate(node.value), self.budget))
            else:
                values.append(self.evaluate(node))
            check_length(len(values), MAX_ITEMS, "list")
        return values

    def get_Dict(self, node: ast.Dict) -> Section:
        section = Section()
        for key, value in zip(node.keys, node.values, strict=True):
            if key is None:
                self.absorb(section, self.evaluate(value), value)
            else:
                self.put(section, self.evaluate(key), self.evaluate(value), key)
        return section

    def absorb(self, section: Section, other: Any, node: ast.AST) -> None:
        """Update a dict with a dict or with pairs."""
        if isinstance(other, Section):
            self.budget.spend(len(other))
            section.absorb(other)
            check_length(len(section), MAX_KEYS, "dict")
            return
        for pair in iterate(other, self.budget):
            key, value = iterate(pair, self.budget)
            self.put(section, key, value, node)

    def get_BinOp(self, node: ast.BinOp) -> Any:
        return binary(type(node.op), self.evaluate(node.left), self.evaluate(node.right), self.budget)

    def get_UnaryOp(self, node: ast.UnaryOp) -> Any:
        return check(UNARY[type(node.op)](self.evaluate(node.operand)), self.budget)

    def get_BoolOp(self, node: ast.BoolOp) -> Any:
        stops = isinstance(node.op, ast.Or)
        for operand in node.values[:-1]:
            value = self.evaluate(operand)
            if bool(value) is stops:
                return value
        return self.evaluate(node.values[-1])

    def get_Compare(self, node: ast.Compare) -> bool:
        left = self.evaluate(node.left)
        for kind, comparator in zip(node.ops, node.comparators, strict=True):
            right = self.evaluate(comparator)
            if not compare(type(kind), left, right, self.budget):
                return False
            left = right
        return True

    def get_IfExp(self, node: ast.IfExp) -> Any:
        return self.evaluate(node.body if self.evaluate(node.test) else node.orelse)

    def get_JoinedStr(self, node: ast.JoinedStr) -> str:
        pieces = [str(self.evaluate(part)) for part in node.values]
        return check("".join(pieces), self.budget)

    def get_FormattedValue(self, node: ast.FormattedValue) -> str:
        spec = self.evaluate(node.format_spec) if node.format_spec else ""
        conversion = chr(node.conversion) if node.conversion != -1 else None
        return formatted(self.evaluate(node.value), spec, conversion, self.budget)

    def get_Slice(self, node: ast.Slice) -> slice:
        bounds = (node.lower, node.upper, node.step)
        return slice(*(None if bound is None else self.evaluate(bound) for bound in bounds))

    def get_Subscript(self, node: ast.Subscript) -> Any:
        return self.item(self.evaluate(node.value), self.evaluate(node.slice))

    def item(self, owner: Any, key: Any) -> Any:
        if isinstance(owner, ImportedName) or not isinstance(owner, (str, list, tuple, dict, range)):
            raise TypeError(f"a value of type {type(owner).__name__} has no items")
        check_key(key, self.budget)
        value = owner[key]
        return check(value, self.budget) if isinstance(key, slice) else value

    def get_Attribute(self, node: ast.Attribute) -> Any:
        owner = self.evaluate(node.value)
        if isinstance(owner, ImportedName) and not node.attr.startswith("_"):
            return ImportedName(node.attr)
        key = self.attribute_key(owner, node.attr)
        if key not in owner:
            raise AttributeError(f"the dict has no key '{key}'{nearest(key, map(str, owner))}")
        return owner[key]

    # Comprehensions

    def comprehend(self, node: Any, produce: Callable[[], None]) -> None:
        """Loop over the generators of a comprehension in their own scope."""

        def loop(index: int) -> None:
            if index == len(node.generators):
                produce()
                return
            generator = node.generators[index]
            if generator.is_async:
                raise Refused("uses `async`")
            for item in iterate(self.evaluate(generator.iter), self.budget):
                self.budget.spend()
                self.assign(generator.target, item)
                if all(self.evaluate(condition) for condition in generator.ifs):
                    loop(index + 1)

        check_length(len(node.generators), 20, "comprehension")
        self.scopes.append({})
        try:
            loop(0)
        finally:
            self.scopes.pop()

    def get_ListComp(self, node: ast.ListComp | ast.GeneratorExp) -> list[Any]:
        values: list[Any] = []
        self.comprehend(node, lambda: values.append(self.evaluate(node.elt)))
        return check(values, self.budget)

    get_GeneratorExp = get_ListComp  # evaluated at once: its length is bounded

    def get_SetComp(self, node: ast.SetComp) -> set[Any]:
        values: list[Any] = []
        self.comprehend(node, lambda: values.append(self.evaluate(node.elt)))
        return self.call_function("set", [values], {})

    def get_DictComp(self, node: ast.DictComp) -> Section:
        section = Section()
        self.comprehend(node, lambda: self.put(section, self.evaluate(node.key), self.evaluate(node.value), node.key))
        return section

    # Calls

    def get_Call(self, node: ast.Call) -> Any:
        function = node.func
        if isinstance(function, ast.Name):
            return self.call_name(function.id, node)
        if not isinstance(function, ast.Attribute):
            raise Refused("calls something that is not a known function")
        if function.attr.startswith("_"):
            raise Refused(f"uses the attribute {function.attr}")
        owner = self.evaluate(function.value)
        if isinstance(owner, ImportedName):
            raise Refused(f"calls {ast.unparse(function)}, which is imported")
        if isinstance(owner, Section) and function.attr == "update":
            other = self.make_dict(node)
            self.budget.spend(weigh(other, self.budget) if isinstance(owner, InheritedSection) else len(other))
            owner.absorb(other)
            check_length(len(owner), MAX_KEYS, "dict")
            return None
        if isinstance(owner, Section) and function.attr == "merge" and len(node.args) == 1 and not node.keywords:
            other = self.evaluate(node.args[0])
            if not isinstance(other, Section):
                raise Refused("merges something that is not a dict")
            self.budget.spend(weigh(owner, self.budget) + weigh(other, self.budget))
            merged = merge(owner, other)
            owner.clear()
            owner.absorb(merged)
            return None
        if isinstance(owner, Section) and function.attr == "setdefault":
            key, *default = self.items(node.args)
            check_key(key, self.budget)
            if key not in owner:
                self.put(owner, key, default[0] if default else None, node)
            return owner[key]
        args, kwargs = self.arguments(node)
        return call_method(owner, function.attr, args, kwargs, self.budget)

    def call_name(self, name: str, node: ast.Call) -> Any:
        if name in self.names or any(name in scope for scope in self.scopes):
            imported = isinstance(self.lookup(name), ImportedName)
            raise Refused(f"calls {name}, which {'is imported' if imported else 'is a value, not a function'}")
        if name == "dict":
            return self.make_dict(node)
        args, kwargs = self.arguments(node)
        return self.call_function(name, args, kwargs)

    def call_function(self, name: str, args: list[Any], kwargs: dict[str, Any]) -> Any:
        if name not in FUNCTIONS:
            raise Refused(f"calls {name}()")
        return FUNCTIONS[name](self.budget, *args, **kwargs)

    def arguments(self, node: ast.Call) -> tuple[list[Any], dict[str, Any]]:
        return self.items(node.args), dict(self.make_dict(node, skip=len(node.args)))

    def make_dict(self, node: ast.Call, skip: int = 0) -> Section:
        """`dict(...)`, each key with its line; the first `skip` positional arguments are skipped."""
        section = Section()
        positional = self.items(node.args[skip:])
        if len(positional) > 1:
            raise TypeError(f"dict expected at most 1 argument, got {len(positional)}")
        for value in positional:
            self.absorb(section, value, node)
        seen: set[str] = set()
        for keyword in node.keywords:
            value = self.evaluate(keyword.value)
            if keyword.arg is None and not isinstance(value, Section):
                raise TypeError("`**` needs a dict")
            for name in [keyword.arg] if keyword.arg else value:
                if name in seen:
                    raise TypeError(f"the keyword {name} is given twice")
                seen.add(name)
            if keyword.arg:
                self.put(section, keyword.arg, value, keyword)
            else:
                self.absorb(section, value, keyword)
        return section

    # Assignment

    def assign(self, target: ast.expr, value: Any) -> None:
        """Bind a name, unpack a tuple, or set an item."""
        if isinstance(target, ast.Name):
            self.bind(target.id, value, target)
        elif isinstance(target, (ast.Tuple, ast.List)):
            self.unpack(target.elts, iterate(value, self.budget))
        elif isinstance(target, (ast.Subscript, ast.Attribute)):
            owner = self.evaluate(target.value)
            self.set_item(owner, self.key_of(owner, target), value, target)
        else:
            raise Refused("assigns to something that configs cannot")

    def bind(self, name: str, value: Any, node: ast.AST) -> None:
        if name.startswith("__"):
            raise Refused(f"uses the name {name}")
        if name == BASE_KEY:
            raise Refused("assigns _base_ elsewhere than once, plainly, at the top level")
        if self.scopes:
            self.scopes[-1][name] = value
        else:
            self.put(self.names, name, value, node)
            self.imported.discard(name)

    def unpack(self, targets: list[ast.expr], values: list[Any]) -> None:
        starred = [index for index, target in enumerate(targets) if isinstance(target, ast.Starred)]
        if starred:
            first, extra = starred[0], len(values) - (len(targets) - 1)
            if extra < 0:
                raise ValueError(f"not enough values to unpack: {len(values)} for {len(targets)} targets")
            values = [*values[:first], values[first : first + extra], *values[first + extra :]]
        if len(values) != len(targets):
            raise ValueError(f"cannot unpack {len(values)} values into {len(targets)} targets")
        for target, value in zip(targets, values, strict=True):
            self.assign(target.value if isinstance(target, ast.Starred) else target, value)

    def put(self, section: Section, key: Any, value: Any, node: ast.AST) -> None:
        """Set a key of a dict, and where: the line of `node`."""
        check_key(key, self.budget)
        check_length(len(section) + 1, MAX_KEYS, "dict")
        section.put(key, value, f"{self.path}:{node.lineno}")  # type: ignore[attr-defined]

    def set_item(self, owner: Any, key: Any, value: Any, node: ast.AST) -> None:
        if isinstance(owner, Section):
            self.put(owner, key, value, node)
        elif isinstance(owner, list):
            if isinstance(key, slice):
                value = iterate(value, self.budget)
                check_length(len(owner) + len(value), MAX_ITEMS, "list")
                self.budget.spend(len(owner) // 64)
            owner[key] = value
        else:
            raise TypeError(f"a value of type {type(owner).__name__} has no items that can be set")

    def key_of(self, owner: Any, target: ast.Subscript | ast.Attribute) -> Any:
        """The key that `owner[key]` or `owner.key` names."""
        if isinstance(target, ast.Subscript):
            return self.evaluate(target.slice)
        return self.attribute_key(owner, target.attr)

    def attribute_key(self, owner: Any, name: str) -> str:
        """The key of `owner.name`: attributes are keys of dicts; no other value has any."""
        if name.startswith("_"):
            raise Refused(f"uses the attribute {name}")
        if not isinstance(owner, Section) or has_method(owner, name):
            raise Refused(f"uses the attribute {name} of a value of type {type(owner).__name__}")
        return name


def show_line(path: Path, number: int, lines: list[str], text: str) -> str:
    """An error message with the line that it is about."""
    line = lines[number - 1].rstrip() if 0 < number <= len(lines) else ""
    line = line if len(line) <= 160 else line[:157] + "..."
    return f"{path}:{number}: {text}\n    {number} | {line}"
