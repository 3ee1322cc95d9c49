"""Programs of `torch.export`, as they are or compiled by AOTInductor."""

from __future__ import annotations

import json
import os
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import torch

from terrazzo.errors import UserError, first_line
from terrazzo.hub.cache import is_own_program
from terrazzo.inference.exported import ModelFacts

FACTS = "terrazzo.json"  # the name of the facts inside a program's file


class ProgramSession:
    """The module of a program, which returns the outputs that its facts list."""

    def __init__(self, path: str | Path, module: Any, facts: ModelFacts) -> None:
        self.path, self.module, self.facts = Path(path), module, facts

    @classmethod
    def read(cls, path: str | Path, trust: bool = False) -> ProgramSession:
        """Read a `.pt2` file. Raises UserError for one that is not an exported model.

        torch executes what such a file says: pickles, expressions, guards, calls by name, or machine code. So the file
        of others must be trusted.
        """
        if not Path(path).is_file():
            raise UserError(f"there is no file {path}")
        if not (trust or is_own_program(Path(path))):
            raise UserError(
                f"{path} is a program, which torch runs when it opens the file, and it was not exported by you on this "
                "computer: if you trust whoever made it, give --trust-config (trust=True); an .onnx file needs no trust"
            )
        if is_compiled(path):
            return cls.read_compiled(path)
        extra = {FACTS: ""}
        try:
            program = torch.export.load(path, extra_files=extra)
            texts = json.loads(extra[FACTS] or "{}")
        except Exception as problem:  # of several classes: zip, JSON, torch's own
            raise UserError(f"{path} cannot be read as a torch.export program: {str(problem)[:200]}") from None
        return cls(path, program.module(), ModelFacts.read(texts, path))

    @classmethod
    def read_compiled(cls, path: str | Path) -> ProgramSession:
        try:
            module = torch._inductor.aoti_load_package(os.fspath(path))
            texts = module.get_metadata()
        except Exception as problem:  # of several classes, for another machine too
            raise UserError(f"{path} cannot be loaded on this machine: {str(problem)[:200]}") from None
        return cls(path, module, ModelFacts.read(texts, path))

    def run(self, images: np.ndarray, output: str) -> np.ndarray:
        with torch.inference_mode():
            try:
                found = self.module(torch.from_numpy(images))
            except (RuntimeError, AssertionError) as problem:
                shape = "x".join(map(str, images.shape))
                reason = first_line(problem)
                raise UserError(f"{self.path} does not run on images of {shape}: {reason}") from None
        return found[self.facts.outputs.index(output)].numpy()


def is_compiled(path: str | Path) -> bool:
    """Return True for a package of AOTInductor."""
    try:
        with zipfile.ZipFile(path) as archive:
            return any("/data/aotinductor/" in name for name in archive.namelist())
    except (OSError, zipfile.BadZipFile):
        return False
