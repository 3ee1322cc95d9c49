"""Commands under a limit on memory."""

from __future__ import annotations

import resource
import signal
import subprocess
import sys

import pytest

from support.tiny import environment
from terrazzo.errors import UserError
from terrazzo.system import supervision
from terrazzo.system.failures import shortage_of
from terrazzo.system.supervision import memory_limit

PROGRAM = """
import os, sys, time
from terrazzo.system.supervision import supervised

def work():
    print("begins", flush=True)
    os.write(2, b"terminate called\\n")
    {work}

sys.exit(supervised(work, lambda: print("too little memory", file=sys.stderr)))
"""


def start(work: str) -> subprocess.Popen[str]:
    program = PROGRAM.format(work=work)
    return subprocess.Popen(
        [sys.executable, "-c", program],
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(
            signal.SIGINT, signal.SIG_DFL
        ),  # that of a command in the background is ignored
    )


@pytest.mark.parametrize(
    ("work", "code", "error"),
    [
        ("return 3", 3, "terminate called"),
        ("os.abort()", 1, "too little memory"),
        ("os._exit(127)", 1, "too little memory"),
        ("raise MemoryError", 1, "too little memory"),
    ],
)
def test_what_native_code_ends_is_told_of_in_one_message(work, code, error):
    process = start(work)
    _, told = process.communicate(timeout=30)
    assert process.returncode == code
    assert told == f"{error}\n"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signals_reach_the_work(number):
    process = start("import signal; signal.signal(signal.SIGTERM, signal.default_int_handler)\n"
                    "    try: print('works', flush=True); time.sleep(30)\n"
                    "    except KeyboardInterrupt: return 7")  # fmt: skip
    assert process.stdout is not None
    process.stdout.readline()
    process.stdout.readline()
    process.send_signal(number)
    assert process.wait(10) == 7


@pytest.mark.skipif(memory_limit() is not None, reason="the tests run under a limit")
def test_commands_under_a_limit_end_in_one_message():
    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_AS, (500 << 20, 500 << 20))

    done = subprocess.run(
        [sys.executable, "-m", "terrazzo", "predict", "a.png"], env=environment(), preexec_fn=limit, capture_output=True
    )
    assert done.returncode == 1
    assert done.stderr.startswith(b"error: not enough memory for `terrazzo predict`: take a smaller")
    assert b"or raise the limit of 500 MiB" in done.stderr and done.stderr.count(b"\n") == 1


def test_errors_that_say_nothing_of_memory_are_shortages_only_near_a_limit(monkeypatch):
    problem = SystemError("<built-in function compile> returned NULL without setting an exception")
    assert shortage_of(problem) is None
    monkeypatch.setattr(supervision, "memory_limit", lambda: 1 << 20)
    assert shortage_of(problem) is problem
    assert shortage_of(UserError("a mistake")) is None
