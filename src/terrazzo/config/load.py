"""`load_config`: from a recipe name, or a file in any vocabulary, to a config in the 1.x vocabulary."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from terrazzo.config.authors import without_replaced_base
from terrazzo.config.config import Config
from terrazzo.config.custom_imports import import_custom
from terrazzo.config.reading.files import SUFFIXES, read_config
from terrazzo.config.reading.merge import COMMAND_LINE, apply_overrides
from terrazzo.config.reading.section import IN_PYTHON, Section, convert
from terrazzo.config.sections import SECTIONS
from terrazzo.config.short_form import expand as short
from terrazzo.config.v0.upgrade import OWN, RENAMED, is_old, is_old_key, upgrade_config
from terrazzo.errors import UserError
from terrazzo.recipes import RecipeRecord
from terrazzo.recipes.compose import expand_recipe, is_family


def load_config(
    source: str | Path | Config | Mapping[str, Any],
    overrides: dict[str, Any] | None = None,
    *,
    vocabulary: str | None = None,
    upgrade: bool = True,
    trust: bool = False,
) -> Config:
    """Load a config from a file, a recipe name or a dict, in the 1.x vocabulary; as written with `upgrade=False`.

    `overrides` sets dotted keys, before the upgrade if the config has the key's section, else after it.
    `vocabulary="0.x"` takes the older of two recipes of one name; `trust` runs a `.py` file and the modules that
    it imports. Raises UserError.
    """
    overrides = dict(overrides or {})
    # read
    if isinstance(source, (str, Path)) and (Path(source) / "config.yaml").is_file():
        source = Path(source) / "config.yaml"  # of a run's folder
    if isinstance(source, Config):
        config = Config(source, source.path, name=source.name, recipe=source.recipe) if overrides else source
    elif isinstance(source, Mapping):
        config = Config(source)
    elif is_file(source):
        config = read_config(source, trust=trust)
        if "model" in config:
            config._values.put("model", without_replaced_base(config["model"]), config._values.origin_of("model"))
    else:
        values, record = expand_recipe(str(source), vocabulary)
        config = Config(values, name=str(source), recipe=record)
    # bring to the 1.x vocabulary
    old = vocabulary == "0.x" or is_old(config)
    early = {key: value for key, value in overrides.items() if not upgrade or is_early(key, config, old)}
    config = with_overrides(config, early)
    imported = False
    if upgrade and short.is_short(config):
        config = expanded(config)
    elif upgrade and old:
        if trust:
            import_custom(config)  # first: a project's own transform keeps its arguments
            imported = True
        with warnings.catch_warnings():
            if config.path is None and isinstance(source, str):
                warnings.simplefilter("ignore")  # a recipe's old keys are not the user's
            config = config.with_values(convert(upgrade_config(config._values, config.path, trust=trust), Section))
    elif upgrade:
        warn_about_leftovers(config)
    late = {key: value for key, value in overrides.items() if key not in early}
    config = with_overrides(config, late)
    # run what it imports
    if trust and (late or not imported):
        import_custom(config)
    return config


def expanded(config: Config) -> Config:
    """Expand the short form and record its recipe, whose batch is known if the learning rate is the recipe's."""
    values = short.expand(config._values, config.path)
    name, optimizer = config.get("recipe") or short.network_name(config["model"]), config.get("optimizer") or {}
    if is_family(name) or not config.get("recipe"):
        recipe = RecipeRecord(name)
    else:
        recipe = expand_recipe(name)[1]
        if config.get("lr") is not None or "lr" in optimizer or "type" in optimizer:
            recipe = RecipeRecord(name)
    return Config(values, config.path, name=config.name, recipe=recipe, secrets=config.secrets)


def is_early(key: str, config: Config, old: bool) -> bool:
    """Check for an override of the config as written: of its sections, or of settings of its vocabulary.

    Raises UserError for a section of 0.x that the config does not have because it is in the 1.x vocabulary.
    """
    section = key.partition(".")[0]
    if short.is_short(config):
        return section in config or short.is_setting(section) or key in short.NETWORK
    if key == "recipe":
        raise UserError("--backbone and --head name another network for a config in the short form, which this is not")
    if old:
        return is_old_key(key, config)
    if section in RENAMED and section not in SECTIONS and section != "img_norm_cfg":
        raise UserError(
            f"{COMMAND_LINE}: '{key}' is a key of the 0.x vocabulary, but the config is in that of 1.x, where it has "
            f"no effect; set {RENAMED[section]}"
        )
    return section in config


def warn_about_leftovers(config: Config) -> None:
    """Warn about sections of 0.x in a config of the 1.x vocabulary: there they are variables without effect.

    Raises UserError for an `optimizer` that the file itself, or an assignment, sets to others than optim_wrapper's,
    unless the file sets that one too, as one does that a run has written.
    """
    wrapper: Any = config.get("optim_wrapper")
    optimizer: Any = config.get("optimizer")
    used = (wrapper.get("optimizer") if isinstance(wrapper, dict) else None) or {}
    file = str(config.path)
    states_both = isinstance(used, Section) and any((used.origin_of(key) or "").startswith(file) for key in used)
    own = (IN_PYTHON, COMMAND_LINE) if states_both else (file, IN_PYTHON, COMMAND_LINE)
    for key in optimizer if isinstance(optimizer, Section) else ():
        origin = optimizer.origin_of(key) or ""
        if used.get(key) != optimizer[key] and origin.startswith(own):
            raise UserError(
                f"{origin}: 'optimizer' at the top level has no effect in the 1.x vocabulary: set "
                f"optim_wrapper=dict(optimizer=dict({key}={optimizer[key]!r}, ...)), or delete it"
            )
    left = [name for name in OWN if isinstance(config.get(name), dict)]
    if states_both and isinstance(optimizer, Section) and any(used.get(key) != optimizer[key] for key in optimizer):
        left.append("optimizer")
    if left:
        names = ", ".join(f"'{name}' ({RENAMED.get(name, 'gone')})" for name in left)
        warnings.warn(f"{config.path or 'the config'} is in the 1.x vocabulary, where these have no effect: {names}")


def with_overrides(config: Config, overrides: dict[str, Any]) -> Config:
    """Return the config with dotted keys set."""
    return config.with_values(apply_overrides(config._values, overrides)) if overrides else config


def is_file(source: str | Path) -> bool:
    """Check for the name of a file rather than of a recipe. Raises UserError for a path that does not exist."""
    path = Path(source)
    if path.suffix.lower() not in SUFFIXES:
        return False
    if not path.is_file():
        raise UserError(f"there is no config file {path}")
    return True
