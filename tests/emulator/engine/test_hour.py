"""A deployment's hour on virtual time: from zero, to many, to zero, and what it cost."""

from __future__ import annotations

from typing import Any

import pytest

from unigpu.emulator.simulation.virtual_cloud import Behavior


def test_a_request_wakes_a_cold_deployment_and_is_timed(make_cloud: Any) -> None:
    cloud = make_cloud(Behavior(run=lambda x: {"y": x["x"] + 1}, cold_start=3.0, duration=0.5))
    cloud.deploy()
    assert cloud.show()["state"] == "COLD"
    cloud.advance(10)
    assert cloud.workers() == []  # it costs nothing while nobody calls
    job = cloud.submit("j1", {"x": 1})
    assert job["status"] == "QUEUED"
    assert cloud.show()["state"] == "STARTING"
    job = cloud.finish("j1")
    assert job["output"] == {"y": 2}
    assert job["cold_start_s"] == pytest.approx(3.0)
    assert job["queue_s"] == pytest.approx(0.0)
    assert job["execution_s"] == pytest.approx(0.5)
    assert job["kept_until"] == pytest.approx(job["finished_at"] + 3600)
    second = cloud.submit("j2", {"x": 2}) and cloud.finish("j2")
    assert second["cold_start_s"] == pytest.approx(0.0)
    assert second["worker_id"] == job["worker_id"]


def test_waiting_behind_others_is_queue_time_and_not_cold_start(make_cloud: Any) -> None:
    cloud = make_cloud(Behavior(cold_start=2.0, duration=5.0))
    cloud.deploy()
    for n in range(3):
        cloud.submit(f"j{n}")
    jobs = [cloud.finish(f"j{n}") for n in range(3)]
    assert [job["cold_start_s"] for job in jobs] == pytest.approx([2.0, 2.0, 2.0])
    assert [job["queue_s"] for job in jobs] == pytest.approx([0.0, 5.0, 10.0])


def test_an_hour_from_zero_to_many_and_back_passes_in_no_time(make_cloud: Any, monkeypatch: Any) -> None:
    cloud = make_cloud(Behavior(cold_start=4.0, duration=2.0))
    cloud.deploy(workers={"min": 0, "max": 5}, idle_timeout=60)
    waited: list[float] = []
    monkeypatch.setattr("time.sleep", waited.append)
    most = 0
    for minute in range(60):
        if minute < 20:
            for n in range(30):
                cloud.submit(f"m{minute}-{n}")
        for _ in range(6):
            cloud.advance(10)
            most = max(most, cloud.show()["workers_total"])
    assert waited == []
    # Its effects are those of its jobs and workers, not of its seconds.
    assert cloud.virtual.effects["Push"] == 600
    assert cloud.virtual.effects["StartWorker"] == 5
    assert cloud.now >= 3600
    assert most == 5
    assert cloud.show()["state"] == "COLD"
    assert cloud.show()["workers_total"] == 0
    bill = cloud.ask("GET", "/v1/meter")["deployments"][cloud.show()["id"]]
    assert bill["busy_s"] == pytest.approx(20 * 30 * 2.0)
    assert bill["billed_s"] == pytest.approx(bill["loading_s"] + bill["idle_s"] + bill["busy_s"])
    cloud.advance(1000)
    assert cloud.ask("GET", "/v1/meter")["billed_s"] == pytest.approx(bill["billed_s"])  # nothing runs, nothing bills


def test_the_idle_timeout_counts_from_the_last_activity(make_cloud: Any) -> None:
    cloud = make_cloud(Behavior(cold_start=1.0, duration=1.0))
    cloud.deploy(idle_timeout=30)
    cloud.submit("j1")
    cloud.finish("j1")
    cloud.advance(29)
    assert cloud.show()["ready_workers"] == 1
    cloud.submit("j2")
    cloud.finish("j2")
    cloud.advance(29)
    assert cloud.show()["ready_workers"] == 1
    cloud.advance(2)
    assert cloud.show()["state"] == "COLD"


def test_the_least_of_workers_stays_and_the_most_is_never_passed(make_cloud: Any) -> None:
    cloud = make_cloud(Behavior(cold_start=1.0, duration=10.0))
    cloud.deploy(workers={"min": 2, "max": 3}, idle_timeout=5)
    cloud.advance(2)
    assert cloud.show()["ready_workers"] == 2
    for n in range(20):
        cloud.submit(f"j{n}")
    cloud.advance(5)
    assert cloud.show()["workers_total"] == 3
    cloud.advance(200)
    assert cloud.show()["ready_workers"] == 2
    cloud.ask("PATCH", cloud.url(), {"workers": {"min": 0, "max": 1}, "idle_timeout": 1})
    cloud.advance(5)
    assert cloud.show()["state"] == "COLD"


def test_lowering_the_most_drains_and_loses_no_running_job(make_cloud: Any) -> None:
    cloud = make_cloud(Behavior(cold_start=1.0, duration=50.0))
    cloud.deploy(workers={"min": 3, "max": 3})
    cloud.advance(2)
    for n in range(3):
        cloud.submit(f"j{n}")
    cloud.advance(1)
    cloud.ask("PATCH", cloud.url(), {"workers": {"min": 1, "max": 1}})
    assert [cloud.finish(f"j{n}")["status"] for n in range(3)] == ["DONE"] * 3
    cloud.advance(1)
    assert cloud.show()["workers_total"] == 1


def test_constant_load_starts_no_worker_after_the_first_ones(make_cloud: Any) -> None:
    cloud = make_cloud(Behavior(cold_start=3.0, duration=2.0))
    cloud.deploy(workers={"min": 0, "max": 4}, idle_timeout=10)
    for second in range(600):
        cloud.submit(f"j{second}")
        cloud.advance(1)
        if second == 60:
            settled = cloud.virtual.effects["StartWorker"]
    assert cloud.virtual.effects["StartWorker"] == settled


def test_light_load_keeps_one_worker_busy_so_that_the_others_can_leave(make_cloud: Any) -> None:
    cloud = make_cloud(Behavior(cold_start=1.0, duration=2.0))
    cloud.deploy(workers={"min": 0, "max": 3}, idle_timeout=20)
    for n in range(3):
        cloud.submit(f"burst{n}")
    cloud.advance(5)
    assert cloud.show()["ready_workers"] == 3
    for n in range(10):
        cloud.submit(f"j{n}")
        cloud.advance(5)
    assert cloud.show()["ready_workers"] == 1


def test_wake_starts_one_worker_that_stays_for_an_idle_timeout(make_cloud: Any) -> None:
    cloud = make_cloud(Behavior(cold_start=5.0))
    cloud.deploy(workers={"min": 0, "max": 3}, idle_timeout=20)
    assert cloud.ask("POST", cloud.url(rest="/wake"))["state"] == "STARTING"
    cloud.ask("POST", cloud.url(rest="/wake"))
    cloud.advance(6)
    assert cloud.show()["ready_workers"] == 1
    cloud.advance(15)
    cloud.ask("POST", cloud.url(rest="/wake"))
    cloud.advance(15)
    assert cloud.show()["ready_workers"] == 1
    cloud.advance(10)
    assert cloud.show()["state"] == "COLD"
    assert cloud.virtual.effects["StartWorker"] == 1


def test_a_worker_waits_for_its_machine_without_being_billed(make_cloud: Any) -> None:
    cloud = make_cloud(Behavior(cold_start=2.0), placing=30.0)
    cloud.deploy()
    cloud.submit("j1")
    cloud.advance(20)
    assert [worker["state"] for worker in cloud.workers()] == ["PLACING"]
    assert cloud.ask("GET", "/v1/meter")["billed_s"] == 0
    assert cloud.finish("j1")["cold_start_s"] == pytest.approx(32.0)


def test_a_worker_that_is_not_placed_yet_ends_without_having_started(make_cloud: Any) -> None:
    cloud = make_cloud(placing=30.0)
    cloud.deploy(workers={"min": 1, "max": 1})
    cloud.advance(5)
    cloud.ask("DELETE", cloud.url())
    cloud.ask("GET", cloud.url(), status=404)
    cloud.advance(100)
    assert "StartWorker" not in cloud.virtual.effects


def test_scaling_by_queue_delay_adds_workers_one_by_one(make_cloud: Any) -> None:
    cloud = make_cloud(Behavior(cold_start=5.0, duration=100.0))
    cloud.deploy(workers={"min": 0, "max": 4}, scaling={"signal": "queue_delay", "target": 10})
    for n in range(4):
        cloud.submit(f"j{n}")
    totals = []
    for _ in range(5):
        cloud.advance(4)
        totals.append(cloud.show()["workers_total"])
    assert totals == [1, 1, 2, 3, 4]  # at 0, at 10, and then each as soon as the last is ready
    cloud.ask("PATCH", cloud.url(), {"scaling": {"signal": "requests", "target": 4}})
    assert cloud.show()["scaling"] == {"signal": "requests", "target": 4}
    cloud.ask("PATCH", cloud.url(), {"scaling": None})
    assert cloud.show()["scaling"] is None
    cloud.ask("PATCH", cloud.url(), {"concurrency": 4}, status=400)


def test_a_stopped_worker_whose_end_nobody_reports_is_gone_after_a_while(make_cloud: Any) -> None:
    cloud = make_cloud(exit_limit=10.0, delete_grace=2.0)
    cloud.deploy(workers={"min": 1, "max": 1})
    cloud.advance(2)
    (worker,) = cloud.workers()
    cloud.virtual.simulation.forget(worker["id"])
    cloud.ask("DELETE", cloud.url())
    cloud.advance(11)
    assert cloud.show()["state"] == "DELETING"
    cloud.advance(2)
    cloud.ask("GET", cloud.url(), status=404)


def test_a_pod_is_one_worker_that_does_not_stop_for_being_idle(make_cloud: Any) -> None:
    cloud = make_cloud()
    cloud.deploy(kind="pod", workers={"min": 1, "max": 1}, idle_timeout=1)
    cloud.advance(10_000)
    assert cloud.show()["state"] == "READY"
    assert cloud.virtual.effects["StartWorker"] == 1
    cloud.ask("PATCH", cloud.url(), {"workers": {"min": 0, "max": 1}}, status=400)
    assert cloud.ask("POST", cloud.url(rest="/stop"))["state"] == "STOPPED"
    cloud.advance(1)
    assert cloud.workers()[-1]["state"] == "EXITED"
    assert cloud.ask("POST", cloud.url(rest="/start"))["state"] == "STARTING"
    cloud.advance(2)
    assert cloud.show()["state"] == "READY"
