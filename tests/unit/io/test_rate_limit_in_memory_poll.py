from __future__ import annotations

import threading
from typing import Any

import anyio
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from unigpu import errors
from unigpu._io.bridge import run_sync
from unigpu._io.clock import InstantClock, RealClock, VirtualClock
from unigpu._io.contract import CallClass, Headers, Request, Response
from unigpu._io.in_memory import Held, MemoryIo
from unigpu._io.poll import JOB_PACE, STATE_PACE, Pace, poll
from unigpu._io.resilience.rate_limit import Limit, LimitedIo, Limiter
from unigpu._io.resilience.retry import RetryingIo


def ok(_: Any = None) -> Response:
    return Response(status=200, headers=Headers(), content=b"fine")


def request(key: str | None = None, deadline: float = 1e9, read_timeout: float | None = None) -> Request:
    return Request(
        method="GET",
        url="https://x.example/",
        operation="x.y",
        role="control",
        call=CallClass.IDEMPOTENT,
        deadline=deadline,
        limit_key=key,
        read_timeout=read_timeout,
    )


# Rates


@settings(deadline=None)
@given(
    rate=st.floats(0.5, 50),
    burst=st.integers(1, 10),
    gaps=st.lists(st.floats(0, 3), min_size=1, max_size=60),
)
def test_no_window_ever_holds_more_than_the_rate_allows(rate: float, burst: int, gaps: list[float]) -> None:
    clock, starts = VirtualClock(), list[float]()

    def handle(_: Request) -> Response:
        starts.append(clock.now())
        return ok()

    io = LimitedIo(MemoryIo(handle, clock, sync=True), {"list": Limit(rate=rate, burst=burst)})
    for gap in gaps:
        run_sync(io.send(request("list")))
        clock.sleep(gap)
    for i, start in enumerate(starts):
        for j in range(i, len(starts)):
            assert j - i + 1 <= burst + (starts[j] - start) * rate + 1e-6


def test_those_who_wait_are_served_in_order_on_a_loop() -> None:
    async def main() -> list[tuple[int, float]]:
        clock, served = VirtualClock(), list[tuple[int, float]]()
        io = LimitedIo(MemoryIo(ok, clock), {"k": Limit(rate=2)})

        async def one(number: int) -> None:
            await io.send(request("k"))
            served.append((number, clock.now()))

        async with anyio.create_task_group() as group:
            for number in range(5):
                group.start_soon(one, number)
        return served

    assert anyio.run(main) == [(0, 0.0), (1, 0.5), (2, 1.0), (3, 1.5), (4, 2.0)]


def test_a_turn_after_the_deadline_is_refused_before_sending_and_takes_no_token() -> None:
    clock, sent = VirtualClock(), list[int]()
    io = LimitedIo(MemoryIo(lambda _: (sent.append(1), ok())[1], clock, sync=True), {"k": Limit(rate=0.1)})
    run_sync(io.send(request("k")))
    with pytest.raises(errors.TransportTimeout) as caught:
        run_sync(io.send(request("k", deadline=5)))
    assert caught.value.never_sent
    assert (len(sent), clock.now()) == (1, 0.0)
    run_sync(io.send(request("k")))
    assert clock.now() == pytest.approx(10)


def test_unknown_keys_and_none_wait_for_nothing() -> None:
    clock = VirtualClock()
    io = LimitedIo(MemoryIo(ok, clock, sync=True), {"k": Limit(rate=0.001)})
    for key in ("other", None) * 10:
        run_sync(io.send(request(key)))
    assert clock.now() == 0


def test_one_limiter_holds_for_all_threads() -> None:
    limiter, waits, lock = Limiter({"k": Limit(rate=10)}), list[float](), threading.Lock()

    def take() -> None:
        wait = limiter.take("k", 0.0, 1e9)
        assert wait is not None
        with lock:
            waits.append(wait)

    threads = [threading.Thread(target=take) for _ in range(40)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(waits) == pytest.approx([n / 10 for n in range(40)])


def test_a_senseless_rate_is_refused() -> None:
    with pytest.raises(ValueError, match="above 0"):
        Limit(rate=0)


# A cloud in memory


@pytest.mark.parametrize("kind", [InstantClock, VirtualClock])
def test_a_held_request_is_answered_when_its_time_comes(kind: Any) -> None:
    clock = kind()
    held = Held(until=90, poll=lambda now: ok() if now >= 30 else None)
    clock.attach(lambda _: None, lambda: 30.0 if clock.now() < 30 else None)
    assert run_sync(MemoryIo(lambda _: held, clock, sync=True).send(request())).status == 200
    assert clock.now() == 30


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_a_held_request_ends_in_the_callers_read_timeout(backend: str) -> None:
    async def main() -> tuple[float, list[float]]:
        clock, left = VirtualClock(), list[float]()
        io = MemoryIo(lambda _: Held(until=90, poll=lambda _: None, abandoned=left.append), clock)
        with pytest.raises(errors.TransportTimeout) as caught:
            await io.send(request(read_timeout=10))
        assert caught.value.never_sent is False
        return clock.now(), left

    assert anyio.run(main, backend=backend) == (10, [10])


def test_a_request_past_its_deadline_is_never_sent() -> None:
    clock = VirtualClock(50)
    with pytest.raises(errors.TransportTimeout) as caught:
        run_sync(MemoryIo(ok, clock, sync=True).send(request(deadline=50)))
    assert caught.value.never_sent


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_an_asynchronous_handler_is_awaited(backend: str) -> None:
    async def handle(_: Request) -> Response:
        await anyio.lowlevel.checkpoint()
        return ok()

    async def main() -> bytes:
        async with MemoryIo(handle).stream(request()) as reply:
            return await reply.read()

    assert anyio.run(main, backend=backend) == b"fine"


# The waiting loop


class Ticks:
    """Gives its answers one by one, and keeps when it was asked."""

    def __init__(self, *answers: Any, took: float = 0.0) -> None:
        self.answers, self.clock, self.at, self.took = list(answers), VirtualClock(), list[float](), took
        self.io = MemoryIo(ok, self.clock, sync=True, random=lambda: 0.5)

    async def __call__(self) -> Any:
        self.at.append(self.clock.now())
        self.clock.sleep(self.took)
        answer = self.answers.pop(0) if self.answers else None
        if isinstance(answer, BaseException):
            raise answer
        return answer

    def run(self, **options: Any) -> Any:
        return run_sync(poll(self.io, self, **{"deadline": 1e6, **options}))

    @property
    def gaps(self) -> list[float]:
        return [round(b - a, 6) for a, b in zip(self.at, self.at[1:], strict=False)]


def broke() -> errors.TransportError:
    return errors.TransportError("broke")


def test_the_first_answer_is_returned_even_if_it_is_false() -> None:
    assert Ticks(None, None, 0).run() == 0


def test_jobs_are_asked_at_a_tenth_of_the_time_elapsed_within_limits() -> None:
    ticks = Ticks(*[None] * 100, "done")
    ticks.run(pace=JOB_PACE)
    assert ticks.gaps[0] == 0.05
    assert max(ticks.gaps) == 5.0
    for at, gap in zip(ticks.at, ticks.gaps, strict=False):
        assert gap == pytest.approx(min(5.0, max(0.05, at / 10)), abs=1e-5)


@given(st.floats(0, 1e5), st.floats(0, 1, exclude_max=True))
def test_control_states_are_asked_every_1_to_5_seconds_give_or_take_a_fifth(elapsed: float, random: float) -> None:
    assert 0.8 <= STATE_PACE.delay(elapsed, random) <= 6.0


def test_the_deadline_ends_it_with_what_was_waited_for() -> None:
    ticks = Ticks()
    with pytest.raises(errors.DeadlineExceeded, match="job 7 did not come within 30 s") as caught:
        ticks.run(deadline=30, what="job 7", provider="vast")
    assert ticks.clock.now() == 30
    assert caught.value.provider == "vast"
    assert isinstance(caught.value, TimeoutError)


@pytest.mark.parametrize(
    "error",
    [
        broke(),
        errors.TransportTimeout("slow"),
        errors.RateLimitError("429"),
        errors.ProviderUnavailableError("503"),
        errors.InvalidResponseError("html", retryable=True),
    ],
)
def test_four_failed_ticks_in_a_row_are_no_news(error: Exception) -> None:
    assert Ticks(*[error] * 4, None, *[error] * 4, "done").run() == "done"


def test_a_reply_that_was_misread_raises_at_once_and_one_that_is_no_json_is_no_news() -> None:
    ticks = Ticks(errors.InvalidResponseError("a field is missing"), "too late")
    with pytest.raises(errors.InvalidResponseError):
        ticks.run()
    assert len(ticks.at) == 1
    with pytest.raises(errors.InvalidResponseError) as caught:
        Response(status=200, headers=Headers(), content=b"<html>").json()
    assert Ticks(caught.value, "done").run() == "done"


def test_five_in_a_row_raise_the_last() -> None:
    last = broke()
    ticks = Ticks(*[broke() for _ in range(4)], last, "too late")
    with pytest.raises(errors.TransportError) as caught:
        ticks.run()
    assert caught.value is last


def test_sixty_seconds_of_failures_raise_even_if_they_are_few() -> None:
    ticks = Ticks(*[broke() for _ in range(4)], took=25)
    with pytest.raises(errors.TransportError):
        ticks.run()
    assert len(ticks.at) == 3


def test_a_failure_that_waiting_cannot_mend_raises_at_once() -> None:
    for error in (errors.AuthenticationError("401"), errors.NotFoundError("404"), errors.JobFailed("boom")):
        ticks = Ticks(error)
        with pytest.raises(type(error)):
            ticks.run()
        assert len(ticks.at) == 1


def test_a_throttled_tick_waits_as_long_as_it_was_told() -> None:
    ticks = Ticks(errors.RateLimitError("429", retry_after=17.0), "done")
    ticks.run()
    assert ticks.gaps == [17.0]


def test_the_rate_cap_holds_between_starts() -> None:
    ticks = Ticks(*[None] * 5, "done", took=0.5)
    ticks.run(pace=Pace(floor=0.1, cap=0.1), min_interval=lambda: 2.0)
    assert ticks.gaps == [2.0] * 5


def test_a_held_question_is_asked_again_at_once_but_never_in_a_hot_loop() -> None:
    slow = Ticks(*[None] * 3, "done", took=10)
    slow.run(held=True)
    assert slow.gaps == [10.0] * 3
    fast = Ticks(*[None] * 3, "done")
    fast.run(held=True)
    assert all(gap >= 0.05 for gap in fast.gaps)


def test_a_hint_replaces_the_pace_where_it_knows() -> None:
    hints = [0.5, None, 3.0]
    ticks = Ticks(None, None, None, "done")
    ticks.run(hint=lambda: hints.pop(0))
    assert ticks.gaps == [0.5, 0.05, 3.0]


# What wraps an `Io` is an `Io`


@pytest.mark.parametrize("wrap", [lambda io: RetryingIo(io), lambda io: LimitedIo(io, {"k": Limit(rate=1)})])
def test_a_wrapper_hands_everything_on(wrap: Any) -> None:
    clock = VirtualClock(5.0, epoch=1000.0)
    io = wrap(MemoryIo(ok, clock, sync=True, random=lambda: 0.25))

    async def work() -> int:
        return 7

    async def main() -> bytes:
        await io.sleep(2)
        assert await io.shield(work, seconds=5) == 7
        for _ in range(2):
            async with io.stream(request("k")) as reply:
                assert reply.headers == Headers()
                body: bytes = await reply.read()
        return body

    assert run_sync(main()) == b"fine"
    assert (io.random(), io.wall() - io.now()) == (0.25, 995.0)
    assert io.now() == (7.0 if isinstance(io, RetryingIo) else 8.0)


@pytest.mark.parametrize("sync", [True, False])
def test_a_held_request_is_asked_again_on_the_real_clock_too(sync: bool) -> None:
    asked: list[float] = []

    def answer(now: float) -> Response | None:
        asked.append(now)
        return ok() if len(asked) == 3 else None

    async def main() -> int:
        io = MemoryIo(lambda _: Held(until=io.now() + 60, poll=answer), RealClock(), sync=sync)
        return (await io.send(request())).status

    assert (run_sync(main()) if sync else anyio.run(main)) == 200
