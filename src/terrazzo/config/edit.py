"""Set keys in a config file as written; everything else in it, comments included, stays as it is."""

from __future__ import annotations

import ast
import json
import os
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from terrazzo.config.reading.files import read_config
from terrazzo.config.reading.markup import one_line_yaml
from terrazzo.config.reading.merge import apply_overrides
from terrazzo.config.reading.section import DELETE_KEY, index, lookup
from terrazzo.errors import UserError

MARK = "# set by `terrazzo data check --fix`"


def edited(path: Path, changes: Mapping[str, Any]) -> str:
    """Return the text of a YAML, JSON or `.py` config with dotted keys set.

    Raises UserError if that is not possible without changing anything else.
    """
    text = path.read_text(encoding="utf-8")
    for key, value in changes.items():
        for candidate in candidates(path, text, key.split("."), value):
            if holds(path, candidate, text, key, value):
                text = candidate
                break
        else:
            raise UserError(f"{path}: cannot set {key} without changing more than that: set it by hand")
    return text


def candidates(path: Path, text: str, keys: list[str], value: Any) -> Iterator[str]:
    """Yield texts that may set a key, the most readable first."""
    if path.suffix.lower() == ".py":
        yield from appended(text, keys, value)
        return
    try:
        root = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.YAMLError:
        return
    if isinstance(root, yaml.MappingNode):
        yield set_in_markup(text, root, keys, value, as_json=path.suffix.lower() == ".json")


def holds(path: Path, candidate: str, text: str, key: str, value: Any) -> bool:
    """Return whether a text sets a key and nothing else; a `.py` file may use one part at several paths."""
    values = []
    for content in (text, candidate):
        trial = path.with_name(f".{path.stem}.{os.getpid()}{path.suffix}")  # beside its base files
        try:
            trial.write_text(content, encoding="utf-8")
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                values.append(read_config(trial).to_dict())
        except UserError:
            return False
        except OSError as problem:
            raise UserError(f"cannot write beside {path}: {problem.strerror}") from None
        finally:
            trial.unlink(missing_ok=True)
    old, new = values
    if normal(lookup(new, key)) != normal(value):
        return False
    if path.suffix.lower() == ".py":
        name = key.rpartition(".")[2]
        return without(new, name) == without(old, name)
    whole = {**value, DELETE_KEY: True} if isinstance(value, Mapping) else value
    try:
        return normal(new) == normal(apply_overrides(old, {key: whole}))
    except UserError:  # the key cannot be set in these values
        return False


def normal(value: Any) -> Any:
    """Return a value as JSON stores it: keys are strings."""
    return json.loads(json.dumps(value))


def without(values: Any, name: str) -> Any:
    """Return values without any key of that name, and without the sections that become empty."""
    if isinstance(values, (list, tuple)):
        return [without(item, name) for item in values]
    if not isinstance(values, Mapping):
        return values
    inner = {key: without(item, name) for key, item in values.items() if key != name}
    return {key: item for key, item in inner.items() if item != {}}


# YAML and JSON


def set_in_markup(text: str, root: yaml.MappingNode, keys: list[str], value: Any, as_json: bool) -> str:
    """Return the text with a key's value replaced, or with a line for it added to its section."""
    node: yaml.Node = root
    start = 0  # of what comes before the value: the end of its key
    for depth, key in enumerate(keys):
        found = child_of(node, key)
        if found is None:
            return add_entry(text, node, nested(keys[depth:], value), as_json)
        start, node = found
    before, end = text[start : node.start_mark.index], end_of(text, node)
    line, newline, _ = before.partition("\n")
    if not newline:
        return text[: node.start_mark.index] + flow(value, as_json) + text[end:]
    colon, _, comment = line.partition(":")  # a value on separate lines moves up, before a comment
    return f"{text[:start]}{colon}: {flow(value, as_json)}{comment}{text[end:]}"


def child_of(node: yaml.Node, key: str) -> tuple[int, yaml.Node] | None:
    """Return the value of a key or index, and where the key ends."""
    if isinstance(node, yaml.SequenceNode) and (position := index(key, len(node.value))) is not None:
        return node.value[position].start_mark.index, node.value[position]
    if isinstance(node, yaml.MappingNode):
        return next(((name.end_mark.index, value) for name, value in node.value if name.value == key), None)
    return None


def nested(keys: list[str], value: Any) -> dict[str, Any]:
    """Return `{a: {b: value}}` for the keys a, b."""
    for key in reversed(keys):
        value = {key: value}
    return value


def flow(value: Any, as_json: bool) -> str:
    """Return a value on one line."""
    return json.dumps(value, ensure_ascii=False) if as_json else one_line_yaml(value)


def add_entry(text: str, section: yaml.Node, entry: dict[str, Any], as_json: bool) -> str:
    """Return the text with a new last key in a section, in the section's style; unchanged if it is not a mapping."""
    written = flow(entry, as_json)[1:-1]
    if not section.value:
        return text[: section.start_mark.index] + f"{{{written}}}" + text[section.end_mark.index :]
    if not isinstance(section, yaml.MappingNode):
        return text
    end = end_of(text, section.value[-1][1])
    if section.flow_style:
        return f"{text[:end]}, {written}{text[end:]}"
    line_end = text.find("\n", end)
    line_end = len(text) if line_end < 0 else line_end
    return f"{text[:line_end]}\n{' ' * section.start_mark.column}{written}{text[line_end:]}"


def end_of(text: str, node: yaml.Node) -> int:
    """Return where a node's own text ends; a block's end mark is after the comments that follow it."""
    if not isinstance(node, yaml.CollectionNode) or node.flow_style or not node.value:
        return len(text[: node.end_mark.index].rstrip()) if getattr(node, "style", None) else node.end_mark.index
    last = node.value[-1]
    return end_of(text, last[1] if isinstance(node, yaml.MappingNode) else last)


# Python


def appended(text: str, keys: list[str], value: Any) -> Iterator[str]:
    """Yield the file with a last line that sets the key inside what it assigns, or over what its base files set."""
    first, *others = keys
    base = text.rstrip("\n") + "\n" + ("" if MARK in text else f"\n{MARK}\n")
    if any(isinstance(node, ast.Name) and node.id == first for node in ast.walk(ast.parse(text))):
        for depth in range(len(others), 0, -1):
            path = "".join(f"[{key if key.isdecimal() else json.dumps(key)}]" for key in others[:depth])
            rest = nested(others[depth:], value) if others[depth:] else value
            yield f"{base}{first}{path} = {rest!r}\n"
    yield f"{base}{first} = {(nested(others, value) if others else value)!r}\n"
