from __future__ import annotations

import threading
from typing import Any

import anyio
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from unigpu._io.bridge import run_sync
from unigpu._io.clock import InstantClock, RealClock, VirtualClock, get_clock, use_clock
from unigpu.errors import ConfigurationError

SECONDS = st.floats(min_value=0, max_value=1000, allow_nan=False)


class Engine:
    """Something that is due at given times."""

    def __init__(self, *due: float) -> None:
        self.due, self.stepped = sorted(due), list[float]()

    def step(self, now: float) -> None:
        while self.due and self.due[0] <= now:
            self.due.pop(0)
            self.stepped.append(now)

    def next_due(self) -> float | None:
        return self.due[0] if self.due else None


def run(backend: str, work: Any) -> Any:
    return anyio.run(work, backend=backend)


@pytest.fixture(params=["asyncio", "trio"])
def backend(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def test_the_clock_in_place_is_looked_up_at_each_call() -> None:
    before = get_clock()
    with use_clock(InstantClock(100.0)) as clock:
        assert get_clock() is clock
        with use_clock(VirtualClock()) as inner:
            assert get_clock() is inner
        assert get_clock() is clock
    assert get_clock() is before


def test_the_real_clock_runs_by_itself_and_sleeps_no_negative_time() -> None:
    clock = RealClock()
    start = clock.now()
    clock.sleep(-5)
    assert clock.now() >= start
    assert clock.wall() > 1_700_000_000


def test_instant_sleeps_move_the_clock_from_any_thread() -> None:
    clock = InstantClock(10.0, epoch=1000.0)
    threads = [threading.Thread(target=clock.sleep, args=(1.5,)) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert clock.now() == pytest.approx(40.0)
    assert clock.wall() == pytest.approx(1030.0)


@pytest.mark.parametrize("kind", [InstantClock, VirtualClock])
def test_a_jump_stops_at_every_due_time_in_order(kind: Any) -> None:
    clock, engine, jumps = kind(), Engine(1, 3, 3, 7), list[float]()
    clock.attach(engine.step, engine.next_due)
    clock.on_jump(jumps.append)
    clock.sleep(5)
    assert engine.stepped == [1, 3, 3]
    assert jumps == [1, 3, 5]
    clock.sleep(5)
    assert engine.stepped == [1, 3, 3, 7]
    assert clock.now() == 10


def test_what_was_detached_is_not_stepped() -> None:
    clock, engine = VirtualClock(), Engine(1, 2)
    detach = clock.attach(engine.step, engine.next_due)
    clock.sleep(1)
    detach()
    clock.sleep(9)
    assert engine.stepped == [1]


def test_an_engine_that_stays_due_is_named_instead_of_standing_still() -> None:
    clock = VirtualClock()
    clock.attach(lambda _: None, lambda: 1.0)
    with pytest.raises(RuntimeError, match="stays due"):
        clock.sleep(2)


@settings(deadline=None, max_examples=40)
@given(st.lists(SECONDS, min_size=1, max_size=30), st.lists(SECONDS, max_size=10))
def test_sleepers_wake_in_the_order_of_their_due_times_and_at_them(sleeps: list[float], due: list[float]) -> None:
    clock, engine, woke = VirtualClock(), Engine(*due), list[tuple[float, float]]()
    clock.attach(engine.step, engine.next_due)

    async def one(seconds: float) -> None:
        await clock.asleep(seconds)
        woke.append((seconds, clock.now()))

    async def main() -> None:
        async with anyio.create_task_group() as group:
            for seconds in sleeps:
                group.start_soon(one, seconds)

    anyio.run(main)
    assert [at for _, at in woke] == sorted(sleeps)
    assert all(asked == at for asked, at in woke)
    assert engine.stepped == sorted(d for d in due if d <= max(sleeps))


def test_side_by_side_sleeps_do_not_add_up(backend: str) -> None:
    async def main() -> float:
        clock = VirtualClock()

        async def one(number: int) -> None:
            for _ in range(10):
                await clock.asleep(1 + number / 1000)

        async with anyio.create_task_group() as group:
            for number in range(100):
                group.start_soon(one, number)
        return clock.now()

    assert run(backend, main) == pytest.approx(10.99)


def test_a_cancelled_leader_hands_on(backend: str) -> None:
    woke: list[float] = []

    async def main() -> None:
        clock = VirtualClock()

        async def lead() -> None:
            with anyio.CancelScope() as scope:
                group.start_soon(cancel, scope)
                await clock.asleep(50)

        async def cancel(scope: anyio.CancelScope) -> None:
            for _ in range(3):
                await anyio.lowlevel.checkpoint()
            scope.cancel()

        async def other() -> None:
            await clock.asleep(5)
            woke.append(clock.now())

        async with anyio.create_task_group() as group:
            group.start_soon(lead)
            group.start_soon(other)

    run(backend, main)
    assert woke == [5.0]


def test_time_stands_while_somebody_can_run(backend: str) -> None:
    async def main() -> list[str]:
        clock, seen = VirtualClock(), list[str]()

        async def sleeper() -> None:
            await clock.asleep(10)
            seen.append("woke")

        async def busy() -> None:
            for _ in range(50):
                clock.touch()
                await anyio.lowlevel.checkpoint()
            seen.append(f"done at {clock.now():g}")

        async with anyio.create_task_group() as group:
            group.start_soon(sleeper)
            group.start_soon(busy)
        return seen

    assert run(backend, main) == ["done at 0", "woke"]


def test_a_hold_ends_when_the_engine_has_the_answer(backend: str) -> None:
    async def main() -> tuple[str | None, float]:
        clock, engine = VirtualClock(), Engine(3)
        clock.attach(engine.step, engine.next_due)
        found = await clock.ahold(lambda _: "answer" if engine.stepped else None, until=90)
        return found, clock.now()

    assert run(backend, main) == ("answer", 3)


def test_a_hold_without_an_answer_ends_at_its_time(backend: str) -> None:
    async def main() -> tuple[Any, float]:
        clock = VirtualClock()
        return await clock.ahold(lambda _: None, until=90), clock.now()

    assert run(backend, main) == (None, 90)


def test_a_hold_ends_when_another_task_brings_the_answer(backend: str) -> None:
    async def main() -> tuple[Any, float]:
        clock, box = VirtualClock(), list[str]()
        results: list[Any] = []

        async def holder() -> None:
            results.append(await clock.ahold(lambda _: box[0] if box else None, until=90))
            results.append(clock.now())

        async def other() -> None:
            await clock.asleep(4)
            box.append("there")

        async with anyio.create_task_group() as group:
            group.start_soon(holder)
            group.start_soon(other)
        return tuple(results)

    assert run(backend, main) == ("there", 4)


@pytest.mark.parametrize("kind", [InstantClock, VirtualClock])
def test_a_synchronous_hold_steps_to_the_answer(kind: Any) -> None:
    clock, engine = kind(), Engine(2, 5, 8)
    clock.attach(engine.step, engine.next_due)
    assert clock.hold(lambda _: len(engine.stepped) >= 2 or None, until=90) is True
    assert clock.now() == 5
    assert clock.hold(lambda _: None, until=90) is None
    assert clock.now() == 90


def test_another_thread_is_refused_unless_adopted() -> None:
    clock, caught = VirtualClock(), list[BaseException]()

    def sleep() -> None:
        try:
            clock.sleep(1)
        except ConfigurationError as exc:
            caught.append(exc)

    def adopted() -> None:
        clock.adopt()
        clock.sleep(1)

    for target in (sleep, adopted):
        thread = threading.Thread(target=target)
        thread.start()
        thread.join()
    assert len(caught) == 1
    assert "belongs to one thread" in str(caught[0])
    assert clock.now() == 1


def test_instant_time_works_without_a_loop_and_with_one(backend: str) -> None:
    clock = InstantClock()

    async def main() -> None:
        await clock.asleep(3600)

    run(backend, main)

    async def plain() -> None:
        clock.sleep(400)

    run_sync(plain())
    assert clock.now() == 4000
