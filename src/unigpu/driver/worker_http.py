"""The client half of our worker's HTTP contract, for drivers whose calls reach the worker itself.

``POST /invoke`` with ``{"input": {...}}`` is answered by 200 and ``{"output", "execution_s"}`` or ``{"error"}``: a
handler's failure must not look like a gateway's. Refusals, before anything runs, are 429 (busy) and 503 (loading,
draining, expired). With ``Accept: application/x-ndjson`` there is a line for each chunk, and a last one that says how
it ended. The server half is ``unigpu/worker/http_app.py``. Each emulator has its own copy, so that no mistake confirms
itself.

What a gateway in front of the worker says by itself differs on each platform: that is the driver's to read, before or
after `WorkerCall.raise_for`.
"""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Collection, Mapping
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any, Final

from .._io.contract import CallClass, Request, Response, StreamResponse
from .._io.lines import lines_of
from .._io.status import check
from ..errors import InvalidResponseError, JobFailed, NoWorkerReady, StreamInterrupted, WorkerLost
from ..models import DeploymentInfo, JobError, Result, Timing
from .calls import Invocation
from .pages import Params
from .parse import json_object, mapping, number, object_or_none

__all__ = [
    "INVOKE",
    "MARK",
    "NDJSON",
    "REFUSALS",
    "Answer",
    "WorkerCall",
    "answer_of",
    "call_headers",
    "is_own",
    "job_error",
    "payload",
    "words_of",
]

INVOKE: Final = "/invoke"
NDJSON: Final = "application/x-ndjson"
MARK: Final = "x-unigpu-http"
"""A header of each reply that unigpu's PyWorker passes on from the user's own server."""
REFUSALS: Final = frozenset({"busy", "loading", "draining", "expired"})
"""The types of an error with which our worker refuses a call. Nothing ran."""
_BUSY: Final = 429


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What our worker says of a call: its output, or the handler's failure.

    Attributes:
        execution: Seconds that the handler took, where it is known.
    """

    output: Any = None
    error: JobError | None = None
    execution: float | None = None

    @property
    def timing(self) -> Timing:
        return Timing(execution=self.execution, source=None if self.execution is None else "execution: worker")


def is_own(info: DeploymentInfo) -> bool:
    """Whether unigpu's worker answers, or another server."""
    return info.worker_protocol != "foreign"


def payload(call: Invocation, *, own: bool = True, stream: bool = False) -> Mapping[str, Any]:
    """The body of a call: our envelope, or the bare input for another server.

    Args:
        stream: Ask for a stream in the body, where no header reaches the worker.
    """
    body: Mapping[str, Any] = {"input": call.input} if own else call.input
    return {**body, "stream": True} if stream else body


def call_headers(call: Invocation) -> Params:
    """What our worker reads of a call beside its body."""
    return (("x-unigpu-job", call.job_id), ("x-unigpu-timeout", f"{call.execution_timeout:g}"))


def answer_of(body: object) -> Answer | None:
    """Our worker's answer, also where a platform stored it as text; ``None``: it has another form."""
    said = json_object(body) if isinstance(body, str) else mapping(body)
    seconds = said.get("execution_s")
    execution = None if isinstance(seconds, str) else number(seconds)
    if "output" in said:
        return Answer(output=said["output"], execution=execution)
    # An error that is no object is a gateway's or the platform's own word, not the handler's.
    error = object_or_none(said.get("error"))
    return None if error is None else Answer(error=job_error(error), execution=execution)


def job_error(said: object) -> JobError:
    """A handler's failure, as our worker says it: ``{"type", "message", "traceback"}``."""
    error = mapping(said)
    if not error:
        return JobError(message=said if isinstance(said, str) else "" if said is None else json.dumps(said)[:2000])
    trace = error.get("traceback")
    return JobError(
        type=str(error.get("type") or "Error"),
        message=str(error.get("message") or ""),
        traceback=trace if isinstance(trace, str) else None,
    )


def words_of(response: Response) -> str:
    """What a server says in an error's body, at most 300 characters."""
    body = json_object(response.content)
    said: object = body.get("error") or body.get("detail") or body.get("message") or body.get("msg")
    said = mapping(said).get("message", said)
    return said[:300] if isinstance(said, str) else response.content[:300].decode("utf-8", "replace").strip()


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerCall:
    """One call of a function deployment: what is sent to its worker, and what comes back.

    Attributes:
        operation: The full name, as in ``"runpod.pod.invoke"``.
        own: Whether unigpu's worker answers, by `is_own` or as the platform knows better.
    """

    info: DeploymentInfo
    operation: str
    own: bool = True

    def request(
        self,
        call: Invocation,
        url: str,
        *,
        headers: Params = (),
        stream: bool = False,
        read_timeout: float | None = None,
    ) -> Request:
        """The call as a request to *url*. Whatever its reply says is data: see `Request.foreign`."""
        return Request(
            method="POST",
            url=url,
            operation=self.operation,
            headers=(("accept", NDJSON if stream else "application/json"), *self._headers(call), *headers),
            json=payload(call, own=self.own),
            role="worker",
            call=CallClass.IDEMPOTENT if call.idempotent else CallClass.USER_DECIDES,
            deadline=call.deadline,
            read_timeout=read_timeout,
            deployment=self.info.name,
            foreign=True,
        )

    def raise_for(
        self,
        reply: Response,
        *,
        not_ready: Collection[int] = (429, 503),
        lost: Collection[int] = (502, 504),
        secrets: tuple[str, ...] = (),
    ) -> None:
        """Raise what a reply without an answer means; does nothing for a 2xx.

        Args:
            not_ready: The statuses after which nothing ran.
            lost: The statuses after which the worker may have had the call. *not_ready* goes first.
            secrets: What no error may show.

        Raises:
            NoWorkerReady, WorkerLost: see above.
            UniGPUError: by any other status, as `unigpu.driver.check`.
        """
        if reply.status in not_ready:
            raise self.not_ready("has all the calls that it takes" if reply.status == _BUSY else "takes no calls (yet)")
        if reply.status in lost:
            raise self.lost(f"HTTP {reply.status}")
        check(reply, self._provider, deployment=self.info.name, secrets=secrets)

    def result(self, reply: Response, *, worker_id: str | None = None, total: float | None = None) -> Result:
        """What a 2xx says. *total*: seconds that the call took, by our clock.

        Raises:
            JobFailed: the handler raised.
            InvalidResponseError: it is not our worker's answer.
        """
        if not self.own:
            timing = Timing(total=total, source=None if total is None else "client")
            return Result(output=reply.json(), worker_id=worker_id, timing=timing)
        answer = answer_of(reply.json())
        if answer is None:
            raise InvalidResponseError(
                f"{self.operation}: the reply is not that of unigpu's worker", maybe_executed=True, **self._common
            )
        if answer.error is not None:
            raise self.failed(answer.error)
        return Result(output=answer.output, worker_id=worker_id, timing=answer.timing)

    async def chunks(self, reply: StreamResponse) -> AsyncGenerator[Any]:
        """The values of a stream: our worker's lines, or another server's events (SSE) or lines of JSON.

        Raises:
            JobFailed: the handler raised.
            StreamInterrupted: our worker's last line is missing, or a line is not one of its.
        """
        async with aclosing(lines_of(reply.chunks())) as lines:
            async for line in lines:
                try:
                    value: object = json.loads(line if self.own else line.removeprefix(b"data:"))
                except (ValueError, RecursionError):
                    if self.own and line.strip():
                        raise self.interrupted("a line is not JSON") from None
                    continue  # "[DONE]", "event: ...", a comment: what frames the events is no value
                if not self.own:
                    yield value
                    continue
                said = mapping(value)
                if "chunk" in said:
                    yield said["chunk"]
                elif "error" in said:
                    raise self.failed(job_error(said["error"]))
                elif said.get("done") is True:
                    return
                else:
                    raise self.interrupted("a line is neither a chunk nor the end")
        if self.own:
            raise self.interrupted("it ended without its last line")

    # -- errors -------------------------------------------------------------------------------------------------------

    def failed(self, error: JobError) -> JobFailed:
        """The handler raised *error*."""
        return JobFailed(
            f"the call of {self._name} failed: {error.type}: {error.message or 'no reason given'}",
            error_type=error.type,
            error_message=error.message,
            traceback=error.traceback,
            maybe_executed=True,
            **self._common,
        )

    def lost(self, why: str, *, hint: str | None = None) -> WorkerLost:
        """The worker may have had the call, and gave no answer."""
        return WorkerLost(
            f"the worker of {self._name} gave no answer: {why}", maybe_executed=True, hint=hint, **self._common
        )

    def not_ready(self, why: str, *, state: str | None = None, reason: str | None = None) -> NoWorkerReady:
        """No worker took the call; it has not run."""
        return NoWorkerReady(
            f"the worker of {self._name} {why}", state=state, reason=reason, maybe_executed=False, **self._common
        )

    def interrupted(self, why: str) -> StreamInterrupted:
        """The stream broke off."""
        return StreamInterrupted(f"the stream of {self._name} broke off: {why}", maybe_executed=True, **self._common)

    def _headers(self, call: Invocation) -> Params:
        return call_headers(call) if self.own else ()

    @property
    def _name(self) -> str:
        return self.info.name or self.info.provider_name

    @property
    def _provider(self) -> str:
        return self.operation.partition(".")[0]

    @property
    def _common(self) -> dict[str, Any]:
        return {"provider": self._provider, "operation": self.operation, "deployment": self.info.name}
