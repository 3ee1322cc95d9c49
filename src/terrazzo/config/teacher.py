"""The key `teacher`: trained models that a run's model learns from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from terrazzo.arguments import check_keys, shown
from terrazzo.config.sections import number, wrong
from terrazzo.errors import UserError

KEYS = ("weights", "loss_weight", "temperature", "features")


@dataclass(frozen=True)
class TeacherSettings:
    """Files of trained models, and the weights of the losses towards their logits and their features (0: none)."""

    weights: tuple[str, ...]
    loss_weight: float = 1.0
    temperature: float = 1.0  # both distributions are softened by it
    features: float = 0.0


def teacher_settings(value: Any) -> TeacherSettings | None:
    """Read `teacher`: a file, several, or a section of options. Raises UserError for a wrong key or value."""
    if value is None:
        return None
    section = value if isinstance(value, Mapping) else {"weights": value}
    check_keys(section, KEYS, "teacher")
    files = section.get("weights")
    files = [files] if isinstance(files, str) else files
    if not isinstance(files, (list, tuple)) or not files or not all(isinstance(one, str) and one for one in files):
        raise UserError(f"teacher must name weights of trained models, such as [best.safetensors], not {shown(value)}")
    settings = TeacherSettings(
        tuple(files),
        number(section, "loss_weight", 1.0, "teacher"),
        number(section, "temperature", 1.0, "teacher"),
        number(section, "features", 0.0, "teacher"),
    )
    if settings.temperature == 0:
        raise wrong(section, "temperature", "teacher", "a number above 0")
    if not settings.loss_weight and not settings.features:
        raise UserError("teacher: `loss_weight` and `features` are both 0, so nothing would be learned from it")
    return settings
