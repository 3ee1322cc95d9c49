"""The process that holds the models: questions come in on standard input, answers go out on standard output."""

from __future__ import annotations

import os
import re
import signal
import sys
import tempfile
import threading
import time
import warnings
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from terrazzo.errors import UserError
from terrazzo.inference.load import load
from terrazzo.inference.runtime import Memory
from terrazzo.inference.scenes.choice import fits_whole
from terrazzo.inference.scenes.prediction import ScenePrediction
from terrazzo.serving.answers import RAW, damage, encode, keep
from terrazzo.serving.messages import Answer, ModelSource, Question, Work, framed, read_message
from terrazzo.serving.uploads import suffix_of
from terrazzo.system.failures import explained, is_out_of_memory, unexpected
from terrazzo.system.memory import release_freed_memory
from terrazzo.system.printable import printable

LOWER = "send a smaller image, or start the server with less --memory for each"
TOO_LATE = "the time limit was over before the image was segmented: send a smaller one, or raise --timeout"


MEASURED = 20
WORTHWHILE = 1 << 18  # pixels of images that a processor predicts faster together; larger ones it does not
RANKED = ("brushlabels", "polygonlabels")  # answers that come with the confidence, by which images are ranked


class TooLate(Exception):
    """The time limit of a request is over."""


@dataclass
class Upload:
    """An image that waits to be segmented, in a file of its own."""

    number: int  # of the question
    question: Question
    path: Path
    started: float = field(default_factory=time.monotonic)
    image: np.ndarray | None = None

    def check_time(self, *_: Any) -> None:
        """Raise TooLate where the time limit is over."""
        if time.monotonic() - self.started > self.question.seconds:
            raise TooLate

    def wants_confidence(self) -> bool:
        options = self.question.options
        return options.confidence > 0 or options.answer == RAW or options.masks in RANKED


class Worker:
    """Models in memory, which answer questions in threads: one computes, others decode and encode."""

    def __init__(self, work: Work, output: BinaryIO) -> None:
        self.limits, self.output = work.limits, output
        self.writing, self.computing = threading.Lock(), threading.Lock()
        self.measured: dict[str, int] = {}  # images of a model since its confidence was measured
        self.models = {source.name: self.open(source) for source in work.models}

    def open(self, source: ModelSource) -> Any:
        checkpoint = source.path if source.config else None
        segmenter = load(
            source.config or source.path, checkpoint, source.device, trust=source.trust, weights=source.weights
        )
        segmenter.memory = Memory(self.limits.memory)
        segmenter.max_pixels = self.limits.most_pixels
        return segmenter

    def facts(self) -> dict[str, Any]:
        """The facts about each model, as the server tells them."""
        return {name: facts_of(segmenter) for name, segmenter in self.models.items()}

    def send(self, message: Any) -> None:
        with self.writing:
            self.output.write(framed(message))
            self.output.flush()

    def answer_all(self, batch: Sequence[tuple[int, Question]]) -> None:
        """Answer questions of one model and size, whatever happens."""
        try:
            self.answer(batch)
        except Exception as problem:  # such as a full disk
            message = unexpected(problem)
            print(f"error: {message}", file=sys.stderr, flush=True)
            for number, _ in batch:  # of which those that are answered already do not listen
                self.send((number, Answer(500, "text/plain", message.encode())))

    def answer(self, batch: Sequence[tuple[int, Question]]) -> None:
        segmenter = self.models[batch[0][1].model]
        with tempfile.TemporaryDirectory(prefix="terrazzo-serve-") as folder:
            uploads = []
            for number, question in batch:
                own = Path(folder) / str(number)
                own.mkdir()
                stem = re.sub(r"[^\w-]", "_", Path(question.name).stem)[:80] or "image"
                upload = Upload(number, question, own / f"{stem}{suffix_of(question.data)}")
                upload.path.write_bytes(question.data)
                if prediction := self.attempt(upload, partial(self.read, segmenter, upload)):
                    self.finish(upload, prediction, len(batch))
                elif upload.image is not None:
                    uploads.append(upload)
            for group in groups(segmenter, uploads):
                for upload, prediction in self.predict(segmenter, group):
                    self.finish(upload, prediction, len(group))
        release_freed_memory()

    def read(self, segmenter: Any, upload: Upload) -> Any:
        """Read an image; one that is too large for one pass is predicted at once, in windows."""
        scene = segmenter.scene(upload.path)
        if scene is None:
            upload.image = segmenter.read(upload.path)[0]
            return None
        layers = ["confidence"] if upload.wants_confidence() else []
        with self.computing:
            prediction = ScenePrediction(segmenter, scene, upload.path, layers=layers, on_progress=upload.check_time)
        damage(prediction)
        return prediction

    def predict(self, segmenter: Any, group: Sequence[Upload]) -> Iterator[tuple[Upload, Any]]:
        """Predict images of one size together; one by one where that fails, so that each has its own error."""
        images = [(upload.image, upload.path) for upload in group]
        confident = any(upload.wants_confidence() for upload in group)
        if len(group) > 1:
            try:
                with self.computing:
                    together = segmenter.predict_together(images, confident=confident)
                yield from zip(group, together, strict=True)
                return
            except Exception as problem:
                if not (isinstance(problem, UserError) or is_out_of_memory(problem)):
                    raise
        for upload, (image, path) in zip(group, images, strict=True):
            if prediction := self.attempt(upload, partial(self.predict_one, segmenter, upload, image, path)):
                yield upload, prediction

    def predict_one(self, segmenter: Any, upload: Upload, image: Any, path: Path) -> Any:
        with self.computing:
            upload.check_time()
            return segmenter.predict_together([(image, path)], confident=upload.wants_confidence())[0]

    def finish(self, upload: Upload, prediction: Any, together: int) -> None:
        """Encode a prediction and send it."""
        options = upload.question.options

        def encode_it() -> Answer:
            keep(prediction, options)
            seconds = time.monotonic() - upload.started
            unlike = self.unlike(upload, prediction)
            facts = {"images": together, "pixels": prediction.labels.size, "seconds": seconds, "unlike": unlike}
            extra = {"model": upload.question.model, "seconds": round(seconds, 4), "unlike": unlike}
            if options.masks in RANKED:
                extra["confidence"] = round(float(np.mean(prediction.confidence)), 4)
            return Answer(200, options.answer, encode(prediction, options, upload.path.parent, extra), facts)

        if answer := self.attempt(upload, encode_it):
            self.send((upload.number, answer))

    def unlike(self, upload: Upload, prediction: Any) -> dict[str, float]:
        """Distances of an image from the training images; empty for a model that does not remember them.

        An exported model computes its confidence by a pass of its own, which only one of MEASURED images is worth.
        """
        name = upload.question.model
        fingerprint = self.models[name].fingerprint
        if fingerprint is None or isinstance(prediction, ScenePrediction):
            return {}
        confidence = None
        since = self.measured.get(name, MEASURED) + 1
        if hasattr(self.models[name].runtime, "model") or upload.wants_confidence() or since > MEASURED:
            with self.computing:
                confidence = prediction.mean_confidence()
            since = 0
        self.measured[name] = since
        return fingerprint.unlike(prediction.image, confidence)

    def attempt(self, upload: Upload, do: Any) -> Any:
        """The result of a step; None where it fails, which is answered."""
        name = upload.question.name
        try:
            with explained(f"to segment {name}", LOWER):
                return do()
        except TooLate:
            status, message = 504, TOO_LATE
        except UserError as problem:
            text = str(problem).replace(str(upload.path), name).replace(upload.path.name, name)
            status, message = 422, text if name in text or not is_about_image(text) else f"{name}: {text}"
        except Exception as problem:
            status, message = 500, unexpected(problem)
            print(f"error: {message}", file=sys.stderr, flush=True)
        self.send((upload.number, Answer(status, "text/plain", message.encode())))
        return None


def is_about_image(text: str) -> bool:
    """Return whether a message needs the image's name before it."""
    return not text.startswith("not enough memory")


def groups(segmenter: Any, uploads: Sequence[Upload]) -> Iterator[list[Upload]]:
    """Images of one shape in groups that fit memory together."""
    shapes: dict[tuple[int, ...], list[Upload]] = {}
    for upload in uploads:
        assert upload.image is not None
        shapes.setdefault((*upload.image.shape, str(upload.image.dtype)), []).append(upload)  # type: ignore[arg-type]
    for (height, width, *_), members in shapes.items():
        most = len(members)
        if str(segmenter.device) == "cpu":
            most = max(1, min(most, WORTHWHILE // (height * width)))
        while most > 1 and not fits_whole(segmenter, height * most, width, segmenter.memory):
            most -= 1
        yield from (members[start : start + most] for start in range(0, len(members), most))


def facts_of(segmenter: Any) -> dict[str, Any]:
    """The facts about a model that the server tells."""
    own = getattr(segmenter.runtime, "facts", None)
    return {
        "classes": list(segmenter.classes),
        "palette": [list(map(int, colour)) for colour in segmenter.palette],
        "bands": segmenter.runtime.bands,
        "device": str(segmenter.device),
        "source": segmenter.source,
        "runtime": type(getattr(segmenter.runtime, "session", segmenter.runtime)).__name__,
        "precision": getattr(own, "precision", "f32"),
        "licence": getattr(own, "licence", ""),
        "training_images": segmenter.fingerprint.values() if segmenter.fingerprint else None,
    }


def main() -> None:
    """Load the models and answer until standard input ends. The signals that stop a server leave this to it."""
    for name in ("SIGINT", "SIGTERM", "SIGHUP"):
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_IGN)
    questions, answers = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what libraries print goes to standard error
    warnings.showwarning = lambda message, *_, **__: print(f"warning: {printable(str(message))}", file=sys.stderr)
    try:
        worker = Worker(read_message(questions), answers)
    except UserError as problem:
        answers.write(framed(problem))
        answers.flush()
        return
    worker.send(worker.facts())
    with ThreadPoolExecutor(2) as threads:  # while one computes, the other decodes and encodes
        try:
            while True:
                threads.submit(worker.answer_all, read_message(questions))
        except EOFError:
            os._exit(0)


if __name__ == "__main__":
    main()
