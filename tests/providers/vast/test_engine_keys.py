"""Which key the engine is asked with: the account's, or the endpoint's own where it takes no other."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import httpx
import pytest
from vast_world import CONSOLE, ENGINE, FIELDS, KEY, Account, ready

from unigpu import Client
from unigpu._io.clock import InstantClock
from unigpu.emulator.apis.vast.emulator import Quirks
from unigpu.emulator.apis.vast.state import ENDPOINT
from unigpu.errors import AuthenticationError, DeploymentGone

ENGINE_PATHS = ("/route/", "/get_endpoint_workers/", "/get_endpoint_logs/")


class Strict(Account):
    """An engine that takes an endpoint's own key alone."""

    def __init__(self, clock: InstantClock, **quirks: Any) -> None:
        super().__init__(Quirks(account_key_routes=False, **quirks), clock=clock)
        self.keys: list[str] = []

    def keep(self, request: Any) -> Any:
        key = request.headers.get("authorization", "").removeprefix("Bearer ")
        if request.url.path in ENGINE_PATHS:
            self.keys.append(key)
        elif request.url.host in (CONSOLE, ENGINE) and not request.url.path.startswith("/instance-logs/"):
            assert key == KEY
        else:
            assert not key
            assert KEY not in f"{request.url} {request.content!r}"
            self.to_workers.append(request)
        self.sent.append(request)
        return self.before(request)


@pytest.mark.parametrize("as_200", [True, False])
def test_an_engine_that_refuses_the_account_s_key_is_asked_with_the_endpoint_s(
    connect: Callable[..., Client], clock: InstantClock, as_200: bool
) -> None:
    account = Strict(clock, errors_as_200=as_200)
    client = connect(account)
    app = client.deploy(**FIELDS, wait="worker")
    assert client.invoke(app, {"n": 1}).output == {"got": {"n": 1}}
    (own,) = {key for key in account.keys if key != KEY}
    assert account.keys.count(KEY) == 1  # it is remembered, so no further call pays for it
    assert all(own not in f"{one.url} {one.content!r} {one.headers!r}" for one in account.to_workers)
    assert own not in repr(client.get("summarize"))
    again = connect(account, state="elsewhere")
    assert again.invoke("summarize", {"n": 2}).output == {"got": {"n": 2}}
    assert all(one.worker_id for one in again.logs("summarize", tail=5))
    client.teardown(app)


def test_the_endpoint_s_key_can_be_used_from_the_start(connect: Callable[..., Client], clock: InstantClock) -> None:
    account = Strict(clock)
    client = connect(account, driver_options={"vast": {"engine_key": "endpoint"}})
    app = client.deploy(**FIELDS, wait="worker")
    assert client.invoke(app, {"n": 1}).output == {"got": {"n": 1}}
    assert KEY not in account.keys


def test_a_key_that_was_changed_meanwhile_is_read_again(connect: Callable[..., Client], clock: InstantClock) -> None:
    account = Strict(clock)
    client = connect(account)
    app = client.deploy(**FIELDS, wait="worker")
    client.invoke(app, {"n": 1})
    endpoint = next(one for one in account.face._account.all(ENDPOINT, clock.now()))
    endpoint.terms.data["api_key"] = "another-endpoint-key"
    assert client.invoke(app, {"n": 2}).output == {"got": {"n": 2}}
    assert account.keys[-1] == "another-endpoint-key"


def test_no_key_at_all_is_said_once_both_were_refused(connect: Callable[..., Client], clock: InstantClock) -> None:
    account = Strict(clock)
    client = connect(account)
    app = client.deploy(**FIELDS, wait="worker")
    account.before = lambda request: (
        httpx.Response(401, json={"error": "Authentication failed"}, request=request)
        if request.url.path == "/route/"
        else None
    )
    account.keys.clear()
    with pytest.raises(AuthenticationError) as caught:
        client.invoke(app, {"n": 1})
    assert len(account.keys) == 2
    assert not any(key in str(caught.value) + repr(caught.value) for key in account.keys)
    account.before = lambda request: None
    client.teardown(app)
    with pytest.raises(DeploymentGone):
        client.invoke(app, {"n": 1})


def test_an_answer_that_holds_the_endpoint_s_key_does_not_carry_it_to_a_worker(
    connect: Callable[..., Client], clock: InstantClock
) -> None:
    account = Strict(clock)
    client = connect(account)
    app = client.deploy(**FIELDS, wait="worker")
    own = next(key for key in account.keys if key != KEY)
    status, body = ready()
    told = {**body, "note": f"signed for {own}"}

    def before(request: httpx.Request) -> httpx.Response | None:
        if request.url.path == "/route/":
            return httpx.Response(status, json=told, request=request)
        if request.url.host not in (CONSOLE, ENGINE):
            assert own.encode() not in request.content
            return httpx.Response(200, json={"output": 1}, request=request)
        return None

    account.before = before
    assert client.invoke(app, {}).output == 1
