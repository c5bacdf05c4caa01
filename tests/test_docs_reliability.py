"""`docs/reliability.md` against the code: each cell of its tables is tried, each number compared with its constant."""

from __future__ import annotations

import contextlib
import importlib
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import unigpu
from unigpu import errors
from unigpu._io.bridge import run_sync
from unigpu._io.clock import VirtualClock
from unigpu._io.contract import CallClass, Headers, Outcome, Request, Response
from unigpu._io.in_memory import MemoryIo
from unigpu._io.resilience.retry import RetryingIo, RetryPolicy
from unigpu._io.status import TRANSIENT, outcome

PAGE = (Path(__file__).parents[1] / "docs" / "reliability.md").read_text(encoding="utf-8")
CLASSES = {
    "idempotent": CallClass.IDEMPOTENT,
    "reconcile": CallClass.RECONCILE,
    "user decides": CallClass.USER_DECIDES,
}


def table(first_column: str) -> list[dict[str, str]]:
    """The rows of all tables whose first column is called so."""
    lines = PAGE.splitlines()
    heads = [
        n for n, line in enumerate(lines) if line.startswith(f"| {first_column} |") and lines[n + 1].startswith("|--")
    ]
    rows = []
    for start in heads:
        for line in lines[start + 2 :]:
            if not line.startswith("|"):
                break
            rows.append(dict(zip(cells(lines[start]), cells(line), strict=True)))
    return rows


def cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip().strip("|").split("|")]


def never(**more: Any) -> errors.UniGPUError:
    return errors.TransportError("no connection", never_sent=True, **more)


# What each name in the first column stands for.
MADE: dict[str, Callable[[], errors.UniGPUError | int]] = {
    "no connection": never,
    "certificate refused": lambda: never(retryable=False),
    "address refused": lambda: never(retryable=False),
    "lost answer": lambda: errors.TransportError("broke"),
    "your deadline": lambda: errors.TransportTimeout("late", stop_reason="deadline"),
    "unreadable answer": lambda: errors.InvalidResponseError("too large"),
    "3xx": lambda: errors.InvalidResponseError("a redirect"),  # what `_io/http/reply.py` makes of one
    "2xx": lambda: 200,
}
ROWS = [(name, row) for row in table("What came back") for name in re.findall(r"`([^`]+)`", row["What came back"])]


@pytest.mark.parametrize("call", list(CLASSES))
@pytest.mark.parametrize(("name", "row"), ROWS, ids=[name for name, _ in ROWS])
def test_every_cell_of_the_table_is_what_the_code_does(name: str, row: dict[str, str], call: str) -> None:
    sent: list[Request] = []

    def handle(request: Request) -> Response:
        sent.append(request)
        answer = MADE[name]() if name in MADE else int(name)
        if len(sent) > 1:
            answer = 200
        if isinstance(answer, errors.UniGPUError):
            raise answer
        return Response(status=answer, headers=Headers())

    io = RetryingIo(MemoryIo(handle, VirtualClock(), sync=True))
    request = Request(
        method="POST", url="https://x.example/", operation="x.y", role="control", call=CLASSES[call], deadline=600.0
    )
    with contextlib.suppress(errors.TransportError, errors.InvalidResponseError):
        run_sync(io.send(request))
    assert row[call] in ("again", "no")
    assert len(sent) == (2 if row[call] == "again" else 1)


@pytest.mark.parametrize(("name", "row"), ROWS, ids=[name for name, _ in ROWS])
def test_every_outcome_in_the_table_is_the_codes(name: str, row: dict[str, str]) -> None:
    made = MADE[name]() if name in MADE else int(name)
    known = outcome(Response(status=made, headers=Headers()) if isinstance(made, int) else made)
    assert known is Outcome(row["Outcome"].replace(" ", "_"))


def test_the_table_leaves_out_no_status_that_is_sent_again() -> None:
    told = {int(name) for name, _ in ROWS if name.isdigit()}
    assert told >= TRANSIENT | {429}
    assert {Outcome(row["Outcome"].replace(" ", "_")) for _, row in ROWS} == set(Outcome)


def _constant(path: str) -> float:
    where, _, name = path.rpartition(".")
    if where == "RetryPolicy":
        return float(getattr(RetryPolicy(), name))
    return float(getattr(importlib.import_module(f"unigpu._io.{where}"), name))


NUMBERS = [(row["In the code"].strip("`"), row.get("Value") or row["Tokens"]) for row in table("What")]


def test_the_page_has_its_three_tables_of_numbers() -> None:
    assert len(NUMBERS) == 17


@pytest.mark.parametrize(("constant", "shown"), NUMBERS, ids=[name for name, _ in NUMBERS])
def test_every_number_on_the_page_is_the_constant_it_names(constant: str, shown: str) -> None:
    number = re.search(r"[0-9.]+", shown)
    assert number is not None
    assert float(number[0]) * (0.01 if "%" in shown else 1) == _constant(constant)


def test_the_numbers_in_the_text_are_the_constants_it_names() -> None:
    assert _constant("poll.FAILURES") == 5
    assert _constant("poll.SILENCE") == 60
    assert _constant("resilience.protection.WARNING_PAUSE") == 30
    assert _constant("resilience.send_outcome._IMPATIENT") == 5
    for name in (
        "`poll.FAILURES`, `poll.SILENCE`",
        "`resilience.protection.WARNING_PAUSE`",
        "silent for 5 s",
        "60 s without an",
    ):
        assert name in PAGE


def test_every_stop_reason_is_explained_and_every_field_exists() -> None:
    explained = {row["`stop_reason`"].strip("`") for row in table("`stop_reason`")}
    documented = set(re.findall(r"``(\w+)``", str(errors.UniGPUError.__doc__).partition("stop_reason:")[2]))
    assert explained - {"None"} == documented
    error = unigpu.CircuitOpen("x")
    for row in table("Field"):
        assert hasattr(error, row["Field"].strip("`"))


def test_what_is_logged_is_listed() -> None:
    from unigpu._io.resilience.protection import Protection
    from unigpu._io.resilience.telemetry import Records

    seen: list[tuple[str, Any]] = []
    records = Records(Protection(), 4, lambda kind, _, fields: seen.append((kind, fields)))
    request = Request(
        method="GET", url="https://x.example/", operation="x.y", role="control", call=CallClass.IDEMPOTENT, deadline=1.0
    )
    records.refused(request, "x control", 1.0, 0.0)
    ((_, fields),) = seen
    listed = re.search(r"holds the fields: (.*?)\. `Client", PAGE, re.DOTALL)
    assert listed is not None
    assert re.findall(r"`(\w+)`", listed[1]) == list(fields)
