"""Yotta's tasks and wake-up: unigpu beside the official client (`yottaml`), against the emulator on loopback.

    python benchmarks/yotta.py [--tasks 200] [--callers 50]

1. Create and get of a task, one after another: both clients in turn, five rounds, the median of a round's mean. What is
   compared is the client: the emulator's own time is in both. Between two tasks both wait 30 ms, because unigpu keeps
   to the documented 40 tasks a second, and the official client to nothing; the wait is not counted.
2. Fifty callers at once find a deployment stopped, and each wants one answer. unigpu's callers call `invoke`. The
   official client has no such thing, so its callers do what its manual says: look, start if it is stopped, wait until
   it runs, create the task, look until it ended. Starts and all requests are counted at the emulator. The seconds say
   how often each looks, not how fast it is: unigpu keeps to 1 to 5 s, as a real start takes minutes; the official
   client's callers here look each 0.2 s. The emulator's workers are ready in half a second.

The official client runs in an environment of its own (``make .venvs/yotta/.made``); without it, this says so and ends.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import unigpu

ROOT = Path(__file__).resolve().parents[1]
OFFICIAL = ROOT / ".venvs" / "yotta" / "bin" / "python"
KEY = "benchmark-key"
ROUNDS = 5
PAUSE_S = 0.03
HANDLER = "def echo(input):\n    return input\n"
FIELDS: dict[str, Any] = {
    "image": "ghcr.io/me/app:1", "gpu": "RTX 4090", "workers": 1, "ttl": "1h", "progress": "off", "wait": "worker"
}  # fmt: skip

# What runs in the official client's environment. It prints one line of JSON.
THEIRS = """
import json, sys, threading, time, uuid
from yottaml.elastic import ElasticApi
from yottaml.skywalker import SkywalkerTaskApi

what, base, key, endpoint, count = sys.argv[1], sys.argv[2], sys.argv[3], sys.argv[4], int(sys.argv[5])
tasks = SkywalkerTaskApi(key, base_url=base, timeout=60)
elastic = ElasticApi(key, base_url=base, timeout=60)
body = {"worker_port": 8000, "process_uri": "/invoke", "input": {"input": {"n": 1}}}

def create(api):
    return api.create_task(endpoint_id=endpoint, task_id=uuid.uuid4().hex, **body)["data"]["taskId"]

def state(api):
    return api.get_deployment_detail(endpoint)["data"]["status"]

if what == "tasks":
    spent = 0.0
    for _ in range(count):
        time.sleep(0.03)
        start = time.perf_counter()
        tasks.get_task(endpoint_id=endpoint, task_id=create(tasks))
        spent += time.perf_counter() - start
    print(json.dumps(spent / count))
else:
    answers = []
    def caller():
        mine, jobs = ElasticApi(key, base_url=base, timeout=60), SkywalkerTaskApi(key, base_url=base, timeout=60)
        if state(mine) == "STOPPED":
            mine.start_deployment(endpoint)
        while state(mine) != "RUNNING":
            time.sleep(0.2)
        id = create(jobs)
        while True:
            found = jobs.get_task(endpoint_id=endpoint, task_id=id)["data"]
            if found["status"] in ("SUCCESS", "FAILED"):
                answers.append(found["status"])
                return
            time.sleep(0.2)
    threads = [threading.Thread(target=caller) for _ in range(count)]
    start = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    print(json.dumps([time.perf_counter() - start, answers.count("SUCCESS")]))
"""


async def serve() -> None:
    """The emulator with real workers, and a count of what arrives, at ``/counts``."""
    from unigpu.emulator.apis.yotta.emulator import Quirks, YottaEmulator
    from unigpu.emulator.engine import Engine
    from unigpu.emulator.processes.backend import ProcessBackend
    from unigpu.emulator.server.app import CloudServer
    from unigpu.emulator.server.listener import listen, serving

    wall, now = time.time(), time.monotonic()
    engine = Engine(now=now, wall=lambda at: wall + at - now)
    engine.mount(YottaEmulator(engine, token=KEY, quirks=Quirks(rate_limits=False)))  # clients are measured, not waits
    server = CloudServer(engine)
    server.backend = backend = ProcessBackend(server.emit)
    seen: Counter[str] = Counter()

    async def counted(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            if scope["path"] == "/counts":
                answer = json.dumps(seen).encode()
                await send({"type": "http.response.start", "status": 200, "headers": []})
                await send({"type": "http.response.body", "body": answer})
                return
            seen[f"{scope['method']} {scope['path'].rstrip('/').rpartition('/')[2]}"] += 1
        await server(scope, receive, send)

    listener = listen("127.0.0.1", 0)
    async with serving(counted, listener):
        print(json.dumps(listener.getsockname()[1]), flush=True)
        await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)  # until the benchmark ends
        server.close()
        await backend.close(grace=2.0)


@contextlib.contextmanager
def emulator(folder: Path) -> Iterator[str]:
    env = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ.get('PATH', '')}"}  # the workers' python
    line = [sys.executable, __file__, "--serve"]
    child = subprocess.Popen(line, cwd=folder, env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert child.stdin is not None
    assert child.stdout is not None
    try:
        yield f"http://127.0.0.1:{json.loads(child.stdout.readline())}"
    finally:
        child.stdin.close()
        child.wait(30)


def counts(base: str) -> tuple[int, int]:
    """Starts, and all requests."""
    with urllib.request.urlopen(f"{base}/counts") as reply:  # loopback
        seen: dict[str, int] = json.load(reply)
    return seen.get("POST start", 0), sum(seen.values())


def theirs(what: str, base: str, endpoint: str, count: int) -> Any:
    line = [str(OFFICIAL), "-c", THEIRS, what, f"{base}/yotta", KEY, endpoint, str(count)]
    return json.loads(subprocess.run(line, capture_output=True, text=True, check=True, timeout=300).stdout)


def our_tasks(app: unigpu.Deployment, count: int) -> float:
    spent = 0.0
    for _ in range(count):
        time.sleep(PAUSE_S)
        start = time.perf_counter()
        app.submit({"n": 1}).status()
        spent += time.perf_counter() - start
    return spent / count


def our_wake(app: unigpu.Deployment, callers: int) -> tuple[float, int]:
    answers: list[Any] = []
    threads = [
        threading.Thread(target=lambda n: answers.append(app.invoke({"n": n}).output == {"n": n}), args=(n,))
        for n in range(callers)
    ]
    start = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return time.perf_counter() - start, sum(answers)


def measure(tasks: int, callers: int, folder: Path) -> None:
    (folder / "echo_app.py").write_text(HANDLER)
    with (
        emulator(folder) as base,
        unigpu.Client(
            "yotta", api_key=KEY, state_dir=folder / "state", driver_options={"yotta": {"base_url": f"{base}/yotta"}}
        ) as client,
        client.deploy(name="bench", handler="echo_app:echo", **FIELDS) as app,
    ):
        rounds = [(our_tasks(app, tasks), theirs("tasks", base, app.id, tasks)) for _ in range(ROUNDS)]
        ours, official = (statistics.median(column) * 1e3 for column in zip(*rounds, strict=True))
        print(f"create and get of a task, {tasks} a round, {ROUNDS} rounds, median:")
        print(f"  unigpu    {ours:6.2f} ms")
        print(f"  yottaml   {official:6.2f} ms")
        print(f"\n{callers} callers at once find it stopped:")
        for name in ("unigpu", "yottaml"):
            app.stop()
            before = counts(base)
            seconds, right = our_wake(app, callers) if name == "unigpu" else theirs("wake", base, app.id, callers)
            sent, asked = (now - then for now, then in zip(counts(base), before, strict=True))
            print(f"  {name:<9} starts: {sent:>2}, requests: {asked:>4}, {right} of {callers} right, {seconds:.2f} s")
            app.wait_ready(progress="off")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", type=int, default=200)
    parser.add_argument("--callers", type=int, default=50)
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.serve:
        asyncio.run(serve())
        return
    if not OFFICIAL.exists():
        print("skipped: the official client is not here (make .venvs/yotta/.made)")
        return
    with tempfile.TemporaryDirectory() as folder:
        measure(args.tasks, args.callers, Path(folder))


if __name__ == "__main__":
    main()
