"""Our worker's contract from the caller's side: what is sent, and what each answer means."""

from __future__ import annotations

import itertools
import json
from collections.abc import Sequence
from contextlib import aclosing
from typing import Any

import pytest
from driver_kit import INFO, World, reply, streamed
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr

from unigpu._io.bridge import run_sync
from unigpu.driver import (
    NDJSON,
    Answer,
    BufferedReply,
    CallClass,
    HTTPCall,
    Invocation,
    JobError,
    WorkerCall,
    answer_of,
    bearer,
    buffered,
    call_headers,
    is_own,
    job_error,
    payload,
    words_of,
)
from unigpu.errors import (
    InvalidRequestError,
    InvalidResponseError,
    JobFailed,
    NoWorkerReady,
    ProviderUnavailableError,
    StreamInterrupted,
    TransportError,
    UniGPUError,
    WorkerLost,
)

CALL = Invocation(input={"n": 1}, job_id="j1", deadline=1e12, start_deadline=1e12, execution_timeout=90.0)
OURS = WorkerCall(info=INFO, operation="acme.pod.invoke")
FOREIGN = WorkerCall(info=INFO, operation="acme.pod.invoke", own=False)


def lines(*values: Any) -> bytes:
    return b"".join(json.dumps(value).encode() + b"\n" for value in values)


def chunks(call: WorkerCall, pieces: Sequence[bytes], **more: Any) -> list[Any]:
    async def main() -> list[Any]:
        asked = call.request(CALL, "https://w.test/invoke", stream=True)
        async with World(streamed(pieces, **more)).io.stream(asked) as opened, aclosing(call.chunks(opened)) as found:
            return [one async for one in found]

    return run_sync(main())


def test_a_call_carries_its_input_and_what_our_worker_reads_beside_it() -> None:
    asked = OURS.request(CALL, "https://w.test/invoke", headers=bearer(SecretStr("t")), read_timeout=5.0)
    assert asked.json == {"input": {"n": 1}}
    assert asked.headers == (("accept", "application/json"), *call_headers(CALL), *bearer(SecretStr("t")))
    assert (asked.method, asked.role, asked.foreign, asked.deployment) == ("POST", "worker", True, "chat")
    assert (asked.call, asked.read_timeout, asked.deadline) == (CallClass.USER_DECIDES, 5.0, 1e12)
    assert OURS.request(CALL, "u", stream=True).headers[0] == ("accept", NDJSON)


def test_another_server_gets_the_bare_input_and_none_of_our_headers() -> None:
    asked = FOREIGN.request(CALL, "https://w.test/run")
    assert (asked.json, asked.headers) == ({"n": 1}, (("accept", "application/json"),))
    assert payload(CALL, own=False, stream=True) == {"n": 1, "stream": True}
    assert payload(CALL, stream=True) == {"input": {"n": 1}, "stream": True}
    assert call_headers(CALL) == (("x-unigpu-job", "j1"), ("x-unigpu-timeout", "90"))
    assert is_own(INFO)
    assert not is_own(INFO.model_copy(update={"worker_protocol": "foreign"}))


def test_a_result_is_the_handlers_output() -> None:
    found = OURS.result(reply(200, {"output": [1], "execution_s": 0.5}), worker_id="w1")
    assert (found.output, found.worker_id, found.timing.execution) == ([1], "w1", 0.5)
    assert found.timing.source == "execution: worker"
    assert OURS.result(reply(200, {"output": None})).timing.source is None
    bare = FOREIGN.result(reply(200, {"error": "its own word"}), total=2.0)
    assert (bare.output, bare.timing.total, bare.timing.source) == ({"error": "its own word"}, 2.0, "client")


def test_a_handlers_failure_is_a_failed_job() -> None:
    said = {"error": {"type": "ValueError", "message": "no", "traceback": "Traceback ..."}, "execution_s": 1}
    with pytest.raises(JobFailed, match="the call of chat failed: ValueError: no") as caught:
        OURS.result(reply(200, said))
    error = caught.value
    assert (error.error_type, error.error_message, error.traceback) == ("ValueError", "no", "Traceback ...")
    assert (error.provider, error.operation, error.deployment) == ("acme", "acme.pod.invoke", "chat")
    assert error.maybe_executed is True


@pytest.mark.parametrize("body", [{}, [], "text", None, {"out": 1}, {"error": "no upstream"}])
def test_what_is_not_our_workers_answer_is_an_invalid_response(body: Any) -> None:
    assert answer_of(body) is None
    with pytest.raises(InvalidResponseError, match="unigpu's worker") as caught:
        OURS.result(reply(200, body))
    assert caught.value.maybe_executed is True


def test_an_answer_that_was_stored_as_text_is_read_as_well() -> None:
    assert answer_of('{"output": 1, "execution_s": 2}') == Answer(output=1, execution=2.0)
    assert answer_of({"error": {"message": "no"}, "execution_s": "soon"}) == Answer(error=JobError(message="no"))
    assert job_error({"type": None, "traceback": 3}) == JobError(type="Error", message="", traceback=None)
    assert job_error(None) == JobError()
    assert job_error([1]) == JobError(message="[1]")


@pytest.mark.parametrize(
    ("status", "kind", "ran"),
    [
        (429, NoWorkerReady, False), (503, NoWorkerReady, False), (502, WorkerLost, True), (504, WorkerLost, True),
        (400, InvalidRequestError, False), (500, ProviderUnavailableError, True), (302, InvalidResponseError, True),
    ],
)  # fmt: skip
def test_a_status_says_whether_the_call_may_have_run(status: int, kind: type[UniGPUError], ran: bool) -> None:
    with pytest.raises(UniGPUError) as caught:
        OURS.raise_for(reply(status, {"error": {"message": "why a-secret"}}), secrets=("a-secret",))
    error = caught.value
    assert type(error) is kind
    assert (error.maybe_executed, error.provider, error.deployment) == (ran, "acme", "chat")
    assert "a-secret" not in str(error)


def test_a_driver_says_what_its_gateway_means() -> None:
    OURS.raise_for(reply(200, {}))
    with pytest.raises(WorkerLost):
        OURS.raise_for(reply(524, {}), lost=(502, 504, 524))
    with pytest.raises(NoWorkerReady):
        OURS.raise_for(reply(502, {}), not_ready=(429, 502, 503))
    assert OURS.not_ready("is stopped", state="STOPPED", reason="stopped").state == "STOPPED"
    assert OURS.lost("HTTP 524", hint="Use jobs.").hint == "Use jobs."


def test_the_words_of_a_server_are_found_wherever_it_puts_them() -> None:
    for body in ({"error": "busy"}, {"error": {"type": "x", "message": "busy"}}, {"detail": "busy"}, {"msg": "busy"}):
        assert words_of(reply(503, body)) == "busy"
    assert words_of(reply(503, b" <p>busy</p>\n")) == "<p>busy</p>"
    assert words_of(reply(503, {"error": {"code": 1}})) == '{"error": {"code": 1}}'
    assert len(words_of(reply(503, {"error": "x" * 999}))) == 300


STREAM = lines({"chunk": 1}, {"chunk": "é\n"}, {"done": True, "execution_s": 1})


@given(st.lists(st.integers(0, len(STREAM)), max_size=8))
def test_the_chunks_are_the_same_however_their_bytes_are_cut(cuts: list[int]) -> None:
    at = [0, *sorted(cuts), len(STREAM)]
    assert chunks(OURS, [STREAM[a:b] for a, b in itertools.pairwise(at)]) == [1, "é\n"]


def test_a_failure_within_a_stream_is_a_failed_job() -> None:
    with pytest.raises(JobFailed, match="ValueError: no"):
        chunks(OURS, [lines({"chunk": 1}, {"error": {"type": "ValueError", "message": "no"}})])


@pytest.mark.parametrize(
    "body", [b"", lines({"chunk": 1}), b'{"chunk": 1}\n{"chu', lines({"other": 1}), b"<html>\n", lines([1])]
)
def test_a_stream_without_its_last_line_was_interrupted(body: bytes) -> None:
    with pytest.raises(StreamInterrupted, match="the stream of chat broke off") as caught:
        chunks(OURS, [body])
    assert (caught.value.maybe_executed, caught.value.operation) == (True, "acme.pod.invoke")


def test_a_connection_that_breaks_says_so_itself() -> None:
    with pytest.raises(TransportError, match="reset"):
        chunks(OURS, [lines({"chunk": 1})], fails=TransportError("reset"))


def test_another_servers_events_and_lines_are_values() -> None:
    events = b': hello\nevent: token\nid: 1\ndata: {"t": 1}\n\ndata: {"t": 2}\r\n\r\ndata: [DONE]\n\n'
    assert chunks(FOREIGN, [events]) == [{"t": 1}, {"t": 2}]
    assert chunks(FOREIGN, [lines({"t": 1}), b'{"t": 2}']) == [{"t": 1}, {"t": 2}]


def test_a_request_to_the_users_own_server_passes_as_it_is() -> None:
    call = HTTPCall(
        method="PUT", target="/v1?x=1", headers=(("a", "b"),), content=b"raw", deadline=9.0, hold=3.0, idempotent=True,
        read_timeout=5.0,
    )  # fmt: skip
    asked = call.request("https://w.test/v1?x=1", info=INFO, operation="acme.http", held=3.0)
    assert (asked.method, asked.headers, asked.content, asked.foreign) == ("PUT", (("a", "b"),), b"raw", True)
    assert (asked.call, asked.read_timeout, asked.role) == (CallClass.IDEMPOTENT, 8.0, "worker")
    keyed = call.request("u", info=INFO, operation="acme.http", headers=(("k", "v"),), role="jobs", reroutes=True)
    assert (keyed.headers, keyed.role, keyed.reroutes) == ((("k", "v"),), "jobs", True)


def test_a_reply_that_was_read_can_still_be_streamed() -> None:
    async def main() -> tuple[int, list[bytes], bytes, list[bytes]]:
        io = World(streamed([b"a", b"b"], status=418)).io
        async with io.stream(OURS.request(CALL, "https://w.test/invoke")) as opened:
            said = await buffered(opened, "acme.http")
        again = BufferedReply(said)
        empty = BufferedReply(reply(204, b""))
        return (
            again.status,
            [one async for one in again.chunks()],
            await again.read(),
            [e async for e in empty.chunks()],
        )

    assert run_sync(main()) == (418, [b"ab"], b"ab", [])
