"""The checkpoints of a run: states to resume from, and self-contained weights."""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from terrazzo.errors import UserError
from terrazzo.system.files import make_folder, remove_leftovers, write_atomically


class Checkpoints:
    """The checkpoint files of a work dir: `checkpoints/step_N.pt`, `best.safetensors`, `last.safetensors`.

    `keep` states are kept, all with None; those of an earlier run are deleted when a new one has saved its first.
    """

    def __init__(self, work_dir: Path, keep: int | None = 2) -> None:
        self.folder = make_folder(work_dir / "checkpoints")
        self.best, self.last = work_dir / "best.safetensors", work_dir / "last.safetensors"
        self.keep = keep
        self.earlier = self.states()
        remove_leftovers(self.folder, "step_*.pt")
        remove_leftovers(work_dir, "*.safetensors", "config.yaml")

    def states(self) -> list[Path]:
        """Saved states, oldest first."""
        steps = {path: path.stem.partition("_")[2] for path in self.folder.glob("step_*.pt")}
        return sorted((path for path, step in steps.items() if step.isdecimal()), key=lambda path: int(steps[path]))

    def save_state(self, step: int, state: Mapping[str, Any]) -> Path:
        """Write a state and delete the oldest ones beyond `keep`."""
        path = self.folder / f"step_{step}.pt"
        write_atomically(path, lambda temporary: torch.save(dict(state), temporary))
        outdated = [old for old in self.earlier if old != path]
        kept = [own for own in self.states() if own not in outdated]
        for old in outdated + (kept[: -self.keep] if self.keep is not None else []):
            old.unlink(missing_ok=True)
        self.earlier = []
        return path

    def newest_state(self) -> dict[str, Any] | None:
        """The newest state, or None if there is none; from here on the states belong to this run.

        Raises UserError for a damaged file.
        """
        found, self.earlier = self.states(), []
        if not found:
            return None
        try:
            return torch.load(found[-1], map_location="cpu", weights_only=True)
        except (RuntimeError, EOFError, pickle.UnpicklingError, OSError) as problem:
            raise UserError(
                f"{found[-1]} cannot be read ({str(problem).splitlines()[0]}): delete it to resume from the one before"
            ) from None

    def save_weights(self, path: Path, model: nn.Module | Mapping[str, Tensor], meta: Mapping[str, str]) -> None:
        """Write weights and their description as one safetensors file."""
        weights = model.state_dict() if isinstance(model, nn.Module) else model
        # tied entries share storage, which safetensors refuses: every name gets a copy
        tensors = {name: value.detach().cpu().contiguous().clone() for name, value in weights.items()}
        write_atomically(path, lambda temporary: save_file(tensors, str(temporary), metadata=dict(meta)))
