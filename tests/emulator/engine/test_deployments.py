"""Deployments: preconditions, replacing in place, pausing, ending in time, deleting, listing late, restoring."""

from __future__ import annotations

import json
from typing import Any

import pytest

from unigpu.emulator.apis.local.emulator import LocalEmulator
from unigpu.emulator.contract import Dropped, HttpCall, Launch, Persist, Reply
from unigpu.emulator.engine import DeploymentTerms, Engine
from unigpu.emulator.simulation.virtual_cloud import Behavior

SECRET = "hunter2-canary"


def test_creating_needs_a_precondition_and_only_one_creates(cloud: Any) -> None:
    cloud.ask("PUT", cloud.url(), cloud.body(), status=428)
    cloud.deploy()
    taken = cloud.ask("PUT", cloud.url(), cloud.body(attempt="a2"), status=412, if_none_match="*")
    assert taken["error"]["type"] == "exists"
    assert taken["deployment"]["attempt"] == "a1"  # whoever asks can see whose it is
    absent = cloud.ask("PUT", cloud.url("other"), cloud.body("other"), status=412, if_match="a1")
    assert (absent["error"]["type"], absent["deployment"]) == ("absent", None)
    changed = cloud.ask("PUT", cloud.url(), cloud.body(), status=412, if_match="a9")
    assert changed["error"]["type"] == "changed"


def test_a_deployment_shows_what_was_put_and_no_value_of_its_environment(cloud: Any) -> None:
    launch = cloud.body()["launch"] | {"env": {"MODE": "fast-value", "KEY": SECRET}}
    cloud.deploy(launch=launch, spec={"secrets": ["KEY"]}, expires_at=2_000_000, concurrency=4)
    shown = cloud.show()
    assert shown["launch"]["env"] == ["KEY", "MODE", "UNIGPU_NAME"]
    assert SECRET not in json.dumps(shown)
    assert "fast-value" not in json.dumps(shown)
    for field in ("name", "namespace", "attempt", "spec_hash", "interface", "kind", "origin", "constants", "spec"):
        assert shown[field] == cloud.body(spec={"secrets": ["KEY"]})[field]
    assert (shown["workers"], shown["concurrency"]) == ({"min": 0, "max": 1}, 4)
    assert (shown["expires_at"], shown["created_at"]) == (2_000_000, 1_000_000)


def test_no_record_and_no_repr_holds_a_secret_but_the_worker_gets_it(make_cloud: Any) -> None:
    cloud = make_cloud()
    launch = cloud.body()["launch"] | {"env": {"KEY": SECRET, "TOKEN": SECRET, "MODE": "x"}}
    spec = {"secrets": ["KEY"], "auth": {"env": "TOKEN"}}
    cloud.engine.handle(
        cloud.http_call("PUT", cloud.url(), cloud.body(launch=launch, spec=spec, workers={"min": 1, "max": 1}),
                        if_none_match="*"), 0.0
    )  # fmt: skip
    effects = cloud.engine.tick(0.0)
    start = effects[1]
    assert start.launch.env == {"KEY": SECRET, "TOKEN": SECRET, "MODE": "x", "UNIGPU_NAME": "hello"}
    assert effects[0].record["launch"]["env"] == {"MODE": "x", "UNIGPU_NAME": "hello"}
    assert effects[0].record["secrets_lost"] == ["KEY", "TOKEN"]
    assert SECRET not in repr(effects)
    assert SECRET not in json.dumps(effects[0].record)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"workers": {"min": 2, "max": 1}}, "workers"),
        ({"workers": None}, "workers"),
        ({"workers": {"min": True, "max": 1}}, "workers.min"),
        ({"idle_timeout": -1}, "idle_timeout"),
        ({"execution_timeout": 0}, "execution_timeout"),
        ({"concurrency": 0}, "concurrency"),
        ({"interface": "grpc"}, "interface"),
        ({"kind": "vm"}, "kind"),
        ({"attempt": ""}, "attempt"),
        ({"launch": {}}, "launch"),
        ({"launch": {"handler": "a:b", "env": {"A": 1}}}, "launch.env"),
        ({"launch": {"argv": "ls"}}, "launch.argv"),
        ({"launch": {"argv": ["a\0b"]}}, "launch.argv"),
        ({"launch": {"handler": "a:b", "env": {"A=B": "1"}}}, "launch.env"),
        ({"launch": {"handler": "a:b", "env": {"A": "\ud800"}}}, "launch.env"),
        ({"launch": {"handler": "a:b", "port": 0}}, "launch.port"),
        ({"spec": {"secrets": 5}}, "spec.secrets"),
        ({"scaling": {"signal": "moon", "target": 1}}, "scaling.signal"),
        ({"scaling": {"signal": "requests", "target": 0}}, "target"),
        ({"expires_at": "tomorrow"}, "expires_at"),
        ({"idempotent": "yes"}, "idempotent"),
        ({"namespace": "other"}, "provider name"),
    ],
)
def test_a_wrong_body_is_refused_naming_the_field(cloud: Any, change: dict[str, Any], named: str) -> None:
    error = cloud.ask("PUT", cloud.url(), cloud.body(**change), status=400, if_none_match="*")["error"]
    assert error["type"] == "invalid"
    assert named in error["message"]
    assert cloud.ask("GET", "/v1/deployments")["deployments"] == []


@pytest.mark.parametrize("body", [b"", b"[]", b"{", b'{"a": NaN}', b'{"a": 1e999}', b"\xff", b"[" * 100_000])
def test_a_body_that_is_no_json_object_is_refused(cloud: Any, body: bytes) -> None:
    call = HttpCall(
        method="PUT", path=cloud.url(), headers={"authorization": "Bearer t0ken"}, body=body, host="127.0.0.1"
    )
    reply = cloud.virtual.call(call)
    assert reply.status == 400


def test_replacing_in_place_drains_the_old_workers_and_keeps_queue_and_attempt(make_cloud: Any) -> None:
    cloud = make_cloud(Behavior(run=lambda _: "old", duration=10.0))
    cloud.deploy(workers={"min": 0, "max": 2})
    for n in range(4):
        cloud.submit(f"j{n}")
    cloud.advance(3)  # two run, two wait
    cloud.virtual.behave("hello", Behavior(run=lambda _: "new", duration=1.0))
    body = cloud.body(workers={"min": 0, "max": 2}, attempt="other", spec_hash="1:new", launch={"handler": "app:new"})
    replaced = cloud.ask("PUT", cloud.url(), body, status=200, if_match="a1")
    assert (replaced["attempt"], replaced["spec_hash"]) == ("a1", "1:new")
    assert [cloud.finish(f"j{n}")["output"] for n in range(4)] == ["old", "old", "new", "new"]
    assert [worker["state"] for worker in cloud.workers()[:2]] == ["EXITED", "EXITED"]


def test_replacing_what_workers_do_not_see_keeps_them(make_cloud: Any) -> None:
    cloud = make_cloud()
    cloud.deploy(workers={"min": 1, "max": 1})
    cloud.advance(2)
    cloud.ask("PUT", cloud.url(), cloud.body(workers={"min": 1, "max": 2}, idle_timeout=5), if_match="a1")
    cloud.advance(10)
    assert cloud.virtual.effects["StartWorker"] == 1


def test_a_stopped_deployment_keeps_its_queue_refuses_and_goes_on_when_started(make_cloud: Any) -> None:
    cloud = make_cloud(Behavior(duration=5.0))
    cloud.deploy()
    cloud.submit("running")
    cloud.submit("queued")
    cloud.advance(2)
    cloud.ask("POST", cloud.url(rest="/stop"))
    assert cloud.show()["state"] == "STOPPED"
    assert cloud.finish("running")["status"] == "DONE"  # it may end what it does
    cloud.advance(60)
    assert cloud.show()["workers_total"] == 0
    error = cloud.ask("POST", cloud.url(rest="/jobs"), {"id": "no", "input": {}}, status=409)["error"]
    assert error["type"] == "stopped"
    assert cloud.job("queued")["status"] == "QUEUED"
    assert cloud.ask("POST", cloud.url(rest="/stop"))["state"] == "STOPPED"  # twice is success
    cloud.ask("POST", cloud.url(rest="/start"))
    assert cloud.finish("queued")["status"] == "DONE"


def test_wake_and_a_job_that_says_so_start_a_stopped_deployment(cloud: Any) -> None:
    cloud.deploy()
    cloud.ask("POST", cloud.url(rest="/stop"))
    assert cloud.ask("POST", cloud.url(rest="/wake"))["state"] == "STARTING"
    cloud.ask("POST", cloud.url(rest="/stop"))
    cloud.submit("j1", wake=True)
    assert cloud.finish("j1")["status"] == "DONE"


def test_stopping_does_not_wait_for_a_job_for_ever(make_cloud: Any) -> None:
    cloud = make_cloud(Behavior(duration=500.0), drain_limit=30.0)
    cloud.deploy()
    cloud.submit("j1")
    cloud.advance(2)
    cloud.ask("POST", cloud.url(rest="/stop"))
    cloud.advance(31)
    assert cloud.job("j1")["lost"]
    assert cloud.show()["workers_total"] == 0


def test_it_ends_by_itself_when_its_time_has_come(make_cloud: Any) -> None:
    cloud = make_cloud(Behavior(duration=50.0))
    cloud.deploy(expires_at=1_000_000 + 3600, workers={"min": 1, "max": 1})
    cloud.advance(3590)
    cloud.submit("j1")
    poll = cloud.begin("GET", cloud.url(rest="/jobs/j1"), query={"wait": "60"})
    cloud.advance(10)
    reply = poll.poll(cloud.now)
    assert isinstance(reply, Reply)
    job = json.loads(reply.body)
    assert job["status"] == "CANCELLED"
    assert "ttl" in job["error"]["message"]
    cloud.advance(5)
    cloud.ask("GET", cloud.url(), status=404)
    assert cloud.virtual.journal == {}


def test_an_expiry_follows_the_wall_clock_and_not_the_time_that_passed() -> None:
    offset = [0.0]
    engine = Engine(now=0.0, wall=lambda now: now + offset[0])
    engine.mount(LocalEmulator(engine))
    engine.deployments.create("d", "local", DeploymentTerms(launch=Launch(argv=("x",)), expires_at=100.0), 0.0)
    engine.tick(0.0)
    offset[0] = -50.0  # the clock was set back
    engine.tick(100.0)
    assert engine.deployment_ids() == ["d"]
    assert engine.next_due() == 150.0
    offset[0] = 10.0  # it was set forward, or the machine slept: told, it does not wait for what it had planned
    engine.deployments.clock_was_set(100.0)
    engine.tick(100.0)
    assert engine.deployment_ids() == []


def test_deleting_says_whether_it_was_the_last_and_workers_end_first(make_cloud: Any) -> None:
    cloud = make_cloud(Behavior(stop=1.0))
    cloud.deploy("one", workers={"min": 1, "max": 1})
    cloud.deploy("two")
    cloud.advance(2)
    assert cloud.ask("DELETE", cloud.url("one")) == {"deleted": True, "last": False}
    assert cloud.show("one")["state"] == "DELETING"
    exists = cloud.ask("PUT", cloud.url("one"), cloud.body("one"), status=412, if_none_match="*")
    assert exists["deployment"]["state"] == "DELETING"
    cloud.advance(2)
    cloud.ask("GET", cloud.url("one"), status=404)
    assert cloud.ask("DELETE", cloud.url("one")) == {"deleted": False, "last": False}
    assert cloud.ask("DELETE", cloud.url("two")) == {"deleted": True, "last": True}
    assert cloud.ask("DELETE", cloud.url("two")) == {"deleted": False, "last": True}
    assert cloud.ask("GET", cloud.url("two", "/jobs/j1"), status=404)["error"]["type"] == "gone"
    assert cloud.virtual.journal == {}


def test_deleting_ends_jobs_and_held_requests(make_cloud: Any) -> None:
    cloud = make_cloud(Behavior(cold_start=30.0))
    cloud.deploy("web", interface="http")
    cloud.deploy()
    cloud.submit("j1")
    held = cloud.begin("GET", cloud.url("web", "/http/x"))
    cloud.ask("DELETE", cloud.url("web"))
    reply = held.poll(cloud.now)
    assert isinstance(reply, Reply)
    assert (reply.status, dict(reply.headers)["x-unigpu-error"]) == (404, "gone")
    poll = cloud.begin("GET", cloud.url(rest="/jobs/j1"), query={"wait": "60"})
    cloud.ask("DELETE", cloud.url())
    assert json.loads(poll.poll(cloud.now).body)["status"] == "CANCELLED"


def test_a_change_that_cannot_be_recorded_is_taken_back(make_cloud: Any) -> None:
    cloud = make_cloud()
    engine = cloud.engine

    def on_a_full_disk(method: str, path: str, body: Any = None, **headers: str) -> None:
        engine.handle(cloud.http_call(method, path, body, **headers), cloud.now)
        for effect in engine.tick(cloud.now):
            if isinstance(effect, Persist) and effect.kind.startswith("deployment"):
                engine.undo_persist(effect, cloud.now)
            elif not isinstance(effect, Persist):
                cloud.virtual.simulation.carry_out(effect, cloud.now)
        cloud.virtual.step(cloud.now)

    on_a_full_disk("PUT", cloud.url("new"), cloud.body("new", workers={"min": 1, "max": 1}), if_none_match="*")
    cloud.advance(5)
    cloud.ask("GET", cloud.url("new"), status=404)
    (bill,) = cloud.ask("GET", "/v1/meter")["deployments"].values()
    assert bill["workers_running"] == 0
    cloud.deploy(workers={"min": 1, "max": 1})
    cloud.submit("j1")
    cloud.finish("j1")
    before = cloud.show()
    on_a_full_disk("PATCH", cloud.url(), {"workers": {"min": 0, "max": 9}, "idle_timeout": 1})
    on_a_full_disk("PUT", cloud.url(), cloud.body(launch={"handler": "b:c"}), if_match="a1")
    on_a_full_disk("POST", cloud.url(rest="/stop"))
    on_a_full_disk("DELETE", cloud.url())
    cloud.advance(20)
    assert cloud.show() == before
    assert cloud.job("j1")["status"] == "DONE"
    assert restarted(cloud).job("j1")["status"] == "DONE"


def test_lists_lag_and_reads_do_not(make_cloud: Any) -> None:
    cloud = make_cloud(list_lag=10.0)
    cloud.deploy()
    assert cloud.ask("GET", "/v1/deployments")["deployments"] == []
    assert cloud.show()["state"] == "COLD"
    cloud.advance(11)
    assert len(cloud.ask("GET", "/v1/deployments")["deployments"]) == 1
    cloud.ask("DELETE", cloud.url())
    assert len(cloud.ask("GET", "/v1/deployments")["deployments"]) == 1  # it does not know yet
    cloud.ask("GET", cloud.url(), status=404)
    cloud.advance(11)
    assert cloud.ask("GET", "/v1/deployments")["deployments"] == []


def test_reads_lag_too_when_asked_and_a_lag_can_be_drawn_from_the_seed(make_cloud: Any) -> None:
    cloud = make_cloud(list_lag=lambda random: random.uniform(5, 20), read_lag=True)
    cloud.deploy()
    cloud.ask("GET", cloud.url(), status=404)
    cloud.advance(21)
    assert cloud.show()["state"] == "COLD"


def test_a_fault_before_leaves_nothing_and_a_fault_after_leaves_the_thing(cloud: Any) -> None:
    faults = cloud.engine.faults
    before = faults.add("local.deployment.put", when="before", reply="drop")
    put = ("PUT", cloud.url(), cloud.body())
    assert cloud.raw(*put, if_none_match="*") == Dropped(how="drop")
    assert before.hits == 1
    cloud.ask("GET", cloud.url(), status=404)
    faults.add("local.deployment.put", when="after", reply="timeout")
    assert cloud.raw(*put, if_none_match="*") == Dropped(how="timeout")
    assert cloud.show()["state"] == "COLD"
    faults.add("local.deployment.get", reply=503, times=2)
    assert [cloud.raw("GET", cloud.url()).status for _ in range(3)] == [503, 503, 200]
    faults.add("local.*", reply=Reply(status=418), times=None, match=lambda call: call.method == "DELETE")
    assert cloud.raw("DELETE", cloud.url()).status == 418
    assert cloud.raw("GET", cloud.url()).status == 200
    faults.clear()
    assert cloud.raw("DELETE", cloud.url()).status == 200


def test_a_fault_after_a_held_answer_strikes_when_it_comes(cloud: Any) -> None:
    cloud.deploy()
    cloud.submit("j1")
    cloud.engine.faults.add("local.job.get", when="after", reply=502)
    assert cloud.raw("GET", cloud.url(rest="/jobs/j1"), query={"wait": "60"}).status == 502
    assert cloud.job("j1")["status"] == "DONE"


def restarted(cloud: Any, **settings: Any) -> Any:
    """Another engine from the first one's journal, at the same moment."""
    records = list(cloud.virtual.journal.values())
    other = type(cloud)(**settings)
    other.virtual.advance(cloud.now - other.now)
    other.virtual.journal.update(cloud.virtual.journal)
    other.engine.restore(records, other.now)
    other.virtual.step(other.now)
    return other


def test_after_a_crash_deployments_are_back_cold_and_open_jobs_are_failed(make_cloud: Any) -> None:
    cloud = make_cloud(Behavior(duration=lambda x: x.get("s", 1.0)))
    cloud.deploy(workers={"min": 0, "max": 1}, idle_timeout=7, concurrency=2, origin="/home/me/x")
    cloud.submit("done", {"a": 1})
    done = cloud.finish("done")
    cloud.submit("running", {"s": 500})
    cloud.submit("running2", {"s": 500})
    cloud.submit("queued")
    cloud.advance(5)
    before = cloud.show()
    other = restarted(cloud)
    shown = other.show()
    assert shown == before | {
        "state": "COLD", "ready_workers": 0, "workers_total": 0, "queued": 0, "running": 0
    }  # fmt: skip
    assert other.job("done") == done | {"ready_workers": 0}
    for id in ("running", "running2", "queued"):
        job = other.job(id)
        assert (job["status"], job["lost"], job["error"]["message"]) == ("FAILED", True, "supervisor restarted")
    assert other.submit("done", {"a": 1})["output"] == {"a": 1}  # the same job, also after the crash
    other.submit("new")
    assert other.finish("new")["status"] == "DONE"
    other.advance(3600)
    other.ask("GET", other.url(rest="/jobs/done"), status=404)


def test_after_a_crash_a_least_of_workers_and_an_expiry_still_hold(make_cloud: Any) -> None:
    cloud = make_cloud()
    cloud.deploy(workers={"min": 1, "max": 1}, expires_at=1_000_000 + 100)
    cloud.deploy("paused")
    cloud.ask("POST", cloud.url("paused", "/stop"))
    cloud.advance(50)
    other = restarted(cloud)
    other.advance(2)
    assert other.show()["state"] == "READY"
    assert other.show("paused")["state"] == "STOPPED"
    other.advance(50)
    other.ask("GET", other.url(), status=404)


def test_secrets_lost_with_the_supervisor_are_said_until_it_is_deployed_again(make_cloud: Any) -> None:
    cloud = make_cloud()
    launch = cloud.body()["launch"] | {"env": {"KEY": SECRET}}
    body = cloud.body(launch=launch, spec={"secrets": ["KEY"]}, workers={"min": 1, "max": 1})
    cloud.ask("PUT", cloud.url(), body, status=201, if_none_match="*")
    cloud.advance(5)
    other = restarted(cloud)
    other.advance(10)
    shown = other.show()
    assert (shown["state"], shown["secrets_lost"]) == ("COLD", ["KEY"])
    assert "deploy it again" in shown["reason"]
    assert other.submit("j1")["error"]["reason"] == "secrets_lost"
    assert "StartWorker" not in other.virtual.effects
    again = restarted(other)  # twice, and still known
    assert again.show()["secrets_lost"] == ["KEY"]
    again.ask("PUT", again.url(), body, if_match="a1")
    again.submit("j2")
    assert again.finish("j2")["status"] == "DONE"
    assert again.show()["secrets_lost"] == []


def test_a_record_of_a_later_release_does_not_stop_the_others(make_cloud: Any) -> None:
    cloud = make_cloud()
    cloud.deploy()
    records = [Persist(kind="moon", id="x"), *cloud.virtual.journal.values(), Persist(kind="job", id="y", record={})]
    records.append(Persist(kind="deployment", id="torn", record={"terms": 7}))
    records.append(Persist(kind="job", id="torn", record={"deployment": cloud.show()["id"], "status": "moon"}))
    other = make_cloud()
    other.engine.restore(records, 0.0)
    assert len(other.engine.deployment_ids()) == 1


@pytest.mark.parametrize("host", ["evil.example", "", "127.0.0.1.evil.example", "10.0.0.1"])
def test_only_loopback_host_names_are_answered(cloud: Any, host: str) -> None:
    call = HttpCall(method="GET", path="/v1/health", headers={"authorization": "Bearer t0ken"}, host=host)
    assert cloud.virtual.call(call).status == 403


@pytest.mark.parametrize("header", [{}, {"authorization": "Bearer wrong"}, {"authorization": "t0ken"}])
@pytest.mark.parametrize("path", ["/v1/health", "/v1/deployments", "/v1/deployments/x/http/y", "/v1/nowhere"])
def test_every_route_needs_the_token(cloud: Any, header: dict[str, str], path: str) -> None:
    reply = cloud.virtual.call(HttpCall(method="GET", path=path, headers=header, host="127.0.0.1"))
    assert reply.status in (401, 501)
    assert reply.status == 401 or path == "/v1/nowhere"


def test_a_route_that_is_not_there_is_501_with_its_name(cloud: Any) -> None:
    for method, path in [
        ("GET", "/v2/deployments"), ("POST", "/v1/deployments"), ("PUT", cloud.url(rest="/jobs")), ("GET", "/")
    ]:  # fmt: skip
        error = cloud.ask(method, path, status=501)["error"]
        assert f"{method} {path}" in error["message"]


def test_a_face_is_found_by_host_by_path_or_alone() -> None:
    engine = Engine(now=0.0)
    engine.mount(LocalEmulator(engine, info={"pid": 7}))

    def health(path: str) -> Reply:
        answer = engine.handle(HttpCall(method="GET", path=path, host="localhost"), 0.0)
        assert isinstance(answer, Reply)
        return answer

    assert json.loads(health("/v1/health").body) == {"protocol": 1, "pid": 7}
    assert health("/local/v1/health").status == 200


def test_logs_are_numbered_bounded_and_followed(make_cloud: Any) -> None:
    cloud = make_cloud(Behavior(lines=(*(f"line {n}" for n in range(50)), "x" * 10_000)), log_lines=20)
    cloud.deploy(workers={"min": 1, "max": 1})
    cloud.advance(2)
    worker = cloud.workers()[0]["id"]
    page = cloud.ask("GET", cloud.url(rest=f"/workers/{worker}/logs"))
    assert [line["n"] for line in page["lines"]] == list(range(32, 52))
    assert len(page["lines"][-1]["text"]) < 8100
    assert cloud.ask("GET", cloud.url(rest=f"/workers/{worker}/logs"), query={"after": "50"})["lines"][0]["n"] == 51
    began = cloud.now
    empty = cloud.ask("GET", cloud.url(rest=f"/workers/{worker}/logs"), query={"after": "51", "wait": "9"})
    assert (empty["lines"], empty["after"], cloud.now) == ([], 51, began + 9)
    cloud.ask("GET", cloud.url(rest="/workers/nobody/logs"), status=404)


def test_the_same_seed_gives_the_same_run(make_cloud: Any) -> None:
    def run() -> list[Any]:
        cloud = make_cloud(list_lag=lambda random: random.random())
        cloud.deploy(workers={"min": 2, "max": 2})
        cloud.advance(3)
        return [cloud.workers(), cloud.show()]

    assert run() == run()
