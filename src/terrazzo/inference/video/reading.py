"""Frames of a video file, a stream or a camera."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath
from urllib.parse import urlparse

import cv2
import numpy as np

from terrazzo.data.spec import IMAGE_SUFFIXES
from terrazzo.errors import UserError
from terrazzo.system.limits import check_pixels

VIDEO_SUFFIXES = (".mp4", ".avi", ".mov", ".mkv", ".webm", ".m4v")
STREAMS = ("rtsp", "rtsps", "rtmp", "rtp", "udp")  # schemes of addresses that are always streams
CAMERA = re.compile(r"camera:(\d+)")
PATIENCE = 15_000  # milliseconds that a server may take to answer


def is_live(source: Path | str) -> bool:
    """Return whether a source is a camera, or the address of a stream or of a video."""
    address = str(source)
    if CAMERA.fullmatch(address):
        return True
    scheme, suffix = urlparse(address).scheme, PurePosixPath(urlparse(address).path).suffix.lower()
    return scheme in STREAMS or (scheme in ("http", "https") and suffix not in (*IMAGE_SUFFIXES, ".vrt"))


def is_video(source: Path | str) -> bool:
    """Return whether a source has frames, by its name."""
    return is_live(source) or Path(source).suffix.lower() in VIDEO_SUFFIXES


class Frames:
    """The frames (H, W, 3) RGB uint8 of a video, `every` so many-th; at least one. `count` is None where not known.

    Raises UserError for a source that cannot be opened or read, or whose frames are too large, and what `check_size`
    raises for the name, width and height of one.
    """

    def __init__(
        self,
        source: Path | str,
        every: int = 1,
        check_size: Callable[[str, int, int], object] = lambda name, width, height: None,
    ) -> None:
        self.source, self.every = str(source), every
        camera = CAMERA.fullmatch(self.source)
        if camera:
            self.capture = cv2.VideoCapture(int(camera[1]))
        elif is_live(source):
            limits = [cv2.CAP_PROP_OPEN_TIMEOUT_MSEC, PATIENCE, cv2.CAP_PROP_READ_TIMEOUT_MSEC, PATIENCE]
            self.capture = cv2.VideoCapture(self.source, cv2.CAP_FFMPEG, limits)
        else:
            self.capture = cv2.VideoCapture(self.source)
        self.is_live = is_live(source)
        rate = self.capture.get(cv2.CAP_PROP_FPS)
        self.rate = (rate if 0 < rate <= 1000 else 25.0) / every
        stored = int(self.capture.get(cv2.CAP_PROP_FRAME_COUNT))
        self.count = -(-stored // every) if stored > 0 else None
        sides = cv2.CAP_PROP_FRAME_WIDTH, cv2.CAP_PROP_FRAME_HEIGHT
        width, height = (int(self.capture.get(side)) for side in sides)
        check_pixels(height, width, self.source)
        check_size(self.source, width, height)
        found, self.first = self.capture.read()
        if not found:
            self.close()
            raise UserError(self.refusal())

    def refusal(self) -> str:
        """The message about a source without a single frame."""
        if CAMERA.fullmatch(self.source):
            return f"there is no {self.source.replace(':', ' ')}, or another program uses it"
        if self.is_live:
            return f"{self.source} cannot be read as a stream: the server does not answer, or sends no video"
        return f"{self.source} cannot be read as a video: it is damaged, or its codec is unknown to OpenCV"

    def __iter__(self) -> Iterator[np.ndarray]:
        frame, index = self.first, 0
        while True:
            if index % self.every == 0:
                yield np.ascontiguousarray(frame[..., ::-1])
            index += 1
            if not self.capture.grab():
                return
            if index % self.every == 0:
                found, frame = self.capture.retrieve()
                if not found:
                    return

    def close(self) -> None:
        """Release the file or the device."""
        self.capture.release()
