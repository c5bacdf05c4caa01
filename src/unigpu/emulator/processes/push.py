"""Give one job to a worker by HTTP, and tell what comes of it as events."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final, cast

from unigpu._io.lines import LineReader

from ..contract import JSON, Chunk, Event, JobDone, Push
from ..http_client import Exchange, Head, UpstreamError

OUTPUT_LIMIT: Final = 32_000_000
"""Bytes that one job's answer may have, all its chunks together: what a client reads as one whole reply."""
_TOO_LARGE: Final = {
    "type": "OutputTooLarge",
    "message": f"the output has more than {OUTPUT_LIMIT:,} bytes; write large data where the caller can fetch it, and "
    "return the address",
}
_NDJSON: Final = "application/x-ndjson"
_EXCERPT: Final = 500
_OWN: Final = frozenset({"host", "content-type", "content-length", "transfer-encoding", "connection"})
"""Headers that a job's own cannot replace."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PushTarget:
    """Where and how a worker takes jobs.

    Attributes:
        route: The path to post to.
        raw: The body is the input alone, and the answer the output: a server that is not ours.
        token: What the worker's callers must send.
    """

    host: str
    port: int
    route: str = "/invoke"
    raw: bool = False
    token: str | None = None


class _TooLarge(Exception):
    """The answer is above `OUTPUT_LIMIT`."""


async def push(target: PushTarget, job: Push, emit: Callable[[Event], None]) -> None:
    """Post one job; `Chunk` events as they come and one `JobDone` at the end. Cancelling it closes the connection.

    Raises:
        UpstreamError: the worker cannot be reached, or broke off: what became of the job is not known.
    """
    if "path" in job.extra:
        target = replace(target, route=str(job.extra["path"]), raw=True)
    body = json.dumps(job.input if target.raw else {"input": job.input}, separators=(",", ":")).encode()
    headers = [("host", f"{target.host}:{target.port}"), ("content-type", "application/json")]
    if "path" in job.extra:
        given: Mapping[str, str] = job.extra.get("headers") or {}
        headers += [(name.lower(), value) for name, value in given.items() if name.lower() not in _OWN]
    else:
        headers += [
            ("accept", _NDJSON if job.stream and not target.raw else "application/json"),
            ("x-unigpu-job", job.job_id),
            ("x-unigpu-timeout", f"{job.execution_timeout:g}"),
        ]
    if target.token is not None:
        headers.append(("authorization", f"Bearer {target.token}"))
    exchange = await Exchange.open(target.host, target.port)
    try:
        # Only our own server is known to ask for the body; a stranger's may ignore the question.
        head = await exchange.send("POST", target.route, headers, body, ask_first=not target.raw)
        if head.status in (429, 503) and not target.raw:
            emit(JobDone(worker_id=job.worker_id, job_id=job.job_id, busy=True))
        elif head.status == 200 and _is_ndjson(head):
            await _stream(exchange, job, emit)
        else:
            emit(_answer(target, job, head, b"".join([part async for part in _limited(exchange)])))
    except _TooLarge:
        emit(JobDone(worker_id=job.worker_id, job_id=job.job_id, error=_TOO_LARGE))
    finally:
        exchange.close()


async def _limited(exchange: Exchange) -> AsyncIterator[bytes]:
    size = 0
    async for part in exchange.body():
        size += len(part)
        if size > OUTPUT_LIMIT:
            raise _TooLarge
        yield part


async def _stream(exchange: Exchange, job: Push, emit: Callable[[Event], None]) -> None:
    lines, size = LineReader(), 0
    chunks: list[JSON] = []
    async for part in _limited(exchange):
        size += len(part)
        for line in lines.feed(part):
            entry = _object(line)
            if "chunk" in entry:
                chunks.append(entry["chunk"])
                emit(Chunk(worker_id=job.worker_id, job_id=job.job_id, value=entry["chunk"]))
            elif entry.get("done") is True or "error" in entry:
                # The job's output is what it would be without streaming: the value, or the list of what was yielded.
                output = chunks[0] if chunks and entry.get("single") is True else chunks
                emit(_done(job, {"output": output, **entry}, size))
                return
            else:
                raise UpstreamError("the worker's stream has a line that is neither a chunk nor its end")
    raise UpstreamError("the worker's stream ended without its last line")


def _answer(target: PushTarget, job: Push, head: Head, body: bytes) -> JobDone:
    if target.raw:
        if 200 <= head.status < 300:
            return _done(job, {"output": _json_or_text(body)}, len(body))
        return _refused(job, head, body)
    if head.status == 200:
        return _done(job, _object(body), len(body))
    return _refused(job, head, body)


def _refused(job: Push, head: Head, body: bytes) -> JobDone:
    """A status that the contract does not have for a job: a failure, told with what the server said."""
    said = body[:_EXCERPT].decode("utf-8", "replace").strip()
    error: Mapping[str, JSON] = {"type": f"HTTP{head.status}", "message": said or "the worker gave no reason"}
    return JobDone(worker_id=job.worker_id, job_id=job.job_id, error=error)


def _done(job: Push, entry: Mapping[str, JSON], size: int) -> JobDone:
    seconds = entry.get("execution_s")
    error = entry.get("error")
    return JobDone(
        worker_id=job.worker_id,
        job_id=job.job_id,
        output=entry.get("output"),
        error=cast("Mapping[str, JSON]", error) if isinstance(error, Mapping) else None,
        execution_s=float(seconds) if isinstance(seconds, int | float) else None,
        size=size,
    )


def _object(text: bytes) -> Mapping[str, JSON]:
    try:
        value: Any = json.loads(text)
    except (ValueError, RecursionError):
        raise UpstreamError("the worker's answer is not JSON") from None
    if not isinstance(value, dict):
        raise UpstreamError("the worker's answer is not an object")
    return cast("dict[str, JSON]", value)


def _json_or_text(body: bytes) -> JSON:
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        return body.decode("utf-8", "replace")


def _is_ndjson(head: Head) -> bool:
    return any(k == "content-type" and v.startswith(_NDJSON) for k, v in head.headers)
