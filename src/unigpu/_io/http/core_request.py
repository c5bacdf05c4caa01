"""Our prepared request as httpcore's, and its header bytes as text."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpcore

from .network import Key
from .prepare import Prepared


def origin_of(url: httpcore.URL) -> Key:
    scheme, host = url.scheme.decode("ascii"), url.host.decode("ascii")
    return scheme, host, url.port or (443 if scheme == "https" else 80)


class _Body:
    """A request's body. No generators: one that is left in the middle of a broken write would make trio warn."""

    def __init__(self, content: bytes) -> None:
        self._parts = (content,) if content else ()

    def __iter__(self) -> Iterator[bytes]:
        return iter(self._parts)

    def __aiter__(self) -> _BodyParts:
        return _BodyParts(iter(self._parts))


class _BodyParts:
    def __init__(self, parts: Iterator[bytes]) -> None:
        self._parts = parts

    def __aiter__(self) -> _BodyParts:
        return self

    async def __anext__(self) -> bytes:
        for part in self._parts:
            return part
        raise StopAsyncIteration


def core_request(prepared: Prepared, extensions: dict[str, Any]) -> httpcore.Request:
    url = httpcore.URL(prepared.url)
    scheme, host, port = origin_of(url)
    name = f"[{host}]" if ":" in host else host
    given = {name.lower() for name, _ in prepared.headers}
    headers = list(prepared.headers)
    if "host" not in given:
        default = port == (443 if scheme == "https" else 80)
        headers.insert(0, ("host", name if default else f"{name}:{port}"))
    if "content-length" not in given and "transfer-encoding" not in given:
        length = len(prepared.content or b"")
        if length or prepared.method in ("POST", "PUT", "PATCH"):
            headers.append(("content-length", str(length)))
    raw = [(name.encode("ascii"), value.encode("ascii")) for name, value in headers]
    return httpcore.Request(
        prepared.method.encode("ascii"), url, headers=raw, content=_Body(prepared.content or b""), extensions=extensions
    )


def text_headers(raw: list[tuple[bytes, bytes]]) -> list[tuple[str, str]]:
    return [(name.decode("latin-1").lower(), value.decode("latin-1")) for name, value in raw]
