"""Loggers and shared values of mmengine, on the standard library."""

from __future__ import annotations

import logging
from typing import Any

import numpy as np


def get_logger(name: str, log_file: Any = None, log_level: int = logging.INFO, file_mode: str = "w") -> logging.Logger:
    """A logger of the standard library below terrazzo's."""
    return logging.getLogger(f"terrazzo.{name}" if name else "terrazzo")


def get_root_logger(log_file: Any = None, log_level: int = logging.INFO) -> logging.Logger:
    return get_logger("mmseg")


def print_log(msg: Any, logger: Any = None, level: int = logging.INFO) -> None:
    """Log a message; without a logger print it, and for "silent" do nothing."""
    if logger is None:
        print(msg)
    elif logger != "silent":
        (logger if isinstance(logger, logging.Logger) else get_logger("mmseg")).log(level, msg)


class MMLogger(logging.Logger):
    """Named loggers of the process."""

    @classmethod
    def get_instance(cls, name: str = "mmengine", **kwargs: Any) -> logging.Logger:
        return get_logger(name)

    @classmethod
    def get_current_instance(cls) -> logging.Logger:
        return get_logger("mmengine")

    @classmethod
    def check_instance_created(cls, name: str) -> bool:
        return True


class HistoryBuffer:
    """The values of a scalar."""

    def __init__(self) -> None:
        self.values: list[float] = []

    def update(self, value: Any, count: int = 1) -> None:
        self.values.append(float(value))

    def current(self) -> float:
        return self.values[-1]

    def mean(self, window_size: int | None = None) -> float:
        return float(np.mean(self.values[-(window_size or 0) :]))


class MessageHub:
    """Named values that parts of a program share."""

    _hubs: dict[str, MessageHub] = {}

    def __init__(self, name: str = "mmengine") -> None:
        self.instance_name, self.runtime_info = name, {}  # type: ignore[var-annotated]
        self.log_scalars: dict[str, HistoryBuffer] = {}

    @classmethod
    def get_instance(cls, name: str = "mmengine", **kwargs: Any) -> MessageHub:
        return cls._hubs.setdefault(name, cls(name))

    @classmethod
    def get_current_instance(cls) -> MessageHub:
        return cls.get_instance()

    def update_info(self, key: str, value: Any, resumed: bool = True) -> None:
        self.runtime_info[key] = value

    def get_info(self, key: str, default: Any = None) -> Any:
        return self.runtime_info.get(key, default)

    def update_scalar(self, key: str, value: Any, count: int = 1, resumed: bool = True) -> None:
        self.log_scalars.setdefault(key, HistoryBuffer()).update(value, count)

    def get_scalar(self, key: str) -> HistoryBuffer:
        return self.log_scalars[key]


class ManagerMixin:
    """A class with named instances."""

    def __init__(self, name: str = "", **kwargs: Any) -> None:
        self.instance_name = name

    @classmethod
    def get_instance(cls, name: str, **kwargs: Any) -> Any:
        return vars(cls).setdefault("_instances", {}).setdefault(name, cls(name=name, **kwargs))  # type: ignore[attr-defined]
