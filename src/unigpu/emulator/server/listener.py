"""uvicorn under the emulator: an app on a socket that is ours, stopped when we say so."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncGenerator, Generator
from typing import Any, Final

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

_BACKLOG: Final = 2048
_LAST_S: Final = 0.2
_KEEP_ALIVE: Final = 75  # clients drop an idle connection much earlier: it is never we who close one as it is used


class _Protocol(H11Protocol):
    """Lets the app see its connection, so that an injected fault can cut it."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # uvicorn narrows it too
        self.app_state = {**self.app_state, "transport": transport}
        super().connection_made(transport)


class _Server(uvicorn.Server):
    """Stops at once: uvicorn's own loop looks for its end every 0.1 s, and then waits a while for its connections."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.stop = asyncio.Event()

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None]:
        yield  # whoever runs us decides what a signal means

    async def main_loop(self) -> None:
        await self.stop.wait()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        for server in self.servers:
            server.close()
        for connection in list(self.server_state.connections):
            connection.transport.close()  # after what was written to it
        if self.server_state.tasks:
            await asyncio.wait(set(self.server_state.tasks), timeout=_LAST_S)


def listen(host: str, port: int) -> socket.socket:
    """A listening socket.

    Raises:
        OSError: the port is taken, or the address is not this machine's.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # The protocol is said, not left at 0: asyncio turns Nagle's delay off only for sockets that say TCP, and on kept
    # connections each answer took 44 ms.
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.listen(_BACKLOG)
    except BaseException:
        listener.close()
        raise
    return listener


@contextlib.asynccontextmanager
async def serving(app: Any, listener: socket.socket) -> AsyncGenerator[None]:
    """Serve *app* inside the block; connections that are open at its end are cut."""
    config = uvicorn.Config(
        app,
        http=_Protocol,
        loop="asyncio",
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        date_header=False,
        timeout_keep_alive=_KEEP_ALIVE,
    )
    server = _Server(config)
    serve = asyncio.create_task(server.serve(sockets=[listener]))
    try:
        while not server.started and not serve.done():  # noqa: ASYNC110 - uvicorn has no event for it
            await asyncio.sleep(0)
        yield
    finally:
        server.stop.set()
        await serve
        listener.close()
