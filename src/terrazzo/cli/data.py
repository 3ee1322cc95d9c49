"""`terrazzo data`."""

from __future__ import annotations

import argparse
import itertools
import json
import sys
from pathlib import Path
from typing import Any

from terrazzo.cli.common import add_config_options, count, new_config, overrides, picked, print_table
from terrazzo.data.converters.base import CONVERTERS
from terrazzo.data.converters.run import convert as convert_data
from terrazzo.data.spec import dataset_spec
from terrazzo.errors import UserError
from terrazzo.system.files import make_folder, write_whole
from terrazzo.system.printable import caption
from terrazzo.system.terminal import Console

MOST_OF_A_KIND = 4  # findings of one kind in a split that are printed; --json has all


def add_arguments(parser: argparse.ArgumentParser) -> None:
    commands = parser.add_subparsers(dest="action", metavar="COMMAND", required=True)
    for name, (about, add, _) in COMMANDS.items():
        sub = commands.add_parser(name, help=about, description=about[0].upper() + about[1:] + ".")
        if name in ("check", "stats", "browse"):
            folder = ", or a folder of images and labels" if name == "check" else ""
            sub.add_argument("config", help=f"a config file (.py, .yaml, .json) or a recipe name{folder}")
            sub.add_argument("--data-root", metavar="D", help="folder of the data, if not that of the config")
            add_config_options(sub)
        add(sub)


def run(args: argparse.Namespace) -> int:
    return COMMANDS[args.action][2](args)


def add_init(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("folder", metavar="DIR", help="a folder with images and labels, in any common layout")
    add("--out", metavar="FILE", help="the config to write (default: <DIR's name>.yaml)")
    add("--recipe", default="fastscnn", metavar="R", help="a family or recipe (default: fastscnn)")
    add("--force", action="store_true", help="replace an existing config")


def init(args: argparse.Namespace) -> int:
    """Write the config, print it, and name the next commands."""
    from terrazzo.config.load import load_config
    from terrazzo.data.discovery.propose import Proposal
    from terrazzo.training.speed import expected_time

    folder = Path(args.folder)
    target = new_config(args, folder.resolve().name)
    proposal = Proposal(folder, args.recipe, Console(stderr=True)).with_length()
    text = proposal.text(target, proposal.introduction("data init"))
    make_folder(target.parent)
    write_whole(target, text)
    print(text)
    if expected := expected_time(load_config(target)):
        print(f"training: {expected} (the steps alone; `iterations` shortens it)")
    print(f"config: {target}\nnext: terrazzo data browse {target}; terrazzo train {target}")
    return 0


def add_check(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--json", action="store_true", help="print only the findings, as JSON")
    add("--fix", action="store_true", help="write the lines that fix the findings into the config")


def check(args: argparse.Namespace) -> int:
    """Check, repair if asked to and check again. Return 1 if a finding would spoil training, else 0."""
    from terrazzo.data.checks.finding import all_lines, as_object, as_text
    from terrazzo.data.checks.summary import summary

    report, form = findings(args)
    tried: dict[str, Any] = {}
    while args.fix and not (lines := all_lines(report.findings, form)).items() <= tried.items():
        fix(args, lines, form)  # fixing one error may uncover another
        tried |= lines
        report, form = findings(args)
    if args.json:
        print(json.dumps([as_object(finding, form) for finding in report.findings], indent=1, ensure_ascii=False))
        return 1 if report.errors else 0
    print(summary(report.splits))
    for (kind, split), group in itertools.groupby(report.findings, key=lambda finding: (finding.kind, finding.split)):
        alike = list(group)
        for finding in alike[:MOST_OF_A_KIND]:
            print(as_text(finding, form))
        rest = alike[MOST_OF_A_KIND:]
        if rest:
            names = ", ".join(finding.class_name for finding in rest if finding.class_name)
            print(f"... and {len(rest)} more of {kind} ({split}){': ' if names else ''}{names}")
    advice = len(report.findings) - len(report.errors)
    errors = f"{len(report.errors)} error{'' if len(report.errors) == 1 else 's'}"
    print(f"{errors}, {advice} of mere advice" if report.findings else "nothing found")
    return 1 if report.errors else 0


def findings(args: argparse.Namespace) -> tuple[Any, Any]:
    """The findings, and the form that the config is written in."""
    from terrazzo.config.experiment import make_experiment
    from terrazzo.config.load import load_config
    from terrazzo.data.checks.finding import written_form
    from terrazzo.data.checks.run import check_experiment, check_specs, folder_specs
    from terrazzo.data.discovery.data_root import locate

    console = None if args.json else Console(stderr=True)
    if Path(args.config).is_dir():
        return check_specs(folder_specs(Path(args.config)), None, console), "short"
    written = load_config(args.config, upgrade=False, trust=args.trust_config)
    config = load_config(args.config, overrides(args), trust=args.trust_config)
    experiment = make_experiment(locate(config, args.data_root))
    return check_experiment(experiment, console=console), written_form(written)


def fix(args: argparse.Namespace, lines: dict[str, Any], form: Any) -> None:
    """Write lines into the config file and report them. Raises UserError if they cannot be written."""
    from terrazzo.config.edit import edited
    from terrazzo.config.reading.files import read_config
    from terrazzo.data.checks.finding import as_yaml, palette_too

    path = Path(args.config)
    listed = "\n  ".join(as_yaml(lines))
    if not path.is_file() or form == "old":
        what = "is in the 0.x vocabulary (see `terrazzo config upgrade`)" if form == "old" else "is not a config file"
        raise UserError(f"--fix: {args.config} {what}; give these with --cfg-options KEY=VALUE:\n  {listed}")
    if form == "short":
        lines = palette_too(lines, read_config(path))
    try:
        text = edited(path, lines)
    except UserError as problem:
        raise UserError(f"{problem}. The lines are:\n  {listed}") from None
    write_whole(path, text)
    print("\n".join(f"set in {path}: {line}" for line in as_yaml(lines)), file=sys.stderr)


def add_stats(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--split", nargs="+", default=[], metavar="NAME", help="train, val, test (default: all)")
    add("--json", action="store_true", help="print JSON instead of tables")


def stats(args: argparse.Namespace) -> int:
    """Print statistics of each split, then the lines of config for the mean and std of the first one."""
    from terrazzo.config.load import load_config
    from terrazzo.config.short_form import expand as short
    from terrazzo.data.splits import load_for_data, open_splits
    from terrazzo.data.statistics import config_lines, survey

    console, progress = Console(soft_wrap=True), Console(stderr=True)
    config = load_for_data(args.config, overrides(args), trust=args.trust_config)
    splits = open_splits(config, args.split, data_root=args.data_root)
    found = {split: survey(dataset, split, progress) for split, dataset in splits.items()}
    name, chosen = next(iter(found.items()))
    is_short = short.is_short(load_config(args.config, upgrade=False, trust=args.trust_config))
    lines = config_lines(chosen, config, is_short)
    if args.json:
        print(json.dumps({"splits": {split: one.as_dict() for split, one in found.items()}, "config": lines}, indent=1))
        return 0
    for split, one in found.items():
        show_split(console, split, one)
    target = "the config" if is_short else "the config, or --cfg-options"
    console.print(f"\nmean and std of {name}, for {target}:", markup=False)
    for line in lines:
        console.print(line, markup=False)
    return 0


def show_split(console: Any, split: str, statistics: Any) -> None:
    """Print a split as text, and a table of its classes."""
    sizes = [f"{width}x{height} ({count})" for (height, width), count in statistics.sizes.most_common(4)]
    more = f" and {len(statistics.sizes) - 4} more sizes" if len(statistics.sizes) > 4 else ""
    console.print(f"\n{split}: {statistics.images} images, width x height {', '.join(sizes)}{more}", markup=False)
    for key in ("mean", "std"):
        values = ", ".join(f"{value:.5g}" for value in getattr(statistics, key))
        console.print(f"{key:>4} of each band: {values}", markup=False)
    if statistics.pixels is None:
        return
    found = zip(statistics.classes, statistics.pixels, statistics.shares(), statistics.shown, strict=True)
    rows = [(caption(name), f"{pixels:,}", f"{share:.2f}%", str(images)) for name, pixels, share, images in found]
    total = int(statistics.pixels.sum()) + statistics.ignored
    ignored = f"{100 * statistics.ignored / max(1, total):.2f}% of all"
    columns = ("class", "pixels", "share", "images")
    print_table(columns, [*rows, ("(ignored)", f"{statistics.ignored:,}", ignored, "")], numbers=columns[1:])


def add_browse(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--count", type=count, default=12, metavar="N", help="samples to show (default 12)")
    add("--split", default="train", metavar="NAME", help="train, val or test (default train)")
    add("--seed", type=int, default=0, help="seed of the samples and their transforms (default 0)")
    add("--out", default="browse.html", metavar="PAGE", help="the page; a PNG of the same name is written beside it")


def browse(args: argparse.Namespace) -> int:
    from terrazzo.data.splits import load_for_data, open_splits
    from terrazzo.viz.browse import write_page

    path = Path(args.out)
    if path.suffix.lower() not in (".html", ".htm"):
        raise UserError(f"--out {path}: the name must end in .html or .htm")
    config = load_for_data(args.config, overrides(args), trust=args.trust_config)
    dataset = open_splits(config, [args.split], data_root=args.data_root, seed=args.seed)[args.split]
    make_folder(path.parent)
    image = write_page(dataset, args.split, path, args.count, args.seed)
    print(f"page: {path}\npicture: {image}")
    return 0


def add_convert(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("name", metavar="NAME", help="the data set, see below")
    add("raw", metavar="RAW", help="its download: a folder of archives or of their contents; only read")
    add("out", metavar="OUT", help="folder for the result; files already in it are kept")
    add("--workers", type=int, help="processes (default: one per core)")
    add("--link", action="store_true", help="link unchanged files instead of copying them")
    add("--tile", type=int, metavar="PIXELS", help="edge of the tiles into which large images are cut")
    add("--stride", type=int, metavar="PIXELS", help="step between tiles")
    listed = [f"  {name}: {CONVERTERS.get(name).needs}" for name in CONVERTERS]
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = "contents of RAW:\n" + "\n".join(listed)


def convert(args: argparse.Namespace) -> int:
    """Convert, then report the images of each split and how a config names them."""
    options = picked(args, "workers", "link", "tile", "stride")
    report = convert_data(args.name, args.raw, args.out, console=Console(stderr=True), **options)
    for note in report.notes:
        print(f"note: {note}")
    dataset = dataset_spec(CONVERTERS.get(args.name).dataset)
    counts = ", ".join(f"{count} {split}" for split, count in report.images.items())
    done = f"{report.written} files or groups of tiles written, {report.kept} present before"
    print(f"{args.name}: {counts} images in {Path(args.out)} ({done})")
    print(f"in a config: type='{dataset.name}', data_root='{Path(args.out)}'")
    if not dataset.classes:
        print(f"next: terrazzo data init {Path(args.out)}")
    return 0


# command -> what it does, its arguments, its function
COMMANDS = {
    "init": ("find images, labels and classes in a folder, and write a config for them", add_init, init),
    "check": ("find errors in a data set before training does", add_check, check),
    "stats": ("show image sizes, mean and std of the bands, and the share of each class", add_stats, stats),
    "browse": (
        "write a page of samples before and after their transforms, with masks, legend and class histogram",
        add_browse,
        browse,
    ),
    "convert": ("convert a published data set to the layout that terrazzo reads", add_convert, convert),
}
