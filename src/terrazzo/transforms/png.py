"""PNG files by faster libraries than OpenCV's, where these are installed: `pip install 'terrazzo[fast]'`."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from functools import cache, reduce
from importlib.util import find_spec

import numpy as np

SIGNATURE = b"\x89PNG\r\n\x1a\n"
CHANNELS = {0: 1, 2: 3}  # by colour type: grey and RGB
STORED_BLOCK = 65535  # bytes in a block of deflate that is not compressed, at most
LARGEST_RATIO = 1032  # of deflate; a header that promises more pixels is wrong


@cache
def installed(name: str) -> bool:
    """Whether a library can be imported."""
    return find_spec(name) is not None


def read_png(data: bytes) -> np.ndarray | None:
    """A grey (H, W, 1) or RGB (H, W, 3) PNG of 8 bits; None for any other file, a damaged one, and without pyspng."""
    if not data.startswith(SIGNATURE) or len(data) < 33 or not installed("pyspng"):
        return None
    width, height, bits, colours, *_, interlaced = struct.unpack(">IIBBBBB", data[16:29])
    if bits != 8 or colours not in CHANNELS or interlaced:
        return None
    import pyspng

    try:
        parts = list(chunks(data))
        size = height * (width * CHANNELS[colours] + 1)
        pixels = b"".join(content for kind, content in parts if kind == b"IDAT")
        if {kind for kind, _ in parts} & {b"eXIf", b"tRNS"} or size > LARGEST_RATIO * len(pixels):
            return None
        image = pyspng.load(unpacked(data, pixels, size) if installed("isal") else data)
    except (ValueError, RuntimeError, struct.error):
        return None
    return image.reshape(height, width, CHANNELS[colours])


def chunks(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """(kind, content) of every chunk up to the end. Raises struct.error where the file breaks off before it."""
    place, kind = len(SIGNATURE), b""
    while kind != b"IEND":
        length, kind = struct.unpack_from(">I4s", data, place)
        yield kind, data[place + 8 : place + 8 + length]
        place += length + 12


def unpacked(data: bytes, pixels: bytes, size: int) -> bytes:
    """The same PNG without compression; ISA-L inflates more than twice as fast as the PNG libraries' zlib.

    Raises ValueError where the checksum of the `pixels` does not fit.
    """
    from isal import isal_zlib

    try:
        rows = isal_zlib.decompress(pixels, bufsize=size)
    except isal_zlib.error as error:
        raise ValueError(str(error)) from error
    content: list[bytes | memoryview] = [b"IDAT\x78\x01"]
    for start in range(0, len(rows), STORED_BLOCK):
        block = memoryview(rows)[start : start + STORED_BLOCK]
        is_last = start + STORED_BLOCK >= len(rows)
        content += struct.pack("<BHH", is_last, len(block), len(block) ^ 0xFFFF), block
    content.append(struct.pack(">I", isal_zlib.adler32(rows)))
    checksum = reduce(lambda sum_before, part: isal_zlib.crc32(part, sum_before), content, 0)
    length = sum(map(len, content)) - 4
    end = struct.pack(">II4sI", checksum, 0, b"IEND", isal_zlib.crc32(b"IEND"))
    return b"".join([data[:33], struct.pack(">I", length), *content, end])
