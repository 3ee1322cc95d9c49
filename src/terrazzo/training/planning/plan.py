"""`make_plan`: from a folder or a config to a whole config for a budget of time, each choice with its reason."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from terrazzo.config.load import load_config
from terrazzo.data.cache import free_space
from terrazzo.data.checks.groups import alike, groups_of
from terrazzo.data.checks.survey import SplitSurvey, read_all
from terrazzo.data.discovery.draft import Draft, draft_of
from terrazzo.data.discovery.length import proposed_steps
from terrazzo.data.discovery.propose import Proposal
from terrazzo.data.fingerprint import Fingerprint, take_fingerprint
from terrazzo.data.pairs import fixed_part, names_below
from terrazzo.data.splits import open_splits
from terrazzo.data.wrappers import Dataset
from terrazzo.errors import UserError
from terrazzo.hub.cache import cached
from terrazzo.system.devices import choose_device
from terrazzo.system.terminal import Console
from terrazzo.training.planning import choices
from terrazzo.training.planning.networks import UNET, Network, Section
from terrazzo.training.speed import StepCost, measure_step, rounded

BUDGET = 7200.0  # seconds
STEPS_SHARE = 0.85  # of the budget; the rest is for starting, reading, logging and saving
VALIDATION_SHARE = 0.1  # of the budget, at most
VALIDATIONS = 10
FORWARD = 0.4  # the time of predicting an image once in validation, in that of a training step
ENOUGH_EPOCHS, ENOUGH_STEPS = 60, 400  # what a network needs to be worth its time
FEW_IMAGES = 500  # below which a wide network from random weights mostly learns them by heart
SHORT = 1000  # steps
SEEN_OFTEN = 30  # times that each image is seen, from which colours are varied
MEMORY_SHARE = 0.5  # of the free memory
BATCH = {"cpu": 8, "mps": 8, "cuda": 16}
AVERAGED = 0.1  # of the run: the span of the moving average of the weights


@dataclass
class Planner:
    """A plan in the making."""

    draft: Draft
    facts: Fingerprint
    validation: int  # images
    budget: float  # seconds
    device: torch.device

    def choose(self) -> None:
        """Make every choice, those first that others depend on."""
        draft, facts = self.draft, self.facts
        network = choices.choose_network(draft, facts)
        choices.choose_balance(draft, facts)
        start = self.choose_start(network)
        self.choose_optimizer(network, start, SHORT)
        self.choose_precision(network)
        cost = self.choose_capacity(network, start)
        steps = self.choose_length(cost)
        self.choose_optimizer(network, start, steps)
        choices.choose_crops(draft, facts, self.scaled)
        self.choose_augmentation(steps)
        self.choose_workers(cost)
        draft.set("seed", 0)

    def choose_start(self, network: Network) -> bool:
        """Take published weights where they are on this machine and fit; report whether they are."""
        name, channels = network.pretrained, self.channels
        if not name or channels != 3:
            why = "none are published for it" if not name else f"published ones are for 3 channels, not {channels}"
            self.draft.set("pretrained", "none", f"random weights: {why}")
            return False
        if cached(name) is None:
            why = f"`terrazzo weights get {name}` fetches published ones; then plan again"
            self.draft.set("pretrained", "none", f"random weights: {name} is not on this machine; {why}")
            return False
        self.draft.set("pretrained", name, "published weights, which are on this machine")
        return True

    @property
    def channels(self) -> int:
        bands = self.draft.data.get("bands")
        return len(bands) if bands else int(self.draft.values.get("in_channels", 3))

    def choose_optimizer(self, network: Network, start: bool, steps: int) -> None:
        rate = 0.0005 if start else 0.001 if network is UNET and steps > SHORT else 0.002 if steps > SHORT else 0.004
        why = f"AdamW needs fewer steps than SGD; the rate is for {'published' if start else 'random'} weights"
        self.draft.set("optimizer", {"type": "AdamW", "lr": rate, "weight_decay": 0.05}, f"{why} and {steps} steps")

    def choose_precision(self, network: Network) -> None:
        """Measure a step in float32 and in bfloat16 with channels last, and take the faster one."""
        draft = self.draft
        self.size(network, network.widths[-2], 1.0, "")
        draft.set("amp", False)
        plain = self.measure()
        draft.set("amp", "bf16")
        draft.set("channels_last", True)
        mixed = self.measure()
        speeds = f"{1000 * plain.seconds:.3g} ms an image in float32, {1000 * mixed.seconds:.3g} ms in bf16"
        if mixed.seconds > plain.seconds:
            del draft.values["channels_last"]
            draft.set("amp", False, f"measured on {self.device}: {speeds} with channels last")
        else:
            draft.set("amp", "bf16", f"measured on {self.device}: {speeds} with channels last")
            draft.set("channels_last", True, "suits convolutions in bf16")

    def size(self, network: Network, width: int, scale: float, why: str) -> None:
        """Set the model of a width and the scale of the images."""
        choices.choose_size(self.draft, self.facts, network, scale, why)
        model: Section = network.model(width)
        terms, reason = choices.losses(self.facts)
        model["decode_head"]["loss_decode"] = terms
        if choices.is_dominated(self.facts):
            kept = math.prod(self.crop) // 16  # of each image
            model["decode_head"]["sampler"] = {"type": "OHEMPixelSampler", "thresh": 0.7, "min_kept": kept}
        model["test_cfg"], prediction = choices.prediction(self.facts, scale, self.crop)
        self.draft.set("model", model, f"{network.name}, {width} channels at first; {reason}; {prediction}")

    @property
    def crop(self) -> tuple[int, int]:
        height, width = map(int, self.draft.values["crop"].split("x"))
        return height, width

    def measure(self) -> StepCost:
        """The cost of an image in a step of the draft as it is."""
        try:
            return measure_step(load_config(self.draft.form()), self.device)
        except torch.OutOfMemoryError:
            return StepCost(math.inf, 2**62)

    def choose_capacity(self, network: Network, start: bool) -> StepCost:
        """Take the widest network, on the largest images, that the budget lets see each image often enough."""
        widths = [one for one in network.widths if start or self.facts.images >= FEW_IMAGES or one < network.widths[0]]
        tried = []
        for width in widths[:1] if start else widths:
            for scale, why in choices.scales(self.facts, network):
                self.size(network, width, scale, why)
                cost = self.measure()
                batch = self.batch_limit(cost.memory)
                steps, enough = self.affordable(cost, batch), self.enough(batch)
                if steps >= enough:
                    break
                tried.append(f"{width} channels at {scale:g} times the size would make {steps} steps of {enough}")
            else:
                continue
            break
        if tried:
            self.draft.reasons["model"] += f"; wider or larger does not fit the budget: {tried[-1]}"
        self.choose_batch(cost)
        return cost

    def enough(self, batch: int) -> int:
        """Steps that a network needs to be worth its time."""
        return max(ENOUGH_STEPS, ENOUGH_EPOCHS * self.facts.images // batch)

    def batch_limit(self, memory: int) -> int:
        """The usual batch, or what the free memory holds, which at least two images must."""
        if self.device.type == "cuda":
            free = float(torch.cuda.mem_get_info(self.device)[0])
        else:
            free = free_space("ram", Path.cwd())
        fits = int(MEMORY_SHARE * free / memory)
        return max(2, min(BATCH.get(self.device.type, 8), fits, self.facts.images))

    def choose_batch(self, cost: StepCost) -> None:
        batch = self.batch_limit(cost.memory)
        if batch > 4 and self.affordable(cost, batch) < ENOUGH_STEPS:
            batch = max(4, batch // 2)
            why = f"so that the budget makes more steps; a step keeps {cost.memory / 2**20:.0f} MiB an image"
        else:
            why = f"a step keeps {cost.memory / 2**20:.0f} MiB an image, and takes {1000 * cost.seconds:.3g} ms"
        self.draft.set("batch", batch, f"{why} (measured on {self.device})")

    def validation_seconds(self, cost: StepCost) -> float:
        """Seconds of a validation."""
        height, width = self.facts.size
        area = math.prod(map(int, self.draft.values["resize"].split("x"))) if "resize" in self.draft.values else 0
        share = (area or height * width) / math.prod(self.crop)
        passes = 2 if self.draft.values["model"]["test_cfg"]["mode"] == "slide_flip" else 1
        return FORWARD * passes * self.validation * share * cost.seconds

    def validations(self, cost: StepCost) -> int:
        """The number of validations, within a share of the budget."""
        return max(1, min(VALIDATIONS, int(VALIDATION_SHARE * self.budget / max(1e-9, self.validation_seconds(cost)))))

    def affordable(self, cost: StepCost, batch: int) -> int:
        """The steps that the budget allows."""
        if math.isinf(cost.seconds):
            return 0
        rest = STEPS_SHARE * self.budget - self.validations(cost) * self.validation_seconds(cost)
        return max(0, int(rest / (cost.seconds * batch)))

    def choose_length(self, cost: StepCost) -> int:
        """Set `iterations` and `val_interval`. Raises UserError for too short a budget or too little memory."""
        batch, images = self.draft.values["batch"], self.facts.images
        if math.isinf(cost.seconds):
            raise UserError(f"not even two crops of {self.draft.values['crop']} fit into the memory of {self.device}")
        most = self.affordable(cost, batch)
        if most < VALIDATIONS:
            seconds = cost.seconds * batch
            raise UserError(
                f"a step takes {seconds:.3g} s on {self.device}, and {rounded(self.budget)} allow {most} of them: give "
                f"a --budget of at least {rounded(math.ceil(ENOUGH_STEPS * seconds / STEPS_SHARE))}"
            )
        height, width = (side * math.sqrt(self.scaled) for side in self.facts.size)
        crops = max(1.0, height * width / math.prod(self.crop))
        useful = proposed_steps(round(images * crops), batch)
        steps = two_digits(min(most, useful))
        seen = f"{steps * batch / images:.3g} epochs of {images} images"
        why = f"{seen}: the budget of {rounded(self.budget)} allows {most}"
        why += f", {useful} are of use" if useful < most else f", of {useful} that would be of use"
        takes = steps * batch * cost.seconds + self.validations(cost) * self.validation_seconds(cost)
        self.draft.set("iterations", steps, f"{why}; about {rounded(takes)}")
        count = self.validations(cost)
        why = f"{count} validations of {self.validation} images, about {rounded(self.validation_seconds(cost))} each"
        self.draft.set("val_interval", math.ceil(steps / count), why)
        return steps

    @property
    def scaled(self) -> float:
        """The area of scaled images in that of the stored ones."""
        size = self.draft.values.get("resize")
        return math.prod(map(int, size.split("x"))) / math.prod(self.facts.size) if size else 1.0

    def choose_augmentation(self, steps: int) -> None:
        """Set what the length of training decides: scaling, colours, and an average of the weights."""
        draft, seen = self.draft, steps * self.draft.values["batch"] / self.facts.images
        is_thin = draft.values["recipe"] == UNET.recipe
        is_short = is_thin or steps < SHORT
        why = "mild, as thin structures would vanish" if is_thin else "mild in a short run" if is_short else "wide"
        why += f": {steps} steps, {seen:.0f} epochs"
        draft.set("ratio_range", [0.75, 1.5] if is_short else [0.5, 1.75], why)
        if seen < SEEN_OFTEN and "bands" not in draft.data:
            draft.set("photometric", "none", f"each image is seen {seen:.0f} times: too few to vary its colours too")
        share = min(0.999, round(1 - 1 / (AVERAGED * steps), 3))
        if steps >= SHORT // 2:
            draft.set(
                "ema", share, f"an average over about {1 / (1 - share):.0f} of the {steps} steps is scored, saved"
            )

    def choose_workers(self, cost: StepCost) -> None:
        """Time the reading of some images, and take as many processes as keep up with the steps."""
        dataset = open_splits(load_config(self.draft.form()), ["train"])["train"]
        count = min(4, len(dataset))
        start = time.perf_counter()
        for index in range(count):
            dataset[0, index]
        reading = (time.perf_counter() - start) / count
        most = max(1, (os.cpu_count() or 2) - 1)
        workers = max(1, min(most, math.ceil(reading / cost.seconds)))
        why = f"an image takes {1000 * reading:.3g} ms to read and {1000 * cost.seconds:.3g} ms in a step"
        self.draft.set("workers", workers, why)


def two_digits(number: int) -> int:
    """The number, its digits after the second one replaced by zeros."""
    unit = 10 ** max(0, len(str(number)) - 2)
    return number // unit * unit


def make_plan(
    source: str | Path, budget: float = BUDGET, device: str | None = None, console: Console | None = None
) -> tuple[Draft, list[tuple[str, str]]]:
    """A whole config in the short form for a folder of images and labels, or for the data of another config.

    Beside it the groups of images that a validation set drawn from them must not split, as names of images and groups.

    `budget` is the time for training, in seconds. Raises UserError for data that cannot be learned from, and for a
    budget that is too short for a training.
    """
    path = Path(source)
    draft: Draft = Proposal(path, UNET.recipe, console) if path.is_dir() else draft_of(path)
    splits = {split: draft.open(split) for split in ("train", "val")}
    facts = take_fingerprint(splits["train"], console)
    validation = len(splits["val"])
    Planner(draft, facts, validation, budget, choose_device(device)).choose()
    order = ("recipe", "pretrained", "model", "in_channels", "mean", "std", "resize", "crop", "ratio_range")
    first: dict[str, Any] = {key: draft.values[key] for key in order if key in draft.values}
    draft.values = first | draft.values
    return draft, find_groups(draft, splits, console)


def find_groups(draft: Draft, splits: Mapping[str, Dataset], console: Console | None) -> list[tuple[str, str]]:
    """The groups of images where a share of them, without groups of its own, is held out for validation."""
    if not isinstance(draft.data.get("val"), float) or {"groups", "windows"} & draft.data.keys():
        return []
    both = [SplitSurvey.of(split, dataset.leaves()) for split, dataset in splits.items()]
    read_all(both, console=console)
    entries = [entry for split in both for entry in split.entries]
    folder = fixed_part(Path(draft.root, draft.data["images"]))
    names = names_below(folder, [entry.image for entry in entries])
    found = groups_of(names, alike(entries))
    if found is None:
        return []
    groups, draft.reasons["groups"] = found
    return sorted(zip(names, groups, strict=True))
