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

from terrazzo.config.python_files.limits import MAX_STRING, ComputeBudget, check_length, weigh
from terrazzo.config.reading.merge import parse_value
from terrazzo.config.reading.section import InheritedSection, Section, convert
from terrazzo.errors import nearest

VARIABLE = re.compile(
    r"\{\{\s*(?:"
    r"(?P<file>fileDirname|fileBasenameNoExtension|fileBasename|fileExtname)"
    r"|_base_\.(?P<base>[\w.-]+)"
    r"|\$(?P<env>\w+)\s*(?::\s*(?P<default>[^{}\n]{0,1000}?))?"
    r")\s*\}\}"
)
PLACEHOLDER = re.compile(r"terrazzo_variable_(\d+)_")


class Variables:
    """The variables of one file; `base` is what its base files define."""

    def __init__(self, path: Path, budget: ComputeBudget, found: Iterable[re.Match[str]] = ()) -> None:
        self.path, self.budget = path, budget
        self.base = Section()
        self.found = list(found)

    def extract(self, text: str) -> str:
        """Return the text with a name instead of each variable, on the same lines."""

        def replace(match: re.Match[str]) -> str:
            self.found.append(match)
            return f"terrazzo_variable_{len(self.found) - 1}_" + "\n" * match[0].count("\n")

        return VARIABLE.sub(replace, text)

    def is_variable(self, name: str) -> bool:
        """Check for the name of one of this file's variables."""
        match = PLACEHOLDER.fullmatch(name)
        return match is not None and int(match[1]) < len(self.found)

    def value(self, name: str, quoted: bool = False) -> Any:
        """The value of a variable; a quoted environment variable is a string, a bare one is parsed.

        Raises ValueError and Refused, which the readers report with the line.
        """
        match = self.found[int(PLACEHOLDER.fullmatch(name)[1])]  # type: ignore[index]
        if match["file"]:
            return self.file_value(match["file"])
        if match["base"]:
            value = self.base_value(match["base"])
            self.budget.spend(weigh(value, self.budget))
            return convert(value, InheritedSection)
        text = os.environ.get(match["env"], match["default"])
        if text is None:
            raise ValueError(f"the environment variable {match['env']} is not set and {match[0]} gives no default")
        return text if quoted else parse_value(text)

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
            if isinstance(value, (list, tuple)) and key.isdecimal() and int(key) < len(value):
                value = value[int(key)]
            elif isinstance(value, dict) and key in value:
                value = value[key]
            else:
                known = map(str, value) if isinstance(value, dict) else ()
                raise ValueError(f"_base_.{dotted}: the base files do not have '{key}' there{nearest(key, known)}")
        return value
