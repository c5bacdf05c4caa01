"""From a reply to what it means: the outcome class, and the typed error. One table for all providers.

An HTTP status says what the *platform's front* did. 5xx, 408 and Cloudflare's 52x may come after the platform acted, so
they are ambiguous; other 4xx are refusals. A driver adds what its platform says in the body.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from datetime import UTC
from email.utils import parsedate_to_datetime
from typing import Final, cast

from unigpu.errors import (
    APIStatusError,
    AuthenticationError,
    ClientClosed,
    ConfigurationError,
    ConflictError,
    InsufficientBalanceError,
    InvalidRequestError,
    InvalidResponseError,
    NotFoundError,
    PermissionDeniedError,
    ProviderUnavailableError,
    RateLimitError,
    TransportError,
    UnsupportedError,
)

from .clock import get_clock
from .contract import Headers, Outcome, Response
from .redact import excerpt, scrub, terminal

__all__ = ["TRANSIENT", "check", "error_for", "outcome", "request_id", "retry_after"]

_BY_STATUS: Final[Mapping[int, type[APIStatusError]]] = {
    401: AuthenticationError,
    402: InsufficientBalanceError,
    403: PermissionDeniedError,
    404: NotFoundError,
    408: ProviderUnavailableError,
    409: ConflictError,
    410: NotFoundError,
    423: ConflictError,
    429: RateLimitError,
    451: PermissionDeniedError,
}
TRANSIENT: Final = frozenset({408, 500, 502, 503, 504, *range(520, 528), 530})
"""Statuses after which an idempotent call is worth repeating. 501 and 505 do not pass by waiting."""

_REQUEST_IDS: Final = ("x-request-id", "request-id", "x-amzn-requestid", "x-correlation-id", "x-trace-id", "cf-ray")
_HINTS: Final[Mapping[int, str]] = {
    401: "Check the key: it is missing, wrong, or was revoked.",
    402: "Add funds to the account.",
    403: "The key may not do that: check its scope.",
    413: "The body is larger than the platform takes.",
}
# Where providers put their words: RFC 9457, RunPod, Vast and Yotta.
_WORDS: Final = ("detail", "message", "msg", "error", "error_description", "title", "errors")


def outcome(value: Response | BaseException) -> Outcome:
    """What is known of the call that ended with *value*."""
    if isinstance(value, Response):
        return _of_status(value.status)
    if isinstance(value, TransportError):
        return Outcome.NEVER_SENT if value.never_sent else Outcome.AMBIGUOUS
    if isinstance(value, APIStatusError) and value.status is not None:
        return _of_status(value.status)
    if isinstance(value, ConfigurationError | UnsupportedError | ClientClosed):
        return Outcome.NEVER_SENT
    return Outcome.AMBIGUOUS  # what cannot be named may have acted


def _of_status(status: int) -> Outcome:
    if 200 <= status < 300:
        return Outcome.DONE
    if 400 <= status < 500 and status != 408:
        return Outcome.REJECTED
    return Outcome.AMBIGUOUS


def check(
    response: Response,
    provider: str,
    *,
    deployment: str | None = None,
    secrets: Iterable[str] = (),
    maybe_executed: bool | None = None,
) -> Response:
    """*response* itself where its status is 2xx.

    Args:
        provider: The provider's name.
        deployment: The deployment's logical name, where the call was about one.
        secrets: What must not be shown should the platform echo it.
        maybe_executed: What the platform documents, where that is more than the status says.

    Raises:
        APIStatusError: the kind that belongs to the status.
        InvalidResponseError: a status that is no answer (1xx, 3xx).
    """
    if 200 <= response.status < 300:
        return response
    raise error_for(response, provider, deployment=deployment, secrets=secrets, maybe_executed=maybe_executed)


def error_for(
    response: Response,
    provider: str,
    *,
    deployment: str | None = None,
    secrets: Iterable[str] = (),
    maybe_executed: bool | None = None,
    kind: type[APIStatusError] | None = None,
    message: str | None = None,
) -> APIStatusError | InvalidResponseError:
    """The error that *response* means. *kind* and *message*: where the platform's body says more than its status."""
    secrets = tuple(secrets)
    status = response.status
    if maybe_executed is None:
        maybe_executed = _of_status(status) is not Outcome.REJECTED
    body = excerpt(response.content, secrets=secrets)
    words = terminal(scrub(message, secrets), limit=500) if message is not None else _words(response.content, secrets)
    operation = response.operation or None
    text = f"{operation or provider} failed: HTTP {status}" + (f": {words}" if words else "")
    if kind is None and not 400 <= status <= 599:
        return InvalidResponseError(
            text,
            body=body,
            provider=provider,
            operation=operation,
            deployment=deployment,
            maybe_executed=maybe_executed,
            attempts=response.attempts,
        )
    if kind is None:
        kind = _BY_STATUS.get(status) or (InvalidRequestError if status < 500 else ProviderUnavailableError)
    return kind(
        text,
        status=status,
        request_id=request_id(response.headers),
        body=body or None,
        retry_after=retry_after(response.headers),
        provider=provider,
        operation=operation,
        deployment=deployment,
        retryable=False if status >= 500 and status not in TRANSIENT else None,
        maybe_executed=maybe_executed,
        hint=_HINTS.get(status),
        attempts=response.attempts,
        stop_reason=response.stop_reason,
    )


def request_id(headers: Headers) -> str | None:
    """The provider's id for the request, printable, where it gave one."""
    found = next((headers[name] for name in _REQUEST_IDS if name in headers), None)
    return terminal(found, limit=200) if found else None


def retry_after(headers: Headers, *, wall: float | None = None) -> float | None:
    """Seconds that the provider asks us to wait: ``retry-after-ms``, then ``retry-after`` in seconds or as a date.

    Of a repeated header the longest pause counts. What is not a finite number above 0, and a date that is past or
    cannot be read, is ``None``.
    """
    for name, unit in (("retry-after-ms", 0.001), ("retry-after", 1.0)):
        pauses: list[float] = []
        for value in headers.getall(name):
            try:
                seconds = float(value) * unit if value.isascii() and "_" not in value else math.nan
            except ValueError:
                seconds = math.nan if unit != 1.0 else _until(value, get_clock().wall() if wall is None else wall)
            if math.isfinite(seconds) and seconds > 0:
                pauses.append(seconds)
        if pauses:
            return max(pauses)
    return None


def _until(date: str, wall: float) -> float:
    try:
        moment = parsedate_to_datetime(date)
        return moment.replace(tzinfo=moment.tzinfo or UTC).timestamp() - wall  # HTTP dates are GMT, said or not
    except (ValueError, TypeError, OverflowError, IndexError, OSError):
        return math.nan  # not a date


def _words(content: bytes, secrets: tuple[str, ...]) -> str:
    """What the provider says in its error body, in one line."""
    try:
        data: object = json.loads(content[:65_536].decode("utf-8"))
    except (ValueError, RecursionError):
        return excerpt(content, secrets=secrets)
    found = _said(data)
    return excerpt(found, secrets=secrets) if found else ""


def _said(data: object, depth: int = 0) -> str:
    if isinstance(data, str):
        return data
    if depth > 3:
        return ""
    if isinstance(data, list):
        said = (_said(item, depth + 1) for item in cast("list[object]", data)[:5])
        return "; ".join(part for part in said if part)
    if isinstance(data, dict):
        fields = cast("dict[str, object]", data)
        parts = [_said(fields[name], depth + 1) for name in _WORDS if name in fields]
        return ": ".join(dict.fromkeys(part for part in parts if part))
    return ""
