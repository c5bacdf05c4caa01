"""The ASGI server over a real engine, real workers and real sockets: what a client on loopback sees."""

from __future__ import annotations

import asyncio
import errno
import json
import os
import signal
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from unigpu.emulator.apis.local.emulator import LocalEmulator
from unigpu.emulator.contract import Callback, Persist
from unigpu.emulator.engine import Engine
from unigpu.emulator.processes.backend import ProcessBackend
from unigpu.emulator.server.app import BODY_LIMIT, CloudServer
from unigpu.emulator.server.listener import listen, serving
from unigpu.models import provider_name

pytestmark = pytest.mark.processes
PNAME = provider_name("default", "web")
KEY = "the-key-of-this-test"

WEB = r"""
import asyncio, json, os, sys
gone = asyncio.Event()
async def app(scope, receive, send):
    if scope["type"] != "http":
        return
    async def reply(body, status=200, headers=()):
        await send({"type": "http.response.start", "status": status, "headers": list(headers)})
        await send({"type": "http.response.body", "body": body})
    path = scope["path"]
    if path == "/sse":
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/event-stream")]})
        async def watch():
            while (await receive())["type"] != "http.disconnect":
                pass
            open("left", "w").close()
        task = asyncio.create_task(watch())
        n = 0
        while not task.done():
            await send({"type": "http.response.body", "body": b"data: %d\n\n" % n, "more_body": True})
            n += 1
            await asyncio.sleep(0.02)
    elif path == "/break":
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"100")]})
        await send({"type": "http.response.body", "body": b"some", "more_body": True})
        await asyncio.sleep(0.05)
        os._exit(1)
    elif path == "/mute":
        os._exit(1)
    elif path == "/big":
        await reply(b"x" * 3_000_000)
    elif path == "/empty":
        await reply(b"", 204)
    else:
        body = b""
        while True:
            message = await receive()
            body += message.get("body", b"")
            if not message.get("more_body"):
                break
        seen = {"method": scope["method"], "raw_path": scope["raw_path"].decode(), "length": len(body),
                "query": scope["query_string"].decode(), "body": body[:20].decode(),
                "headers": {k.decode(): v.decode() for k, v in scope["headers"]}}
        await reply(json.dumps(seen).encode(), 201, [(b"x-a", b"1"), (b"set-cookie", b"a=1"), (b"set-cookie", b"b=2")])
import uvicorn
uvicorn.run(app, host="127.0.0.1", port=int(os.environ["PORT"]), log_level="error", lifespan="off")
"""


class World:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.records: list[Persist] = []
        self.full: Callable[[Persist], bool] = lambda _: False
        started = (time.time(), time.monotonic())
        self.engine = Engine(now=started[1], wall=lambda now: started[0] + now - started[1])
        self.engine.mount(LocalEmulator(self.engine, token=KEY))
        self.server = CloudServer(self.engine, persist=self._persist)
        self.server.backend = self.backend = ProcessBackend(self.server.emit)
        self.http: httpx.AsyncClient
        self.port = 0

    def _persist(self, record: Persist) -> None:
        if self.full(record):
            raise OSError(errno.ENOSPC, "No space left on device")
        self.records.append(record)

    def body(self, **changes: Any) -> dict[str, Any]:
        return {
            "name": "web", "namespace": "default", "attempt": "a1", "spec_hash": "1:0", "interface": "http",
            "kind": "serverless", "workers": {"min": 0, "max": 1}, "idle_timeout": 60, "scaling": None,
            "execution_timeout": 60, "concurrency": 8, "idempotent": False, "expires_at": None, "origin": None,
            "constants": {}, "spec": {},
            "launch": {"argv": [sys.executable, "web.py"], "handler": None, "env": {}, "cwd": str(self.folder),
                       "python": None, "port": None},
            **changes,
        }  # fmt: skip

    async def put(self, **changes: Any) -> httpx.Response:
        (self.folder / "web.py").write_text(WEB)
        url = f"/v1/deployments/{PNAME}"
        return await self.http.put(url, json=self.body(**changes), headers={"if-none-match": "*"})

    def url(self, path: str) -> str:
        return f"/v1/deployments/{PNAME}/http{path}"


@pytest.fixture
def run(tmp_path: Path) -> Callable[[Callable[[World], Awaitable[None]]], None]:
    def runner(scenario: Callable[[World], Awaitable[None]]) -> None:
        async def main() -> None:
            world = World(tmp_path)
            listener = listen("127.0.0.1", 0)
            world.port = listener.getsockname()[1]
            async with serving(world.server, listener):
                base = f"http://127.0.0.1:{world.port}"
                async with httpx.AsyncClient(
                    base_url=base, headers={"authorization": f"Bearer {KEY}"}, timeout=30, trust_env=False
                ) as world.http:
                    try:
                        await scenario(world)
                    finally:
                        world.server.close()
                        await world.backend.close(grace=0.0)

        asyncio.run(main())

    return runner


Run = Callable[[Callable[[World], Awaitable[None]]], None]


def test_a_request_is_held_until_a_worker_is_there_and_passes_as_it_was_sent(run: Run) -> None:
    async def scenario(world: World) -> None:
        assert (await world.put()).status_code == 201
        got = await world.http.post(
            world.url("/a%2Fb/c?x=1&x=2&y=%20"), content=b"hello", headers={"x-mine": "yes", "cookie": "c=1"}
        )
        assert got.status_code == 201
        seen = got.json()
        assert (seen["method"], seen["raw_path"], seen["query"]) == ("POST", "/a%2Fb/c", "x=1&x=2&y=%20")
        assert (seen["body"], seen["headers"]["x-mine"], seen["headers"]["cookie"]) == ("hello", "yes", "c=1")
        assert got.headers["x-a"] == "1"
        assert got.headers.get_list("set-cookie") == ["a=1", "b=2"]
        assert KEY not in json.dumps(seen)  # our token is not the worker's business

    run(scenario)


def test_bodies_pass_in_both_directions_and_have_a_limit(run: Run) -> None:
    async def scenario(world: World) -> None:
        await world.put()
        assert (await world.http.post(world.url("/"), content=b"z" * 2_000_000)).json()["length"] == 2_000_000
        assert len((await world.http.get(world.url("/big"))).content) == 3_000_000
        assert (await world.http.get(world.url("/empty"))).status_code == 204
        head = await world.http.head(world.url("/big"))
        assert (head.status_code, head.content) == (200, b"")

        async def endless() -> Any:
            for _ in range(BODY_LIMIT // 1_000_000 + 2):
                yield b"z" * 1_000_000

        large = await world.http.post(world.url("/"), content=endless())
        assert (large.status_code, large.json()["error"]["type"]) == (413, "too_large")

    run(scenario)


def test_a_stream_of_events_arrives_as_it_is_made_and_leaving_closes_the_workers_side(run: Run) -> None:
    async def scenario(world: World) -> None:
        await world.put()
        async with world.http.stream("GET", world.url("/sse")) as reply:
            assert reply.headers["content-type"] == "text/event-stream"
            lines = reply.aiter_lines()
            seen = [line async for line in _take(lines, 5)]
            assert seen[0] == "data: 0"
            await lines.aclose()  # type: ignore[attr-defined]  # an async generator
        async with asyncio.timeout(30):
            while not (world.folder / "left").exists():
                await asyncio.sleep(0.01)
            while (await world.http.get(f"/v1/deployments/{PNAME}")).json()["running"]:
                await asyncio.sleep(0.01)

    run(scenario)


def test_an_answer_that_breaks_off_is_cut_not_ended_as_if_it_were_whole(run: Run) -> None:
    async def scenario(world: World) -> None:
        await world.put()
        with pytest.raises(httpx.RemoteProtocolError):
            await world.http.get(world.url("/break"))

    run(scenario)


def test_a_worker_that_dies_before_it_answers_is_a_bad_gateway_of_ours(run: Run) -> None:
    async def scenario(world: World) -> None:
        await world.put()
        got = await world.http.get(world.url("/mute"))
        assert (got.status_code, got.headers["x-unigpu-error"]) == (502, "bad_gateway")
        assert "no answer" in got.json()["error"]["message"]
        async with asyncio.timeout(30):
            while (await world.http.get(f"/v1/deployments/{PNAME}")).json()["ready_workers"]:
                await asyncio.sleep(0.01)
        assert (await world.http.get(world.url("/again"))).status_code == 201  # by the next worker

    run(scenario)


def test_a_request_that_no_worker_got_goes_to_the_next_one(run: Run, tools: Any) -> None:
    async def scenario(world: World) -> None:
        await world.put()
        for _ in range(3):
            assert (await world.http.get(world.url("/"))).status_code == 201
            workers = (await world.http.get(f"/v1/deployments/{PNAME}/workers")).json()["workers"]
            pid = next(w["pid"] for w in workers if w["state"] == "IDLE")
            os.kill(pid, signal.SIGKILL)
            tools.wait_until(lambda pid=pid: not tools.alive(pid), "dead")  # it blocks: the server has not heard of it
            assert (await world.http.get(world.url("/"))).status_code == 201

    run(scenario)


def test_a_callback_is_made_and_its_status_told(run: Run) -> None:
    async def scenario(world: World) -> None:
        told: list[Any] = []
        world.server.emit = told.append  # type: ignore[method-assign]  # no emulator here makes callbacks yet
        url = f"http://127.0.0.1:{world.port}/v1/health"
        for n, target in enumerate((url, "http://127.0.0.1:1/")):
            world.server._carry_out(Callback(callback_id=str(n), url=target, body=b"{}"))
        async with asyncio.timeout(30):
            while len(told) < 2:
                await asyncio.sleep(0.01)
        assert {(e.callback_id, e.status) for e in told} == {("0", 501), ("1", None)}

    run(scenario)


def test_a_caller_who_leaves_while_waiting_for_a_worker_leaves_nothing_behind(run: Run) -> None:
    async def scenario(world: World) -> None:
        slow = {**world.body()["launch"], "argv": [sys.executable, "-c", "import time; time.sleep(1000)"]}
        await world.put(launch=slow)
        with pytest.raises(httpx.ReadTimeout):
            await world.http.get(world.url("/"), timeout=0.3)
        async with asyncio.timeout(30):
            while (await world.http.get(f"/v1/deployments/{PNAME}")).json()["queued"]:
                await asyncio.sleep(0.01)
        assert world.server.open_calls == 0

    run(scenario)


def test_an_injected_fault_cuts_the_connection_or_never_answers(run: Run) -> None:
    async def scenario(world: World) -> None:
        world.engine.faults.add("local.deployment.list", reply="drop")
        with pytest.raises(httpx.RemoteProtocolError):
            await world.http.get("/v1/deployments")
        world.engine.faults.add("local.deployment.list", reply="timeout")
        with pytest.raises(httpx.ReadTimeout):
            await world.http.get("/v1/deployments", timeout=0.2)
        world.engine.faults.add("local.deployment.put", when="after", reply="drop")
        with pytest.raises(httpx.RemoteProtocolError):
            await world.put()
        listed = (await world.http.get("/v1/deployments")).json()["deployments"]
        assert [one["id"] for one in listed] == [PNAME]  # it acted; the answer was lost

    run(scenario)


def test_strangers_are_refused(run: Run) -> None:
    async def scenario(world: World) -> None:
        for headers in ({}, {"authorization": "Bearer wrong"}):
            async with httpx.AsyncClient(trust_env=False) as stranger:
                got = await stranger.get(f"http://127.0.0.1:{world.port}/v1/deployments", headers=headers)
            assert got.status_code == 401
        foreign = await world.http.get("/v1/deployments", headers={"host": "evil.example"})
        assert foreign.status_code == 403  # a page in a browser whose name was made to point here

    run(scenario)


def test_a_record_that_cannot_be_written_is_507_and_nothing_changed(run: Run) -> None:
    async def scenario(world: World) -> None:
        world.full = lambda record: record.kind == "deployment"
        refused = await world.put()
        assert (refused.status_code, refused.json()["error"]["type"]) == (507, "disk_full")
        async with asyncio.timeout(30):
            while (await world.http.get(f"/v1/deployments/{PNAME}")).status_code != 404:
                await asyncio.sleep(0.01)
        world.full = lambda _: False
        assert (await world.put()).status_code == 201
        world.full = lambda _: True
        url = f"/v1/deployments/{PNAME}"
        changed = await world.http.patch(url, json={"workers": {"min": 0, "max": 9}})
        deleted = await world.http.delete(url)
        stopped = await world.http.post(url + "/stop")
        assert [r.status_code for r in (changed, deleted, stopped)] == [507, 507, 507]
        after = (await world.http.get(url)).json()
        assert (after["workers"], after["state"]) == ({"min": 0, "max": 1}, "COLD")
        world.full = lambda _: False
        assert (await world.http.delete(url)).json()["deleted"] is True

    run(scenario)


def test_a_finished_job_on_a_full_disk_is_still_answered(run: Run) -> None:
    async def scenario(world: World) -> None:
        (world.folder / "app.py").write_text("def f(input):\n    return input\n")
        launch = {**world.body()["launch"], "argv": [], "handler": "app.py:f", "python": sys.executable}
        await world.put(interface="function", launch=launch)
        world.full = lambda record: record.kind == "job"
        jobs = f"/v1/deployments/{PNAME}/jobs"
        assert (await world.http.post(jobs, json={"id": "j1", "input": {"a": 1}})).status_code == 202
        done = (await world.http.get(jobs + "/j1", params={"wait": 30})).json()
        assert (done["status"], done["output"]) == ("DONE", {"a": 1})

    run(scenario)


def test_many_long_polls_are_answered_together_and_none_before_its_news(run: Run) -> None:
    async def scenario(world: World) -> None:
        (world.folder / "app.py").write_text("def f(input):\n    return input\n")
        launch = {**world.body()["launch"], "argv": [], "handler": "app.py:f", "python": sys.executable}
        await world.put(interface="function", launch=launch, concurrency=1)
        jobs = f"/v1/deployments/{PNAME}/jobs"

        async def one(n: int) -> Any:
            await world.http.post(jobs, json={"id": f"j{n}", "input": {"n": n}})
            return (await world.http.get(f"{jobs}/j{n}", params={"wait": 30})).json()

        done = await asyncio.gather(*(one(n) for n in range(60)))
        assert [d["output"] for d in done] == [{"n": n} for n in range(60)]
        late = await world.http.get(f"{jobs}/j1", params={"wait": 30})
        assert late.json()["status"] == "DONE"

    run(scenario)


async def _take(lines: Any, count: int) -> Any:
    seen = 0
    async for line in lines:
        if line:
            yield line
            seen += 1
            if seen == count:
                return
