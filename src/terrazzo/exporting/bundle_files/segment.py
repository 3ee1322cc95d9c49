"""Segments images with the model.onnx beside this file. It needs numpy, Pillow and onnxruntime.

    python segment.py photo.jpg folder --out results

or in Python, for the class map (H, W) of a path, a PIL image or an array: `from segment import segment; segment(x)`.
"""

from __future__ import annotations

import argparse
import functools
import itertools
import json
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageOps

HERE = Path(__file__).resolve().parent
SUFFIXES = (".bmp", ".jpeg", ".jpg", ".npy", ".png", ".tif", ".tiff", ".webp")


class Model:
    """The model and what its file says of it: images (N, H, W, C) of one size in, class maps (N, H, W) out."""

    def __init__(self, folder: Path = HERE, threads: int = 0) -> None:
        self.threads = threads
        self.session = self.open(folder / "model.onnx")
        texts = self.session.get_modelmeta().custom_metadata_map
        self.facts: dict[str, Any] = {name: json.loads(text) for name, text in texts.items()}
        resize = folder / "resize.onnx"  # of a model that runs in windows; otherwise it is in the model
        self.resizing = self.open(resize) if resize.is_file() else None

    def open(self, path: Path) -> Any:
        import onnxruntime  # slow to import

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = self.threads
        return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])

    def __call__(self, images: np.ndarray) -> np.ndarray:
        images = np.ascontiguousarray(images, self.facts["image_type"])
        _, *size, bands = images.shape
        if bands != self.facts["bands"]:
            raise ValueError(f"the model takes images of {self.facts['bands']} bands, not {bands}")
        if self.facts["size"] not in (None, size):
            raise ValueError("the model takes images of {}x{} pixels alone".format(*self.facts["size"]))
        if not self.facts["windows"]:
            return self.session.run(["labels"], {"image": images})[0]
        if self.resizing is not None:
            (images,) = self.resizing.run(None, {"image": images})
        logits = self.in_windows(images, **self.facts["windows"])  # N, K, h, w
        for axis, length in zip((2, 3), size, strict=True):
            logits = resized(logits, axis, length)
        if logits.shape[1] == 1:
            threshold = 0.3 if self.facts["threshold"] is None else self.facts["threshold"]
            foreground = 0.5 + 0.5 * np.tanh(0.5 * logits[:, 0])
            return (foreground > threshold).astype(np.uint8)
        return logits.argmax(1).astype(np.uint8 if logits.shape[1] <= 255 else np.int32)

    def in_windows(self, images: np.ndarray, crop_size: list, stride: list, blending: str = "mean") -> np.ndarray:
        """Logits (N, K, H, W): the mean over overlapping windows, each of `crop_size` or the image's size."""
        size = images.shape[1:3]
        crop = [min(pair) for pair in zip(crop_size, size, strict=True)]
        starts = [window_starts(*lengths) for lengths in zip(size, crop, stride, strict=True)]
        share = np.ones(crop, np.float32)
        if blending == "gaussian":  # the deviation is an eighth of each side
            down, along = (np.exp(-0.5 * ((np.arange(n) - (n - 1) / 2) / (n / 8)) ** 2) for n in crop)
            share = (down[:, None] * along).astype(np.float32)
        total: Any = None
        visits = np.zeros(size, np.float32)
        for top, left in itertools.product(*starts):
            rows, columns = slice(top, top + crop[0]), slice(left, left + crop[1])
            pixels = np.ascontiguousarray(images[:, rows, columns])
            logits = self.session.run(["logits"], {"image": pixels})[0]
            if total is None:
                total = np.zeros((*logits.shape[:2], *size), np.float32)
            total[:, :, rows, columns] += logits * share
            visits[rows, columns] += share
        return total / visits


def window_starts(length: int, crop: int, stride: int) -> list[int]:
    """The starts of windows that cover a length; the last one ends at the border."""
    count = max(0, -(-(length - crop) // stride)) + 1
    return [min(index * stride, length - crop) for index in range(count)]


def resized(values: np.ndarray, axis: int, length: int) -> np.ndarray:
    """Values at another length of an axis, by linear interpolation between the centres of pixels."""
    before = values.shape[axis]
    if before == length:
        return values
    position = ((np.arange(length) + 0.5) * before / length - 0.5).clip(0, before - 1)
    first, second = position.astype(int), np.minimum(position.astype(int) + 1, before - 1)
    share = (position - first).astype(np.float32).reshape([-1 if index == axis else 1 for index in range(4)])
    return values.take(first, axis) * (1 - share) + values.take(second, axis) * share


@functools.cache
def model() -> Model:
    return Model()


def segment(image: Any) -> np.ndarray:
    """The class map (H, W) of a path, a PIL image, or an array (H, W, C) in RGB order."""
    return model()(read(image, model().facts["bands"])[None])[0]


def read(source: Any, bands: int) -> np.ndarray:
    """An image as an array (H, W, C); of other bands than grey and RGB only arrays can be read, such as .npy files."""
    if isinstance(source, (str, Path)) and Path(source).suffix.lower() == ".npy":
        source = np.load(source, allow_pickle=False)
    if isinstance(source, np.ndarray):
        return source if source.ndim == 3 else source[..., None]
    if bands not in (1, 3):
        raise ValueError(f"the model takes {bands} bands: give an array (H, W, {bands}), as a .npy file")
    image = source if isinstance(source, Image.Image) else Image.open(source)
    image = ImageOps.exif_transpose(image)
    if image.mode.startswith("I"):  # 16 bits
        image = Image.fromarray((np.asarray(image).astype(np.uint32) >> 8).astype(np.uint8))
    pixels = np.asarray(image.convert("RGB" if bands == 3 else "L"))
    return pixels if bands == 3 else pixels[..., None]


def save(path: Path, labels: np.ndarray, palette: list) -> None:
    """Write a class map as an indexed PNG in the classes' colours; of more than 255 classes as 16 bits."""
    path.parent.mkdir(parents=True, exist_ok=True)
    picture = Image.fromarray(labels if labels.dtype == np.uint8 else labels.astype(np.uint16))
    if labels.dtype == np.uint8:
        picture.putpalette([value for colour in palette for value in colour])
    picture.save(path)


def overlay(image: np.ndarray, labels: np.ndarray, palette: list) -> Image.Image:
    """The classes' colours over an image, each with half of the weight."""
    colours = np.asarray([*palette, [0, 0, 0]], np.float32)[np.minimum(labels, len(palette))]
    return Image.fromarray((0.5 * image[..., :3] + 0.5 * colours).round().clip(0, 255).astype(np.uint8))


def images_in(sources: Iterable[str]) -> Iterator[tuple[Path, Path]]:
    """Each image file, and its name below the folder that was given."""
    for source in map(Path, sources):
        if not source.is_dir():
            yield source, Path(source.name)
            continue
        for path in sorted(source.rglob("*")):
            if path.suffix.lower() in SUFFIXES:
                yield path, path.relative_to(source)


def loaded(sources: Iterable[str], bands: int, failed: list[Path]) -> Iterator[tuple[Path, Path, np.ndarray]]:
    """Path, name and pixels of each image that can be read; the others are reported."""
    for path, name in images_in(sources):
        try:
            yield path, name, read(path, bands)
        except (OSError, ValueError) as problem:  # noqa: PERF203 - the others are wanted
            report([path], problem, failed)


def report(paths: Iterable[Path], problem: Exception, failed: list[Path]) -> None:
    for path in paths:
        print(f"{path}: {problem}", file=sys.stderr)
        failed.append(path)


def main() -> int:
    parser = argparse.ArgumentParser(description="Write the class map of each image as a PNG.")
    parser.add_argument("sources", nargs="+", metavar="IMAGE|FOLDER")
    parser.add_argument("--out", type=Path, default=Path("results"), help="folder of the class maps (default: results)")
    parser.add_argument("--overlay", action="store_true", help="also write the class map over the image")
    parser.add_argument("--batch", type=int, default=1, help="images of one size that run at once (default: 1)")
    parser.add_argument("--threads", type=int, default=0, help="threads of the processor (default: all)")
    args = parser.parse_args()
    failed: list[Path] = []
    run = Model(threads=args.threads)
    images = loaded(args.sources, run.facts["bands"], failed)
    for _, alike in itertools.groupby(images, key=lambda item: item[2].shape):
        while group := list(itertools.islice(alike, max(1, args.batch))):
            paths, names, pixels = zip(*group, strict=True)
            try:
                found = run(np.stack(pixels))
            except Exception as problem:  # of ONNX Runtime's classes too
                report(paths, problem, failed)
                continue
            for name, image, labels in zip(names, pixels, found, strict=True):
                place = args.out / name.with_suffix(".png")
                save(place, labels, run.facts["palette"])
                if args.overlay:
                    overlay(image, labels, run.facts["palette"]).save(place.with_name(f"{place.stem}_overlay.jpg"))
                print(place)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
