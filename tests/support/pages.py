"""The pages of the docs, and what they show."""

from __future__ import annotations

import re
from pathlib import Path

from support.paths import REPOSITORY

PAGES = sorted([*(REPOSITORY / "docs").rglob("*.md"), *REPOSITORY.glob("*.md")])
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```", re.DOTALL | re.MULTILINE)
INLINE = re.compile(r"`(terrazzo [^`]*)`")


def read(page: Path) -> str:
    return page.read_text(encoding="utf-8")


def blocks(page: Path, *languages: str) -> list[str]:
    return [body for language, body in BLOCK.findall(read(page)) if language in languages]


def commands(page: Path) -> list[str]:
    """The calls of terrazzo and of its entry scripts on a page, in blocks and in the text."""
    bodies = [body.replace("\\\n", " ") for body in blocks(page, "sh", "bash", "console", "")]
    lines = [line for body in bodies for line in body.splitlines()]
    shown = [line.removeprefix("$ ").strip() for line in lines]
    shown = [line for line in shown if line.startswith(("terrazzo ", "python tools/"))]
    return shown + [" ".join(call.split()) for call in INLINE.findall(BLOCK.sub("", read(page)))]
