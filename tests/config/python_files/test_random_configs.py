"""Random configs, most of them wrong: each is read, or refused in one message."""

from __future__ import annotations

import random

import pytest
from hypothesis import strategies as st

from support.fuzz import MANY, QUICK, fuzz
from terrazzo.config.load import load_config
from terrazzo.errors import UNPRINTABLE

VALUES = (
    "1 -1 None True 1e9 [1] (1,) dict(a=1) {} [] () '' {1,2} range(5) x y x.a x['a'] x[0] '%s' '{}' float('nan') "
    "'\\ud800' '\\x1b[2J' 10**50 len '{{$HOME}}' {{_base_.x}} '{{fileBasename}}' _base_ 1j b'a' ... '\u0663' '\u202e'"
)
METHODS = (
    "center count endswith find format index join ljust replace rsplit split startswith strip zfill append clear copy "
    "extend insert pop remove sort get items keys setdefault update values add union encode __class__ put"
)
FUNCTIONS = "abs bool enumerate float int len list max min range reversed round set sorted str sum zip dict eval"
OPERATORS = "+ - * / // % ** << >> | & == < in is and or"
SECTIONS = "model data optimizer train_dataloader lr_config runner custom_hooks log_config workflow recipe train_cfg"
MARKUP = (
    "1", "-", "[1, 2]", "{a: 1}", "~", "!!int x", "!!bool foo", "!!float ''", "!!timestamp 1", "!!set {a}", "&a [1]",
    "*a", "{<<: *a}", "'{{ $HOME }}'", "{{ _base_.x }}", "1:2:3", ".nan", '"\\ud800"', "! x", "%", "[", "}", "\u202e",
)  # fmt: skip


def expression(draw: random.Random, depth: int = 0) -> str:
    kind = 0 if depth > 3 else draw.randrange(9)
    inner = [expression(draw, depth + 1) for _ in range(3)] if kind else []
    return [
        lambda: draw.choice(VALUES.split()),
        lambda: f"({inner[0]} {draw.choice(OPERATORS.split())} {inner[1]})",
        lambda: f"{inner[0]}.{draw.choice(METHODS.split())}({', '.join(inner[: draw.randrange(3)])})",
        lambda: f"{draw.choice(FUNCTIONS.split())}({', '.join(inner[: draw.randrange(3)])})",
        lambda: f"{inner[0]}[{inner[1]}]",
        lambda: f"{inner[0]}[{inner[1]}:{inner[2]}]",
        lambda: f"[{inner[0]} for y in {inner[1]}]",
        lambda: f"dict({inner[0]}, a={inner[1]})",
        lambda: f"{{{inner[0]}: {inner[1]}, **{inner[2]}}}",
    ][kind]()


def python_text(draw: random.Random) -> str:
    targets = ["x", "x.a", "x['b']", "x[0]", "x, y", *SECTIONS.split(), *SECTIONS.split()]
    lines = [f"{draw.choice(targets)} {draw.choice(['=', '=', '+='])} {expression(draw)}" for _ in range(3)]
    return "\n".join([draw.choice(["", "_base_ = 'base.py'"]), "x = dict(a=1, b=[1])", *lines])


def yaml_text(draw: random.Random) -> str:
    keys = [*SECTIONS.split(), "a", "1", "~", "[1]", "_base_", "<<", "'{{fileBasename}}'"]
    return "\n".join(f"{draw.choice(['', '', '  '])}{draw.choice(keys)}: {draw.choice(MARKUP)}" for _ in range(4))


@pytest.mark.parametrize("times", [QUICK, MANY])
@pytest.mark.parametrize(("name", "write"), [("a.py", python_text), ("a.yaml", yaml_text)], ids=["python", "yaml"])
def test_a_random_config_is_read_or_refused_in_one_message(name, write, times, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "base.py").write_text("x = dict(a=1, b=[1, 2])")

    def use(draw: random.Random) -> None:
        (tmp_path / name).write_text(write(draw), encoding="utf-8")
        assert not UNPRINTABLE.search(load_config(name).dump())

    fuzz(st.randoms(use_true_random=True), use, 200, times)
