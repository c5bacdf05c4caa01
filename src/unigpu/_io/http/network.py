"""httpcore's connections and the sockets below them: the total deadline, and the guard on addresses.

Each connection has one `Deadline`; an HTTP/1.1 connection carries one request at a time, so the pool sets it before a
request and every connect, handshake, read and write below is cut to what is left of it. The guard looks at the
*resolved* address and dials exactly that one: a second answer of the name server cannot slip in between.
"""

from __future__ import annotations

import functools
import math
import ssl
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Final, Generic, TypeVar, cast

import httpcore

from unigpu.errors import ConfigurationError

from ..contract import Trust
from .dns import aresolve, is_loopback, is_public, literal, resolve
from .exceptions import RefusedHere
from .proxy import Proxies, Proxy

__all__ = [
    "AsyncLink",
    "AsyncNet",
    "Deadline",
    "Key",
    "Link",
    "PoolSettings",
    "SyncLink",
    "SyncNet",
    "async_link",
    "default_ssl_context",
    "sync_link",
    "trusting",
]

Key = tuple[str, str, int]
"""An origin: scheme, host, port."""

_NOT_LAST: Final = 2.0  # seconds for an address that is not the last one to try


class AddressRefused(RefusedHere, httpcore.ConnectError):
    """The guard said no."""

    retryable = False


class NameNotFound(RefusedHere, httpcore.ConnectError):
    """There is no such host."""


class Deadline:
    """Until when, on `time.monotonic`, the request that now uses a connection may take."""

    __slots__ = ("until",)

    def __init__(self) -> None:
        self.until = math.inf

    def left(self, timeout: float | None) -> float | None:
        """Seconds: the smaller of *timeout* and what is left; ``None``: no limit."""
        if self.until == math.inf:
            return timeout
        left = max(0.0, self.until - time.monotonic())
        return left if timeout is None else min(timeout, left)


def default_ssl_context() -> ssl.SSLContext:
    """The usual trust roots. It takes 16 ms to make: make one, and share it."""
    return httpcore.default_ssl_context()


@functools.lru_cache(maxsize=16)
def trusting(trust: Trust) -> ssl.SSLContext:
    """A context in which only the roots of *trust* count, on every connection the same.

    Raises:
        ConfigurationError: they are not certificates.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # checks chain and host name
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if not trust.strict:
        context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    try:
        context.load_verify_locations(cadata=trust.roots)
    except (ssl.SSLError, ValueError):
        raise ConfigurationError("the workers' root certificate cannot be read: it must be PEM text.") from None
    return context


def _admitted(host: str, addresses: list[str], guarded: bool) -> list[str]:
    if guarded:
        addresses = [one for one in addresses if is_public(one)]
        if not addresses:
            raise AddressRefused("the provider named a worker at an address that is not public; it was not called")
    if not addresses:
        raise NameNotFound(f"the name {host!r} has no address")
    return addresses


def _check_here(host: str) -> None:
    """What an isolated client may dial: this machine.

    Raises:
        ConfigurationError: *host* is another one.
    """
    if host != "localhost" and not is_loopback(host):
        raise ConfigurationError(
            f"{host} is a real address, and this client was made in isolation, as in a test: nothing was sent.",
            maybe_executed=False,
            hint='Serve the platform: `with unigpu_mock("<provider>"): ...`. A test that means the real one says '
            "@pytest.mark.unigpu_real_state.",
        )


def _share(left: float | None, last: bool) -> float | None:
    """Seconds for one of several addresses: an address that does not answer must not eat the time of the next."""
    if last:
        return left
    return _NOT_LAST if left is None else min(_NOT_LAST, left / 2)


class _AsyncStream(httpcore.AsyncNetworkStream):
    def __init__(self, inner: httpcore.AsyncNetworkStream, deadline: Deadline) -> None:
        self._inner, self._deadline = inner, deadline

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        left = self._deadline.left(timeout)
        if left is not None and left <= 0:
            raise httpcore.ReadTimeout
        return await self._inner.read(max_bytes, left)

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:
        left = self._deadline.left(timeout)
        if left is not None and left <= 0:
            raise httpcore.WriteTimeout
        await self._inner.write(buffer, left)

    async def aclose(self) -> None:
        await self._inner.aclose()

    async def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore.AsyncNetworkStream:
        inner = await self._inner.start_tls(ssl_context, server_hostname, self._deadline.left(timeout))
        return _AsyncStream(inner, self._deadline)

    def get_extra_info(self, info: str) -> Any:
        return self._inner.get_extra_info(info)


class AsyncNet(httpcore.AsyncNetworkBackend):
    """httpcore's anyio backend, on asyncio and trio, within a deadline and behind the guard."""

    def __init__(self, deadline: Deadline, *, guarded: bool = False, here_only: bool = False) -> None:
        self._deadline, self._guarded, self._here_only = deadline, guarded, here_only
        # a cast, because httpcore defines another class of that name where anyio is missing
        self._inner = cast("httpcore.AsyncNetworkBackend", httpcore.AnyIOBackend())

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        if self._here_only:
            _check_here(host)
        mine = Deadline()
        left = self._deadline.left(timeout)
        mine.until = math.inf if left is None else time.monotonic() + left
        address = literal(host)
        try:
            found = [address] if address is not None else await aresolve(host, port, left)
        except TimeoutError:
            raise httpcore.ConnectTimeout("the name server did not answer") from None
        except OSError:
            raise NameNotFound(f"the host name {host!r} was not found") from None
        found = _admitted(host, found, self._guarded)
        for number, one in enumerate(found, 1):
            share = _share(mine.left(None), last=number == len(found))
            if share is not None and share <= 0:
                break
            try:
                stream = await self._inner.connect_tcp(one, port, share, local_address, socket_options)
            except (httpcore.ConnectError, httpcore.ConnectTimeout):
                if number == len(found):
                    raise
            else:
                return _AsyncStream(stream, self._deadline)
        raise httpcore.ConnectTimeout

    async def sleep(self, seconds: float) -> None:
        await self._inner.sleep(seconds)


class _SyncStream(httpcore.NetworkStream):
    def __init__(self, inner: httpcore.NetworkStream, deadline: Deadline) -> None:
        self._inner, self._deadline = inner, deadline

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        left = self._deadline.left(timeout)
        if left is not None and left <= 0:
            raise httpcore.ReadTimeout
        return self._inner.read(max_bytes, left)

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        # By hand, because the inner one starts its timeout anew after each part that the other side takes.
        sock = self._inner.get_extra_info("socket")
        rest = memoryview(buffer)
        while rest:
            left = self._deadline.left(timeout)
            if left is not None and left <= 0:
                raise httpcore.WriteTimeout
            try:
                sock.settimeout(left)
                rest = rest[sock.send(rest) :]
            except TimeoutError as exc:
                raise httpcore.WriteTimeout from exc
            except OSError as exc:
                raise httpcore.WriteError from exc

    def close(self) -> None:
        self._inner.close()

    def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore.NetworkStream:
        left = self._deadline.left(timeout)
        if left is not None and left <= 0:
            self._inner.close()
            raise httpcore.ConnectTimeout
        return _SyncStream(self._inner.start_tls(ssl_context, server_hostname, left), self._deadline)

    def get_extra_info(self, info: str) -> Any:
        return self._inner.get_extra_info(info)


class SyncNet(httpcore.NetworkBackend):
    """httpcore's socket backend, within a deadline and behind the guard."""

    def __init__(self, deadline: Deadline, *, guarded: bool = False, here_only: bool = False) -> None:
        self._deadline, self._guarded, self._here_only = deadline, guarded, here_only
        self._inner = httpcore.SyncBackend()

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,
    ) -> httpcore.NetworkStream:
        if self._here_only:
            _check_here(host)
        mine = Deadline()
        left = self._deadline.left(timeout)
        mine.until = math.inf if left is None else time.monotonic() + left
        address = literal(host)
        try:
            found = [address] if address is not None else resolve(host, port, left)
        except TimeoutError:
            raise httpcore.ConnectTimeout("the name server did not answer") from None
        except OSError:
            raise NameNotFound(f"the host name {host!r} was not found") from None
        found = _admitted(host, found, self._guarded)
        for number, one in enumerate(found, 1):
            share = _share(mine.left(None), last=number == len(found))
            if share is not None and share <= 0:
                break
            try:
                stream = self._inner.connect_tcp(one, port, share, local_address, socket_options)
            except (httpcore.ConnectError, httpcore.ConnectTimeout):
                if number == len(found):
                    raise
            else:
                return _SyncStream(stream, self._deadline)
        raise httpcore.ConnectTimeout

    def sleep(self, seconds: float) -> None:
        self._inner.sleep(seconds)


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolSettings:
    """What the connections of one role are like.

    Attributes:
        limit: Connections to one origin at most; who comes later waits.
        expiry: Seconds after which an idle one is closed; ``None``: no connection is used twice.
        guarded: Dial public addresses only.
        tls: Makes, or fetches, the TLS context when the first ``https`` connection needs it.
        proxies: The environment's proxies, where they hold for this role.
        here_only: Dial this machine only.
    """

    limit: int
    expiry: float | None
    guarded: bool
    tls: Callable[[], ssl.SSLContext]
    proxies: Proxies | None
    here_only: bool = False


_C = TypeVar("_C")


class Link(Generic[_C]):
    """A connection, its deadline, and since when it is idle. Through a proxy it is a pool of one connection."""

    __slots__ = ("conn", "deadline", "idle_since")

    def __init__(self, conn: _C, deadline: Deadline) -> None:
        self.conn, self.deadline, self.idle_since = conn, deadline, 0.0

    def _parts(self) -> list[Any]:
        # a connection has no `connections`, a pool (which a proxy is) has no `is_available`
        return getattr(self.conn, "connections", [self.conn])

    def available(self) -> bool:
        """Whether it may carry another request. A mocked one never connected, so it may not."""
        parts = self._parts()
        return bool(parts) and all(one.is_available() for one in parts)

    def expired(self, max_idle: float | None) -> bool:
        """Whether it was idle for too long, or the server closed it."""
        if max_idle is not None and time.monotonic() - self.idle_since > max_idle:
            return True
        return any(one.has_expired() for one in self._parts())


AsyncLink = Link[httpcore.AsyncHTTPConnection | httpcore.AsyncConnectionPool]
SyncLink = Link[httpcore.HTTPConnection | httpcore.ConnectionPool]


def async_link(key: Key, settings: PoolSettings) -> AsyncLink:
    """A new connection to *key*, not yet dialled."""
    deadline = Deadline()
    net = AsyncNet(deadline, guarded=settings.guarded, here_only=settings.here_only)
    proxy, arguments = _arguments(key, settings, net)
    if proxy is None:
        return Link(httpcore.AsyncHTTPConnection(**arguments), deadline)
    kind = httpcore.AsyncSOCKSProxy if proxy.scheme.startswith("socks") else httpcore.AsyncHTTPProxy
    return Link(kind(**arguments), deadline)


def sync_link(key: Key, settings: PoolSettings) -> SyncLink:
    """A new connection to *key*, not yet dialled."""
    deadline = Deadline()
    net = SyncNet(deadline, guarded=settings.guarded, here_only=settings.here_only)
    proxy, arguments = _arguments(key, settings, net)
    if proxy is None:
        return Link(httpcore.HTTPConnection(**arguments), deadline)
    kind = httpcore.SOCKSProxy if proxy.scheme.startswith("socks") else httpcore.HTTPProxy
    return Link(kind(**arguments), deadline)


def _arguments(key: Key, settings: PoolSettings, net: object) -> tuple[Proxy | None, dict[str, Any]]:
    scheme, host, port = key
    proxy = settings.proxies.find(scheme, host) if settings.proxies is not None else None
    arguments: dict[str, Any] = {"network_backend": net, "keepalive_expiry": settings.expiry}
    arguments["ssl_context"] = settings.tls() if scheme == "https" else None
    if proxy is None:
        arguments["origin"] = httpcore.Origin(scheme.encode("ascii"), host.encode("ascii"), port)
        return None, arguments
    arguments["proxy_url"], arguments["max_connections"] = proxy.url, 1
    if proxy.auth is not None:
        arguments["proxy_auth"] = tuple(part.encode("utf-8") for part in proxy.auth)
    if proxy.scheme == "https":
        arguments["proxy_ssl_context"] = settings.tls()
    return proxy, arguments
