"""Flags of MMSegmentation's scripts that other flags or automatic behaviour have replaced."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping

# spellings of a flag -> how many values it takes (0: none, "*": any), the note printed when it is given ("": none)
Replaced = Mapping[str, tuple[int | str, str]]


def add_replaced(parser: argparse.ArgumentParser, flags: Replaced) -> None:
    """Let a parser accept the flags without showing them in its help."""
    for names, (count, _) in flags.items():
        if count == 0:
            parser.add_argument(*names.split(), action="store_true", help=argparse.SUPPRESS)
        else:
            parser.add_argument(*names.split(), nargs=None if count == 1 else count, help=argparse.SUPPRESS)


def report_replaced(args: argparse.Namespace, flags: Replaced) -> None:
    """Print one line for each of the flags that was given."""
    for names, (_, note) in flags.items():
        flag = names.split()[0]
        if note and getattr(args, flag.lstrip("-").replace("-", "_")) not in (None, False):
            print(f"{flag}: {note}", file=sys.stderr)
