"""A config as read: its values, the origin of each, and its text."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, MutableMapping
from pathlib import Path
from typing import Any

from terrazzo.config.reading.merge import apply_overrides
from terrazzo.config.reading.section import IN_PYTHON, Section, convert, find_origin, plain
from terrazzo.config.write import as_python
from terrazzo.errors import UserError, nearest
from terrazzo.recipes.published import RecipeRecord
from terrazzo.system.files import write_whole

OWN = ("path", "name", "recipe", "secrets")  # attributes that are facts about the config, not keys of it

SHORTEST_SECRET = 5  # characters


class Config(MutableMapping[str, Any]):
    """The resolved values of a config, read and set by key (`cfg["model"]`) and attribute (`cfg.model.decode_head`)."""

    path: Path | None
    name: str | None  # of a recipe, or of a file without its suffix: it names work dirs and means nothing else
    recipe: RecipeRecord | None  # that the values were expanded from

    def __init__(
        self,
        values: Mapping[str, Any],
        path: str | Path | None = None,
        *,
        name: str | None = None,
        recipe: RecipeRecord | None = None,
        secrets: Mapping[str, Any] | None = None,
    ) -> None:
        """Copy `values`; `name` is the file's own, without its suffix, unless it is given."""
        self._values: Section = convert(dict(values) if not isinstance(values, dict) else values, Section)
        self.path = None if path is None else Path(path)
        self.name = name or (self.path.stem if self.path is not None else None)
        self.recipe = recipe
        self.secrets: dict[str, Any] = dict(secrets or (values.secrets if isinstance(values, Config) else {}))

    def with_values(self, values: Mapping[str, Any]) -> Config:
        """The same config with other values: its path, name and recipe stay. A Section is taken over, not copied."""
        config = Config({}, self.path, name=self.name, recipe=self.recipe, secrets=self.secrets)
        config._values = values if isinstance(values, Section) else convert(dict(values), Section)
        return config

    def to_dict(self) -> dict[str, Any]:
        """Return a deep copy as plain dicts, lists and tuples, the file's own public variables included."""
        return plain(self._values)

    def shareable(self) -> dict[str, Any]:
        """`to_dict()` for files and trackers: with `{{ $NAME }}` where a value of the environment is."""
        return without_secrets(self.to_dict(), self.secrets)

    def origin(self, key: str) -> str | None:
        """The location at which a dotted key was last set, "file:line"; None where that is unknown."""
        return find_origin(self._values, key)

    @property
    def pretty_text(self) -> str:
        """The config as the text of a `.py` file."""
        return as_python(self.shareable())

    @property
    def filename(self) -> str | None:
        """The path of its file as a text."""
        return None if self.path is None else str(self.path)

    def merge_from_dict(self, options: Mapping[str, Any]) -> None:
        """Set dotted keys, such as `{"model.decode_head.num_classes": 2}`; dicts merge. Raises UserError."""
        self._values = apply_overrides(self._values, options, IN_PYTHON)  # type: ignore[assignment]

    def dump(self, file: str | Path | None = None) -> str:
        """Return the config as YAML text, tuples as lists; or write it to `file`, a `.py`, `.yaml` or `.json`.

        Raises UserError for another ending and for a value that the format cannot hold.
        """
        if file is None:
            return self.as_yaml()
        suffix = Path(file).suffix.lower()
        writers = {".py": lambda: self.pretty_text, ".json": self.as_json, ".yaml": self.as_yaml, ".yml": self.as_yaml}
        if suffix not in writers:
            raise UserError(f"{file} is not a config file: its name must end in {', '.join(writers)}")
        text = writers[suffix]()
        write_whole(Path(file), text)
        return text

    def as_json(self) -> str:
        """Return the config as JSON text. Raises UserError for a value that JSON cannot hold."""
        try:
            return json.dumps(self.shareable(), indent=2, ensure_ascii=False) + "\n"
        except TypeError as error:
            raise UserError(f"{self.path or 'the config'}: {error}") from None

    def as_yaml(self) -> str:
        """Return `shareable()` as YAML text. Raises UserError for a value that YAML cannot hold."""
        import yaml

        from terrazzo.config.reading.markup import Dumper

        try:
            return yaml.dump(self.shareable(), Dumper=Dumper, sort_keys=False, allow_unicode=True, width=120)
        except yaml.representer.RepresenterError as error:
            raise UserError(f"{self.path or 'the config'}: YAML cannot hold {error.args[-1]!r}") from None

    def __getitem__(self, key: str) -> Any:
        return self._values[key]

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_") or name not in self._values:
            raise AttributeError(f"the config has no key '{name}'{nearest(name, self.__dict__.get('_values', {}))}")
        return self._values[name]

    def __setitem__(self, key: str, value: Any) -> None:
        self._values.put(key, convert(value, Section, IN_PYTHON), IN_PYTHON)

    def __delitem__(self, key: str) -> None:
        del self._values[key]

    def __setattr__(self, name: str, value: Any) -> None:
        if name.startswith("_") or name in OWN:
            object.__setattr__(self, name, value)
        else:
            self[name] = value

    def __delattr__(self, name: str) -> None:
        del self[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def __repr__(self) -> str:
        return f"Config({self.path or 'in memory'}: {', '.join(self)})"


def without_secrets(value: Any, secrets: Mapping[str, Any]) -> Any:
    """Return a value with the names of `secrets` instead of what they hold, also within texts; short ones stay."""
    for name, secret in secrets.items():
        if isinstance(secret, bool) or len(str(secret)) < SHORTEST_SECRET:
            continue
        if type(value) is type(secret) and value == secret:
            return name
        if isinstance(value, str) and isinstance(secret, str):
            value = value.replace(secret, name)
    if isinstance(value, dict):
        return {without_secrets(key, secrets): without_secrets(item, secrets) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(without_secrets(item, secrets) for item in value)
    return value
