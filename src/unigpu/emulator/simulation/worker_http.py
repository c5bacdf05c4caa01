"""What a simulated worker makes of a call's body, and how it tells the outcome: as the portable worker does by HTTP."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, cast

from ..contract import JSON, HttpCall, Push, Reply

INVOKE = "/invoke"


@dataclass(frozen=True, slots=True, kw_only=True)
class SimulatedCall:
    """One call.

    Attributes:
        value: What the handler gets.
        told: ``job``: the engine's own form; ``envelope``: the worker's, inside an answer of 200; ``raw``: the bare
            output, and a failure as 500.
        timeout: Seconds that the handler may run.
        lines: The answer is a line for each chunk, and a last one that says how it ended.
    """

    value: JSON
    told: Literal["job", "envelope", "raw"]
    timeout: float
    lines: bool = False

    def done(self, output: JSON, seconds: float) -> dict[str, Any]:
        """The fields of `JobDone`."""
        if self.told == "job":
            return {"output": output, "execution_s": seconds}
        return {"output": output if self.told == "raw" else {"output": output, "execution_s": seconds}}

    def failed(self, type: str, message: str, seconds: float | None) -> dict[str, Any]:
        """The same, where the handler failed."""
        error = {"type": type, "message": message}
        timed: dict[str, Any] = {} if seconds is None else {"execution_s": seconds}
        if self.told == "job":
            return {"error": error, **timed}
        if self.told == "envelope":
            return {"output": {"error": error, **timed}}
        return {"error": {"type": "HTTP500", "message": json.dumps({"error": error})}}

    def reply(self, result: Mapping[str, Any], chunks: Sequence[JSON] | None = None) -> Reply:
        """The fields of `JobDone` as an answer of HTTP. *chunks*: what a generator gave; ``None``: there was none."""
        if self.lines:
            return _as_lines(result["output"], chunks)
        if "error" in result:
            return Reply(status=500, headers=_JSON, body=str(result["error"]["message"]).encode())
        return Reply.json(result["output"])


def of_push(push: Push) -> SimulatedCall:
    """A job that the driver carries to a worker."""
    if "path" not in push.extra:
        return SimulatedCall(value=push.input, told="job", timeout=push.execution_timeout)
    headers: Mapping[str, str] = push.extra.get("headers") or {}
    stated = next((text for name, text in headers.items() if name.lower() == "x-unigpu-timeout"), None)
    return _of(push.input, push.execution_timeout if stated is None else float(stated))


def of_call(call: HttpCall) -> SimulatedCall | None:
    """A request to the portable worker's own route; ``None``: it is another server's."""
    if call.method != "POST" or call.path != INVOKE:
        return None
    try:
        body = json.loads(call.body)
    except ValueError:
        return None
    lines = _NDJSON in call.headers.get("accept", "").lower()
    return _of(body, float(call.headers.get("x-unigpu-timeout", "inf")), lines=lines)


def _of(body: JSON, timeout: float, *, lines: bool = False) -> SimulatedCall:
    if isinstance(body, dict):
        fields = cast("dict[str, JSON]", body)
        if len(fields) == 1 and isinstance(fields.get("input"), dict):
            return SimulatedCall(value=fields["input"], told="envelope", timeout=timeout, lines=lines)
    return SimulatedCall(value=body, told="raw", timeout=timeout)


def _as_lines(said: Mapping[str, JSON], chunks: Sequence[JSON] | None) -> Reply:
    last = {name: value for name, value in said.items() if name != "output"}
    if "error" not in said:
        last["done"] = True
        if chunks is None:
            chunks, last["single"] = [said["output"]], True
    lines = [*({"chunk": chunk} for chunk in chunks or ()), last]
    return Reply(
        headers=(("content-type", _NDJSON),), body=b"".join(json.dumps(line).encode() + b"\n" for line in lines)
    )


_NDJSON = "application/x-ndjson"
_JSON = (("content-type", "application/json"),)
