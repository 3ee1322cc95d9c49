"""Reading the command line: other spellings are understood, and errors name what was probably meant."""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterator, Sequence
from typing import Any, NoReturn

from terrazzo.errors import nearest

CHECKPOINTS = (".pth", ".pt", ".safetensors")
# names of other programs for what a command does
INSTEAD = {
    "infer": "predict", "inference": "predict", "segment": "predict", "fit": "train", "eval": "test", "val": "test",
    "evaluate": "test", "validate": "test", "validation": "test", "init": "data init", "check": "data check",
    "browse": "data browse", "browse_dataset": "data browse", "stats": "data stats", "convert": "data convert",
    "convert_datasets": "data convert", "print_config": "config show", "upgrade": "config upgrade",
    "get_flops": "model info", "flops": "model info", "info": "model info", "inspect": "checkpoint inspect",
    "publish": "checkpoint publish", "publish_model": "checkpoint publish", "analyze_logs": "log plot",
    "plot": "log plot", "logs": "log plot", "download": "weights get", "get": "weights get", "list": "recipe list",
    "search": "recipe search", "show": "recipe show", "recipes": "recipe list", "models": "recipe list",
}  # fmt: skip


class Parser(argparse.ArgumentParser):
    """A parser whose errors name the nearest of the known words."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**({"formatter_class": argparse.RawDescriptionHelpFormatter} | options))

    def error(self, message: str) -> NoReturn:
        found = re.search(r"^(.*)invalid choice: '(.*?)' \(choose from (.*)\)$", message)
        if found:
            choices = re.findall(r"[\w.-]+", found[3])
            message = f"{found[1]}'{found[2]}' is none of {', '.join(choices)}{nearest(found[2], choices)}"
        self.exit(2, f"usage: {self.prog} ... ({self.prog} --help explains it)\n{self.prog}: error: {message}\n")

    def innermost(self, args: argparse.Namespace) -> argparse.ArgumentParser:
        """The parser of the command, or of the command's action, that was called."""
        parser: argparse.ArgumentParser = self
        while (action := subcommands(parser)) is not None:
            parser = action.choices[getattr(args, action.dest)]
        return parser

    def parse_args(self, arguments: Any = None, namespace: Any = None) -> Any:
        args, unknown = self.parse_known_args(arguments, namespace)
        if unknown:
            parser = self.innermost(args)
            parser.error("; ".join(explained(unknown, list(flags(parser)))))
        return args


def subcommands(parser: argparse.ArgumentParser) -> Any:
    """The action that holds a parser's subcommands; None without any."""
    return next((action for action in parser._actions if isinstance(action, argparse._SubParsersAction)), None)


def flags(parser: argparse.ArgumentParser) -> Iterator[str]:
    """The flags that a parser shows in its help."""
    for action in parser._actions:
        if action.help != argparse.SUPPRESS:
            yield from (name for name in action.option_strings if name.startswith("--"))


def explained(unknown: Sequence[str], known: Sequence[str]) -> Iterator[str]:
    """Describe the error in each argument that a command does not take."""
    has_flags = any(argument.startswith("-") for argument in unknown)
    for argument in unknown:
        flag = argument.partition("=")[0]
        if flag.startswith("-"):
            exact = flag.replace("_", "-")
            meant = f"; did you mean '{exact}'?" if exact in known else nearest(flag, known)
            yield f"there is no {flag}{meant}"
        elif not has_flags:
            yield f"'{argument}' is one argument too many"


def spelled(arguments: Sequence[str]) -> list[str]:
    """The arguments with `--resume STATE` as `--resume-from STATE`; `--resume` itself takes no value."""
    found: list[str] = []
    for argument in arguments:
        if argument.startswith("--resume="):
            argument = f"--resume-from={argument.partition('=')[2]}"
        elif found and found[-1] == "--resume" and argument.endswith(CHECKPOINTS):
            found[-1] = "--resume-from"
        found.append(argument)
    return found
