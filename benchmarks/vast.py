"""Vast's calls: unigpu beside the official client (`vastai` 1.9.1), against the emulator on loopback, in the same run.

    python benchmarks/vast.py [--calls 200] [--at-once 128] [--seconds 1] [--dead 2]

1. One call, one after another, to a warm worker that answers at once: both hops, in turn, five rounds, the median of a
   round's mean. The emulator's own time is in both; what differs is the client.
2. 128 calls at once, each of which takes a second on its worker. The best possible is one second.
3. A worker that is dead while the engine still names it: how often each client asks ``/route/`` in two seconds.

The worker is a small server in the emulator's process: it checks nothing, and reads the envelope. The official client
runs in an environment of its own (``make .venvs/vast/.made``); without it, this says so and ends.
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
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import unigpu

ROOT = Path(__file__).resolve().parents[1]
OFFICIAL = ROOT / ".venvs" / "vast" / "bin" / "python"
KEY = "benchmark-key"
ROUNDS = 5
FIELDS: dict[str, Any] = {
    "handler": "app:f", "image": "ghcr.io/me/app:1", "gpu": "RTX 4090", "max_price": 1.0, "progress": "off",
    "workers": (1, 1), "provider_options": {"vast": {"tls": False}},
}  # fmt: skip

# What runs in the official client's environment. It prints one line of JSON.
THEIRS = """
import asyncio, json, sys, time
from vastai import CoroutineServerless

what, base, key, name, count = sys.argv[1], sys.argv[2], sys.argv[3], sys.argv[4], int(sys.argv[5])
seconds = float(sys.argv[6])
CoroutineServerless.SSL_CERT_URL = base + "/static/jvastai_root.cer"


async def main():
    async with CoroutineServerless(api_key=key, webserver_url=base, autoscaler_url=base) as client:
        endpoint = await client.get_endpoint(name)

        async def one(n, timeout=120):
            found = await endpoint.request("/invoke", {"input": {"n": n, "s": seconds}}, timeout=timeout)
            return found["response"]["output"] == {"n": n}

        if what == "dead":
            try:
                await one(0, timeout=seconds)
            except Exception:
                pass
            return None
        assert await one(0)
        start = time.perf_counter()
        if what == "one":
            for n in range(count):
                assert await one(n)
            return (time.perf_counter() - start) / count
        done = await asyncio.gather(*map(one, range(count)), return_exceptions=True)
        return [sum(one is True for one in done), time.perf_counter() - start]

print(json.dumps(asyncio.run(main())))
"""


async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """A worker's port: each POST sleeps for as long as its input says."""
    with contextlib.suppress(OSError, asyncio.IncompleteReadError):
        while True:
            head = (await reader.readuntil(b"\r\n\r\n")).lower()
            length = int(head.partition(b"content-length:")[2].partition(b"\r\n")[0])
            given = json.loads(await reader.readexactly(length))["payload"]["input"]
            await asyncio.sleep(given["s"])
            body = json.dumps({"output": {"n": given["n"]}, "execution_s": given["s"]}).encode()
            head = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n" % len(body)
            writer.write(head + body)
            await writer.drain()
    writer.close()


async def serve() -> None:
    """The emulator and one worker's port, until the benchmark ends."""
    from unigpu.emulator.apis.vast.emulator import VastEmulator
    from unigpu.emulator.apis.vast.state import Report
    from unigpu.emulator.contract import Answer, HttpCall, Reply, StartWorker, StopWorker, WorkerExited, WorkerReady
    from unigpu.emulator.engine import Engine
    from unigpu.emulator.server.app import CloudServer
    from unigpu.emulator.server.listener import listen, serving

    port_server = await asyncio.start_server(answer, "127.0.0.1", 0, backlog=1000)
    alive = f"http://127.0.0.1:{port_server.sockets[0].getsockname()[1]}"

    class Face(VastEmulator):
        """Counts routes; and lets its workers be dead on demand."""

        routes, url = 0, alive

        def operation(self, call: HttpCall) -> str | None:
            return "vast.bench" if call.path.startswith("/bench/") else super().operation(call)

        def worker(self, id: str, url: str) -> None:
            self._account.reports[id] = Report(perf=1e9, url=url)

        def handle(self, call: HttpCall, now: float) -> Answer:
            if call.path == "/bench/dead":
                self.url, self.routes = "http://127.0.0.1:9", 0
                for report in self._account.reports.values():
                    report.url = self.url
                return Reply.json({})
            if call.path == "/bench/routes":
                told, self.routes = self.routes, 0
                return Reply.json(told)
            self.routes += self.operation(call) == "vast.route"
            return super().handle(call, now)

    wall, now = time.time(), time.monotonic()
    engine = Engine(now=now, wall=lambda at: wall + at - now)
    face = Face(engine, token=KEY)
    engine.mount(face)
    server = CloudServer(engine)

    class Workers:
        """No processes: one that is started tells the port above, as PyWorker would."""

        def carry_out(self, effect: Any) -> None:
            if isinstance(effect, StartWorker):
                face.worker(effect.worker_id, face.url)
                server.emit(WorkerReady(worker_id=effect.worker_id, address=face.url))
            elif isinstance(effect, StopWorker):
                server.emit(WorkerExited(worker_id=effect.worker_id, code=0))

        def address(self, worker_id: str) -> None:
            """The emulator tells it."""

        async def close(self, *, grace: float) -> None:
            """There is nothing to end."""

    server.backend = Workers()
    listener = listen("127.0.0.1", 0)
    async with port_server, serving(server, listener):
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
        yield f"http://127.0.0.1:{json.loads(child.stdout.readline())}/vast"
    finally:
        child.stdin.close()
        child.wait(30)


def theirs(what: str, base: str, name: str, count: int, seconds: float) -> Any:
    line = [str(OFFICIAL), "-c", THEIRS, what, base, KEY, name, str(count), str(seconds)]
    return json.loads(subprocess.run(line, capture_output=True, text=True, check=True, timeout=300).stdout)


def our_calls(app: unigpu.Deployment, count: int) -> float:
    app.invoke({"n": 0, "s": 0})
    start = time.perf_counter()
    for n in range(count):
        assert app.invoke({"n": n, "s": 0}).output == {"n": n}
    return (time.perf_counter() - start) / count


async def our_map(how: dict[str, Any], count: int, seconds: float) -> tuple[int, float]:
    async with unigpu.AsyncClient("vast", **how) as client:
        app = await client.get("bench")
        await client.invoke(app, {"n": 0, "s": 0})
        inputs = [{"n": n, "s": seconds} for n in range(count)]
        start = time.perf_counter()
        results = client.map(app, inputs, concurrency=count, on_error="return", progress="off")
        done = sum([1 async for result in results if result.output == {"n": int(result.key or -1)}])
        return done, time.perf_counter() - start


def ask(base: str, path: str) -> Any:
    with urllib.request.urlopen(f"{base}{path}", timeout=30) as reply:
        return json.loads(reply.read())


def measure(calls: int, at_once: int, seconds: float, dead: float, folder: Path) -> None:
    with emulator() as base:
        options = {"console_url": base, "engine_url": base, "http_workers": True}
        how: dict[str, Any] = {"api_key": KEY, "state_dir": folder, "driver_options": {"vast": options}}
        with (
            unigpu.Client("vast", **how) as client,
            client.deploy(name="bench", concurrency=at_once, **FIELDS) as app,
        ):
            name = str(app.info.details["endpoint_name"])
            rounds = [(our_calls(app, calls), theirs("one", base, name, calls, 0)) for _ in range(ROUNDS)]
            ours, official = (statistics.median(column) * 1e3 for column in zip(*rounds, strict=True))
            print(f"one call, {calls} a round, {ROUNDS} rounds, median:")
            print(f"  unigpu    {ours:6.2f} ms")
            print(f"  vastai    {official:6.2f} ms")
            print(f"\n{at_once} calls at once, {seconds:g} s each:")
            done, took = asyncio.run(our_map(how, at_once, seconds))
            print(f"  unigpu    {done} of {at_once} answered rightly in {took:.2f} s")
            done, took = theirs("many", base, name, at_once, seconds)
            print(f"  vastai    {done} of {at_once} answered rightly in {took:.2f} s")
            print(f"\na dead worker that is still named, for {dead:g} s: questions to /route/")
            ask(base, "/bench/dead")
            with contextlib.suppress(unigpu.DeadlineExceeded):
                app.invoke({"n": 0, "s": 0}, timeout=dead)
            print(f"  unigpu    {ask(base, '/bench/routes')}")
            theirs("dead", base, name, 1, dead)
            print(f"  vastai    {ask(base, '/bench/routes')}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--calls", type=int, default=200)
    parser.add_argument("--at-once", type=int, default=128)
    parser.add_argument("--seconds", type=float, default=1.0)
    parser.add_argument("--dead", type=float, default=2.0)
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.serve:
        asyncio.run(serve())
    elif not OFFICIAL.exists():
        print("Vast's own client is not installed beside this: make .venvs/vast/.made does that.")
    else:
        with tempfile.TemporaryDirectory() as folder:
            measure(given.calls, given.at_once, given.seconds, given.dead, Path(folder))


if __name__ == "__main__":
    main()
