"""Videos: frames painted with a legend, class maps without loss, less flicker, and sources that end early."""

from __future__ import annotations

import os
import shutil
import subprocess
import threading
from functools import partial
from http.server import HTTPServer, SimpleHTTPRequestHandler
from pathlib import Path

import cv2
import numpy as np
import pytest

import terrazzo as tz
from support.scenes import save_model
from support.tiny import street
from terrazzo.cli.main import main
from terrazzo.errors import UserError
from terrazzo.inference.many.turns import lanes_of
from terrazzo.inference.video.predict import VideoOptions, predict_video
from terrazzo.inference.video.reading import is_live, is_video
from terrazzo.inference.video.smoothing import Smoothing, flicker
from terrazzo.system import limits


@pytest.fixture(scope="module")
def segmenter(tmp_path_factory):
    path = tmp_path_factory.mktemp("model") / "model.safetensors"
    return tz.load(save_model(path, bands=3, spread=(120.0, 60.0)), device="cpu")


def save_video(path: Path, frames: list[np.ndarray], rate: float = 10.0) -> Path:
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"mp4v"), rate, frames[0].shape[1::-1])
    if not writer.isOpened():
        pytest.skip("this OpenCV writes no mp4 videos")
    for frame in frames:
        writer.write(frame[..., ::-1])
    writer.release()
    return path


def noisy(count: int, height: int = 48, width: int = 64) -> list[np.ndarray]:
    """One street, with other noise in each frame."""
    still, rng = street(0, height, width)[0].astype(int), np.random.default_rng(0)
    return [np.clip(still + rng.normal(0, 25, still.shape), 0, 255).astype(np.uint8) for _ in range(count)]


def read_video(path: Path) -> list[np.ndarray]:
    capture, frames = cv2.VideoCapture(str(path)), []
    while True:
        found, frame = capture.read()
        if not found:
            return frames
        frames.append(frame[..., ::-1])


def test_labels_are_written_without_loss_and_odd_sides_are_filled(segmenter, tmp_path):
    path = save_video(tmp_path / "drive.mp4", noisy(5))
    files = predict_video(segmenter, path, tmp_path / "drive", VideoOptions(labels=True))
    assert [file.name for file in files] == ["drive_overlay.mp4", "drive_labels.mkv"]
    maps = [frame[..., 0] for frame in read_video(tmp_path / "drive_labels.mkv")]
    expected = [segmenter(np.ascontiguousarray(frame)).labels for frame in read_video(path)]
    assert all(np.array_equal(one, other) for one, other in zip(maps, expected, strict=True))
    assert not list(tmp_path.glob(".*")), "nothing unfinished is left"


def test_a_legend_stands_beside_frames_that_are_large_enough(segmenter, tmp_path):
    path = save_video(tmp_path / "x.mp4", noisy(2, 240, 320), rate=8)
    (file,) = predict_video(segmenter, path, tmp_path / "x", VideoOptions(every=2))
    (frame,) = read_video(file)
    assert frame.shape[0] == 240 and frame.shape[1] > 320 and cv2.VideoCapture(str(file)).get(cv2.CAP_PROP_FPS) == 4
    assert frame[:, -10:].mean() > 240, "its paper is white"


def test_smoothing_over_time_reduces_flicker(segmenter, tmp_path):
    path = save_video(tmp_path / "x.mp4", noisy(12))
    measured = []
    for share in (0.0, 0.8):
        predict_video(segmenter, path, tmp_path / "x", VideoOptions(overlay=False, labels=True, smooth=share))
        measured.append(flicker([frame[..., 0] for frame in read_video(tmp_path / "x_labels.mkv")]))
    assert 0 < measured[1] < 0.6 * measured[0]


def test_smoothing_keeps_a_threshold():
    frames = [np.stack([1 - share, share]) for share in (np.full((2, 2), 0.2), np.full((2, 2), 0.8))]
    smoothing = Smoothing(0.5, 0.4)
    assert [int(smoothing.labels(frame)[0, 0]) for frame in frames] == [0, 1]
    assert np.allclose(smoothing.mean[1], 0.5)


def test_a_truncated_video_keeps_what_there_was(segmenter, tmp_path):
    writer = cv2.VideoWriter(str(tmp_path / "whole.avi"), cv2.VideoWriter.fourcc(*"MJPG"), 10.0, (64, 48))
    for frame in noisy(40):
        writer.write(frame)
    writer.release()
    data = (tmp_path / "whole.avi").read_bytes()
    (tmp_path / "half.avi").write_bytes(data[: len(data) // 2])
    with pytest.raises(UserError, match=r"half\.avi ends early, after \d+ of 40 frames, which are written"):
        predict_video(segmenter, tmp_path / "half.avi", tmp_path / "half")
    assert 10 < len(read_video(tmp_path / "half_overlay.mp4")) < 30


def test_frames_above_the_limit_are_not_decoded(segmenter, tmp_path, monkeypatch):
    path = save_video(tmp_path / "x.mp4", noisy(1))
    monkeypatch.setattr(segmenter, "max_pixels", 1000)
    with pytest.raises(UserError, match=r"x\.mp4 has 64x48 pixels, more than the limit of 1000"):
        predict_video(segmenter, path, tmp_path / "x")
    monkeypatch.setattr(limits, "MOST_PIXELS", 100)
    with pytest.raises(UserError, match=r"x\.mp4 has 64x48 pixels, more than the 100 that are decoded"):
        predict_video(segmenter, path, tmp_path / "x")


def test_what_is_stopped_leaves_nothing(segmenter, tmp_path):
    def stop(progress):
        raise KeyboardInterrupt

    path = save_video(tmp_path / "x.mp4", noisy(3))
    with pytest.raises(KeyboardInterrupt):
        predict_video(segmenter, path, tmp_path / "x", on_progress=stop)
    assert [file.name for file in tmp_path.iterdir()] == ["x.mp4"]


def test_a_stream_is_read_from_its_address_and_kept_when_it_is_stopped(segmenter, tmp_path):
    save_video(tmp_path / "x.mp4", noisy(9))
    handler = partial(SimpleHTTPRequestHandler, directory=str(tmp_path))
    handler.log_message = lambda *_: None  # type: ignore[attr-defined]
    server = HTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    address = f"http://127.0.0.1:{server.server_port}/x.mp4"
    seen = []
    (file,) = predict_video(segmenter, address, tmp_path / "s", on_progress=seen.append, is_stopped=lambda: bool(seen))
    server.shutdown()
    server.server_close()
    assert len(read_video(file)) == 2
    with pytest.raises(UserError, match="cannot be read as a stream"):
        predict_video(segmenter, address, tmp_path / "s")


@pytest.mark.parametrize(
    ("source", "live", "video"),
    [
        ("rtsp://camera/1", True, True),
        ("http://host/live.m3u8", True, True),
        ("http://host/mjpeg?id=3", True, True),
        ("camera:0", True, True),
        (Path("a/b.MP4"), False, True),
        ("https://host/scene.tif", False, False),
        ("s3://bucket/scene.tif", False, False),
        ("photo.png", False, False),
    ],
)
def test_what_is_a_video_is_told_by_its_name(source, live, video):
    assert (is_live(source), is_video(source)) == (live, video)


def test_a_camera_that_is_not_there_is_named(tmp_path, capsys):
    assert main(["predict", "--camera", "97", "--out", str(tmp_path)]) == 1
    assert "there is no camera 97" in capsys.readouterr().err


@pytest.mark.skipif(shutil.which("ffmpeg") is None, reason="needs the program ffmpeg")
def test_the_sound_is_kept(segmenter, tmp_path):
    path = save_video(tmp_path / "silent.mp4", noisy(10))
    tone = ["-f", "lavfi", "-i", "sine=frequency=440:duration=1", "-c:v", "copy"]
    subprocess.run(["ffmpeg", "-loglevel", "error", "-i", path, *tone, tmp_path / "x.mp4"], check=True)
    (file,) = predict_video(segmenter, tmp_path / "x.mp4", tmp_path / "x")
    shown = subprocess.run(["ffmpeg", "-i", file], capture_output=True, text=True).stderr
    assert "Audio: aac" in shown and len(read_video(file)) == 10
    assert predict_video(segmenter, path, tmp_path / "silent")[0].is_file(), "one without sound is no error"


def test_several_frames_are_predicted_at_a_time(segmenter):
    assert lanes_of(segmenter.runtime) == min(8, len(os.sched_getaffinity(0)))
