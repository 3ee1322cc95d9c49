"""`terrazzo port`."""

from __future__ import annotations

import argparse
from pathlib import Path

from terrazzo.errors import UserError

EXAMPLES = """\
  terrazzo port my_head.py                   write my_head_terrazzo.py, and list what is left to do"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("file", metavar="FILE", help="a module that imports mmseg, mmcv, mmengine or their siblings")
    parser.add_argument("--out", metavar="FILE", help="the file to write (default: NAME_terrazzo.py beside it)")


def run(args: argparse.Namespace) -> int:
    from terrazzo.plugins import TOOLBOXES
    from terrazzo.porting import port, ported_text
    from terrazzo.registry import model_type
    from terrazzo.system.files import write_whole
    from terrazzo.system.terminal import Console

    source = Path(args.file)
    if source.suffix != ".py" or not source.is_file():
        raise UserError(f"{source} is not a Python file")
    try:
        found = port(source, model_type, TOOLBOXES, alone=True, inside_try=True)
    except SyntaxError as problem:
        raise UserError(f"{source}:{problem.lineno}: {problem.msg}") from None
    console = Console()
    if not found.changes:
        console.print(f"{source} imports nothing of MMSegmentation's packages: nothing to change", markup=False)
        return 0
    target = Path(args.out) if args.out else source.with_name(f"{source.stem}_terrazzo.py")
    write_whole(target, ported_text(source, found))
    console.print(f"{target}: {len(found.changes) - len(found.open)} changes are made", markup=False)
    for change in found.open:
        console.print(f"  to decide, line {change.line}: {change.old}  {change.new}", markup=False)
    for note in found.notes:
        console.print(f"  to check: {note}", markup=False)
    return 0
