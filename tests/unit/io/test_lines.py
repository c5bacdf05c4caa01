"""Server-sent events: however the bytes are cut, the events are the same."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unigpu import InvalidResponseError
from unigpu._io import lines
from unigpu._io.lines import EventParser, ServerSentEvent

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
    monkeypatch.setattr(lines, "_MOST", 100)
    parser = EventParser()
    with pytest.raises(InvalidResponseError):
        parser.feed(b"data: 0123456789\n" * 20)
