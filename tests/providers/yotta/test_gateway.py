"""Calls on a held connection: where the key goes, and what an answer means that the gateway may have given."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

import pytest
from pydantic import SecretStr
from yotta_script import ENDPOINT, KEY, Scripted, driver, reply

from unigpu import errors
from unigpu.driver import CallClass, DeploymentInfo, Headers, HTTPCall, Invocation, Request, Response, State

EP = "/v2/serverless/378888638324150969"
DOMAIN = "39q67x443xvy.yottadeos.com"
ALB = {**ENDPOINT, "serviceMode": "ALB", "domain": DOMAIN}
INFO = DeploymentInfo(
    provider="yotta", name="summarize", provider_name="summa-ugabcdefghijkl", id="378888638324150969", port=8000,
    state=State.READY, raw_state="RUNNING", url=f"https://{DOMAIN}", details={"service_mode": "ALB"},
)  # fmt: skip
SERVER = INFO.model_copy(update={"interface": "http"})
POD = INFO.model_copy(update={"kind": "pod", "id": "789", "url": "https://pod-789.yottadeos.com", "details": {}})
UNTIL = 1e9


def call(**more: Any) -> Invocation:
    given: dict[str, Any] = {"job_id": "a" * 32, "deadline": UNTIL, "start_deadline": UNTIL, "execution_timeout": 600}
    return Invocation(input={"n": 1}, **{**given, **more})


def raw(status: int, body: Any = None) -> Response:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    return Response(status=status, headers=Headers(), content=content)


def endpoint(**more: Any) -> Response:
    return reply({**ALB, **more})


def invoke(cloud: Scripted, info: DeploymentInfo = INFO, **more: Any) -> Any:
    return cloud.run(driver().submit(cloud.io, info, call(**more)))


async def _request(cloud: Scripted, info: DeploymentInfo, **more: Any) -> tuple[int, bytes]:
    given: dict[str, Any] = {"method": "GET", "target": "/v1/models", "deadline": UNTIL, "hold": 0.0}
    async with driver().request(cloud.io, info, HTTPCall(**{**given, **more})) as answer:
        return answer.status, await answer.read()


def ask(cloud: Scripted, info: DeploymentInfo = SERVER, **more: Any) -> tuple[int, bytes]:
    return cloud.run(_request(cloud, info, **more))


def by_host(host: str, answer: Any) -> Mapping[str, Any]:
    """Routes of a worker's side, whatever the host."""
    return {f"{method} /{path}": answer for method, path in (("POST", "invoke"), ("GET", "v1/models"))}


def test_a_call_of_an_alb_endpoint_is_our_envelope_with_the_accounts_key(script: Callable[..., Scripted]) -> None:
    cloud = script({"POST /invoke": raw(200, {"output": {"got": 1}, "execution_s": 0.5})})
    result = invoke(cloud)
    assert (result.output, result.timing.execution) == ({"got": 1}, 0.5)
    (asked,) = cloud.asked
    headers = dict(asked.headers)
    assert asked.url == f"https://{DOMAIN}/invoke"
    assert asked.json == {"input": {"n": 1}}
    assert headers["authorization"] == f"Bearer {KEY}"
    assert headers["x-unigpu-job"] == "a" * 32
    assert "x-api-key" not in headers
    assert (asked.role, asked.call) == ("worker", CallClass.USER_DECIDES)
    invoke(cloud, idempotent=True)
    assert cloud.asked[-1].call is CallClass.IDEMPOTENT


def test_the_key_goes_to_the_control_plane_and_to_the_gateway_that_it_named_and_nowhere_else(
    script: Callable[..., Scripted],
) -> None:
    asked: list[Request] = []
    hosts = {f"https://{DOMAIN}", "https://api.yottalabs.ai"}
    for info, row in ((INFO, ALB), (SERVER, ALB), (POD, None)):
        cloud = script(
            {
                "POST /invoke": raw(200, {"output": 1}),
                "GET /v1/models": raw(200, {}),
                f"GET {EP}": endpoint(**(row or {})),
                "GET /v2/pods/789": reply({"id": 789, "name": "p", "status": "RUNNING"}),
            }
        )
        invoke(cloud, info)
        ask(cloud, info)
        asked += cloud.asked
    for request in asked:
        origin = "/".join(request.url.split("/")[:3])
        shown = KEY in str(request.headers) + str(request.json) + str(request.params) + request.url
        assert shown == (origin in hosts), request.url
        assert KEY not in request.url + repr(request)


def test_another_gateway_named_by_the_control_plane_that_is_none_gets_no_key(script: Callable[..., Scripted]) -> None:
    unknown = INFO.model_copy(update={"url": None})
    for domain in ("http://plain.example.com", "user@evil.example.com", "evil.example.com/path", ""):
        cloud = script({f"GET {EP}": endpoint(domain=domain)})
        with pytest.raises(errors.NoWorkerReady):
            invoke(cloud, unknown)
        assert cloud.operations == ["yotta.endpoint.get"]


def test_a_handlers_failure_is_no_gateways(script: Callable[..., Scripted]) -> None:
    cloud = script({"POST /invoke": raw(200, {"error": {"type": "ValueError", "message": "no such page"}})})
    with pytest.raises(errors.JobFailed) as caught:
        invoke(cloud)
    assert (caught.value.error_type, caught.value.error_message) == ("ValueError", "no such page")
    assert not isinstance(caught.value, errors.WorkerLost)


@pytest.mark.parametrize(("status", "kind"), [(429, "busy"), (503, "loading"), (503, "draining"), (503, "expired")])
def test_a_worker_that_takes_no_call_has_not_run_it(script: Callable[..., Scripted], status: int, kind: str) -> None:
    cloud = script({"POST /invoke": raw(status, {"error": {"type": kind, "message": "not now"}})})
    with pytest.raises(errors.NoWorkerReady) as caught:
        invoke(cloud)
    assert caught.value.maybe_executed is False
    assert len(cloud.asked) == 1


NOT_THERE = [
    (status, state)
    for status in (404, 502, 503, 504)
    for state in ({"status": "STOPPED", "runningWorkers": 0}, {"status": "INITIALIZING", "runningWorkers": 0})
] + [(503, {"status": "RUNNING", "runningWorkers": 0}), (404, {"status": "STOPPING"})]


@pytest.mark.parametrize(("status", "state"), NOT_THERE)
@pytest.mark.parametrize("body", [b"", b"<html>bad gateway</html>", b'{"code": 1}'])
def test_after_an_answer_that_a_gateway_may_give_the_control_plane_is_asked(
    script: Callable[..., Scripted], status: int, state: dict[str, Any], body: bytes
) -> None:
    for use in (invoke, ask):
        cloud = script({**by_host(DOMAIN, raw(status, body)), f"GET {EP}": endpoint(**state)})
        with pytest.raises(errors.NoWorkerReady) as caught:
            use(cloud, INFO if use is invoke else SERVER, idempotent=state["status"] == "INITIALIZING")
        assert caught.value.maybe_executed is False


@pytest.mark.parametrize("status", [404, 502, 503, 504])
def test_where_the_control_plane_cannot_be_asked_the_servers_answer_stands(
    script: Callable[..., Scripted], status: int
) -> None:
    for answer in (reply(code=429), reply(code=10002), raw(502, b"")):
        cloud = script({**by_host(DOMAIN, raw(status, b"mine")), f"GET {EP}": answer})
        assert ask(cloud) == (status, b"mine")
        with pytest.raises(errors.APIStatusError) as caught:
            invoke(cloud)
        assert caught.value.status == status


@pytest.mark.parametrize("status", [502, 504])
@pytest.mark.parametrize(
    "state",
    [{"status": "RUNNING"}, {"status": "STOPPING"}, {"status": "RUNNING", "runningWorkers": 0},
     {"status": "INITIALIZING", "runningWorkers": 0}],
)  # fmt: skip
def test_a_worker_that_broke_off_may_have_run_it(
    script: Callable[..., Scripted], status: int, state: dict[str, Any]
) -> None:
    cloud = script({"POST /invoke": raw(status, b""), f"GET {EP}": endpoint(**state)})
    with pytest.raises(errors.WorkerLost) as caught:
        invoke(cloud)
    assert caught.value.maybe_executed is True


@pytest.mark.parametrize("status", [200, 201, 302, 401, 404, 429, 500, 502, 503])
def test_what_the_users_own_server_says_is_handed_on(script: Callable[..., Scripted], status: int) -> None:
    cloud = script({"GET /v1/models": raw(status, b"as it is"), f"GET {EP}": endpoint()})
    assert ask(cloud) == (status, b"as it is")
    assert cloud.asked[0].foreign


def test_a_header_that_the_gateway_takes_for_itself_is_refused_before_anything_is_sent(
    script: Callable[..., Scripted],
) -> None:
    cloud = script({})
    with pytest.raises(errors.UnsupportedError, match="gateway takes it for the account's key"):
        ask(cloud, headers=(("authorization", "Bearer mine"),))
    assert cloud.asked == []


def test_a_stopped_one_is_asked_for_nothing(script: Callable[..., Scripted]) -> None:
    stopped = INFO.model_copy(update={"state": State.STOPPED})
    cloud = script({f"GET {EP}": endpoint(status="STOPPED", runningWorkers=0)})
    with pytest.raises(errors.NoWorkerReady):
        invoke(cloud, stopped)
    assert cloud.operations == ["yotta.endpoint.get"]


def test_a_name_that_is_gone_while_it_is_stopped_is_no_lost_answer(script: Callable[..., Scripted]) -> None:
    def refuse(_: Request) -> Response:
        raise errors.TransportError("no such name", never_sent=True)

    def breaks(_: Request) -> Response:
        raise errors.TransportError("broke")

    cloud = script({"POST /invoke": refuse, f"GET {EP}": endpoint(status="STOPPED", runningWorkers=0)})
    with pytest.raises(errors.NoWorkerReady):
        invoke(cloud)
    cloud = script({"POST /invoke": refuse, f"GET {EP}": endpoint()})
    with pytest.raises(errors.TransportError):
        invoke(cloud)
    cloud = script({"POST /invoke": breaks})
    with pytest.raises(errors.TransportError) as caught:
        invoke(cloud)
    assert caught.value.maybe_executed is True
    assert len(cloud.asked) == 1


@pytest.mark.parametrize("answer", [reply(code=14000), reply({**ALB, "status": "TERMINATED"})])
def test_one_that_is_gone_is_gone(script: Callable[..., Scripted], answer: Response) -> None:
    cloud = script({"POST /invoke": raw(404, b""), f"GET {EP}": answer})
    with pytest.raises(errors.DeploymentGone) as caught:
        invoke(cloud)
    assert caught.value.maybe_executed is False


def test_nobody_can_call_a_custom_endpoint(script: Callable[..., Scripted]) -> None:
    custom = INFO.model_copy(update={"details": {"service_mode": "CUSTOM"}, "url": None})
    cloud = script({})
    with pytest.raises(errors.UnsupportedError, match="CUSTOM endpoint has workers that nobody can call") as caught:
        invoke(cloud, custom)
    assert (caught.value.capability, bool(caught.value.source)) == ("invoke", True)
    with pytest.raises(errors.UnsupportedError):
        ask(cloud, custom)
    assert cloud.asked == []


def test_a_pod_gets_its_own_token_and_only_over_an_encrypted_line(script: Callable[..., Scripted]) -> None:
    guarded = POD.model_copy(update={"auth_env": "MY_TOKEN"})
    cloud = script({"POST /invoke": raw(200, {"output": 1})})
    with pytest.raises(errors.ConfigurationError, match="MY_TOKEN is not set"):
        invoke(cloud, guarded)
    token = SecretStr("own-token")
    invoke(cloud, guarded, token=token)
    assert dict(cloud.asked[-1].headers)["authorization"] == "Bearer own-token"
    with pytest.raises(errors.UnsupportedError, match="not encrypted"):
        invoke(cloud, guarded.model_copy(update={"url": "http://pod-789.yottadeos.com"}), token=token)
    assert len(cloud.asked) == 1


def test_a_foreign_image_gets_the_bare_input_at_its_route(script: Callable[..., Scripted]) -> None:
    foreign = INFO.model_copy(update={"route": "/v1/chat", "worker_protocol": "foreign"})
    cloud = script({"POST /v1/chat": raw(200, {"choices": []})})
    assert invoke(cloud, foreign).output == {"choices": []}
    assert cloud.asked[-1].json == {"n": 1}
    assert "x-unigpu-job" not in dict(cloud.asked[-1].headers)
    cloud = script({"POST /v1/chat": raw(422, {"detail": "no"})})
    with pytest.raises(errors.InvalidRequestError):
        invoke(cloud, foreign)


def test_an_answer_of_another_shape_is_not_taken_for_a_result(script: Callable[..., Scripted]) -> None:
    for body in (b"ok", b"[]", b'{"result": 1}'):
        cloud = script({"POST /invoke": raw(200, body)})
        with pytest.raises(errors.InvalidResponseError) as caught:
            invoke(cloud)
        assert caught.value.maybe_executed is True
