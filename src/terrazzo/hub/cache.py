"""Weights that are on this computer: in terrazzo's own cache, or in that of torch or Hugging Face."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import terrazzo
from terrazzo.errors import UserError, nearest
from terrazzo.hub.names import addresses, digits, file_name, full_names, is_address, safe, short_names
from terrazzo.system.files import make_folder, write_whole
from terrazzo.system.text import read_lines

SUFFIXES = ("", ".pth", ".safetensors")
BUNDLED = {"street": Path(terrazzo.__file__).parent / "weights" / "street.safetensors"}  # models of this package


def home() -> Path:
    """$TERRAZZO_HOME, or the user's cache folder."""
    return Path(os.environ.get("TERRAZZO_HOME") or Path.home() / ".cache" / "terrazzo")


def cache_folder() -> Path:
    """The folder of downloaded weights."""
    return home() / "weights"


def find_cached(name: str) -> Path:
    """The file for a path, a URL, a `scheme://name`, a short name or a bundled model; nothing is downloaded.

    A file from a cache is compared with the sha256 in its name, once. Raises UserError naming the cache searched.
    """
    if path := cached(name):
        return path
    meant = [name] if is_address(name) else full_names(name)
    if len(meant) == 1:
        way = f"nothing is downloaded automatically: `terrazzo weights get {name}` downloads them"
    elif meant:
        way = f"the name may mean {' or '.join(meant)}: write one of them; `terrazzo weights get` downloads it"
    else:
        way = f"they are not published under this name{nearest(name, {*short_names(), *BUNDLED})}"
    raise UserError(
        f"the weights '{name}' are neither a file nor in the cache ({cache_folder()}), and {way}; or give "
        "--pretrained PATH, or --pretrained none to start from random weights"
    )


def cached(name: str) -> Path | None:
    """The file for a path or a bundled model, or a verified one from the caches; None if there is none."""
    if is_file(name):
        return Path(name)
    if name in BUNDLED:
        return BUNDLED[name]
    path = next((path for path in candidates(name) if path.is_file()), None)
    if path is not None:
        check(path)
    return path


def is_file(name: str) -> bool:
    try:
        return Path(name).is_file()
    except OSError:  # a name too long for a path
        return False


def candidates(name: str) -> Iterator[Path]:
    """Every path at which weights of this name may be cached."""
    yield from (cache_folder() / (safe(name) + suffix) for suffix in SUFFIXES)
    full = [name] if is_address(name) else full_names(name)
    links = addresses(full[0]) if len(full) == 1 else []
    names = [file_name(link) for link in links] or [safe(Path(name).name)]
    for folder in (cache_folder(), torch_folder()):
        yield from (folder / candidate for candidate in names)
    for link in links:
        yield from hub_files(link)


def hub_files(link: str) -> Iterator[Path]:
    """Copies of a Hugging Face file in that library's cache."""
    match = re.fullmatch(r"https?://[^/]+/([^/]+)/([^/]+)/resolve/main/(.+)", link)
    if match:
        folder = hub_folder() / f"models--{match[1]}--{match[2]}"
        with suppress(OSError):
            yield folder / "snapshots" / (folder / "refs" / "main").read_text(encoding="utf-8").strip() / match[3]


def torch_folder() -> Path:
    """The folder of the weights that torch.hub and torchvision downloaded."""
    return Path(os.environ.get("TORCH_HOME") or user_cache() / "torch") / "hub" / "checkpoints"


def user_cache() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")


def hub_folder() -> Path:
    for variable in ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE"):
        if os.environ.get(variable):
            return Path(os.environ[variable])
    return Path(os.environ.get("HF_HOME") or user_cache() / "huggingface") / "hub"


def check(path: Path) -> None:
    """Compare a file with the sha256 in its name, once. Raises UserError where it differs."""
    expected = digits(path.name)
    if expected is None or known_digest(path).startswith(expected):
        return
    actual = sha256(path)
    if not actual.startswith(expected):
        raise UserError(
            f"{path} is damaged or a different file: its sha256 begins with {actual[: len(expected)]}, not with "
            f"{expected} as in its name; delete it and download it again"
        )
    remember(path, actual)


def sha256(path: Path, on_read: Callable[[int], object] = lambda count: None) -> str:
    """The digest of a file, in hexadecimal digits; `on_read` gets the size of each part that was read."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while part := file.read(2**20):
            digest.update(part)
            on_read(len(part))
    return digest.hexdigest()


def programs_file() -> Path:
    """The digests of the programs that this user has exported, one a line."""
    return home() / "programs.txt"


def remember_program(path: Path) -> None:
    """Record that this user made a program; where the cache is read-only, it has to be trusted when it is opened."""
    with suppress(OSError, UserError):
        earlier = read_lines(programs_file()) if programs_file().is_file() else []
        make_folder(home())
        write_whole(programs_file(), "\n".join([*earlier, sha256(path)]) + "\n")


def is_own_program(path: Path) -> bool:
    """Return whether this user has exported a program."""
    with suppress(OSError, UserError):
        return sha256(path) in read_lines(programs_file())
    return False


def ledger() -> Path:
    """The record of verified files: `{path: [size, time of change, sha256]}`."""
    return cache_folder() / "checked.json"


def known_digest(path: Path) -> str:
    """The recorded sha256 of a file; empty for one that has changed since or has no record."""
    state = path.stat()
    with suppress(OSError, ValueError, TypeError, AttributeError):
        size, changed, digest = json.loads(ledger().read_text(encoding="utf-8")).get(str(path.resolve()), (0, 0, ""))
        if (size, changed) == (state.st_size, state.st_mtime_ns):
            return str(digest)
    return ""


def remember(path: Path, digest: str) -> None:
    """Record a verified file; where the cache is read-only, it is verified again the next time."""
    entries = {}
    with suppress(OSError, ValueError):
        entries = dict(json.loads(ledger().read_text(encoding="utf-8")))
    state = path.stat()
    entries[str(path.resolve())] = [state.st_size, state.st_mtime_ns, digest]
    with suppress(UserError):
        write_whole(make_folder(cache_folder()) / ledger().name, json.dumps(entries, indent=1))
