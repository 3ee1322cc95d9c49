"""How many of MMSegmentation's own unit tests pass with terrazzo's answer to its import names, given a checkout.

python benchmarks/peer_tests.py CHECKOUT [TEST...] [--reasons] [--out results.jsonl]

The tests run as they are, in the checkout, where none of its packages is imported: terrazzo.compat answers them. What
fails is listed by its reason. Nothing of the checkout is kept.
"""

from __future__ import annotations

import argparse
import collections
import gc
import json
import os
import re
import resource
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

SECONDS = 120
MEMORY = 10 << 30
MARK = "PEER-TEST "


def pytest_configure(config: Any) -> None:
    """As a plugin of pytest: answer the packages before a test is imported."""
    import terrazzo.compat  # noqa: F401

    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))


def pytest_runtest_setup(item: Any) -> None:
    def stop(*_: Any) -> None:
        raise TimeoutError(f"more than {SECONDS} seconds of processor time")

    signal.signal(signal.SIGPROF, stop)
    signal.setitimer(signal.ITIMER_PROF, SECONDS)


def pytest_runtest_teardown(item: Any) -> None:
    signal.setitimer(signal.ITIMER_PROF, 0)
    gc.collect()


def pytest_runtest_logreport(report: Any) -> None:
    if report.when == "call" or report.failed or report.skipped:
        show(report.nodeid, report.outcome, report.longrepr)


def pytest_collectreport(report: Any) -> None:
    if report.failed:
        show(report.nodeid, "not collected", report.longrepr)


def show(test: str, outcome: str, problem: Any) -> None:
    """Print a row of the results."""
    lines = [line[1:].strip() for line in str(problem).splitlines() if re.match(r"E\s{3}", line)]
    place = str(problem).strip().splitlines()[-1] if problem is not None else ""
    print(
        f"\n{MARK}{json.dumps({'test': test, 'outcome': outcome, 'reason': ' '.join(lines[:1])[:300], 'at': place})}",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkout", type=Path)
    parser.add_argument("tests", nargs="*", default=["tests"], help="files or folders of tests (all of them)")
    parser.add_argument("--reasons", action="store_true", help="list each test that does not pass")
    parser.add_argument("--out", type=Path, help="write the rows as JSON lines")
    args = parser.parse_args()
    plugin = Path(__file__).resolve()
    paths = os.pathsep.join([str(plugin.parent), os.environ.get("PYTHONPATH", "")])
    command = [sys.executable, "-m", "pytest", "-p", plugin.stem, "-p", "no:cacheprovider", "-q", "-s", "--tb=short",
               "-W", "ignore", "--continue-on-collection-errors", "--rootdir=.", *args.tests]  # fmt: skip
    environment = os.environ | {"PYTHONPATH": paths, "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(command, cwd=args.checkout, capture_output=True, text=True, env=environment, check=False)
    rows = [json.loads(line.removeprefix(MARK)) for line in done.stdout.splitlines() if line.startswith(MARK)]
    if not rows:
        sys.exit(done.stdout[-4000:] + done.stderr[-4000:])
    if args.out:
        args.out.write_text("\n".join(map(json.dumps, rows)) + "\n", encoding="utf-8")
    if args.reasons:
        for row in rows:
            if row["outcome"] != "passed":
                print(f"{row['test']}\n    {row['outcome']}: {row['reason'] or row['at']}")
    print(dict(collections.Counter(row["outcome"] for row in rows)))
    functions = {re.sub(r"\[.*", "", row["test"]): True for row in rows}
    for row in rows:
        functions[re.sub(r"\[.*", "", row["test"])] &= row["outcome"] == "passed"
    print(f"functions: {sum(functions.values())} of {len(functions)} pass")


if __name__ == "__main__":
    main()
