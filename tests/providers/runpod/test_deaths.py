"""Deployments of several parts (secrets, a login, a volume) whose process dies, or is answered with a fault, anywhere.

The crash matrix does this to the endpoint alone; here it is done to what an endpoint stands on.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from typing import Any

import httpx
import pytest
from pydantic import SecretStr
from runpod_script import Account, problem

from unigpu import Client
from unigpu._io.clock import InstantClock
from unigpu.errors import UniGPUError

PARTS: dict[str, Any] = {
    "name": "summarize", "handler": "app:f", "image": "me/app:1", "gpu": "L4", "workers": (1, 2), "progress": "off",
    "secrets": {"HF_TOKEN": SecretStr("hf"), "OTHER": SecretStr("o")}, "timeout": 600,
    "registry": {"username": "me", "password": SecretStr("pass")}, "volumes": [{"name": "models", "size_gb": 10}],
}  # fmt: skip
WAYS = ("again", "gc")
FULL = os.environ.get("UNIGPU_FULL") == "1"
STEP = 1 if FULL else 6  # of some forty points

pytestmark = [pytest.mark.full] if FULL else []


class Dead(BaseException):
    """The process is killed here: nothing after it has any effect."""


class Fate:
    """Strikes the n-th request, before or after the account has acted; a dead process sends nothing any more."""

    def __init__(self, account: Account, at: int, when: str, fault: Any) -> None:
        self.account, self.at, self.when, self.fault = account, at, when, fault
        self.n, self.struck = -1, False
        self.answer = account.handle_request
        account.handle_request = self.handle  # type: ignore[method-assign]  # the way in

    def handle(self, request: httpx.Request) -> httpx.Response:
        if self.struck and isinstance(self.fault, Dead):
            raise self.fault
        self.n += 1
        if self.n != self.at:
            return self.answer(request)
        self.struck = True
        if self.when == "after":
            self.answer(request)
        if isinstance(self.fault, BaseException):
            raise self.fault
        return httpx.Response(self.fault, json=problem(self.fault, "a fault"), request=request)

    def over(self) -> None:
        del self.account.handle_request


def life(client: Client) -> None:
    client.teardown(client.deploy(**PARTS))


def put_right(make: Callable[..., Client], account: Account, clock: InstantClock, way: str) -> list[str]:
    """A new process on the same machine: it deploys and ends, or only cleans up; then what is left."""
    client = make("a")
    if way == "again":
        life(client)
    clock.sleep(300)
    client.gc(provider="runpod", delete=True)
    with contextlib.suppress(UniGPUError):
        client.teardown("summarize")
    clock.sleep(300)
    client.gc(provider="runpod", delete=True)
    return [
        f"{kind} {row['name']}"
        for kind in ("serverless", "secrets", "registries")
        for row in account.rows[kind].values()
    ]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("fault", [Dead(), httpx.ReadError("reset"), 502], ids=["death", "reset", "502"])
def test_nothing_that_an_endpoint_stands_on_is_left(
    make: Callable[..., Client], account: Account, clock: InstantClock, tmp_path: Any, fault: Any, when: str, way: str
) -> None:
    account.health = {"workers": {"idle": 1, "ready": 1}}
    at, wrong, struck = 0, list[str](), True
    while struck:
        fate = Fate(account, at, when, fault)
        with contextlib.suppress(UniGPUError, Dead):
            life(make("a"))
        struck = fate.struck
        fate.over()
        left = put_right(make, account, clock, way)
        if left:
            wrong.append(f"{when} {at}: {left}")
        if len(account.rows["network-volumes"]) > 1:
            wrong.append(f"{when} {at}: two volumes")
        for kind in account.rows:
            account.rows[kind].clear()
        at += STEP
    assert at > 20
    assert not wrong, "\n".join(wrong)
    print(f"points to {at}, {when}, {fault!r}, {way}: nothing left")
