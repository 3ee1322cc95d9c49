"""Two processes that do one step each in turn, and the ratio of their times."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from statistics import median
from typing import Any


def answer(prepare: Callable[[], Callable[[], Any]]) -> None:
    """Do a step, which `prepare` gives, for each line on standard input; tell its seconds and its result."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print goes to standard error
    step = prepare()
    print(json.dumps("ready"), file=answers, flush=True)
    for _ in sys.stdin:
        wall, own = time.perf_counter(), time.process_time()
        result = step()
        wall, own = time.perf_counter() - wall, time.process_time() - own
        print(json.dumps({"wall": wall, "cpu": own, "result": result}), file=answers, flush=True)


class Side:
    """A process that calls `answer`."""

    def __init__(self, command: list[str], threads: int = 1) -> None:
        own = {"OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads), "OMP_WAIT_POLICY": "PASSIVE"}
        pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        self.process = subprocess.Popen(command, text=True, env=os.environ | own, **pipes)
        self.first = self.hear()  # what it says when it is ready

    def hear(self) -> Any:
        """The side's next answer; ends the program with what it wrote if there is none."""
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit(f"a side has ended:\n{self.process.stderr.read()[-3000:]}")
        return json.loads(line)

    def step(self) -> dict[str, Any]:
        self.process.stdin.write("step\n")
        self.process.stdin.flush()
        return self.hear()

    def end(self) -> None:
        self.process.kill()
        self.process.communicate()


def in_turn(commands: dict[str, list[str]], pairs: int, threads: int = 1) -> dict[str, Any]:
    """Seconds and last result of each side over `pairs` steps after two that are not counted; who begins alternates."""
    sides: dict[str, Side] = {}
    try:
        for name, command in commands.items():
            sides[name] = Side(command, threads)
        answers: dict[str, list[dict[str, Any]]] = {name: [] for name in sides}
        for index in range(pairs + 2):
            for name in list(sides)[:: 1 if index % 2 else -1]:
                answers[name].append(sides[name].step())
    finally:
        for side in sides.values():
            side.end()
    return {
        name: {
            "wall": [step["wall"] for step in steps[2:]],
            "cpu": [step["cpu"] for step in steps[2:]],
            "result": steps[-1]["result"],
        }
        for name, steps in answers.items()
    }


def ratio(times: dict[str, Any], clock: str = "wall") -> float:
    """The median over the pairs of the second side's time by the first's."""
    first, second = (side[clock] for side in times.values())
    return median(b / a for a, b in zip(first, second, strict=True))
