"""A model as one HTML file, which runs it in the browser, from a disk and without a network."""

from __future__ import annotations

import base64
import gzip
import json
import tarfile
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

from terrazzo.errors import UserError
from terrazzo.hub.cache import cached
from terrazzo.inference.exported import ModelFacts
from terrazzo.inference.runtime import DEFAULT_THRESHOLD

MODULES = (
    "picture.js", "windows.js", "backends.js", "worker.js", "viewer.js", "editor.js", "correcting.js", "words.js",
    "app.js",
)  # fmt: skip
# of onnxruntime-web: the module with the glue code inside, and the code that it runs
RUNTIME = ("ort.webgpu.bundle.min.mjs", "ort-wasm-simd-threaded.asyncify.wasm")
PACKAGE = "onnxruntime-web"
HELP = f"`terrazzo weights get {PACKAGE}` downloads it, once; or give --ort-web with the package as a file or folder"


@dataclass(frozen=True)
class WebRuntime:
    """The files of onnxruntime-web that a page needs."""

    module: bytes
    wasm: bytes


def read_runtime(source: str | Path | None) -> WebRuntime:
    """Read onnxruntime-web from its npm package (`.tgz`) or a folder with its `dist`, by default from the cache.

    Raises UserError without it; nothing is downloaded.
    """
    found = source or cached(PACKAGE)
    if found is None:
        raise UserError(f"a page contains {PACKAGE}, which is not part of terrazzo: {HELP}")
    source = Path(found)
    try:
        if source.is_dir():
            folder = next(path for path in (source / "package" / "dist", source / "dist", source) if path.is_dir())
            module, wasm = ((folder / name).read_bytes() for name in RUNTIME)
        else:
            with tarfile.open(source) as package:
                module, wasm = (read_member(package, f"package/dist/{name}") for name in RUNTIME)
    except (OSError, KeyError, tarfile.TarError) as problem:
        raise UserError(f"{source} does not hold {' and '.join(RUNTIME)} ({problem}): {HELP}") from None
    return WebRuntime(module, wasm)


def read_member(package: tarfile.TarFile, name: str) -> bytes:
    """The content of a file in a package. Raises KeyError where it has none of this name."""
    member = package.extractfile(name)
    if member is None:
        raise KeyError(name)
    return member.read()


def page_problem(facts: ModelFacts) -> str | None:
    """Why a page cannot run a model as Python does; None where it can."""
    reasons = {
        "a page takes images of any size: leave out --size": facts.size is not None,
        "a browser reads RGB images, and the model takes others": facts.bands != 3 or facts.image_type != "uint8",
        "a page shows 255 classes at most": len(facts.classes) > 255,
    }
    return next((reason for reason, applies in reasons.items() if applies), None)


def page_outputs(facts: ModelFacts) -> tuple[str, ...]:
    """The outputs that a page needs beside the labels: it averages the logits of windows itself."""
    return ("logits",) if facts.windows else ("confidence",)


def html_page(model: bytes, facts: ModelFacts, runtime: WebRuntime, title: str, resizing: bytes | None = None) -> str:
    """The page of an ONNX model that has `page_outputs`; `resizing` is the one before windows are cut."""
    web = files("terrazzo.web")

    def read(name: str) -> str:
        return web.joinpath(name).read_text(encoding="utf-8")

    parts = {
        **{name: ("text/plain", in_script(read(name))) for name in MODULES},
        "model-facts": ("application/json", json.dumps(page_facts(facts, title)).replace("<", "\\u003c")),
        "ort.mjs": ("application/gzip", packed(runtime.module)),
        "ort.wasm": ("application/gzip", packed(runtime.wasm)),
        "model.onnx": ("application/gzip", packed(model)),
    }
    if resizing is not None:
        parts["resize.onnx"] = ("application/gzip", packed(resizing))
    scripts = [f'<script type="{kind}" id="{name}">{content}</script>' for name, (kind, content) in parts.items()]
    scripts.append(f'<script type="module">{in_script(read("boot.js"))}</script>')
    page = read("page.html").replace("/* style.css */", read("style.css"))
    return page.replace("<!-- scripts -->", "<!-- ONNX Runtime Web: MIT licence, Microsoft -->\n" + "\n".join(scripts))


def page_facts(facts: ModelFacts, title: str) -> Mapping[str, Any]:
    """The facts about the model that the page uses."""
    about = {
        "Source": facts.source,
        "Precision": facts.precision,
        "Licence of the weights": facts.licence,
        "Written by": f"terrazzo {facts.terrazzo}, for ONNX Runtime Web",
    }
    return {
        "title": title,
        "classes": facts.classes,
        "palette": facts.palette,
        "threshold": DEFAULT_THRESHOLD if facts.threshold is None else facts.threshold,
        "windows": facts.windows or None,
        "gpu": "int8" not in facts.precision,  # which a graphics card would compute in single precision
        "about": {name: value for name, value in about.items() if value},
    }


def packed(content: bytes) -> str:
    """Bytes compressed, as base64."""
    return base64.b64encode(gzip.compress(content, 9, mtime=0)).decode()


def in_script(text: str) -> str:
    """Text that cannot end the script element around it."""
    return text.replace("</", "<\\/")
