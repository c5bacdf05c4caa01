"""`Io` over HTTP, for loops and for threads, from one source. Foreign exceptions stop here.

A request is checked and encoded (`prepare`), sent over the connections of its role (`pool`), its reply unpacked within
limits (`reply`, `content_encoding`), or the failure named (`exceptions`). Redirects are never followed, nothing is
retried, no cookie and no ``.netrc`` is ever read, and no URL is logged.

httpx is needed, and imported, only for a transport that the user hands in (`user_transport`).
"""

from __future__ import annotations

import contextlib
import functools
import random
import ssl
import time
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass, field, replace
from typing import Any, Final, TypeVar

from unigpu.errors import ClientClosed, TransportTimeout, UniGPUError

from ..bridge import run_sync
from ..clock import get_clock
from ..contract import CallClass, Headers, Request, Response, Role, StreamResponse, Trust
from ..fork_lock import ForkLock
from ..redact import terminal
from ..shield import shield_async, shield_sync
from .content_encoding import Decoder
from .exceptions import PASSES, failure
from .network import PoolSettings, default_ssl_context, trusting
from .pool import AsyncPool, SyncPool
from .prepare import Prepared, prepare
from .proxy import Proxies
from .reply import StreamReply, is_over, no_redirect, whole
from .transport import Raw, SendTiming, Wire
from .user_transport import AsyncUserTransport, SyncUserTransport, UserTransport

T = TypeVar("T")

__all__ = ["AsyncHttpIo", "HttpConfig", "SyncHttpIo"]

_STALE: Final = 5.0  # seconds idle after which a socket is not trusted with a call that must not repeat
_ROLES: Final[tuple[Role, ...]] = ("control", "create", "jobs", "worker")


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpConfig:
    """What an `Io` over HTTP is made from. One config serves both flavours, and a second `Io` for `map`.

    Attributes:
        user_agent: Sent to providers, never to workers.
        trust_env: Use the environment's proxies (never for workers, never for this machine).
        limit: Connections to one origin at most.
        keepalive: Seconds for which an idle connection is kept.
        connect_timeout: Seconds for name, connection and TLS together.
        write_timeout: Seconds for one write.
        max_response: Bytes of a whole reply at most. Streams have no limit.
        ssl_context: Own TLS context for providers; default: the usual roots.
        worker_ssl_context: Own TLS context for all workers; it comes before a request's own `Trust`.
        here_only: Dial this machine only, and through no proxy.
        private_workers: Workers may have loopback and private addresses: only where the configured base has one.
        transport: Any httpx transport, instead of connections of ours.
        random: Jitter, in [0, 1).
    """

    user_agent: str = "unigpu"
    trust_env: bool = True
    limit: int = 1000
    keepalive: float = 60.0
    connect_timeout: float = 5.0
    write_timeout: float = 30.0
    max_response: int = 32 * 1024 * 1024
    ssl_context: ssl.SSLContext | None = field(default=None, repr=False)
    worker_ssl_context: ssl.SSLContext | None = field(default=None, repr=False)
    private_workers: bool = False
    here_only: bool = False
    transport: UserTransport | None = field(default=None, repr=False)
    random: Callable[[], float] = random.random


_shared_tls_lock = ForkLock()


@functools.lru_cache(maxsize=1)
def _usual_tls() -> ssl.SSLContext:
    return default_ssl_context()


def _shared_tls() -> ssl.SSLContext:
    with _shared_tls_lock:  # or the first thousand connections would make a thousand
        return _usual_tls()


class _HttpIo:
    """Both flavours. The synchronous one is the same coroutines over wires that never suspend."""

    _is_async: bool

    def __init__(self, config: HttpConfig | None = None) -> None:
        self._config = config = config or HttpConfig()
        self._closed = False
        agent = terminal(config.user_agent).encode("ascii", "replace").decode("ascii")
        usual = (("accept", "*/*"), ("accept-encoding", "gzip, deflate"), ("user-agent", agent))
        self._defaults: dict[Role, tuple[tuple[str, str], ...]] = {
            "control": usual,
            "create": (*usual, ("connection", "close")),
            "jobs": usual,
            "worker": (),
        }
        self._wires: dict[Role, Wire] = self._make_wires()
        self._trusting: dict[Trust, Wire] = {}

    def _make_wires(self) -> dict[Role, Wire]:
        config = self._config
        if config.transport is not None:
            return dict.fromkeys(_ROLES, self._foreign(config.transport))
        proxies = Proxies() if config.trust_env and not config.here_only else None
        mine, workers = config.ssl_context, config.worker_ssl_context
        provider = PoolSettings(
            limit=config.limit,
            expiry=config.keepalive,
            guarded=False,
            tls=_shared_tls if mine is None else lambda: mine,
            proxies=proxies,
            here_only=config.here_only,
        )
        create = replace(provider, expiry=None)
        return {
            "control": self._pool(provider),
            "create": self._pool(create),
            "jobs": self._pool(provider),
            "worker": self._pool(self._to_workers(_shared_tls if workers is None else lambda: workers)),
        }

    def _to_workers(self, tls: Callable[[], ssl.SSLContext]) -> PoolSettings:
        config = self._config
        return PoolSettings(
            limit=config.limit,
            expiry=config.keepalive,
            guarded=not config.private_workers,
            tls=tls,
            proxies=None,
            here_only=config.here_only,
        )

    def _wire(self, request: Request) -> Wire:
        """The connections that carry *request*: workers that are known by a root of their own have their own."""
        trust, config = request.trust, self._config
        if trust is None or request.role != "worker" or config.transport is not None or config.worker_ssl_context:
            return self._wires[request.role]
        found = self._trusting.get(trust)
        if found is not None:
            return found
        return self._trusting.setdefault(trust, self._pool(self._to_workers(lambda: trusting(trust))))

    def _pool(self, settings: PoolSettings) -> Wire:
        raise AssertionError("a flavour says which")

    def _foreign(self, transport: UserTransport) -> Wire:
        raise AssertionError("a flavour says which")

    async def send(self, request: Request) -> Response:
        """Send *request* once, and read the reply whole.

        Returns:
            The reply, whatever its status below 300 or above 399.

        Raises:
            TransportError, TransportTimeout: no whole reply; ``never_sent`` says whether it left this machine.
            InvalidResponseError: a redirect, or a reply that is too large or not coded as it says.
            ConfigurationError: the request cannot be sent as it is.
            ClientClosed: this `Io` was closed.
        """
        prepared, timing, extensions = self._begin(request)
        raw: Raw | None = None
        error: UniGPUError
        try:
            raw = await self._wire(request).open(prepared, timing, extensions)
            headers = Headers(raw.headers)
            no_redirect(raw.status, headers, request, prepared)
            decoder = Decoder(
                headers.get("content-encoding"), operation=request.operation, limit=self._config.max_response
            )
            pieces: list[bytes] = []
            while (data := await raw.next()) is not None:
                pieces.extend(decoder.feed(data))
            decoder.finish()
        except PASSES:
            raise
        except Exception as exc:
            error = failure(exc, request, expired=is_over(request, timing))
        else:
            return whole(raw.status, headers, b"".join(pieces), request, prepared)
        finally:
            if raw is not None:
                await raw.close()
        raise error  # outside of the except block: the foreign exception does not hang on as its context

    @contextlib.asynccontextmanager
    async def stream(self, request: Request) -> AsyncGenerator[StreamResponse]:
        """Send *request* once, and give the reply while its body is still on its way.

        Raises:
            As `send`; the body's own failures come from `StreamResponse.chunks` and `read`.
        """
        prepared, timing, extensions = self._begin(request, ("accept-encoding", "identity"))
        raw: Raw | None = None
        error: UniGPUError
        try:
            raw = await self._wire(request).open(prepared, timing, extensions)
            headers = Headers(raw.headers)
            no_redirect(raw.status, headers, request, prepared)
            decoder = Decoder(headers.get("content-encoding"), operation=request.operation, limit=None)
        except PASSES:
            if raw is not None:
                await raw.close()
            raise
        except Exception as exc:
            error = failure(exc, request, expired=is_over(request, timing))
        else:
            try:
                yield StreamReply(raw, headers, decoder, request, timing, prepared, self._config.max_response)
            finally:
                await raw.close()
            return
        if raw is not None:
            await raw.close()
        raise error

    def now(self) -> float:
        """Monotonic seconds."""
        return get_clock().now()

    def wall(self) -> float:
        """Seconds since the epoch."""
        return get_clock().wall()

    def random(self) -> float:
        """Jitter, in [0, 1)."""
        return self._config.random()

    def _begin(self, request: Request, *more: tuple[str, str]) -> tuple[Prepared, SendTiming, dict[str, Any]]:
        if self._closed:
            raise ClientClosed("the client was closed", operation=request.operation, maybe_executed=False)
        left = request.deadline - get_clock().now()
        if left <= 0:
            raise TransportTimeout(
                f"{request.operation}: the deadline had passed before it was sent",
                never_sent=True,
                operation=request.operation,
                stop_reason="deadline",
            )
        defaults = self._defaults[request.role]
        if more:
            names = {name for name, _ in more}
            defaults = (*(pair for pair in defaults if pair[0] not in names), *more)
        prepared = prepare(request, defaults)
        config = self._config
        timing = SendTiming(
            connect=min(config.connect_timeout, left),
            read=left if request.read_timeout is None else min(request.read_timeout, left),
            write=min(config.write_timeout, left),
            pool=left,
            until=time.monotonic() + left,
            max_idle=None if request.call is CallClass.IDEMPOTENT else _STALE,
        )
        extensions: dict[str, Any] = {
            "unigpu.async": self._is_async,
            "unigpu.operation": request.operation,
            "unigpu.deadline": request.deadline,
        }
        return prepared, timing, extensions

    async def _close(self) -> None:
        self._closed = True
        for wire in {id(wire): wire for wire in (*self._wires.values(), *self._trusting.values())}.values():
            await wire.close()


class AsyncHttpIo(_HttpIo):
    """`Io` for asyncio and trio. It belongs to no loop until it is used, and to a new one after that."""

    _is_async = True

    def _pool(self, settings: PoolSettings) -> Wire:
        return AsyncPool(settings)

    def _foreign(self, transport: UserTransport) -> Wire:
        return AsyncUserTransport(transport)

    async def sleep(self, seconds: float) -> None:
        await get_clock().asleep(seconds)

    shield = staticmethod(shield_async)

    async def aclose(self) -> None:
        """Close the connections of this loop. Any later use raises `ClientClosed`."""
        await self._close()


class SyncHttpIo(_HttpIo):
    """`Io` for threads: its coroutines never suspend, so `run_sync` ends them."""

    _is_async = False

    def _pool(self, settings: PoolSettings) -> Wire:
        return SyncPool(settings)

    def _foreign(self, transport: UserTransport) -> Wire:
        return SyncUserTransport(transport)

    async def sleep(self, seconds: float) -> None:
        get_clock().sleep(seconds)

    shield = staticmethod(shield_sync)

    def close(self) -> None:
        """Close the connections. Any later use raises `ClientClosed`."""
        run_sync(self._close())
