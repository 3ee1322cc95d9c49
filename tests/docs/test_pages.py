"""What the docs show holds: commands parse, code compiles and names what is there, links lead somewhere."""

from __future__ import annotations

import ast
import importlib
import importlib.util
import inspect
import re
import shlex
from functools import cache
from pathlib import Path

import pytest
import yaml

import terrazzo
from support.pages import BLOCK, PAGES, blocks, commands, read
from support.paths import REPOSITORY
from terrazzo.cli.main import make_parser
from terrazzo.config.load import load_config

TRANSLATED = [page for page in PAGES if page.with_suffix(".zh.md").exists()]
LINK = re.compile(r"\]\(([^)#:]*)(?:#([^)]*))?\)")
HEADING = re.compile(r"^#+ (.*)$", re.MULTILINE)
UNSPOKEN = re.compile(r"\.\.\.|[\[|<>]")  # of a synopsis, which is no command


def translate(words: list[str]) -> list[str]:
    """The arguments of terrazzo for a call of an entry script."""
    path = REPOSITORY / words[1]
    spec = importlib.util.spec_from_file_location(f"shown_{path.stem}", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.translate(words[2:])


def ids(pages: list[Path]) -> list[str]:
    return [page.name for page in pages]


@pytest.mark.parametrize("page", PAGES, ids=ids(PAGES))
def test_every_command_is_understood(page, capsys):
    wrong = []
    for call in commands(page):
        words = shlex.split(re.sub(r"\$\(\(.*?\)\)|\$\w+", "1", call), comments=True)  # what a shell puts in
        if UNSPOKEN.search(call.partition("#")[0]):
            words = [*words[:2], "--help"]
        try:
            arguments = translate(words) if words[0] == "python" else words[1:]
            make_parser(arguments[0]).parse_args(arguments)
        except SystemExit as stopped:
            said = (capsys.readouterr().err.splitlines() or [""])[-1]
            is_name = "are required" in said  # a command that the text speaks of, without its arguments
            if stopped.code and not is_name:
                wrong.append(f"{call}: {said}")
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("page", PAGES, ids=ids(PAGES))
def test_python_names_what_is_there(page):
    sources = [*blocks(page, "python"), *re.findall(r"`(tz\.[^`]*)`", BLOCK.sub("", read(page)))]
    for source in sources:
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.ImportFrom) and str(node.module).startswith("terrazzo"):
                module = importlib.import_module(node.module)
                assert all(hasattr(module, alias.name) for alias in node.names), ast.unparse(node)
            elif isinstance(node, ast.Attribute) and ast.unparse(node.value) == "tz":
                assert hasattr(terrazzo, node.attr), ast.unparse(node)
            elif isinstance(node, ast.Call) and re.fullmatch(r"tz\.\w+", ast.unparse(node.func)):
                function = getattr(terrazzo, ast.unparse(node.func).removeprefix("tz."))
                keywords = {keyword.arg: None for keyword in node.keywords}
                inspect.signature(function).bind(*node.args, **keywords)


@pytest.mark.parametrize("page", PAGES, ids=ids(PAGES))
def test_yaml_in_the_short_form_expands(page):
    for source in blocks(page, "yaml"):
        values = yaml.safe_load(source)
        if isinstance(values, dict) and "recipe" in values and "data" in values:
            load_config(values)


@cache
def anchors(page: Path) -> set[str]:
    """What GitHub and the site make of a page's headings."""
    titles = HEADING.findall(BLOCK.sub("", read(page)))
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("page", PAGES, ids=ids(PAGES))
def test_links_lead_to_files_and_headings(page):
    for link, anchor in LINK.findall(BLOCK.sub("", read(page))):
        target = page.parent / link if link else page
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), f"{link}#{anchor}"


@pytest.mark.parametrize("page", TRANSLATED, ids=ids(TRANSLATED))
def test_a_translation_shows_the_same_commands_and_code(page):
    other = page.with_suffix(".zh.md")
    assert commands(other) == commands(page)
    assert blocks(other, "python", "yaml") == blocks(page, "python", "yaml")
    for level in ("# ", "## "):
        counts = [
            sum(line.startswith(level) for line in BLOCK.sub("", read(one)).splitlines()) for one in (page, other)
        ]
        assert counts[0] == counts[1]
    assert read(other).count("\n| ") == read(page).count("\n| ")
