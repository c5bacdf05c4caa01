"""What is written for Vast and read back from it: variables, searches, states, addresses."""

from __future__ import annotations

import base64
import json
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from vast_world import FIELDS, Account, Script, ready

from unigpu import Client
from unigpu.driver import State, WorkerState
from unigpu.errors import InvalidRequestError, InvalidResponseError, UnsupportedError, WorkerLost
from unigpu.providers.vast import VastDriver, docker_flags, instances, market, translate
from unigpu.providers.vast.options import SpecOptions
from unigpu.providers.vast.wire import EndpointWire, InstanceWire, WorkerWire

NAMES = st.from_regex(r"[A-Z_][A-Z0-9_]{0,20}", fullmatch=True)
TEXTS = st.text(max_size=60) | st.sampled_from(
    ["", "a b", "'", '"', "-e X=1", "x\n-e Y=2", "$HOME", "`id`", "a;b", "a&b", "\\", "{}", "~", "#c", "!x", "*", "a=b"]
)


@given(st.dictionaries(NAMES, TEXTS, max_size=6))
def test_a_variable_comes_back_as_it_was_or_is_refused(env: dict[str, str]) -> None:
    bad = docker_flags.fragile(env)
    good = {name: text for name, text in env.items() if name not in bad}
    assert docker_flags.read(docker_flags.flags(good, (3000,))) == good
    for name in bad:
        assert any(not (c.isalnum() and c.isascii()) for c in env[name])


@given(st.text(alphabet=st.characters(codec="ascii", min_codepoint=32, max_codepoint=126), max_size=1500))
def test_a_long_constant_of_an_instance_comes_back_whole(text: str) -> None:
    env = docker_flags.parted({"UNIGPU_SPEC": text, "UNIGPU_NAME": "x"})
    assert all(len(name) + len(value) + 1 <= docker_flags.ENTRY for name, value in env.items())
    for shown in (env, [[name, value] for name, value in env.items()], [f"{n}={v}" for n, v in env.items()]):
        assert docker_flags.read(shown) == {"UNIGPU_SPEC": text, "UNIGPU_NAME": "x"}


@pytest.mark.parametrize("shown", [None, 3, [], {}, "", [1, [2], ["a"]], "-e", "-p 3000:3000 -e"])
def test_what_is_no_environment_has_no_variables(shown: Any) -> None:
    assert docker_flags.read(shown) == {}


def test_both_of_vasts_languages_say_the_same_in_their_own_units() -> None:
    conditions = [market.Condition("gpu_ram", "gte", 79000), market.Condition("gpu_name", "in", ["A100 SXM4"])]
    assert market.as_json(conditions) == {"gpu_ram": {"gte": 79000}, "gpu_name": {"in": ["A100 SXM4"]}}
    assert market.as_text(conditions) == "gpu_ram>=79 gpu_name=A100_SXM4"


@pytest.mark.parametrize(
    ("told", "wrong"),
    [
        (None, False), ({}, False), ("dph_total<=1", False), ({"dph_total": {"lte": 1.0}}, False),
        ({"dph_total": {"lte": 1000}}, True), ({"gpu_name": {"in": []}}, True), ({"dph_total": {}}, True),
    ],
)  # fmt: skip
def test_a_price_that_was_read_otherwise_is_seen(told: Any, wrong: bool) -> None:
    conditions = market.machines(None, max_price=1.0, regions=None, options=SpecOptions())
    assert (market.contradicts(told, conditions) is not None) == wrong


STATES = {
    "pending": "PLACING", "creating": "PLACING", "created": "PLACING", "loading": "STARTING", "starting": "STARTING",
    "model_loading": "STARTING", "idle": "IDLE", "stopping": "STOPPED", "stopped": "STOPPED", "rebooting": "STARTING",
    "update_ready": "STARTING", "update_rebooting": "STARTING", "update_starting": "STARTING", "error": "FAILED",
    "destroying": "EXITED", "unavail": "EXITED", "Idle": "IDLE", "frobnicating": "UNKNOWN",
}  # fmt: skip


@pytest.mark.parametrize(("word", "state"), STATES.items())
def test_each_state_of_a_worker_is_one_of_ours(word: str, state: str) -> None:
    assert translate.worker_state(WorkerWire(id=1, status=word)) is WorkerState(state)


def test_an_idle_worker_without_a_benchmark_is_not_ready() -> None:
    assert translate.worker_state(WorkerWire(id=1, status="idle", measured_perf=0.0)) is WorkerState.STARTING
    busy = WorkerWire(id=1, status="idle", measured_perf=9.0, reqs_working=2)
    assert translate.worker_of(busy).jobs_running == 2
    assert translate.worker_of(busy).state is WorkerState.BUSY


@pytest.mark.parametrize(
    ("word", "least", "workers", "state"),
    [
        ("active", 0, [], "COLD"), ("active", 1, [], "STARTING"), ("active", 0, ["stopped"], "COLD"),
        ("active", 0, ["loading", "idle"], "READY"), ("active", 0, ["error"], "STARTING"),
        ("stopped", 1, ["idle"], "STOPPED"), ("suspended", 0, ["idle"], "READY"), ("newword", 0, ["idle"], "UNKNOWN"),
        ("active", 0, ["newword"], "UNKNOWN"), ("active", 0, None, "UNKNOWN"),
    ],
)  # fmt: skip
def test_an_endpoints_state_is_its_own_word_and_its_workers(
    word: str, least: int, workers: list[str] | None, state: str
) -> None:
    wires = None if workers is None else [WorkerWire(id=n, status=one) for n, one in enumerate(workers)]
    assert translate.endpoint_state(word, least, wires)[0] is State(state)


def test_an_endpoint_that_vast_will_delete_says_so() -> None:
    wire = EndpointWire(
        id=1, endpoint_name="x", max_workers=1, auto_delete_due_24h=True, created_at="2026-01-02T03:04:05Z"
    )
    info = translate.endpoint_info(wire, template=None, group=None, workers=())
    assert "24 h" in (info.reason or "")
    assert info.created_at == 1767323045.0
    assert not info.ours


@pytest.mark.parametrize(
    ("ports", "ip", "url"),
    [
        ({"8000/tcp": [{"HostIp": "0.0.0.0", "HostPort": "33526"}]}, " 65.130.162.74 ", "http://65.130.162.74:33526"),
        (None, "65.130.162.74", None),
        ([8000], "65.130.162.74", None),
        ({"22/tcp": [{"HostPort": "1"}]}, "65.130.162.74", None),
        ({"8000/tcp": [{"HostPort": "x"}]}, "65.130.162.74", None),
        ({"8000/tcp": [{"HostPort": "99999"}]}, "65.130.162.74", None),
        ({"8000/tcp": []}, "65.130.162.74", None),
        ({"8000/tcp": [{"HostPort": "33526"}]}, None, None),
        ({"8000/tcp": [{"HostPort": "33526"}]}, "2001:db8::1", "http://[2001:db8::1]:33526"),
    ],
)
def test_a_machines_address_is_in_its_port_map(ports: Any, ip: str | None, url: str | None) -> None:
    assert instances.address_of(InstanceWire(id=1, ports=ports, public_ipaddr=ip), 8000) == url


@pytest.mark.parametrize(
    ("place", "code"), [("Texas, US", "US"), (", US", "US"), ("Sweden, SE", "SE"), ("", None), (None, None)]
)
def test_a_country_is_the_last_word_of_a_place(place: str | None, code: str | None) -> None:
    assert market.country(place) == code


def test_every_console_call_keeps_vasts_interval(client: Client, account: Account) -> None:
    """What is asked more often than its rate is a 429; so each has a rate of its own."""
    app = client.deploy(**FIELDS, wait="worker")
    client.scale(app, (0, 2))
    client.teardown(app)
    assert set(VastDriver.limits) >= {f"vast.{kind}.{verb}" for kind, verb in (
        ("endpoint", "create"), ("endpoint", "list"), ("endpoint", "get"), ("endpoint", "put"), ("endpoint", "delete"),
        ("workergroup", "create"), ("workergroup", "list"), ("template", "create"), ("template", "search"),
        ("instance", "list"),
    )}  # fmt: skip
    assert all(0.2 <= limit.rate <= 1.0 and limit.burst == 1 for limit in VastDriver.limits.values())


HTTP: dict[str, Any] = {
    "name": "llm", "interface": "http", "image": "vastai/vllm:1", "gpu": "RTX 4090", "max_price": 1.0, "port": 8000,
    "provider_options": {"vast": {"runtype": "ssh", "onstart": "entrypoint.sh"}},
}  # fmt: skip


def test_a_server_behind_pyworker_gets_the_json_of_a_post_and_answers_itself(
    client: Client, account: Account, script: Script
) -> None:
    app = client.deploy(**HTTP, wait=False)
    (template,) = account.bodies("POST", "/api/v0/template/")
    assert (template["runtype"], template["onstart"]) == ("ssh", "entrypoint.sh")
    assert "-e PORT=8000" in template["env"]
    script.route = ready()
    for status, body in (
        (200, {"id": "c1"}), (400, {"error": "too long"}), (500, {"error": "out of memory"}),
        (422, {"detail": [{"loc": ["body", "model"], "msg": "field required"}]}), (429, {"error": "your quota"}),
        (503, {"error": "the model is reloaded"}), (401, {"error": "no such user"}),
    ):  # fmt: skip
        script.worker = (status, body)
        reply = client.request(app, "POST", "/v1/completions", json={"prompt": "hi"})
        assert (reply.status, reply.json()) == (status, body)
    (*_, sent) = account.to_workers
    assert sent.url.path == "/v1/completions"
    assert json.loads(sent.content)["payload"] == {"prompt": "hi"}
    for method, path, more in (
        ("GET", "/v1/models", {}),
        ("POST", "/x?y=1", {"json": {}}),
        ("POST", "/x", {"content": b"[]"}),
    ):
        with pytest.raises(UnsupportedError, match="PyWorker"):
            client.request(app, method, path, **more)


def test_a_busy_server_is_waited_for_and_one_that_is_lost_is_told(
    client: Client, account: Account, script: Script
) -> None:
    app = client.deploy(**HTTP, wait=False)
    script.route = ready()
    script.worker = [(429, b""), (200, {"ok": True})]
    assert client.request(app, "POST", "/v1/completions", json={}).json() == {"ok": True}
    events = b'data: {"n": 1}\n\ndata: [DONE]\n\n'
    headers = {"content-type": "text/event-stream"}
    script.worker = lambda request: httpx.Response(200, content=events, headers=headers, request=request)
    with client.request(app, "POST", "/v1/completions", json={"stream": True}, stream=True) as stream:
        assert b"".join(stream) == events


SERVER: dict[str, Any] = {
    "name": "server", "interface": "http", "image": "me/server:1", "gpu": "RTX 4090", "max_price": 1.0, "port": 8000,
    "command": ["python", "server.py"],
}  # fmt: skip


def test_a_server_s_own_command_is_started_behind_pyworker_and_gets_any_request(
    client: Client, account: Account, script: Script
) -> None:
    client.deploy(**SERVER, wait=False)
    (template,) = account.bodies("POST", "/api/v0/template/")
    assert template["args_str"] == "/opt/pyworker/bin/python -I -m unigpu.worker.pyworker python server.py"
    script.route = ready()
    answered = {"x-unigpu-http": "1", "etag": '"7"', "content-type": "text/plain"}
    script.worker = lambda request: httpx.Response(404, content=b"none", headers=answered, request=request)
    reply = client.request("server", "PUT", "/v1/things/3?x=1", content=b"\x00raw", headers={"x-mine": "1"})
    assert (reply.status, reply.content, reply.headers["etag"]) == (404, b"none", '"7"')
    (*_, sent) = account.to_workers
    assert sent.url.path == "/unigpu/http"
    payload = json.loads(sent.content)["payload"]
    assert (payload["method"], payload["target"]) == ("PUT", "/v1/things/3?x=1")
    assert base64.b64decode(payload["content"]) == b"\x00raw"
    assert ["x-mine", "1"] in payload["headers"]


def test_behind_pyworker_only_what_the_server_said_is_its_answer(
    client: Client, account: Account, script: Script
) -> None:
    app = client.deploy(**SERVER, wait=False)
    script.route = ready()
    good = lambda request: httpx.Response(200, content=b"x", headers={"x-unigpu-http": "1"}, request=request)  # noqa: E731 - one line
    script.worker = [(503, {"error": "the server does not listen"}), (429, b""), good]
    assert client.request(app, "GET", "/").content == b"x"
    for answer, error in (
        ((404, b""), InvalidRequestError),
        ((200, b"?"), InvalidResponseError),
        ((502, b""), WorkerLost),
    ):
        script.worker = answer
        script.dialled.clear()
        with pytest.raises(error):
            client.request(app, "POST", "/", json={})
        assert len(script.dialled) == 1


def test_an_image_that_starts_pyworker_by_itself_gets_its_command_as_it_is(client: Client, account: Account) -> None:
    client.deploy(**SERVER, provider_options={"vast": {"pyworker": "image"}}, wait=False)
    (template,) = account.bodies("POST", "/api/v0/template/")
    assert template["args_str"] == "python server.py"
    with pytest.raises(UnsupportedError, match="PyWorker"):
        client.request("server", "GET", "/")


def test_an_image_that_is_not_ours_is_called_at_its_route(client: Client, account: Account, script: Script) -> None:
    fields = {**FIELDS, "name": "tgi", "provider_options": {"vast": {"route": "/generate"}}}
    del fields["handler"]
    app = client.deploy(**fields, wait=False)
    script.route = ready()
    script.worker = (200, [{"generated_text": "…"}])
    assert client.invoke(app, {"inputs": "hi"}).output == [{"generated_text": "…"}]
    assert account.to_workers[-1].url.path == "/generate"
    assert json.loads(account.to_workers[-1].content)["payload"] == {"inputs": "hi"}
    script.worker = (200, b'data: {"token": 1}\n\n: keep-alive\n\ndata: {"token": 2}\n\ndata: [DONE]\n\n')
    with client.stream(app, {"inputs": "hi"}) as stream:
        assert list(stream) == [{"token": 1}, {"token": 2}]
    assert json.loads(account.to_workers[-1].content)["payload"] == {"inputs": "hi", "stream": True}


def test_before_there_is_a_machine_the_log_is_the_engines(client: Client, account: Account) -> None:
    app = client.deploy(**FIELDS)
    lines = list(client.logs(app))
    assert account.of("POST", "/get_endpoint_logs/")
    assert all(line.stream == "system" for line in lines)
