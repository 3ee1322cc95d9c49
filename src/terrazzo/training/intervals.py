"""The steps after which a run logs, validates and saves."""

from __future__ import annotations

from terrazzo.config.experiment import RunSettings


class Intervals:
    """The intervals of a run; its length and they are in steps or in epochs of `steps_per_epoch`."""

    def __init__(self, settings: RunSettings, steps_per_epoch: int) -> None:
        self.settings, self.steps_per_epoch = settings, steps_per_epoch
        self.total = settings.length * self.steps_in(settings.unit)

    def steps_in(self, unit: str) -> int:
        """Steps in one unit of a length or interval."""
        return self.steps_per_epoch if unit == "epoch" else 1

    def is_due(self, step: int, interval: int | None, unit: str, begin: int = 1) -> bool:
        """Return whether something done every `interval` units is due after a step; at the run's end it always is."""
        length = self.steps_in(unit)
        due = interval is not None and step % (interval * length) == 0 and step >= begin * length
        return due or step == self.total

    def logs(self, step: int) -> bool:
        """Return whether the mean losses are logged after a step."""
        return step % self.settings.log_interval == 0 or step == self.total

    def saves(self, step: int) -> bool:
        """Return whether the state is saved after a step."""
        return self.is_due(step, self.settings.checkpoint_interval, self.settings.checkpoint_unit)

    def validates(self, step: int) -> bool:
        """Return whether the model is scored after a step."""
        done = step // self.steps_in(self.settings.unit)
        interval = self.settings.val_interval
        for begin, own in self.settings.val_intervals:
            interval = own if done + 1 >= begin else interval
        return self.is_due(step, interval, self.settings.unit, self.settings.val_begin)
