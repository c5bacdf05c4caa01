"""The proxy that the environment names, as the rest of the system understands it.

`urllib.request` reads the variables (and the system's settings on macOS and Windows). This machine itself is never
reached through a proxy.
"""

from __future__ import annotations

import importlib.util
import ipaddress
import urllib.request
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import unquote, urlsplit

from unigpu.errors import ConfigurationError

from .dns import literal

__all__ = ["Proxies", "Proxy"]

_SCHEMES: Final = ("http", "https", "socks5", "socks5h")


@dataclass(frozen=True, slots=True)
class Proxy:
    """One proxy. The representation shows no password."""

    scheme: str
    host: str
    port: int
    auth: tuple[str, str] | None = field(repr=False, default=None)

    @property
    def url(self) -> str:
        """Without the user."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.scheme}://{host}:{self.port}"


class Proxies:
    """Which proxy a host is reached through.

    Raises:
        ConfigurationError: a variable names a proxy that cannot be used. Its user and password are never quoted.
    """

    def __init__(self, found: dict[str, str] | None = None) -> None:
        self._raw = urllib.request.getproxies() if found is None else dict(found)
        self._by_scheme: dict[str, Proxy] = {}
        for scheme in ("http", "https"):
            text = self._raw.get(scheme) or self._raw.get("all")
            if text:
                self._by_scheme[scheme] = _parse(text, variable=f"{scheme}_proxy or all_proxy")

    def find(self, scheme: str, host: str) -> Proxy | None:
        """The proxy for *host*, or ``None``: dial it directly."""
        proxy = self._by_scheme.get(scheme)
        if proxy is None or host == "localhost" or host.endswith(".localhost"):
            return None
        address = literal(host)
        if address is not None and (address == "::1" or address.startswith("127.")):
            return None
        return None if _excepted(host, address, self._raw.get("no", "")) else proxy


def _excepted(host: str, address: str | None, no_proxy: str) -> bool:
    """Whether ``no_proxy`` names *host*: itself, a domain above it, a network that its address is in, or everything."""
    for entry in (part.strip().lower() for part in no_proxy.split(",")):
        if entry == "*":
            return True
        if address is not None:
            try:
                if ipaddress.ip_address(address) in ipaddress.ip_network(entry.strip("[]"), strict=False):
                    return True
            except ValueError:
                continue  # a name, which an address is not
        name = entry.removeprefix("*").lstrip(".")
        if name and (host == name or host.endswith(f".{name}")):
            return True
    return False


def _parse(text: str, *, variable: str) -> Proxy:
    try:
        parts = urlsplit(text if "://" in text else f"http://{text}")
        host, port = parts.hostname, parts.port
    except ValueError:
        host, port, parts = None, None, None
    if parts is None or not host:
        raise ConfigurationError(f"the proxy in the environment ({variable}) is not a URL")
    if parts.scheme not in _SCHEMES:
        raise ConfigurationError(
            f"the proxy in the environment ({variable}) is of kind {parts.scheme!r}; known are {', '.join(_SCHEMES)}"
        )
    if parts.scheme.startswith("socks") and importlib.util.find_spec("socksio") is None:
        raise ConfigurationError(
            f"the proxy in the environment ({variable}) is a SOCKS proxy, which needs: pip install socksio"
        )
    auth = None
    if parts.username is not None:
        auth = (unquote(parts.username), unquote(parts.password or ""))
    default = {"http": 80, "https": 443}.get(parts.scheme, 1080)
    return Proxy(parts.scheme, host, port or default, auth)
