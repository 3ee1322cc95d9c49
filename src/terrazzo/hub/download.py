"""Downloading published weights on request: from mirrors, resuming earlier tries, and verified."""

from __future__ import annotations

import os
import re
import urllib.error
import urllib.request
from collections.abc import Callable, Iterable, Sequence
from http.client import HTTPException
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import terrazzo
from terrazzo.errors import UserError
from terrazzo.hub.cache import cache_folder, cached, home, remember, sha256
from terrazzo.hub.names import OPEN_MMLAB, addresses, digits, file_name, is_address, npm_registry
from terrazzo.system.files import make_folder, rename_durably

OnProgress = Callable[[str, int, "int | None"], object]  # the address, bytes so far, total bytes
TIMEOUT = 30  # seconds without an answer
CHUNK = 2**18  # bytes
OFFLINE = ("TERRAZZO_OFFLINE", "HF_HUB_OFFLINE")


def get_weights(
    name: str,
    *,
    mirrors: Sequence[str] = (),
    offline: bool = False,
    on_progress: OnProgress = lambda address, done, total: None,
) -> Path:
    """The file for a path, a URL or a `scheme://name`: from the caches, or downloaded into terrazzo's own.

    Mirrors are tried before the published address, those given here first. Raises UserError where no address has the
    file, where its sha256 is not the one in its name, and where it is not cached when offline.
    """
    if path := cached(name):
        return path
    forbidden = next((variable for variable in OFFLINE if is_on(variable)), "--offline" if offline else None)
    if forbidden:
        raise UserError(f"'{name}' is not in the cache ({cache_folder()}), and {forbidden} forbids downloading it")
    folder = make_folder(cache_folder())
    failures = []
    for published in addresses(name):
        target = folder / file_name(published)
        for address in with_mirrors(published, [*mirrors, *configured_mirrors()]):
            try:
                return download(address, target, on_progress)
            except (OSError, HTTPException, Refused, ValueError) as problem:  # noqa: PERF203 - the next may have it
                failures.append(f"{address.partition('#')[0]}: {reason(problem)}")
    tried = "".join(f"\n  {failure}" for failure in failures)
    raise UserError(
        f"'{name}' could not be downloaded:{tried}\ngive another --mirror URL (or TERRAZZO_MIRRORS, or a line in "
        f"{mirrors_file()}), or put the file into {folder} yourself, as {target.name}"
    )


def is_on(variable: str) -> bool:
    return os.environ.get(variable, "").lower() in ("1", "true", "yes", "on")


def mirrors_file() -> Path:
    return home() / "mirrors.txt"


def configured_mirrors() -> list[str]:
    """The mirrors of TERRAZZO_MIRRORS, then those of the file, one per line."""
    lines: Iterable[str] = mirrors_file().read_text(encoding="utf-8").splitlines() if mirrors_file().is_file() else ()
    own = re.split(r"[\s,]+", os.environ.get("TERRAZZO_MIRRORS", ""))
    return [mirror for mirror in (*own, *(line.partition("#")[0].strip() for line in lines)) if mirror]


def with_mirrors(address: str, mirrors: Iterable[str]) -> list[str]:
    """The addresses to try in order: each mirror, with the published path or the file alone; then the address itself.

    A mirror is a URL or a folder and replaces OpenMMLab's host, whose weights have moved, or npm's registry; {path} and
    {file} in it are filled in.
    """
    if not address.startswith((OPEN_MMLAB, npm_registry())):
        return [address]
    path = urlsplit(address).path.lstrip("/")
    file = path.rpartition("/")[2]
    found = []
    for mirror in mirrors:
        base = mirror if is_address(mirror) else Path(mirror).expanduser().resolve().as_uri()
        if "{path}" in mirror or "{file}" in mirror:
            found.append(base.replace("{path}", path).replace("{file}", file))
        else:
            found += [f"{base.rstrip('/')}/{path}", f"{base.rstrip('/')}/{file}"]
    return [*found, address]


class Refused(Exception):
    """A download that is not the wanted file."""


def reason(problem: Exception) -> str:
    """The cause of a failed download in a few words."""
    if isinstance(problem, urllib.error.HTTPError):
        return f"HTTP {problem.code} {problem.reason}"
    inner = getattr(problem, "reason", problem)
    return getattr(inner, "strerror", None) or str(inner) or type(inner).__name__


def download(address: str, target: Path, on_progress: OnProgress) -> Path:
    """Download one file: `target.part` grows, if need be over several tries, is verified and then renamed."""
    part = target.with_name(target.name + ".part")
    expected = digits(target.name)
    if expected is None:
        part.unlink(missing_ok=True)  # it may be part of a different file
    try:
        receive(address, part, on_progress)
    except BaseException:
        if expected is None:
            part.unlink(missing_ok=True)
        raise
    actual = sha256(part)
    if expected is not None and not actual.startswith(expected):
        part.unlink()
        raise Refused(f"its sha256 begins with {actual[: len(expected)]}, not with {expected} as in its name")
    rename_durably(part, target)
    remember(target, actual)
    return target


def receive(address: str, part: Path, on_progress: OnProgress) -> None:
    """Append the missing bytes to the part; start again where the server sends the whole file."""
    done = part.stat().st_size if part.is_file() else 0
    try:
        answer = request(address, done)
    except urllib.error.HTTPError as problem:
        if problem.code != 416:  # the part is as long as the file, or longer: verify it, or start again
            raise
        if done == whole_length(problem.headers.get("Content-Range")):
            return
        done, answer = 0, request(address, 0)
    with answer:
        if "text/html" in answer.headers.get("Content-Type", ""):
            raise Refused("this is a web page, not a file")
        resumed = getattr(answer, "status", None) == 206
        done = done if resumed else 0
        length = answer.headers.get("Content-Length")
        total = done + int(length) if length else None
        with part.open("ab" if resumed else "wb") as file:
            while data := answer.read(CHUNK):
                file.write(data)
                done += len(data)
                on_progress(address, done, total)
    if total is not None and done < total:
        raise OSError(f"the connection broke after {done} of {total} bytes; the same command continues there")


def request(address: str, start: int) -> Any:
    """Open an address; with `start`, from that byte on."""
    if urlsplit(address).scheme not in ("http", "https", "file"):
        raise ValueError("this is not an http, https or file address, nor a folder")
    headers = {"User-Agent": f"terrazzo/{terrazzo.__version__}"} | ({"Range": f"bytes={start}-"} if start else {})
    return urllib.request.urlopen(urllib.request.Request(address, headers=headers), timeout=TIMEOUT)


def whole_length(content_range: str | None) -> int | None:
    """The length of the whole file in `bytes */1234`."""
    match = re.fullmatch(r"bytes .*/(\d+)", content_range or "")
    return int(match[1]) if match else None
