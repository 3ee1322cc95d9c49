"""Seconds to load the embedded model in fresh processes: two source trees in turn, such as before and after a change.

python benchmarks/startup.py OTHER_TREE/src src --times 10
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from statistics import median

# wall and CPU seconds of `import terrazzo` with `load()`, after `import torch`
PROGRAM = """
import json, time
clocks = [(time.perf_counter(), time.process_time())]
import torch
clocks.append((time.perf_counter(), time.process_time()))
import terrazzo
terrazzo.load(device="cpu")
clocks.append((time.perf_counter(), time.process_time()))
_, (wall, cpu), (wall_end, cpu_end) = clocks
print(json.dumps({"load wall": wall_end - wall, "load cpu": cpu_end - cpu}))
"""


def start(python: str, source: str) -> dict[str, float]:
    """One process that loads the model from the source tree."""
    own = {"PYTHONPATH": source, "OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"}
    started = time.perf_counter()
    finished = subprocess.run([python, "-c", PROGRAM], env=os.environ | own, check=True, capture_output=True, text=True)
    return json.loads(finished.stdout) | {"process wall": time.perf_counter() - started}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sources", nargs="+", metavar="SRC", help="folders that hold the package `terrazzo`")
    parser.add_argument("--times", type=int, default=10, help="processes for each tree (default: 10)")
    parser.add_argument("--python", default=sys.executable, help="the interpreter (default: this one)")
    args = parser.parse_args()
    for source in args.sources:
        start(args.python, source)  # fills the caches of compiled files
    results: dict[str, list[dict[str, float]]] = {source: [] for source in args.sources}
    for index in range(args.times):
        for source in args.sources[:: 1 if index % 2 else -1]:
            results[source].append(start(args.python, source))
    for source, found in results.items():
        for clock in found[0]:
            seconds = [result[clock] for result in found]
            print(f"{source}: {clock:12}  min {min(seconds):.2f} s  median {median(seconds):.2f} s")


if __name__ == "__main__":
    main()
