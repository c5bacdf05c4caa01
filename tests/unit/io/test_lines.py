"""Lines and server-sent events: however the bytes are cut, what is read is the same."""

from __future__ import annotations

import gc
import itertools
import tracemalloc
from collections.abc import AsyncIterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unigpu import InvalidResponseError
from unigpu._io import lines
from unigpu._io.bridge import run_sync
from unigpu._io.lines import EventParser, LineReader, ServerSentEvent, lines_of

STREAM = "\ufeffdata: é\r\ndata:  two\r\n\r\nevent: x\rid: 1\rdata\r\rretry: 5\nfoo\ndata: z\n\ndata: cut off".encode()
EVENTS = [
    ServerSentEvent(data="é\n two"),
    ServerSentEvent(data="", event="x", id="1"),
    ServerSentEvent(data="z", id="1", retry=5),
]


@given(st.lists(st.integers(0, len(STREAM)), max_size=12))
def test_cuts_change_nothing(cuts: list[int]) -> None:
    at = [0, *sorted(cuts), len(STREAM)]
    parser = EventParser()
    found = [event for a, b in itertools.pairwise(at) for event in parser.feed(STREAM[a:b])]
    assert found == EVENTS


@given(st.binary(max_size=300))
def test_no_bytes_break_it(data: bytes) -> None:
    assert EventParser().feed(data) == [
        e for p in [EventParser()] for i in range(len(data)) for e in p.feed(data[i : i + 1])
    ]


def test_an_event_without_an_end_does_not_fill_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lines, "LONGEST_LINE", 100)
    parser = EventParser()
    with pytest.raises(InvalidResponseError):
        parser.feed(b"data: 0123456789\n" * 20)


TEXT = "first\r\n\r\nthird \u00e9\nfourth\rstill\nlast".encode()
LINES = [b"first", b"", "third \u00e9".encode(), b"fourth\rstill"]


@given(st.lists(st.integers(0, len(TEXT)), max_size=12))
def test_lines_are_the_same_however_they_are_cut(cuts: list[int]) -> None:
    at = [0, *sorted(cuts), len(TEXT)]
    reader = LineReader()
    assert [line for a, b in itertools.pairwise(at) for line in reader.feed(TEXT[a:b])] == LINES
    assert reader.end() == [b"last"]
    assert reader.end() == []


def allocated(reader: LineReader, pieces: list[bytes]) -> int:
    """Bytes that the reader allocates, all pieces together."""
    total = 0
    gc.collect()
    tracemalloc.start()
    try:
        for piece in pieces:
            before = tracemalloc.get_traced_memory()[0]
            tracemalloc.reset_peak()
            reader.feed(piece)
            total += tracemalloc.get_traced_memory()[1] - before
    finally:
        tracemalloc.stop()
    return total


def test_a_long_line_is_not_copied_for_each_of_its_pieces() -> None:
    size, parts = 4096, 512
    line = size * parts
    # Growing in place allocates the line about once; `rest + piece` would allocate it 256 times.
    assert allocated(LineReader(), [b"x" * size for _ in range(parts)]) < 8 * line


def test_a_line_without_an_end_does_not_fill_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lines, "LONGEST_LINE", 100)
    reader = LineReader()
    assert reader.feed(b"x" * 100 + b"\n") == [b"x" * 100]
    with pytest.raises(InvalidResponseError, match="longer than 100 bytes"):
        reader.feed(b"x" * 101)
    with pytest.raises(InvalidResponseError):
        LineReader().feed(b"x" * 101 + b"\n")


def test_leaving_the_lines_closes_the_reply() -> None:
    closed: list[bool] = []

    async def chunks() -> AsyncIterator[bytes]:
        try:
            yield b"one\ntwo\nthr"
            yield b"ee"
        finally:
            closed.append(True)

    async def main() -> list[bytes]:
        whole = [line async for line in lines_of(chunks())]
        left = lines_of(chunks())
        assert await anext(left) == b"one"
        await left.aclose()
        return whole

    assert run_sync(main()) == [b"one", b"two", b"three"]
    assert closed == [True, True]
