from __future__ import annotations

import contextlib
import logging
from collections.abc import AsyncIterator
from typing import Any

import anyio
import pytest

from unigpu import errors
from unigpu._io.bridge import run_sync
from unigpu._io.clock import VirtualClock
from unigpu._io.contract import CallClass, Headers, Request, Response
from unigpu._io.in_memory import MemoryIo, MemoryStream
from unigpu._io.resilience.retry import RetryingIo, RetryPolicy

IDEMPOTENT, RECONCILE, USER = CallClass.IDEMPOTENT, CallClass.RECONCILE, CallClass.USER_DECIDES


def ok() -> Response:
    return Response(status=200, headers=Headers(), content=b"fine")


def status(code: int, **headers: str) -> Response:
    return Response(status=code, headers=Headers({k.replace("_", "-"): v for k, v in headers.items()}))


def never() -> errors.TransportError:
    return errors.TransportError("no connection", never_sent=True)


def lost() -> errors.TransportError:
    return errors.TransportError("broke", never_sent=False)


class Script:
    """Gives its answers one by one, the last for ever."""

    def __init__(self, *answers: Any) -> None:
        self.answers, self.sent, self.clock = list(answers), 0, VirtualClock()
        self.slept: list[float] = []
        self.clock.on_jump(self.slept.append)

    def __call__(self, request: Request) -> Response:
        answer = self.answers[min(self.sent, len(self.answers) - 1)]
        self.sent += 1
        if isinstance(answer, BaseException):
            raise answer
        return answer

    def io(self, *, random: float = 1.0, policy: RetryPolicy | None = None) -> RetryingIo:
        return RetryingIo(MemoryIo(self, self.clock, sync=True, random=lambda: random), policy)


def request(call: CallClass = IDEMPOTENT, deadline: float = 600.0) -> Request:
    return Request(
        method="POST", url="https://x.example/", operation="x.y", role="control", call=call, deadline=deadline
    )


TRANSIENT = (408, 500, 502, 503, 504, 520, 522, 524, 527, 530)
TABLE = [
    *((never, call, 2) for call in CallClass),
    (lost, IDEMPOTENT, 2),
    (lost, RECONCILE, 1),
    (lost, USER, 1),
    *(((lambda: status(429)), call, 2) for call in CallClass),
    *(
        ((lambda code=code: status(code)), call, 1)
        for code in (400, 401, 403, 404, 409, 413, 422)
        for call in CallClass
    ),
    *(((lambda code=code: status(code)), IDEMPOTENT, 2) for code in TRANSIENT),
    *(((lambda code=code: status(code)), call, 1) for code in TRANSIENT for call in (RECONCILE, USER)),
    *(((lambda code=code: status(code)), call, 1) for code in (501, 505) for call in CallClass),
    *(((lambda: status(200)), call, 1) for call in CallClass),
    *((lambda: errors.TransportError("refused", never_sent=True, retryable=False), call, 1) for call in CallClass),
]


@pytest.mark.parametrize(("made", "call", "sendings"), TABLE)
def test_what_is_known_and_what_repeating_may_do_decide(made: Any, call: CallClass, sendings: int) -> None:
    script = Script(made(), ok())
    with contextlib.suppress(errors.TransportError):
        run_sync(script.io().send(request(call)))
    assert script.sent == sendings


@pytest.mark.parametrize("error", [errors.InvalidResponseError("?"), errors.ConfigurationError("?"), RuntimeError("?")])
def test_what_is_no_transport_failure_passes_at_once(error: Exception) -> None:
    script = Script(error, ok())
    with pytest.raises(type(error)):
        run_sync(script.io().send(request()))
    assert script.sent == 1


def test_success_after_failures_says_how_often_it_was_sent() -> None:
    script = Script(lost(), status(503), ok())
    reply = run_sync(script.io().send(request()))
    assert (reply.status, reply.attempts, reply.stop_reason) == (200, 3, None)


def test_it_gives_up_after_four_with_the_last_error_marked() -> None:
    script = Script(lost())
    with pytest.raises(errors.TransportError) as caught:
        run_sync(script.io().send(request()))
    assert script.sent == 4
    assert (caught.value.attempts, caught.value.stop_reason) == (4, "attempts")
    assert caught.value.maybe_executed is True


def test_it_gives_up_with_the_last_reply_marked() -> None:
    script = Script(status(503))
    reply = run_sync(script.io().send(request()))
    assert (reply.status, reply.attempts, reply.stop_reason) == (503, 4, "attempts")


def test_a_call_that_must_not_repeat_says_so() -> None:
    with pytest.raises(errors.TransportError) as caught:
        run_sync(Script(lost()).io().send(request(USER)))
    assert (caught.value.attempts, caught.value.stop_reason) == (1, "class")
    reply = run_sync(Script(status(502)).io().send(request(RECONCILE)))
    assert (reply.attempts, reply.stop_reason) == (1, "class")


def test_never_sent_then_lost_stops_a_call_that_must_not_repeat() -> None:
    script = Script(never(), lost(), ok())
    with pytest.raises(errors.TransportError) as caught:
        run_sync(script.io().send(request(USER)))
    assert script.sent == 2
    assert (caught.value.attempts, caught.value.stop_reason) == (2, "class")


def test_waits_double_with_jitter_and_throttling_never_waits_less_than_half() -> None:
    policy = RetryPolicy()
    assert [policy.wait(n, throttled=False, hint=None, random=1.0) for n in (1, 2, 3, 9)] == [0.25, 0.5, 1.0, 8.0]
    assert policy.wait(3, throttled=False, hint=None, random=0.0) == 0.0
    assert [policy.wait(n, throttled=True, hint=None, random=0.0) for n in (1, 2, 9)] == [0.5, 1.0, 10.0]
    assert [policy.wait(n, throttled=True, hint=None, random=1.0) for n in (1, 2, 9)] == [1.0, 2.0, 20.0]


def test_a_hint_is_a_floor() -> None:
    script = Script(status(429, retry_after="7"), ok())
    assert run_sync(script.io().send(request())).attempts == 2
    assert script.clock.now() == 7
    assert RetryPolicy().wait(1, throttled=True, hint=0.1, random=1.0) == 1.0


def test_a_hint_above_the_cap_gives_up_without_sleeping() -> None:
    script = Script(status(429, retry_after="61"), ok())
    reply = run_sync(script.io().send(request()))
    assert (script.sent, script.clock.now()) == (1, 0.0)
    assert (reply.status, reply.attempts, reply.stop_reason) == (429, 1, "retry_after")


def test_the_deadline_always_bounds() -> None:
    script = Script(status(429, retry_after="50"), ok())
    reply = run_sync(script.io().send(request(deadline=40)))
    assert (script.sent, script.clock.now(), reply.stop_reason) == (1, 0.0, "deadline")
    with pytest.raises(errors.TransportError) as caught:
        run_sync(Script(never()).io().send(request(deadline=0.4)))
    assert caught.value.stop_reason == "deadline"


def test_each_retry_is_one_structured_record_without_url(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "unigpu.retry"):
        run_sync(Script(status(503, x_request_id="r1"), never(), ok()).io().send(request()))
        run_sync(Script(status(503)).io().send(request()))
    fields = [record.unigpu for record in caplog.records]  # type: ignore[attr-defined]  # our extra field
    assert [(f["attempt"], f["outcome_class"], f["status"]) for f in fields[:2]] == [
        (1, "ambiguous", 503),
        (2, "never_sent", None),
    ]
    assert fields[0]["request_id"] == "r1"
    assert fields[0]["operation"] == "x.y"
    assert [record.levelname for record in caplog.records] == ["INFO"] * 5 + ["WARNING"]
    assert fields[-1]["reason"] == "attempts"
    assert "x.example" not in caplog.text


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_three_hundred_calls_side_by_side_do_not_mix_up(backend: str) -> None:
    async def main() -> None:
        clock, seen = VirtualClock(), dict[str, int]()

        def handle(req: Request) -> Response:
            seen[req.operation] = seen.get(req.operation, 0) + 1
            needed = int(req.operation) % 4 + 1
            return ok() if seen[req.operation] == needed else status(503)

        io = RetryingIo(MemoryIo(handle, clock))

        async def one(number: int) -> None:
            reply = await io.send(
                Request(
                    method="GET",
                    url="https://x.example/",
                    operation=str(number),
                    role="control",
                    call=IDEMPOTENT,
                    deadline=1e6,
                )
            )
            assert (reply.status, reply.attempts) == (200, number % 4 + 1)

        async with anyio.create_task_group() as group:
            for number in range(300):
                group.start_soon(one, number)

    anyio.run(main, backend=backend)


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_cancelling_a_retried_call_stops_it(backend: str) -> None:
    script = Script(status(503))

    async def main() -> None:
        async def handle(req: Request) -> Response:
            if script.sent == 1:
                scope.cancel()
            return script(req)

        with anyio.CancelScope() as scope:
            await RetryingIo(MemoryIo(handle)).send(request(deadline=1e12))
        assert scope.cancelled_caught

    anyio.run(main, backend=backend)
    assert script.sent <= 2


class Opened:
    """A stream that tells whether it was closed."""

    def __init__(self, code: int) -> None:
        self.code, self.closed = code, False

    async def body(self) -> AsyncIterator[bytes]:
        try:
            yield b"one"
            yield b"two"
        finally:
            self.closed = True


def test_a_stream_is_opened_again_but_never_restarted() -> None:
    streams = [Opened(503), Opened(200)]
    opened: list[Opened] = []

    class Closing:
        """An iterator whose close is seen, whether it was begun or not."""

        def __init__(self, stream: Opened) -> None:
            self.stream, self.items = stream, stream.body()

        def __aiter__(self) -> Any:
            return self.items

        async def aclose(self) -> None:
            self.stream.closed = True
            await self.items.aclose()  # type: ignore[attr-defined]  # a generator

    def handle(_: Request) -> MemoryStream:
        opened.append(streams.pop(0))
        return MemoryStream(status=opened[-1].code, body=Closing(opened[-1]))  # type: ignore[arg-type]  # enough of one

    async def main() -> list[bytes]:
        io = RetryingIo(MemoryIo(handle, VirtualClock(), sync=True))
        async with io.stream(request()) as reply:
            assert reply.status == 200
            assert opened[0].closed  # the refused one is not left open
            return [chunk async for chunk in reply.chunks()]

    assert run_sync(main()) == [b"one", b"two"]
    assert [stream.closed for stream in opened] == [True, True]


def test_an_error_in_the_body_of_a_stream_is_not_retried() -> None:
    sent: list[int] = []

    async def broken() -> AsyncIterator[bytes]:
        yield b"one"
        raise lost()

    def handle(_: Request) -> MemoryStream:
        sent.append(1)
        return MemoryStream(body=broken())

    async def main() -> None:
        io = RetryingIo(MemoryIo(handle, VirtualClock(), sync=True))
        async with io.stream(request()) as reply:
            async for _ in reply.chunks():
                pass

    with pytest.raises(errors.TransportError):
        run_sync(main())
    assert len(sent) == 1
