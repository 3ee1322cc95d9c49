"""Notebooks as pages: their text, their code and the outputs that they were saved with.

python docs/hooks/notebook_pages.py docs/notebooks/*.ipynb    # runs each in an empty folder, and saves the outputs
"""

from __future__ import annotations

import json
import os
import re
import sys
import tempfile
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path
from typing import Any

COLOURS = re.compile(r"\x1b\[[0-9;]*m")


def pages(folder: Path) -> dict[str, str]:
    """Path of a page in the site -> its Markdown, for every notebook in a folder."""
    return {f"{folder.name}/{path.stem}.md": page(path) for path in sorted(folder.glob("*.ipynb"))}


def page(path: Path) -> str:
    """The Markdown of a notebook; the first line below its title leads to the file."""
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    blocks = [block for cell in cells for block in shown(cell)]
    blocks.insert(1, f"[This notebook]({path.name}) runs on scenes that it draws itself, offline.")
    return "\n\n".join(blocks) + "\n"


def shown(cell: dict[str, Any]) -> Iterator[str]:
    """The blocks of one cell."""
    source = "".join(cell["source"])
    if cell["cell_type"] == "markdown":
        title, _, rest = source.partition("\n\n") if source.startswith("# ") else ("", "", source)
        yield from (block for block in (title, rest) if block)
        return
    yield f"```python\n{source}\n```"
    for is_picture, outputs in groupby(cell["outputs"], lambda output: "image/png" in output.get("data", {})):
        if is_picture:
            yield from (f"![](data:image/png;base64,{output['data']['image/png'].strip()})" for output in outputs)
        elif text := "".join(map(printed, outputs)).strip("\n"):
            yield f"```text\n{text}\n```"


def printed(output: dict[str, Any]) -> str:
    """The text of an output, as a terminal would show it."""
    text = "".join(output.get("text") or output.get("data", {}).get("text/plain", ""))
    return COLOURS.sub("", text).replace("\r\n", "\n")


def execute(path: Path, folder: str | Path) -> Any:
    """The notebook with the outputs of its cells, run in a folder by this Python."""
    import nbformat
    from nbclient import NotebookClient

    program = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    os.environ |= {"PATH": program, "TTY_COMPATIBLE": "0", "COLUMNS": "110"}  # no progress bars in the outputs
    found = nbformat.read(path, 4)
    NotebookClient(found, timeout=1500, record_timing=False, resources={"metadata": {"path": str(folder)}}).execute()
    return found


def main() -> None:
    import nbformat

    for path in map(Path, sys.argv[1:]):
        with tempfile.TemporaryDirectory() as folder:
            nbformat.write(execute(path, folder), path)


if __name__ == "__main__":
    main()
