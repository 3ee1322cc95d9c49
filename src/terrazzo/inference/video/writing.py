"""Video files that are complete under their name, or not there."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import cv2
import numpy as np

from terrazzo.errors import UserError


class VideoFile:
    """A video that grows in a hidden file beside `path` until it is kept: pictures as MPEG-4, maps without any loss.

    Sides are made even, as codecs need it: pictures by their last row or column, maps by 255, no data. Raises UserError
    where it cannot be written.
    """

    def __init__(self, path: Path, rate: float, size: tuple[int, int], *, is_map: bool = False) -> None:
        self.path, self.is_map, self.frames = path, is_map, 0
        self.odd = size[0] % 2, size[1] % 2
        self.unfinished = path.with_name(f".{path.stem}.unfinished{path.suffix}")  # whose suffix is the format
        self.codec = "FFV1" if is_map else "mp4v"
        shape = size[1] + self.odd[1], size[0] + self.odd[0]
        code = cv2.VideoWriter.fourcc(*self.codec)
        self.writer = cv2.VideoWriter(str(self.unfinished), cv2.CAP_FFMPEG, code, rate, shape, not is_map)
        if not self.writer.isOpened():
            self.discard()
            raise UserError(f"cannot write the video {path}: no {self.codec} encoder, or no permission")

    def add(self, frame: np.ndarray) -> None:
        """Add an RGB picture (H, W, 3), or a class map (H, W)."""
        if any(self.odd):
            kind, value = (cv2.BORDER_CONSTANT, 255) if self.is_map else (cv2.BORDER_REPLICATE, 0)
            frame = cv2.copyMakeBorder(frame, 0, self.odd[0], 0, self.odd[1], kind, value=value)
        self.writer.write(frame if self.is_map else np.ascontiguousarray(frame[..., ::-1]))
        self.frames += 1

    def finish(self, audio: str | None = None) -> None:
        """Complete the file, with the sound of another where ffmpeg is installed; it is not yet under its name."""
        self.writer.release()
        saved = cv2.VideoCapture(str(self.unfinished))
        if int(saved.get(cv2.CAP_PROP_FRAME_COUNT)) < self.frames:  # OpenCV says nothing about a full disk
            raise UserError(f"cannot save the video {self.path}: free some space or choose another folder")
        if audio is not None:
            add_audio(self.unfinished, audio)

    def keep(self) -> None:
        """Put the finished file in its place."""
        self.unfinished.replace(self.path)

    def discard(self) -> None:
        """Delete what is not kept."""
        self.writer.release()
        self.unfinished.unlink(missing_ok=True)


def add_audio(video: Path, source: str) -> None:
    """Add the sound of a file to a video where ffmpeg is installed: as it is stored, or else as AAC.

    A video that has none, or whose sound fits no such file, stays as it is.
    """
    program = shutil.which("ffmpeg")
    if program is None:
        return
    joined = video.with_name(f"{video.stem}.sound{video.suffix}")
    inputs = ["-i", str(video.absolute()), "-i", str(Path(source).absolute()), "-map", "0:v", "-map", "1:a"]
    try:
        for codec in ("copy", "aac"):
            command = [program, "-nostdin", "-loglevel", "error", "-y", *inputs, "-c:v", "copy", "-c:a", codec]
            command += ["-shortest", "-map_metadata", "-1", str(joined.absolute())]
            if subprocess.run(command, capture_output=True).returncode == 0:
                joined.replace(video)
                return
    finally:
        joined.unlink(missing_ok=True)
