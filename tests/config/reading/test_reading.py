"""Config files are read as people write them: `.py`, `.yaml`, `.json`, base files, variables, overrides."""

from __future__ import annotations

import gzip
import itertools
import json
import os
import time
from pathlib import Path

import pytest
import yaml

from support.paths import shared
from terrazzo.config.config import Config
from terrazzo.config.reading.files import read_config
from terrazzo.config.reading.markup import read_yaml
from terrazzo.config.reading.merge import apply_overrides, parse_override
from terrazzo.data.declarations.dsdl import load as load_dsdl
from terrazzo.errors import UserError
from terrazzo.transforms.formats.tables import read_class_table
from terrazzo.transforms.formats.yolo import names_in


@pytest.fixture
def tree(tmp_path, monkeypatch):
    """Writes files below a folder of their own, which is also the current one."""
    monkeypatch.chdir(tmp_path)

    def write(files: dict[str, str]) -> Path:
        for name, text in files.items():
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        return tmp_path

    return write


def read(text: str, tree, name: str = "config.py", **options):
    tree({name: text})
    return read_config(name, **options).to_dict()


# Expressions and statements

EXPRESSIONS = """
1 + 2 * 3 - 4 / 5
-7 // 2, -7 % 2, 2 ** 10, 2 ** -1, 1 << 4, 6 & 3, 6 | 3, 6 ^ 3, ~5
1e-4, .5, 1_000, 0x10, True, None
'a' 'b' + "c" * 3
(1, 2) + (3,), [0] * 3, ([1] + [2])[::-1]
[1, 2, 3][0], 'abc'[-1], (1, 2, 3)[1:], [1, 2, 3, 4][::2], dict(a=1)['a']
1 < 2 <= 2 != 3, 1 in [1], 'a' not in 'bc', 'a' in dict(a=1), None is None, [1, (2, 3)] == [1, (2, 3)]
1 and 2 or 3, not 1, [] or 'empty', 0 and 1
'yes' if 1 > 2 else 'no'
[i * j for i in range(4) if i % 2 for j in range(i)]
{f'stage{i}': (i, i + 1) for i in range(3)}
[a + b for a, b in [(1, 2), (3, 4)]]
[[row for row in range(2)] for column in range(2)]
sum(i for i in range(5)), max(3, 4), min([3, 4]), len('abc'), abs(-1), round(2.567, 2), sorted([3, 1], reverse=True)
list('ab'), tuple([1]), list(range(2, 8, 3)), list(range(5, 0, -2)), list(reversed([1, 2])), list(zip('ab', [1, 2]))
list(enumerate('ab', 1)), str(1.5), int('12'), float('1e-3'), bool([]), any([0, 1]), all([0, 1])
dict(a=1, **dict(b=2)), {**dict(a=1), 'b': 2}, dict([('a', 1)]), dict(dict(a=1), a=2), [*range(3), 4]
dict(a=1) | dict(b=2), dict(a=1).get('b', 3), list(dict(a=1).items()), list(dict(a=1, b=2).keys())
f'{1 + 1} {"a"!r:>5} {3.14159:.2f} {7:03d} {"x":-^5}'
'{} {1} {name:.1f}'.format(1, 2, name=3) if False else '{0} {1} {name:.1f}'.format(1, 2, name=3)
'%s-%03d %(%' % ('a', 7) if False else '%s-%03d 100%%' % ('a', 7)
'%(a)s' % dict(a=1)
'a-b'.split('-'), '-'.join(['a', 'b']), ' a '.strip(), 'a'.upper(), 'aXb'.replace('X', 'Y'), 'ab'.startswith('a')
'7'.zfill(3), 'a'.ljust(3), 'ab'.removesuffix('b'), 'abc'.find('c')
[1, 2].index(2), (1, 1).count(1), [3, 4].copy()
len({1, 2, 2}), 1 in {1, 2}, sorted({'b', 'a'} | {'c'}), len(set([1, 1]))
(((1)))
"""


@pytest.mark.parametrize("expression", EXPRESSIONS.strip().splitlines())
def test_expressions_mean_what_they_mean_in_python(expression, tree):
    assert read(f"x = {expression}", tree) == {"x": eval(expression)}


STATEMENTS = {
    "for": "x = 0\nfor i in range(4):\n    if i == 1: continue\n    if i == 3: break\n    x += i\nelse:\n    x = 9",
    "for else": "for i in []:\n    pass\nelse:\n    x = 1",
    "if": "a = 3\nif a > 2:\n    b = 1\nelif a:\n    b = 2\nelse:\n    b = 3",
    "unpacking": "a, (b, *c) = 1, (2, 3, 4)\n[d, e] = 'de'\nf = g = 1",
    "augmented": "a = 1\na += 2\nb = [1]\nc = b\nb += [2]\nd = dict(x=1)\nd['x'] *= 3\ne = 'a'\ne *= 3",
    "items": "a = dict(b=[1, 2, 3])\na['b'][0] = 9\na['b'][1:] = [5, 6, 7]\na['c'] = dict()\na['c']['d'] = 1",
    "del": "a = [1, 2]\ndel a[0]\nb = dict(x=1, y=2)\ndel b['x']\nc = 1\ndel c",
    "methods": "a = [1]\na.append(2)\na.extend((3, 4))\na.insert(0, 0)\nb = a.pop()\na.reverse()\na.sort()\n"
    "c = dict(x=1)\nc.update(y=2)\nc.update({'z': 3})\nd = c.pop('x')\ne = c.setdefault('w', [])\ne.append(1)",
    "annotation": "a: int = 3\nb: str",
    "docstring": "'''What this is.'''\na = 1\n'another'",
    "assert": "a = 1\nassert a == 1, 'one'\npass",
    "shared": "norm = dict(type='BN')\nmodel = dict(a=norm, b=[norm, dict(norm_cfg=norm)])",
    "private names": "_a = 1\n_b_ = 2\nc = _a + _b_",
}


@pytest.mark.parametrize("case", list(STATEMENTS))
def test_statements_mean_what_they_mean_in_python(case, tree):
    names: dict[str, object] = {}
    exec(STATEMENTS[case], names)
    expected = {name: value for name, value in names.items() if not name.startswith("_")}
    assert read(STATEMENTS[case], tree) == expected
    assert read(STATEMENTS[case], tree, trust=True) == expected


@pytest.mark.parametrize("trust", [False, True])
def test_sections_are_merged_by_their_method(tree, trust):
    lines = "model = dict(a=dict(b=1, c=2), d=dict(x=1))\nmore = dict(b=3)\n"
    lines += "model.merge(dict(a=more, d=dict(_delete_=True, y=2), e=[1]))"
    assert read(lines, tree, trust=trust)["model"] == {"a": {"b": 3, "c": 2}, "d": {"y": 2}, "e": [1]}
    with pytest.raises(UserError, match="merges something that is not a dict"):
        read("model = dict(a=1)\nmodel.merge([1])", tree)


# Base files

BASE = {
    "_base_/model.py": (
        "norm = dict(type='SyncBN', requires_grad=True)\n"
        "model = dict(\n"
        "    type='EncoderDecoder',\n"
        "    backbone=dict(type='ResNetV1c', depth=50, strides=(1, 2, 1, 1), norm_cfg=norm),\n"
        "    decode_head=dict(type='PSPHead', num_classes=19),\n"
        "    auxiliary_head=[dict(type='FCNHead', channels=64), dict(type='FCNHead', channels=32)])\n"
    ),
    "_base_/data.py": "pipeline = [dict(type='Load'), dict(type='Crop', size=(512, 1024))]\ndata = dict(a=pipeline)",
    "_base_/both.py": "_base_ = ['model.py', './data.py']\nlr = 0.01\n",
}


def test_several_and_chained_bases(tree):
    tree(BASE | {"pspnet/a.py": "_base_ = '../_base_/both.py'\nmodel = dict(backbone=dict(depth=101))\nlr = 0.1"})
    cfg = read_config("pspnet/a.py").to_dict()
    assert cfg["model"]["backbone"] == {
        "type": "ResNetV1c",
        "depth": 101,
        "strides": (1, 2, 1, 1),
        "norm_cfg": {"type": "SyncBN", "requires_grad": True},
    }
    assert cfg["lr"] == 0.1
    assert cfg["data"]["a"][1] == {"type": "Crop", "size": (512, 1024)}
    assert set(cfg) == {"norm", "model", "pipeline", "data", "lr"}


@pytest.mark.parametrize("trust", [False, True])
def test_delete_replaces(trust, tree):
    child = "_base_ = 'both.py'\nmodel = dict(backbone=dict(_delete_=True, type='MiT', norm=dict(_delete_=True, a=1)))"
    tree(BASE | {"_base_/a.py": child})
    model = read_config("_base_/a.py", trust=trust)["model"]
    assert model["backbone"] == {"type": "MiT", "norm": {"a": 1}}
    assert model["decode_head"]["num_classes"] == 19


def test_items_of_lists_by_their_numbers(tree):
    tree(BASE | {"_base_/a.py": "_base_ = 'both.py'\nmodel = dict(auxiliary_head={'1': dict(channels=16)})"})
    assert [head["channels"] for head in read_config("_base_/a.py").model.auxiliary_head] == [64, 16]


@pytest.mark.parametrize("suffix", ["yaml", "json"])
def test_yaml_and_json_build_on_py_and_the_other_way_round(suffix, tree):
    values = {"_base_": ["both.py"], "model": {"decode_head": {"num_classes": 2}, "backbone": {"_delete_": True}}}
    text = json.dumps(values, indent=1)  # also YAML
    tree(BASE | {f"_base_/a.{suffix}": text, "_base_/b.py": f"_base_ = 'a.{suffix}'\nlr = {{{{_base_.lr}}}} * 2"})
    cfg = read_config("_base_/b.py").to_dict()
    assert cfg["model"]["decode_head"] == {"type": "PSPHead", "num_classes": 2}
    assert cfg["model"]["backbone"] == {}
    assert cfg["lr"] == 0.02


MISTAKES = {
    "missing base": ("_base_ = './_base_/modle.py'", ["config.py:1", "_base_/modle.py", "'model.py'"]),
    "base of another kind": ("_base_ = 3", ["config.py:1", "_base_"]),
    "base as an address": ("_base_ = 'https://a.b/c.py'", ["config.py:1", "download"]),
    "two bases": ("_base_ = '_base_/model.py'\n_base_ = '_base_/data.py'", ["config.py:2", "twice"]),
    "hidden base": ("if 1:\n    _base_ = '_base_/model.py'", ["config.py:2", "_base_"]),
    "duplicate keys of bases": (
        "_base_ = ['_base_/both.py', '_base_/data.py']",
        ["_base_/data.py:1", "'pipeline'", "another file"],
    ),
    "dict over a value": (
        "_base_ = '_base_/both.py'\nmodel = dict(\n    type=dict(a=1))",
        ["config.py:3", "model.type", "str", "_delete_"],
    ),
    "dict over a list": ("_base_ = '_base_/both.py'\npipeline = dict(a=1)", ["config.py:2", "pipeline", "list"]),
    "missing item": (
        "_base_ = '_base_/both.py'\npipeline = {'2': dict(a=1)}",
        ["config.py:2", "pipeline.2", "2 items"],
    ),
    "syntax": ("a = 1\nb = dict(a=1\n", ["config.py:2", "b = dict(a=1"]),
    "unknown name": ("crop_size = 1\nb = crop_siz", ["config.py:2", "crop_siz", "'crop_size'"]),
    "missing key": ("a = dict(b=1)\nc = a['c']", ["config.py:2", "'c'"]),
    "division": ("a = 1 / 0", ["config.py:1", "division"]),
    "wrong unpacking": ("a, b = 1, 2, 3", ["config.py:1", "unpack"]),
    "repeated keyword": ("a = dict(\n    b=1,\n    b=2)", ["config.py:1", "b"]),
    "wrong argument": ("a = len()", ["config.py:1"]),
    "wrong conversion": ("a = int('x')", ["config.py:1", "'x'"]),
    "line within a call": ("a = dict(\n    b=1,\n    c=dict(d=missing))", ["config.py:3", "missing"]),
    "failing assertion": ("a = 1\nassert a == 2, 'two'", ["config.py:2", "two"]),
    "break": ("break", ["config.py:1", "break"]),
    "environment variable": ("a = '{{ $SURELY_NOT_SET }}'", ["config.py:1", "SURELY_NOT_SET"]),
    "base variable": ("_base_ = '_base_/both.py'\na = {{ _base_.modle }}", ["config.py:2", "modle", "'model'"]),
}


@pytest.mark.parametrize("case", list(MISTAKES))
def test_a_mistake_is_named_with_file_and_line(case, tree):
    text, parts = MISTAKES[case]
    tree(BASE | {"config.py": text})
    with pytest.raises(UserError) as error:
        read_config("config.py")
    for part in parts:
        assert part in str(error.value)


MARKUP_MISTAKES = {
    "duplicate key in yaml": ("a.yaml", "x: 1\ny:\n  z: 1\n  z: 2\n", ["a.yaml:4", "'z'", "a.yaml:3"]),
    "duplicate key in json": ("a.json", '{"x": 1,\n "y": {"z": 1,\n "z": 2}}', ["a.json:3", "'z'", "a.json:2"]),
    "yaml syntax": ("a.yaml", "x: 1\ny: [1, 2\nz: 3", ["a.yaml:3"]),
    "json syntax": ("a.json", '{"x": 1,\n "y": }', ["a.json:2"]),
    "yaml list": ("a.yaml", "- 1", ["a.yaml", "mapping"]),
    "json list": ("a.json", "[1]", ["a.json", "mapping"]),
    "number as a name": ("a.yaml", "x: 1\n3: 4", ["a.yaml:2", "3"]),
    "missing base": ("a.yaml", "x: 1\n_base_: b.yaml", ["a.yaml:2", "b.yaml"]),
    "variable": ("a.yaml", "x: 1\ny: {{ $SURELY_NOT_SET }}", ["a.yaml:2", "SURELY_NOT_SET"]),
    "type clash": ("a.yaml", "_base_: base.py\nlr:\n  b: 1", ["a.yaml:2", "lr"]),
    "other suffix": ("a.txt", "x: 1", ["a.txt", ".py, .yaml, .yml, .json"]),
}


@pytest.mark.parametrize("case", list(MARKUP_MISTAKES))
def test_a_mistake_in_yaml_or_json(case, tree):
    name, text, parts = MARKUP_MISTAKES[case]
    tree({name: text, "base.py": "lr = 0.1"})
    with pytest.raises(UserError) as error:
        read_config(name)
    for part in parts:
        assert part in str(error.value)


def test_a_missing_file_names_the_nearest(tree):
    tree(BASE)
    with pytest.raises(UserError, match=r"there is no config file _base_/modl.py; did you mean 'model.py'"):
        read_config("_base_/modl.py")


def test_a_config_that_is_not_text(tree, tmp_path):
    (tmp_path / "a.py").write_bytes(b"a = 1\nb = '\xff'")
    with pytest.raises(UserError, match=r"a.py:2: the file is not UTF-8"):
        read_config("a.py")


# Variables


def test_variables_of_the_file(tree, tmp_path):
    text = (
        "a = '{{ fileDirname }}/x'\nb = '{{fileBasename}}'\nc = f'{{ fileBasenameNoExtension }}-{1 + 1}'\n"
        "d = '{{ fileExtname }}'\ne = {{ fileBasename }}\n"
    )
    expected = {"a": f"{tmp_path.as_posix()}/sub/x", "b": "my.cfg.py", "c": "my.cfg-2", "d": ".py", "e": "my.cfg.py"}
    assert read(text, tree, "sub/my.cfg.py") == expected
    assert read(text, tree, "sub/my.cfg.py", trust=True) == expected


def test_variables_of_the_environment(tree, monkeypatch):
    monkeypatch.setenv("CROP", "[512, 1024]")
    monkeypatch.setenv("NAME", "ade")
    text = (
        "a = {{ $CROP:1 }}\nb = '{{ $NAME:x }}/{{$OTHER_NAME:data/other}}'\n"
        "c = {{ $EPOCHS_:10 }}\nd = '{{ $EPOCHS_:10 }}'"
    )
    expected = {"a": [512, 1024], "b": "ade/data/other", "c": 10, "d": "10"}
    assert read(text, tree, trust=True) == expected
    assert read("a: {{ $CROP:1 }}\nb: {{ $NAME:x }}/y\nc: '{{ $EPOCHS_:10 }}'", tree, "a.yaml", trust=True) == {
        "a": [512, 1024],
        "b": "ade/y",
        "c": 10,
    }


def test_variables_of_the_base(tree):
    text = (
        "_base_ = '_base_/both.py'\n"
        "a = {{ _base_.model.backbone.depth }} + 1\n"
        "b = 'r{{_base_.model.backbone.depth}}-{{ _base_.norm.type }}'\n"
        "c = {{ _base_.pipeline.1.size }}\n"
        "d = '{{ _base_.norm }}'\n"
        "e = [{{ _base_.norm }}, dict(x={{ _base_.lr }})]\n"
        "f = _base_.model.decode_head.num_classes\n"
        "g = _base_.pipeline[0]['type']\n"
        "model = dict(neck={{ _base_.norm }})\n"
    )
    tree(BASE)
    for trust in (False, True):
        cfg = read(text, tree, trust=trust)
        assert cfg["a"] == 51
        assert cfg["b"] == "r50-SyncBN"
        assert cfg["c"] == (512, 1024)
        assert cfg["d"] == cfg["model"]["neck"] == {"type": "SyncBN", "requires_grad": True}
        assert cfg["e"] == [cfg["d"], {"x": 0.01}]
        assert (cfg["f"], cfg["g"]) == (19, "Load")
        assert cfg["model"]["backbone"]["depth"] == 50


@pytest.mark.parametrize("name", ["a.yaml", "a.json"])
def test_variables_of_the_base_in_yaml_and_json(name, tree, tmp_path):
    text = (
        '{"_base_": "_base_/both.py", "a": {{ _base_.pipeline }}, "b": "x-{{ _base_.lr }}", "c": "{{ fileDirname }}"}'
    )
    tree(BASE)
    cfg = read(text, tree, name)
    assert cfg["a"] == cfg["pipeline"]
    assert (cfg["b"], cfg["c"]) == ("x-0.01", tmp_path.as_posix())


def test_what_a_child_does_to_a_base_variable_stays_with_it(tree):
    tree(BASE | {"a.py": "_base_ = '_base_/both.py'\nx = {{ _base_.norm }}\nx['type'] = 'BN'"})
    cfg = read_config("a.py")
    assert (cfg.x.type, cfg.norm.type) == ("BN", "SyncBN")


def test_a_scope_is_a_folder_that_the_user_names(tree, tmp_path, monkeypatch):
    tree(BASE | {"mine/a.py": "_base_ = 'mmseg::_base_/both.py'"})
    with pytest.raises(UserError, match=r"a.py:1: .*TERRAZZO_MMSEG_CONFIGS"):
        read_config("mine/a.py")
    monkeypatch.setenv("TERRAZZO_MMSEG_CONFIGS", str(tmp_path))
    assert read_config("mine/a.py").lr == 0.01


def test_a_scope_is_the_package_of_the_configs_own_project(tree):
    tree({"own/__init__.py": "", "configs/_base_/a.py": "lr = 0.02", "configs/x/b.py": "_base_ = 'own::_base_/a.py'"})
    assert read_config("configs/x/b.py").lr == 0.02
    with pytest.raises(UserError, match=r"no recipe replaces own::_base_/c.py"):
        tree({"configs/c.py": "_base_ = 'own::_base_/c.py'"})
        read_config("configs/c.py")


# New-style files

LAZY = {
    "_base_/model.py": (
        "from mmseg.models import EncoderDecoder, ResNetV1c\n"
        "import torch.nn as nn\n"
        "norm = dict(type=nn.SyncBatchNorm)\n"
        "model = dict(type=EncoderDecoder, backbone=dict(type=ResNetV1c, depth=50, norm_cfg=norm))\n"
        "heads = [dict(channels=64)]\n"
    ),
    "_base_/schedule.py": "optimizer = dict(type='SGD', lr=0.01)\niterations = 100\n_private = 1\n",
    "psp/a.py": (
        "from mmengine.config import read_base\n"
        "from mmseg.datasets import ADE20KDataset\n"
        "from mmdet.models import DiceLoss as Dice\n"
        "from my_project.models import MyHead\n"
        "\n"
        "with read_base():\n"
        "    from .._base_.model import *\n"
        "    from .._base_.schedule import optimizer, iterations as total\n"
        "\n"
        "dataset_type = ADE20KDataset\n"
        "model.update(dict(backbone=dict(depth=101), decode_head=dict(type=MyHead)))\n"
        "model.decode_head.loss = dict(type=Dice)\n"
        "heads[0].channels = 32\n"
        "optimizer.lr *= 2\n"
    ),
}


@pytest.mark.parametrize("trust", [False, True])
def test_lazy_files(trust, tree):
    tree(LAZY)
    cfg = read_config("psp/a.py", trust=trust).to_dict()
    assert cfg == {
        "norm": {"type": "SyncBatchNorm"},
        "model": {
            "type": "EncoderDecoder",
            "backbone": {"type": "ResNetV1c", "depth": 101, "norm_cfg": {"type": "SyncBatchNorm"}},
            "decode_head": {"type": "MyHead", "loss": {"type": "mmdet.DiceLoss"}},
        },
        "heads": [{"channels": 32}],
        "optimizer": {"type": "SGD", "lr": 0.02},
        "total": 100,
        "dataset_type": "ADE20KDataset",
    }
    assert all(type(kind) is str for kind in (cfg["dataset_type"], cfg["model"]["type"]))


def test_a_lazy_file_names_what_its_base_lacks(tree):
    tree(LAZY | {"psp/b.py": "with read_base():\n    from .._base_.schedule import optimiser"})
    with pytest.raises(UserError, match=r"b.py:1: .*no variable 'optimiser'; did you mean 'optimizer'"):
        read_config("psp/b.py")


def test_a_lazy_file_of_another_package(tree, tmp_path, monkeypatch):
    tree(LAZY | {"b.py": "with read_base():\n    from mmseg.configs._base_.schedule import *"})
    monkeypatch.setenv("TERRAZZO_MMSEG_CONFIGS", str(tmp_path))
    assert read_config("b.py").iterations == 100


# Overrides

OVERRIDES = {
    "a=1": 1,
    "a=-1.5": -1.5,
    "a=1e-4": 1e-4,
    "a=True": True,
    "a=false": False,
    "a=None": None,
    "a=text": "text",
    "a=": "",
    "a='1'": "1",
    'a="x y"': "x y",
    "a=data/a=b": "data/a=b",
    "a=runs/a(1": "runs/a(1",
    "a=1,2": [1, 2],
    "a=x,y": ["x", "y"],
    "a=[1,2]": [1, 2],
    'a="[1,2]"': [1, 2],
    "a=[1, 'b', \"c,d\", None]": [1, "b", "c,d", None],
    "a=(512,1024)": (512, 1024),
    "a=(1,)": (1,),
    "a=[]": [],
    "a=[(a,b),(c,d)]": [("a", "b"), ("c", "d")],
    "a=[[1,2],[3,[4]]]": [[1, 2], [3, [4]]],
    "a=(1,2),(3,4)": [(1, 2), (3, 4)],
    "a={'type': 'BN', 'x': [1]}": {"type": "BN", "x": [1]},
}


@pytest.mark.parametrize("text", list(OVERRIDES))
def test_values_of_overrides(text):
    key, value = parse_override(text)
    assert key == "a"
    assert value == OVERRIDES[text] and type(value) is type(OVERRIDES[text])


@pytest.mark.parametrize("text", [
    "a", "=1", "a=[1,2", "a=(1]", "a={1", "a={b: c}", "a=" + "[" * 1200 + "]" * 1200, "a=" + "(" * 1200, "a=\udcff",
    "a=" + "{" * 1200 + "}" * 1200, "a=" + "9" * 5000, "a=[1," + "9" * 5000 + "]", "a=-" + "1_0" * 2000,
])  # fmt: skip
def test_a_wrong_override(text):
    with pytest.raises(UserError, match="--cfg-options"):
        parse_override(text)


def test_overrides_go_anywhere():
    values = {"a": {"b": [{"c": 1}, (1, 2)], "d": None}, "label_map": {7: 1}}
    changed = apply_overrides(
        values,
        {"a.b.0.c": 2, "a.b.1.1": 5, "a.e.f": 3, "a.d": "x", "label_map.7": 2, "a.b.0": {"g": 1}, "new": {"h": {}}},
    )
    assert changed == {
        "a": {"b": [{"c": 2, "g": 1}, (1, 5)], "d": "x", "e": {"f": 3}},
        "label_map": {7: 2},
        "new": {"h": {}},
    }
    assert values["a"]["b"][0] == {"c": 1}, "the argument stays as it is"
    assert type(changed) is dict and type(changed["a"]) is dict


def test_overrides_with_delete():
    assert apply_overrides({"a": {"b": 1}}, {"a": {"_delete_": True, "c": 2}}) == {"a": {"c": 2}}


@pytest.mark.parametrize(
    ("key", "part"), [("a.b.3.c", "a.b.3"), ("a.b.x", "a.b"), ("a.b.0.c.d", "a.b.0.c"), ("a..b", "a..b"), ("", "key")]
)
def test_an_override_that_leads_nowhere(key, part):
    with pytest.raises(UserError) as error:
        apply_overrides({"a": {"b": [{"c": 1}]}}, {key: 1})
    assert part in str(error.value) and "--cfg-options" in str(error.value)


def test_overrides_of_a_file(tree):
    tree(BASE)
    cfg = read_config("_base_/both.py", overrides={"model.auxiliary_head.0.channels": 1, "model.backbone.depth": 18})
    assert cfg.model.auxiliary_head[0].channels == 1
    assert cfg.model.backbone.depth == 18
    assert cfg.model.auxiliary_head[1].channels == 32


# Config


def test_config_access(tree):
    tree(BASE)
    cfg = read_config("_base_/both.py")
    assert cfg["model"]["decode_head"] == cfg.model.decode_head == cfg.get("model").decode_head
    assert "model" in cfg and cfg.get("nothing", 3) == 3
    assert cfg.path == Path("_base_/both.py")
    assert dict(cfg) == cfg.to_dict()
    with pytest.raises(AttributeError, match="did you mean 'model'"):
        _ = cfg.modle
    copy = cfg.to_dict()
    copy["model"]["backbone"]["norm_cfg"]["type"] = "BN"
    assert cfg.model.backbone.norm_cfg.type == cfg.norm.type == "SyncBN"
    cfg.model.backbone.norm_cfg["type"] = "BN"
    assert cfg.norm.type == "SyncBN", "values that a file shares are separate once read"
    assert type(copy) is dict and type(copy["model"]) is dict


def test_a_config_made_from_a_dict():
    values = {"model": {"type": "EncoderDecoder"}}
    cfg = Config(values)
    assert cfg.to_dict() == values
    assert cfg.path is None and cfg.origin("model.type") is None


def test_origins_through_base_files(tree):
    tree(BASE | {"a.py": "_base_ = '_base_/both.py'\nmodel = dict(\n    backbone=dict(\n        depth=101))\n"})
    cfg = read_config("a.py", overrides={"model.decode_head.num_classes": 2})
    assert cfg.origin("model.backbone.depth") == "a.py:4"
    assert cfg.origin("model.backbone.type") == "_base_/model.py:4"
    assert cfg.origin("model.backbone.norm_cfg.type") == "_base_/model.py:1"
    assert cfg.origin("model.auxiliary_head.1.channels") == "_base_/model.py:6"
    assert cfg.origin("pipeline.1.size") == "_base_/data.py:1"
    assert cfg.origin("lr") == "_base_/both.py:2"
    assert cfg.origin("model.decode_head.num_classes") == "--cfg-options"
    assert cfg.origin("model.nothing") is None


ORIGINS = {
    "a.py": (
        "keys = {\n 'backbone.norm': 1}\nkeys.update({\n 'b': 2})\nkeys.update(\n c=3)\nkeys['d'] = 4\n"
        "keys.setdefault('e', 5)\nfor k in ('f',):\n    keys[k] = 6\nmore = dict(\n **keys)",
        {"backbone.norm": 2, "b": 4, "c": 6, "d": 7, "e": 8, "f": 10},
    ),
    "a.yaml": (
        "keys:\n  backbone.norm: 1\n  b: [1,\n   2]\n  c: {d: 1,\n   e: 2}",
        {"backbone.norm": 2, "b.1": 3, "c.e": 6},
    ),
    "a.json": (
        '{"keys":\n {"backbone.norm": 1,\n "b": [1,\n 2], "c": {"d": "\\" {",\n "e": 2}}}',
        {"backbone.norm": 2, "b.1": 3, "c": 4, "c.d": 4, "c.e": 5},
    ),
}


@pytest.mark.parametrize("name", list(ORIGINS))
def test_origins_in_every_format(name, tree):
    text, lines = ORIGINS[name]
    tree({name: text})
    cfg = read_config(name)
    assert {key: cfg.origin(f"keys.{key}") for key in lines} == {key: f"{name}:{line}" for key, line in lines.items()}


def test_origins_of_a_trusted_file(tree):
    tree(BASE | {"a.py": "_base_ = '_base_/both.py'\nimport math\n\nlr = math.sqrt(4)"})
    cfg = read_config("a.py", trust=True)
    assert cfg.lr == 2
    assert cfg.origin("lr") == "a.py:4"
    assert "math" not in cfg


def test_an_exception_in_a_trusted_file_is_named_with_its_line(tree):
    tree({"a.py": "import math\n\ndef f():\n    return math.sqrt(-1)\nx = f()"})
    with pytest.raises(UserError, match=r"a.py:4: ValueError.*\n.*return math"):
        read_config("a.py", trust=True)


def test_dump_is_yaml_that_reads_back(tree):
    text = "a = dict(b=(1, 2), c='1e-4', d=1e-4, e=None, f='2020-01-01', g='yes', h=[dict(i='größe')])\nk = a['h']"
    tree({"a.py": text})
    dumped = read_config("a.py").dump()
    assert "&" not in dumped and "!" not in dumped
    tree({"b.yaml": dumped})
    expected = read_config("a.py").to_dict()
    expected["a"]["b"] = [1, 2]
    assert read_config("b.yaml").to_dict() == expected


def test_yaml_values(tree):
    text = (
        "a: 1e-4\nb: 1.5e3\nc: 2020-01-01\nd: 'text'\ne: {7: 1}\nf: ~\n"
        "g: &x {h: 1, i: 2}\nj:\n  <<: *x\n  i: 3\nk: [*x, *x]\n_hidden: 1\nl: |\n  two\n  lines\n"
    )
    cfg = read(text, tree, "a.yml")
    assert cfg == {
        "a": 1e-4,
        "b": 1500.0,
        "c": "2020-01-01",
        "d": "text",
        "e": {7: 1},
        "f": None,
        "g": {"h": 1, "i": 2},
        "j": {"h": 1, "i": 3},
        "k": [{"h": 1, "i": 2}] * 2,
        "l": "two\nlines\n",
    }
    assert cfg["k"][0] is not cfg["k"][1]


def test_json_values(tree):
    values = {"a": [1, -2.5e-3, True, None, 'x\n"{[,:]}\\'], "b": {}, "c": [], "d": [[{}]], "e": "größe", "f": {"": ""}}
    assert read(json.dumps(values), tree, "a.json") == values
    assert read(json.dumps(values, indent="\t", ensure_ascii=False), tree, "a.json") == values


def test_json_that_yaml_could_not_read(tree):
    text = '{"a"\n: "\\ud83d\\ude00 \\/ \x7f", "n": [1E5, -0],\n"%s": {\t"b": 1}}' % ("k" * 2000)
    tree({"a.json": text})
    cfg = read_config("a.json")
    assert cfg.to_dict() == {"a": "😀 / \x7f", "n": [1e5, 0], "k" * 2000: {"b": 1}}
    assert (cfg.origin("a"), cfg.origin("n"), cfg.origin("k" * 2000 + ".b")) == ("a.json:1", "a.json:2", "a.json:3")


def test_a_huge_number_in_json_is_named_with_its_line(tree):
    tree({"a.json": '{"a": 1,\n "b": [1, %s]}' % ("9" * 400)})
    with pytest.raises(UserError, match=r"a\.json:2: the number is huge"):
        read_config("a.json")


def test_an_empty_file(tree):
    assert read("", tree) == read("", tree, "a.yaml") == read("{}", tree, "a.json") == {}


# The official files


def tagged(value):
    """Tuples as golden facts write them in JSON."""
    if isinstance(value, dict):
        return {key: tagged(item) for key, item in value.items()}
    if isinstance(value, tuple):
        return {"__tuple__": [tagged(item) for item in value]}
    return [tagged(item) for item in value] if isinstance(value, list) else value


@pytest.mark.parametrize(("version", "count"), [("v0", 644), ("v1", 681)])
def test_every_official_config_reads_as_its_own_toolbox_reads_it(version, count):
    """Set TERRAZZO_PEER_CONFIGS to a folder with the official configs of 0.30.0 in v0/ and of 1.2.2 in v1/."""
    if "TERRAZZO_PEER_CONFIGS" not in os.environ:
        pytest.skip("needs the official config files: set TERRAZZO_PEER_CONFIGS")
    with gzip.open(shared("golden", f"config_{version}.jsonl.gz"), "rt") as file:
        facts = [json.loads(line) for line in file]
    assert len(facts) == count
    seconds, different = 0.0, []
    for fact in facts:
        started = time.perf_counter()
        cfg = read_config(Path(os.environ["TERRAZZO_PEER_CONFIGS"], version, fact["path"]))
        seconds += time.perf_counter() - started
        if tagged(cfg.to_dict()) != fact["cfg"]:
            different.append(fact["path"])
    assert not different
    for fact in facts[::20]:
        cfg = read_config(Path(os.environ["TERRAZZO_PEER_CONFIGS"], version, fact["path"]), trust=True)
        assert tagged(cfg.to_dict()) == fact["cfg"], "run as Python instead"
    assert seconds < 30


@pytest.mark.parametrize("text", ["a\u202eb", "\u2028a", "\u200fa: b\nc", "\x1b[2J", "é 日本"])
def test_a_dump_holds_nothing_that_a_terminal_obeys(text):
    """And reads back as the same text."""
    dumped = Config({"x": text}).dump()
    assert yaml.safe_load(dumped) == {"x": text}
    assert not set("\u202e\u2028\u200f\x1b") & set(dumped)


# YAML files that are no configs

LETTERS = "abcdefghijklmnopqrst"
HOSTILE = {
    "aliases": "a: &a [x, x]\n" + "".join(f"{k}: &{k} [*{p}, *{p}]\n" for p, k in itertools.pairwise(LETTERS)),
    "merges": f"a: &a {{{', '.join(f'k{i}: 1' for i in range(900))}}}\nb: {{<<: [{', '.join(['*a'] * 900)}]}}",
    "brackets": "[" * 100_000,
    "itself": "a: &a [*a]",
    "digits": "a: " + "9" * 5000,
    "bool": "a: !!bool foo",
    "python": "a: !!python/object/apply:os.system [true]",
    "twice": "a: 1\na: 2",
}


@pytest.mark.parametrize("kind", HOSTILE)
@pytest.mark.parametrize("read", [read_yaml, names_in, read_class_table, load_dsdl])
def test_a_hostile_yaml_is_one_message(kind, read, tmp_path):
    path = tmp_path / "data.yaml"
    path.write_text(HOSTILE[kind])
    with pytest.raises(UserError, match=r"data\.yaml"):
        read(path)


def test_a_long_yaml_of_plain_values_is_read(tmp_path):
    samples = [{"Image": f"images/{index:06}.jpg", "LabelMap": f"labels/{index:06}.png"} for index in range(3000)]
    path = tmp_path / "samples.yaml"
    path.write_text(yaml.safe_dump({"samples": samples, "made": "2020-01-31", 0: 1.5}))
    assert read_yaml(path) == {"samples": samples, "made": "2020-01-31", 0: 1.5}
