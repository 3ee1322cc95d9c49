"""Read `.yaml` and `.json` configs with the line of every key; duplicate keys and unsafe tags are errors."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

from terrazzo.config.python_files.limits import MAX_BITS, MAX_DEPTH, SCALARS
from terrazzo.config.reading.section import ImportedName, Section
from terrazzo.errors import UserError

_FLOAT = re.compile(r"[-+]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)[eE][-+]?[0-9]+")  # 1e-4, a string to YAML 1.1


class _Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
    """Safe types only; `1e-4` is a number and a date is a string."""


class Dumper(yaml.SafeDumper):
    """A dumper whose text the loader reads back."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


for _kind in (_Loader, Dumper):
    _kind.yaml_implicit_resolvers = {
        first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:timestamp"]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }
    _kind.add_implicit_resolver("tag:yaml.org,2002:float", _FLOAT, list("-+.0123456789"))
Dumper.add_representer(Section, lambda dumper, value: dumper.represent_dict(value.items()))
Dumper.add_representer(tuple, lambda dumper, value: dumper.represent_list(value))
Dumper.add_representer(ImportedName, lambda dumper, value: dumper.represent_str(str(value)))


def one_line_yaml(value: Any) -> str:
    """Write a value as YAML on one line, as the loader reads it."""
    text = yaml.dump(value, Dumper=Dumper, default_flow_style=True, sort_keys=False, width=2**20, allow_unicode=True)
    return text.removesuffix("\n").removesuffix("\n...")


def read_yaml(text: str, path: Path) -> Section:
    """Read the mapping of a YAML text. Raises UserError with the file and the line."""
    try:
        document = _YamlReader(text, path).document()
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f":{mark.line + 1}" if mark else ""
        problem = getattr(error, "problem", None) or str(error).splitlines()[0]
        if isinstance(error, yaml.constructor.ConstructorError):
            problem += "; only plain values are read from YAML"
        raise UserError(f"{path}{line}: {problem}") from None
    if document is None:
        return Section()
    if not isinstance(document, Section):
        raise UserError(f"{path}: a config is a mapping of keys to values, not a {type(document).__name__}")
    return document


class _YamlReader:
    """A builder of values from YAML's events: depth and aliases are bounded, and nothing is built twice.

    `yaml.compose` recurses without a bound: some 50,000 open brackets crash the process.
    """

    def __init__(self, text: str, path: Path) -> None:
        self.loader = _Loader(text)
        self.path = path
        self.anchors: dict[str, Any] = {}
        self.open: set[str] = set()  # anchors of the values that are being built

    def document(self) -> Any:
        self.loader.get_event()  # start of the stream
        if isinstance(self.loader.get_event(), yaml.StreamEndEvent):
            return None
        value = self.value(self.loader.get_event(), 0)
        self.loader.get_event()  # end of the document
        if not isinstance(self.loader.get_event(), yaml.StreamEndEvent):
            raise UserError(f"{self.path}: a config is one YAML document, this file has several")
        return value

    def value(self, event: Any, depth: int) -> Any:
        if depth > MAX_DEPTH:
            raise self.error(event, "the file is nested too deeply")
        if isinstance(event, yaml.AliasEvent):
            if event.anchor in self.open or event.anchor not in self.anchors:
                raise self.error(event, f"the alias *{event.anchor} has no value before it")
            return self.anchors[event.anchor]
        self.open.add(event.anchor) if event.anchor else None
        if isinstance(event, yaml.ScalarEvent):
            value = self.scalar(event)
        elif isinstance(event, yaml.SequenceStartEvent):
            self.check_tag(event, "seq")
            value = []
            while not isinstance(item := self.loader.get_event(), yaml.SequenceEndEvent):
                value.append(self.value(item, depth + 1))
        else:
            self.check_tag(event, "map")
            value = self.mapping(depth)
        if event.anchor:
            self.open.discard(event.anchor)
            self.anchors[event.anchor] = value
        return value

    def scalar(self, event: Any) -> Any:
        tag = event.tag
        if tag is None or tag == "!":
            tag = self.loader.resolve(yaml.ScalarNode, event.value, event.implicit)
        node = yaml.ScalarNode(tag, event.value, event.start_mark, event.end_mark)
        try:
            return checked(self.loader.construct_object(node))
        except ValueError as error:
            raise self.error(event, str(error)) from None

    def check_tag(self, event: Any, kind: str) -> None:
        if event.tag not in (None, "!", f"tag:yaml.org,2002:{kind}"):
            raise self.error(event, f"the tag {event.tag} is not allowed; only plain values are read from YAML")

    def mapping(self, depth: int) -> Section:
        own, merged = Section(), Section()
        while not isinstance(event := self.loader.get_event(), yaml.MappingEndEvent):
            merging = isinstance(event, yaml.ScalarEvent) and event.value == "<<" and event.implicit[0]
            key = "<<" if merging else self.value(event, depth + 1)
            value = self.value(self.loader.get_event(), depth + 1)
            if merging:
                for source in reversed(value if isinstance(value, list) else [value]):
                    if not isinstance(source, Section):
                        raise self.error(event, "`<<` merges mappings only")
                    merged.absorb(source)
                continue
            if isinstance(key, (list, dict)):
                raise self.error(event, "a key is a plain value")
            if key in own:
                raise self.error(event, f"the key '{key}' is set twice (first at {own.origin_of(key)})")
            own.put(key, value, f"{self.path}:{event.start_mark.line + 1}")
        merged.absorb(own)
        return merged

    def error(self, event: Any, text: str) -> UserError:
        return UserError(f"{self.path}:{event.start_mark.line + 1}: {text}")


def read_json(text: str, path: Path) -> Section:
    """Read the object of a JSON text. Raises UserError with the file and the line.

    The YAML reader does not serve: it refuses legal JSON, such as surrogate pairs, keys of over 1,024 characters and a
    colon on the next line.
    """

    def whole(digits: str) -> Any:
        try:
            return checked(int(digits))
        except ValueError:
            line = text[: text.index(digits)].count("\n") + 1
            raise UserError(f"{path}:{line}: the number is huge") from None

    def section(pairs: list[tuple[str, Any]]) -> Section:
        built = Section()
        for numbered, value in pairs:
            line, _, key = numbered.partition(":")
            if key in built:
                raise UserError(f"{path}:{line}: the key '{key}' is set twice (first at {built.origin_of(key)})")
            built.put(key, value, f"{path}:{line}")
        return built

    try:
        json.loads(text, parse_int=whole)  # reports what is wrong: only the keys of valid JSON can be numbered
        document = json.loads(with_numbered_keys(text), object_pairs_hook=section)
    except json.JSONDecodeError as error:
        raise UserError(f"{path}:{error.lineno}: {error.msg} (column {error.colno})") from None
    except RecursionError:
        raise UserError(f"{path}: the file is nested too deeply") from None
    if not isinstance(document, Section):
        raise UserError(f"{path}: a config is an object of keys and values, not a {type(document).__name__}")
    return document


def with_numbered_keys(text: str) -> str:
    """Put the line of each key before it: `{"a": 1}` becomes `{"1:a": 1}`."""
    line = 1

    def number(match: re.Match[str]) -> str:
        nonlocal line
        key_line, line = line, line + match[0].count("\n")
        return f'"{key_line}:{match[0][1:]}' if match["colon"] else match[0]

    return re.sub(r'"(?:[^"\\]|\\.)*"(?P<colon>\s*:)?|\n', number, text)


def checked(value: Any) -> Any:
    """Return a plain value unchanged. Raises ValueError for a huge number and for bytes and the like."""
    if not isinstance(value, SCALARS):
        raise ValueError(f"a value of type {type(value).__name__} is not allowed; only plain values are read")
    if isinstance(value, int) and value.bit_length() > MAX_BITS:
        raise ValueError("the number is huge")
    return value


def quote_bare(text: str, is_variable: Callable[[str], bool]) -> str:
    """Return JSON in which variables outside of strings are strings."""
    return re.sub(r'"(?:[^"\\]|\\.)*"|\w+', lambda match: f'"{match[0]}"' if is_variable(match[0]) else match[0], text)
