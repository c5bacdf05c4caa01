"""The client processes that get killed: a nursery that has everything imported, and forks one process per job.

Run as ``python child.py``: it reads one JSON job a line, forks a process for it, and answers ``{"id", "pid"}`` and
later ``{"id", "status"}`` (as `os.waitstatus_to_exitcode` tells it). What a process saw stands in the job's ``out``
file, a JSON object a line. A fork costs milliseconds where a new interpreter costs a third of a second, and processes
that start warm race closer to each other.
"""

from __future__ import annotations

import asyncio
import fcntl
import json
import os
import select
import selectors
import signal
import sys
from collections.abc import Callable
from typing import Any

import anyio
import trio

import unigpu
import unigpu._client.async_client
import unigpu._client.sync_client
from unigpu._io.bridge import run_sync
from unigpu._io.http.client import AsyncHttpIo, SyncHttpIo
from unigpu.providers.local import launch

TWICE = 2
"""A look that repeats (a poll) is counted so often: what follows is the same moment again."""


class Steps:
    """Counts the moments of one operation, and acts at one of them."""

    def __init__(self, at: int | None, act: Callable[[], object]) -> None:
        self.on = False
        self.names: list[str] = []
        self.act = act
        self._at = at
        self._seen: dict[str, int] = {}

    def __call__(self, name: str) -> None:
        if not self.on:
            return
        self._seen[name] = self._seen.get(name, 0) + 1
        if self._seen[name] > TWICE and not name.startswith("intent"):
            return
        self.names.append(name)
        if len(self.names) - 1 == self._at:
            self.act()

    def watch(self, client: Any) -> None:
        """Count around every request, every start of a supervisor, every wait, and every write of an intent."""
        for io in (SyncHttpIo, AsyncHttpIo):
            self._around(io)
        spawn = launch._spawn

        def spawning(*args: Any) -> Any:
            self("before the supervisor's start")
            made = spawn(*args)
            self("after the supervisor's start")
            return made

        launch._spawn = spawning
        client._context._store._dir._hook = lambda what: self(f"intent: {what}")

    def _around(self, io: Any) -> None:
        send, sleep = io.send, io.sleep

        async def sending(this: Any, request: Any) -> Any:
            self(f"before {request.operation}")
            reply = await send(this, request)
            self(f"after {request.operation}")
            return reply

        async def sleeping(this: Any, seconds: float) -> None:
            self("waiting")
            await sleep(this, seconds)

        io.send, io.sleep = sending, sleeping


class Plain:
    """A synchronous client whose calls can be awaited: the workflows below are written once."""

    def __init__(self, thing: Any) -> None:
        self.thing = thing

    def __getattr__(self, name: str) -> Any:
        def call(*args: Any, **more: Any) -> Any:
            found = getattr(self.thing, name)(*args, **more)

            async def done() -> Any:
                return Plain(found) if name == "deploy" else found

            return done()

        return call if name in ("deploy", "invoke", "teardown", "scale", "deployments") else getattr(self.thing, name)


def say(out: str, **what: Any) -> None:
    with open(out, "a") as file:
        file.write(json.dumps(what) + "\n")


async def workflow(job: dict[str, Any], client: Any, steps: Steps) -> None:
    """The job's verbs, each in turn; counted from the verb ``counted`` names on."""
    name, out = job["name"], job["out"]
    deployed: Any = None
    for verb in job["verbs"]:
        steps.on = verb == job.get("counted")
        if verb == "deploy":
            deployed = await client.deploy(name=name, progress="off", **job["deploy"])
            name = deployed.name
            say(out, change=deployed.change, attempt=deployed.info.attempt, name=name)
        elif verb == "invoke":
            result = await client.invoke(deployed.thing if isinstance(deployed, Plain) else deployed, job["input"])
            say(out, output=result.output)
        elif verb == "scale":
            await client.scale(name, (0, 2))
        elif verb == "teardown":
            await client.teardown(name)
            say(out, torn_down=True)
        steps.on = False
    say(out, steps=steps.names)


def run(job: dict[str, Any]) -> None:
    act = job.get("act", "kill")
    number = signal.SIGINT if act == "interrupt" else signal.SIGKILL
    steps = Steps(job.get("at"), lambda: os.kill(os.getpid(), number))
    if act == "supervisor":
        steps.act = lambda: _kill_supervisor(job["state"])
    options: dict[str, Any] = {"state_dir": job["state"], "config": job["config"]}

    def go_on(client: Any) -> None:
        steps.watch(client)
        say(job["out"], begun=True)
        if job.get("gate"):  # racers start together
            with open(job["gate"]) as gate:
                fcntl.flock(gate, fcntl.LOCK_SH)  # the parent holds it until all are here

    async def over(client: unigpu.AsyncClient) -> None:
        async with client:
            go_on(client)
            with anyio.CancelScope() as scope:
                if act == "cancel":
                    task = asyncio.current_task() if flavour == "asyncio" else None
                    steps.act = scope.cancel if task is None else task.cancel
                await workflow(job, client, steps)
            if scope.cancelled_caught:
                raise asyncio.CancelledError

    flavour = job.get("flavour", "sync")
    try:
        if flavour == "sync":
            with unigpu.Client("local", **options) as client:
                go_on(client)
                run_sync(workflow(job, Plain(client), steps))
        elif flavour == "asyncio":
            asyncio.run(over(unigpu.AsyncClient("local", **options)))
        else:
            trio.run(over, unigpu.AsyncClient("local", **options))
    except BaseException as exc:
        say(job["out"], error=type(exc).__name__, message=str(exc), where=steps.names[-1:])
        raise


def _kill_supervisor(state: str) -> None:
    """Kill the one that can be found now, if any, and let it be dead before the client goes on."""
    try:
        with open(os.path.join(state, "local", "supervisor.json")) as file:
            pid = int(json.load(file)["pid"])
        ended = os.pidfd_open(pid)
        os.kill(pid, signal.SIGKILL)
    except (OSError, ValueError):
        return
    select.select([ended], [], [])
    os.close(ended)


def nursery() -> None:
    """Fork a process for each line of stdin, until it ends; tell each pid and each end on stdout."""
    wake, waker = os.pipe()
    os.set_blocking(wake, False)
    os.set_blocking(waker, False)
    signal.set_wakeup_fd(waker)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    ours: dict[int, int] = {}
    waits = selectors.DefaultSelector()
    waits.register(0, selectors.EVENT_READ)
    waits.register(wake, selectors.EVENT_READ)
    rest = b""
    while True:
        for key, _ in waits.select():
            if key.fd == wake:
                os.read(wake, 4096)
                continue
            data = os.read(0, 65536)
            if not data:
                return
            *lines, rest = (rest + data).split(b"\n")
            for line in lines:
                job = json.loads(line)
                pid = os.fork()
                if pid == 0:
                    _child(job)
                ours[pid] = job["id"]
                _tell(id=job["id"], pid=pid)
        while ours:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if pid == 0:
                break
            if pid in ours:
                _tell(id=ours.pop(pid), status=os.waitstatus_to_exitcode(status))


def _tell(**what: Any) -> None:
    sys.stdout.write(json.dumps(what) + "\n")
    sys.stdout.flush()


def _child(job: dict[str, Any]) -> None:
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a nursery in the background may have it ignored
    null = os.open(os.devnull, os.O_RDWR)
    os.dup2(null, 0)
    os.dup2(null, 1)
    if job.get("err"):
        os.dup2(os.open(job["err"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), 2)
    code = 1
    try:
        run(job)
        code = 0
    except KeyboardInterrupt:
        code = 130
    except BaseException:  # its out file tells it
        code = 1
    finally:
        os._exit(code)


if __name__ == "__main__":
    if len(sys.argv) > 1:
        run(json.loads(sys.argv[1]))
    else:
        nursery()
