"""The page of a server, and the folder in which it keeps images with their corrected labels."""

from __future__ import annotations

import ipaddress
import re
import threading
from collections.abc import Sequence
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np

from terrazzo.errors import UserError
from terrazzo.serving.gate import Refused
from terrazzo.serving.uploads import suffix_of
from terrazzo.system.files import make_folder, write_whole
from terrazzo.transforms.opening import open_pillow

MODULES = ("server.js", "app.js", "viewer.js", "editor.js", "correcting.js", "words.js", "picture.js")
# nothing from elsewhere; the style is inside the page
POLICY = (
    "default-src 'self'; style-src 'unsafe-inline'; img-src 'self' blob: data:; media-src 'self' blob: mediastream:; "
    "frame-ancestors 'none'; base-uri 'none'; form-action 'none'"
)
HEADERS = {"Content-Security-Policy": POLICY, "X-Content-Type-Options": "nosniff", "Referrer-Policy": "no-referrer"}


@cache
def page() -> str:
    """The page, which loads its modules from `page/`."""
    web = files("terrazzo.web")
    text = web.joinpath("page.html").read_text(encoding="utf-8")
    style = web.joinpath("style.css").read_text(encoding="utf-8")
    script = '<script type="module" src="page/server.js"></script>'
    return text.replace("/* style.css */", style).replace("<!-- scripts -->", script)


@cache
def module(name: str) -> str:
    """A module of the page. Raises Refused for any other name."""
    if name not in MODULES:
        raise Refused(404, "there is no such file")
    return files("terrazzo.web").joinpath(name).read_text(encoding="utf-8")


class Kept:
    """A folder as `terrazzo data init` reads it: `images`, `labels` of the same names, and `classes.txt`."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.lock = folder, threading.Lock()

    def keep(self, image: bytes, name: str, size: tuple[int, int], labels: bytes, classes: Sequence[str]) -> str:
        """Write an image and its class map; returns the image's place. Raises Refused for what does not fit."""
        found = self.class_map(labels, size, len(classes))
        stem = re.sub(r"[^\w-]+", "_", Path(name).stem).strip("_")[:100] or "image"
        try:
            with self.lock:
                self.note_classes(classes)
                path = self.free(make_folder(self.folder / "images"), stem, suffix_of(image), image)
                label = make_folder(self.folder / "labels") / f"{path.stem}.png"
                is_new = not path.exists()
                write_whole(path, image)
                try:
                    write_whole(label, found)
                except UserError:
                    if is_new:
                        path.unlink()
                    raise
        except UserError as problem:
            raise Refused(409, str(problem)) from None
        return path.relative_to(self.folder).as_posix()

    def class_map(self, data: bytes, size: tuple[int, int], count: int) -> bytes:
        """A class map as a grey PNG. Raises Refused for one of another size or of other classes."""
        from terrazzo.inference.scenes.rasters import png_chunks

        try:
            labels: Any = open_pillow(data, "the labels")
        except UserError as problem:
            raise Refused(422, str(problem)) from None
        labels = labels[..., 0] if labels.ndim == 3 else labels
        if labels.shape != size or labels.dtype != np.uint8:
            raise Refused(422, f"the labels are {labels.shape[0]}x{labels.shape[1]}, the image {size[0]}x{size[1]}")
        wrong = np.unique(labels[(labels >= count) & (labels != 255)])
        if len(wrong):
            raise Refused(422, f"the labels contain {wrong[0]}, and the model has {count} classes")
        return b"".join(png_chunks(labels))

    def note_classes(self, classes: Sequence[str]) -> None:
        """Write the names of the classes. Raises UserError where the folder has those of another model."""
        path, text = make_folder(self.folder) / "classes.txt", "".join(f"{name}\n" for name in classes)
        if path.exists():
            if path.read_text(encoding="utf-8") != text:
                raise UserError(f"{self.folder} keeps images of other classes: start the server with another --keep")
            return
        odd = [name for name in classes if not name.strip() or name.splitlines() != [name.strip()]]
        if odd:
            raise UserError(f"the class '{odd[0]}' is not one line of {path.name}: give the model names of one line")
        write_whole(path, text)

    def free(self, folder: Path, stem: str, suffix: str, image: bytes) -> Path:
        """The path of an image: that of the same image if it is there already, else one that is free."""
        number = 1
        while True:
            name = stem if number == 1 else f"{stem}-{number}"
            same = [path for path in folder.glob(f"{name}.*") if path.stem == name]
            if not same:
                return folder / f"{name}{suffix}"
            if same[0].read_bytes() == image:
                return same[0]
            number += 1


def check_keeping(request: Any, has_token: bool) -> None:
    """Raise Refused for a request to keep images that another page may have made a browser send."""
    if request.headers.get("x-terrazzo") != "keep":
        raise Refused(403, "only the page keeps images: send the header `X-Terrazzo: keep`")
    host = re.sub(r":\d+$", "", request.headers.get("host", "")).strip("[]")
    try:
        ipaddress.ip_address(host)
    except ValueError:
        if host != "localhost" and not has_token:
            raise Refused(403, f"a server called {host} keeps images only with a --token") from None
