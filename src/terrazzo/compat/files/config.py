"""`Config` and `ConfigDict`: config sections whose keys are also attributes."""

from __future__ import annotations

import argparse
import copy
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from terrazzo.config.load import load_config
from terrazzo.config.reading.merge import apply_overrides, merge
from terrazzo.config.reading.section import Section, convert
from terrazzo.plugins import named_class


class ConfigDict(dict[Any, Any]):
    """A dict whose keys are also attributes; the dicts inside it are of this kind too."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__()
        self.update(*args, **kwargs)

    def __getattr__(self, name: str) -> Any:
        try:
            return self[name]
        except KeyError:
            raise AttributeError(f"'{type(self).__name__}' object has no attribute '{name}'") from None

    def __setitem__(self, key: Any, value: Any) -> None:
        super().__setitem__(key, changed(value, ConfigDict))

    __setattr__, __delattr__ = __setitem__, dict.__delitem__  # type: ignore[assignment]

    def update(self, *args: Any, **kwargs: Any) -> None:
        for key, value in dict(*args, **kwargs).items():
            self[key] = value

    def setdefault(self, key: Any, default: Any = None) -> Any:
        if key not in self:
            self[key] = default
        return self[key]

    def merge(self, other: Mapping[str, Any]) -> None:
        """Merge the dicts of another one into those here; `_delete_=True` in one replaces it."""
        self.update(merge(convert(self.to_dict(), Section), convert(changed(other, dict), Section)))

    __copy__ = copy = lambda self: ConfigDict(self)

    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        return ConfigDict({key: copy.deepcopy(value, memo) for key, value in self.items()})

    def __reduce__(self) -> Any:
        return ConfigDict, (dict(self),)

    def to_dict(self) -> dict[Any, Any]:
        return changed(self, dict)


def changed(value: Any, kind: type) -> Any:
    """A value with dicts of a kind in place of those in it."""
    if isinstance(value, Mapping):
        if kind is ConfigDict:
            return value if type(value) is ConfigDict else ConfigDict(value)
        return {key: changed(item, kind) for key, item in value.items()}
    if type(value) in (list, tuple):
        return type(value)(changed(item, kind) for item in value)
    named = named_class(value) if kind is ConfigDict else None
    return value if named is None else named


class Config(ConfigDict):
    """A config whose sections are attributes, read from a file in either vocabulary, as written."""

    def __init__(self, cfg_dict: Any = None, cfg_text: str | None = None, filename: Any = None, **_: Any) -> None:
        if cfg_dict is not None and not isinstance(cfg_dict, Mapping):
            raise TypeError(f"cfg_dict must be a dict, but got {type(cfg_dict)}")
        vars(self).update(filename=filename, text=cfg_text or "")
        super().__init__(cfg_dict or {})

    @staticmethod
    def fromfile(filename: Any, *args: Any, **kwargs: Any) -> Config:
        config = load_config(filename, upgrade=False, trust=True)
        text = Path(filename).read_text(encoding="utf-8") if Path(filename).is_file() else ""
        return Config(config.to_dict(), text, str(filename))

    _cfg_dict = property(lambda self: self)
    pretty_text = property(lambda self: "\n".join(f"{key} = {value!r}" for key, value in self.to_dict().items()))

    def merge_from_dict(self, options: Mapping[str, Any], allow_list_keys: bool = True) -> None:
        merged = apply_overrides(convert(self.to_dict(), Section), dict(options))
        self.clear()
        self.update(merged)

    def dump(self, file: Any = None) -> str | None:
        if file is None:
            return self.pretty_text
        Path(file).write_text(self.pretty_text, encoding="utf-8")
        return None

    def __deepcopy__(self, memo: dict[int, Any]) -> Config:
        return Config(copy.deepcopy(dict(self), memo), self.text, self.filename)

    def __copy__(self) -> Config:
        return Config(self, self.text, self.filename)

    copy = __copy__


class DictAction(argparse.Action):
    """argparse's action for `--cfg-options key=value ...`."""

    def __call__(self, parser: Any, namespace: Any, values: Any, option_string: Any = None) -> None:
        pairs = (value.partition("=") for value in values)
        setattr(namespace, self.dest, {key: yaml.safe_load(text) for key, _, text in pairs})
