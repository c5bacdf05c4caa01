"""The `Io`s of a client, each wrapped in the right order; one set for each flavor."""

from __future__ import annotations

import ipaddress
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Protocol
from urllib.parse import urlsplit

from unigpu._io.http.client import AsyncHttpIo, HttpConfig, SyncHttpIo
from unigpu._io.resilience.protection import Protection
from unigpu._io.resilience.rate_limit import LimitedIo
from unigpu._io.resilience.retry import RetryingIo
from unigpu._version import __version__
from unigpu.driver import CallDriver, Io, Request
from unigpu.errors import ConfigurationError
from unigpu.models import Event


class SyncTransport(Protocol):
    """What `Client` takes as ``transport=``: an ``httpx.BaseTransport``."""

    def handle_request(self, request: Any) -> Any: ...


class AsyncTransport(Protocol):
    """What `AsyncClient` takes as ``transport=``: an ``httpx.AsyncBaseTransport``."""

    async def handle_async_request(self, request: Any) -> Any: ...


Transport = SyncTransport | AsyncTransport


@dataclass(frozen=True, slots=True)
class Transports:
    """One flavor's `Io`s.

    Attributes:
        usual: Refuses workers with private addresses.
        near: For providers whose configured base is on this machine, whose workers may be here too.
        protection: The client's tokens, breaker and rates; those of `map` share them.
    """

    usual: Io
    near: Io
    close: Callable[[], Awaitable[None]]
    protection: Protection
    emit: Callable[[Event], None]

    def to(self, base: str) -> Io:
        """The `Io` for a provider with this base."""
        return self.near if is_here(base) else self.usual

    def learn(self, driver: CallDriver) -> None:
        """Keep the rates that a driver's table names. Again and again is harmless."""
        self.protection.limiter.add(driver.limits)


def http_config(transport: Transport | None = None, *, here_only: bool = False) -> HttpConfig:
    """How this package speaks HTTP. *here_only*: with this machine, and no other."""
    given: Any = transport  # `HttpIo` checks that it is one of httpx's own classes
    return HttpConfig(user_agent=f"unigpu/{__version__}", transport=given, here_only=here_only)


def sync_transports(config: HttpConfig, emit: Callable[[Event], None]) -> Transports:
    usual, near = SyncHttpIo(config), SyncHttpIo(replace(config, private_workers=True))

    async def close() -> None:
        usual.close()
        near.close()

    return transports_of(usual, near, close, Protection.usual(), emit)


def async_transports(
    config: HttpConfig, emit: Callable[[Event], None], protection: Protection | None = None
) -> Transports:
    usual, near = AsyncHttpIo(config), AsyncHttpIo(replace(config, private_workers=True))

    async def close() -> None:
        await usual.aclose()
        await near.aclose()

    return transports_of(usual, near, close, protection or Protection.usual(), emit)


def map_transports(config: HttpConfig, mine: Transports) -> Transports:
    """For the engine of a sync `map`, which runs on a loop of its own: other connections, the client's protection.

    Raises:
        ConfigurationError: the client was given a transport that works in threads only.
    """
    if config.transport is not None and not hasattr(config.transport, "handle_async_request"):
        raise ConfigurationError(
            "map() runs its calls on a loop, and this client's transport= is a synchronous one.",
            hint="Use AsyncClient with an httpx.AsyncBaseTransport, or a transport that is both.",
        )
    return async_transports(config, mine.emit, mine.protection)


def transports_of(
    usual: Io, near: Io, close: Callable[[], Awaitable[None]], protection: Protection, emit: Callable[[Event], None]
) -> Transports:
    def around(io: Io) -> Io:
        def tell(kind: str, request: Request, fields: Mapping[str, Any]) -> None:
            emit(
                Event(
                    kind=kind,
                    provider=fields["provider"],
                    operation=request.operation,
                    deployment=request.deployment,
                    time=io.wall(),
                    fields=fields,
                )
            )

        return RetryingIo(LimitedIo(io, protection.limiter), protection=protection, tell=tell)

    return Transports(around(usual), around(near), close, protection, emit)


def is_here(base: str) -> bool:
    """Whether a base URL names this machine."""
    host = urlsplit(base).hostname or ""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
