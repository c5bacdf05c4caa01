"""A call in two hops, on a bad day: Vast's own client answers each of these otherwise (see the notes in the names)."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from vast_world import KEY, Account, Script, ready, waiting

from unigpu import Client, Deployment
from unigpu.errors import (
    AuthenticationError,
    DeadlineExceeded,
    DeploymentGone,
    InvalidRequestError,
    InvalidResponseError,
    JobFailed,
    NoWorkerReady,
    PermissionDeniedError,
    ResultUnknown,
    StreamInterrupted,
    UnsupportedError,
    WorkerFailed,
    WorkerLost,
)

DONE = (200, {"output": {"ok": True}, "execution_s": 0.25})


def dead(request: httpx.Request) -> Exception:
    return httpx.ConnectError("refused", request=request)


def reset(request: httpx.Request) -> Exception:
    return httpx.ReadError("reset by the other side", request=request)


def test_a_worker_gets_the_signed_route_and_the_payload_and_nothing_of_ours(
    client: Client, account: Account, app: Deployment, script: Script
) -> None:
    script.route = ready()
    script.worker = DONE
    result = client.invoke(app, {"n": 1})
    assert (result.output, result.timing.execution) == ({"ok": True}, 0.25)
    (sent,) = account.to_workers
    assert str(sent.url) == "https://203.0.113.42:33526/invoke"
    assert json.loads(sent.content) == {
        "auth_data": ready()[1], "session_id": None, "payload": {"input": {"n": 1}}
    }  # fmt: skip
    assert sorted(sent.headers) == ["content-length", "content-type", "host"]


def test_what_looks_like_a_key_in_a_route_goes_to_no_worker(
    client: Client, account: Account, app: Deployment, script: Script
) -> None:
    """An engine that echoed what it was asked with would hand the key to a stranger."""
    script.route = (200, {**ready()[1], "api_key": KEY, "endpoint_key": "ek", "echo": f"Bearer {KEY}"})
    script.worker = DONE
    client.invoke(app, {})
    assert json.loads(account.to_workers[0].content)["auth_data"] == ready()[1]


def test_one_call_that_waits_is_counted_once(client: Client, app: Deployment, script: Script) -> None:
    script.route = [waiting(idx=None), waiting(idx=7), waiting(idx=None), ready(idx=7)]
    script.worker = DONE
    client.invoke(app, {})
    assert [one["request_idx"] for one in script.asked] == [0, 0, 7, 7]
    assert all("api_key" not in one and one["endpoint"] for one in script.asked)


def test_a_dead_worker_costs_one_question_a_pause(client: Client, app: Deployment, script: Script) -> None:
    """Vast's own client asks over a thousand times in two seconds."""
    script.route = ready()
    script.worker = dead
    with pytest.raises(DeadlineExceeded) as caught:
        client.invoke(app, {}, timeout=60)
    assert "could not be reached" in str(caught.value)
    assert caught.value.maybe_executed is False
    pauses = [later - sooner for sooner, later in zip(script.times, script.times[1:], strict=False)]
    assert len(script.times) <= 20
    assert min(pauses) >= 0.8
    assert max(pauses) <= 6.0
    assert len(script.dialled) == len(script.times)  # nor is the worker dialled twice in a row


def test_after_two_misses_at_one_address_the_call_is_asked_for_anew(
    client: Client, app: Deployment, script: Script
) -> None:
    script.route = [ready(idx=9)] * 3 + [ready("https://203.0.113.43:1000", idx=10)]
    script.worker = [dead, dead, dead, DONE]
    assert client.invoke(app, {}).output == {"ok": True}
    assert [one["request_idx"] for one in script.asked] == [0, 9, 0, 9]
    assert script.dialled[-1].startswith("https://203.0.113.43:1000/")


def test_what_a_worker_had_is_not_sent_again(client: Client, app: Deployment, script: Script) -> None:
    """Vast's own client ran a job eight times in four seconds, with retry=False."""
    script.route = ready()
    script.worker = reset
    with pytest.raises(ResultUnknown) as caught:
        client.invoke(app, {})
    assert caught.value.maybe_executed
    assert len(script.dialled) == 1


def test_what_may_run_twice_is_sent_again_a_few_times(client: Client, app: Deployment, script: Script) -> None:
    script.route = ready()
    script.worker = [reset, DONE]
    assert client.invoke(app, {}, idempotent=True).output == {"ok": True}
    script.worker = reset
    script.dialled.clear()
    with pytest.raises(WorkerLost):
        client.invoke(app, {}, idempotent=True)
    assert len(script.dialled) == 3


@pytest.mark.parametrize("status", [429, 503])
def test_a_busy_worker_did_not_run_it_and_another_is_asked(
    client: Client, app: Deployment, script: Script, status: int
) -> None:
    script.route = [ready(idx=5), ready("https://203.0.113.43:1000", idx=5)]
    script.worker = [(status, b""), DONE]
    assert client.invoke(app, {}).output == {"ok": True}
    assert len(script.times) == 2
    assert script.times[1] - script.times[0] >= 0.8


def test_the_engine_that_fails_for_a_moment_is_asked_again(client: Client, app: Deployment, script: Script) -> None:
    """To Vast's own client a single 502 or 429 of /route/ is the end."""
    script.route = [(502, b""), (429, b"API requests too frequent"), ready()]
    script.worker = DONE
    assert client.invoke(app, {}).output == {"ok": True}


def test_the_deadline_bounds_every_pause(client: Client, app: Deployment, script: Script, clock: Any) -> None:
    """Asked for three seconds, Vast's own client takes almost six."""
    script.route = waiting()
    began = clock.now()
    with pytest.raises(DeadlineExceeded) as caught:
        client.invoke(app, {}, timeout=3)
    assert clock.now() - began <= 3.01
    assert "loading: 1" in str(caught.value)  # what the engine says is shown, never read


def test_the_wait_for_a_worker_has_its_own_end(client: Client, app: Deployment, script: Script, clock: Any) -> None:
    script.route = waiting()
    script.workers = (200, [{"id": 1, "status": "loading"}])
    began = clock.now()
    with pytest.raises(NoWorkerReady):
        client.invoke(app, {}, start_timeout=45, timeout=1000)
    assert 44 <= clock.now() - began <= 46


def test_waiting_behind_other_calls_is_no_wait_for_a_worker(
    client: Client, app: Deployment, script: Script, clock: Any
) -> None:
    script.route = waiting(status="all workers are busy")
    script.workers = (200, [{"id": 1, "status": "idle", "measured_perf": 90.0, "reqs_working": 4}])
    began = clock.now()
    with pytest.raises(DeadlineExceeded) as caught:
        client.invoke(app, {}, start_timeout=30, timeout=100)
    assert not isinstance(caught.value, NoWorkerReady)
    assert 99 <= clock.now() - began <= 101


def test_workers_that_fail_one_after_another_end_the_wait(
    client: Client, app: Deployment, script: Script, clock: Any
) -> None:
    script.route = waiting()
    script.workers = (200, [{"id": n, "status": "error", "error_msg": "CUDA driver"} for n in range(3)])
    began = clock.now()
    with pytest.raises(WorkerFailed, match="CUDA driver"):
        client.invoke(app, {})
    assert clock.now() - began < 60


def test_an_error_in_a_200_is_an_error(client: Client, app: Deployment, script: Script) -> None:
    """Vast's own client crashes on the first, and asks until the timeout on the second."""
    for body in ("authenticate_endpoint_apikey: invalid api_key", {"error_msg": "invalid api_key"}):
        script.route = (200, body)
        with pytest.raises(AuthenticationError, match="invalid api_key"):
            client.invoke(app, {})
        assert len(script.times) <= 2  # a key that is refused: once more, with the endpoint's own
        script.times.clear()
    for body in (17, [], None):
        script.route = (200, body)
        with pytest.raises(InvalidResponseError):
            client.invoke(app, {})


def test_one_that_is_gone_is_told_from_a_wrong_key(client: Client, app: Deployment, script: Script) -> None:
    script.route = (200, "authenticate_endpoint_apikey: invalid api_key or endpoint summarize not found")
    script.endpoint = (404, {"success": False, "error": "not_found", "msg": "no such endpoint"})
    with pytest.raises(DeploymentGone):
        client.invoke(app, {})
    script.route = (401, {"error": "Authentication failed"})
    script.endpoint = None
    with pytest.raises(AuthenticationError):
        client.invoke(app, {})
    script.route = (403, {"success": False, "msg": "scope"})
    with pytest.raises(PermissionDeniedError):
        client.invoke(app, {})


def test_a_handlers_failure_is_its_own(client: Client, app: Deployment, script: Script) -> None:
    script.route = ready()
    script.worker = (200, {"error": {"type": "KeyError", "message": "no page"}, "execution_s": 0.1})
    with pytest.raises(JobFailed, match="no page") as caught:
        client.invoke(app, {}, idempotent=True)
    assert caught.value.error_type == "KeyError"
    assert len(script.dialled) == 1


@pytest.mark.parametrize(("status", "body"), [(404, b""), (405, b""), (422, {"payload": "field missing"})])
def test_a_path_that_the_worker_does_not_have_is_no_result(
    client: Client, app: Deployment, script: Script, status: int, body: Any
) -> None:
    script.route = ready()
    script.worker = (status, body)
    with pytest.raises(InvalidRequestError) as caught:
        client.invoke(app, {}, idempotent=True)
    assert caught.value.maybe_executed is False
    assert len(script.dialled) == 1


def test_a_signature_that_no_worker_takes_ends_the_call(client: Client, app: Deployment, script: Script) -> None:
    script.route = ready()
    script.worker = (401, b"")
    with pytest.raises(InvalidResponseError, match="signature"):
        client.invoke(app, {})
    assert len(script.dialled) == 3


def test_a_worker_without_a_word_is_lost(client: Client, app: Deployment, script: Script) -> None:
    script.route = ready()
    script.worker = (500, b"")
    with pytest.raises(WorkerLost) as caught:
        client.invoke(app, {})
    assert caught.value.maybe_executed
    assert len(script.dialled) == 1


def test_a_plain_http_worker_is_not_called_unless_allowed(
    client: Client, account: Account, app: Deployment, script: Script
) -> None:
    script.route = ready("http://203.0.113.42:33526")
    script.worker = DONE
    with pytest.raises(InvalidResponseError, match="without TLS") as caught:
        client.invoke(app, {})
    assert "http_workers" in (caught.value.hint or "")
    assert script.dialled == []


@pytest.mark.parametrize(
    "url",
    [
        "ftp://203.0.113.42:1", "https://", "https://user@203.0.113.42:1", "https://203.0.113.42:99999",
        "https://203.0.113.42:0", "https://203.0.113.42:1/path", "https://203.0.113.42:1/?q=1", "https://a\\@b:1",
        "https://203.0.113.42%0d%0a:1", "https://203.0.113.42:1\r\nx: y", "file:///etc/passwd", "https://h\x00:1", "3",
        "https://203.0.113.42:1#f", " https://203.0.113.42:1", "//203.0.113.42:1",
    ],
)  # fmt: skip
def test_what_is_no_address_is_not_called(client: Client, app: Deployment, script: Script, url: str) -> None:
    script.route = ready(url)
    script.worker = DONE
    with pytest.raises(InvalidResponseError):
        client.invoke(app, {})
    assert script.dialled == []


def test_a_stream_comes_line_by_line_and_its_end_must_be_said(client: Client, app: Deployment, script: Script) -> None:
    lines = [b'{"chunk":1}\n{"chunk":', b"2}\n", b'{"done":true}\n']
    script.route = ready()
    script.worker = lambda request: httpx.Response(200, stream=Pieces(lines), request=request)
    with client.stream(app, {}) as stream:
        assert list(stream) == [1, 2]
    script.worker = lambda request: httpx.Response(200, stream=Pieces(lines[:2]), request=request)
    with pytest.raises(StreamInterrupted) as caught, client.stream(app, {}) as stream:
        list(stream)
    assert caught.value.maybe_executed
    assert len(script.dialled) == 2


def test_a_stream_finds_another_worker_before_it_begins_and_never_after(
    client: Client, app: Deployment, script: Script
) -> None:
    script.route = ready()
    good = lambda request: httpx.Response(200, content=b'{"chunk":1}\n{"done":true}\n', request=request)  # noqa: E731 - one line
    script.worker = [dead, (429, b""), good]
    with client.stream(app, {}) as stream:
        assert list(stream) == [1]
    script.worker = lambda request: httpx.Response(200, stream=Broken(), request=request)
    script.dialled.clear()
    with pytest.raises(StreamInterrupted), client.stream(app, {}) as stream:
        list(stream)
    assert len(script.dialled) == 1


def test_submit_is_refused_as_there_are_no_jobs(client: Client, app: Deployment, script: Script) -> None:
    with pytest.raises(UnsupportedError, match="no job API"):
        client.submit(app, {})
    with pytest.raises(UnsupportedError):
        client.invoke(app, {}, on_timeout="keep")
    assert script.times == []


class Pieces(httpx.SyncByteStream):
    def __init__(self, pieces: list[bytes]) -> None:
        self._pieces = pieces

    def __iter__(self) -> Iterator[bytes]:
        yield from self._pieces


class Broken(httpx.SyncByteStream):
    def __iter__(self) -> Iterator[bytes]:
        yield b'{"chunk":1}\n'
        raise httpx.ReadError("reset")


def test_all_busy_at_the_end_of_a_short_wait_is_still_no_missing_worker(
    client: Client, app: Deployment, script: Script
) -> None:
    script.route = [waiting(), waiting(), waiting(), waiting(), ready()]
    script.worker = DONE
    assert client.invoke(app, {}, start_timeout=2, timeout=60).output == {"ok": True}


@pytest.mark.parametrize("how", ["invoke", "stream"])
def test_a_call_starts_what_is_stopped(client: Client, account: Account, app: Deployment, how: str) -> None:
    client.stop(app)
    with pytest.raises(NoWorkerReady):
        client.invoke(app, {}, wake=False)
    if how == "invoke":
        assert client.invoke(app, {"n": 1}).output == {"got": {"n": 1}}
    else:
        with client.stream(app, {"n": 1}) as stream:
            assert list(stream) == [{"got": {"n": 1}}]
    states = [one["endpoint_state"] for one in account.puts("endpoint_state")]
    assert states == ["stopped", "active"]
