"""Merge a config into its base, and apply `key=value` overrides to it."""

from __future__ import annotations

import ast
import re
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from terrazzo.arguments import Leftover
from terrazzo.config.python_files.limits import MAX_DEPTH, MAX_DIGITS, SURROGATE
from terrazzo.config.reading.section import DELETE_KEY, Section, convert, index, plain
from terrazzo.errors import UserError

COMMAND_LINE = "--cfg-options"
_MISSING: Any = object()


def merge(base: Mapping[Any, Any], child: Mapping[Any, Any], path: str = "") -> Section:
    """Merge `child` over `base`: dicts merge, everything else is replaced.

    `_delete_=True` in a dict replaces the base's; a dict with the keys "0", "1", ... over a list changes those items.
    Raises UserError for a dict over something that is not a dict and for an item that the list does not have.
    """
    merged = Section()
    merged.absorb(base)
    for key, value in child.items():
        if key == DELETE_KEY:
            continue
        if key not in base and isinstance(key, str) and (number := index(key, 10**9)) in base:
            key = number
        origin = child.origin_of(str(key) if key not in child else key) if isinstance(child, Section) else None
        merged.put(key, _merged(base.get(key, _MISSING), value, f"{path}.{key}".lstrip("."), origin), origin)
    if "type" in child and base.get("type", child["type"]) != child["type"]:
        for key in base.keys() - child.keys():
            merged.put(key, merged[key], Leftover(merged.origin_of(key) or ""))
    return merged


def _merged(old: Any, new: Any, path: str, origin: str | None) -> Any:
    if not isinstance(new, dict) or old is _MISSING or new.get(DELETE_KEY):
        return convert(new, Section, origin, merged=True)
    if isinstance(old, dict):
        return merge(old, new, path)
    keys = [str(key) for key in new if key != DELETE_KEY]
    if isinstance(old, (list, tuple)) and keys and all(key.isdecimal() for key in keys):
        items = list(old)
        for key, value in new.items():
            if key == DELETE_KEY:
                continue
            position = index(str(key), len(items))
            if position is None:
                raise _error(origin, f"{path}.{key}: the list has {len(items)} items, counted from 0")
            items[position] = _merged(items[position], value, f"{path}.{key}", origin)
        return type(old)(items)
    shown = "nothing (None)" if old is None else f"a {type(old).__name__}"
    if origin and origin.startswith(COMMAND_LINE):
        way_out = f"give the whole value: {path}=..."
    else:
        way_out = f"put {DELETE_KEY}=True into the dict to replace it"
    kind = f"the key '{keys[0]}'" if keys and isinstance(old, (list, tuple)) else "a dict"
    raise _error(origin, f"{path}: {kind} cannot go into what is {shown} below it; {way_out}")


def _error(origin: str | None, text: str) -> UserError:
    return UserError(f"{origin}: {text}" if origin else text)


def apply_overrides(config: dict[str, Any], overrides: Mapping[str, Any], origin: str = COMMAND_LINE) -> dict[str, Any]:
    """Return `config` with values set by dotted keys; numbers in keys are indices of lists: `pipeline.0.type`.

    The argument stays as it is; a Section shares its unchanged parts with the result. Raises UserError for a list item
    that does not exist and for a key inside something that is not a dict.
    """
    merged: Section = config if isinstance(config, Section) else convert(config, Section)
    for dotted, value in overrides.items():
        if not isinstance(dotted, str) or not all(dotted.split(".")) or dotted.count(".") > MAX_DEPTH:
            raise UserError(f"{origin}: '{dotted}' is not a key such as model.decode_head.num_classes")
        value = convert(value, Section, origin)
        for part in reversed(dotted.split(".")):
            nested = Section()
            nested.put(part, value, origin)
            value = nested
        merged = merge(merged, value)
    return merged if isinstance(config, Section) else plain(merged)


def parse_override(text: str) -> tuple[str, Any]:
    """`"a.b=c"` as `("a.b", "c")`: numbers, True, False, None, quoted strings, `[...]`, `(...)`, `{...}` and `x,y`.

    Raises UserError for a text that is not KEY=VALUE or whose brackets do not match.
    """
    key, equals, value = text.partition("=")
    key = key.strip()
    if not equals or not key:
        raise UserError(f"{COMMAND_LINE}: '{text}' is not KEY=VALUE, such as model.decode_head.num_classes=2")
    if not text.isascii() and SURROGATE.search(text):
        raise UserError(f"{COMMAND_LINE}: {text} is not UTF-8 text")
    try:
        return key, parse_value(value)
    except ValueError as error:
        raise UserError(f"{COMMAND_LINE}: {key}: {error}") from None


def parse_value(text: str) -> Any:
    """Parse the text of a value on the command line. Raises ValueError for brackets that do not match."""
    text = text.strip()
    inner = _unquoted(text)
    if inner is not None:
        return parse_value(inner) if inner[:1] in ("[", "(", "{") else inner
    try:
        parts = _split(text)
    except ValueError:
        if text[:1] in ("[", "(", "{"):
            raise
        return _scalar(text)  # a name with a bracket in it
    if len(parts) > 1:  # a,b,c
        return [parse_value(part) for part in parts]
    if text[:1] in ("[", "(") and text[-1:] == {"[": "]", "(": ")"}[text[0]]:
        parts = _split(text[1:-1])
        items = [parse_value(part) for part in (parts[:-1] if not parts[-1].strip() else parts)]
        return items if text[0] == "[" else tuple(items)
    if text[:1] == "{":
        try:
            return ast.literal_eval(text)
        except (ValueError, SyntaxError, RecursionError, MemoryError, TypeError):
            raise ValueError(f"'{text}' is not a dict of plain values, such as {{'type': 'BN'}}") from None
    return _scalar(text)


def _unquoted(text: str) -> str | None:
    match = re.fullmatch(r"'([^']*)'|\"([^\"]*)\"", text, re.DOTALL)
    return None if match is None else match[1] if match[1] is not None else match[2]


def _scalar(text: str) -> Any:
    if len(text) > MAX_DIGITS and re.fullmatch(r"[-+\d_.]+", text):
        raise ValueError(f"the number {text[:20]}... is huge")
    for kind in (int, float):
        with suppress(ValueError):
            return kind(text)
    return {"true": True, "false": False}.get(text.lower(), None if text == "None" else text)


def _split(text: str) -> list[str]:
    """Split at the commas outside of brackets and quotes. Raises ValueError where they do not match."""
    parts, quote = [""], ""
    expected: list[str] = []
    for character in text:
        if quote:
            quote = "" if character == quote else quote
        elif character in "'\"":
            quote = character if not parts[-1].strip() or expected else ""
        elif character in "[({":
            expected.append({"[": "]", "(": ")", "{": "}"}[character])
            if len(expected) > MAX_DEPTH:
                raise ValueError(f"the brackets in '{text[:20]}...' are nested too deeply")
        elif character in "])}":
            if not expected or expected.pop() != character:
                raise ValueError(f"the brackets in '{text}' do not match")
        elif character == "," and not expected:
            parts.append("")
            continue
        parts[-1] += character
    if expected:
        raise ValueError(f"the brackets in '{text}' do not match")
    return parts


def merge_bases(bases: list[tuple[str, Section]]) -> Section:
    """Merge several base files. Raises UserError for a key that two of them set."""
    merged = Section()
    owners: dict[str, str] = {}
    for name, base in bases:
        for key in base:
            if key in owners:
                raise UserError(
                    f"{base.origin_of(key) or name}: '{key}' is also set by another file of the same _base_ "
                    f"({merged.origin_of(key) or owners[key]}); keep it in one of them, or chain the files"
                )
            owners[key] = name
        merged.absorb(base)
    return merged
