"""A config that nobody vouched for can neither run code nor use noticeable time or memory."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import tracemalloc
from pathlib import Path

import pytest
import yaml

from terrazzo.config.config import Config
from terrazzo.config.load import load_config
from terrazzo.config.reading.files import read_config
from terrazzo.errors import UserError
from terrazzo.inference.saved_config import describe

SECONDS = 5.0  # generous for a busy machine: each case takes well under one
MEGABYTES = 64

RUNS_CODE = {
    "import": "import os",
    "import dotted": "import os.path as p",
    "import from": "from os import system",
    "import star": "from mmseg.models import *",
    "relative import": "from .other import x",
    "__import__": "x = __import__('os').system('touch PWNED')",
    "import through type names": "from mmengine.runner import Runner\nx = Runner('touch PWNED')",
    "method of an imported name": "import torch\nx = torch.load('PWNED')",
    "imported submodule call": "import torch.hub as hub\nx = hub.load_state_dict_from_url('http://localhost')",
    "exec": "exec('x = 1')",
    "eval": "x = eval('1')",
    "compile": "x = compile('1', 'a', 'eval')",
    "open": "open('PWNED', 'w')",
    "print": "print('hello')",
    "getattr": "x = getattr('a', 'upper')",
    "globals": "x = globals()",
    "vars": "x = vars()",
    "type": "x = type('X', (), {})",
    "input": "x = input()",
    "breakpoint": "breakpoint()",
    "builtin as a value": "x = len",
    "shadowed builtin": "dict = 3\nx = dict(a=1)",
    "__builtins__": "x = __builtins__",
    "class of a tuple": "x = ().__class__",
    "subclasses": "x = ().__class__.__bases__[0].__subclasses__()",
    "class of a dict": "x = dict(a=1).__class__",
    "dunder of dict": "x = dict.__init__",
    "dunder method": "x = dict(a=1).__getitem__('a')",
    "private origins": "x = dict(a=1)\ny = x._origins",
    "own method of a section": "x = dict(a=1)\ny = x.put('a', 2, 'b')",
    "dunder assignment": "__builtins__ = {}",
    "dunder attribute assignment": "x = dict(a=1)\nx.__class__ = 3",
    "attribute of a string": "x = 'a'.upper",
    "attribute of a list": "x = [].append",
    "format with an attribute": "x = '{0.__class__}'.format(1)",
    "format with an item": "x = '{0[0]}'.format([1])",
    "format with a nested attribute in the width": "x = '{:{0.__class__}}'.format(1)",
    "format with a keyword attribute": "x = '{a.b}'.format(a=dict(b=1))",
    "format_map": "x = '{a}'.format_map(dict(a=1))",
    "f-string attribute": "x = f'{().__class__}'",
    "def": "def f():\n    return 1",
    "class": "class A:\n    pass",
    "lambda": "x = (lambda: 1)()",
    "lambda as key": "x = sorted([1, 2], key=lambda item: item)",
    "decorator": "@print\ndef f(): pass",
    "with open": "with open('PWNED', 'w') as file:\n    pass",
    "read_base of its own": "with read_base() as x:\n    pass",
    "code in read_base": "with read_base():\n    x = 1",
    "try": "try:\n    x = 1\nexcept Exception:\n    pass",
    "raise": "raise ValueError(1)",
    "global": "global x",
    "walrus": "x = (y := 1)",
    "yield": "x = (yield 1)",
    "await": "x = await y",
    "async comprehension": "x = [i async for i in y]",
    "match": "match 1:\n    case 1: x = 1",
    "bytes": "x = b'abc'",
    "complex": "x = 1j",
    "ellipsis": "x = ...",
    "matrix product": "x = [1] @ [2]",
    "call of a subscript": "x = [1][0]()",
    "call of a call": "x = dict()()",
    "encode": "x = 'a'.encode()",
    "translate": "x = 'a'.translate({97: 'b' * 100})",
}

BURNS = {
    "while": "while True:\n    pass",
    "power tower": "x = 10 ** 10 ** 10",
    "power": "x = 2 ** 100000",
    "power step by step": "x = 2\nfor i in range(40):\n    x = x * x",
    "augmented power": "x = 10\nx **= 10 ** 9",
    "shift": "x = 1 << 10 ** 9",
    "augmented shift": "x = 1\nfor i in range(100):\n    x <<= 1000",
    "huge literal": "x = 0x" + "f" * 50_000,
    "very long decimal": "x = " + "9" * 50_000,
    "string product": "x = 'a' * 10 ** 9",
    "string product from the left": "x = 10 ** 9 * 'a'",
    "list product": "x = [0] * 10 ** 9",
    "tuple product": "x = (0,) * 10 ** 9",
    "augmented list product": "x = [0]\nx *= 10 ** 9",
    "list product step by step": "x = [0]\nfor i in range(40):\n    x *= 2",
    "string doubling": "x = 'a'\nfor i in range(60):\n    x += x",
    "list doubling": "x = [0]\nfor i in range(60):\n    x += x",
    "list extended by itself": "x = [0]\nfor i in range(60):\n    x.extend(x)",
    "slice doubling": "x = [0]\nfor i in range(60):\n    x[0:0] = x",
    "starred doubling": "x = [0]\nfor i in range(60):\n    x = [*x, *x]",
    "nested doubling": "x = []\nfor i in range(60):\n    x = [x, x]",
    "nested doubling of dicts": "x = {}\nfor i in range(60):\n    x = dict(a=x, b=x)",
    "comparison of nested doublings": (
        "x = ()\ny = ()\nfor i in range(60):\n    x = (x, x)\n    y = (y, y)\nz = x == y\nx = y = 0"
    ),
    "hash of a nested doubling": "x = ()\nfor i in range(60):\n    x = (x, x)\nz = {x: 1}",
    "membership of a nested doubling": "x = ()\nfor i in range(60):\n    x = (x, x)\nz = x in [x + ()]",
    "text of a nested doubling": "x = []\nfor i in range(60):\n    x = [x, x]\nx = str(x)",
    "f-string of a nested doubling": "x = []\nfor i in range(60):\n    x = [x, x]\nx = f'{x}'",
    "percent of a nested doubling": "x = []\nfor i in range(60):\n    x = [x, x]\nx = '%s' % (x,)",
    "sorting nested doublings": "x = ()\nfor i in range(60):\n    x = (x, x)\ny = sorted([x, x, x])",
    "own member": "x = []\nx.append(x)",
    "own value": "x = {}\nx['x'] = x",
    "deep value": "x = []\nfor i in range(10000):\n    x = [x]",
    "deep text": "x = []\nfor i in range(10000):\n    x = [x]\nx = str(x)",
    "huge range": "x = range(10 ** 12)",
    "huge range as a list": "x = list(range(10 ** 9))",
    "range beyond the machine": "x = range(2 ** 900)",
    "loop over a huge range": "for i in range(10 ** 9):\n    pass",
    "nested loops": "for i in range(9999):\n    for j in range(9999):\n        pass",
    "endless growing loop": "x = [0]\nfor i in range(99999):\n    for j in x:\n        x.append(j)",
    "huge comprehension": "x = [0 for i in range(9999) for j in range(9999)]",
    "nested comprehensions": "x = [[0 for j in range(9999)] for i in range(9999)]",
    "comprehension of dicts": "x = {(i, j): 0 for i in range(999) for j in range(999)}",
    "comprehension of sets": "x = {i * j for i in range(9999) for j in range(9999)}",
    "generator": "x = sum(i for i in range(9999) for j in range(9999))",
    "twenty-one generators": "x = [0 " + "for i in (1, 2) " * 21 + "]",
    "empty generators": "x = [0 " + "for i in (1, 2, 3, 4) " * 19 + "if False]",
    "sum of lists": "x = sum([[0] * 9999] * 9999, [])",
    "enumerate and zip": "x = [list(zip(range(9999), range(9999))) for i in range(999)]",
    "percent width": "x = '%999999999d' % 1",
    "percent width of a name": "x = '%(a)999999999s' % dict(a=1)",
    "percent star": "x = '%*d' % (10 ** 9, 1)",
    "percent precision": "x = '%.999999999f' % 1",
    "f-string width": "x = f'{1:>999999999}'",
    "f-string precision": "x = f'{1:.999999999f}'",
    "f-string computed width": "w = 10 ** 9\nx = f'{1:>{w}}'",
    "format width": "x = '{:>999999999}'.format(1)",
    "format computed width": "x = '{:{}}'.format(1, 10 ** 9)",
    "format repeats": "x = ('{0}' * 5000).format('a' * 20000)",
    "ljust": "x = 'a'.ljust(10 ** 9)",
    "rjust": "x = 'a'.rjust(10 ** 9)",
    "center": "x = 'a'.center(10 ** 9)",
    "zfill": "x = 'a'.zfill(10 ** 9)",
    "expandtabs": "x = '\\t'.expandtabs(10 ** 9)",
    "replace": "x = ('a' * 20000).replace('a', 'b' * 20000)",
    "replace nothing": "x = ('a' * 20000).replace('', 'b' * 20000)",
    "join": "x = ('a' * 20000).join(['b'] * 20000)",
    "join of long strings": "x = ''.join(['a' * 20000] * 99999)",
    "join of a string": "x = ('a' * 20000).join('b' * 20000)",
    "many long strings": "x = [str(i) * 4000 for i in range(9999)]",
    "many long lists": "x = [[i] * 90000 for i in range(999)]",
    "slow search": "x = 'a' * 20000\ny = 'a' * 5000 + 'b' + 'a' * 5000\nz = [x.rfind(y) for i in range(9999)]",
    "slow strip": "x = [('a' * 20000).strip('b' * 9999 + 'a') for i in range(9999)]",
    "slow insert": "x = [0] * 90000\nfor i in range(99999):\n    x.insert(0, 0)",
    "slow reverse": "x = [0] * 90000\nfor i in range(99999):\n    x.reverse()",
    "slow slices": "x = [0] * 90000\nfor i in range(99999):\n    y = x[1:]",
    "slow copies": "x = dict(zip(range(9999), range(9999)))\nfor i in range(99999):\n    y = x.copy()",
    "slow merges": "x = dict(zip(range(9999), range(9999)))\nfor i in range(99999):\n    y = {**x}",
    "slow comparisons": "x = [0] * 90000\ny = [0] * 90000\nfor i in range(99999):\n    z = x == y",
    "slow membership": "x = [0] * 90000\nfor i in range(99999):\n    z = 1 in x",
    "slow index": "x = [0] * 90000 + [1]\nfor i in range(99999):\n    z = x.index(1)",
    "slow deletion": "x = [0] * 90000\nfor i in range(99999):\n    del x[0]\n    x.append(0)",
    "slow pop": "x = [0] * 90000\nfor i in range(99999):\n    x.pop(0)\n    x.append(0)",
    "slow conversion": "x = [int('9' * 400) for i in range(99999)]",
    "slow numbers": "x = [2 ** 1000 * 2 ** 1000 for i in range(9)]",
    "colliding keys": "x = {i * (2 ** 61 - 1): 0 for i in range(9999)}",
    "colliding items": "x = {i * (2 ** 61 - 1) for i in range(9999)}",
    "int of a long string": "x = int('9' * 20000)",
    "round": "x = round(5, -10 ** 9)",
    "deep expression": "x = " + "-" * 3000 + "1",
    "deep parentheses": "x = " + "(" * 5000 + ")" * 5000,
    "deep lists": "x = " + "[" * 150 + "]" * 150,
    "long sum": "x = " + "+".join(["1"] * 20000),
    "long chain of calls": "x = dict()" + ".copy()" * 3000,
    "deep if": "".join("    " * i + "if 1:\n" for i in range(150)) + "    " * 150 + "x = 1",
    "long elif": "if 0:\n    x = 1\n" + "elif 0:\n    x = 1\n" * 3000,
    "deep f-string": "x = f'{" + "-" * 150 + "1}'",
    "null byte": "x = 1\0",
    "percent of long lists": "x = ['a' * 20000] * 79\ny = '%(a)s' * 4000 % {'a': x}",
    "percent of long lists of emoji": "x = ['\U0001f600' * 20000] * 79\ny = '%(a)r' * 4000 % {'a': x}",
    "percent of a tuple of long lists": "x = ['a' * 20000] * 79\ny = '%s' * 4000 % ((x,) * 4000)",
    "format of many fields": "x = [('{a}' * 6000).format(a='b' * 3) for i in range(999)]",
    "many beginnings": "x = 'a' * 20000\ny = ('a' * 19999 + 'b',) * 90000\nz = [x.startswith(y) for i in range(9999)]",
    "many ends": "x = 'a' * 20000\ny = ('b' + 'a' * 19999,) * 90000\nz = [x.endswith(y) for i in range(9999)]",
    "slow comparisons of shared parts": (
        "x = (1,)\ny = (1,)\nfor i in range(15):\n    x = (x, x)\n    y = (y, y)\nz = [x == y for i in range(9999)]"
    ),
    "slow sorting of shared parts": (
        "x = (1,)\ny = (1,)\nfor i in range(14):\n    x = (x, x)\n    y = (y, y)\n"
        "z = [sorted([x, y]) for i in range(9999)]"
    ),
    "slow growth at the front": "x = [0] * 90000\nfor i in range(9999):\n    x[0:0] = [0]\n    x[0:1] = []",
    "half a surrogate pair": "x = '\\ud800'",
    "half a surrogate pair as a key": "x = {'\\ud800': 1}",
    "an unknown name of many characters": "x = " + "a" * 50_000,
    "long names that are alike": "a" * 40_000 + "b = 1\nx = " + "a" * 40_000 + "c",
    "home of nobody": "_base_ = '~nobody-has-this-name/x.py'",
    "long base name": f"_base_ = '{'a' * 5000}.py'",
    "long schedule": f"_base_ = 'mmseg::_base_/schedules/schedule_{'9' * 5000}k.py'",
    "long recipe name": f"_base_ = 'mmseg::a/{'a_1xb1-1k_' * 5000}-1x1.py'",
}


@pytest.fixture(autouse=True)
def in_a_folder_of_its_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def refuse(path: Path) -> str:
    """Read a file that must be refused within the bounds of time and memory; the message."""
    tracemalloc.start()
    started = time.process_time()
    try:
        with pytest.raises(UserError) as refusal:
            read_config(path)
        peak = tracemalloc.get_traced_memory()[1] / 1e6
    finally:
        tracemalloc.stop()
    assert time.process_time() - started < SECONDS
    assert peak < MEGABYTES
    assert len(str(refusal.value)) < 7000
    return str(refusal.value)


READ_AT_ONCE = {
    "a.py": [
        f"# {{{{{start}" + " " * 99_000 + end
        for start in ("$a", "$a:", "_base_.a", "fileDirname")
        for end in ("", "x}}")
    ],
    "a.yaml": ["# " + "{{" * 49_000, "# " + "{{$a:" * 19_000, "x: '" + "{{ $" * 9000 + "'", "x: " + "1" * 90_000 + "e"],
    "a.json": ['{"a": "' + '\\"' * 49_000 + '"}', '{"a"' + " " * 90_000 + ": 1}"],
}


@pytest.mark.parametrize(("name", "text"), [(name, text) for name, texts in READ_AT_ONCE.items() for text in texts])
def test_the_time_to_read_grows_with_the_length_only(name, text, tmp_path):
    (tmp_path / name).write_text(text)
    started = time.process_time()
    read_config(name)
    assert time.process_time() - started < 1


@pytest.mark.parametrize("case", [*RUNS_CODE, *BURNS])
def test_refuses(case, tmp_path):
    """Everything outside the safe subset is refused, with the file, and nothing has happened."""
    path = tmp_path / "config.py"
    path.write_text((RUNS_CODE | BURNS)[case])
    assert "config.py" in refuse(path)
    assert os.listdir(tmp_path) == ["config.py"]


@pytest.mark.parametrize("case", ["import", "__import__", "def", "while", "power tower", "class of a tuple", "lambda"])
def test_a_refusal_shows_the_line_and_the_way_out(case, tmp_path):
    source = (RUNS_CODE | BURNS)[case]
    (tmp_path / "config.py").write_text(f"a = 1\n\n{source}\n")
    message = refuse(tmp_path / "config.py")
    assert "config.py:3: " in message
    assert f"3 | {source.splitlines()[0]}" in message
    assert "--trust-config" in message


@pytest.mark.parametrize("case", list(RUNS_CODE))
def test_bases_are_refused_too(case, tmp_path):
    (tmp_path / "base.py").write_text(RUNS_CODE[case])
    (tmp_path / "config.py").write_text("_base_ = 'base.py'")
    assert "base.py" in refuse(tmp_path / "config.py")


@pytest.mark.parametrize("case", list(RUNS_CODE))
def test_the_expression_for_the_bases_is_no_way_around(case, tmp_path):
    expression = RUNS_CODE[case].removeprefix("x = ").splitlines()[0]
    (tmp_path / "config.py").write_text(f"_base_ = {expression}")
    refuse(tmp_path / "config.py")
    assert os.listdir(tmp_path) == ["config.py"]


def test_comprehension_variables_do_not_leak(tmp_path):
    (tmp_path / "config.py").write_text("a = [i for i in range(3)]\nb = {i: j for i, j in zip('ab', 'cd')}")
    assert read_config("config.py").to_dict() == {"a": [0, 1, 2], "b": {"a": "c", "b": "d"}}
    (tmp_path / "config.py").write_text("a = [i for i in range(3)]\nb = i")
    assert "'i' is not defined" in refuse(tmp_path / "config.py")


def test_values_of_variables_are_no_code(tmp_path, monkeypatch):
    monkeypatch.setenv("ROOT", "a'); import os; x = ('")
    (tmp_path / "config.py").write_text("a = '{{ $ROOT:data }}'\nb = {{ $ROOT:data }}")
    text = "a'); import os; x = ('"
    assert read_config("config.py", trust=True).to_dict() == {"a": text, "b": text}


@pytest.mark.parametrize("name", ["a.py", "a.yaml", "a.json"])
def test_only_trusted_configs_read_the_environment(name, tmp_path, monkeypatch):
    """What it holds goes to no file: the name of the variable does, also where it is a part of a text."""
    text = "{'a': '{{ $TOKEN_OF_A_TEST }}', 'b': ['x/{{ $TOKEN_OF_A_TEST:y }}'], 'c': {{ $NUMBER_OF_A_TEST:12345678 }}}"
    Path(name).write_text(f"x = {text}" if name == "a.py" else '{"x": ' + text.replace("'", '"') + "}")
    monkeypatch.setenv("TOKEN_OF_A_TEST", "hunter-2-hunter")
    with pytest.raises(UserError, match=r"(?s)a\.\w+:1: .*the environment variable TOKEN_OF_A_TEST.*--trust-config"):
        read_config(name)
    config = load_config(name, {"x.d": 1}, trust=True)
    values = {"a": "hunter-2-hunter", "b": ["x/hunter-2-hunter"], "c": 12345678, "d": 1}
    assert config.to_dict() == {"x": values}
    hidden = values | {"a": "{{ $TOKEN_OF_A_TEST }}", "b": ["x/{{ $TOKEN_OF_A_TEST }}"]}
    assert yaml.safe_load(config.dump()) == config.shareable() == {"x": hidden}
    saved = describe(Config({"model": config["x"]}, secrets=config.secrets), ["road"], [[0, 0, 0]])
    assert "hunter" not in str(saved) and "$TOKEN_OF_A_TEST" in saved["config"]
    monkeypatch.delenv("TOKEN_OF_A_TEST")
    assert read_config(write("b.yaml", "a: '{{ $TOKEN_OF_A_TEST:usual }}'")).to_dict() == {"a": "usual"}


def write(name: str, text: str) -> Path:
    Path(name).write_text(text)
    return Path(name)


def test_messages_hold_nothing_that_a_terminal_obeys():
    message = str(UserError("a\x1b]0;b\x07\u202ec\ud800\n" + "d" * 9000))
    assert message.startswith("a\\u001b]0;b\\u0007\\u202ec\\ud800\nddd") and len(message) < 2100


@pytest.mark.skipif(sys.platform == "win32", reason="needs device files and links")
class TestFiles:
    """`_base_` leads to files of bounded size only."""

    @pytest.mark.parametrize("base", ["/dev/zero", "/etc/passwd", "/dev/stdin", "..", "/"])
    def test_other_files(self, base, tmp_path):
        (tmp_path / "config.py").write_text(f"_base_ = {base!r}")
        assert "config.py:1" in refuse(tmp_path / "config.py")

    def test_a_link_to_a_device(self, tmp_path):
        (tmp_path / "zero.py").symlink_to("/dev/zero")
        (tmp_path / "config.py").write_text("_base_ = 'zero.py'")
        assert "not a regular file" in refuse(tmp_path / "config.py")

    def test_a_named_pipe(self, tmp_path):
        os.mkfifo(tmp_path / "pipe.py")
        (tmp_path / "config.py").write_text("_base_ = 'pipe.py'")
        assert "not a regular file" in refuse(tmp_path / "config.py")

    def test_a_link_to_itself(self, tmp_path):
        (tmp_path / "loop.py").symlink_to("loop.py")
        assert "cannot be read" in refuse(tmp_path / "loop.py")

    def test_a_folder(self, tmp_path):
        (tmp_path / "folder.py").mkdir()
        assert "folder" in refuse(tmp_path / "folder.py")

    def test_a_circle_through_a_link(self, tmp_path):
        (tmp_path / "other.py").symlink_to("config.py")
        (tmp_path / "config.py").write_text("_base_ = 'other.py'")
        assert "circle" in refuse(tmp_path / "config.py")


def test_a_huge_file(tmp_path):
    (tmp_path / "config.py").write_text("# comment\n" * 200_000)
    assert "larger" in refuse(tmp_path / "config.py")


@pytest.mark.parametrize("bases", [["a.py"], ["b.py"]], ids=["itself", "each other"])
def test_circles(bases, tmp_path):
    (tmp_path / "a.py").write_text(f"_base_ = {bases}")
    (tmp_path / "b.py").write_text("_base_ = 'a.py'")
    message = refuse(tmp_path / "a.py")
    assert "circle" in message and "a.py" in message


@pytest.mark.parametrize("line", ["import subprocess", "from os import system", "from .base import a"])
def test_lazy_files_import_no_standard_library(line, tmp_path):
    """Outside of read_base() they name types of other packages only, and those are not imported either."""
    (tmp_path / "base.py").write_text("a = 1")
    (tmp_path / "config.py").write_text(f"with read_base():\n    from .base import *\n{line}")
    assert "config.py:3: the config imports a module" in refuse(tmp_path / "config.py")


def test_merging_nested_doublings(tmp_path):
    (tmp_path / "base.py").write_text("x = dict(a=1)")
    lines = "for i in range(60):\n    z = e.copy()\n    z['a'] = x\n    z['b'] = x\n    x = z\n"
    text = f"_base_ = 'base.py'\ne = _base_.x\nx = e.copy()\n{lines}y = x\nx = e.copy()\n{lines}x.update(y)"
    (tmp_path / "config.py").write_text(text)
    assert "too large" in refuse(tmp_path / "config.py")


def test_much_source(tmp_path):
    names = [f"b{index}.py" for index in range(50)]
    for name in names:
        (tmp_path / name).write_text(f"{name[:-3]} = [" + "0," * 45_000 + "]")
    (tmp_path / "config.py").write_text(f"_base_ = {names}")
    assert "computes more" in refuse(tmp_path / "config.py")


def test_a_circle_of_lazy_files(tmp_path):
    source = "from mmengine.config import read_base\nwith read_base():\n    from .{} import *\n"
    (tmp_path / "a.py").write_text(source.format("b"))
    (tmp_path / "b.py").write_text(source.format("a"))
    assert "circle" in refuse(tmp_path / "a.py")


def test_a_long_chain(tmp_path):
    for index in range(200):
        (tmp_path / f"c{index}.py").write_text(f"_base_ = 'c{index + 1}.py'")
    assert "chain" in refuse(tmp_path / "c0.py")


def test_files_that_multiply(tmp_path):
    for index in range(25):
        (tmp_path / f"c{index}.py").write_text(f"_base_ = ['c{index + 1}.py', 'c{index + 1}.py']")
    (tmp_path / "c25.py").write_text("")
    assert "base files" in refuse(tmp_path / "c0.py")


def test_values_that_multiply_from_base_to_base(tmp_path):
    (tmp_path / "c0.py").write_text("x = [0]\n")
    for index in range(1, 26):
        value = "{{ _base_.x }}, " * 10
        (tmp_path / f"c{index}.py").write_text(f"_base_ = 'c{index - 1}.py'\nx = [{value}]")
    refuse(tmp_path / "c25.py")


BAD_YAML = {
    "python object": "x: !!python/object/apply:os.system ['touch PWNED']",
    "python name": "x: !!python/name:os.system",
    "python tuple": "x: !!python/tuple [1, 2]",
    "own tag": "x: !mine {a: 1}",
    "laughs": "a: &a [1, 1, 1]\n"
    + "".join(f"{b}: &{b} [*{a}, *{a}, *{a}, *{a}, *{a}]\n" for a, b in zip("abcdefghijk", "bcdefghijkl", strict=True)),
    "laughs by merging": "a: &a {x: 1}\n"
    + "".join(
        f"{b}: &{b} {{<<: [*{a}, *{a}], y: [*{a}, *{a}]}}\n"
        for a, b in zip("abcdefghijklmnopqrstu", "bcdefghijklmnopqrstuv", strict=True)
    ),
    "own member": "x: &x [*x]",
    "deep": "x: " + "[" * 50_000,
    "deep and closed": "x: " + "[" * 5000 + "]" * 5000,
    "deep blocks": "- " * 40_000 + "1",
    "two documents": "a: 1\n---\nb: 2",
    "huge number": "x: 0x" + "f" * 50_000,
    "long decimal": "x: " + "9" * 50_000,
    "bytes": "x: !!binary aGVsbG8=",
    "wrong tag": "x: !!int hello",
    "wrong tag of a list": "x: !!set [1]",
    "wrong bool": "x: !!bool foo",
    "empty number": "x: !!int ''",
    "sign without a number": "x: !!int '-'",
    "wrong float": "x: !!float foo",
    "timestamp": "x: !!timestamp foo",
    "mapping that is a text": "x: !!map foo",
    "base-sixty number": "x: 1" + ":1" * 40_000,
    "merged number": "<<: 5",
    "many merges": "a: &a {" + ", ".join(f"k{i}: 0" for i in range(3000)) + "}\nb: {<<: [" + "*a, " * 15_000 + "]}",
    "chained merges": "a: &a {"
    + ", ".join(f"k{i}: 0" for i in range(3000))
    + "}\n"
    + "".join(f"b{i}: &b{i} {{<<: *{'a' if not i else f'b{i - 1}'}, n{i}: 0}}\n" for i in range(2000)),
    "half a surrogate pair": 'x: "\\ud800"',
}


@pytest.mark.parametrize("case", list(BAD_YAML))
def test_refuses_yaml(case, tmp_path):
    (tmp_path / "config.yaml").write_text(BAD_YAML[case])
    assert "config.yaml" in refuse(tmp_path / "config.yaml")
    assert os.listdir(tmp_path) == ["config.yaml"]


@pytest.mark.parametrize(
    "text",
    [
        "[" * 50_000,
        '{"a": ' * 300 + "1" + "}" * 300,
        '{"a": ' + "9" * 50_000 + "}",
        '{"a": "\\ud800"}',
        '{"a": "' + '\\"' * 49_000,
        '{"a": ' + '"" ' * 30_000 + "}",
    ],
    ids=["open", "deep", "huge", "surrogate", "escaped quotes", "quotes"],
)
def test_refuses_json(text, tmp_path):
    (tmp_path / "config.json").write_text(text)
    assert "config.json" in refuse(tmp_path / "config.json")


def test_trust_runs_what_is_refused_otherwise(tmp_path):
    (tmp_path / "config.py").write_text("import os\ndef double(x):\n    return 2 * x\na = double(len(os.sep))")
    refuse(tmp_path / "config.py")
    assert read_config("config.py", trust=True).to_dict() == {"a": 2}


def test_reading_imports_no_torch(tmp_path):
    """Nor anything else that is slow to import."""
    (tmp_path / "config.json").write_text(json.dumps({"a": 1}))
    code = (
        "import sys; from terrazzo.config.reading.files import read_config; read_config('config.json');"
        "print([m for m in ('torch', 'numpy', 'cv2', 'scipy') if m in sys.modules])"
    )
    assert (
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"
    )
