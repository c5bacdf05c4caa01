"""What is told of a call: log records with one set of fields, and the same as events. No body, header, query or key.

``unigpu.retry``: INFO for each repetition, WARNING where it is given up (at most one in 30 s about one plane, else
INFO), DEBUG where an open breaker refused. ``unigpu.http``: one DEBUG record for each sending.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Mapping
from typing import Any, Final, Literal
from urllib.parse import urlsplit

from ..contract import Request
from ..status import request_id
from .failure_domain import host_of, provider_of
from .protection import Protection
from .send_outcome import SendOutcome

__all__ = ["Records", "Tell", "path_template"]

Tell = Callable[[str, Request, Mapping[str, Any]], None]
"""Gets an event's kind (``retry``, ``gave_up``, ``breaker.opened``, ``breaker.closed``), the request, the fields."""

_retry: Final = logging.getLogger("unigpu.retry")
_http: Final = logging.getLogger("unigpu.http")
_WORD: Final = re.compile(r"[a-z][a-z_-]{0,31}|v[0-9]{1,2}", re.ASCII)


def path_template(url: str) -> str:
    """The path with ``{}`` for every part that is not a plain word: those are ids, and may be somebody's names."""
    try:
        parts = urlsplit(url).path.split("/")
    except ValueError:
        return "?"
    return "/".join(part if not part or _WORD.fullmatch(part) else "{}" for part in parts)


class Records:
    """Tells of the calls of one `RetryingIo`."""

    def __init__(self, protection: Protection, attempts: int, tell: Tell | None) -> None:
        self._protection, self._attempts, self._tell = protection, attempts, tell

    def sent(
        self, request: Request, end: SendOutcome | None, error: BaseException | None, number: int, seconds: float
    ) -> None:
        """One sending has ended, well or not."""
        if not _http.isEnabledFor(logging.DEBUG):
            return
        status = None if end is None else end.status
        error = error if end is None else end.error
        fields = {
            "provider": provider_of(request),
            "operation": request.operation,
            "deployment": request.deployment,
            "attempt": number,
            "method": request.method,
            "host": host_of(request),
            "path": path_template(request.url),
            "status": status,
            "error": None if error is None else type(error).__name__,
            "bytes": None if end is None else end.size,
            "ms": round(seconds * 1000, 3),
        }
        _http.debug(
            "%s: %s %s %s: %s in %.0f ms",
            request.operation,
            request.method,
            fields["host"],
            fields["path"],
            fields["error"] if status is None else f"HTTP {status}",
            fields["ms"],
            extra={"unigpu": fields},
        )

    def retry(self, request: Request, key: str, end: SendOutcome, number: int, sleep: float, now: float) -> None:
        """It will be sent again, *sleep* seconds from now."""
        fields = self._fields(request, key, end, number, end.words, sleep, now)
        _retry.info("%s: %s, trying again in %.2f s", request.operation, end.words, sleep, extra={"unigpu": fields})
        self._event("retry", request, fields)

    def gave_up(self, request: Request, key: str, end: SendOutcome, number: int, reason: str, now: float) -> None:
        """It will not be sent again, because of *reason* (an error's ``stop_reason``)."""
        fields = self._fields(request, key, end, number, reason, None, now)
        level = logging.WARNING if self._protection.may_warn(key, now) else logging.INFO
        _retry.log(
            level, "%s: %s, gave up after %d (%s)", request.operation, end.words, number, reason,
            extra={"unigpu": fields},
        )  # fmt: skip
        self._event("gave_up", request, fields)

    def refused(self, request: Request, key: str, seconds: float, now: float) -> None:
        """An open breaker did not let it out."""
        fields = self._fields(request, key, None, 0, "breaker", None, now)
        fields["retry_after_s"] = seconds
        _retry.debug("%s: not sent, the breaker is open", request.operation, extra={"unigpu": fields})
        self._event("gave_up", request, fields)

    def breaker(
        self,
        request: Request,
        key: str,
        change: Literal["opened", "closed"],
        end: SendOutcome | None,
        number: int,
        now: float,
    ) -> None:
        """The breaker changed its state because of this call."""
        fields = self._fields(request, key, end, number, change, None, now)
        opened = change == "opened"
        level = logging.WARNING if opened and self._protection.may_warn(key, now) else logging.INFO
        text = "nothing gets through; calls are refused for a while" if opened else "it answers again"
        _retry.log(level, "%s: %s", key, text, extra={"unigpu": fields})
        self._event(f"breaker.{change}", request, fields)

    def _event(self, kind: str, request: Request, fields: Mapping[str, Any]) -> None:
        if self._tell is not None:
            self._tell(kind, request, fields)

    def _fields(
        self,
        request: Request,
        key: str,
        end: SendOutcome | None,
        number: int,
        reason: str,
        sleep: float | None,
        now: float,
    ) -> dict[str, Any]:
        tokens, breaker = self._protection.tokens, self._protection.breaker
        return {
            "provider": provider_of(request),
            "operation": request.operation,
            "attempt": number,
            "max_attempts": self._attempts,
            "outcome_class": None if end is None else end.known.value,
            "status": None if end is None else end.status,
            "reason": reason,
            "sleep_s": sleep,
            "retry_after_s": None if end is None else end.hint,
            "deadline_left_s": request.deadline - now,
            "tokens_left": None if tokens is None else tokens.left(key, now),
            "breaker": None if breaker is None else breaker.state(key, now),
            "request_id": None if end is None or end.reply is None else request_id(end.reply.headers),
            "deployment": request.deployment,
        }
