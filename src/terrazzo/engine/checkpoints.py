"""What a run saves: the state to resume from, and self-contained weights."""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from terrazzo.engine.files import make_folder, write_atomically
from terrazzo.errors import UserError


class Checkpoints:
    """The checkpoint files of a work dir: `checkpoints/step_N.pt`, `best.safetensors`, `last.safetensors`."""

    def __init__(self, work_dir: Path, keep: int = 2) -> None:
        self.work_dir = work_dir
        self.folder = make_folder(work_dir / "checkpoints")
        self.keep = keep

    @property
    def best(self) -> Path:
        return self.work_dir / "best.safetensors"

    @property
    def last(self) -> Path:
        return self.work_dir / "last.safetensors"

    def states(self) -> list[Path]:
        """Saved states, oldest first."""
        return sorted(self.folder.glob("step_*.pt"), key=lambda path: int(path.stem.partition("_")[2]))

    def save_state(self, step: int, state: Mapping[str, Any]) -> Path:
        """Write a state and delete the oldest ones beyond `keep`."""
        path = self.folder / f"step_{step}.pt"
        write_atomically(path, lambda temporary: torch.save(dict(state), temporary))
        for old in self.states()[: -self.keep]:
            old.unlink()
        return path

    def newest_state(self) -> dict[str, Any] | None:
        """The newest state, or None where there is none. Raises UserError for a damaged file."""
        found = self.states()
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
        # tied entries share storage, which safetensors refuses: every name gets its own copy
        tensors = {name: value.detach().cpu().contiguous().clone() for name, value in weights.items()}
        write_atomically(path, lambda temporary: save_file(tensors, str(temporary), metadata=dict(meta)))


def random_state() -> dict[str, Any]:
    """The state of torch's generators."""
    state: dict[str, Any] = {"cpu": torch.get_rng_state()}
    if torch.cuda.is_available():
        state["cuda"] = torch.cuda.get_rng_state_all()
    return state


def set_random_state(state: Mapping[str, Any]) -> None:
    """Continue torch's random numbers where they were."""
    torch.set_rng_state(state["cpu"])
    if torch.cuda.is_available() and len(state.get("cuda", ())) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all(state["cuda"])
