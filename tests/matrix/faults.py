"""What can go wrong on the way to a platform and back: each kind by name, with when the platform acts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal, Protocol

from matrix_platforms import Platform

from unigpu._io.contract import Headers, Request, Response
from unigpu.errors import TransportError, TransportTimeout

Act = Callable[[], Response]
"""Hand the request to the platform."""


class Place(Protocol):
    """What a fault may do to the world."""

    platform: Platform

    def later(self, seconds: float, act: Act) -> None: ...
    def advance(self, seconds: float) -> None: ...


@dataclass(frozen=True)
class Kind:
    """One kind of fault.

    Attributes:
        acts: Whether the platform acts: not at all, before the fault, or some time after the caller gave up.
        fits: To which operations it applies.
        strike: Gives the reply that arrives, or raises what the way out would.
    """

    name: str
    acts: Literal["never", "before", "after", "late", "twice"]
    strike: Callable[[Place, Request, Act], Response]
    fits: Callable[[Platform, str], bool] = lambda platform, operation: True


def _lost(request: Request, *, never_sent: bool = False) -> TransportError:
    return TransportError("the connection was closed", never_sent=never_sent, operation=request.operation)


def _timeout(place: Place, request: Request) -> TransportError:
    place.advance(30.0)
    return TransportTimeout("no answer", operation=request.operation)


def _reply(request: Request, status: int, body: bytes = b"{}", headers: tuple[tuple[str, str], ...] = ()) -> Response:
    return Response(status=status, headers=Headers(headers), content=body, operation=request.operation)


def _refused(place: Place, request: Request, act: Act) -> Response:
    raise _lost(request, never_sent=True)


def _tls(place: Place, request: Request, act: Act) -> Response:
    raise TransportError("bad certificate", never_sent=True, retryable=False, operation=request.operation)


def _drop(acts: bool) -> Callable[[Place, Request, Act], Response]:
    def strike(place: Place, request: Request, act: Act) -> Response:
        if acts:
            act()
        raise _lost(request)

    return strike


def _silence(acts: bool) -> Callable[[Place, Request, Act], Response]:
    def strike(place: Place, request: Request, act: Act) -> Response:
        if acts:
            act()
        raise _timeout(place, request)

    return strike


def _late(seconds: float, *, silent: bool) -> Callable[[Place, Request, Act], Response]:
    def strike(place: Place, request: Request, act: Act) -> Response:
        place.later(seconds, act)
        raise _timeout(place, request) if silent else _lost(request)

    return strike


def answered(
    status: int, body: bytes = b'{"error":{"code":"x","message":"injected"}}', *, acts: bool = False, **headers: str
) -> Callable[[Place, Request, Act], Response]:
    """This answer, whatever was asked."""
    pairs = tuple((name.replace("_", "-"), value) for name, value in headers.items())

    def strike(place: Place, request: Request, act: Act) -> Response:
        if acts:
            act()
        return _reply(request, status, body, pairs)

    return strike


def _mangled(change: Callable[[bytes], bytes], *, acts: bool = True) -> Callable[[Place, Request, Act], Response]:
    def strike(place: Place, request: Request, act: Act) -> Response:
        found = act() if acts else _reply(request, 200)
        return replace(found, content=change(found.content))

    return strike


def _as_here(change: Callable[[Platform, str, bytes], bytes]) -> Callable[[Place, Request, Act], Response]:
    """A JSON body that is changed as this platform's bodies can be; an empty one, or a refusal, stays."""

    def strike(place: Place, request: Request, act: Act) -> Response:
        found = act()
        if not found.content or found.status >= 300:
            return found
        return replace(found, content=change(place.platform, request.operation, found.content))

    return strike


def _twice(first: bool) -> Callable[[Place, Request, Act], Response]:
    def strike(place: Place, request: Request, act: Act) -> Response:
        one = act()
        two = act()
        return one if first else two

    return strike


def _twice_lost(place: Place, request: Request, act: Act) -> Response:
    act()
    act()
    raise _lost(request)


def _delayed_delete(seconds: float) -> Callable[[Place, Request, Act], Response]:
    def strike(place: Place, request: Request, act: Act) -> Response:
        place.later(seconds, act)
        status, body = place.platform.delete_reply
        return _reply(request, status, body)

    return strike


_HTML = b"<!DOCTYPE html><html><head><title>Sign in</title></head><body><h1>Welcome</h1></body></html>"

KINDS: tuple[Kind, ...] = (
    # nothing left this machine
    Kind("connect refused", "never", _refused),
    Kind("bad certificate", "never", _tls),
    # the answer is lost
    Kind("dropped before", "never", _drop(False)),
    Kind("dropped after", "after", _drop(True)),
    Kind("timeout before", "never", _silence(False)),
    Kind("timeout after", "after", _silence(True)),
    Kind("late 0.5 s", "late", _late(0.5, silent=False)),
    Kind("late 4 s", "late", _late(4.0, silent=False)),
    Kind("late 11 s", "late", _late(11.0, silent=False)),
    Kind("late 30 s", "late", _late(30.0, silent=False)),
    Kind("late, then timeout", "late", _late(29.0, silent=True)),
    # statuses that say nothing of whether it acted
    *(
        Kind(f"HTTP {status} {when}", "after" if when == "after" else "never", answered(status, acts=when == "after"))
        for status in (408, 500, 502, 503, 504, 520, 522, 524)
        for when in ("before", "after")
    ),
    Kind("HTTP 503 before, Retry-After 5", "never", answered(503, retry_after="5")),
    Kind("HTTP 503 after, Retry-After 5", "after", answered(503, acts=True, retry_after="5")),
    Kind("HTML 502 after", "after", answered(502, acts=True, body=_HTML)),
    # it says no
    *(Kind(f"HTTP {status}", "never", answered(status)) for status in (400, 401, 402, 403, 404, 409, 410, 422, 429)),
    Kind("HTTP 429, Retry-After 3", "never", answered(429, retry_after="3")),
    Kind("HTTP 429, Retry-After 600", "never", answered(429, retry_after="600")),
    # bodies
    Kind("redirect", "never", answered(302, location="https://elsewhere.test/")),
    Kind("HTML 200 before", "never", _mangled(lambda _: _HTML, acts=False)),
    Kind("HTML 200 after", "after", _mangled(lambda _: _HTML)),
    Kind("truncated JSON", "after", _mangled(lambda b: b[: len(b) // 2])),
    Kind("empty 200 before", "never", _mangled(lambda _: b"", acts=False)),
    Kind("empty 200 after", "after", _mangled(lambda _: b"")),
    Kind("null", "after", _mangled(lambda _: b"null")),
    Kind("a list for an object", "after", _mangled(lambda b: b"[" + b + b"]")),
    Kind("a text for an object", "after", _mangled(lambda _: b'"ok"')),
    Kind("NaN", "after", _mangled(lambda b: b.replace(b":", b":NaN,", 1))),
    Kind("invalid UTF-8", "after", _mangled(lambda b: b + b"\xff\xfe")),
    Kind("too deep", "after", _mangled(lambda _: b"[" * 100_000)),
    Kind("error object with 200", "never", _mangled(lambda _: b'{"success":false,"error":"no"}', acts=False)),
    Kind("a field is missing", "after", _as_here(lambda platform, _, b: platform.lose_a_field(b))),
    Kind("a status nobody knows", "after", _as_here(lambda platform, _, b: platform.frobnicate(b))),
    # the platform's own ways
    Kind("duplicate, first told", "twice", _twice(True), Platform.is_create),
    Kind("duplicate, second told", "twice", _twice(False), Platform.is_create),
    Kind("duplicate, none told", "twice", _twice_lost, Platform.is_create),
    Kind("the list is empty once", "after", _as_here(Platform.make_empty), Platform.is_list),
    Kind("page 2 says nothing", "after", _as_here(Platform.make_half), Platform.has_half_lists),
    Kind("the list is an empty text", "never", _mangled(lambda _: b'""', acts=False), Platform.is_list),
    Kind("deleted 6 s later", "late", _delayed_delete(6.0), Platform.is_delete),
    Kind("deleted 40 s later", "late", _delayed_delete(40.0), Platform.is_delete),
)
BY_NAME = {kind.name: kind for kind in KINDS}

FEW = tuple(
    BY_NAME[name]
    for name in (
        "connect refused",
        "dropped before",
        "dropped after",
        "late 4 s",
        "late 30 s",
        "HTTP 500 after",
        "HTTP 404",
        "HTTP 409",
        "HTTP 429, Retry-After 600",
        "truncated JSON",
        "duplicate, none told",
        "the list is empty once",
        "deleted 6 s later",
    )
)
"""One of each sort, for pairs."""
