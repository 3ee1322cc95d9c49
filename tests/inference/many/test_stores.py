"""Images and results on object stores: a store in memory, and one that speaks S3."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from support.scenes import save_model
from support.tiny import save_image, street
from terrazzo.cli.main import main
from terrazzo.errors import UserError
from terrazzo.system.remote import fetch, is_remote_path, put, remote_files

fsspec = pytest.importorskip("fsspec")


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    return save_model(tmp_path_factory.mktemp("model") / "m.safetensors", bands=3, spread=(120.0, 60.0))


@pytest.fixture
def store():
    """The addresses of a bucket in memory, which is empty again at the end."""
    yield "memory://bucket"
    fsspec.filesystem("memory").rm("/bucket", recursive=True)


def fill(address: str, folder: Path, names: tuple[str, ...] = ("a.png", "city/b.png", "notes.txt")) -> None:
    for index, name in enumerate(names):
        put(
            save_image(folder / name, street(index)[0]) if name.endswith("png") else note(folder / name),
            f"{address}/{name}",
        )


def note(path: Path) -> Path:
    path.write_text("no image")
    return path


def predicted(model: Path, source: str, out: object, *options: object) -> int:
    return main(["predict", source, "--model", str(model), "--out", str(out), *map(str, options)])


def test_files_are_listed_fetched_and_put(store, tmp_path):
    fill(store, tmp_path / "local")
    assert [file.name for file in remote_files(store)] == ["a.png", "city/b.png", "notes.txt"]
    (file,) = remote_files(f"{store}/city/*.png")
    assert (file.name, file.address) == ("b.png", f"{store.replace('://', ':///')}/city/b.png")
    assert fetch(file.address, tmp_path / "b.png").read_bytes() == (tmp_path / "local" / "city" / "b.png").read_bytes()
    with pytest.raises(UserError, match="there is no file or folder memory://bucket/none"):
        remote_files(f"{store}/none")
    assert (
        is_remote_path("hf://datasets/a/b") and not is_remote_path("https://host/x.tif") and not is_remote_path("a/b")
    )


def test_images_on_a_store_are_predicted_into_another(model, store, tmp_path, capsys):
    fill(f"{store}/in", tmp_path / "local", ("a.png", "city/b.png"))
    assert predicted(model, str(tmp_path / "local"), tmp_path / "out") == 0
    command = (model, f"{store}/in", f"{store}/out", "--resume")
    assert predicted(*command) == 0
    for name in ("a.png", "a_overlay.png", "city/b.png"):
        assert fetch(f"{store}/out/{name}", tmp_path / "x").read_bytes() == (tmp_path / "out" / name).read_bytes()
    assert predicted(*command) == 0 and "2 of 2 segmented (2 before)" in capsys.readouterr().out
    put(note(tmp_path / "bad"), f"{store}/in/bad.png")
    assert predicted(*command) == 1 and "cannot decode memory:///bucket/in/bad.png" in capsys.readouterr().err


def test_a_store_that_is_not_installed_is_named(model, tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "gcsfs", None)
    assert predicted(model, "gs://bucket/a.png", tmp_path) == 1
    assert 'pip install "terrazzo[remote]"' in capsys.readouterr().err


@pytest.mark.slow
def test_a_server_that_speaks_s3(model, tmp_path, monkeypatch, capsys):
    pytest.importorskip("s3fs", reason="needs the extra `remote`")
    pytest.importorskip("moto", reason="needs moto[server]")
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = found.getsockname()[1]
    pipes = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    server = subprocess.Popen([sys.executable, "-m", "moto.server", "-p", str(port)], env=dict(os.environ), **pipes)
    try:
        for name, value in (("KEY_ID", "test"), ("KEY", "test")):
            monkeypatch.setenv({"KEY_ID": "AWS_ACCESS_KEY_ID", "KEY": "AWS_SECRET_ACCESS_KEY"}[name], value)
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{port}")
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            time.sleep(0.2)
        fsspec.filesystem("s3").mkdir("bucket")
        fill("s3://bucket/in", tmp_path / "local", ("a.png", "city/b.png"))
        assert predicted(model, str(tmp_path / "local"), tmp_path / "out") == 0
        assert predicted(model, "s3://bucket/in", "s3://bucket/out") == 0
        found = fetch("s3://bucket/out/city/b.png", tmp_path / "x")
        assert found.read_bytes() == (tmp_path / "out" / "city" / "b.png").read_bytes()
        assert predicted(model, "s3://bucket/in", "s3://bucket/out", "--resume") == 0
        assert "2 of 2 segmented (2 before)" in capsys.readouterr().out
        assert predicted(model, "s3://nowhere/in", tmp_path / "other") == 1
        assert "s3://nowhere/in" in capsys.readouterr().err
    finally:
        server.terminate()
        server.wait()
