"""`Config` and `ConfigDict`: config sections whose keys are also attributes."""

from __future__ import annotations

import argparse
import copy
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from terrazzo.config.load import load_config
from terrazzo.config.reading.merge import apply_overrides
from terrazzo.config.reading.section import Section, convert


class ConfigDict(dict[Any, Any]):
    """A dict whose keys are also attributes; the dicts inside it are of this kind too.

    An attribute that is no key is an AttributeError, an item that is none a KeyError.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__()
        self.update(*args, **kwargs)

    def __getattr__(self, name: str) -> Any:
        try:
            return self[name]
        except KeyError:
            raise AttributeError(f"'{type(self).__name__}' object has no attribute '{name}'") from None

    def __setattr__(self, name: str, value: Any) -> None:
        self[name] = value

    def __delattr__(self, name: str) -> None:
        del self[name]

    def __setitem__(self, key: Any, value: Any) -> None:
        super().__setitem__(key, attributed(value))

    def update(self, *args: Any, **kwargs: Any) -> None:
        for key, value in dict(*args, **kwargs).items():
            self[key] = value

    def setdefault(self, key: Any, default: Any = None) -> Any:
        if key not in self:
            self[key] = default
        return self[key]

    def __copy__(self) -> ConfigDict:
        return type(self)(self)

    copy = __copy__

    def __deepcopy__(self, memo: dict[int, Any]) -> ConfigDict:
        return type(self)({key: copy.deepcopy(value, memo) for key, value in self.items()})

    def __reduce__(self) -> Any:
        return type(self), (dict(self),)

    def to_dict(self) -> dict[Any, Any]:
        """The same as plain dicts."""
        return plain(self)


def attributed(value: Any) -> Any:
    """A value with ConfigDicts in place of its dicts."""
    if isinstance(value, Mapping):
        return value if type(value) is ConfigDict else ConfigDict(value)
    if type(value) in (list, tuple):
        return type(value)(map(attributed, value))
    return value


def plain(value: Any) -> Any:
    """A value with plain dicts in place of ConfigDicts."""
    if isinstance(value, Mapping):
        return {key: plain(item) for key, item in value.items()}
    return type(value)(map(plain, value)) if type(value) in (list, tuple) else value


class Config(ConfigDict):
    """A config whose sections are attributes, read from a file in either vocabulary, as written."""

    def __init__(self, cfg_dict: Any = None, cfg_text: str | None = None, filename: Any = None, **_: Any) -> None:
        if cfg_dict is not None and not isinstance(cfg_dict, Mapping):
            raise TypeError(f"cfg_dict must be a dict, but got {type(cfg_dict)}")
        vars(self).update(filename=filename, text=cfg_text or "")
        super().__init__(cfg_dict or {})

    _cfg_dict = property(lambda self: self)

    @staticmethod
    def fromfile(filename: Any, *args: Any, **kwargs: Any) -> Config:
        """Read a file and its bases. Raises UserError for one that cannot be read."""
        config = load_config(filename, upgrade=False, trust=True)
        text = Path(filename).read_text(encoding="utf-8") if Path(filename).is_file() else ""
        return Config(config.to_dict(), text, str(filename))

    @property
    def pretty_text(self) -> str:
        """The config as a person reads it."""
        return "\n".join(f"{key} = {plain(value)!r}" for key, value in self.items())

    def merge_from_dict(self, options: Mapping[str, Any], allow_list_keys: bool = True) -> None:
        """Set dotted keys."""
        merged = apply_overrides(convert(plain(self), Section), dict(options))
        self.clear()
        self.update(merged)

    def dump(self, file: Any = None) -> str | None:
        """Write the config to a file, as Python or YAML by its suffix; without one return its text."""
        if file is None:
            return self.pretty_text
        as_text = yaml.safe_dump(listed(self)) if Path(file).suffix in (".yaml", ".yml") else self.pretty_text
        Path(file).write_text(as_text, encoding="utf-8")
        return None

    def __deepcopy__(self, memo: dict[int, Any]) -> Config:
        return Config(copy.deepcopy(dict(self), memo), self.text, self.filename)

    def __repr__(self) -> str:
        return f"Config (path: {self.filename}): {super().__repr__()}"


def listed(value: Any) -> Any:
    """A value as YAML has it: without tuples."""
    if isinstance(value, Mapping):
        return {key: listed(item) for key, item in value.items()}
    return [listed(item) for item in value] if isinstance(value, (list, tuple)) else value


class DictAction(argparse.Action):
    """argparse's action for `--cfg-options key=value ...`."""

    def __call__(self, parser: Any, namespace: Any, values: Any, option_string: Any = None) -> None:
        pairs = (value.partition("=") for value in values)
        setattr(namespace, self.dest, {key: yaml.safe_load(text) for key, _, text in pairs})
