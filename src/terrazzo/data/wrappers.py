"""Data sets built from others: joined, repeated, balanced, mixed."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from terrazzo.errors import UserError
from terrazzo.sample import Sample
from terrazzo.transforms.compose import Compose, build_steps
from terrazzo.transforms.mix import Mixing

if TYPE_CHECKING:
    from terrazzo.data.dataset import LoadError, SegmentationDataset

Position = tuple[int, int]  # epoch, index
MIXING_STREAM = 1  # keeps a mixture's random numbers apart from those of the samples that go into it


def as_position(position: int | Position) -> Position:
    """Return (epoch, index); a mere index is of epoch 0."""
    return position if isinstance(position, tuple) else (0, position)


class Dataset(Protocol):
    """Samples by (epoch, index), with the classes that their labels have; those inside others are its `parts`."""

    classes: tuple[str, ...]
    palette: list[list[int]]
    parts: Sequence[Dataset] = ()

    def origins(self) -> list[tuple[SegmentationDataset, int]]:
        """The data set on disk and the index in it that each sample comes from."""
        return [origin for part in self.parts for origin in part.origins()]

    def leaves(self) -> list[SegmentationDataset]:
        """The data sets on disk."""
        return [leaf for part in self.parts for leaf in part.leaves()]

    def read_image(self, sample: Sample) -> np.ndarray:
        """Return the image of one of the samples as it is stored."""
        return next(leaf for leaf in self.leaves() if sample.image_path in leaf.images).read_image(sample)

    def __len__(self) -> int:
        return sum(len(part) for part in self.parts)

    def __getitem__(self, position: int | Position) -> Sample | list[Sample] | LoadError:
        raise NotImplementedError


class Wrapper(Dataset):
    """A data set that reads its samples from `parts`, whose classes are those of the first."""

    def __init__(self, parts: Sequence[Dataset]) -> None:
        self.parts = list(parts)
        self.classes, self.palette = self.parts[0].classes, self.parts[0].palette


class ConcatDataset(Wrapper):
    """Several data sets one after the other."""

    def __init__(self, datasets: Sequence[Dataset]) -> None:
        super().__init__(datasets)
        self.starts = np.cumsum([0, *(len(dataset) for dataset in datasets)])

    def __getitem__(self, position: int | Position) -> Sample | list[Sample] | LoadError:
        epoch, index = as_position(position)
        which = int(np.searchsorted(self.starts, index, side="right")) - 1
        return self.parts[which][epoch, index - int(self.starts[which])]


class RepeatDataset(Wrapper):
    """A data set `times` over; every repetition draws its own randomness."""

    def __init__(self, dataset: Dataset, times: int) -> None:
        super().__init__([dataset])
        self.dataset, self.times = dataset, times

    def origins(self) -> list[tuple[SegmentationDataset, int]]:
        return self.dataset.origins() * self.times

    def __len__(self) -> int:
        return self.times * len(self.dataset)

    def __getitem__(self, position: int | Position) -> Sample | list[Sample] | LoadError:
        epoch, index = as_position(position)
        repetition, inner = divmod(index, len(self.dataset))
        return self.dataset[epoch * self.times + repetition, inner]


class ClassBalancedDataset(Wrapper):
    """Images that show rare classes several times over (repeat factor sampling; Gupta et al., LVIS, CVPR 2019).

    A class that a share f of the images shows requires sqrt(`oversample_thr` / f) times, at least one; an image is
    repeated as often as the rarest of its classes requires, rounded up.
    """

    def __init__(self, dataset: Dataset, oversample_thr: float) -> None:
        super().__init__([dataset])
        self.dataset = dataset
        shown = shown_classes(dataset)  # images, classes
        wanted = np.sqrt(oversample_thr / np.maximum(shown.mean(axis=0), 1e-12)).clip(min=1)
        times = np.ceil(np.where(shown, wanted, 1).max(axis=1)).astype(int)
        self.indices = np.repeat(np.arange(len(dataset)), times)
        self.repetitions = np.concatenate([np.arange(count) for count in times])
        self.most = int(times.max())

    def origins(self) -> list[tuple[SegmentationDataset, int]]:
        inner = self.dataset.origins()
        return [inner[index] for index in self.indices]

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, position: int | Position) -> Sample | list[Sample] | LoadError:
        epoch, index = as_position(position)
        return self.dataset[epoch * self.most + int(self.repetitions[index]), int(self.indices[index])]


def shown_classes(dataset: Dataset) -> np.ndarray:
    """Mark the classes (columns) that each image (row) shows, by its label file. Raises UserError without labels."""
    labels = [(leaf, leaf.pairs[index][1]) for leaf, index in dataset.origins()]
    paths = [(leaf, path) for leaf, path in labels if path is not None]
    if len(paths) < len(labels):
        raise UserError("ClassBalancedDataset needs labels: data_prefix has no seg_map_path")
    different = list(dict.fromkeys(paths))
    with ThreadPoolExecutor() as pool:
        counts = dict(zip(different, pool.map(lambda item: item[0].check_label(item[1]) > 0, different), strict=True))
    return np.stack([counts[item] for item in paths])


class MultiImageMixDataset(Wrapper):
    """A data set whose samples go through a second `pipeline`, where transforms may mix several of them.

    `skip_type_keys` names transforms of the pipeline to skip.
    """

    def __init__(
        self, dataset: Dataset, pipeline: Sequence[Any], skip_type_keys: Sequence[str] = (), seed: int = 0
    ) -> None:
        super().__init__([dataset])
        self.dataset, self.seed = dataset, seed
        stages: list[tuple[Mixing | None, list[Any]]] = [(None, [])]  # a transform that mixes begins a new one
        for transform in build_steps(pipeline):
            if type(transform).__name__ in skip_type_keys:
                continue
            if isinstance(transform, Mixing):
                stages.append((transform, []))
            else:
                stages[-1][1].append(transform)
        self.stages = [(mixing, Compose(steps)) for mixing, steps in stages]

    def __getitem__(self, position: int | Position) -> Sample | list[Sample] | LoadError:
        epoch, index = as_position(position)
        rng = np.random.default_rng([self.seed, epoch, index, MIXING_STREAM])
        sample: Any = self.dataset[epoch, index]
        for mixing, pipeline in self.stages:
            if not isinstance(sample, Sample):
                return sample
            if mixing is not None:
                others = [self.dataset[epoch, other] for other in mixing.get_indices(len(self.dataset), rng)]
                partners = [other for other in others if isinstance(other, Sample)]
                if len(partners) < len(others):
                    return next(other for other in others if not isinstance(other, Sample))
                sample = mixing(sample, rng, partners)
            sample = pipeline(sample, rng)
        return sample
