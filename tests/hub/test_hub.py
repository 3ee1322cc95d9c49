"""Published weights: where names lead, what the caches have, and fetching from a server on this computer."""

from __future__ import annotations

import copy
import hashlib
import http.server
import os
import re
import threading
from pathlib import Path
from typing import Any

import pytest
import torch

import terrazzo as tz
from support.tiny import fit, make_streets, model_config, short_form, terrazzo, tiny_config
from terrazzo.cli.weights import published_weights
from terrazzo.errors import UserError
from terrazzo.hub import cache as weight_cache
from terrazzo.hub import download
from terrazzo.hub.cache import find_cached
from terrazzo.hub.names import MMLAB, MMPRETRAIN, PACKAGES, TORCHVISION, addresses, digits, file_name
from terrazzo.models.checkpoint import read_checkpoint
from terrazzo.registry import MODELS
from terrazzo.training.pretrained import load_pretrained, starts

VARIABLES = (
    "npm_config_registry",
    "NPM_CONFIG_REGISTRY",
    "TERRAZZO_MIRRORS",
    "TERRAZZO_OFFLINE",
    "HF_HUB_OFFLINE",
    "HF_ENDPOINT",
    "HF_HUB_CACHE",
    "HF_HOME",
)


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch) -> Path:
    """Caches of this test's own."""
    for variable in VARIABLES:
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("TERRAZZO_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    monkeypatch.setenv("NPM_CONFIG_USERCONFIG", str(tmp_path / "npmrc"))
    monkeypatch.setattr(download, "TIMEOUT", 5)
    return tmp_path / "home" / "weights"


class Host:
    """A server whose files are a dict, and what was asked of it."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.asked: list[tuple[str, str | None]] = []
        self.ranges = True  # whether it can send a part
        self.breaks_after: int | None = None  # bytes, once
        self.kind = "application/octet-stream"
        host = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                host.answer(self)

            def log_message(self, *_: Any) -> None: ...

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"
        threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()

    def answer(self, request: http.server.BaseHTTPRequestHandler) -> None:
        wanted = request.headers.get("Range")
        self.asked.append((request.path, wanted))
        if request.path not in self.files:
            request.send_error(404)
            return
        content, start = self.files[request.path], 0
        if wanted and self.ranges:
            start = int(re.fullmatch(r"bytes=(\d+)-", wanted)[1])
            if start >= len(content):
                request.send_response(416)
                request.send_header("Content-Range", f"bytes */{len(content)}")
                request.end_headers()
                return
        request.send_response(206 if start else 200)
        request.send_header("Content-Type", self.kind)
        request.send_header("Content-Length", str(len(content) - start))
        request.end_headers()
        end, self.breaks_after = self.breaks_after, None
        request.wfile.write(content[start:end])


@pytest.fixture
def host():
    made = Host()
    yield made
    made.server.shutdown()
    made.server.server_close()


CONTENT = bytes(range(256)) * 4000  # a megabyte


def named(content: bytes, stem: str = "model") -> str:
    return f"{stem}-{hashlib.sha256(content).hexdigest()[:8]}.pth"


# Names


@pytest.mark.parametrize(
    ("name", "address"),
    [
        ("torchvision://resnet50", "https://download.pytorch.org/models/resnet50-0676ba61.pth"),
        ("open-mmlab://resnet50_v1c",
            "https://download.openmmlab.com/pretrain/third_party/resnet50_v1c-2cccc1ad.pth"),
        ("open-mmlab://msra/hrnetv2_w18",
            "https://download.openmmlab.com/pretrain/third_party/hrnetv2_w18-00eb2006.pth"),
        ("mmcls://mobilenet_v2", "https://download.openmmlab.com/mmclassification/v0/mobilenet_v2/"
            "mobilenet_v2_batch256_imagenet_20200708-3b2dc3af.pth"),
        ("timm://resnet50.a1_in1k", "https://huggingface.co/timm/resnet50.a1_in1k/resolve/main/model.safetensors"),
        ("hf://nvidia/mit-b0", "https://huggingface.co/nvidia/mit-b0/resolve/main/model.safetensors"),
        ("hf://nvidia/mit-b0/a/tf.bin", "https://huggingface.co/nvidia/mit-b0/resolve/main/a/tf.bin"),
        ("https://example.org/a.pth", "https://example.org/a.pth"),
        ("npm://onnxruntime-web", "https://registry.npmjs.org/onnxruntime-web/-/onnxruntime-web-1.30.0.tgz#sha256="
            "d2228df7e4616bc3348bf504ee888f3bec43789a273f0a63f3e68d203ce3bf71"),
    ],
)  # fmt: skip
def test_names_lead_to_addresses(name, address):
    assert addresses(name)[0] == address


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("torchvision://resnet51", "'torchvision://resnet51'; did you mean 'resnet50'"),
        ("s3://bucket/x.pth", "not an address of weights: those begin with one of http://, https://"),
        ("hf://nvidia", "hf://organisation/repository"),
        ("npm://onnxruntime", "'npm://onnxruntime'; did you mean 'onnxruntime-web'"),
        ("timm://resnet50", r"timm://resnet50.a1_in1k; the default ones need timm .*pip install \"terrazzo\[timm\]\""),
    ],
)
def test_names_that_lead_nowhere(name, message):
    with pytest.raises(UserError, match=message):
        addresses(name)


def test_every_scheme_in_the_recipes_is_known():
    names = {start.checkpoint for recipe in tz.recipes.names() for start in starts(tz.recipes.recipe(recipe)["model"])}
    assert len(names) > 60
    assert all(addresses(name) for name in names if "://" in name)
    assert all(digits(f"{file}.pth") for table in (TORCHVISION, MMLAB, MMPRETRAIN) for file in table.values())


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("pspnet_r50-d8_512x1024_40k_cityscapes_20200605_003338-2966598c.pth", "2966598c"),
        ("resnet50-0676ba61.pth", "0676ba61"),
        ("model-0123456789abcdef.safetensors", "0123456789abcdef"),
        ("model_20200605.pth", None),
        ("model.pth", None),
    ],
)
def test_digits_of_a_name(name, found):
    assert digits(name) == found


def test_files_of_hugging_face_keep_their_repository():
    assert file_name("https://huggingface.co/a/b/resolve/main/model.safetensors") == "a_b_model.safetensors"
    assert file_name("https://example.org/x/y.pth?download=1") == "y.pth"


# Caches


@pytest.mark.parametrize(
    ("name", "place"),
    [
        ("https://example.org/x.pth", "home/weights/x.pth"),
        ("torchvision://resnet18", "home/weights/resnet18-f37072fd.pth"),
        ("torchvision://resnet18", "torch/hub/checkpoints/resnet18-f37072fd.pth"),
        ("timm://tiny", "home/weights/timm_tiny.safetensors"),
        ("hf://a/b/w.bin", "home/weights/a_b_w.bin"),
        ("pretrain/vit_base_p16_384.pth", "home/weights/vit_base_p16_384.pth"),
    ],
)
def test_places_where_weights_are_found(tmp_path, monkeypatch, name, place):
    path = tmp_path / place
    path.parent.mkdir(parents=True)
    path.write_bytes(CONTENT)
    if digits(path.name):
        monkeypatch.setattr(weight_cache, "sha256", lambda path: digits(path.name) + "0" * 56)
    assert weight_cache.find_cached(name) == path


def test_the_cache_of_hugging_face(tmp_path):
    folder = tmp_path / "xdg/huggingface/hub/models--a--b"
    (folder / "refs").mkdir(parents=True)
    (folder / "refs/main").write_text("abc")
    (folder / "snapshots/abc").mkdir(parents=True)
    (folder / "snapshots/abc/model.safetensors").write_bytes(b"x")
    assert weight_cache.find_cached("hf://a/b") == folder / "snapshots/abc/model.safetensors"


def test_a_cached_file_is_checked_once(cache, monkeypatch):
    cache.mkdir(parents=True)
    path = cache / named(CONTENT)
    path.write_bytes(CONTENT)
    assert weight_cache.find_cached(f"https://x.org/{path.name}") == path
    monkeypatch.setattr(weight_cache, "sha256", lambda path: pytest.fail("read again"))
    assert weight_cache.find_cached(f"https://x.org/{path.name}") == path


def test_a_damaged_cached_file_is_refused(cache):
    cache.mkdir(parents=True)
    path = cache / named(CONTENT)
    path.write_bytes(CONTENT)
    weight_cache.find_cached(f"https://x.org/{path.name}")
    path.write_bytes(CONTENT[:-1])  # after it was found right
    with pytest.raises(UserError, match=rf"{path} is damaged or a different file.*delete it"):
        weight_cache.find_cached(f"https://x.org/{path.name}")


def test_nothing_is_downloaded_unasked(host, cache):
    host.files["/x.pth"] = CONTENT
    with pytest.raises(UserError, match=r"nothing is downloaded automatically: `terrazzo weights get http"):
        read_checkpoint(f"{host.url}/x.pth")
    assert not host.asked


def test_a_checkpoint_is_read_by_its_address(cache):
    cache.mkdir(parents=True)
    torch.save({"a": torch.ones(2)}, cache / "x.pth")
    assert read_checkpoint("https://example.org/some/where/x.pth").path == cache / "x.pth"


# Fetching


def published(host: Host, monkeypatch, content: bytes = CONTENT) -> tuple[str, str]:
    """The address of a file on a host that stands for OpenMMLab's, and the file's name."""
    name = named(content)
    monkeypatch.setattr(download, "OPEN_MMLAB", f"{host.url}/gone/")
    return f"{host.url}/gone/v0.5/pspnet/{name}", name


def test_an_address_is_fetched_into_the_cache(host, cache):
    name = named(CONTENT)
    host.files[f"/{name}"] = CONTENT
    seen = []
    path = download.get_weights(
        f"{host.url}/{name}", on_progress=lambda address, done, total: seen.append((done, total))
    )
    assert path == cache / name and path.read_bytes() == CONTENT
    assert seen[-1] == (len(CONTENT), len(CONTENT)) and len(seen) > 1
    assert sorted(item.name for item in cache.iterdir()) == ["checked.json", name]
    assert download.get_weights(f"{host.url}/{name}") == path and len(host.asked) == 1


def test_mirrors_have_the_published_path_or_the_file_alone(host, cache, monkeypatch):
    address, name = published(host, monkeypatch)
    host.files[f"/deep/gone/v0.5/pspnet/{name}"] = CONTENT
    assert download.get_weights(address, mirrors=[f"{host.url}/deep"]).read_bytes() == CONTENT
    (cache / name).unlink()
    host.files = {f"/flat/{name}": CONTENT}
    assert download.get_weights(address, mirrors=[f"{host.url}/flat/"]).read_bytes() == CONTENT
    (cache / name).unlink()
    host.files = {f"/q/gone/v0.5/pspnet/{name}": CONTENT}
    assert download.get_weights(address, mirrors=[f"{host.url}/q/{{path}}"]).read_bytes() == CONTENT


def test_a_folder_is_a_mirror(tmp_path, host, cache, monkeypatch):
    address, name = published(host, monkeypatch)
    (tmp_path / "my mirror").mkdir()
    (tmp_path / "my mirror" / name).write_bytes(CONTENT)
    assert download.get_weights(address, mirrors=[str(tmp_path / "my mirror")]).read_bytes() == CONTENT
    assert not host.asked


def test_mirrors_from_the_environment_and_the_file(host, cache, monkeypatch):
    address, name = published(host, monkeypatch)
    host.files[f"/c/{name}"] = CONTENT
    monkeypatch.setenv("TERRAZZO_MIRRORS", f"{host.url}/a, {host.url}/b")
    cache.parent.mkdir()
    (cache.parent / "mirrors.txt").write_text(f"# ours\n{host.url}/c  # the last one\n")
    download.get_weights(address, mirrors=[f"{host.url}/given"])
    order = [path.split("/")[1] for path, _ in host.asked]
    assert list(dict.fromkeys(order)) == ["given", "a", "b", "c"]


def test_a_broken_connection_is_continued(host, cache):
    name = named(CONTENT)
    host.files[f"/{name}"] = CONTENT
    host.breaks_after = 300_000
    with pytest.raises(UserError, match=r"connection broke after \d+ of 1024000 bytes|IncompleteRead"):
        download.get_weights(f"{host.url}/{name}")
    part = cache / f"{name}.part"
    assert 0 < part.stat().st_size <= 300_000
    begun = part.stat().st_size
    assert download.get_weights(f"{host.url}/{name}").read_bytes() == CONTENT
    assert host.asked[-1] == (f"/{name}", f"bytes={begun}-") and not part.exists()


@pytest.mark.parametrize("ranges", [True, False])
@pytest.mark.parametrize("begun", [CONTENT[:1000], CONTENT, CONTENT + b"more", b"wrong"], ids=len)
def test_parts_of_earlier_tries(host, cache, ranges, begun):
    name = named(CONTENT)
    host.files[f"/{name}"], host.ranges = CONTENT, ranges
    cache.mkdir(parents=True)
    (cache / f"{name}.part").write_bytes(begun)
    if begun == b"wrong" and ranges:
        with pytest.raises(UserError, match="its sha256 begins with"):
            download.get_weights(f"{host.url}/{name}")
    assert download.get_weights(f"{host.url}/{name}").read_bytes() == CONTENT


def test_another_file_is_refused_and_the_next_mirror_tried(host, cache, monkeypatch):
    address, name = published(host, monkeypatch)
    host.files = {f"/bad/{name}": CONTENT[:-1] + b"!", f"/good/{name}": CONTENT}
    assert download.get_weights(address, mirrors=[f"{host.url}/bad", f"{host.url}/good"]).read_bytes() == CONTENT
    (cache / name).unlink()
    with pytest.raises(UserError, match=rf"bad/{name}: its sha256 begins with \w+, not with \w+"):
        download.get_weights(address, mirrors=[f"{host.url}/bad"])
    assert not list(cache.glob("model*"))


def test_a_web_page_is_no_file(host, cache):
    host.files["/x.pth"], host.kind = b"<html>sign in</html>", "text/html; charset=utf-8"
    with pytest.raises(UserError, match="this is a web page"):
        download.get_weights(f"{host.url}/x.pth")
    assert not list(cache.glob("x*"))


def test_what_is_nowhere_says_where_it_was_looked_for(host, cache, monkeypatch):
    address, name = published(host, monkeypatch)
    with pytest.raises(UserError) as problem:
        download.get_weights(address, mirrors=[f"{host.url}/a", "ftp://b"])
    text = str(problem.value)
    assert f"{host.url}/a/{name}: HTTP 404" in text and f"{address}: HTTP 404" in text
    assert "ftp://b" in text and "not an http, https or file address" in text
    assert "--mirror URL" in text and str(cache) in text


def test_no_connection(cache):
    with pytest.raises(UserError, match=r"127.0.0.1:9/x.pth: .*refused"):
        download.get_weights("http://127.0.0.1:9/x.pth")


@pytest.mark.parametrize("how", ["argument", "TERRAZZO_OFFLINE", "HF_HUB_OFFLINE"])
def test_offline(host, cache, monkeypatch, how):
    host.files["/x.pth"] = CONTENT
    if how != "argument":
        monkeypatch.setenv(how, "1")
    with pytest.raises(UserError, match="--offline forbids" if how == "argument" else f"{how} forbids"):
        download.get_weights(f"{host.url}/x.pth", offline=how == "argument")
    assert not host.asked
    cache.mkdir(parents=True)
    (cache / "x.pth").write_bytes(CONTENT)
    assert download.get_weights(f"{host.url}/x.pth", offline=True) == cache / "x.pth"


@pytest.mark.parametrize("way", ["variable", "file", "mirror"])
def test_packages_come_from_the_registry_of_npm(way, host, cache, monkeypatch):
    name = "onnxruntime-web/-/onnxruntime-web-1.30.0.tgz"
    monkeypatch.setitem(PACKAGES, "onnxruntime-web", f"{name}#sha256={hashlib.sha256(CONTENT).hexdigest()}")
    host.files[f"/npm/{name}"] = CONTENT
    if way == "variable":
        monkeypatch.setenv("npm_config_registry", f"{host.url}/npm")
    elif way == "file":
        Path(os.environ["NPM_CONFIG_USERCONFIG"]).write_text(f"audit=false\nregistry = {host.url}/npm/\n")
    mirrors = [f"{host.url}/npm"] if way == "mirror" else []
    path = download.get_weights("npm://onnxruntime-web", mirrors=mirrors)
    assert path.read_bytes() == CONTENT and path.parent == cache
    assert weight_cache.cached("onnxruntime-web") == path
    path.write_bytes(CONTENT[1:])
    with pytest.raises(UserError, match="damaged or a different file"):
        weight_cache.cached("onnxruntime-web")


def test_hugging_face_from_another_host(host, cache, monkeypatch):
    monkeypatch.setenv("HF_ENDPOINT", host.url)
    host.files["/a/b/resolve/main/pytorch_model.bin"] = CONTENT
    assert download.get_weights("hf://a/b") == cache / "a_b_pytorch_model.bin"
    host.files["/timm/tiny.in1k/resolve/main/model.safetensors"] = CONTENT
    assert download.get_weights("timm://tiny.in1k") == cache / "timm_tiny.in1k_model.safetensors"


def test_a_recipes_weights_by_its_name(tmp_path, host, cache, monkeypatch):
    recipe = "pspnet_r50-d8_4xb2-40k_cityscapes-512x1024"
    path = tz.recipes.info(recipe).weights.removeprefix("https://download.openmmlab.com/")
    host.files[f"/{path}"] = CONTENT
    with pytest.raises(UserError, match="its sha256 begins with"):  # the right place, and not the real file
        download.get_weights(*published_weights(recipe), mirrors=[host.url])
    assert host.asked[0][0] == f"/{path}"
    with pytest.raises(UserError, match="no weights and no recipe are called 'nonsense'"):
        published_weights("nonsense")


def test_the_command(tmp_path, host, cache):
    name = named(CONTENT)
    host.files[f"/{name}"] = CONTENT
    result = terrazzo("weights", "get", f"{host.url}/{name}")
    assert (result.returncode, result.stdout.strip()) == (0, str(cache / name)), result.stderr
    (cache / "other.pth").write_bytes(b"1")
    (cache / "begun-01234567.pth.part").write_bytes(b"1")
    listed = terrazzo("weights", "list").stdout
    assert re.search(rf"1.0 MiB  sha256 verified +{name}", listed)
    assert re.search(r"not verified +other.pth", listed) and re.search(r"incomplete +begun", listed)
    assert f"3 files in {cache}" in listed
    failed = terrazzo("weights", "get", f"{host.url}/none.pth")
    assert failed.returncode == 1 and failed.stderr.startswith("error: ") and "Traceback" not in failed.stderr


def test_the_backbones_of_a_recipe(cache):
    result = terrazzo("weights", "get", "pspnet_r50-d8_4xb2-40k_cityscapes-512x1024", "--backbone", "--offline")
    assert result.returncode == 1 and "open-mmlab://resnet50_v1c' is not in the cache" in result.stderr


# Starting to train


def test_weights_of_inner_parts(tmp_path):
    """A backbone within a backbone, and one part by a prefix of its names."""
    inner = MODELS.build({"type": "ResNet", "depth": 18})
    torch.save({f"backbone.{name}": value for name, value in inner.state_dict().items()}, tmp_path / "r18.pth")
    source = tz.build_model(model_config())
    torch.save(source.state_dict(), tmp_path / "whole.pth")
    recipe = tz.recipes.recipe("bisenetv1_r18-d32-in1k-pre_4xb4-160k_cityscapes-1024x1024")["model"]
    recipe["backbone"]["backbone_cfg"]["init_cfg"]["checkpoint"] = str(tmp_path / "r18.pth")
    model = tz.build_model(recipe)
    said = load_pretrained(model, None, recipe)
    assert re.match(r"backbone.backbone_cfg: loaded \d+ of \d+ tensors", said) and "missing" not in said
    found = next(module for module in model.modules() if type(module).__name__ == "ResNet")
    assert torch.equal(found.conv1.weight, inner.conv1.weight)
    config = model_config()
    config["decode_head"]["init_cfg"] = {"type": "Pretrained", "checkpoint": str(tmp_path / "whole.pth"),
        "prefix": "decode_head."}  # fmt: skip
    model = tz.build_model(config)
    assert load_pretrained(model, None, config).startswith("decode_head: loaded")
    assert torch.equal(model.decode_head.conv_seg.weight, source.decode_head.conv_seg.weight)
    assert load_pretrained(model, "none", config) == "backbone: random weights (no pretrained ones)"


def test_a_segmentor_without_a_backbone_takes_the_whole(tmp_path):
    assert [start.path for start in starts({"type": "MultimodalEncoderDecoder", "pretrained": "clip.pth"})] == [()]


def test_training_starts_from_cached_weights_of_another_release(tmp_path, cache):
    from support import foreign_weights as foreign

    streets = make_streets(tmp_path / "data")
    config = tiny_config(streets, steps=1)
    config["model"]["backbone"] = {"type": "PoolFormer", "arch": {"layers": [1] * 4, "embed_dims": [16, 32, 64, 128],
        "mlp_ratios": [4] * 4, "layer_scale_init_value": 1e-5}, "out_indices": [0, 2],
        "init_cfg": {"type": "Pretrained", "checkpoint": "timm://small"}}  # fmt: skip
    config["model"]["decode_head"] |= {"in_channels": 16, "in_index": 0}
    cache.mkdir(parents=True)
    torch.save(foreign.filled(foreign.poolformer_timm()), cache / "timm_small.pth")
    run = fit(config, tmp_path / "run")
    assert "names: timm, translated" in run.log_path.read_text()


def test_timm_models_take_timms_names(monkeypatch):
    import sys
    import types

    from torch import nn

    class Net(nn.Module):
        def __init__(self, flat: bool) -> None:
            super().__init__()
            self.stem = nn.Conv2d(3, 4, 1)
            stage = nn.Sequential(nn.Conv2d(4, 4, 1))
            self.add_module("stages_0" if flat else "stages", stage if flat else nn.Sequential(stage))

    module = types.ModuleType("timm")
    module.is_model = lambda name: True
    module.create_model = lambda name, features_only=False, **_: Net(features_only)
    monkeypatch.setitem(sys.modules, "timm", module)
    weights = Net(flat=False).state_dict()
    for features_only in (True, False):
        model = MODELS.build({"type": "TIMMBackbone", "model_name": "x", "features_only": features_only})
        report = tz.load_checkpoint(model, tz.models.checkpoint.Checkpoint("x.pth", weights))
        assert (report.missing, report.unexpected, report.source) == ([], [], "timm")
        again = tz.load_checkpoint(model, tz.models.checkpoint.Checkpoint("x.pth", model.state_dict()))
        assert (again.missing, again.source) == ([], "")
    config = {"type": "EncoderDecoder", "backbone": {"type": "TIMMBackbone", "model_name": "x", "pretrained": True}}
    assert [start.checkpoint for start in starts(config)] == ["timm://x"]


# One grammar of names


@pytest.mark.parametrize("name", ["mit_b0", "resnet50_v1c", "torchvision://resnet50", "mscan_t"])
def test_what_a_message_proposes_is_what_get_takes(cache, name):
    with pytest.raises(UserError) as missing:
        find_cached(name)
    proposed = re.search(r"`terrazzo weights get (\S+)`", str(missing.value))[1]
    (found,) = published_weights(proposed)
    target = cache / file_name(addresses(found)[0])
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(CONTENT)
    with pytest.raises(UserError, match="is damaged or a different file"):  # the right place, and not the real file
        find_cached(name)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("resnet50", r"torchvision://resnet50 or mmpretrain://resnet50: write one of them"),
        ("mit_b9", r"did you mean 'mit_b"),
        ("streets", r"did you mean 'street'"),
    ],
)
def test_a_name_that_is_not_clear_is_answered_with_those_that_are(cache, name, message):
    for find in (find_cached, published_weights):
        with pytest.raises(UserError, match=message):
            find(name)


@pytest.mark.parametrize("key", ["load_from", "pretrained"])
def test_training_starts_from_the_bundled_model_by_its_name(cache, tmp_path, key):
    bundled = read_checkpoint("street")
    assert published_weights("street") == ["street"]
    model = copy.deepcopy(bundled.meta["config"]["model"])
    model["decode_head"] |= {"num_classes": 3, "loss_decode": {"type": "CrossEntropyLoss"}}
    config = tiny_config(make_streets(tmp_path / "data", size=(64, 64)), steps=1, model=model)
    config["optim_wrapper"]["optimizer"]["lr"] = 0.0
    (config if key == "load_from" else model)[key] = "street"
    config["model"] = model
    trained = read_checkpoint(fit(config, tmp_path / "run").last).weights
    name = "backbone.layer1.0.conv1.weight"
    assert torch.equal(trained[name], bundled.weights[name])
    log = (tmp_path / "run" / "log.txt").read_text()
    assert "street.safetensors" in log


def test_the_short_form_takes_weights_of_the_whole_model(tmp_path):
    form = short_form(tmp_path, load_from="street")
    assert tz.load_config(form)["load_from"] == "street"
    assert "load_from" not in tz.load_config(short_form(tmp_path))
