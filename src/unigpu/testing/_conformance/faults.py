"""What a driver must do when the platform misbehaves: on one in memory, which can be made to fail at every call."""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import logging
import signal
from collections.abc import Awaitable, Callable, Generator, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

from unigpu._io.bridge import run_sync
from unigpu.driver import State, WorkerState
from unigpu.errors import NotFoundError, UniGPUError
from unigpu.models import JobStatus

from .bench import WireBench, caught
from .declared_billing import DeclaredMoney
from .declared_timing import DeclaredOverTime
from .driver import DriverConformance
from .flavors import Flavour

NEW = "FROBNICATING"
"""A status that no platform has."""
SECRETS: Mapping[str, str] = {"key": "canary-key-5f1e", "secret": "canary-secret-77ab", "input": "canary-input-90cd"}
"""What must never be seen."""
ENV = "canary-env-31ef"
"""Visible configuration: shown where a deployment is looked at, and no business of logs, errors and files."""


class WireConformance(DeclaredMoney, DeclaredOverTime, DriverConformance):
    """`DriverConformance`, and what needs a `WireBench`."""

    def test_a_list_that_fails_is_an_error_and_never_empty(self, wire: WireBench, flavour: Flavour) -> None:
        async def workflow(client: Any) -> None:
            one = await client.deploy(name="listed", progress="off", **wire.fields("echo"))
            for status in (403, 404, 500):
                wire.refuse(wire.list_operation, status, times=None)
                await caught(UniGPUError, lambda: client.deployments(provider=wire.provider))
                error = await caught(UniGPUError, lambda: client.get("listed"))
                assert not (isinstance(error, NotFoundError) and status != 404), error
                await caught(UniGPUError, lambda: client.teardown("never-seen"))
                wire.heal()
            wire.change_json = lambda operation, body: (
                {"something": "else"} if operation == wire.list_operation else body
            )
            await caught(UniGPUError, lambda: client.deployments(provider=wire.provider))
            wire.change_json = None
            wire.heal()
            assert [row.name for row in await client.deployments(provider=wire.provider)] == ["listed"]
            await client.teardown(one)

        flavour.run(workflow, **wire.options())

    def test_a_status_that_nobody_knows_is_unknown(self, wire: WireBench, flavour: Flavour) -> None:
        def strange(operation: str, body: Any) -> Any:
            return _with(body, wire.status_names, NEW)

        async def workflow(client: Any) -> None:
            fields = {**wire.fields("slow"), "workers": (1, 1)}
            one = await client.deploy(name="strange", progress="off", wait="worker", **fields)
            job = await client.submit(one, {"s": 1e6}) if self.has_jobs(wire) else None
            wire.change_json = strange
            seen = await client.get("strange")
            assert seen.state is State.UNKNOWN
            assert seen.info.raw_state in (NEW, None)  # None: the platform has no word for a deployment's state
            workers = await client.workers(seen)
            assert [worker.state for worker in workers] == [WorkerState.UNKNOWN]
            assert job is None or await job.status() is JobStatus.UNKNOWN
            wire.change_json = None
            assert wire.left()  # nothing was taken for gone
            await client.teardown(one)
            assert not wire.left()

        flavour.run(workflow, **wire.options())

    def test_an_answer_lost_at_any_call_of_deploy_and_teardown_loses_and_doubles_nothing(
        self, wire: WireBench, flavour: Flavour
    ) -> None:
        async def workflow(client: Any) -> None:
            await _one_life(client, wire)
            operations = list(dict.fromkeys(wire.calls))
            tried = 0
            for when in ("before", "after"):
                for operation in operations:
                    for times in (1, 30):  # one is repeated in silence; so many are an error
                        wire.lose(operation, when, times=times)
                        with contextlib.suppress(UniGPUError):
                            await _one_life(client, wire)
                        assert len([name for name in wire.left() if name == "life"]) <= 1
                        wire.heal()
                        await _one_life(client, wire)
                        assert not wire.left(), (when, operation, times)
                        tried += 1
            assert tried == 4 * len(operations)
            assert await _owed(client, wire) == []

        flavour.run(workflow, **wire.options())

    def test_a_deploy_that_is_cancelled_at_any_call_is_undone(self, wire: WireBench, flavour: Flavour) -> None:
        """Ctrl-C in a synchronous client; a cancelled task, or scope, elsewhere."""
        points = 0

        async def workflow(client: Any) -> None:
            nonlocal points
            seen = list[str]()
            wire.on_call = lambda when, operation: seen.append(f"{when} {operation}")
            await client.deploy(name="life", progress="off", wait="worker", **wire.fields("echo"))
            wire.on_call = None
            await client.teardown("life")
            points = len(seen)
            for at in range(points):
                ended = await _cancelled(flavour, client, wire, at)
                if not ended:  # it came with the last call: the deploy was done, and is its owner's
                    await client.teardown("life")
                assert not wire.left(), f"cancelled {seen[at]}"
                assert await _owed(client, wire) == [], f"cancelled {seen[at]}"
                assert not wire.left(), f"cancelled {seen[at]}, and later"

        with _ctrl_c_as_usual():
            flavour.run(workflow, **wire.options())
        assert points >= 6

    def test_no_secret_is_seen_anywhere(self, wire: WireBench, flavour: Flavour) -> None:
        """Not in a log, a repr, an error or a file; whatever fails."""
        seen = _Told()

        async def workflow(client: Any) -> None:
            fields = {**wire.fields("fail"), "env": {"MODE": ENV}, "secrets": {"TOKEN": SECRETS["secret"]}}
            one = await client.deploy(name="secretive", progress="off", **fields)
            seen.keep(one, one.info, client, await client.workers(one))
            error = await caught(UniGPUError, lambda: client.invoke(one, {"text": SECRETS["input"]}))
            seen.keep(error, vars(error), visible=False)
            if self.has_jobs(wire):
                job = await client.submit(one, {"text": SECRETS["input"]})
                seen.keep(job, job.info)
            files = [path.read_text(errors="replace") for path in wire.state_dir.rglob("*") if path.is_file()]
            assert files
            seen.keep(*files, visible=False)
            for operation in dict.fromkeys(wire.calls):
                for status in (400, 500):
                    wire.refuse(operation, status, times=None)
                    calls: tuple[Callable[[], Awaitable[object]], ...] = (
                        lambda: client.deploy(name="another", progress="off", timeout=5, **fields),
                        lambda: client.invoke("secretive", {"text": SECRETS["input"]}, timeout=5),
                        lambda: client.teardown("another", timeout=5),
                    )
                    for call in calls:
                        try:
                            await call()
                        except UniGPUError as exc:
                            seen.keep(exc, vars(exc), exc.__context__, exc.__cause__, visible=False)
                    wire.heal()
            await client.teardown(one)
            with contextlib.suppress(NotFoundError):
                await client.teardown("another")

        with seen.listening():
            flavour.run(workflow, **wire.options())
        for name, value in SECRETS.items():
            assert not seen.around(value, visible=True), f"the {name} was seen: {seen.around(value, visible=True)}"
        assert not seen.around(ENV, visible=False), seen.around(ENV, visible=False)


async def _one_life(client: Any, wire: WireBench) -> None:
    fields = {**wire.fields("echo"), "workers": (0, 1)}
    one = await client.deploy(name="life", progress="off", wait="worker", timeout=300, **fields)
    assert (await client.invoke(one, {"n": 1}, timeout=300)).output == {"got": {"n": 1}}
    await client.teardown(one, timeout=300)


async def _cancelled(flavour: Flavour, client: Any, wire: WireBench, at: int) -> bool:
    """Deploy, and be cancelled at the call *at*; whether that is how it ended."""
    count = 0
    cancel: Callable[[], object] = lambda: None  # noqa: E731 - each flavour has its own

    def on_call(when: str, operation: str) -> None:
        nonlocal count
        count += 1
        if count == at + 1:
            cancel()

    async def deploy() -> None:
        await client.deploy(name="life", progress="off", wait="worker", **wire.fields("echo"))

    wire.on_call = on_call
    try:
        if flavour.name == "sync":
            cancel = _press
            try:
                run_sync(deploy())
            except KeyboardInterrupt:
                return True
            return False
        if flavour.name == "asyncio":
            task: asyncio.Future[None] = asyncio.ensure_future(deploy())
            cancel = task.cancel
            try:
                await task
            except asyncio.CancelledError:
                return True
            return False
        scope: Any = importlib.import_module("trio").CancelScope()
        with scope:
            cancel = scope.cancel
            await deploy()
        return bool(scope.cancelled_caught)
    finally:
        wire.on_call = None


def _press() -> None:
    signal.raise_signal(signal.SIGINT)


@contextlib.contextmanager
def _ctrl_c_as_usual() -> Generator[None]:
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


async def _owed(client: Any, wire: WireBench) -> list[str]:
    """What is left in the state directory once the looks that it stands for are paid."""
    if _intents(wire.state_dir):
        wire.heal()
        await client.gc(provider=wire.provider, delete=True)
    return _intents(wire.state_dir)


def _intents(state_dir: Path) -> list[str]:
    return sorted(path.name for path in (state_dir / "intents").glob("*") if path.is_file())


def _with(value: Any, names: Sequence[str], status: str) -> Any:
    """*value* with each text under one of *names* replaced."""
    if isinstance(value, dict):
        known = cast("dict[str, Any]", value)
        return {
            key: status if key in names and isinstance(one, str) else _with(one, names, status)
            for key, one in known.items()
        }
    if isinstance(value, list):
        return [_with(one, names, status) for one in cast("Sequence[Any]", value)]
    return value


class _Told(logging.Handler):
    """All that was logged, shown and kept: each text, and whether configuration may be seen there."""

    def __init__(self) -> None:
        super().__init__(logging.DEBUG)
        self.texts: list[tuple[str, bool]] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.texts.append((f"log {record.name}: {record.getMessage()} {record.exc_info!r}", False))

    def keep(self, *things: object, visible: bool = True) -> None:
        for one in things:
            self.texts += [(f"repr {one!r}", visible), (f"str {one}", visible)]

    @contextlib.contextmanager
    def listening(self) -> Generator[None]:
        """Hear every logger, at every level."""
        loggers = logging.getLogger(), logging.getLogger("unigpu")
        levels = [one.level for one in loggers]
        loggers[0].addHandler(self)
        for one in loggers:
            one.setLevel(logging.DEBUG)
        try:
            yield
        finally:
            loggers[0].removeHandler(self)
            for one, level in zip(loggers, levels, strict=True):
                one.setLevel(level)

    def around(self, value: str, *, visible: bool) -> list[str]:
        """Where *value* is seen; *visible*: also where configuration may be."""
        told = [text for text, may in self.texts if value in text and (visible or not may)]
        return [text[max(0, text.find(value) - 80) :][:200] for text in told]
