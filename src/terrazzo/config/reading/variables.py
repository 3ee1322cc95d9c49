"""`{{ fileDirname }}`, `{{ $ENV:default }}` and `{{ _base_.a.b }}` in config files.

A unique name replaces each variable in the text, and the readers of `.py`, `.yaml` and `.json` look it up:
a value never becomes part of a file's syntax.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from terrazzo.config.python_files.limits import MAX_STRING, ComputeBudget, Refused, check_length, weigh
from terrazzo.config.reading.merge import parse_value
from terrazzo.config.reading.section import InheritedSection, Section, convert, index, step_into
from terrazzo.errors import nearest

BRACES = re.compile(r"\{\{([^{}]{1,1200})\}\}")
VARIABLE = re.compile(
    r"(?P<file>fileDirname|fileBasenameNoExtension|fileBasename|fileExtname)"
    r"|_base_\.(?P<base>[\w.-]+)"
    r"|\$(?P<env>\w+)\s*(?::(?P<default>.*))?"
)
PLACEHOLDER = re.compile(r"terrazzo_variable_(\d+)_")


class Variables:
    """The variables of one file; `base` is what its base files define."""

    def __init__(
        self,
        path: Path,
        budget: ComputeBudget,
        found: Iterable[re.Match[str]] = (),
        *,
        trust: bool = False,
        secrets: dict[str, Any] | None = None,
    ) -> None:
        self.path, self.budget, self.trust = path, budget, trust
        self.base = Section()
        self.found = list(found)
        self.secrets = {} if secrets is None else secrets  # `{{ $NAME }}` -> the value that the environment gave

    def extract(self, text: str) -> str:
        """Return the text with a name instead of each variable, on the same lines."""

        def replace(match: re.Match[str]) -> str:
            variable = VARIABLE.fullmatch(match[1].strip())
            if variable is None:
                return match[0]
            self.found.append(variable)
            return f"terrazzo_variable_{len(self.found) - 1}_" + "\n" * match[0].count("\n")

        return BRACES.sub(replace, text)

    def is_variable(self, name: str) -> bool:
        """Check for the name of one of this file's variables."""
        match = PLACEHOLDER.fullmatch(name)
        return match is not None and index(match[1], len(self.found)) is not None

    def value(self, name: str, quoted: bool = False) -> Any:
        """The value of a variable; a quoted environment variable is a string, a bare one is parsed.

        Only a trusted file reads the environment: what it holds (tokens, say) could end up in logs and trackers.
        Raises ValueError and Refused, which the readers report with the line.
        """
        match = self.found[int(PLACEHOLDER.fullmatch(name)[1])]  # type: ignore[index]
        if match["file"]:
            return self.file_value(match["file"])
        if match["base"]:
            value = self.base_value(match["base"])
            self.budget.spend(weigh(value, self.budget))
            return convert(value, InheritedSection)
        name, default = match["env"], match["default"]
        text = os.environ.get(name)
        if text is not None and not self.trust:
            raise Refused(f"reads the environment variable {name}")
        if text is None and default is None:
            raise ValueError(f"the environment variable {name} is not set and {{{{ {match[0]} }}}} gives no default")
        found = default.strip() if text is None else text
        value = found if quoted else parse_value(found)
        if text is not None:
            self.secrets[f"{{{{ ${name} }}}}"] = value
        return value

    def fill(self, text: str, quoted: bool = True) -> Any:
        """Fill in the variables of a string; a string that is only a variable becomes its value."""
        if "terrazzo_variable_" not in text:
            return text
        if self.is_variable(text):
            return self.value(text, quoted)
        filled, end = [], 0
        for match in PLACEHOLDER.finditer(text):
            if self.is_variable(match[0]):
                filled += [text[end : match.start()], str(self.value(match[0], quoted=True))]
                end = match.end()
                check_length(sum(map(len, filled)), MAX_STRING, "string")
        return "".join(filled) + text[end:]

    def file_value(self, name: str) -> str:
        """The four facts about the file itself; forward slashes on every system."""
        path = Path(os.path.abspath(self.path))  # noqa: PTH100 (symbolic links stay)
        values = {
            "fileDirname": path.parent.as_posix(),
            "fileBasename": path.name,
            "fileBasenameNoExtension": path.stem,
            "fileExtname": path.suffix,
        }
        return values[name]

    def base_value(self, dotted: str) -> Any:
        """`a.b.0` in the values of the base files. Raises ValueError for a missing key."""
        value: Any = self.base
        for key in dotted.split("."):
            found = step_into(value, key)
            if found is None:
                known = map(str, value) if isinstance(value, dict) else ()
                raise ValueError(f"_base_.{dotted}: the base files do not have '{key}' there{nearest(key, known)}")
            value = found[1]
        return value
