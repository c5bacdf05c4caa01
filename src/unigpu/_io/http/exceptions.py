"""From an exception of the HTTP libraries to one of ours. A table by class name; nothing foreign gets past it.

A foreign text may hold a header, so it is never passed on: the words here are ours, and of the operating system only
the error's name is kept. What the table does not know may have acted: it is ambiguous.
"""

from __future__ import annotations

import errno
import os
import ssl
from collections.abc import Iterator
from typing import Final, NamedTuple, cast

from unigpu.errors import ConfigurationError, TransportError, TransportTimeout, UniGPUError

from ..contract import Request

__all__ = ["PASSES", "RefusedHere", "failure"]

PASSES: Final = (AssertionError, MemoryError, UniGPUError)
"""What goes through untouched: a test's own assertion ("not mocked" is one), no memory, and what is ours already."""


class RefusedHere(Exception):
    """Mixin for what `network` itself refuses: its text is ours, hence safe to show."""

    retryable = True


class _ExceptionRow(NamedTuple):
    words: str
    never_sent: bool = False
    timeout: bool = False
    hint: str | None = None


# httpx and httpcore share these names. The first name found along the class's bases decides.
_TABLE: Final[dict[str, _ExceptionRow]] = {
    "ConnectTimeout": _ExceptionRow("no connection in time", never_sent=True, timeout=True),
    "PoolTimeout": _ExceptionRow(
        "no connection became free in time",
        never_sent=True,
        timeout=True,
        hint="Streams that were left open hold their connections: use `with`.",
    ),
    "ReadTimeout": _ExceptionRow("no answer in time", timeout=True),
    "WriteTimeout": _ExceptionRow("the request could not be written in time", timeout=True),
    "TimeoutException": _ExceptionRow("no answer in time", timeout=True),
    "ConnectError": _ExceptionRow("no connection", never_sent=True),
    "ProxyError": _ExceptionRow("the proxy refused", never_sent=True),
    "UnsupportedProtocol": _ExceptionRow("this kind of URL cannot be sent", never_sent=True),
    "ReadError": _ExceptionRow("the connection broke before the answer was whole"),
    "WriteError": _ExceptionRow("the connection broke while the request was written"),
    "CloseError": _ExceptionRow("the connection broke while it was closed"),
    "NetworkError": _ExceptionRow("the connection broke"),
    "RemoteProtocolError": _ExceptionRow("the answer was not whole, or not HTTP"),
    "LocalProtocolError": _ExceptionRow("the request was not valid HTTP"),
    "ProtocolError": _ExceptionRow("the answer was not HTTP"),
}


def failure(exc: BaseException, request: Request, *, expired: bool) -> UniGPUError:
    """Our error for *exc*. Raise it outside of the ``except`` block, or the foreign one hangs on as its context.

    Args:
        request: The request that failed.
        expired: Its deadline has passed.
    """
    row = _row(exc)
    words, retryable, hint = row.words, True, row.hint
    for cause in _causes(exc):
        if isinstance(cause, RefusedHere):
            words, retryable = str(cause), cause.retryable
        elif isinstance(cause, ssl.SSLCertVerificationError):
            words, retryable = f"the certificate was refused: {cause.verify_message}", False
            hint = "A proxy that opens TLS, or a wrong host, looks like this."
        elif isinstance(cause, ssl.SSLError):
            words = f"TLS failed ({cause.reason or 'not a TLS server?'})"
        elif isinstance(cause, OSError) and cause.errno is not None and cause.errno in errno.errorcode:
            words = f"{row.words} ({os.strerror(cause.errno)})"
            if cause.errno in (errno.EMFILE, errno.ENFILE):
                hint = "This process has too many open files: raise its limit, or lower the concurrency."
        else:
            continue
        break
    if isinstance(exc, ImportError):
        return ConfigurationError(f"a package is missing for this proxy: {type(exc).__name__}")
    if expired and row.timeout:
        words = f"{words}: the deadline has passed"
    text = f"{request.operation}: {words} ({type(exc).__name__})"
    kind = TransportTimeout if row.timeout else TransportError
    return kind(
        text,
        never_sent=row.never_sent,
        operation=request.operation,
        retryable=retryable,
        hint=hint,
        stop_reason="deadline" if expired and row.timeout else None,
    )


def _row(exc: BaseException) -> _ExceptionRow:
    for base in type(exc).__mro__:
        if base.__module__.partition(".")[0] in ("httpx", "httpcore") and base.__name__ in _TABLE:
            return _TABLE[base.__name__]
    return _ExceptionRow("the call broke in a way that is not known", timeout=isinstance(exc, TimeoutError))


def _causes(exc: BaseException) -> Iterator[BaseException]:
    seen: set[int] = set()
    pending: list[BaseException | None] = [exc]
    while pending and len(seen) < 20:
        one = pending.pop()
        if one is None or id(one) in seen:
            continue
        seen.add(id(one))
        yield one
        if isinstance(one, BaseExceptionGroup):  # several addresses were tried side by side
            group = cast("BaseExceptionGroup[BaseException]", one)
            pending.extend(reversed(group.exceptions))
        pending.extend((one.__context__, one.__cause__))
