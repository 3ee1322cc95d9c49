"""Checkpoints: what may be in them, what becomes of it, and that nothing in them runs."""

from __future__ import annotations

import collections
import io
import json
import os
import pickle
import subprocess
import sys
import tarfile
import types
import zipfile
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

import terrazzo as tz
from support.tiny import model_config
from terrazzo.cli.main import main
from terrazzo.errors import UserError
from terrazzo.models.checkpoint import legend_of, load_checkpoint, read_checkpoint

WEIGHTS = {"a.weight": torch.arange(6.0).view(2, 3), "a.bias": torch.ones(2, dtype=torch.float16)}


def same(weights: dict) -> bool:
    return list(weights) == list(WEIGHTS) and all(torch.equal(weights[name], WEIGHTS[name]) for name in WEIGHTS)


def wrapped() -> dict:
    return {
        "plain.pth": WEIGHTS,
        "state_dict.pth": {"state_dict": OrderedDict(WEIGHTS), "meta": {"CLASSES": ("x", "y")}},
        "model.pth": {"model": WEIGHTS, "epoch": 3},
        "parallel.pth": {"state_dict": {f"module.{name}": value for name, value in WEIGHTS.items()}},
        "compiled.pth": {f"_orig_mod.{name}": value for name, value in WEIGHTS.items()},
        "parameters.pth": {name: nn.Parameter(value) for name, value in WEIGHTS.items()},
    }


@pytest.mark.parametrize("legacy", [False, True], ids=["zip", "legacy"])
@pytest.mark.parametrize("name", wrapped())
def test_formats_of_torch(tmp_path, name, legacy):
    torch.save(wrapped()[name], tmp_path / name, _use_new_zipfile_serialization=not legacy)
    assert same(read_checkpoint(tmp_path / name).weights)


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_pickle_protocols(tmp_path, protocol):
    torch.save({"state_dict": WEIGHTS}, tmp_path / "x.pth", pickle_protocol=protocol)
    assert same(read_checkpoint(tmp_path / "x.pth").weights)


@pytest.mark.parametrize(
    "dtype", [torch.float64, torch.bfloat16, torch.float16, torch.int64, torch.int8, torch.uint8, torch.bool]
)
@pytest.mark.parametrize("legacy", [False, True], ids=["zip", "legacy"])
def test_types_of_numbers_and_views(tmp_path, dtype, legacy):
    value = torch.arange(12).view(3, 4).to(dtype)
    content = {"x": value, "transposed": value.t(), "part": value[1:, ::2], "scalar": value[0, 1].clone()}
    torch.save(content, tmp_path / "x.pth", _use_new_zipfile_serialization=not legacy)
    read = read_checkpoint(tmp_path / "x.pth").weights
    assert all(torch.equal(read[name], content[name]) for name in content)


def test_safetensors_with_its_description(tmp_path):
    save_file(WEIGHTS, str(tmp_path / "x.safetensors"), {"classes": json.dumps(["x", "y"]), "format": "pt"})
    checkpoint = read_checkpoint(tmp_path / "x.safetensors")
    assert torch.equal(checkpoint.weights["a.weight"], WEIGHTS["a.weight"])
    assert checkpoint.meta == {"classes": ["x", "y"], "format": "pt"}


# Files of other packages


@pytest.fixture
def foreign(monkeypatch):
    """Classes of packages that are not installed, present while a file is saved and gone when it is read."""
    made = {}

    def make(module: str, name: str, base: type = object):
        parts = module.split(".")
        for count in range(1, len(parts) + 1):
            path = ".".join(parts[:count])
            monkeypatch.setitem(sys.modules, path, sys.modules.get(path) or types.ModuleType(path))
        made[name] = type(name, (base,), {"__module__": module})
        setattr(sys.modules[module], name, made[name])
        return made[name]

    yield make
    monkeypatch.undo()


def buffer_of(foreign) -> object:
    kind = foreign("mmengine.logging.history_buffer", "HistoryBuffer")
    kind.mean = mean
    mean.__module__, mean.__qualname__ = kind.__module__, "HistoryBuffer.mean"
    buffer = kind()
    buffer.__dict__ = {
        "_max_length": 1000000,
        "_log_history": np.arange(3, dtype=np.float32),
        "_count_history": collections.deque([1, 2], maxlen=4),
        "_mean": np.float64(0.5),
        "_statistics_methods": OrderedDict(mean=mean),  # a method by its name: getattr, in pickles before protocol 4
    }
    return buffer


def mean(buffer): ...


FOREIGN = {
    "history": buffer_of,
    "config": lambda foreign: foreign("mmcv.utils.config", "ConfigDict", dict)({"a": {"b": [1, 2]}}),
    "list": lambda foreign: foreign("mmengine.structures", "Things", list)([1, 2, 3]),
    "level": lambda foreign: foreign("mmengine.hooks.priority", "Priority")(),
    "numpy": lambda foreign: {"array": np.ones((2, 2)), "scalar": np.float32(1.5), "text": np.array(["a", "b"])},
    "object array": lambda foreign: np.array([{"a": 1}, None], dtype=object),
    "path": lambda foreign: Path("/tmp/x"),
    "set": lambda foreign: {1, 2, 3},
    "default": lambda foreign: collections.defaultdict(int, {"a": 1}),
}


@pytest.mark.parametrize("protocol", [2, 4])
@pytest.mark.parametrize("legacy", [False, True], ids=["zip", "legacy"])
@pytest.mark.parametrize("what", FOREIGN)
def test_records_of_other_packages_do_not_stand_in_the_way(tmp_path, foreign, monkeypatch, what, legacy, protocol):
    content = {
        "meta": {"dataset_meta": {"classes": ("x", "y"), "palette": [[1, 2, 3], [4, 5, 6]]}, "epoch": 3},
        "message_hub": {"log_scalars": OrderedDict(loss=FOREIGN[what](foreign))},
        "state_dict": OrderedDict(WEIGHTS),
        "optimizer": {"state": {0: {"momentum_buffer": torch.zeros(2)}}, "param_groups": [{"lr": 0.1}]},
    }
    torch.save(content, tmp_path / "x.pth", _use_new_zipfile_serialization=not legacy, pickle_protocol=protocol)
    for name in [name for name in sys.modules if name.split(".")[0] in ("mmengine", "mmcv")]:
        monkeypatch.delitem(sys.modules, name)
    checkpoint = read_checkpoint(tmp_path / "x.pth")
    assert same(checkpoint.weights)
    assert checkpoint.meta["dataset_meta"]["classes"] == ("x", "y")


def test_a_whole_pickled_model_is_named_as_such(tmp_path, foreign, monkeypatch):
    model = foreign("mmseg.models", "EncoderDecoder")()
    torch.save(model, tmp_path / "x.pth")
    with pytest.raises(UserError, match=r"whole pickled model.*state_dict"):
        read_checkpoint(tmp_path / "x.pth")


# Files that would do harm


class Call:
    """Pickles as a call of a function that is given by name."""

    def __init__(self, function, *arguments, state=None):
        self.function, self.arguments, self.state = function, arguments, state

    def __reduce__(self):
        return (self.function, self.arguments) if self.state is None else (self.function, self.arguments, self.state)


MARK = "terrazzo-was-here"
HARMFUL = {"os.system", "subprocess.Popen", "os.exec", "os.posix_spawn", "import antigravity", "webbrowser.open"}
STARTED: list[str] = []
sys.addaudithook(lambda event, arguments: STARTED.append(event) if event in HARMFUL else None)


def attacks(target: Path) -> dict[str, object]:
    command = f"touch {target}"
    code = f"open({str(target)!r}, 'w').close()"
    return {
        "os.system": Call(os.system, command),
        "eval": Call(eval, code),
        "exec": Call(exec, code),
        "import": Call(__import__, "antigravity"),
        "getattr": Call(getattr, Call(__import__, "os"), "system"),
        "subprocess": Call(subprocess.Popen, ["touch", str(target)]),
        "nested": {"a": [({"b": Call(Call, Call(os.system, command))},)]},
        "argument": Call(OrderedDict, [("a", Call(os.system, command))]),
        "torch.load": Call(torch.load, str(target)),
        "torch.save": Call(torch.save, {}, str(target)),
        "torch.hub": Call(torch.hub.load, "a/b", "c"),
        "torch.jit": Call(torch.jit.load, str(target)),
        "torch.nn": Call(nn.Linear, 1, 1),
        "from_file": Call(torch.from_file, str(target), True, 8),
        "numpy.load": Call(np.load, str(target)),
        "runpy": Call(__import__("runpy")._run_code, code, {}),
        "builtins.open": Call(open, str(target), "w"),
        "pathlib write": Call(Path.write_text, target, "x"),
    }


@pytest.mark.parametrize("form", ["zip", "legacy", "raw"])
@pytest.mark.parametrize("name", attacks(Path()))
def test_malicious_pickles_do_not_run(tmp_path, name, form):
    target, path = tmp_path / MARK, tmp_path / "evil.pth"
    content = {"state_dict": {"a": torch.ones(2)}, "meta": attacks(target)[name]}
    if form == "raw":
        path.write_bytes(pickle.dumps(content, protocol=4))
    else:
        torch.save(content, path, _use_new_zipfile_serialization=form == "zip")
    STARTED.clear()
    try:
        read_checkpoint(path)  # numpy's functions are replaced by stand-ins that do nothing
        assert name in ("numpy.load", "pathlib write") and form != "raw"
    except UserError as problem:
        assert str(path) in str(problem)
        assert form == "raw" or "Nothing in it was executed" in str(problem)
    assert not STARTED and not target.exists()


def opcodes(*parts: bytes) -> bytes:
    return b"\x80\x02" + b"".join(parts) + b"."


def global_(module: str, name: str) -> bytes:
    return f"c{module}\n{name}\n".encode()


CRAFTED = {
    "posix": opcodes(global_("posix", "system"), b"(X\x04\x00\x00\x00true", b"tR"),
    "instance": opcodes(b"(X\x04\x00\x00\x00true", b"iposix\nsystem\n"),
    "object": opcodes(b"(", global_("posix", "system"), b"X\x04\x00\x00\x00true", b"o"),
    "dotted": b"\x80\x04\x8c\x05torch\x8c\x09os.system\x93.",
    "dotted storage": b"\x80\x04\x8c\x05torch\x8c\x1eserialization.os.systemStorage\x93.",
    "extension": opcodes(b"\x82\x01"),
    # a function's or a class's attributes set: state (None, {name: value})
    "function state": opcodes(
        global_("torch._utils", "_rebuild_tensor_v2"),
        b"N}X\x01\x00\x00\x00aNs\x86b",
    ),
    "class state": opcodes(global_("numpy", "ndarray"), b"N}X\x0c\x00\x00\x00dump_patches\x88s\x86b"),
    "storage class state": opcodes(global_("torch", "FloatStorage"), b"N}X\x01\x00\x00\x00aNs\x86b"),
    # memory: storages made by other ways than a call
    "new storage": opcodes(global_("torch", "FloatStorage"), b"\x8a\x05\x00\x00\x00\x00\x01\x85\x81"),
    "new storage with keywords": b"\x80\x04\x8c\x05torch\x8c\x0cFloatStorage\x93\x8a\x05\x00\x00\x00\x00\x01\x85}\x92.",
    "storage as an instance": opcodes(b"(\x8a\x05\x00\x00\x00\x00\x01itorch\nFloatStorage\n"),
    "storage as an object": opcodes(b"(", global_("torch", "FloatStorage"), b"\x8a\x05\x00\x00\x00\x00\x01o"),
    # time: the hash of tuples whose parts are shared, 2 ** 60 of them
    "key": opcodes(b"}", b")" + b"2\x86" * 60, b"Ns"),
    "key among others": opcodes(b"}(", b")" + b"2\x86" * 60, b"Nu"),
    "key of a dict": opcodes(b"(", b")" + b"2\x86" * 60, b"Nd"),
    "set": b"\x80\x04\x8f(" + b")" + b"2\x86" * 60 + b"\x90.",
    "frozen set": b"\x80\x04(" + b")" + b"2\x86" * 60 + b"\x91.",
    # stand-ins do nothing, but what they are given is still looked at
    "below a stand-in": opcodes(global_("mmcv", "X"), b"(", global_("posix", "system"), b"X\x04\x00\x00\x00truetRtR"),
    "getattr of a stand-in": opcodes(
        global_("__builtin__", "getattr"), global_("posix", "system"), b"X\x08\x00\x00\x00__call__\x86R"
    ),
    "state of a stand-in": opcodes(global_("mmcv", "X"), b")R}X\x01\x00\x00\x00a", global_("os", "system"), b"sb"),
    "call a dtype": opcodes(global_("torch", "float32"), b")R"),
    "call a storage": opcodes(global_("torch", "FloatStorage"), b"K\x05\x85R"),
}


SHARED = b")" + b"2\x86" * 60  # a tuple of 2 ** 60 parts, all of them one
CRAFTED |= {  # time: the text of such tuples
    "call of a tuple": opcodes(SHARED, b")R"),
    "new tuple": opcodes(SHARED, b")\x81"),
    "state of a tuple": opcodes(SHARED, b"}b"),
    "storage that is a tuple": opcodes(SHARED, b"Q"),
    "key of a storage": opcodes(
        b"(X\x07\x00\x00\x00storage", global_("torch", "FloatStorage"), SHARED, b"X\x03\x00\x00\x00cpuK\x01tQ"
    ),
    "content": opcodes(b"}X\x01\x00\x00\x00a", SHARED, b"s"),
    "depth": opcodes(b"}X\x01\x00\x00\x00a", b"]" * 300 + b"a" * 299, b"s"),
}


def zip_of(data: bytes, path: Path) -> None:
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("archive/data.pkl", data)
        file.writestr("archive/version", "3\n")


@pytest.mark.parametrize("name", CRAFTED)
def test_crafted_pickles_are_refused(tmp_path, name):
    zip_of(CRAFTED[name], tmp_path / "evil.pth")
    with pytest.raises(UserError, match=r"evil.pth (is refused|cannot be read|contains)"):
        read_checkpoint(tmp_path / "evil.pth")
    assert not hasattr(np.ndarray, "dump_patches")
    from terrazzo.models.safe_pickle import Skipped

    assert not hasattr(Skipped, "dump_patches") and not hasattr(torch._utils._rebuild_tensor_v2, "a")


STORAGE = "cell"  # how a tensor's storage is named in a pickle: kind, type, key, place, length


def tensor_pickle(length: int, shape: tuple[int, ...], stride: tuple[int, ...]) -> bytes:
    """A pickle of one tensor on storage 0, as torch.save writes it."""

    class Writer(pickle.Pickler):
        def persistent_id(self, item):
            return ("storage", torch.FloatStorage, "0", "cpu", length) if item == STORAGE else None

    rebuild = Call(torch._utils._rebuild_tensor_v2, STORAGE, 0, shape, stride, False, OrderedDict())
    buffer = io.BytesIO()
    Writer(buffer, protocol=2).dump({"a": rebuild})
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("length", "shape", "stride"),
    [
        (2**20, (2**20,), (1,)),  # more than the file has: torch would read what lies behind it in memory
        (-1, (2,), (1,)),
        (4, (2**40,), (0,)),  # one number, repeated
    ],
)
def test_tensors_are_not_larger_than_the_file(tmp_path, length, shape, stride):
    with zipfile.ZipFile(tmp_path / "evil.pth", "w") as file:
        file.writestr("archive/data.pkl", tensor_pickle(length, shape, stride))
        file.writestr("archive/byteorder", "little")
        file.writestr("archive/data/0", bytes(16))
        file.writestr("archive/version", "3\n")
    with pytest.raises(UserError, match=r"evil.pth is refused.*bytes, which are not in the file"):
        read_checkpoint(tmp_path / "evil.pth")


def test_the_tensor_of_the_test_above_is_read_where_it_fits(tmp_path):
    with zipfile.ZipFile(tmp_path / "x.pth", "w") as file:
        file.writestr("archive/data.pkl", tensor_pickle(4, (2, 3), (2, 0)))
        file.writestr("archive/byteorder", "little")
        file.writestr("archive/data/0", np.arange(4, dtype=np.float32).tobytes())
        file.writestr("archive/version", "3\n")
    assert read_checkpoint(tmp_path / "x.pth").weights["a"].tolist() == [[0, 0, 0], [2, 2, 2]]


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize("kind", ["packed", "twice"])
def test_zip_files_that_hold_more_than_they_are_long(tmp_path, kind):
    torch.save(WEIGHTS, tmp_path / "x.pth")
    with zipfile.ZipFile(tmp_path / "x.pth", "a", zipfile.ZIP_DEFLATED) as file:
        file.writestr("x/data/9" if kind == "packed" else "x/data.pkl", bytes(10_000_000 if kind == "packed" else 1))
    with pytest.raises(UserError, match=r"x.pth is refused.*compressed or overlap"):
        read_checkpoint(tmp_path / "x.pth")


class Program(nn.Module):
    """A module whose program would leave a mark, were it run."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3))
        self.turned = nn.Parameter(torch.arange(4.0).half().view(2, 2).t())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.inner(x)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_the_weights_of_torchscript_are_read_without_its_program(tmp_path, monkeypatch):
    """OpenAI publishes CLIP so; torch.load would hand it to torch.jit.load, which runs the program's own code."""
    program = Program().eval()
    torch.jit.save(torch.jit.trace(program, torch.ones(1, 2)), tmp_path / "x.pt")
    monkeypatch.setattr(torch.jit, "load", lambda *_, **__: pytest.fail("the program was loaded"))
    weights = read_checkpoint(tmp_path / "x.pt").weights
    expected = program.state_dict()
    assert set(weights) == set(expected)
    assert all(torch.equal(value, expected[name]) for name, value in weights.items())
    data = (tmp_path / "x.pt").read_bytes()
    (tmp_path / "x.pt").write_bytes(data[: len(data) // 2])
    with pytest.raises(UserError, match="damaged"):
        read_checkpoint(tmp_path / "x.pt")


@pytest.mark.parametrize("name", CRAFTED)
def test_crafted_programs_are_refused(tmp_path, name):
    with zipfile.ZipFile(tmp_path / "evil.pt", "w") as file:
        file.writestr("archive/data.pkl", CRAFTED[name])
        file.writestr("archive/constants.pkl", b"\x80\x02).")
        file.writestr("archive/version", "3\n")
    with pytest.raises(UserError, match=r"evil.pt (is refused|cannot be read|contains)"):
        read_checkpoint(tmp_path / "evil.pt")


def test_a_program_of_parts_within_each_other_is_refused(tmp_path):
    """Each part has the next one twice: two to the power of sixty ways lead to the last."""
    part = global_("__torch__", "Part") + b")\x81"
    nested = part + b"q\x00"
    for index in range(1, 60):
        memo = bytes([index - 1])
        nested += (
            b"0" + part + b"}(X\x01\x00\x00\x00ah" + memo + b"X\x01\x00\x00\x00bh" + memo + b"ubq" + bytes([index])
        )
    with zipfile.ZipFile(tmp_path / "evil.pt", "w") as file:
        file.writestr("archive/data.pkl", opcodes(nested))
        file.writestr("archive/constants.pkl", b"\x80\x02).")
        file.writestr("archive/version", "3\n")
    with pytest.raises(UserError, match="more than 100000 modules"):
        read_checkpoint(tmp_path / "evil.pt")


def test_tar_files_are_not_unpacked(tmp_path):
    with tarfile.open(tmp_path / "x.pth", "w") as file:
        info = tarfile.TarInfo("storages")
        info.type, info.linkname = tarfile.SYMTYPE, "/etc/passwd"
        file.addfile(info, io.BytesIO())
    with pytest.raises(UserError, match="tar archive"):
        read_checkpoint(tmp_path / "x.pth")


# Files that are broken


@pytest.mark.parametrize("kind", ["zip", "legacy", "safetensors"])
@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.99])
def test_truncated_files(tmp_path, kind, share):
    path = tmp_path / ("x.safetensors" if kind == "safetensors" else "x.pth")
    if kind == "safetensors":
        save_file(WEIGHTS, str(path))
    else:
        torch.save(WEIGHTS, path, _use_new_zipfile_serialization=kind == "zip")
    data = path.read_bytes()
    path.write_bytes(data[: int(share * len(data))])
    with pytest.raises(UserError, match=rf"{path}.*(damaged|refused)"):
        read_checkpoint(path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"<html>404</html>", "damaged"),
        (b"\x89PNG\r\n\x1a\n", "damaged"),
        (pickle.dumps({"a": 1}), "damaged"),
    ],
)
def test_files_that_are_no_checkpoints(tmp_path, content, message):
    (tmp_path / "x.pth").write_bytes(content)
    with pytest.raises(UserError, match=rf"x.pth.*({message}|refused)"):
        read_checkpoint(tmp_path / "x.pth")


@pytest.mark.parametrize(("content", "message"), [([1, 2], "list"), ({"epoch": 3, "lr": 0.1}, "epoch, lr")])
def test_files_without_weights(tmp_path, content, message):
    torch.save(content, tmp_path / "x.pth")
    with pytest.raises(UserError, match=message):
        read_checkpoint(tmp_path / "x.pth")


@pytest.mark.parametrize("name", ["missing.pth", "missing.safetensors", ""])
def test_missing_files(tmp_path, name):
    with pytest.raises(UserError, match="no checkpoint file" if name else "has no weights of a run"):
        read_checkpoint(tmp_path / name)


# Loading


def test_a_report_says_what_became_of_every_tensor(tmp_path):
    model = tz.build_model(model_config())
    other = model.state_dict()
    del other["backbone.encoder.0.0.convs.0.conv.weight"]
    other["decode_head.conv_seg.weight"] = torch.ones(7, 8, 1, 1)
    other["extra.weight"] = torch.ones(1)
    torch.save(other, tmp_path / "x.pth")
    report = load_checkpoint(model, tmp_path / "x.pth")
    assert report.missing == ["backbone.encoder.0.0.convs.0.conv.weight"]
    assert report.unexpected == ["extra.weight"]
    assert report.reinitialised == ["decode_head.conv_seg.weight"]
    assert len(report.loaded) == len(model.state_dict()) - 2
    text = str(report)
    assert f"loaded {len(report.loaded)} of {len(model.state_dict())} tensors" in text
    for name in (*report.missing, *report.unexpected, *report.reinitialised):
        assert name in text


def test_nothing_that_fits_is_an_error(tmp_path):
    torch.save(nn.Linear(3, 3).state_dict(), tmp_path / "x.pth")
    with pytest.raises(UserError, match=r"another one: loaded 0 of \d+ tensors.*2 unexpected.*weight, bias"):
        load_checkpoint(tz.build_model(model_config()), tmp_path / "x.pth")


@pytest.mark.parametrize(
    ("name", "needed"),
    [
        ("decode_head.conv_seg.bias", True),
        ("decode_head.convs.0.bn.running_var", True),
        ("decode_head.convs.0.bn.num_batches_tracked", False),
        ("auxiliary_head.conv_seg.weight", False),
    ],
)
def test_what_inference_needs_is_asked_for(tmp_path, name, needed):
    config = model_config()
    config["auxiliary_head"] = config["decode_head"] | {"in_index": 0, "in_channels": 8}
    model = tz.build_model(config)
    torch.save({key: value for key, value in model.state_dict().items() if key != name}, tmp_path / "x.pth")
    if needed:
        with pytest.raises(UserError, match=name):
            load_checkpoint(model, tmp_path / "x.pth", strict=True)
    else:
        assert load_checkpoint(model, tmp_path / "x.pth", strict=True).missing == [name]


@pytest.mark.parametrize("kind", ["fifo", "hard link"])
def test_old_tar_archives_are_refused_unopened(tmp_path, kind):
    """Those of before 1988 lack the mark of later ones; torch.load would wait for their pipes for ever."""
    member = tarfile.TarInfo("storages")
    member.type = tarfile.FIFOTYPE if kind == "fifo" else tarfile.LNKTYPE
    head = bytearray(member.tobuf(tarfile.USTAR_FORMAT))
    head[257:265] = bytes(8)
    head[148:156] = b"%06o\0 " % tarfile.calc_chksums(bytes(head))[0]
    (tmp_path / "old.pth").write_bytes(bytes(head) + bytes(1024))
    with pytest.raises(UserError, match=r"old.pth is refused.*tar archive"):
        read_checkpoint(tmp_path / "old.pth")


def test_a_program_that_contains_itself_is_refused():
    from terrazzo.models import safe_pickle

    module = safe_pickle.ProgramModule()
    module.__setstate__({"inner": module})
    with pytest.raises(pickle.UnpicklingError, match="more than 100 levels"):
        safe_pickle.weights_of_modules(module)


@pytest.mark.parametrize(
    ("meta", "classes", "palette"),
    [
        ({"classes": 3, "palette": 7}, [], []),
        ({"classes": ["sky", "\ud800"], "palette": [[1, 2, 3], [4, 5, 256]]}, ["sky", "?"], []),
        ({"classes": ("a",), "palette": [(1, 2, 3)], "best_score": 10**400}, ["a"], [[1, 2, 3]]),
        ({"config": 5, "cfg": {"model": torch.ones(1)}, "epoch": [[]] * 3}, [], []),
        ({"config": "x = 1", "metrics": "good"}, [], []),
        ({"classes": torch.ones(3), "palette": torch.ones(3, 3), "PALETTE": [(1, 2, 3)]}, [], [[1, 2, 3]]),
    ],
)
def test_metadata_of_other_types_is_left_aside(tmp_path, capsys, meta, classes, palette):
    torch.save({"state_dict": WEIGHTS, "meta": meta}, tmp_path / "x.pth")
    checkpoint = read_checkpoint(tmp_path / "x.pth")
    assert legend_of(checkpoint) == (classes, palette)
    assert main(["checkpoint", "inspect", str(tmp_path / "x.pth")]) == 0
    assert "config      none" in capsys.readouterr().out


@pytest.mark.parametrize("text", ["[" * 100_000, "1" * 10_000, "9" * 400, "[" * 300 + "]" * 300])
def test_metadata_of_safetensors_beyond_reason(tmp_path, text):
    save_file({"a": torch.ones(1)}, tmp_path / "x.safetensors", {"best_score": text})
    try:
        assert read_checkpoint(tmp_path / "x.safetensors").meta["best_score"] in (text, None)
    except UserError as problem:
        assert "levels" in str(problem)


def test_names_of_parallel_models_in_safetensors(tmp_path):
    save_file({f"module.{name}": value for name, value in WEIGHTS.items()}, tmp_path / "x.safetensors")
    assert {*read_checkpoint(tmp_path / "x.safetensors").weights} == {*WEIGHTS}


@pytest.mark.parametrize("checksums", [True, False])
def test_a_changed_bit_of_the_weights_is_found(tmp_path, checksums):
    path = tmp_path / "a.pth"
    torch.serialization.set_crc32_options(checksums)
    try:
        torch.save({"weight": torch.arange(1000.0)}, path)
    finally:
        torch.serialization.set_crc32_options(True)
    assert len(read_checkpoint(path).weights["weight"]) == 1000
    data = bytearray(path.read_bytes())
    data[data.index(torch.arange(500.0, 600.0).numpy().tobytes())] ^= 1
    path.write_bytes(data)
    if checksums:
        with pytest.raises(UserError, match=r"a.pth cannot be read as a checkpoint: it is damaged .*Bad CRC-32"):
            read_checkpoint(path)
    else:
        read_checkpoint(path)  # nothing to compare it with


@pytest.mark.parametrize(
    "value", [torch.ones(3), b"x", 1 + 2j, torch.float32, {1, 2}], ids=lambda value: type(value).__name__
)
def test_objects_in_a_record_are_texts(tmp_path, value):
    config = {"model": {"type": value}, "epochs": torch.tensor(3), (1, 2): 4}
    torch.save({"state_dict": {"a": torch.ones(2)}, "meta": {"config": config}}, tmp_path / "x.pth")
    found = read_checkpoint(tmp_path / "x.pth").meta["config"]
    assert found["model"]["type"].startswith("an object of type ") and found["epochs"] == 3
    json.dumps(found)
