"""The checkpoints of a run: states to resume from, and self-contained weights."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from terrazzo.errors import UserError
from terrazzo.models.layers.lora import merged_weights
from terrazzo.models.safe_pickle import load_pickle
from terrazzo.system.files import make_folder, remove_leftovers, write_atomically, write_safetensors


class Checkpoints:
    """The checkpoint files of a work dir: `checkpoints/step_N.pt`, `best.safetensors`, `last.safetensors`.

    `keep` states are kept, all with None.
    """

    def __init__(self, work_dir: Path, keep: int | None = 2) -> None:
        self.folder = make_folder(work_dir / "checkpoints")
        self.best, self.last = work_dir / "best.safetensors", work_dir / "last.safetensors"
        self.keep = keep
        remove_leftovers(self.folder, "step_*.pt")
        remove_leftovers(work_dir, "*.safetensors", "config.yaml")

    def states(self) -> list[Path]:
        """Saved states, oldest first."""
        found = [path for path in self.folder.glob("step_*.pt") if path.stem.partition("_")[2].isdecimal()]
        return sorted(found, key=step_number)

    def save_state(self, step: int, state: Mapping[str, Any]) -> Path:
        """Write a state and delete the oldest ones beyond `keep`."""
        path = self.folder / f"step_{step}.pt"
        write_atomically(path, lambda temporary: torch.save(dict(state), temporary))
        for old in self.states()[: -self.keep] if self.keep is not None else ():
            old.unlink(missing_ok=True)
        return path

    def newest_state(self, say: Callable[[str], object]) -> dict[str, Any] | None:
        """The newest state that is whole, or None if there is none; `say` is told of damaged ones.

        Raises UserError if all are damaged.
        """
        found = self.states()
        for path in reversed(found):
            try:
                return read_state(path)
            except UserError as problem:  # noqa: PERF203 - the one before may be whole
                say(f"warning: {problem}: it is not used")
        if found:
            raise UserError(
                f"{self.folder} has no state that is whole, so there is nothing to resume: start afresh with "
                "--overwrite, or in another --work-dir"
            )
        return None

    def forget_after(self, step: int) -> None:
        """Delete the states of later steps, which a resumed run repeats; for a new run (0) also the weights."""
        for path in self.states():
            if step_number(path) > step:
                path.unlink(missing_ok=True)
        for path in (self.best, self.last) if not step else ():
            path.unlink(missing_ok=True)

    def save_weights(self, path: Path, model: nn.Module | Mapping[str, Tensor], meta: Mapping[str, str]) -> None:
        """Write weights and their description as one safetensors file, low-rank changes added to their weights."""
        weights = merged_weights(model) if isinstance(model, nn.Module) else model
        # tied entries share storage, which safetensors refuses: every name gets a copy
        tensors = {name: value.detach().cpu().contiguous().clone() for name, value in weights.items()}
        write_safetensors(path, tensors, meta)


def step_number(path: Path) -> int:
    """The step of a state's file, `step_500.pt`."""
    return int(path.stem.partition("_")[2])


def read_state(path: Path) -> dict[str, Any]:
    """The content of a state's file. Raises UserError for one that is damaged, by the checksums in it."""
    if not path.stat().st_size:
        raise UserError(f"{path} is damaged (it is empty)")
    content = load_pickle(path)
    is_state = isinstance(content, dict) and {"position", "optimizer", "schedule"} <= content.keys()
    if not is_state or not isinstance(content.get("step"), int):
        raise UserError(f"{path} is not the state of a run, which is in checkpoints/step_N.pt of its work dir")
    return content
