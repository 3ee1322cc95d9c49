"""From a request to the pool's answer: what it holds is checked, and it is withdrawn when its client goes."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from terrazzo.errors import UserError, nearest
from terrazzo.serving.gate import Refused
from terrazzo.serving.messages import Answer, Options, Question
from terrazzo.serving.pool import Busy, Pool
from terrazzo.serving.uploads import TooLarge, UnknownKind, named, size_of


class Asking:
    """The requests of a server to its pool."""

    def __init__(self, pool: Pool, is_closing: Callable[[], bool]) -> None:
        self.pool, self.limits, self.is_closing = pool, pool.limits, is_closing

    @contextmanager
    def entered(self, request: Any) -> Iterator[None]:
        """Count a request as one of the queue's inside. Raises Refused where it is full, and for a body too large."""
        if self.is_closing():
            raise Refused(503, "the server is stopping", Retry_After="5")
        size = content_length(request, self.limits.most_bytes)
        try:
            self.pool.enter(size)
        except Busy as problem:
            raise Refused(503, "the queue is full: try again later", Retry_After=str(problem.seconds)) from None
        try:
            yield
        finally:
            self.pool.leave(size)

    async def segment(self, request: Any, model: str, options: Options) -> Answer:
        """The answer for the image in a request's body. Raises Refused."""
        started = asyncio.get_running_loop().time()
        with self.entered(request):
            data, name = await received(request, self.limits.seconds)
            used = asyncio.get_running_loop().time() - started
            return await self.ask(request, model, data, name, options, self.limits.seconds - used)

    async def ask(self, request: Any, model: str, data: bytes, name: str, options: Options, seconds: float) -> Answer:
        """The pool's answer for an image within some seconds. Raises Refused."""
        question = Question(model, data, name, self.size(data, name), options)
        asking = asyncio.ensure_future(self.pool.ask(question, max(0.0, seconds)))
        gone = asyncio.ensure_future(until_gone(request))
        try:
            await asyncio.wait({asking, gone}, return_when=asyncio.FIRST_COMPLETED)
            if not asking.done():
                raise Refused(499, "the client has gone")
            answer = asking.result()
        finally:
            asking.cancel()
            gone.cancel()
        if answer.status != 200:
            raise Refused(answer.status, answer.body.decode())
        return answer

    def size(self, data: bytes, name: str) -> tuple[int, int]:
        """Height and width of an image, by its header. Raises Refused for one that the server does not take."""
        try:
            return size_of(data, name, self.limits)
        except UserError as problem:
            kinds = {TooLarge: 413, UnknownKind: 415}
            raise Refused(kinds.get(type(problem), 422), str(problem)) from None

    def model(self, name: str | None) -> str:
        """The name of a model, the first one by default. Raises Refused for an unknown one."""
        models = self.pool.models
        if name is None:
            return next(iter(models))
        if name not in models:
            raise Refused(404, f"there is no model '{name}'{nearest(name, models)}: GET /models lists them")
        return name

    def classes(self, model: str) -> list[str]:
        """The names of a model's classes."""
        return self.pool.models[model]["classes"]


def chosen_classes(known: list[str], text: str | None) -> tuple[str, ...]:
    """The classes in a list with commas between. Raises Refused for an unknown one."""
    if text in known:  # a name with a comma
        return (text,) if text else ()
    wanted = tuple(part.strip() for part in (text or "").split(",") if part.strip())
    for name in wanted:
        if name not in known:
            raise Refused(404, f"'{name}' is not a class of the model{nearest(name, known)}")
    return wanted


def content_length(request: Any, most: int) -> int:
    """The bytes that a request announces, the most where it announces none. Raises Refused for too many."""
    text = request.headers.get("content-length", "")
    if text.isdecimal() and int(text) > most:
        raise Refused(413, f"the request has {text} bytes, more than the {most} of this server's limit")
    return int(text) if text.isdecimal() else most


def kind_of(request: Any) -> str:
    """The media type of a request's body."""
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()


async def received(request: Any, seconds: float) -> tuple[bytes, str]:
    """The image in a request's body and its name: raw bytes, or the field `file` of a form. Raises Refused."""
    if kind_of(request) != "multipart/form-data":
        data = await in_time(request.body(), seconds)
        if not data:
            raise Refused(400, "the request has no body: send an image, raw or as the field `file` of a form")
        return data, named(request.query_params.get("name"))
    form = await in_time(request.form(max_files=1, max_fields=16), seconds)
    try:
        file: Any = form.get("file") or next((part for part in form.values() if hasattr(part, "filename")), None)
        if not hasattr(file, "filename"):
            raise Refused(400, "the form has no file: send the image as its field `file`")
        return await file.read(), named(file.filename)
    finally:
        await form.close()


async def read_json(request: Any, seconds: float) -> dict[str, Any]:
    """The object in a request's body. Raises Refused for anything else."""
    try:
        content = json.loads(await in_time(request.body(), seconds))
    except (ValueError, RecursionError):
        raise Refused(400, "the request is not JSON") from None
    if not isinstance(content, dict):
        raise Refused(422, "the request is not an object of JSON")
    return content


async def in_time(receiving: Any, seconds: float) -> Any:
    """The result of receiving within some seconds. Raises Refused after that."""
    try:
        return await asyncio.wait_for(receiving, seconds)
    except asyncio.TimeoutError:
        raise Refused(408, f"the request did not arrive within {seconds:g} s") from None


async def until_gone(request: Any) -> None:
    """Wait until the client of a request that was read has gone."""
    while (await request.receive())["type"] != "http.disconnect":
        pass
