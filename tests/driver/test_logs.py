"""The verb ``logs``: the newest lines, what follows, and workers and deployments that end meanwhile."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from driver_kit import World

from unigpu._io.bridge import run_sync
from unigpu._io.clock import InstantClock, use_clock
from unigpu.driver import LogLine, read_logs
from unigpu.errors import DeploymentGone, NotFoundError


class Logs:
    """Workers with lines: each call of `read` gives the next list of its worker, or raises it."""

    def __init__(self, **lines: list[Any]) -> None:
        self.lines = lines
        self.reads: list[tuple[str, int | None]] = []

    async def workers(self) -> Sequence[str]:
        return list(self.lines)

    async def read(self, id: str, tail: int | None) -> Sequence[LogLine]:
        self.reads.append((id, tail))
        found = self.lines[id].pop(0) if self.lines[id] else []
        if isinstance(found, Exception):
            raise found
        return [LogLine(text=f"{id}{at:g}", worker_id=id, time=at) for at in found]


def read(logs: Logs, *, worker: str | None = None, follow: bool = False, tail: int = 3, most: int = 99) -> list[str]:
    async def main() -> list[str]:
        found: list[str] = []
        lines = read_logs(
            World().io, workers=logs.workers, read=logs.read, worker=worker, follow=follow, tail=tail, pause=2.0
        )
        async for line in lines:
            found.append(line.text)
            if len(found) == most:
                break
        return found

    with use_clock(InstantClock()):
        return run_sync(main())


def test_the_newest_lines_of_all_workers_are_given_by_their_time() -> None:
    logs = Logs(a=[[1, 4]], b=[[2, 3, 5]])
    assert read(logs) == ["b3", "a4", "b5"]
    assert logs.reads == [("a", 3), ("b", 3)]
    assert read(Logs(a=[[1, 2]]), tail=0) == []


def test_lines_without_a_time_keep_their_order() -> None:
    class Timeless(Logs):
        async def read(self, id: str, tail: int | None) -> Sequence[LogLine]:
            return [LogLine(text=text) for text in "cab"]

    assert read(Timeless(a=[])) == ["c", "a", "b"]


def test_following_gives_every_new_line_and_only_those() -> None:
    logs = Logs(a=[[1, 2, 3, 4], [], [5, 6, 7, 8]])
    assert read(logs, follow=True, tail=2, most=6) == ["a3", "a4", "a5", "a6", "a7", "a8"]
    assert logs.reads == [("a", 2), ("a", None), ("a", None)]


def test_of_all_workers_one_may_end_meanwhile() -> None:
    assert read(Logs(a=[NotFoundError("it ended")], b=[[1]])) == ["b1"]
    with pytest.raises(NotFoundError):
        read(Logs(a=[NotFoundError("there is none")]), worker="a")


def test_one_worker_is_read_without_a_list_of_them() -> None:
    logs = Logs(a=[[1]], b=[[2]])
    assert read(logs, worker="b") == ["b2"]
    assert logs.reads == [("b", 3)]


def test_the_end_of_the_deployment_ends_what_follows() -> None:
    assert read(Logs(a=[[1], DeploymentGone("it does not exist any more")]), follow=True) == ["a1"]
    with pytest.raises(DeploymentGone):
        read(Logs(a=[DeploymentGone("it does not exist any more")]), follow=True)
