"""Read `.yaml` and `.json` configs with the line of every key; duplicate keys and unsafe tags are errors."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import yaml

from terrazzo.config.python_files.limits import (
    MAX_BITS,
    MAX_DEPTH,
    MAX_DIGITS,
    MAX_STEPS,
    MAX_WEIGHT,
    ComputeBudget,
    Refused,
    weigh,
)
from terrazzo.config.reading.section import ImportedName, Section, plain
from terrazzo.errors import UNPRINTABLE, UserError
from terrazzo.system.text import read_text

TAG = "tag:yaml.org,2002:"
_Parser: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_FLOAT = re.compile(r"[-+]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)[eE][-+]?[0-9]+")  # 1e-4, a string to YAML 1.1
# a string of JSON (the last one may lack its end) with the colon after a key, the end of a line, or a bare word
_TOKEN = re.compile(r'"[^"\\]*(?:\\.[^"\\]*)*"?(?P<colon>\s*:)?|\n|\w+', re.DOTALL)


class Dumper(yaml.SafeDumper):
    """A dumper whose text the loader reads back."""

    def ignore_aliases(self, data: Any) -> bool:
        return True

    def write_double_quoted(self, text: str, split: bool = True) -> None:
        self.allow_unicode = UNPRINTABLE.search(text) is None
        super().write_double_quoted(text, split)
        self.allow_unicode = True

    def analyze_scalar(self, scalar: str) -> Any:
        """As for any text, but one with marks that a terminal would obey is quoted, so that they are escaped."""
        self.allow_unicode = UNPRINTABLE.search(scalar) is None
        analysis = super().analyze_scalar(scalar)
        self.allow_unicode = True
        return analysis


Dumper.add_representer(Section, lambda dumper, value: dumper.represent_dict(value.items()))
Dumper.add_representer(tuple, lambda dumper, value: dumper.represent_list(value))
Dumper.add_representer(ImportedName, lambda dumper, value: dumper.represent_str(str(value)))


def one_line_yaml(value: Any) -> str:
    """Write a value as YAML on one line, as the loader reads it."""
    text = yaml.dump(value, Dumper=Dumper, default_flow_style=True, sort_keys=False, width=2**20, allow_unicode=True)
    return text.removesuffix("\n").removesuffix("\n...")


def read_markup(
    text: str, path: Path, budget: ComputeBudget | None = None, is_variable: Callable[[str], bool] = lambda word: False
) -> Section:
    """Read the mapping of a YAML text, or of a JSON text whose bare variables count as strings.

    What is read is charged to the budget. Raises UserError with the file and the line.
    """
    document = read_document(text, path, budget or ComputeBudget(), is_variable)
    if not isinstance(document, Section):
        raise UserError(f"{path}: a config is a mapping of keys to values, not a {type(document).__name__}")
    return document


def read_yaml(path: Path) -> Any:
    """The plain values of a YAML file that is no config, such as a table of classes, of any length.

    Raises UserError with the file and the line; also where aliases make it more than what is written.
    """
    text = read_text(path)
    return plain(read_document(text, path, ComputeBudget(MAX_STEPS + len(text)), most=MAX_WEIGHT + len(text)))


def read_document(
    text: str,
    path: Path,
    budget: ComputeBudget,
    is_variable: Callable[[str], bool] = lambda word: False,
    most: int = MAX_WEIGHT,
) -> Any:
    """The value of a YAML or JSON text, of a weight of at most `most`. Raises UserError with the file and the line."""
    try:
        if path.suffix.lower() == ".json":
            document = read_json(text, path, is_variable)
        else:
            document = _Loader(text, path, budget).get_single_data()
            document = Section() if document is None else document
        budget.spend(weigh(document, budget, most))
    except json.JSONDecodeError as error:
        raise UserError(f"{path}:{error.lineno}: {error.msg} (column {error.colno})") from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        parts = [part for part in (getattr(error, "context", None), getattr(error, "problem", None)) if part]
        problem = ", ".join(parts) or str(error).splitlines()[0]
        raise UserError(f"{path}{f':{mark.line + 1}' if mark else ''}: {problem}") from None
    except RecursionError:
        raise UserError(f"{path}: the file is nested too deeply") from None
    except Refused as refusal:
        raise UserError(f"{path}: the file {refusal}") from None
    return document


def located(entries: Iterable[tuple[Any, Any, Any]], path: Path) -> Section:
    """Build a section from the key, the value and the line of each entry."""
    section = Section()
    for key, value, line in entries:
        if isinstance(key, (list, dict)):
            raise UserError(f"{path}:{line}: a key is a plain value")
        if key in section:
            raise UserError(f"{path}:{line}: the key '{key}' is set twice (first at {section.origin_of(key)})")
        section.put(key, value, f"{path}:{line}")
    return section


def read_json(text: str, path: Path, is_variable: Callable[[str], bool]) -> Any:
    """Read a JSON text.

    The YAML reader does not serve: it refuses legal JSON, such as surrogate pairs, keys of over 1,024 characters and a
    colon on the next line.
    """
    line = 1

    def numbered(token: re.Match[str]) -> str:  # `{"a": 1}` becomes `{"1:a": 1}`
        nonlocal line
        key_line, line = line, line + token[0].count("\n")
        return f'"{key_line}:{token[0][1:]}' if token["colon"] else token[0]

    def whole(digits: str) -> int:
        if len(digits) > MAX_DIGITS or int(digits).bit_length() > MAX_BITS:
            raise UserError(f"{path}:{text[: text.index(digits)].count(chr(10)) + 1}: the number is huge")
        return int(digits)

    def section(pairs: list[tuple[str, Any]]) -> Section:
        keys = (key.partition(":") for key, _ in pairs)
        return located(((key, value, line) for (line, _, key), (_, value) in zip(keys, pairs, strict=True)), path)

    text = _TOKEN.sub(lambda token: f'"{token[0]}"' if is_variable(token[0]) else token[0], text)
    json.loads(text, parse_int=whole)  # reports what is wrong: only the keys of valid JSON can be numbered
    return json.loads(_TOKEN.sub(numbered, text), object_pairs_hook=section)


class _Loader(_Parser):  # type: ignore[misc, valid-type]
    """Plain values only; `1e-4` is a number and a date is a string.

    Depth is bounded before anything is built: `yaml.compose` recurses, and some 50,000 open brackets crash the process.
    """

    def __init__(self, text: str, path: Path, budget: ComputeBudget) -> None:
        depth = 0
        for event in yaml.parse(text, Loader=_Parser):
            budget.spend()
            depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
            if depth > MAX_DEPTH:
                raise mistake(event, "the file is nested too deeply")
        super().__init__(text)
        self.path, self.budget = path, budget

    def scalar(self, node: yaml.ScalarNode) -> Any:
        kind = node.tag.removeprefix(TAG)
        if len(node.value) <= MAX_DIGITS:
            try:
                value = getattr(self, f"construct_yaml_{kind}")(node)
            except (ArithmeticError, LookupError, ValueError):
                raise mistake(node, f"'{node.value}' is not a YAML !!{kind}") from None
            if not isinstance(value, int) or value.bit_length() <= MAX_BITS:
                return value
        raise mistake(node, "the number is huge")

    def sequence(self, node: yaml.Node) -> list[Any]:
        return self.construct_sequence(node, deep=True)

    def mapping(self, node: yaml.Node) -> Section:
        if not isinstance(node, yaml.MappingNode):
            raise mistake(node, "this is not a mapping")
        entries, merged = [], Section()
        for key_node, value_node in node.value:
            value = self.construct_object(value_node, deep=True)
            if key_node.tag != f"{TAG}merge":
                entries.append((self.construct_object(key_node, deep=True), value, key_node.start_mark.line + 1))
                continue
            for source in reversed(value if isinstance(value, list) else [value]):
                if not isinstance(source, Section):
                    raise mistake(key_node, "`<<` merges mappings only")
                self.budget.spend(1 + len(source))
                merged.absorb(source)
        merged.absorb(located(entries, self.path))
        return merged

    def other(self, node: yaml.Node) -> Any:
        raise mistake(node, f"the tag {node.tag} is not allowed; only plain values are read from YAML")


def mistake(place: Any, text: str) -> yaml.MarkedYAMLError:
    return yaml.MarkedYAMLError(problem=text, problem_mark=place.start_mark)


for _kind in (_Loader, Dumper):
    _kind.yaml_implicit_resolvers = {
        first: [(tag, pattern) for tag, pattern in resolvers if tag != f"{TAG}timestamp"]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }
    _kind.add_implicit_resolver(f"{TAG}float", _FLOAT, list("-+.0123456789"))
_Loader.yaml_constructors = {
    **dict.fromkeys((f"{TAG}{kind}" for kind in ("null", "bool", "int", "float")), _Loader.scalar),
    **dict.fromkeys((f"{TAG}{kind}" for kind in ("str", "merge", "value")), yaml.SafeLoader.construct_scalar),
    f"{TAG}seq": _Loader.sequence,
    f"{TAG}map": _Loader.mapping,
    None: _Loader.other,
}
