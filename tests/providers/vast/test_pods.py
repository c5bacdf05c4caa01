"""Pods: one machine of the marketplace, rented once, whatever is answered."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest
from vast_world import KEY, Account

from unigpu import Client
from unigpu._io.clock import InstantClock
from unigpu.errors import (
    ConfigurationError,
    DeadlineExceeded,
    DeploymentGone,
    DeployOutcomeUnknown,
    NoCapacityError,
    UnsupportedError,
    WorkerFailed,
)
from unigpu.models import State
from unigpu.models.spec import BearerToken

POD: dict[str, Any] = {
    "name": "chat", "kind": "pod", "interface": "http", "image": "ghcr.io/me/chat:2", "gpu": "RTX 4090",
    "max_price": 1.0, "ttl": None, "auth": "none", "command": ["serve", "--port", "8000"],
}  # fmt: skip


def rentals(account: Account) -> list[httpx.Request]:
    return [one for one in account.sent if one.method == "PUT" and "/asks/" in one.url.path]


def answer(request: httpx.Request, status: int, body: Any) -> httpx.Response:
    return httpx.Response(status, content=json.dumps(body), request=request)


def test_it_is_rented_called_at_its_own_port_paused_and_ended(
    client: Client, account: Account, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CHAT_TOKEN", "canary-token")
    app = client.deploy(**{**POD, "auth": BearerToken(env="CHAT_TOKEN")}, accept=["secrets_on_shared_hosts"])
    assert app.state is State.READY
    (rental,) = rentals(account)
    body = json.loads(rental.content)
    assert body["cancel_unavail"] is True
    assert "price" not in body  # a price would make it a bid, which may be displaced
    assert body["env"]["-p 8000:8000"] == "1"
    assert body["env"]["CHAT_TOKEN"] == "canary-token"
    assert body["args"] == ["serve", "--port", "8000"]
    assert app.info.url
    assert app.info.url.startswith("http://203.0.113.")
    assert client.stop(app).state is State.STOPPED
    assert client.start(app).state is State.READY
    (worker,) = client.workers("chat")
    assert worker.state.is_ready
    (item,) = [one for one in client.inventory() if one.kind == "instance"]
    assert (item.owner, item.name) == ("ours", "chat")
    client.teardown(app)
    assert list(client.deployments()) == []
    assert all(KEY not in f"{one.url}{one.headers.raw!r}" for one in account.to_workers)


def test_who_may_call_it_must_be_said(client: Client, account: Account) -> None:
    asked = {name: value for name, value in POD.items() if name != "auth"}
    with pytest.raises(ConfigurationError, match="internet"):
        client.deploy(**asked)
    assert rentals(account) == []


def test_an_offer_that_was_taken_is_followed_by_the_next(client: Client, account: Account) -> None:
    taken: list[str] = []

    def before(request: httpx.Request) -> httpx.Response | None:
        if request.method == "PUT" and "/asks/" in request.url.path and len(taken) < 2:
            taken.append(request.url.path)
            status = 404 if len(taken) == 1 else 410
            return answer(request, status, {"success": False, "error": "no_such_ask", "msg": "not available"})
        return None

    account.before = before
    app = client.deploy(**{**POD, "gpu": ["RTX 4090", "L40S", "RTX 3090"], "max_price": 3.0})
    assert app.state is State.READY
    paths = [one.url.path for one in rentals(account)]
    assert len(paths) == len(set(paths)) == 3  # no offer is asked for twice


def test_no_offer_at_all_is_told_and_nothing_is_left(client: Client, account: Account) -> None:
    account.before = lambda request: (
        answer(request, 410, {"success": False, "error": "no_such_ask"}) if "/asks/" in request.url.path else None
    )
    with pytest.raises(NoCapacityError) as caught:
        client.deploy(**POD)
    assert caught.value.retryable
    assert len(rentals(account)) <= 10
    assert list(client.deployments()) == []


def test_a_refusal_that_names_a_contract_has_rented(client: Client, account: Account) -> None:
    """``success: false`` with ``new_contract``: it exists, stopped, and its storage is billed. It is recorded, started,
    and taken back where its GPU is not free."""
    state: dict[str, Any] = {}

    def before(request: httpx.Request) -> httpx.Response | None:
        if request.method == "PUT" and "/asks/" in request.url.path and not state:
            reply = account._inner.handle_request(request)
            state["id"] = json.loads(reply.read())["new_contract"]
            return answer(request, 200, {"success": False, "error": "unavail", "new_contract": state["id"]})
        if not state or not request.url.path.rstrip("/").endswith(f"/api/v0/instances/{state['id']}"):
            return None
        if request.method == "PUT":
            return answer(request, 200, {"success": False, "error": "resources_unavailable"})
        if request.method == "GET" and not state.get("deleted"):
            row = {"id": state["id"], "actual_status": "stopped", "intended_status": "stopped"}
            return answer(request, 200, {"instances": row})
        if request.method == "DELETE":
            state["deleted"] = True
        return None

    account.before = before
    with pytest.raises(NoCapacityError, match="not free"):
        client.deploy(**POD)
    assert state["deleted"]
    assert len(rentals(account)) == 1
    assert list(client.deployments()) == []


def test_a_rental_whose_answer_is_lost_is_looked_for_and_never_sent_again_blindly(
    client: Client, account: Account
) -> None:
    lost: list[int] = []

    def before(request: httpx.Request) -> httpx.Response | None:
        if request.method == "PUT" and "/asks/" in request.url.path and not lost:
            account._inner.handle_request(request)
            lost.append(1)
            raise httpx.ReadTimeout("lost", request=request)
        return None

    account.before = before
    app = client.deploy(**POD)
    assert (app.change, app.state) == ("created", State.READY)
    assert len(rentals(account)) == 1
    client.teardown(app)
    assert list(client.deployments()) == []


def test_a_rental_that_is_never_seen_is_told(client: Client, account: Account) -> None:
    def before(request: httpx.Request) -> httpx.Response | None:
        if request.method == "PUT" and "/asks/" in request.url.path:
            raise httpx.ReadTimeout("lost", request=request)
        return None

    account.before = before
    with pytest.raises(DeployOutcomeUnknown):
        client.deploy(**POD)
    assert len(rentals(account)) <= 3


@pytest.mark.parametrize(
    ("status", "said", "reason"),
    [
        ("exited", "", "crash_loop"),
        ("offline", "", "host_lost"),
        ("unknown", "", "host_lost"),
        ("loading", "OCI runtime create failed: no such file", "image_pull"),
        ("created", "Error response from daemon: manifest unknown", "image_pull"),
    ],
)
def test_a_machine_that_never_becomes_running_ends_the_wait_at_once(
    client: Client, account: Account, clock: InstantClock, status: str, said: str, reason: str
) -> None:
    def before(request: httpx.Request) -> httpx.Response | None:
        path = request.url.path.rstrip("/")
        if request.method == "GET" and path.startswith("/api/v0/instances/"):
            row = {"id": int(path.rpartition("/")[2]), "actual_status": status, "intended_status": "running",
                   "status_msg": said, "label": None}  # fmt: skip
            reply = account._inner.handle_request(request)
            real = json.loads(reply.read())["instances"]
            return answer(
                request, 200, {"instances": None if real is None else {**real, **row, "label": real["label"]}}
            )
        return None

    account.before = before
    began = clock.now()
    with pytest.raises(WorkerFailed) as caught:
        client.deploy(**POD)
    assert caught.value.reason == reason
    assert clock.now() - began < 120
    account.before = lambda request: None
    assert list(client.deployments()) == []  # it was taken back


@pytest.mark.parametrize("word", ["stopped", "exited", "created"])
def test_a_stopped_machine_is_known_by_what_was_wanted_whatever_its_container_is_called(
    client: Client, account: Account, word: str
) -> None:
    """Not for a program that crashed, neither while it is stopped nor in the moment in which it is started again."""
    app = client.deploy(**POD)
    stale: list[int] = []

    def before(request: httpx.Request) -> httpx.Response | None:
        path = request.url.path.rstrip("/")
        if request.method == "PUT" and b"running" in request.content:
            stale.extend([1, 1])
        if request.method != "GET" or not path.startswith("/api/v0/instances/"):
            return None
        row = json.loads(account._inner.handle_request(request).read())["instances"]
        if row is not None and (row["intended_status"] == "stopped" or stale):
            row["actual_status"] = word
            if row["intended_status"] == "running":
                stale.pop()
        return answer(request, 200, {"instances": row})

    account.before = before
    assert client.stop(app).state is State.STOPPED
    assert client.start(app).state is State.READY
    client.teardown(app)


def test_a_machine_that_was_taken_by_another_is_waited_for(client: Client, account: Account) -> None:
    """As an interruptible one is, or one whose GPU somebody rented while it was stopped."""
    app = client.deploy(**POD)
    taken = [1, 1, 1]

    def before(request: httpx.Request) -> httpx.Response | None:
        if request.method != "GET" or not request.url.path.startswith("/api/v0/instances/"):
            return None
        row = json.loads(account._inner.handle_request(request).read())["instances"]
        if taken:
            taken.pop()
            row |= {"actual_status": "exited", "cur_state": "stopped", "intended_status": "running"}
        return answer(request, 200, {"instances": row})

    account.before = before
    assert "GPU is free" in str(client.explain(app))
    assert client.wait_ready(app).state is State.READY
    client.teardown(app)


def test_a_gpu_that_was_rented_while_it_was_free_is_waited_for_and_what_waits_is_told(
    client: Client, account: Account
) -> None:
    """Vast keeps the wish: it starts by itself as soon as the other one is gone, and is billed from then on."""
    first = client.deploy(**POD)
    client.stop(first)
    other = client.deploy(**{**POD, "name": "other"})
    with pytest.raises(DeadlineExceeded, match="as soon as its GPU is free") as caught:
        client.start(first, timeout=120)
    assert caught.value.may_bill
    client.teardown(other)
    assert client.wait_ready(first).state is State.READY
    client.teardown(first)


def test_starting_one_that_is_gone_says_so(client: Client, account: Account) -> None:
    app = client.deploy(**POD)
    client.stop(app)
    account.before = lambda request: (
        answer(request, 404, {"success": False, "error": "no_such_instance", "msg": "instance not found"})
        if request.method == "PUT"
        else None
    )
    with pytest.raises(DeploymentGone):
        client.start(app)
    account.before = lambda request: None
    client.teardown(app)


def test_a_pod_whose_host_went_offline_is_not_waited_for_and_its_end_makes_room_for_another(
    client: Client, account: Account
) -> None:
    """Deploying the name again reuses it, so it has to be torn down first."""
    app = client.deploy(**POD)

    def before(request: httpx.Request) -> httpx.Response | None:
        if request.method != "GET" or not request.url.path.startswith("/api/v0/instances/"):
            return None
        row = json.loads(account._inner.handle_request(request).read())["instances"]
        return answer(request, 200, {"instances": row and {**row, "actual_status": "offline"}})

    account.before = before
    with pytest.raises(WorkerFailed, match="tear it down") as caught:
        client.deploy(**POD)
    assert caught.value.reason == "host_lost"
    assert client.explain(app).cause == "host_lost"
    client.teardown(app)
    account.before = lambda request: None
    assert client.deploy(**POD).change == "created"
    assert len(rentals(account)) == 2


def test_a_pod_is_one_machine(client: Client, account: Account) -> None:
    app = client.deploy(**POD)
    for call in (lambda: client.scale(app, (0, 2)), lambda: client.wake(app), lambda: client.invoke(app, {})):
        with pytest.raises(UnsupportedError):
            call()  # type: ignore[no-untyped-call]  # a lambda
    client.teardown(app)


def test_a_request_goes_to_the_machine_with_the_callers_token_and_nothing_else(
    client: Client, account: Account, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CHAT_TOKEN", "canary-token")
    app = client.deploy(**{**POD, "auth": BearerToken(env="CHAT_TOKEN")}, accept=["secrets_on_shared_hosts"])
    refuse = [True, True]

    def before(request: httpx.Request) -> httpx.Response | None:
        if not request.url.host.startswith("203.0.113.") or request.url.path == "/":
            return None
        if refuse:
            refuse.pop()
            raise httpx.ConnectError("refused", request=request)  # its program starts again
        return answer(request, 201, {"path": str(request.url.path), "token": request.headers["authorization"]})

    account.before = before
    reply = client.request(app, "PUT", "/v1/things/3?x=1", content=b"raw")
    assert (reply.status, reply.json()) == (201, {"path": "/v1/things/3", "token": "Bearer canary-token"})
    assert account.to_workers[-1].content == b"raw"
    assert not refuse


def test_an_unknown_state_of_a_machine_is_unknown_and_never_gone(client: Client, account: Account) -> None:
    app = client.deploy(**POD)

    def before(request: httpx.Request) -> httpx.Response | None:
        if request.method != "GET" or "/instances" not in request.url.path:
            return None
        found = json.loads(account._inner.handle_request(request).read())
        rows = found["instances"]
        for row in rows if isinstance(rows, list) else [rows]:
            row["actual_status"] = "frobnicating"
        return answer(request, 200, found)

    account.before = before
    seen = client.get("chat")
    assert (seen.state, seen.info.raw_state) == (State.UNKNOWN, "frobnicating")
    account.before = lambda request: None
    client.teardown(app)
