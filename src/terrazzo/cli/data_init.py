"""`terrazzo data init`."""

from __future__ import annotations

import argparse
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("folder", metavar="DIR", help="a folder with images and labels, in any common layout")
    add("--out", metavar="FILE", help="the config to write (default: <DIR's name>.yaml)")
    add("--recipe", default="fastscnn", metavar="R", help="a family or recipe (default: fastscnn)")
    add("--force", action="store_true", help="replace an existing config")


def run(args: argparse.Namespace) -> int:
    """Write the config, print it, and name the next commands."""
    from rich.console import Console

    from terrazzo.data.discovery.propose import Proposal
    from terrazzo.errors import UserError
    from terrazzo.system.files import make_folder, write_atomically

    folder = Path(args.folder)
    target = Path(args.out or f"{folder.resolve().name}.yaml")
    if target.suffix.lower() not in (".yaml", ".yml"):
        raise UserError(f"--out {target}: the name must end in .yaml or .yml")
    if target.exists() and not args.force:
        raise UserError(f"{target} exists already: --force replaces it, --out FILE writes elsewhere")
    text = Proposal(folder, args.recipe, Console(stderr=True)).text(target)
    make_folder(target.parent)
    write_atomically(target, lambda path: path.write_text(text, encoding="utf-8"))
    print(text)
    print(f"config: {target}\nnext: terrazzo data browse {target}; terrazzo train {target}")
    return 0
