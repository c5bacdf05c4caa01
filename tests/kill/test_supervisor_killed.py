"""``kill -9`` of the supervisor and of workers, while clients deploy and call: typed errors, and nothing is left."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest
from kill_support import FULL, PATIENCE, tenth, until

from unigpu import errors
from unigpu.errors import JobFailed, UniGPUError, WorkerLost

pytestmark = [pytest.mark.kill, pytest.mark.processes]

RANDOM_KILLS = 20 if FULL else 2
_AT_LEAST = {"deploy": 24, "invoke": 4, "teardown": 8}
"""Steps that each operation has in any run; where the matrix is not run whole, they need not be counted first."""


def test_a_supervisor_killed_at_a_random_time_leaves_nothing_after_the_next_deploy_and_teardown(
    homes: Callable[..., Any], counts: Any, dice: random.Random
) -> None:
    ends: dict[str, int] = {}
    for number in range(RANDOM_KILLS):
        home = homes()
        after = dice.uniform(0, 0.8)
        process = home.start("deploy", "invoke", "scale", "invoke", "teardown")
        until(lambda home=home, process=process: home.supervisor() or process.is_over(), "a supervisor")
        time.sleep(after)  # the time of the kill, not a wait for anything
        pid = home.supervisor()
        if pid is not None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        status = process.wait()
        error = process.heard("error")
        ends[error or "done"] = ends.get(error or "done", 0) + 1
        assert status in (0, 1), process.said()
        assert error is None or issubclass(getattr(errors, error, int), UniGPUError), process.said()
        home.recover(f"kill {number} after {after:.3f} s")
    print(f"{RANDOM_KILLS} kills: {ends}")
    counts.check(deploys=2 * RANDOM_KILLS)


@pytest.mark.parametrize("operation", ["deploy", "invoke", "teardown"])
def test_a_supervisor_killed_at_any_step_of_a_client_is_replaced(
    operation: str, homes: Callable[..., Any], counts: Any, dice: random.Random
) -> None:
    verbs = ["deploy", "invoke", "teardown"]
    points = ["?"] * _AT_LEAST[operation]
    if FULL:
        dry = homes()
        process = dry.start(*verbs, counted=operation)
        assert process.wait() == 0, process.said()
        dry.leaks("nobody was killed")
        points = process.heard("steps")
        assert len(points) >= _AT_LEAST[operation]
    ends: dict[str, int] = {}
    for at in tenth(list(range(len(points))), dice):
        home = homes()
        told = f"{operation}, the supervisor killed {points[at]} ({at})"
        process = home.start(*verbs, counted=operation, at=at, act="supervisor")
        process.wait()
        error = process.heard("error")
        ends[error or "done"] = ends.get(error or "done", 0) + 1
        # Only a call that ran, or was handed over, may be lost with it: all else goes on with the next one.
        assert error is None or (operation == "invoke" and error == "WorkerLost"), (told, process.said())
        home.recover(told)
    print(f"{operation}: {len(points)} steps, {ends}: {points}")
    counts.check(deploys=2 * sum(ends.values()))


def test_a_supervisor_killed_in_a_call_fails_the_call_and_keeps_the_deployment(home: Any, counts: Any) -> None:
    began = home.path / "began"
    with home.client() as client:
        spec = {**home.spec(), "handler": home.handler("slow"), "workers": (0, 1)}
        deployed = client.deploy(name="one", progress="off", **spec)
        counts.deploys += 1
        old = set(home.processes())
        failed: list[UniGPUError] = []

        def call() -> None:
            try:
                client.invoke(deployed, {"began": str(began), "s": 1000}, timeout=PATIENCE)
            except UniGPUError as exc:
                failed.append(exc)

        thread = threading.Thread(target=call)
        thread.start()
        until(began.exists, "the call runs")
        pid = home.supervisor()
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        thread.join(PATIENCE)
        assert not thread.is_alive()
        assert isinstance(failed[0], JobFailed), failed
        assert failed[0].maybe_executed is True
        # It is there still, for this client and by name; its old worker is not.
        again = client.invoke("one", {"began": str(began), "s": 0}, timeout=PATIENCE)
        assert again.output["pid"] not in old
        assert not old & set(home.processes())
        home.look(client, "one", "after the supervisor was killed in a call")
        client.teardown(deployed)
    home.leaks("after the supervisor was killed in a call")
    counts.check(deploys=1)


@pytest.mark.parametrize("flavour", ["sync", "asyncio", "trio"])
def test_a_worker_killed_in_a_call_is_lost_and_an_idempotent_call_is_tried_again(
    flavour: str, home: Any, counts: Any
) -> None:
    """The handler kills its own process in its first call."""
    lost, tried = home.path / "lost", home.path / "tried"
    spec = home.spec(handler=home.handler("once"))
    process = home.start("deploy", "invoke", flavour=flavour, deploy=spec, input={"began": str(lost)}, name="one")
    assert process.wait() == 1
    assert process.heard("error") == WorkerLost.__name__, process.said()
    assert lost.read_text() == "x"  # never twice by itself
    process = home.start(
        "deploy",
        "invoke",
        "teardown",
        flavour=flavour,
        deploy={**spec, "idempotent": True, "if_exists": "replace"},
        input={"began": str(tried)},
        name="one",
    )
    assert process.wait() == 0, process.said()
    assert tried.read_text() == "xx"
    assert process.heard("output")["pid"] > 0
    home.leaks("after a killed worker")
    counts.check(deploys=2)


def test_workers_killed_from_outside_are_replaced_and_not_doubled(home: Any, counts: Any, dice: random.Random) -> None:
    rounds = 10 if FULL else 2
    with home.client() as client:
        deployed = client.deploy(name="one", progress="off", **{**home.spec(), "workers": (0, 1)})
        counts.deploys += 1
        for _ in range(rounds):
            pid = client.invoke(deployed, {"n": 1}, timeout=PATIENCE).output["pid"]
            os.kill(pid, signal.SIGKILL)
            try:
                again = client.invoke(deployed, {"n": 2}, timeout=PATIENCE, idempotent=True).output["pid"]
            except WorkerLost:  # tried once more by the platform, and no more
                again = client.invoke(deployed, {"n": 2}, timeout=PATIENCE).output["pid"]
            assert again != pid
            home.look(client, "one", "after a worker was killed")
        client.teardown(deployed)
    home.leaks("after workers were killed")
    counts.check(deploys=1)
