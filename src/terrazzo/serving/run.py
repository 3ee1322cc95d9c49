"""A server from its first to its last request."""

from __future__ import annotations

import asyncio
import signal
import socket
from collections.abc import Callable

from terrazzo.errors import UserError
from terrazzo.serving.app import Site, make_app
from terrazzo.serving.messages import Work
from terrazzo.serving.metrics import Metrics
from terrazzo.serving.pool import Pool
from terrazzo.system.extras import import_extra

BACKLOG = 256


def serve(work: Work, host: str, port: int, site: Site, say: Callable[[str], None]) -> None:
    """Serve models until a signal asks to stop; requests that have begun are finished.

    Raises UserError where the address is taken or a model cannot be loaded.
    """
    for module in ("fastapi", "fastapi_offline", "uvicorn", "python_multipart"):
        import_extra(module, "serve", "servers")
    with listening(host, port) as listener:
        asyncio.run(run(work, listener, site, say))


async def run(work: Work, listener: socket.socket, site: Site, say: Callable[[str], None]) -> None:
    import uvicorn

    metrics = Metrics()
    pool = Pool(work, metrics, say)
    await pool.start()
    server: uvicorn.Server
    app = make_app(pool, metrics, site, lambda: server.should_exit)
    config = uvicorn.Config(
        app,
        log_config=None,
        access_log=False,
        log_level="error",
        lifespan="off",
        server_header=False,
        timeout_graceful_shutdown=int(work.limits.seconds) + 1,
        h11_max_incomplete_event_size=1 << 16,
    )
    server = uvicorn.Server(config)
    for name in (signal.SIGTERM, signal.SIGINT):  # uvicorn raises what it was sent again, when it has finished
        signal.signal(name, lambda *_: None)
    host, port = listener.getsockname()[:2]
    address = f"http://{f'[{host}]' if ':' in host else host}:{port}"
    say(f"serving {', '.join(pool.models)} on {address} (API: {address}/docs)")
    try:
        await server.serve(sockets=[listener])
    finally:
        await pool.stop()
    say("stopped")


def listening(host: str, port: int) -> socket.socket:
    """A socket that listens at an address. Raises UserError where it is taken."""
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        return socket.create_server(address[:2], family=family, backlog=BACKLOG, reuse_port=False)
    except OSError as problem:
        raise UserError(
            f"cannot listen on {host}:{port}: {problem.strerror or problem}; give another --host or --port"
        ) from None
