"""Programs of `torch.export`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch

from terrazzo.errors import UserError
from terrazzo.inference.exported import ModelFacts

FACTS = "terrazzo.json"  # the name of the facts inside a program's file


class ProgramSession:
    """The module of a program, which returns the outputs that its facts list."""

    def __init__(self, path: str | Path, module: Any, facts: ModelFacts) -> None:
        self.path, self.module, self.facts = Path(path), module, facts

    @classmethod
    def read(cls, path: str | Path) -> ProgramSession:
        """Read a `.pt2` file. Raises UserError for one that is not an exported model."""
        if not Path(path).is_file():
            raise UserError(f"there is no file {path}")
        extra = {FACTS: ""}
        try:
            program = torch.export.load(path, extra_files=extra)
            texts = json.loads(extra[FACTS] or "{}")
        except Exception as problem:  # of several classes: zip, JSON, torch's own
            raise UserError(f"{path} cannot be read as a torch.export program: {str(problem)[:200]}") from None
        return cls(path, program.module(), ModelFacts.read(texts, path))

    def run(self, images: np.ndarray, output: str) -> np.ndarray:
        with torch.inference_mode():
            try:
                found = self.module(torch.from_numpy(images))
            except (RuntimeError, AssertionError) as problem:
                shape = "x".join(map(str, images.shape))
                reason = str(problem).splitlines()[0]
                raise UserError(f"{self.path} does not run on images of {shape}: {reason}") from None
        return found[self.facts.outputs.index(output)].numpy()
