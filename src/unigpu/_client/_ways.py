"""The ways to the outside that a client uses, in the right order of wrapping; one set for each flavour."""

from __future__ import annotations

import ipaddress
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from typing import Any, Protocol
from urllib.parse import urlsplit

from unigpu import __version__
from unigpu._io.http import AsyncHttpIo, HttpConfig, SyncHttpIo
from unigpu._io.retry import RetryingIo
from unigpu.driver import Io
from unigpu.errors import ConfigurationError


class SyncTransport(Protocol):
    """What `Client` takes as ``transport=``: an ``httpx.BaseTransport``."""

    def handle_request(self, request: Any) -> Any: ...


class AsyncTransport(Protocol):
    """What `AsyncClient` takes as ``transport=``: an ``httpx.AsyncBaseTransport``."""

    async def handle_async_request(self, request: Any) -> Any: ...


Transport = SyncTransport | AsyncTransport


@dataclass(frozen=True, slots=True)
class Ways:
    """One flavour's ways.

    Attributes:
        usual: Refuses workers with private addresses.
        near: For providers whose configured base is on this machine, whose workers may be here too.
    """

    usual: Io
    near: Io
    close: Callable[[], Awaitable[None]]

    def to(self, base: str) -> Io:
        """The way to a provider with this base."""
        return self.near if is_here(base) else self.usual


def http_config(transport: Transport | None = None) -> HttpConfig:
    """How this package speaks HTTP."""
    given: Any = transport  # `HttpIo` checks that it is one of httpx's own classes
    return HttpConfig(user_agent=f"unigpu/{__version__}", transport=given)


def sync_ways(config: HttpConfig) -> Ways:
    usual, near = SyncHttpIo(config), SyncHttpIo(replace(config, private_workers=True))

    async def close() -> None:
        usual.close()
        near.close()

    return Ways(RetryingIo(usual), RetryingIo(near), close)


def async_ways(config: HttpConfig) -> Ways:
    usual, near = AsyncHttpIo(config), AsyncHttpIo(replace(config, private_workers=True))

    async def close() -> None:
        await usual.aclose()
        await near.aclose()

    return Ways(RetryingIo(usual), RetryingIo(near), close)


def map_ways(config: HttpConfig) -> Ways:
    """For the engine of a sync `map`, which runs on a loop of its own.

    Raises:
        ConfigurationError: the client was given a transport that works in threads only.
    """
    if config.transport is not None and not hasattr(config.transport, "handle_async_request"):
        raise ConfigurationError(
            "map() runs its calls on a loop, and this client's transport= is a synchronous one.",
            hint="Use AsyncClient with an httpx.AsyncBaseTransport, or a transport that is both.",
        )
    return async_ways(config)


def is_here(base: str) -> bool:
    """Whether a base URL names this machine."""
    host = urlsplit(base).hostname or ""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
