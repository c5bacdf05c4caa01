"""Vast's worker program, set up for a server of ours or of the user's. Standard library and ``vastai`` only.

It runs in an environment of its own (``/opt/pyworker``), since its packages clash with others':

    python -m venv /opt/pyworker && /opt/pyworker/bin/pip install vastai==1.9.1

``python -m unigpu.worker TARGET`` starts it beside itself where it wakes up on Vast. For a server of the user's it is
started by itself, with the server's command; it ends when that ends:

    /opt/pyworker/bin/python -I -m unigpu.worker.pyworker python server.py

(``-I``: the files beside this one are not to be found instead of the standard library's.)

What a caller sends as ``payload`` (PyWorker passes it on as the body, and no header: vastai 1.9.1,
``serverless/server/lib/backend.py``):

* ``POST /invoke``, for a handler: ``{"input": {…}}``; beside it, all optional: ``"stream": true`` (the answer is
  NDJSON, as with ``Accept: application/x-ndjson``), ``"timeout": seconds``, ``"job": "an id for the log"``.
* for a server: ``POST /unigpu/http`` with ``{"method", "target", "headers": [[name, value], …], "content": base64}``:
  any request, which is made here; the answer is the server's own, marked by a header ``x-unigpu-http``. PyWorker itself
  knows POST with a JSON object alone, at the paths it was told (``PYWORKER_ROUTES``), for Vast's own client.

Environment: what Vast sets (``CONTAINER_ID``, ``PUBLIC_IPADDR``, ``VAST_TCP_PORT_…``, ``REPORT_ADDR``,
``MASTER_TOKEN``, ``WORKER_PORT``, ``USE_SSL``); what the deployment says (``UNIGPU_INTERFACE``, where ``http`` is a
server of the user's; ``UNIGPU_PORT``, ``UNIGPU_ROUTE``, ``UNIGPU_CONCURRENCY``); what the worker beside it says
(``UNIGPU_PYWORKER_LOG``, where its marks are); and what anybody may set:

``PYWORKER_ROUTES``           paths of the server for Vast's own client, with commas between them
``PYWORKER_HEALTH``           a path that answers 200 when the server is ready; without it PyWorker waits 10 s
``PYWORKER_MAX_QUEUE_TIME``   seconds of work before it that a call may find; above it is 429 (30)
``PYWORKER_BENCHMARK``        a payload to measure the real work with, as JSON or as a file of it
``PYWORKER_HOST``             the address that PyWorker listens on (all)
``PYWORKER_DEBUG``            ``1``: all that PyWorker has to say

A benchmark is required. Nobody can guess an input for somebody's handler, so unless one is given it measures a nominal
second a call and slot: ``perf`` is 100 a slot where a call is worth 100, and the platform's numbers of load can be
read as calls.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import importlib
import json
import logging
import os
import queue
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from pathlib import Path
from types import FrameType
from typing import Any

READY = "unigpu: ready"
FAILED = "unigpu: failed"
COST = 100.0
_NOMINAL_S = 0.1
_DEFAULT_REPORT = "https://run.vast.ai"
_DEFAULT_CONSOLE = "https://console.vast.ai"
_CERTIFICATE = Path("/etc/instance.crt")
_CERTIFICATE_KEY = Path("/etc/instance.key")
_TRIES = 5
TUNNEL = "/unigpu/http"
MARK = "x-unigpu-http"
_ONE_CONNECTION = frozenset(
    {"connection", "keep-alive", "proxy-authenticate", "proxy-authorization", "te", "trailer", "transfer-encoding",
     "upgrade", "host"}
)  # fmt: skip


async def nominal() -> str:
    """One nominal call, a tenth long."""
    await asyncio.sleep(_NOMINAL_S)
    return "done"


def _cost(payload: dict[str, Any]) -> float:
    return COST


def _nominal_cost(payload: dict[str, Any]) -> float:
    return COST * _NOMINAL_S


def config(environ: dict[str, str]) -> Any:
    """PyWorker's configuration."""
    vastai = importlib.import_module("vastai")
    slots = int(environ.get("UNIGPU_CONCURRENCY") or 1)
    most = float(environ.get("PYWORKER_MAX_QUEUE_TIME") or 30.0)
    serves = environ.get("UNIGPU_INTERFACE") == "http"
    sample = _sample(environ.get("PYWORKER_BENCHMARK"))
    routes = _routes(environ) if serves else ["/invoke"]
    if sample is not None and not routes:
        sys.stderr.write("pyworker: PYWORKER_BENCHMARK is for the first of PYWORKER_ROUTES, and there is none\n")
        sample = None
    handlers: list[Any] = []
    if serves:
        handlers.append(
            vastai.HandlerConfig(
                route=TUNNEL,
                allow_parallel_requests=True,
                max_queue_time=most,
                workload_calculator=_cost,
                response_generator=_passed_on,
            )
        )
    for position, route in enumerate(routes):
        measured = sample is not None and position == 0
        benchmark = vastai.BenchmarkConfig(dataset=[sample], runs=2, concurrency=slots) if measured else None
        handlers.append(
            vastai.HandlerConfig(
                route=route,
                allow_parallel_requests=True,  # our server queues for itself, and a user's knows best
                max_queue_time=most,
                workload_calculator=_cost,
                benchmark_config=benchmark,
            )
        )
    if sample is None:
        handlers.append(
            vastai.HandlerConfig(
                route="/unigpu/benchmark",
                allow_parallel_requests=True,
                remote_function=nominal,
                workload_calculator=_nominal_cost,
                benchmark_config=vastai.BenchmarkConfig(dataset=[{}], runs=2, concurrency=slots, do_warmup=False),
            )
        )
    return vastai.WorkerConfig(
        model_server_url="http://127.0.0.1",
        model_server_port=int(environ.get("UNIGPU_PYWORKER_TO") or environ.get("UNIGPU_PORT") or 8000),
        model_log_file=environ["UNIGPU_PYWORKER_LOG"],
        model_healthcheck_url=environ.get("PYWORKER_HEALTH") or None,
        handlers=handlers,
        log_action_config=vastai.LogActionConfig(on_load=[READY], on_error=[FAILED]),
    )


def main(command: list[str]) -> None:
    """Run PyWorker until the worker beside it ends; with a command, run that beside it."""
    environ: Any = os.environ
    environ.setdefault("WORKER_PORT", "3000")
    environ.setdefault("REPORT_ADDR", _DEFAULT_REPORT)
    environ.setdefault("USE_SSL", "true")
    # PyWorker keeps its benchmark's result in the working directory, and would take an old one for this worker's.
    folder = tempfile.mkdtemp(prefix="unigpu-pyworker-")
    if command:
        log = Path(folder) / "server.log"
        log.touch()
        environ["UNIGPU_PYWORKER_LOG"] = str(log)
        port = int(environ.get("UNIGPU_PORT") or 8000)
        _beside(command, log, port)
        environ["UNIGPU_PYWORKER_TO"] = str(_tunnel(port))
    else:
        signal.signal(
            signal.SIGTERM, signal.SIG_IGN
        )  # calls end first: the worker closes our input when it has drained
        threading.Thread(target=_until_closed, daemon=True).start()
    worker_class = importlib.import_module("vastai").Worker
    if environ["USE_SSL"] == "true" and not _CERTIFICATE.exists():
        _get_certificate(environ)
    worker = worker_class(config(environ))
    if environ.get("PYWORKER_DEBUG") != "1":
        logging.getLogger().setLevel(logging.INFO)  # it says everything at DEBUG, every second
    os.chdir(folder)
    host = environ.get("PYWORKER_HOST")
    worker.run(**({"host": host} if host else {}))


def _sample(text: str | None) -> Any:
    if not text:
        return None
    return json.loads(text if text.lstrip().startswith("{") else Path(text).read_text(encoding="utf-8"))


def _routes(environ: dict[str, str]) -> list[str]:
    named = [*environ.get("PYWORKER_ROUTES", "").split(","), environ.get("UNIGPU_ROUTE", "")]
    found = dict.fromkeys(route.strip() for route in named)
    return [route for route in found if route and route != TUNNEL]


# -- any request for a server -----------------------------------------------------------------------------------------


def _tunnel(server: int) -> int:
    """Stand between PyWorker and the server on a port of loopback, which is returned: what PyWorker posts to `TUNNEL`
    is made a request of its own, all else goes to the server as it is."""
    ready: queue.SimpleQueue[int] = queue.SimpleQueue()
    threading.Thread(target=lambda: asyncio.run(_stand_between(server, ready)), daemon=True).start()
    return ready.get()


async def _stand_between(server: int, ready: queue.SimpleQueue[int]) -> None:
    aiohttp, web = importlib.import_module("aiohttp"), importlib.import_module("aiohttp.web")
    url = importlib.import_module("yarl").URL

    async def pass_on(request: Any) -> Any:
        if request.path == TUNNEL:
            given = await request.json()
            method, target, headers = given["method"], given["target"], [(k, v) for k, v in given["headers"]]
            content = base64.b64decode(given.get("content") or "")
            if not target.startswith("/"):
                return web.Response(status=400, text="a target is a path")
        else:
            method, target, headers = request.method, request.raw_path, list(request.headers.items())
            content = await request.read()
        answer = None
        try:
            async with session.request(
                method,
                url(f"http://127.0.0.1:{server}{target}", encoded=True),
                headers=_kept(headers, "content-length"),
                data=content or None,
                allow_redirects=False,
            ) as reply:
                # The length of an answer to HEAD is that of a body which is not there.
                passed = _kept(reply.headers.items(), *(["content-length"] if method == "HEAD" else []))
                answer = web.StreamResponse(status=reply.status, headers=[*passed, (MARK, "1")])
                await answer.prepare(request)
                async for piece in reply.content.iter_any():
                    await answer.write(piece)
                await answer.write_eof()
                return answer
        except aiohttp.ClientConnectorError:
            return web.json_response({"error": "the server does not listen"}, status=503)  # so it did not run
        except aiohttp.ClientError:
            if answer is None:
                return web.Response(status=502)
            raise  # an answer that broke off breaks off for the caller, too

    settings = {"auto_decompress": False, "timeout": aiohttp.ClientTimeout(total=None),
                "connector": aiohttp.TCPConnector(limit=0), "cookie_jar": aiohttp.DummyCookieJar(),
                "skip_auto_headers": ["User-Agent", "Accept", "Accept-Encoding", "Content-Type"]}  # fmt: skip
    async with aiohttp.ClientSession(**settings) as session:
        app = web.Application(client_max_size=0)
        app.router.add_route("*", "/{path:.*}", pass_on)
        runner = web.AppRunner(app, handler_cancellation=True)  # who leaves ends the server's work
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        ready.put(runner.addresses[0][1])
        await asyncio.Event().wait()


async def _passed_on(request: Any, reply: Any) -> Any:
    """The server's answer as it is; PyWorker has undone a compression."""
    web = importlib.import_module("aiohttp.web")
    squeezed = ["content-encoding", "content-length"] if "content-encoding" in reply.headers else []
    answer = web.StreamResponse(status=reply.status, headers=_kept(reply.headers.items(), *squeezed))
    await answer.prepare(request)
    async for piece in reply.content.iter_any():
        await answer.write(piece)
    await answer.write_eof()
    return answer


def _kept(headers: Any, *but: str) -> list[tuple[str, str]]:
    """Without what belongs to one connection."""
    return [(name, value) for name, value in headers if name.lower() not in _ONE_CONNECTION and name.lower() not in but]


def _until_closed() -> None:
    """The worker that started us holds the other end of our input; when it is gone, so are we."""
    with contextlib.suppress(OSError):
        while sys.stdin.buffer.read(1):
            pass
    os._exit(0)


def _beside(command: list[str], log: Path, port: int) -> None:
    """Start the user's server, and mark in the log when it listens and when it ends."""
    process = subprocess.Popen(command)  # noqa: S603 - the container's own command

    def forward(number: int, frame: FrameType | None) -> None:
        process.send_signal(number)

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, forward)

    def watch() -> None:
        told = False
        while process.poll() is None:
            if not told:
                told = _listens(port)
                if told:
                    _mark(log, READY)
            time.sleep(0.2 if not told else 1.0)
        _mark(log, f"{FAILED}: the server ended with code {process.returncode}")
        os._exit(process.returncode if process.returncode >= 0 else 128 - process.returncode)

    threading.Thread(target=watch, daemon=True).start()


def _listens(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1.0).close()
    except OSError:
        return False
    return True


def _mark(log: Path, line: str) -> None:
    with log.open("a", encoding="utf-8") as file:
        file.write(line + "\n")


def _get_certificate(environ: dict[str, str]) -> None:
    """A certificate for this worker, signed by Vast (https://github.com/vast-ai/pyworker, start_server.sh)."""
    request = Path("/etc/instance.csr")
    subprocess.run(  # noqa: S603 - fixed words
        [
            *(
                "openssl",
                "req",
                "-newkey",
                "rsa:2048",
                "-nodes",
                "-sha256",
                "-subj",
                "/C=US/ST=CA/CN=pyworker.vast.ai/",
            ),
            *("-keyout", str(_CERTIFICATE_KEY), "-out", str(request)),
        ],
        check=True,
        capture_output=True,
    )
    console = environ.get("UNIGPU_VAST_CONSOLE") or _DEFAULT_CONSOLE
    url = f"{console}/api/v0/sign_cert/?instance_id={environ['CONTAINER_ID']}"
    for attempt in range(_TRIES):
        call = urllib.request.Request(  # noqa: S310 - the console's address, as this container was told
            url, data=request.read_bytes(), headers={"content-type": "application/octet-stream"}
        )
        try:
            with urllib.request.urlopen(call, timeout=10.0) as reply:  # noqa: S310 - the same
                _CERTIFICATE.write_bytes(reply.read())
            return
        except OSError as error:
            sys.stderr.write(f"pyworker: the certificate is not signed yet: {error}\n")
            time.sleep(2.0**attempt)
    sys.stderr.write("pyworker: no certificate could be had\n")  # PyWorker reports that, as an error of this worker


if __name__ == "__main__":
    main(sys.argv[1:])
