"""`terrazzo config`."""

from __future__ import annotations

import argparse
import warnings
from pathlib import Path

from terrazzo.cli.common import add_config_options, overrides


def add_arguments(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    show = actions.add_parser("show", help="print the config as resolved, in the 1.x vocabulary")
    show.add_argument("config", help="a config file (.py, .yaml, .json) or a recipe name")
    show.add_argument("--as-written", action="store_true", help="do not upgrade or expand it")
    upgrade = actions.add_parser("upgrade", help="write a 0.x config in the 1.x vocabulary")
    upgrade.add_argument("config", metavar="OLD", help="a config file of any version, or a recipe name")
    upgrade.add_argument("-o", "--out", metavar="NEW", help="a .py or .yaml file (default: print it as .py)")
    explain = actions.add_parser("explain", help="show what a key does, its value, and where that was set")
    explain.add_argument("key", help="such as train_dataloader.batch_size, or batch of a short form")
    explain.add_argument("config", nargs="?", help="a config file or a recipe name")
    for action in (show, upgrade, explain):
        add_config_options(action)
    schema = actions.add_parser("schema", help="write the JSON Schema of the short form, for editors")
    schema.add_argument("-o", "--out", metavar="FILE", help="a .json file (default: print it)")


def run(args: argparse.Namespace) -> int:
    return {"show": show, "upgrade": upgrade, "explain": explain, "schema": schema}[args.action](args)


def show(args: argparse.Namespace) -> int:
    from terrazzo.config.load import load_config

    config = load_config(args.config, overrides(args), upgrade=not args.as_written, trust=args.trust_config)
    print(config.dump(), end="")
    return 0


def upgrade(args: argparse.Namespace) -> int:
    """Write a config in the 1.x vocabulary, without the warning that it was in another one."""
    from terrazzo.config.load import load_config
    from terrazzo.config.write import as_python
    from terrazzo.errors import UserError
    from terrazzo.system.files import write_whole

    target = Path(args.out) if args.out else None
    if target is not None and target.suffix not in (".py", ".yaml", ".yml"):
        raise UserError(f"-o {target}: the name of the new file must end in .py or .yaml")
    if target is not None and target.exists() and Path(args.config).exists() and target.samefile(args.config):
        raise UserError(f"-o {target} is the old file itself; choose another name")
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*is in the 0.x vocabulary")
        config = load_config(args.config, overrides(args), trust=args.trust_config)
    text = config.dump() if target is not None and target.suffix != ".py" else as_python(config.shareable())
    if target is None:
        print(text, end="")
        return 0
    write_whole(target, text)
    print(f"{args.config} in the 1.x vocabulary: {target}")
    return 0


def explain(args: argparse.Namespace) -> int:
    from terrazzo.config.explain import explain as explanation
    from terrazzo.config.load import load_config

    config = written = None
    if args.config:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            config = load_config(args.config, overrides(args), trust=args.trust_config)
            written = load_config(args.config, overrides(args), trust=args.trust_config, upgrade=False)
    print(explanation(args.key, config, written))
    return 0


def schema(args: argparse.Namespace) -> int:
    """Write the JSON Schema of the short form, and the line that makes an editor read it."""
    import json

    from terrazzo.config.short_form.schema import json_schema
    from terrazzo.errors import UserError
    from terrazzo.system.files import write_whole

    text = json.dumps(json_schema(), indent=1) + "\n"
    if args.out is None:
        print(text, end="")
        return 0
    target = Path(args.out)
    if target.suffix != ".json":
        raise UserError(f"--out {target}: the name of the schema must end in .json")
    write_whole(target, text)
    print(f"schema: {target}\nfirst line of a config beside it:  # yaml-language-server: $schema={target.name}")
    return 0
