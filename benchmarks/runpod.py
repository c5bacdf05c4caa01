"""RunPod's calls: unigpu beside the official client (`runpod` 1.12), against the emulator on loopback, in the same run.

    python benchmarks/runpod.py [--calls 200] [--at-once 400] [--seconds 1]

1. One call that may run twice, one after another, to a warm worker that answers at once: both by ``/runsync``, in turn,
   five rounds, the median of a round's mean. The emulator's own time is in both; what differs is the client.
2. Four hundred calls at once, each of which takes a second on its worker. unigpu: `AsyncClient.map`. The official
   client: its asyncio flavour, as its manual shows it (``run``, then ``output``, which looks every second). Both have
   all the workers that they can use; the best possible is one second.

The emulator's workers are simulated on the real clock, so that no worker's own cost is measured. The official client
runs in an environment of its own (``make .venvs/runpod/.made``); without it, this says so and ends.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import unigpu

ROOT = Path(__file__).resolve().parents[1]
OFFICIAL = ROOT / ".venvs" / "runpod" / "bin" / "python"
KEY = "benchmark-key"
ROUNDS = 5
FIELDS: dict[str, Any] = {
    "handler": "app:f", "image": "ghcr.io/me/app:1", "gpu": "RTX 4090", "progress": "off", "workers": 1
}  # fmt: skip

# What runs in the official client's environment. It prints one line of JSON.
THEIRS = """
import asyncio, json, sys, time
import aiohttp, runpod
from runpod import AsyncioEndpoint

what, base, key, endpoint, count = sys.argv[1], sys.argv[2], sys.argv[3], sys.argv[4], int(sys.argv[5])
seconds = float(sys.argv[6])
runpod.api_key, runpod.endpoint_url_base = key, base
if what == "one":
    client = runpod.Endpoint(endpoint)
    client.run_sync({"n": 0, "s": 0})
    start = time.perf_counter()
    for n in range(count):
        assert client.run_sync({"n": n, "s": 0}) == {"n": n}
    print(json.dumps((time.perf_counter() - start) / count))
else:
    async def main():
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=count)) as session:
            async def one(n):
                job = await AsyncioEndpoint(endpoint, session).run({"n": n, "s": seconds})
                return await job.output(timeout=120)
            start = time.perf_counter()
            found = await asyncio.gather(*map(one, range(count)), return_exceptions=True)
            done = sum(got == {"n": n} for n, got in enumerate(found))
            print(json.dumps([done, time.perf_counter() - start]))
    asyncio.run(main())
"""


class Workers:
    """A backend whose workers are no processes: a call takes the seconds that its input says."""

    def __init__(self, emit: Any) -> None:
        self._emit = emit

    def carry_out(self, effect: Any) -> None:
        from unigpu.emulator.contract import JobDone, Push, StartWorker, StopWorker, WorkerExited, WorkerReady

        later = asyncio.get_running_loop().call_later
        if isinstance(effect, StartWorker):
            later(0.05, self._emit, WorkerReady(worker_id=effect.worker_id))
        elif isinstance(effect, StopWorker):
            later(0, self._emit, WorkerExited(worker_id=effect.worker_id, code=0))
        elif isinstance(effect, Push):
            given: Any = effect.input
            job = JobDone(worker_id=effect.worker_id, job_id=effect.job_id, output={"n": given["n"]})
            later(given["s"], self._emit, job)

    def address(self, worker_id: str) -> None:
        """They listen nowhere."""

    async def close(self, *, grace: float) -> None:
        """There is nothing to end."""


async def serve() -> None:
    """The emulator, until the benchmark ends."""
    from unigpu.emulator.apis.runpod.emulator import Quirks, RunPodEmulator
    from unigpu.emulator.engine import Engine
    from unigpu.emulator.server.app import CloudServer
    from unigpu.emulator.server.listener import listen, serving

    wall, now = time.time(), time.monotonic()
    engine = Engine(now=now, wall=lambda at: wall + at - now)
    engine.mount(RunPodEmulator(engine, token=KEY, processes=False, quirks=Quirks(rate_limits=())))
    server = CloudServer(engine)
    server.backend = Workers(server.emit)
    listener = listen("127.0.0.1", 0)
    async with serving(server, listener):
        print(json.dumps(listener.getsockname()[1]), flush=True)
        await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
        server.close()


@contextlib.contextmanager
def emulator() -> Iterator[str]:
    child = subprocess.Popen(
        [sys.executable, __file__, "--serve"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert child.stdin is not None
    assert child.stdout is not None
    try:
        yield f"http://127.0.0.1:{json.loads(child.stdout.readline())}/runpod"
    finally:
        child.stdin.close()
        child.wait(30)


def theirs(what: str, base: str, endpoint: str, count: int, seconds: float) -> Any:
    line = [str(OFFICIAL), "-c", THEIRS, what, f"{base}/v2", KEY, endpoint, str(count), str(seconds)]
    return json.loads(subprocess.run(line, capture_output=True, text=True, check=True, timeout=300).stdout)


def our_calls(app: unigpu.Deployment, count: int) -> float:
    app.invoke({"n": 0, "s": 0}, idempotent=True)
    start = time.perf_counter()
    for n in range(count):
        assert app.invoke({"n": n, "s": 0}, idempotent=True).output == {"n": n}
    return (time.perf_counter() - start) / count


async def our_map(how: dict[str, Any], name: str, count: int, seconds: float) -> tuple[int, float]:
    async with unigpu.AsyncClient("runpod", **how) as client:
        app = await client.get(name)
        inputs = [{"n": n, "s": seconds} for n in range(count)]
        start = time.perf_counter()
        results = client.map(app, inputs, concurrency=count, on_error="return", progress="off", idempotent=True)
        done = sum([1 async for result in results if result.output == {"n": int(result.key or -1)}])
        return done, time.perf_counter() - start


def measure(calls: int, at_once: int, seconds: float, folder: Path) -> None:
    with emulator() as base:
        how: dict[str, Any] = {
            "api_key": KEY,
            "state_dir": folder,
            "driver_options": {"runpod": {"control_url": f"{base}/v2", "jobs_url": f"{base}/v2"}},
        }
        with (
            unigpu.Client("runpod", **how) as client,
            client.deploy(name="bench", concurrency=at_once, **FIELDS) as app,
        ):
            rounds = [(our_calls(app, calls), theirs("one", base, app.id, calls, 0)) for _ in range(ROUNDS)]
            ours, official = (statistics.median(column) * 1e3 for column in zip(*rounds, strict=True))
            print(f"one idempotent call, {calls} a round, {ROUNDS} rounds, median:")
            print(f"  unigpu    {ours:6.2f} ms")
            print(f"  runpod    {official:6.2f} ms")
            print(f"\n{at_once} calls at once, {seconds:g} s each:")
            for name in ("unigpu", "runpod"):
                if name == "unigpu":
                    done, took = asyncio.run(our_map(how, "bench", at_once, seconds))
                else:
                    done, took = theirs("many", base, app.id, at_once, seconds)
                print(f"  {name:<9} {done} of {at_once} answered rightly in {took:.2f} s")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--calls", type=int, default=200)
    parser.add_argument("--at-once", type=int, default=400)
    parser.add_argument("--seconds", type=float, default=1.0)
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.serve:
        asyncio.run(serve())
    elif not OFFICIAL.exists():
        print("RunPod's own client is not installed beside this: make .venvs/runpod/.made does that.")
    else:
        with tempfile.TemporaryDirectory() as folder:
            measure(given.calls, given.at_once, given.seconds, Path(folder))


if __name__ == "__main__":
    main()
