"""`load_config`: a recipe name or a file of any vocabulary in, the 1.x vocabulary out."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from terrazzo.config.config import Config
from terrazzo.config.custom_imports import import_custom
from terrazzo.config.experiment import SECTIONS
from terrazzo.config.reading.files import read_config
from terrazzo.config.reading.merge import COMMAND_LINE, apply_overrides
from terrazzo.config.short_form import expand as short
from terrazzo.config.v0.upgrade import OWN, RENAMED, is_old, is_old_key, upgrade_config
from terrazzo.errors import UserError
from terrazzo.recipes import recipe

SUFFIXES = (".py", ".yaml", ".yml", ".json")


def load_config(
    source: str | Path | Config | Mapping[str, Any],
    overrides: dict[str, Any] | None = None,
    *,
    vocabulary: str | None = None,
    upgrade: bool = True,
    trust: bool = False,
) -> Config:
    """A config from a file, a recipe name or a dict, in the 1.x vocabulary; as written with `upgrade=False`.

    `overrides` sets dotted keys, before the upgrade where the config has the key's section, else after it.
    `vocabulary="0.x"` takes the older of two recipes of one name; `trust` runs a `.py` file and what it
    asks to import. Raises UserError.
    """
    overrides = dict(overrides or {})
    if isinstance(source, Config):
        config = source
    elif isinstance(source, Mapping):
        config = Config(source)
    elif is_file(source):
        config = read_config(source, trust=trust)
    else:
        config = Config(recipe(str(source), vocabulary), name=str(source))
    old = vocabulary == "0.x" or is_old(config)
    early = {key: value for key, value in overrides.items() if not upgrade or is_early(key, config, old)}
    config = with_overrides(config, early)
    if upgrade and short.is_short(config):
        config = Config(short.expand(config._values, config.path), config.path, config.name)
    elif upgrade and old:
        with warnings.catch_warnings():
            if config.path is None and isinstance(source, str):
                warnings.simplefilter("ignore")  # a recipe's old keys are not the user's
            config = Config(upgrade_config(config._values, config.path), config.path, config.name)
    elif upgrade:
        tell_of_leftovers(config)
    config = with_overrides(config, {key: value for key, value in overrides.items() if key not in early})
    if trust:
        import_custom(config)
    return config


def is_early(key: str, config: Config, old: bool) -> bool:
    """Whether an override is set in the config as written: in its sections, or in settings of its vocabulary.

    Raises UserError for a section of 0.x that the config does not have since it is in the 1.x vocabulary.
    """
    section = key.partition(".")[0]
    if short.is_short(config):
        return section in config or short.is_setting(section)
    if old:
        return is_old_key(key, config)
    if section in RENAMED and section not in SECTIONS and section != "img_norm_cfg":
        raise UserError(
            f"{COMMAND_LINE}: '{key}' is a key of the 0.x vocabulary and the config is in that of 1.x, where it has no "
            f"effect; set {RENAMED[section]}"
        )
    return section in config


def tell_of_leftovers(config: Config) -> None:
    """Warn of sections of 0.x in a config of the 1.x vocabulary: they are variables there, without effect."""
    left = [name for name in OWN if isinstance(config.get(name), dict)]
    if left:
        names = ", ".join(f"'{name}' ({RENAMED.get(name, 'gone')})" for name in left)
        warnings.warn(f"{config.path or 'the config'} is in the 1.x vocabulary, where these have no effect: {names}")


def with_overrides(config: Config, overrides: dict[str, Any]) -> Config:
    """The config with dotted keys set."""
    return Config(apply_overrides(config._values, overrides), config.path, config.name) if overrides else config


def is_file(source: str | Path) -> bool:
    """Whether a source names a file rather than a recipe. Raises UserError for a path that does not exist."""
    path = Path(source)
    if path.suffix.lower() not in SUFFIXES:
        return False
    if not path.is_file():
        raise UserError(f"there is no config file {path}")
    return True
