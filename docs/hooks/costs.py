"""Parameters and GFLOPs of every recipe, for the reference: from costs.json, and measured where it lacks one.

python docs/hooks/costs.py       # measures what is missing, and forgets what no recipe has any more
"""

from __future__ import annotations

import hashlib
import json
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import terrazzo as tz
from terrazzo.errors import UserError
from terrazzo.models.info import crop_size, model_info
from terrazzo.recipes import info
from terrazzo.system.files import write_whole

FILE = Path(__file__).with_name("costs.json")  # digest of model and image size -> parameters, FLOPs
NO_PART_OF_IT = {"loss_decode", "sampler", "train_cfg", "test_cfg", "pretrained", "init_cfg", "data_preprocessor"}

Cost = tuple[int, int] | None  # None: of a model that needs a package that is not installed
Costs = dict[str, Cost]


def recipe_names() -> list[str]:
    """Every recipe under its name in the 1.x vocabulary."""
    return [name for name in tz.recipes.names() if info(name).vocabulary == "1.x"]


def costs(progress: Callable[[int], None] = lambda _: None) -> Iterator[tuple[str, Cost]]:
    """(recipe, (parameters, FLOPs of one image at the crop size)), from the file or measured."""
    known: Costs = json.loads(FILE.read_text()) if FILE.exists() else {}
    for name in recipe_names():
        key = digest(name)
        if key not in known:
            known[key] = measure(name)
            progress(len(known))
        yield name, known[key]


def digest(name: str) -> str:
    """What identifies the model of a recipe, and the size of the image that it is measured with."""
    config = tz.load_config(name).to_dict()
    seen = [without(config["model"]), crop_size(config)]
    return hashlib.sha256(json.dumps(seen, sort_keys=True, default=str).encode()).hexdigest()[:16]


def without(spec: Any) -> Any:
    """A model's config without what changes neither its parameters nor what inference computes."""
    if isinstance(spec, dict):
        return {key: without(value) for key, value in spec.items() if key not in NO_PART_OF_IT}
    return [without(value) for value in spec] if isinstance(spec, (list, tuple)) else spec


def measure(name: str) -> Cost:
    """Parameters and FLOPs of a recipe's model at its crop size."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            found = model_info(tz.load_config(name))
        except UserError as problem:
            if "pip install" in str(problem):
                return None
            raise
    return found.parameters, found.flops


def main() -> None:
    measured: Costs = {}
    for name, cost in costs(print):
        measured[digest(name)] = cost
        if len(measured) % 20 == 0:
            save(measured)
    save(measured)


def save(measured: Costs) -> None:
    lines = (f'"{key}": {json.dumps(cost)}' for key, cost in sorted(measured.items()))
    write_whole(FILE, "{\n" + ",\n".join(lines) + "\n}\n")


if __name__ == "__main__":
    main()
