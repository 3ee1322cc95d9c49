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
    explain = actions.add_parser("explain", help="say what a key does, its value, and where that was set")
    explain.add_argument("key", help="such as train_dataloader.batch_size")
    explain.add_argument("config", nargs="?", help="a config file or a recipe name")
    for action in (show, upgrade, explain):
        add_config_options(action)


def run(args: argparse.Namespace) -> int:
    return {"show": show, "upgrade": upgrade, "explain": explain}[args.action](args)


def show(args: argparse.Namespace) -> int:
    from terrazzo.config.load import load_config

    config = load_config(args.config, overrides(args), upgrade=not args.as_written, trust=args.trust_config)
    print(config.dump(), end="")
    return 0


def upgrade(args: argparse.Namespace) -> int:
    from terrazzo.config.load import load_config
    from terrazzo.config.write import as_python
    from terrazzo.errors import UserError
    from terrazzo.system.files import write_atomically

    target = Path(args.out) if args.out else None
    if target is not None and target.suffix not in (".py", ".yaml", ".yml"):
        raise UserError(f"-o {target}: the name of the new file must end in .py or .yaml")
    if target is not None and target.exists() and Path(args.config).exists() and target.samefile(args.config):
        raise UserError(f"-o {target} is the old file itself; choose another name")
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*is in the 0.x vocabulary")
        config = load_config(args.config, overrides(args), trust=args.trust_config)
    text = config.dump() if target is not None and target.suffix != ".py" else as_python(config.to_dict())
    if target is None:
        print(text, end="")
        return 0

    def write(path: Path) -> None:
        path.write_text(text, encoding="utf-8")

    write_atomically(target, write)
    print(f"{args.config} in the 1.x vocabulary: {target}")
    return 0


def explain(args: argparse.Namespace) -> int:
    from terrazzo.config.explain import explain as explanation
    from terrazzo.config.load import load_config

    config = None
    if args.config:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            config = load_config(args.config, overrides(args), trust=args.trust_config)
    print(explanation(args.key, config))
    return 0
