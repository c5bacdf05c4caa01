"""Why a deployment is not ready: the cause, what says so, and the next step."""

from __future__ import annotations

from typing import Any

import pytest

from unigpu import Client, DeploymentInfo, LogLine, State, Worker, WorkerState
from unigpu._client.explain import judge
from unigpu.errors import DeploymentGone, NotFoundError

WALL = 1_000_000.0


def judged(state: State, *workers: Worker, expected: tuple[float, float] | None = (5.0, 60.0), **info: Any) -> Any:
    found = DeploymentInfo(provider="fake", name="chat", provider_name="chat-x", id="1", state=state, **info)
    return judge(found, workers, [LogLine(text="last words")], expected=expected, wall=WALL)


CASES: list[tuple[str, Any]] = [
    ("ready", judged(State.READY, Worker(id="w", state=WorkerState.IDLE))),
    ("cold", judged(State.COLD, workers=(0, 1))),
    ("no_workers_allowed", judged(State.COLD, workers=(0, 0))),
    ("creating", judged(State.CREATING)),
    ("starting", judged(State.STARTING, Worker(id="w", state=WorkerState.STARTING, started_at=WALL - 10))),
    ("slow_start", judged(State.STARTING, Worker(id="w", state=WorkerState.PLACING, started_at=WALL - 100))),
    ("starting", judged(State.STARTING, Worker(id="w", state=WorkerState.STARTING), expected=None)),
    ("stopped", judged(State.STOPPED, bills="disk $0.10/h")),
    ("deleting", judged(State.DELETING)),
    ("image_pull", judged(State.DEGRADED, Worker(id="w", state=WorkerState.FAILED, reason="manifest unknown"))),
    ("out_of_memory", judged(State.FAILED, reason="OOM killed")),
    ("crash_loop", judged(State.FAILED, Worker(id="w", state=WorkerState.FAILED, reason="exited with code 3"))),
    ("unknown", judged(State.UNKNOWN)),
]


@pytest.mark.parametrize(("cause", "found"), CASES, ids=[f"{n}-{c}" for n, (c, _) in enumerate(CASES)])
def test_each_state_has_its_cause_and_its_next_step(cause: str, found: Any) -> None:
    assert found.cause == cause
    assert (found.next_step == "") is (cause == "ready")
    text = str(found)
    assert text.startswith("chat on fake: ")
    assert f"state {found.state.value}" in text
    assert "last words" in text


def test_a_worker_that_failed_beside_a_ready_one_is_evidence_and_no_cause() -> None:
    ready, failed = Worker(id="a", state=WorkerState.BUSY), Worker(id="b", state=WorkerState.FAILED, reason="exit 1")
    found = judged(State.DEGRADED, ready, failed)
    assert found.cause == "ready"
    assert "worker b: FAILED: exit 1" in found.evidence


def test_a_pod_whose_machine_went_away_is_torn_down_first_since_deploy_would_reuse_it() -> None:
    assert "deploy again" in judged(State.FAILED, reason="host_lost").next_step
    assert "tear it down" in judged(State.FAILED, reason="host_lost", kind="pod").next_step


def test_a_client_and_a_handle_explain(cloud: Any, flavour: Any, instant: Any) -> None:
    async def workflow(client: Any) -> Any:
        app = await client.deploy(name="chat", handler="a:b", progress="off")
        cold = await client.explain("chat")
        cloud.cold_start = 1e6
        await app.wake()
        starting = await app.explain()
        await client.teardown("chat")
        with pytest.raises(NotFoundError):
            await client.explain("chat")
        return cold, starting

    cold, starting = flavour.run(workflow, "fake")
    assert cold.cause == "cold"
    assert starting.cause in ("starting", "slow_start")  # the fake cloud's start is on another clock
    assert [line.text for line in starting.logs] == ["line 0", "line 1", "line 2"]


def test_what_is_gone_is_not_explained_away(cloud: Any) -> None:
    with Client("fake") as client:
        app = client.deploy(name="chat", handler="a:b", progress="off")
        cloud.rows.clear()
        with pytest.raises(DeploymentGone):
            app.explain()
