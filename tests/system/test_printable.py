"""What reaches a terminal, a log or a page: text as it is, and nothing that would control them."""

from __future__ import annotations

import io
import re
from pathlib import Path

import pytest
from rich.table import Table

import terrazzo
from terrazzo.system.printable import PrintableStream, as_html, caption, printable
from terrazzo.system.terminal import Console

HOSTILE = {
    "a\x1b[31mb": r"a\u001b[31mb",
    "\x1b]0;title\x07": r"\u001b]0;title\u0007",
    "car\u202erac": r"car\u202erac",
    "one\rtwo": r"one\u000dtwo",
    "\udcff.png": r"\udcff.png",
    "\x9b2J": r"\u009b2J",
}
PLAIN = ["[background]", "a[/b]", ":car:", "[red]x", "天空", "طريق", "étang", "a\tb\nc", "\N{CACTUS}", r"C:\new"]


@pytest.mark.parametrize(("text", "shown"), HOSTILE.items())
def test_controls_are_escapes(text, shown):
    assert printable(text) == shown and as_html(text) == shown
    stream = io.StringIO()
    print(text, file=PrintableStream(stream))
    Console(file=stream).print(text)
    assert stream.getvalue() == f"{shown}\n{shown}\n"


@pytest.mark.parametrize("text", PLAIN)
def test_other_text_stays_as_it_is(text):
    assert printable(text) == text
    stream = io.StringIO()
    Console(file=PrintableStream(stream), width=100, tab_size=1).print(text)
    assert stream.getvalue().replace(" ", "\t" if "\t" in text else " ") == f"{text}\n"


@pytest.mark.parametrize(("text", "shown"), [*HOSTILE.items(), *((text, text) for text in PLAIN[:5])])
def test_a_table_shows_names_as_they_are(text, shown):
    stream, table = io.StringIO(), Table("class", title=text)
    table.add_row(text)
    Console(file=stream, width=100).print(table)
    assert stream.getvalue().count(shown) == 2 and "\x1b" not in stream.getvalue()


def test_a_caption_is_short():
    assert caption("road\x1b") == r"road\u001b" and caption("a" * 100) == "a" * 100
    assert caption("a" * 5000 + "b" * 5000) == f"{'a' * 50} ... {'b' * 50}"


def test_rich_colours_pass_the_stream_that_print_does_not():
    stream = io.StringIO()
    Console(file=PrintableStream(stream), force_terminal=True, color_system="standard").print("x", style="bold")
    assert stream.getvalue() == "\x1b[1mx\x1b[0m\n"


def test_every_console_is_ours():
    root = Path(terrazzo.__file__).parent
    importing = {
        path.name for path in root.rglob("*.py") if re.search(r"rich\.console|rich import print", path.read_text())
    }
    assert importing == {"terminal.py"}
