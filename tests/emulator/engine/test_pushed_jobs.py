"""Jobs posted to a path of the caller's choice, and told of when they end; calls spread over workers."""

from __future__ import annotations

from typing import Any

import pytest

from unigpu.elasticity._scaling.policy import Declared
from unigpu.emulator.contract import Callback, Launch
from unigpu.emulator.engine import DeploymentTerms, EngineJob
from unigpu.emulator.engine.engine import answers_for
from unigpu.emulator.engine.records import deployment_record, terms_from
from unigpu.emulator.simulation.virtual_cloud import Behavior, VirtualCloud
from unigpu.models.deployment import WorkerState
from unigpu.models.job import JobStatus


def double(given: Any) -> Any:
    return 2 * given["n"]


def cloud(behavior: Behavior | None = None, **terms: Any) -> VirtualCloud:
    made = VirtualCloud(behavior=behavior or Behavior(run=double, duration=5.0))
    values: dict[str, Any] = {"min_workers": 1, "max_workers": 1, "rule": Declared(), "idle_timeout": None, **terms}
    made.engine.deployments.create(
        "d", "test", DeploymentTerms(launch=Launch(argv=("serve",)), **values), made.clock.now()
    )
    made.step(made.clock.now())
    made.advance(10.0)
    return made


@pytest.mark.parametrize(
    ("extra", "input", "output"),
    [
        ({}, {"n": 2}, 4),
        ({"path": "/invoke"}, {"input": {"n": 2}}, {"output": 4, "execution_s": 5.0}),
        ({"path": "/run"}, {"n": 2}, 4),
    ],
)
def test_a_job_with_a_path_gets_the_bare_answer_of_a_worker(extra: Any, input: Any, output: Any) -> None:
    one = cloud()
    job = one.engine.submit("d", input, one.clock.now(), extra=extra)
    one.advance(5.0)
    assert (job.status, job.output) == (JobStatus.DONE, output)


def test_a_failure_at_a_path_is_in_the_envelope_or_a_500() -> None:
    one = cloud()
    inside = one.engine.submit("d", {"input": {}}, one.clock.now(), extra={"path": "/invoke"})
    bare = one.engine.submit("d", {"m": 1}, one.clock.now(), extra={"path": "/run"})
    one.advance(10.0)
    assert (inside.status, inside.output["error"]["type"]) == (JobStatus.DONE, "KeyError")
    assert bare.status is JobStatus.FAILED
    assert bare.error is not None
    assert bare.error["type"] == "HTTP500"


def test_a_job_at_a_path_may_shorten_its_time() -> None:
    one = cloud()
    headers = {"X-Unigpu-Timeout": "2"}
    job = one.engine.submit("d", {"input": {"n": 1}}, one.clock.now(), extra={"path": "/invoke", "headers": headers})
    one.advance(2.0)
    assert job.output["error"]["type"] == "ExecutionTimeout"


def test_the_end_of_a_job_is_told_once_however_it_ends() -> None:
    told: list[tuple[str, JobStatus]] = []

    def ended(job: EngineJob, now: float) -> None:
        told.append((job.id, job.status))

    one = cloud()
    engine = one.engine
    for id, input in (("good", {"n": 1}), ("bad", {}), ("gone", {"n": 1})):
        engine.submit("d", input, one.clock.now(), id=id, ended=ended)
    engine.jobs.cancel(engine.deployments.get("d", one.clock.now()), "gone", one.clock.now())
    one.advance(100.0)
    engine.submit("d", {"n": 1}, one.clock.now(), id="cut", ended=ended)
    one.step(one.clock.now())
    engine.deployments.delete("d", one.clock.now())
    one.advance(100.0)
    assert sorted(told) == [
        ("bad", JobStatus.FAILED),
        ("cut", JobStatus.CANCELLED),
        ("gone", JobStatus.CANCELLED),
        ("good", JobStatus.DONE),
    ]


def test_a_callback_may_have_another_body_at_each_try() -> None:
    one = cloud()
    got: list[bytes] = []

    def receive(callback: Callback) -> int | None:
        got.append(callback.body)
        return 200 if len(got) == 3 else None

    one.receiver = receive
    callback = Callback(callback_id="", url="http://example.com")
    one.engine.callbacks.add(callback, waits=(10.0, 20.0, 30.0), body=lambda tries: b"%d" % tries)
    one.step(one.clock.now())
    one.advance(1000.0)
    assert got == [b"1", b"2", b"3"]


@pytest.mark.parametrize("spread", [False, True])
def test_calls_go_to_the_worker_that_worked_last_or_are_spread(spread: bool) -> None:
    one = cloud(min_workers=3, max_workers=3, spread=spread)
    used: list[str | None] = []
    for _ in range(6):
        job = one.engine.submit("d", {"n": 1}, one.clock.now())
        one.step(one.clock.now())
        used.append(job.worker_id)
        one.advance(6.0)
    assert len(set(used)) == (3 if spread else 1)


def test_a_deployment_may_wait_longer_for_its_workers_than_others() -> None:
    slow = Behavior(cold_start=1200.0)
    for limit, states in ((None, set[WorkerState]()), (1300.0, {WorkerState.IDLE})):
        one = cloud(slow, start_limit=limit)
        one.advance(1200.0)
        found = {worker.state for worker in one.engine.workers("d")}
        assert found & {WorkerState.IDLE} == states


def test_a_journal_keeps_how_calls_are_spread_and_how_long_a_start_may_take() -> None:
    one = cloud(spread=True, start_limit=1300.0)
    deployment = one.engine.deployments.get("d", one.clock.now())
    terms = terms_from(deployment_record(deployment, created_at=0.0))
    assert (terms.spread, terms.start_limit) == (True, 1300.0)


def test_a_host_that_begins_with_a_dot_is_every_name_under_it() -> None:
    hosts = ("api.example.com", ".apps.example.com")
    assert answers_for(hosts, "api.example.com")
    assert answers_for(hosts, "a.apps.example.com")
    assert not answers_for(hosts, "apps.example.com")
    assert not answers_for(hosts, "x.api.example.com")
    assert not answers_for(hosts, "evilapps.example.com")
