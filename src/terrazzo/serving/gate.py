"""Every request passes here: its token, the size of its body, what the metrics count."""

from __future__ import annotations

import asyncio
import hmac
import json
import time
from base64 import b64decode
from binascii import Error as NotBase64
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from terrazzo.serving.metrics import Metrics

LINGER = 5.0  # seconds in which a refused client may finish what it sends, so that it reads why
DOCS_FILES = "/docs-files"
# what needs no token: for probes, the page, which asks for it, and the description of the API
OPEN_PATHS = ("/health", "/ready", "/", "/docs", "/openapi.json")
OPEN_FOLDERS = ("/page/", f"{DOCS_FILES}/")
COUNTED = (*OPEN_PATHS, "/predict", "/models", "/metrics")  # the others are one
NO_TOKEN = "this server needs its token: send the header `Authorization: Bearer TOKEN`"


class Refused(Exception):
    """A request that is answered with a status and a sentence."""

    def __init__(self, status: int, message: str, **headers: str) -> None:
        self.status, self.message = status, message
        self.headers = {name.replace("_", "-"): value for name, value in headers.items()}


class Gate:
    """ASGI middleware that refuses requests without the token, and bodies of more than `most` bytes as they arrive."""

    def __init__(self, app: Callable[..., Any], most: int, metrics: Metrics, token: str | None = None) -> None:
        self.app, self.most, self.metrics, self.token = app, most, metrics, token

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        passage = Passage(self.most, scope, receive, send)
        started = time.monotonic()
        try:
            is_open = scope["path"] in OPEN_PATHS or scope["path"].startswith(OPEN_FOLDERS)
            if self.token and not is_open and not is_known(passage.headers, self.token):
                await passage.refuse(401, NO_TOKEN, (b"www-authenticate", b"Bearer"))
            else:
                await self.app(scope, passage.receive, passage.send)
        finally:
            path = scope["path"] if scope["path"] in COUNTED else "other"
            self.metrics.requests.labels(path, str(passage.status)).inc()
            self.metrics.latency.labels(path).observe(time.monotonic() - started)
        return None


class Passage:
    """One request on its way.

    A client that is refused early is let finish for a while, as many read no answer before they have sent everything.
    """

    def __init__(self, most: int, scope: Any, receive: Any, send: Any) -> None:
        self.most, self._receive, self._send = most, receive, send
        self.headers = dict(scope["headers"])
        self.received, self.has_ended, self.status = 0, False, 500

    async def receive(self) -> Any:
        message = await self._receive()
        self.has_ended = not message.get("more_body", False)
        self.received += len(message.get("body", b""))
        if self.received > self.most:
            raise Refused(413, f"the request has more than {self.most} bytes, the limit of this server")
        return message

    async def send(self, message: Any) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            if not self.has_ended and self.status >= 400 and b"expect" not in self.headers:
                with suppress(asyncio.TimeoutError):
                    await asyncio.wait_for(self.linger(), LINGER)
        await self._send(message)

    async def linger(self) -> None:
        """Read the rest of the body, and forget it."""
        while (await self._receive()).get("more_body", False):
            pass

    async def refuse(self, status: int, message: str, header: tuple[bytes, bytes]) -> None:
        headers = [(b"content-type", b"application/json"), header]
        await self.send({"type": "http.response.start", "status": status, "headers": headers})
        await self.send({"type": "http.response.body", "body": json.dumps({"detail": message}).encode()})


def is_known(headers: dict[bytes, bytes], token: str) -> bool:
    """Return whether the Authorization header has the token, as a bearer's or as the password of a user."""
    kind, _, value = headers.get(b"authorization", b"").partition(b" ")
    if kind.lower() == b"basic":
        try:
            value = b64decode(value, validate=True).partition(b":")[2]
        except (NotBase64, ValueError):
            return False
    return kind.lower() in (b"bearer", b"basic") and hmac.compare_digest(value.strip(), token.encode())
