"""RunPod's loop in an environment of its own, beside a worker that serves HTTP. Standard library and ``runpod`` only.

For an image whose own packages clash with RunPod's:

    python -m venv /opt/runpod && /opt/runpod/bin/pip install runpod==1.12.0
    ENV UNIGPU_RUNPOD_PYTHON=/opt/runpod/bin/python

``python -m unigpu.worker TARGET`` then starts this program beside itself where it wakes up on RunPod (`_runpod`), and
each job becomes a ``POST /invoke`` to it. The other half of this file is what both ways hand to RunPod's package.
"""

from __future__ import annotations

import asyncio
import importlib
import json
import os
from collections.abc import AsyncIterator, Mapping
from typing import Any, Final, cast

WAKE: Final = "__unigpu_wake__"
"""The one key of a job's input that only wakes; the driver sends it (``providers/runpod/calls.py``)."""
_AGAIN_S: Final = 0.25
_LINE: Final = 64_000_000


class WholeJob(dict[str, Any]):
    """A handler's output that RunPod's package hands on as it is.

    Of a plain dict it would take out ``error`` and ``refresh_worker``, and drop an empty one (runpod 1.12.0,
    rp_job.py): here they are words of the user's own.
    """

    __hash__ = None  # as of any dict

    def __eq__(self, other: object) -> bool:
        return self is other

    def pop(self, key: str, default: Any = None) -> Any:  # the one form that is used
        return default

    def get(self, key: str, default: Any = None) -> Any:  # the same
        return default if key == "error" else super().get(key, default)


def whole(value: Any) -> Any:
    """An output, safe from RunPod's package."""
    return WholeJob(cast("dict[str, Any]", value)) if isinstance(value, dict) else value


def only_wakes(job: Mapping[str, Any]) -> bool:
    """Whether a client sent it to have a worker started, as RunPod does for jobs only. The handler is not called."""
    return job.get("input") == {WAKE: True}


def error_text(type: str, message: str, traceback: str | None) -> str:
    """An error as RunPod's own worker writes it: JSON in a text."""
    return json.dumps(
        {
            "error_type": f"<class '{type}'>",
            "error_message": message,
            "error_traceback": traceback or "",
            "hostname": os.environ.get("RUNPOD_POD_HOSTNAME", "unknown"),
            "worker_id": os.environ.get("RUNPOD_POD_ID", "unknown"),
        }
    )


class Loop:
    """RunPod's handlers over the worker's HTTP. aiohttp comes with RunPod's package.

    A job that RunPod stops is cancelled here, which closes its connection, which ends the call there.
    """

    def __init__(self, port: int, token: str, concurrency: int) -> None:
        self._url = f"http://127.0.0.1:{port}/invoke"
        self._token = token
        self._concurrency = concurrency
        self._session: Any = None

    def concurrency(self, current: int) -> int:
        """How many jobs may be fetched at a time."""
        return self._concurrency

    async def single(self, job: Mapping[str, Any]) -> object:
        """Where the handler gives one value."""
        if only_wakes(job):
            return {"woken": True}
        async with await self._post(job, "application/json") as reply:
            body: Any = await reply.json()
        return _failed(body) if "error" in body else whole(body["output"])

    async def stream(self, job: Mapping[str, Any]) -> AsyncIterator[object]:
        """Where it yields."""
        if only_wakes(job):
            return
        async with await self._post(job, "application/x-ndjson") as reply:
            async for line in reply.content:
                entry: Any = json.loads(line)
                if "chunk" in entry:
                    yield whole(entry["chunk"])
                elif "error" in entry:
                    yield _failed(entry)

    async def _post(self, job: Mapping[str, Any], accept: str) -> Any:
        if self._session is None:
            aiohttp = importlib.import_module("aiohttp")
            self._session = aiohttp.ClientSession(
                timeout=aiohttp.ClientTimeout(total=None), read_bufsize=_LINE, connector=aiohttp.TCPConnector(limit=0)
            )
        headers = {
            "authorization": f"Bearer {self._token}",
            "accept": accept,
            "x-unigpu-job": str(job.get("id", "-"))[:128],
        }
        while True:
            reply = await self._session.post(self._url, json={"input": job.get("input")}, headers=headers)
            if reply.status == 503 and (await reply.json())["error"]["type"] == "draining":
                # It leaves, and this job came a moment too late: RunPod gives it to another worker when we are gone.
                await asyncio.Event().wait()
            if reply.status != 429:
                return reply
            reply.release()  # a call that was told to stop keeps its slot a little longer
            await asyncio.sleep(_AGAIN_S)


def _failed(body: Mapping[str, Any]) -> dict[str, str]:
    error = body["error"]
    return {"error": error_text(error["type"], error["message"], error.get("traceback"))}


def main() -> None:
    """Run until SIGTERM; RunPod's package then finishes what runs."""
    serverless: Any = importlib.import_module("runpod.serverless")
    loop = Loop(
        int(os.environ["UNIGPU_LOOP_PORT"]),
        os.environ.pop("UNIGPU_LOOP_TOKEN"),
        int(os.environ.get("UNIGPU_CONCURRENCY") or 1),
    )
    streams = os.environ.get("UNIGPU_LOOP_STREAMS") == "1"
    handler = loop.stream if streams else loop.single
    serverless.start({"handler": handler, "concurrency_modifier": loop.concurrency, "return_aggregate_stream": True})


if __name__ == "__main__":
    main()
