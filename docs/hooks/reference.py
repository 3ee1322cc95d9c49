"""The pages of the reference, made from what they describe: parsers, schema, recipes, registries."""

from __future__ import annotations

import argparse
import re
import textwrap
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import costs

import terrazzo as tz
from terrazzo.cli.main import GROUPS, make_parser
from terrazzo.cli.parser import subcommands
from terrazzo.config.explain import ABOUT as KEYS_1X
from terrazzo.config.short_form.schema import json_schema
from terrazzo.models.info import list_types, model_kind
from terrazzo.recipes import info
from terrazzo.recipes.about import ABOUT as FAMILIES

EXPORTS = Path(__file__).parents[1] / "export-models.md"
PUBLIC = {
    "The functions of `tz`": (
        ("tz.load", "terrazzo.inference.load.load"),
        ("tz.load_config", "terrazzo.config.load.load_config"),
        ("tz.build_model", "terrazzo.models.build.build_model"),
        ("tz.load_checkpoint", "terrazzo.models.checkpoint.load_checkpoint"),
        ("tz.train", "terrazzo.training.train.train"),
        ("tz.evaluate", "terrazzo.evaluation.evaluate.evaluate"),
        ("tz.export", "terrazzo.exporting.export.export"),
        ("tz.recipes.names", "terrazzo.recipes.compose.names"),
        ("tz.recipes.recipe", "terrazzo.recipes.compose.recipe"),
        ("tz.recipes.info", "terrazzo.recipes.compose.info"),
    ),
    "What they return": (
        ("Segmenter", "terrazzo.inference.segmenter.Segmenter"),
        ("Prediction", "terrazzo.inference.segmenter.Prediction"),
        ("Config", "terrazzo.config.config.Config"),
        ("LoadReport", "terrazzo.models.checkpoint.LoadReport"),
        ("Run", "terrazzo.training.train.Run"),
        ("RecipeInfo", "terrazzo.recipes.published.RecipeInfo"),
        ("UserError", "terrazzo.errors.UserError"),
    ),
    "For parts of your own": (
        ("Registry", "terrazzo.registry.Registry"),
        ("DecodeHead", "terrazzo.models.heads.base.DecodeHead"),
        ("Sample", "terrazzo.sample.Sample"),
        ("Metric", "terrazzo.metrics.base.Metric"),
    ),
}

COMMANDS = """\
# Commands

Made from the parsers: `terrazzo COMMAND --help` says the same. `python -m terrazzo` is the same program. Exit codes
are 0 (success), 1 (failure), 2 (wrong usage) and 70 (a fault of terrazzo)."""
CONFIG = """\
# Config keys

`terrazzo config explain KEY CONFIG` also shows the value of a key and the line that sets it. An unknown key is an
error that names the nearest ones.

## The short form

For your own images ([more on it](../training.md#the-short-form)). `terrazzo config schema` writes the schema that the
tables are made from."""
VOCABULARY = """\
## The 1.x vocabulary

That of MMSegmentation 1.x, which every config becomes when it is read; `*` stands for any part of a key. The
arguments of models and transforms are those of their classes ([models](models.md))."""
RECIPES = """\
# Recipes

A recipe is trained by its name: `terrazzo train NAME --data-root data/cityscapes`. `terrazzo recipe show NAME` prints
its config, `terrazzo weights get NAME` fetches its published weights. A family is a `recipe:` of the [short
form](config.md#the-short-form), too. Names are composed of parts, so other combinations of them are valid.

Scores (mIoU unless named; at one scale, and averaged over several scales and mirrored) and training memory per device
(GB) are those that MMSegmentation published. Parameters include auxiliary heads; GFLOPs are those of one image at the
crop size, two for each multiply-add (`terrazzo model info NAME` shows the parts)."""
MODELS = """\
# Models

## Kinds and their export

A kind is a combination of backbone, neck and head. The last column says how its ONNX file compares with the original
in torch ([how that is measured](../export-models.md)); where it is empty, that comparison has not been run yet.
`terrazzo export` compares every export with its original anyway, and refuses one that differs."""


def pages() -> dict[str, str]:
    """Path of a page in the site -> its Markdown."""
    made = {"commands": commands, "config": config_keys, "recipes": recipes, "models": models, "api": api}
    return {f"reference/{name}.md": "\n".join(lines()) + "\n" for name, lines in made.items()}


def table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    """The lines of a table; a vertical bar in a cell is escaped."""
    yield ""
    yield "| " + " | ".join(columns) + " |"
    yield "|---" * len(columns) + "|"
    for row in rows:
        yield "| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in row) + " |"
    yield ""


def commands() -> Iterator[str]:
    """Every command with its arguments, from its parser."""
    yield COMMANDS
    for group, members in GROUPS.items():
        yield f"\n## {group.capitalize()}"
        for name in members:
            whole = subcommands(make_parser(name)).choices[name]
            yield f"\n### terrazzo {name}\n\n{whole.description}"
            nested = subcommands(whole)
            if nested is None:
                yield from arguments(whole)
            else:
                helps = {choice.dest: choice.help for choice in nested._choices_actions}
                for action, parser in nested.choices.items():
                    yield f"\n#### terrazzo {name} {action}\n\n{sentence(helps.get(action))}"
                    yield from arguments(parser)
            if examples := re.search(r"examples:\n(.*)(?=--debug)", whole.epilog or "", re.DOTALL):
                shown = [line.removeprefix("  ") for line in examples[1].rstrip().splitlines()]
                yield from ("", "Examples:", "", "```text", *shown, "```")


def sentence(text: str | None) -> str:
    return f"{text[0].upper()}{text[1:]}." if text else ""


def arguments(parser: argparse.ArgumentParser) -> Iterator[str]:
    """The usage of a parser and its arguments."""
    usage = " ".join(parser.format_usage().removeprefix("usage: ").replace("[-h] ", "").split())
    yield from ("", "```text", *textwrap.wrap(usage, 84, subsequent_indent="    ", break_on_hyphens=False), "```")
    rows = []
    for action in parser._actions:
        if action.help == argparse.SUPPRESS or "--help" in action.option_strings:
            continue
        value = parser._get_formatter()._format_args(action, action.metavar or action.dest.upper())
        names = [" ".join((flag, value)).strip() for flag in action.option_strings] or [value]
        options = vars(action) | {"prog": parser.prog}
        rows.append((", ".join(f"`{name}`" for name in names), literal((action.help or "") % options)))
    if rows:
        yield from table(("argument", ""), rows)


def literal(text: str) -> str:
    """A text whose angle brackets are no HTML."""
    parts = re.split(r"(`[^`]*`)", text)
    return "".join(part if part.startswith("`") else part.replace("<", "&lt;").replace("*", "\\*") for part in parts)


def config_keys() -> Iterator[str]:
    """The keys of the short form, from the schema, and those of the 1.x vocabulary."""
    schema = json_schema()
    yield CONFIG
    needed = schema["else"]  # by a file without a base
    yield from keys(schema, needed["required"])
    yield "### Keys of `data`"
    yield from keys(schema["$defs"]["DataKeys"], needed["properties"]["data"]["required"])
    yield "### Keys of `early_stopping`"
    yield from keys(next(option for option in schema["$defs"]["EarlyStopping"]["anyOf"] if "properties" in option))
    yield VOCABULARY
    sections: dict[str, list[tuple[str, str]]] = defaultdict(list)
    for key, text in KEYS_1X.items():
        sections["*" if key.startswith("*") else key.partition(".")[0]].append((f"`{key}`", literal(text)))
    yield from table(("key", ""), [row for name in sorted(sections, key=lambda n: n == "*") for row in sections[name]])


def keys(schema: Mapping[str, Any], needed: Sequence[str] = ()) -> Iterator[str]:
    """A table of a schema's keys: values, default, description."""
    rows = []
    for name, value in schema["properties"].items():
        default = "**required**" if name in needed else f"`{shown(value['default'])}`" if "default" in value else ""
        rows.append((f"`{name}`", kinds_of_value(value), default, literal(value.get("description", ""))))
    yield from table(("key", "value", "default", ""), rows)


def shown(value: Any) -> str:
    return {True: "true", False: "false"}.get(value, str(value)) if isinstance(value, bool) else str(value)


def kinds_of_value(schema: Mapping[str, Any]) -> str:
    """The values that a schema admits, in words."""
    if "$ref" in schema:
        return "section"
    if options := schema.get("anyOf"):
        return " or ".join(dict.fromkeys(kinds_of_value(option) for option in options))
    if "const" in schema:
        return f"`{shown(schema['const'])}`"
    if "enum" in schema:
        return ", ".join(f"`{shown(value)}`" for value in schema["enum"]) if len(schema["enum"]) < 9 else "name"
    kind = schema.get("type", "any")
    if kind == "array":
        return "list"
    names = {"object": "mapping", "boolean": "`true`, `false`", "string": "text"}
    return " or ".join(dict.fromkeys(names.get(one, one) for one in ([kind] if isinstance(kind, str) else kind)))


def recipes() -> Iterator[str]:
    """Every recipe with what is published about it, its cost and its command."""
    yield RECIPES
    by_family: dict[str, list[tuple[str, ...]]] = defaultdict(list)
    for name, measured in costs.costs(lambda count: print(f"measured the cost of model {count}")):
        item = info(name)
        other = next((f"{metric} {value:.2f}" for metric, value in item.scores.items()), "")
        score = f"{item.miou:.2f}" if item.miou else other
        averaged = f"{item.miou_multi_scale:.2f}" if item.miou_multi_scale else ""
        memory = f"{item.memory:.1f}" if item.memory else ""
        fetch = f"[get]({item.weights})" if item.weights else ""
        cost = (f"{measured[0] / 1e6:.1f} M", f"{measured[1] / 1e9:,.1f}") if measured else ("", "")
        by_family[item.family].append((f"`terrazzo train {name}`", score, averaged, *cost, memory, fetch))
    yield from table(("family", "recipes", ""), [
        (f"[{family}](#{family})", str(len(rows)), FAMILIES[family]) for family, rows in sorted(by_family.items())
    ])  # fmt: skip
    for family, rows in sorted(by_family.items()):
        yield f"## {family}\n\n{sentence(FAMILIES[family])}"
        yield from table(("command", "score", "averaged", "parameters", "GFLOPs", "GB", "weights"), rows)


@cache
def kinds() -> dict[str, int]:
    """Every combination of backbone, neck and head -> how many recipes have it."""
    counts: dict[str, int] = defaultdict(int)
    for name in costs.recipe_names():
        counts[model_kind(tz.load_config(name).to_dict()["model"])] += 1
    return dict(sorted(counts.items()))


def export_status() -> dict[str, str]:
    """Kind of model -> how its ONNX file compares with the original, from the page of that measurement."""
    rows = re.findall(r"^\| (\S+\+\S+) \|.*\| ([^|]+) \|$", EXPORTS.read_text(encoding="utf-8"), re.MULTILINE)
    return dict(rows)


def models() -> Iterator[str]:
    """Every kind of model with its export status, and every type that a model is built from."""
    status = export_status()
    yield MODELS
    rows = [(f"`{kind}`", str(count), status.get(kind, "")) for kind, count in kinds().items()]
    yield from table(("kind", "recipes", "export"), rows)
    yield "## Types\n\nThe values of `type` in a model's config, as `terrazzo model list` prints them."
    for kind, types in list_types(None).items():
        yield f"\n### {kind.capitalize()}"
        yield from table(("type", ""), [(f"`{name}`", literal(about)) for name, about in types.items()])


def api() -> Iterator[str]:
    """The public functions and classes, from their docstrings."""
    yield "# Python\n\n```python\nimport terrazzo as tz\n```"
    for title, members in PUBLIC.items():
        yield f"\n## {title}\n"
        for name, path in members:
            yield f'::: {path}\n    options:\n      heading: "{name}"\n      toc_label: "{name}"\n'
