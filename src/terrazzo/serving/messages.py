"""The messages between the server and its worker process, and the limits that both keep."""

from __future__ import annotations

import pickle
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, BinaryIO

LENGTH = struct.Struct(">Q")  # before each pickled message


@dataclass(frozen=True)
class Limits:
    """The limits of a server."""

    most_bytes: int = 64 << 20  # of a request's body
    most_pixels: int = 100_000_000  # of an image
    memory: int = 2 << 30  # bytes that one image may take, beyond which it is predicted in windows
    seconds: float = 300.0  # of a request, from its first byte to its answer
    queue: int = 64  # requests that wait or are being received
    batch: int = 8  # images that are predicted together
    batch_wait: float = 0.005  # seconds that an image waits for others of its size


@dataclass(frozen=True)
class ModelSource:
    """A model to load: what `tz.load` takes."""

    name: str
    path: str
    config: str | None = None
    device: str | None = None
    weights: str | None = None
    trust: bool = False


@dataclass(frozen=True)
class Options:
    """The wishes of a client for the answer."""

    answer: str = "application/json"  # its media type, one of `answers.ANSWERS`
    confidence: float = 0.0  # below which pixels have no class
    classes: tuple[str, ...] = ()  # the only ones to keep; all if empty
    masks: str = ""  # in JSON: "rle" or "polygons"
    opacity: float = 0.5  # of an overlay


@dataclass(frozen=True)
class Question:
    """An image to be segmented."""

    model: str
    data: bytes
    name: str  # as the client calls it, for messages
    size: tuple[int, int]  # height and width, by its header
    options: Options
    seconds: float = 0.0  # that are left when it is sent


@dataclass(frozen=True)
class Answer:
    """The answer to a question: what HTTP needs, and facts for the metrics."""

    status: int
    media_type: str
    body: bytes
    facts: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Work:
    """The models that a worker loads when it starts, and its limits."""

    models: Sequence[ModelSource]
    limits: Limits


def framed(message: Any) -> bytes:
    """A message as its length and its bytes."""
    content = pickle.dumps(message, pickle.HIGHEST_PROTOCOL)
    return LENGTH.pack(len(content)) + content


def read_message(stream: BinaryIO) -> Any:
    """The next message of a stream. Raises EOFError at its end."""
    head = stream.read(LENGTH.size)
    if len(head) < LENGTH.size:
        raise EOFError
    content = stream.read(LENGTH.unpack(head)[0])
    return pickle.loads(content)  # of this program's own other half
