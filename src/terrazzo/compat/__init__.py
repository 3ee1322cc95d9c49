"""MMSegmentation's import names, answered with terrazzo's parts: `import terrazzo.compat`, then your modules run."""

import sys
from pathlib import Path
from typing import Any

from terrazzo.compat.finder import add_fork, install
from terrazzo.config.projects import project_of

install()


def prepare(config: Path) -> None:
    """Let a trusted config's own imports find its project's modules, and the packages that those import."""
    install()
    root = str(project_of(config))
    if root not in sys.path:
        sys.path.insert(0, root)  # before what is installed, as the authors run it


def import_project(config: Any) -> list[str]:
    """Import the modules of a trusted config's project that define its types; returns their names."""
    from terrazzo.compat import forks

    return forks.import_project(config)


__all__ = ["add_fork", "import_project", "install", "prepare"]
