"""The server's side of its worker: a bounded queue, batches, time limits, and a new process after a crash."""

from __future__ import annotations

import asyncio
import itertools
import math
import os
import sys
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any

from terrazzo.errors import UserError
from terrazzo.serving.drift import Days
from terrazzo.serving.messages import LENGTH, Answer, Question, Work, framed
from terrazzo.serving.metrics import Metrics

IN_FLIGHT = 2  # batches that the worker has: one is computed, the other decoded or encoded
ATTEMPTS = 2  # to answer a question whose worker ended
GRACE = 10.0  # seconds beyond the time limit after which a worker that computes is ended
LONGEST_PAUSE = 30.0  # seconds before a worker that does not start is started again


class Busy(Exception):
    """The queue is full; `seconds` is a time after which it should not be."""

    def __init__(self, seconds: int) -> None:
        self.seconds = seconds


@dataclass(eq=False)
class Job:
    """A question that waits for its answer."""

    question: Question
    ends: float  # in the loop's clock
    answer: asyncio.Future[Answer]
    attempts: int = 0
    number: int = field(default_factory=itertools.count().__next__)


class Pool:
    """One worker process and the questions for it."""

    def __init__(self, work: Work, metrics: Metrics, say: Callable[[str], None]) -> None:
        self.work, self.limits, self.metrics, self.say = work, work.limits, metrics, say
        self.models: dict[str, dict[str, Any]] = {}
        self.process: asyncio.subprocess.Process | None = None
        self.is_ready = False
        self.days = Days()
        self.waiting: deque[Job] = deque()
        self.running: dict[int, Job] = {}
        self.batches: list[set[int]] = []  # numbers of the jobs in each batch that the worker has
        self.entered = 0  # requests that are being received, waiting or computed
        self.bytes = 0  # that they take
        self.pace = 1.0  # seconds that an image takes, a running mean
        self.changed = asyncio.Event()
        self.tasks: list[asyncio.Task[None]] = []
        metrics.watch(lambda: len(self.waiting), lambda: len(self.running), lambda: self.is_ready)

    # The process

    async def start(self) -> None:
        """Start the worker and its supervision. Raises UserError where a model cannot be loaded."""
        await self.launch()
        self.tasks = [asyncio.create_task(self.supervise()), asyncio.create_task(self.dispatch())]

    async def launch(self) -> None:
        """Start a process and wait until its models are loaded."""
        self.process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "terrazzo.serving.worker"),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            env=os.environ | {"OMP_WAIT_POLICY": os.environ.get("OMP_WAIT_POLICY", "PASSIVE")},
        )
        assert self.process.stdin is not None
        try:
            self.process.stdin.write(framed(self.work))
            await self.process.stdin.drain()
            found = await self.hear()
        except (asyncio.IncompleteReadError, ConnectionError):
            code = await self.process.wait()
            raise UserError(f"the process that was to hold the models ended (exit code {code})") from None
        if isinstance(found, UserError):
            await self.process.wait()
            raise found
        self.models, self.is_ready = found, True
        self.changed.set()

    async def hear(self) -> Any:
        """The next message of the process."""
        import pickle

        assert self.process is not None and self.process.stdout is not None
        head = await self.process.stdout.readexactly(LENGTH.size)
        return pickle.loads(await self.process.stdout.readexactly(LENGTH.unpack(head)[0]))

    async def supervise(self) -> None:
        """Hand answers to those who wait; whenever the process has ended, start another."""
        while True:
            try:
                while True:
                    number, answer = await self.hear()
                    self.settle(number, answer)
            except (asyncio.IncompleteReadError, ConnectionError):
                pass
            assert self.process is not None
            code = await self.process.wait()
            self.is_ready = False
            self.metrics.restarts.inc()
            self.say(f"the worker ended ({ending(code)}); starting another")
            self.take_back()
            await self.relaunch()

    async def relaunch(self) -> None:
        """Start a process until one has loaded the models."""
        pause = 1.0
        while not self.is_ready:
            try:
                await self.launch()
            except UserError as problem:  # noqa: PERF203 - nothing is fast here
                self.say(f"error: {problem}; trying again in {pause:.0f} s")
                await asyncio.sleep(pause)
                pause = min(2 * pause, LONGEST_PAUSE)

    def take_back(self) -> None:
        """Put the jobs of a process that ended to the front of the queue; those that have ended two fail."""
        lost, self.running, self.batches = list(self.running.values()), {}, []
        for job in reversed(lost):
            if job.answer.done():
                continue
            if job.attempts >= ATTEMPTS:
                text = f"{job.question.name} has ended {ATTEMPTS} processes: it needs more memory than there is"
                job.answer.set_result(Answer(500, "text/plain", text.encode()))
            else:
                self.waiting.appendleft(job)
        self.changed.set()

    async def stop(self) -> None:
        """End the worker once nothing waits for it."""
        for task in self.tasks:
            task.cancel()
        if self.process is not None and self.process.returncode is None:
            assert self.process.stdin is not None
            self.process.stdin.close()  # which it takes as its end
            try:
                await asyncio.wait_for(self.process.wait(), GRACE)
            except asyncio.TimeoutError:
                self.process.kill()
                await self.process.wait()

    # The queue

    def enter(self, size: int) -> None:
        """Count a request that begins, with a body of `size` bytes. Raises Busy where there are too many."""
        if self.entered >= self.limits.queue or self.bytes + size > 8 * self.limits.most_bytes:
            raise Busy(max(1, math.ceil(self.pace * len(self.waiting))))
        self.entered += 1
        self.bytes += size

    def leave(self, size: int) -> None:
        self.entered -= 1
        self.bytes -= size

    async def ask(self, question: Question, seconds: float) -> Answer:
        """The worker's answer to a question, or that the time is over after so many seconds."""
        loop = asyncio.get_running_loop()
        job = Job(question, loop.time() + seconds, loop.create_future())
        self.waiting.append(job)
        self.changed.set()
        try:
            return await asyncio.wait_for(job.answer, seconds)
        except asyncio.TimeoutError:
            if job.number in self.running:
                loop.call_later(GRACE, self.end_if_stuck, job.number)
            text = f"the time limit of {self.limits.seconds:g} s was over: send a smaller image, or raise --timeout"
            return Answer(504, "text/plain", text.encode())
        finally:
            with suppress(ValueError):
                self.waiting.remove(job)

    def end_if_stuck(self, number: int) -> None:
        """End the process where it still computes what nobody waits for any more."""
        if number in self.running and self.process is not None and self.process.returncode is None:
            self.process.kill()

    async def dispatch(self) -> None:
        """Send batches to the worker as long as it takes them."""
        while True:
            while not (self.is_ready and self.waiting and len(self.batches) < (1 if self.is_careful() else IN_FLIGHT)):
                self.changed.clear()
                await self.changed.wait()
            if not self.batches and len(self.waiting) < self.limits.batch:
                await asyncio.sleep(self.limits.batch_wait)
            batch = self.next_batch()
            if batch and self.is_ready:
                await self.send(batch)

    def is_careful(self) -> bool:
        """Return True while one of the jobs may be what ended a process: each is then sent alone."""
        return any(job.attempts for job in self.waiting) or any(job.attempts > 1 for job in self.running.values())

    def next_batch(self) -> list[Job]:
        """Take the first job that still has time from the queue, and others of its model and size."""
        now = asyncio.get_running_loop().time()
        alive = [job for job in self.waiting if not job.answer.done() and job.ends > now]
        if not alive:
            self.waiting.clear()
            return []
        first = alive[0].question
        like = [job for job in alive if (job.question.model, job.question.size) == (first.model, first.size)]
        batch = alive[:1] if self.is_careful() else like[: self.limits.batch]
        self.waiting = deque(job for job in alive if job not in batch)
        return batch

    async def send(self, batch: list[Job]) -> None:
        """Send a batch to the process, which may have ended meanwhile."""
        assert self.process is not None and self.process.stdin is not None
        now = asyncio.get_running_loop().time()
        for job in batch:
            job.attempts += 1
            self.running[job.number] = job
        self.batches.append({job.number for job in batch})
        self.metrics.batches.observe(len(batch))
        try:
            questions = [(job.number, replace(job.question, seconds=job.ends - now)) for job in batch]
            self.process.stdin.write(framed(questions))
            await self.process.stdin.drain()
        except (ConnectionError, RuntimeError):  # `supervise` puts the batch back
            pass

    def settle(self, number: int, answer: Answer) -> None:
        """Hand an answer to whoever waits for it."""
        job = self.running.pop(number, None)
        for batch in self.batches:
            batch.discard(number)
        self.batches = [batch for batch in self.batches if batch]
        self.changed.set()
        if job is None:
            return
        if "seconds" in answer.facts:
            self.pace += 0.1 * (answer.facts["seconds"] / answer.facts["images"] - self.pace)
        self.metrics.answered(job.question.model, answer)
        for line in self.days.note(job.question.model, answer.facts.get("unlike", {})):
            self.say(line)
        if not job.answer.done():
            job.answer.set_result(answer)


def ending(code: int) -> str:
    """The way in which a process ended."""
    return f"signal {-code}" if code < 0 else f"exit code {code}"
