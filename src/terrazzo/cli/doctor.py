"""`terrazzo doctor`."""

from __future__ import annotations

import argparse
import importlib.metadata
import os
import platform
import re

import terrazzo


def add_arguments(parser: argparse.ArgumentParser) -> None:
    pass


def run(args: argparse.Namespace) -> int:
    """Print versions, devices and missing extras. Return 1 if a required package is missing, else 0."""
    print(f"terrazzo {terrazzo.__version__}, Python {platform.python_version()}, {platform.platform()}")
    required, extras = requirements()
    missing = [name for name in required if not report(name)]
    if "torch" not in missing:
        import torch

        devices = ["cpu", *[torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]]
        print(f"devices: {', '.join(devices)}; {os.cpu_count()} cores, {torch.get_num_threads()} threads")
    print("extras:")
    for extra, names in extras.items():
        absent = [name for name in names if version(name) is None]
        print(
            f"  {extra}: "
            + (f'pip install "terrazzo[{extra}]" ({", ".join(absent)} missing)' if absent else "installed")
        )
    print("missing: " + ", ".join(missing) if missing else "all required packages are installed")
    return 1 if missing else 0


def requirements() -> tuple[list[str], dict[str, list[str]]]:
    """The names of the required packages and of those of each extra, from the metadata of this package."""
    required: list[str] = []
    extras: dict[str, list[str]] = {}
    for line in importlib.metadata.requires("terrazzo") or []:
        name = re.split(r"[^\w.-]", line, maxsplit=1)[0]
        extra = re.search(r"extra == ['\"]([\w-]+)", line)
        if extra:
            extras.setdefault(extra.group(1), []).append(name)
        else:
            required.append(name)
    return required, extras


def version(name: str) -> str | None:
    """The installed version of a package; any build of OpenCV counts as the headless one."""
    for candidate in (name, *(["opencv-python", "opencv-contrib-python"] if name.startswith("opencv") else [])):
        try:
            return importlib.metadata.version(candidate)
        except importlib.metadata.PackageNotFoundError:  # noqa: PERF203
            continue
    return None


def report(name: str) -> bool:
    """Print a package's version and return whether it is installed."""
    found = version(name)
    print(f"  {name} {found or 'MISSING'}")
    return found is not None
