"""A config as read: its values, the origin of each, and its text."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from terrazzo.config.reading.section import Section, convert, find_origin, plain
from terrazzo.errors import UserError, nearest
from terrazzo.recipes.published import RecipeRecord

SHORTEST_SECRET = 5  # characters


class Config(Mapping[str, Any]):
    """The resolved values of a config, by key (`cfg["model"]`) and by attribute (`cfg.model.decode_head`)."""

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

    def dump(self) -> str:
        """Return `shareable()` as YAML text, tuples as lists. Raises UserError for a value that YAML cannot hold."""
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
