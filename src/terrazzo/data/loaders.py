"""Batches: the order of samples, and how they are stacked."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.data import DataLoader, Sampler

from terrazzo.data.dataset import LoadError
from terrazzo.data.workers import (
    Watched,
    end_workers,
    losses_held_back,
    losses_raised,
    lost_workers,
    shared_memory_is_short,
    start_worker,
    watched,
    worker_count,
    worker_died,
)
from terrazzo.data.wrappers import Position
from terrazzo.errors import UserError
from terrazzo.sample import Batch, Sample, Target
from terrazzo.system.arithmetic import ceil_div


class TrainingSampler(Sampler[list[Position]]):
    """The batches of a whole training run, a new permutation each epoch, beginning at `start` (epoch, sample in it).

    Without `drop_last`, `by_epoch` ends each epoch with a smaller batch; otherwise batches continue across epochs. With
    several processes, each takes every `world`-th sample of a batch, and an uneven last one is filled up. Samples that
    are stored in `shards` of so many each are shuffled shard by shard.
    """

    def __init__(
        self,
        length: int,
        batch_size: int,
        *,
        shuffle: bool = True,
        seed: int = 0,
        by_epoch: bool = False,
        drop_last: bool = False,
        start: Position = (0, 0),
        rank: int = 0,
        world: int = 1,
        shards: Sequence[int] = (),
    ) -> None:
        self.shards = shards
        self.length, self.batch_size = length, batch_size * world
        self.shuffle, self.seed, self.by_epoch, self.drop_last = shuffle, seed, by_epoch, drop_last
        self.start, self.rank, self.world = start, rank, world

    @property
    def batches_per_epoch(self) -> int:
        """Batches in one epoch (rounded up where batches continue across epochs)."""
        return self.batches_from(0)

    def batches_from(self, sample: int) -> int:
        """Batches that an epoch has left when `sample` of its samples have been seen; a whole one has at least one."""
        left = self.length - sample
        count = left // self.batch_size if self.by_epoch and self.drop_last else ceil_div(left, self.batch_size)
        return max(count, int(sample == 0))

    def position(self, batches: int) -> Position:
        """Return the position `batches` after `start`: (epoch, sample in it)."""
        epoch, sample = self.start
        if not self.by_epoch:
            epochs, sample = divmod(sample + batches * self.batch_size, self.length)
            return epoch + epochs, sample
        left = self.batches_from(sample)
        if batches < left:
            return epoch, sample + batches * self.batch_size
        epochs, batches = divmod(batches - left, self.batches_per_epoch)
        return epoch + 1 + epochs, batches * self.batch_size

    def epoch(self, number: int) -> list[Position]:
        """The samples of an epoch in their order."""
        order = np.arange(self.length)
        if self.shuffle:
            rng = np.random.default_rng([self.seed, number])
            if self.shards:
                parts = np.split(order, np.cumsum(self.shards)[:-1])
                order = np.concatenate([rng.permutation(parts[index]) for index in rng.permutation(len(parts))])
            else:
                rng.shuffle(order)
        return [(number, int(index)) for index in order]

    def __iter__(self) -> Iterator[list[Position]]:
        for batch in self.batches():
            missing = -len(batch) % self.world
            yield (batch + (batch * missing)[:missing])[self.rank :: self.world]

    def batches(self) -> Iterator[list[Position]]:
        """The batches of all processes, without end."""
        epoch, sample = self.start
        waiting = self.epoch(epoch)[sample:]
        while self.by_epoch:
            for first in range(self.batches_from(sample)):
                yield waiting[first * self.batch_size : (first + 1) * self.batch_size]
            epoch, sample = epoch + 1, 0
            waiting = self.epoch(epoch)
        while True:
            while len(waiting) < self.batch_size:
                epoch += 1
                waiting += self.epoch(epoch)
            yield waiting[: self.batch_size]
            waiting = waiting[self.batch_size :]


class RareClassSampler(TrainingSampler):
    """Training batches in which rare classes are frequent (rare class sampling; DAFormer, Hoyer et al., CVPR 2022).

    For every position of an epoch a class is drawn by `chances`, then an image that shows it (`shown`: images,
    classes); images without any class are never drawn. Every draw has its own epoch number, so that an image drawn
    twice is cropped twice.
    """

    def __init__(self, length: int, batch_size: int, shown: np.ndarray, chances: np.ndarray, **options: Any) -> None:
        super().__init__(length, batch_size, **options)
        self.chances = chances
        self.images = [column.nonzero()[0] for column in shown.T]

    def epoch(self, number: int) -> list[Position]:
        rng = np.random.default_rng([self.seed, number])
        classes = rng.choice(len(self.chances), size=self.length, p=self.chances)
        draws = enumerate(zip(classes, rng.random(self.length), strict=True))
        images = ((position, self.images[index], share) for position, (index, share) in draws)
        return [
            (number * self.length + position, int(shown[int(share * len(shown))])) for position, shown, share in images
        ]


def collate(samples: Sequence[Any]) -> Batch | LoadError:
    """Stack samples, smaller ones padded on the right and below. One that could not be read makes it a LoadError.

    The views that test-time augmentation makes from one image, a list, become a separate batch.
    """
    if isinstance(samples[0], list):
        return collate_views(samples[0])
    read = [sample for sample in samples if isinstance(sample, Sample)]
    if len(read) < len(samples):
        return next(sample for sample in samples if isinstance(sample, LoadError))
    sizes = [sample.size for sample in read]
    height, width = max(size[0] for size in sizes), max(size[1] for size in sizes)
    tensors = [padded(to_tensor(sample.pixels), height, width, 0) for sample in read]
    if len({tensor.dtype for tensor in tensors}) > 1:
        tensors = [tensor.float() for tensor in tensors]
    if len({len(tensor) for tensor in tensors}) > 1:
        listed = ", ".join(f"{sample.image_path} has {len(one)}" for sample, one in zip(read, tensors, strict=True))
        return LoadError(f"images of different numbers of bands ({listed}): name those to use with `bands`")
    images = torch.stack(tensors)
    targets = {}
    for name in read[0].targets:
        maps = [target_tensor(sample.targets[name], sample.size, height, width) for sample in read]
        if len({one.shape for one in maps}) > 1:
            files = ", ".join(str(sample.image_path) for sample in read)
            return LoadError(f"targets '{name}' of different sizes do not fit in one batch ({files}): set batch_size=1")
        targets[name] = torch.stack(maps)
    return Batch(images, targets, [replace(sample, image=None, targets={}) for sample in read], sizes)


def collate_shared(samples: Sequence[Any]) -> Batch | LoadError:
    """Stack samples in a worker, in the memory that it shares with the main process; a shortage is a LoadError.

    Otherwise torch would share them in a thread, whose error nobody sees while everybody waits.
    """
    batch = collate(samples)
    if isinstance(batch, Batch):
        try:
            for tensor in (batch.image, *batch.targets.values()):
                tensor.share_memory_()
        except RuntimeError as problem:
            return LoadError(shared_memory_is_short(problem))
    return batch


def collate_views(views: list[Sample]) -> Batch | LoadError:
    """Stack the views of one image, with the targets of the first alone."""
    batch = collate([replace(view, targets={}) for view in views])
    if isinstance(batch, Batch):
        arrays = {name: target.array for name, target in views[0].targets.items()}
        batch.targets = {name: own_tensor(array)[None] for name, array in arrays.items()}
    return batch


def target_tensor(target: Target, size: tuple[int, int], height: int, width: int) -> Tensor:
    """A target padded with its fill; one of another size than its image (a label as stored) stays as it is."""
    tensor = own_tensor(target.array)
    return padded(tensor, height, width, target.fill) if tuple(tensor.shape[:2]) == size else tensor


def padded(tensor: Tensor, height: int, width: int, value: float) -> Tensor:
    """(..., h, w) -> (..., height, width)."""
    margin = (0, width - tensor.shape[-1], 0, height - tensor.shape[-2])
    return F.pad(tensor, margin, value=value) if any(margin) else tensor


def to_tensor(image: np.ndarray) -> Tensor:
    """(H, W, C) array -> (C, H, W) tensor of the same type; of 16 bits, with which torch does little, as float32."""
    if image.dtype == np.uint8 and image.shape[2] == 3:
        planes = np.empty((3, *image.shape[:2]), np.uint8)
        cv2.split(image, list(planes))  # several times faster than NumPy's copy
        return torch.from_numpy(planes)
    image = image.astype(np.float32) if image.dtype == np.uint16 else image
    return own_tensor(image.transpose(2, 0, 1))


def own_tensor(array: np.ndarray) -> Tensor:
    """A tensor of an array, copied where it is not in one piece or belongs to a cache of decoded files."""
    return torch.from_numpy(np.require(array, requirements=("C", "W")))


def make_loader(
    dataset: Any, order: Any, num_workers: int, pin_memory: bool = False, persistent: bool = False
) -> DataLoader:
    """A DataLoader over batches of positions; its workers read four batches each ahead.

    Those of a `persistent` one wait for the next pass over it.
    """
    workers = worker_count(num_workers)
    options: dict[str, Any] = {"prefetch_factor": 4, "persistent_workers": persistent} if workers else {}
    return DataLoader(
        Watched(dataset, workers) if workers else dataset,
        batch_sampler=order,
        num_workers=workers,
        collate_fn=collate_shared if workers else collate,
        pin_memory=pin_memory,
        worker_init_fn=start_worker,
        generator=torch.Generator(),  # otherwise every pass would draw from the generator that dropout uses
        **options,
    )


@contextmanager
def loading(loader: DataLoader) -> Iterator[Iterator[Batch]]:
    """The batches; however the context ends, the workers do too, except those of a persistent loader read to its end.

    Raises UserError in place of a LoadError among the batches, and of torch's error about a worker that has died.
    """
    batches: Any = None
    at_end = False

    def checked() -> Iterator[Batch]:
        nonlocal at_end
        while True:
            with losses_raised():
                batch = next(batches, None)
            if batch is None:
                break
            if isinstance(batch, LoadError):
                raise UserError(batch.message)
            yield batch
        at_end = True

    with losses_held_back():
        try:
            batches = iter(loader)
            watched.add(batches)
            yield checked()
        except (RuntimeError, OSError, EOFError) as problem:
            lost = lost_workers(problem, batches)
            if not lost:
                raise
            raise worker_died(problem, loader.dataset, lost) from problem
        finally:
            if not (at_end and loader.persistent_workers):
                end_workers(batches)
