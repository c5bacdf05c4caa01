"""What becomes of a reply: a redirect is refused, a body is unpacked within limits, an error is freed of secrets."""

from __future__ import annotations

import time
from collections import deque
from urllib.parse import urljoin, urlsplit

from unigpu.errors import InvalidResponseError, UniGPUError

from ..clock import get_clock
from ..contract import CallClass, Headers, Request, Response
from ..redact import terminal
from .content_encoding import Decoder
from .exceptions import PASSES, failure
from .prepare import Prepared, secrets_of
from .transport import Raw, SendTiming

__all__ = ["Chunks", "StreamReply", "is_over", "no_redirect", "whole"]


def is_over(request: Request, timing: SendTiming) -> bool:
    """Whether the whole deadline has passed, by the real clock or by the one that a mock moves."""
    return time.monotonic() >= timing.until or get_clock().now() >= request.deadline


def no_redirect(status: int, headers: Headers, request: Request, prepared: Prepared) -> None:
    """Refuse a redirect: what we send (a key, a body) is meant for one host only.

    Raises:
        InvalidResponseError: it is one. Only the target's host is named.
    """
    if not 300 <= status < 400 or request.foreign:
        return
    try:
        target = urlsplit(urljoin(prepared.url, headers.get("location", ""))).hostname
    except ValueError:
        target = None
    where = f" to {terminal(target, limit=100)}" if target and "location" in headers else ""
    raise InvalidResponseError(
        f"{request.operation}: the server answered with a redirect{where} (HTTP {status}); redirects are not followed",
        operation=request.operation,
        maybe_executed=request.call is not CallClass.IDEMPOTENT,
        hint="Check the base URL.",
    )


def whole(status: int, headers: Headers, content: bytes, request: Request, prepared: Prepared) -> Response:
    """The reply as data."""
    if status >= 400 and not request.foreign:
        # Errors are printed and logged. Should the server echo what we sent to prove who we are, it ends here.
        for secret in secrets_of(prepared.headers):
            if len(secret) >= 4:
                content = content.replace(secret.encode("ascii"), b"***")
    return Response(status=status, headers=headers, content=content, operation=request.operation)


class StreamReply:
    """A reply on its way. `chunks` gives decoded bytes."""

    def __init__(
        self,
        raw: Raw,
        headers: Headers,
        decoder: Decoder,
        request: Request,
        timing: SendTiming,
        prepared: Prepared,
        limit: int,
    ) -> None:
        self._raw, self._decoder, self._request, self._timing = raw, decoder, request, timing
        self._prepared, self._limit = prepared, limit
        self._status = raw.status
        # what is decoded must not say that it is coded, nor how long it was
        gone = {"content-encoding", "content-length"} if decoder.decodes else set[str]()
        self._headers = Headers([pair for pair in raw.headers if pair[0].lower() not in gone]) if gone else headers

    @property
    def status(self) -> int:
        return self._status

    @property
    def headers(self) -> Headers:
        return self._headers

    def chunks(self) -> Chunks:
        """The body, once."""
        return Chunks(self._raw, self._decoder, self._request, self._timing)

    async def read(self) -> bytes:
        """What is left of the body, whole.

        Raises:
            InvalidResponseError: it is larger than a whole reply may be.
        """
        pieces: list[bytes] = []
        size = 0
        async for piece in self.chunks():
            size += len(piece)
            if size > self._limit:
                raise InvalidResponseError(
                    f"{self._request.operation}: the reply is larger than {self._limit:,} bytes",
                    operation=self._request.operation,
                    maybe_executed=True,
                    hint="As a stream it may have any size.",
                )
            pieces.append(piece)
        return whole(self._status, self._headers, b"".join(pieces), self._request, self._prepared).content


class Chunks:
    """An iterator by hand: an unfinished generator would make trio warn, and leave work for the collector."""

    def __init__(self, raw: Raw, decoder: Decoder, request: Request, timing: SendTiming) -> None:
        self._raw, self._decoder, self._request, self._timing = raw, decoder, request, timing
        self._ready: deque[bytes] = deque()
        self._ended = False

    def __aiter__(self) -> Chunks:
        return self

    async def __anext__(self) -> bytes:
        error: UniGPUError
        try:
            while not self._ready:
                data = None if self._ended else await self._raw.next()
                if data is None:
                    if not self._ended:
                        self._decoder.finish()
                    self._ended = True
                    break
                self._ready.extend(piece for piece in self._decoder.feed(data) if piece)
        except PASSES:
            raise
        except Exception as exc:
            error = failure(exc, self._request, expired=is_over(self._request, self._timing))
        else:
            if self._ready:
                return self._ready.popleft()
            raise StopAsyncIteration
        raise error

    async def aclose(self) -> None:
        await self._raw.close()
