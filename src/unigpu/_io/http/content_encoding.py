"""A body's content coding, undone within limits.

The libraries' own decoders unpack a whole piece at a time, so 64 KB from the wire may become 64 MB in memory before
anybody can look. Here a piece is unpacked bit by bit, and the limits hold before the memory is used.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from typing import Final

from unigpu.errors import InvalidResponseError

__all__ = ["MAX_RATIO", "Decoder"]

MAX_RATIO: Final = 200
"""Decoded bytes for each encoded one at most (JSON of one repeated line stays far below)."""
_PIECE: Final = 256 * 1024
_ALWAYS: Final = 1024 * 1024  # below this no ratio is judged: tiny bodies may be very repetitive


class Decoder:
    """Undoes ``gzip`` and ``deflate``, and lets ``identity`` through.

    Args:
        coding: The reply's ``content-encoding``, if any.
        operation: For error texts.
        limit: Decoded bytes at most; ``None``: as many as come (a stream's reader takes them one by one).

    Raises:
        InvalidResponseError: an unknown coding, a body that is not so coded, or one that is too large.
    """

    def __init__(self, coding: str | None, *, operation: str, limit: int | None) -> None:
        self._operation, self._limit = operation, limit
        self._taken = self._given = 0
        codings = [name.strip().lower() for name in (coding or "").split(",") if name.strip()]
        codings = [name for name in codings if name != "identity"]
        if codings and codings not in (["gzip"], ["x-gzip"], ["deflate"]):
            raise self._bad("the reply is coded in a way that was not asked for")
        self._wbits = zlib.MAX_WBITS if codings == ["deflate"] else zlib.MAX_WBITS | 16
        self._zip = zlib.decompressobj(self._wbits) if codings else None
        self._raw_deflate = codings == ["deflate"]

    @property
    def decodes(self) -> bool:
        """Whether what comes out differs from what goes in."""
        return self._zip is not None

    def feed(self, data: bytes) -> Iterator[bytes]:
        """The decoded pieces of the next bytes from the wire."""
        self._taken += len(data)
        if self._zip is None:
            yield self._count(data)
            return
        rest = data
        while rest:
            if self._zip.eof:  # gzip may consist of several members; anything else does not belong there
                if not rest.startswith(b"\x1f"[: len(rest)]) or self._wbits != zlib.MAX_WBITS | 16:
                    raise self._bad("something follows the coded reply")
                self._zip = zlib.decompressobj(self._wbits)
            try:
                piece = self._zip.decompress(rest, _PIECE)
            except zlib.error:
                if not (self._raw_deflate and self._given == 0 and self._taken == len(data)):
                    raise self._bad("the reply is not coded as it says") from None
                # "deflate" means zlib's format; some servers send it bare
                self._zip = zlib.decompressobj(-zlib.MAX_WBITS)
                self._raw_deflate = False
                continue
            rest = self._zip.unused_data if self._zip.eof else self._zip.unconsumed_tail
            if piece:
                yield self._count(piece)

    def finish(self) -> None:
        """Say that the wire's last byte was fed."""
        if self._zip is not None and self._taken and not self._zip.eof:
            raise self._bad("the coded reply ends too early")

    def _count(self, piece: bytes) -> bytes:
        self._given += len(piece)
        if self._limit is not None and self._given > self._limit:
            raise self._bad(f"the reply is larger than {self._limit:,} bytes")
        if self._zip is not None and self._given > max(_ALWAYS, self._taken * MAX_RATIO):
            raise self._bad(f"the reply unpacks to more than {MAX_RATIO} times its size")
        return piece

    def _bad(self, what: str) -> InvalidResponseError:
        return InvalidResponseError(
            f"{self._operation}: {what}", operation=self._operation, retryable=False, maybe_executed=True
        )
