"""Logs of workers: the newest by paging backwards, what follows by paging forwards, and calls that are not there."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from yotta_script import Scripted, driver, reply

from unigpu import errors
from unigpu.driver import DeploymentInfo, Headers, Request, Response, State

EP = "/v2/serverless/378888638324150969"
INFO = DeploymentInfo(
    provider="yotta", name="summarize", provider_name="summa-ugabcdefghijkl", id="378888638324150969",
    state=State.READY, details={"service_mode": "QUEUE"},
)  # fmt: skip


class Log:
    """A worker's log as the manual pages it: the newest backwards, or from a token forwards; *page* lines at a time."""

    def __init__(self, page: int) -> None:
        self.lines: list[tuple[int, int, str]] = []
        self.page = page

    def say(self, *texts: str) -> None:
        for text in texts:
            n = len(self.lines)
            self.lines.append((1_705_306_200_000 + n // 3, n, text))  # several share a millisecond

    def __call__(self, request: Request) -> Response:
        asked = dict(request.params)
        token = (int(asked["searchAfterTime"]), int(asked["searchAfterOffset"])) if "searchAfterTime" in asked else None
        size = min(int(asked["pageSize"]), self.page)
        if asked["direction"] == "Backward":
            there = [line for line in reversed(self.lines) if token is None or line[:2] < token]
        else:
            there = [line for line in self.lines if token is None or line[:2] > token]
        found = there[:size]
        data: dict[str, Any] = {
            "logs": [{"timestamp": at, "log": text, "offset": n} for at, n, text in found],
            "hasMore": len(there) > size,
        }
        if found:
            data |= {"nextSearchAfterTime": str(found[-1][0]), "nextSearchAfterOffset": str(found[-1][1])}
        return reply(data)


@pytest.mark.parametrize("page", [1, 3, 7, 1000])
@pytest.mark.parametrize("tail", [0, 1, 10, 25, 100])
def test_the_newest_lines_are_found_by_paging_backwards(script: Callable[..., Scripted], page: int, tail: int) -> None:
    log = Log(page)
    log.say(*(f"line {n}" for n in range(25)))
    cloud = script({f"GET {EP}/workers/7/logs": log})

    async def read() -> list[str]:
        return [line.text async for line in driver().logs(cloud.io, INFO, worker="7", follow=False, tail=tail)]

    assert cloud.run(read()) == [f"line {n}" for n in range(25)][max(0, 25 - tail) :]


@pytest.mark.parametrize("page", [1, 4, 1000])
def test_following_gives_each_new_line_once(script: Callable[..., Scripted], page: int) -> None:
    log = Log(page)
    log.say("a", "b")
    cloud = script({f"GET {EP}/workers/7/logs": log})

    async def read() -> list[str]:
        found: list[str] = []
        lines = driver().logs(cloud.io, INFO, worker="7", follow=True, tail=1)
        async for line in lines:
            found.append(line.text)
            if line.text == "b":
                log.say("c", "d", "e")
            if line.text == "e":
                log.say("f")
            if line.text == "f":
                break
        await lines.aclose()  # type: ignore[attr-defined]  # it is a generator
        return found

    assert cloud.run(read()) == ["b", "c", "d", "e", "f"]


@pytest.mark.parametrize("tail", [0, 1])
def test_following_with_no_lines_before_begins_after_the_newest(script: Callable[..., Scripted], tail: int) -> None:
    log = Log(10)
    log.say("a", "b")
    asked: list[Request] = []

    def answer(request: Request) -> Response:
        asked.append(request)
        if len(asked) == 2:
            log.say("c")
        return log(request)

    cloud = script({f"GET {EP}/workers/7/logs": answer})

    async def read() -> list[str]:
        lines = driver().logs(cloud.io, INFO, worker="7", follow=True, tail=tail)
        found: list[str] = []
        async for line in lines:
            found.append(line.text)
            if line.text == "c":
                break
        await lines.aclose()  # type: ignore[attr-defined]  # it is a generator
        return found

    assert cloud.run(read()) == ["b", "c"][1 - tail :]


def test_following_reads_the_log_of_a_dead_worker_once(script: Callable[..., Scripted]) -> None:
    dead, alive = Log(10), Log(10)
    dead.say("last words")
    alive.say("0")
    rows = [{"id": 6, "status": "TERMINATED"}, {"id": 7, "status": "RUNNING"}]
    cloud = script(
        {f"GET {EP}/workers": reply(rows), f"GET {EP}/workers/6/logs": dead, f"GET {EP}/workers/7/logs": alive}
    )

    async def read() -> list[str]:
        lines = driver().logs(cloud.io, INFO, worker=None, follow=True, tail=10)
        found: list[str] = []
        async for line in lines:
            found.append(line.text)
            if line.text.isdecimal():
                alive.say(str(int(line.text) + 1))
            if line.text == "5":
                break
        await lines.aclose()  # type: ignore[attr-defined]  # it is a generator
        return found

    assert sorted(cloud.run(read())) == ["0", "1", "2", "3", "4", "5", "last words"]
    assert sum("/workers/6/logs" in request.url for request in cloud.asked) == 1


def test_where_there_is_no_call_for_logs_nothing_is_taken_for_gone(script: Callable[..., Scripted]) -> None:
    async def read(cloud: Scripted) -> list[str]:
        return [line.text async for line in driver().logs(cloud.io, INFO, worker="7", follow=False, tail=5)]

    path = f"GET {EP}/workers/7/logs"
    cloud = script({path: Response(status=404, headers=Headers(), content=b"no such route")})
    with pytest.raises(errors.UnsupportedError, match="shows no logs"):
        cloud.run(read(cloud))
    cloud = script({path: reply(code=24001)})
    with pytest.raises(errors.DeploymentGone):
        cloud.run(read(cloud))
    cloud = script({path: reply(code=10007)})
    with pytest.raises(errors.NotFoundError, match="has no worker 7") as caught:
        cloud.run(read(cloud))
    assert not isinstance(caught.value, errors.DeploymentGone)


def test_of_all_workers_one_that_was_replaced_meanwhile_is_passed_by(script: Callable[..., Scripted]) -> None:
    log = Log(10)
    log.say("hello")
    rows = [{"id": 6, "status": "RUNNING"}, {"id": 7, "status": "RUNNING"}]
    cloud = script(
        {
            f"GET {EP}/workers": reply(rows),
            f"GET {EP}/workers/6/logs": reply(code=10007),
            f"GET {EP}/workers/7/logs": log,
        }
    )

    async def read() -> list[str]:
        return [line.text async for line in driver().logs(cloud.io, INFO, worker=None, follow=False, tail=5)]

    assert cloud.run(read()) == ["hello"]


def test_a_log_that_never_ends_ends(script: Callable[..., Scripted]) -> None:
    endless = reply(
        {"logs": [{"timestamp": 1, "log": "x", "offset": 1}], "hasMore": True, "nextSearchAfterTime": "1",
         "nextSearchAfterOffset": "1"}
    )  # fmt: skip
    cloud = script({f"GET {EP}/workers/7/logs": endless})

    async def read() -> int:
        return len([line async for line in driver().logs(cloud.io, INFO, worker="7", follow=False, tail=50)])

    assert cloud.run(read()) == 50
