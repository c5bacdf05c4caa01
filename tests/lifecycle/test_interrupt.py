"""Ctrl-C and cancellation at any point of a deploy undo what it made, in every flavour."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import trio
from lifecycle_fakes import FakeIo, Killer, World, options, spec

from unigpu import _lifecycle as life
from unigpu._io.bridge import run_sync

FAR = 1e7
KINDS = ("template", "endpoint")


@pytest.fixture
def ctrl_c() -> Iterator[Callable[[], None]]:
    """Presses Ctrl-C, as the terminal does."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield lambda: signal.raise_signal(signal.SIGINT)
    signal.signal(signal.SIGINT, before)


def make(where: Path | None, *, virtual: bool = False) -> World:
    world = World(where, kinds=KINDS, virtual=virtual)
    world.cloud.cold_start = 1.0
    return world


async def deploy(scope: Any, **more: Any) -> life.Deployed:
    rest = {"if_exists": "reuse", "wait": True, "deadline": FAR, "on_failure": "teardown", "settle": False, **more}
    return await life.deploy(scope, spec(workers=(1, 2)), **rest)


def points(tmp_path: Path) -> list[str]:
    killer = Killer(None)
    run_sync(deploy(make(tmp_path / "dry").scope(hook=killer)))
    return killer.points


def test_ctrl_c_at_any_point_of_a_sync_deploy_undoes_it(
    tmp_path: Path, ctrl_c: Callable[[], None], capsys: pytest.CaptureFixture[str]
) -> None:
    names = points(tmp_path)
    for at in range(len(names)):
        world, seen = make(tmp_path / str(at)), [0]

        def press(_: str, seen: list[int] = seen, at: int = at) -> None:
            seen[0] += 1
            if seen[0] == at + 1:
                ctrl_c()

        with pytest.raises(KeyboardInterrupt):
            run_sync(deploy(world.scope(hook=press)))
        assert (world.rows, world.intents()) == ([], []), names[at]
    with capsys.disabled():
        print(f" [{len(names)} presses]", end="")


def test_ctrl_c_with_on_failure_keep_leaves_what_was_made(tmp_path: Path, ctrl_c: Callable[[], None]) -> None:
    world, seen = make(tmp_path), list[str]()

    def press(name: str) -> None:
        seen.append(name)
        if name == "sleep" and seen.count("sleep") == 1:
            ctrl_c()

    with pytest.raises(KeyboardInterrupt) as caught:
        run_sync(deploy(world.scope(hook=press), on_failure="keep"))
    assert len(world.rows) == len(KINDS)
    assert "kept" in "".join(caught.value.__notes__)
    assert run_sync(deploy(world.scope())).change == "reused"


def test_a_second_ctrl_c_abandons_the_undo_and_the_next_deploy_settles_it(
    tmp_path: Path, ctrl_c: Callable[[], None], capsys: pytest.CaptureFixture[str]
) -> None:
    world = make(tmp_path)

    def press(name: str) -> None:
        if name == "sleep":
            ctrl_c()  # the first: while it waits
        if name == "before delete":
            ctrl_c()  # noted
            ctrl_c()  # abandons

    with pytest.raises(KeyboardInterrupt):
        run_sync(deploy(world.scope(hook=press)))
    assert "press again" in capsys.readouterr().err
    assert world.rows
    assert world.intents()
    deployed = run_sync(deploy(world.scope()))
    run_sync(life.teardown(world.scope(), deployed.info, deadline=FAR))
    assert (world.rows, world.intents()) == ([], [])


@pytest.mark.parametrize("times", [1, 3])
def test_task_cancellation_at_any_await_undoes_it_on_asyncio(
    tmp_path: Path, times: int, capsys: pytest.CaptureFixture[str]
) -> None:
    names, cancelled = points(tmp_path), 0
    for at in range(len(names)):
        world = make(tmp_path / str(at), virtual=True)

        async def main(world: World = world, at: int = at) -> None:
            task: asyncio.Task[Any] | None = None
            seen = [0]

            def cancel(_: str) -> None:
                seen[0] += 1
                if at < seen[0] <= at + times:
                    assert task is not None
                    task.cancel()

            task = asyncio.ensure_future(deploy(world.scope(sync=False, hook=cancel)))
            with contextlib.suppress(asyncio.CancelledError):
                deployed = await task
                # Cancelled after the last await of the deploy: it was done. Its owner ends it.
                await life.teardown(world.scope(sync=False), deployed.info, deadline=FAR)
            nonlocal cancelled
            cancelled += task.cancelled()

        asyncio.run(main())
        assert (world.rows, world.intents()) == ([], []), names[at]
    assert cancelled > len(names) * 0.8
    with capsys.disabled():
        print(f" [{cancelled} of {len(names)} cancelled]", end="")


def test_cancellation_at_any_await_undoes_it_on_trio(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    names, cancelled = points(tmp_path), 0
    for at in range(len(names)):
        world = make(tmp_path / str(at), virtual=True)

        async def main(world: World = world, at: int = at) -> None:
            seen = [0]
            with trio.CancelScope() as scope:

                def cancel(_: str) -> None:
                    seen[0] += 1
                    if seen[0] == at + 1:
                        scope.cancel()

                await deploy(world.scope(sync=False, hook=cancel))
            if scope.cancelled_caught:
                nonlocal cancelled
                cancelled += 1
                return
            info = await life.resolve(world.scope(sync=False), "summarize", deadline=FAR)
            assert info is not None
            await life.teardown(world.scope(sync=False), info, deadline=FAR)

        trio.run(main)
        assert (world.rows, world.intents()) == ([], []), names[at]
    assert cancelled > len(names) * 0.8
    with capsys.disabled():
        print(f" [{cancelled} of {len(names)} cancelled]", end="")


def test_a_create_that_is_under_way_is_never_cut_off_so_it_cannot_act_after_its_undo(tmp_path: Path) -> None:
    names = points(tmp_path)

    class Late(FakeIo):
        """A create whose caller leaves acts all the same, later."""

        async def send(self, request: Any) -> Any:
            if request.operation != "fake.create":
                return await super().send(request)
            self.point("before create")
            try:
                for _ in range(3):
                    await self.turn()
            except BaseException:
                late.append(request)
                raise
            return self.cloud.handle(request)

    for at in (n for n, name in enumerate(names) if "write" in name or "create" in name):
        for loop in ("asyncio", "trio"):
            world, late = make(tmp_path / f"{at}{loop}", virtual=True), list[Any]()

            async def run(cancel: Callable[[], Any], world: World = world, at: int = at) -> None:
                seen = [0]

                def hook(_: str) -> None:
                    seen[0] += 1
                    if seen[0] == at + 1:
                        cancel()

                await deploy(world.scope(hook=hook, io=Late(world.cloud, sync=False, hook=hook)))

            if loop == "asyncio":

                async def main(run: Any = run) -> None:
                    task: asyncio.Task[Any] = asyncio.ensure_future(run(lambda: task.cancel()))
                    with contextlib.suppress(asyncio.CancelledError):
                        await task

                asyncio.run(main())
            else:

                async def tmain(run: Any = run) -> None:
                    with trio.CancelScope() as scope:
                        await run(scope.cancel)

                trio.run(tmain)
            assert late == [], (names[at], loop)


# -- calls ----------------------------------------------------------------------------------------------------------


def test_ctrl_c_at_any_point_of_a_call_cancels_its_job(tmp_path: Path, ctrl_c: Callable[[], None]) -> None:
    for at in range(12):
        world = make(tmp_path / str(at))
        info = run_sync(deploy(world.scope())).info
        seen = [0]

        def press(_: str, seen: list[int] = seen, at: int = at) -> None:
            seen[0] += 1
            if seen[0] == at + 1:
                ctrl_c()

        with pytest.raises(KeyboardInterrupt):
            run_sync(life.invoke(world.scope(hook=press), info, {"seconds": 1e6}, options(execution_timeout=1e6)))
        assert all(job.status == "CANCELLED" for job in world.cloud.jobs.values()), at


def test_cancelling_a_call_cancels_its_job_on_asyncio_and_trio(tmp_path: Path) -> None:
    for at in range(10):
        for loop in ("asyncio", "trio"):
            world = make(tmp_path / f"{at}{loop}", virtual=True)
            info = run_sync(deploy(world.scope())).info

            async def call(cancel: Callable[[], Any], world: World = world, info: Any = info, at: int = at) -> None:
                seen = [0]

                def hook(_: str) -> None:
                    seen[0] += 1
                    if seen[0] == at + 1:
                        cancel()

                await life.invoke(
                    world.scope(sync=False, hook=hook), info, {"seconds": 1e6}, options(execution_timeout=1e6)
                )

            if loop == "asyncio":

                async def main(call: Any = call) -> None:
                    task: asyncio.Task[Any] = asyncio.ensure_future(call(lambda: task.cancel()))
                    with pytest.raises(asyncio.CancelledError):
                        await task

                asyncio.run(main())
            else:

                async def tmain(call: Any = call) -> None:
                    with trio.CancelScope() as scope:
                        await call(scope.cancel)
                    assert scope.cancelled_caught

                trio.run(tmain)
            assert all(job.status == "CANCELLED" for job in world.cloud.jobs.values()), (at, loop)
