"""Data sets made of others: joined, repeated, balanced, mixed."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from terrazzo.errors import UserError
from terrazzo.sample import Sample
from terrazzo.transforms import Compose

Position = tuple[int, int]  # epoch, index
MIXING_STREAM = 1  # keeps a mixture's random numbers apart from those of the samples that go into it


def as_position(position: int | Position) -> Position:
    """(epoch, index); a mere index is of epoch 0."""
    return position if isinstance(position, tuple) else (0, position)


class Wrapper:
    """A data set that reads its samples from `parts`, whose classes are those of the first."""

    def __init__(self, parts: Sequence[Any]) -> None:
        self.parts = list(parts)
        self.classes, self.palette = self.parts[0].classes, self.parts[0].palette

    def origins(self) -> list[tuple[Any, int]]:
        """The data set on disk and the index in it that each sample comes from."""
        return [origin for part in self.parts for origin in origins(part)]

    def __len__(self) -> int:
        return sum(len(part) for part in self.parts)


def origins(dataset: Any) -> list[tuple[Any, int]]:
    """The data set on disk and the index in it of every sample, through any wrappers."""
    return dataset.origins() if isinstance(dataset, Wrapper) else [(dataset, index) for index in range(len(dataset))]


class ConcatDataset(Wrapper):
    """Several data sets one after the other."""

    def __init__(self, datasets: Sequence[Any]) -> None:
        if not datasets:
            raise UserError("ConcatDataset: `datasets` is empty")
        super().__init__(datasets)
        self.starts = np.cumsum([0, *(len(dataset) for dataset in datasets)])

    def locate(self, index: int) -> tuple[Any, int]:
        """The data set of an index and the index inside it."""
        which = int(np.searchsorted(self.starts, index, side="right")) - 1
        return self.parts[which], index - int(self.starts[which])

    def __getitem__(self, position: int | Position) -> Any:
        epoch, index = as_position(position)
        dataset, inner = self.locate(index)
        return dataset[epoch, inner]


class RepeatDataset(Wrapper):
    """A data set `times` over; every repetition draws its own randomness."""

    def __init__(self, dataset: Any, times: int) -> None:
        super().__init__([dataset])
        self.dataset, self.times = dataset, times

    def origins(self) -> list[tuple[Any, int]]:
        return origins(self.dataset) * self.times

    def __len__(self) -> int:
        return self.times * len(self.dataset)

    def __getitem__(self, position: int | Position) -> Any:
        epoch, index = as_position(position)
        repetition, inner = divmod(index, len(self.dataset))
        return self.dataset[epoch * self.times + repetition, inner]


class ClassBalancedDataset(Wrapper):
    """Images that show rare classes several times over (repeat factor sampling; Gupta et al., LVIS, CVPR 2019).

    A class that a share f of the images shows asks for sqrt(`oversample_thr` / f) times, at least one; an image comes
    as often as the rarest of its classes asks for, rounded up.
    """

    def __init__(self, dataset: Any, oversample_thr: float) -> None:
        if not 0 < oversample_thr <= 1:
            raise UserError(f"ClassBalancedDataset: oversample_thr is a share of the images, not {oversample_thr}")
        super().__init__([dataset])
        self.dataset = dataset
        shown = shown_classes(dataset)  # images, classes
        wanted = np.sqrt(oversample_thr / np.maximum(shown.mean(axis=0), 1e-12)).clip(min=1)
        times = np.ceil(np.where(shown, wanted, 1).max(axis=1)).astype(int)
        self.indices = np.repeat(np.arange(len(dataset)), times)
        self.repetitions = np.concatenate([np.arange(count) for count in times])
        self.most = int(times.max())

    def origins(self) -> list[tuple[Any, int]]:
        inner = origins(self.dataset)
        return [inner[index] for index in self.indices]

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, position: int | Position) -> Any:
        epoch, index = as_position(position)
        return self.dataset[epoch * self.most + int(self.repetitions[index]), int(self.indices[index])]


def shown_classes(dataset: Any) -> np.ndarray:
    """Whether each image (rows) shows each class (columns), from the label files. Raises UserError without labels."""
    paths = [(leaf, leaf.pairs[index][1]) for leaf, index in origins(dataset)]
    if any(path is None for _, path in paths):
        raise UserError("ClassBalancedDataset needs labels: data_prefix has no seg_map_path")
    different = list(dict.fromkeys(paths))
    with ThreadPoolExecutor() as pool:
        counts = dict(zip(different, pool.map(lambda item: item[0].check_label(item[1]) > 0, different), strict=True))
    return np.stack([counts[item] for item in paths])


class MultiImageMixDataset(Wrapper):
    """A data set whose samples go through a second `pipeline`, where transforms may mix several of them.

    `skip_type_keys` names transforms of the pipeline to leave out.
    """

    def __init__(
        self, dataset: Any, pipeline: Sequence[Any], skip_type_keys: Sequence[str] | None = None, seed: int = 0
    ) -> None:
        super().__init__([dataset])
        self.dataset, self.seed = dataset, seed
        stages: list[list[Any]] = [[]]  # a transform that mixes begins a new one
        for transform in Compose(pipeline).transforms:
            if type(transform).__name__ in (skip_type_keys or ()):
                continue
            if hasattr(transform, "get_indices"):
                stages.append([])
            stages[-1].append(transform)
        self.stages = [Compose(stage) for stage in stages if stage]

    def __getitem__(self, position: int | Position) -> Any:
        epoch, index = as_position(position)
        rng = np.random.default_rng([self.seed, epoch, index, MIXING_STREAM])
        sample = self.dataset[epoch, index]
        for stage in self.stages:
            first = stage.transforms[0]
            if isinstance(sample, Sample) and hasattr(first, "get_indices"):
                partners = [self.dataset[epoch, other] for other in first.get_indices(len(self.dataset), rng)]
                failures = [partner for partner in partners if not isinstance(partner, Sample)]
                if failures:
                    return failures[0]
                sample.meta["mix_samples"] = partners
            if not isinstance(sample, Sample):
                return sample
            sample = stage(sample, rng)
        return sample


WRAPPERS: dict[str, Any] = {
    kind.__name__: kind for kind in (ConcatDataset, RepeatDataset, ClassBalancedDataset, MultiImageMixDataset)
}
