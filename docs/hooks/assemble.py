"""Gather the pages of the site in one folder: those of docs/, those elsewhere in the repository, the generated ones.

python docs/hooks/assemble.py build/pages

Links lead to pages of the site, or to the repository's host, so that the same files read well in both places.
"""

from __future__ import annotations

import posixpath
import re
import shutil
import sys
from pathlib import Path

import notebook_pages
import reference
import reference_zh
import tomllib

ROOT = Path(__file__).parents[2]
# files outside of docs/ that are pages of the site
INCLUDED = {
    "ARCHITECTURE.md": "architecture.md",
    "ARCHITECTURE.zh.md": "architecture.zh.md",
    "CONTRIBUTING.md": "contributing.md",
    "CONTRIBUTING.zh.md": "contributing.zh.md",
    "SECURITY.md": "security.md",
    "SECURITY.zh.md": "security.zh.md",
    "CHANGELOG.md": "changelog.md",
    "benchmarks/README.md": "benchmarks.md",
    "src/terrazzo/weights/street.md": "street.md",
}
ASSETS = (".png", ".svg", ".css", ".ipynb")
CODE = re.compile(r"^```.*?^```$", re.DOTALL | re.MULTILINE)
LINK = re.compile(r"\]\(([^)#:\s]+)(#[^)\s]*)?\)")
OTHER_LANGUAGE = re.compile(r"\A(# .*\n\n)\[(?:中文|English)\]\([\w./-]+\)\n\n")  # the site has a switch


def sources() -> dict[str, str]:
    """Path of each page in the site -> its path in the repository; not the generated ones."""
    own = (path.relative_to(ROOT / "docs").as_posix() for path in (ROOT / "docs").rglob("*.md"))
    return {page: f"docs/{page}" for page in own} | {page: source for source, page in INCLUDED.items()}


def pages() -> dict[str, str]:
    """Path in the site -> Markdown of every page."""
    host = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["urls"]["Repository"]
    english = reference.pages()
    made = {**english, **reference_zh.pages(english), **notebook_pages.pages(ROOT / "docs" / "notebooks")}
    origins = sources() | {page: f"docs/{page}" for page in made}
    known = {source: page for page, source in origins.items()}
    texts = {page: (ROOT / source).read_text(encoding="utf-8") for page, source in sources().items()} | made
    return {page: relinked(text, page, origins[page], known, host) for page, text in texts.items()}


def relinked(text: str, page: str, source: str, known: dict[str, str], host: str) -> str:
    """The text of `source` with links that hold on `page`; `known` tells which page a file of the repository is."""

    def lead(link: re.Match[str]) -> str:
        path = posixpath.normpath(posixpath.join(posixpath.dirname(source), link[1]))
        target = known.get(path, "").replace(".zh.md", ".md")  # the plugin of languages finds the reader's
        if path.startswith("docs/") and path.endswith(ASSETS):
            target = path.removeprefix("docs/")
        if not target:
            return f"]({host}/blob/main/{path}{link[2] or ''})"
        return f"]({posixpath.relpath(target, posixpath.dirname(page) or '.')}{link[2] or ''})"

    text = OTHER_LANGUAGE.sub(r"\1", text)
    parts = CODE.split(text)
    codes = [*CODE.findall(text), ""]
    return "".join(LINK.sub(lead, part) + code for part, code in zip(parts, codes, strict=True))


def main() -> None:
    folder = Path(sys.argv[1])
    shutil.rmtree(folder, ignore_errors=True)
    for page, text in pages().items():
        path = folder / page
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    for asset in (path for path in (ROOT / "docs").rglob("*") if path.suffix in ASSETS):
        target = folder / asset.relative_to(ROOT / "docs")
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(asset, target)


if __name__ == "__main__":
    main()
