"""MMSegmentation's import names, answered with terrazzo's parts: `import terrazzo.compat`, then your modules run."""

from typing import Any

from terrazzo.compat.finder import add_fork, install

install()


def import_project(config: Any) -> list[str]:
    """Import the modules of a trusted config's project that define its types; returns their names."""
    from terrazzo.compat import forks

    return forks.import_project(config)


__all__ = ["add_fork", "import_project", "install"]
