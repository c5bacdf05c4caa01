"""RunPod's own worker program, unmodified, started and ended by the engine's autoscaler; ours and theirs as clients."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from unigpu import Deployment, JobFailed

HANDLERS = Path(__file__).parent / "programs" / "handlers.py"
Until = Callable[..., Any]
WORKER: dict[str, Any] = {"image": "ghcr.io/me/app:1", "gpu": "RTX 4090", "progress": "off"}


def test_workers_go_from_zero_to_the_most_and_back_to_zero(
    cloud: Any, until: Until, capsys: pytest.CaptureFixture[str]
) -> None:
    made = cloud.make("waves", workers=(0, 3), idle=2, scaling={"type": "QUEUE_DELAY", "queueDelay": 0.5})
    id, urls = made["id"], made["requestUrls"]
    assert cloud.alive(id) == 0
    jobs = [cloud.http.post(urls["run"], json={"input": {"n": n, "sleep": 2}}).json()["id"] for n in range(7)]

    def states() -> list[dict[str, Any]]:
        return [cloud.http.get(urls["status"].replace("{job_id}", job)).json() for job in jobs]

    until(lambda: cloud.workers(id)["running"] == 3)
    until(lambda: all(one["status"] == "COMPLETED" for one in states()), every=0.3)
    done = states()
    assert [one["output"] for one in done] == [{"echo": {"n": n, "sleep": 2}} for n in range(7)]
    assert len({one["workerId"] for one in done}) == 3
    assert all(2000 <= one["executionTime"] < 10_000 for one in done)
    until(lambda: cloud.alive(id) == 0)
    # And from zero again.
    again = cloud.http.post(urls["runSync"], json={"input": {"n": 9}}).json()
    assert again["output"] == {"echo": {"n": 9}}
    until(lambda: cloud.alive(id) == 0)
    with capsys.disabled():
        starts = sorted(one["delayTime"] / 1000 for one in (done[0], again))
        print(f"\nreal cold starts of RunPod's worker program: {starts[0]:.1f} s, {starts[1]:.1f} s")


def test_our_client_and_runpods_get_the_same_from_runpods_worker(
    cloud: Any, official: Callable[..., dict[str, Any]], until: Until
) -> None:
    with cloud.client() as client:
        plain: Deployment = client.deploy(name="same", command=cloud.worker, **WORKER)
        flow: Deployment = client.deploy(
            name="same-stream", command=cloud.worker, env={"MODE": "stream"}, workers=(1, 1), wait=False, **WORKER
        )
        theirs = official("same_calls.py", cloud.key, str(plain.id), str(flow.id))

        assert [plain.invoke({"n": n}).output for n in range(3)] == theirs["outputs"]
        assert plain.invoke({"n": 1}, idempotent=True).output == theirs["outputs"][1]
        with flow.stream({"count": 4}) as stream:
            assert list(stream) == theirs["stream"] == [{"number": n} for n in range(4)]
        # What a worker says on its way is no output of ours, and theirs shows it as one.
        assert theirs["progress"]
        assert all(one == {"at": "half"} for one in theirs["progress"])
        assert plain.invoke({"progress": "half", "sleep": 1.5}).output == theirs["final"]

        with pytest.raises(JobFailed) as failed:
            plain.invoke({"boom": "no such thing"})
        assert failed.value.error_type == "ValueError"
        assert "no such thing" in str(failed.value)
        with pytest.raises(JobFailed, match="not today"):
            plain.invoke({"refuse": "not today"})

        job = plain.submit({"sleep": 30})
        until(lambda: job.status().value == "RUNNING")
        job.cancel()
        until(lambda: job.status().value == "CANCELLED")
        assert plain.invoke({"n": 2}).output == theirs["outputs"][2]

        for one in (plain, flow):
            one.teardown()
        assert not client.deployments()
    assert not [
        one for one in cloud.http.get(f"{cloud.base}/v2/serverless").json()["endpoints"] if "same" in one["name"]
    ]


def test_our_worker_runs_on_runpods_package_in_one_environment_or_in_two(cloud: Any, until: Until) -> None:
    """The second where the user's packages clash with RunPod's: our own interpreter has none of it."""
    ways = {"one": (cloud.worker[0], {}), "two": (sys.executable, {"UNIGPU_RUNPOD_PYTHON": cloud.worker[0]})}
    made = {
        (way, handler): cloud.make(
            f"ours-{way}-{handler}",
            workers=(1, 1),
            cmd=[python, "-m", "unigpu.worker", f"{HANDLERS}:{handler}"],
            env=env,
        )
        for way, (python, env) in ways.items()
        for handler in ("echo", "count")
    }

    def call(way: str, handler: str, input: dict[str, Any]) -> dict[str, Any]:
        urls = made[way, handler]["requestUrls"]
        reply = cloud.http.post(urls["runSync"], json={"input": input}).json()
        return until(lambda: _ended(cloud.http.get(urls["status"].replace("{job_id}", reply["id"])).json()))

    for way in ways:
        assert call(way, "echo", {"n": 1})["output"] == {"echo": {"n": 1}, "error": "a word of the user's"}
        failed = call(way, "echo", {"boom": "no such thing"})
        assert json.loads(failed["error"])["error_message"] == "no such thing"
        assert call(way, "count", {"count": 3})["output"] == [{"number": n} for n in range(3)]
    for one in made.values():
        assert cloud.http.delete(f"{cloud.base}/v2/serverless/{one['id']}").status_code == 204


def _ended(state: dict[str, Any]) -> dict[str, Any] | None:
    return state if state["status"] in ("COMPLETED", "FAILED") else None
