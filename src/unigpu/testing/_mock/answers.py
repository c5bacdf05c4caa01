"""What happens at a request under a mock: the cloud takes it, it waits there on the mock's clock, and is answered."""

from __future__ import annotations

import math
import re
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, cast
from urllib.parse import parse_qsl, unquote

import httpx
import respx
from respx.mocks import HTTPCoreMocker

from unigpu.emulator.contract import Dropped, HttpCall, Reply
from unigpu.emulator.engine import DeploymentTerms
from unigpu.emulator.simulation.virtual_cloud import Pending, VirtualCloud
from unigpu.models import provider_name

from .clocks import MockClock

__all__ = ["Answers", "Call", "Names", "active", "http_call", "serve"]

_LONGEST: Final = 86_400.0  # for a caller without a timeout: a hundred million seconds would be a test that hangs
_NAME: Final = re.compile(r"UNIGPU_NAME\W{1,5}([a-z][a-z0-9-]{0,62})")
_NAMESPACE: Final = re.compile(r"UNIGPU_NAMESPACE\W{1,5}([a-z0-9][a-z0-9._-]{0,62})")
active: Final[list[Answers]] = []
"""Of the mocks that run; the innermost is the last."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """A request that reached the mock. ``operation`` is the platform's route, as in ``"job.submit"``."""

    provider: str
    operation: str
    method: str
    path: str
    body: bytes


class Names:
    """Who is who by the platform's ids: it is told only while a deployment exists, and kept here.

    A part says it in its environment, or in what it was told as text; one that does not has the name of one that does.
    """

    def __init__(self, cloud: VirtualCloud) -> None:
        self._cloud = cloud
        self._known: dict[str, tuple[str, str, str]] = {}

    def learn(self) -> None:
        engine = self._cloud.engine
        for id in engine.deployment_ids():
            if id not in self._known:
                found = engine.deployments.get(id, self._cloud.clock.now())
                told = _named(found.terms) or self._like(found.terms)
                if told is not None:
                    self._known[id] = (*told, found.platform.partition(".")[0])

    def _like(self, terms: DeploymentTerms) -> tuple[str, str] | None:
        """By the name on the platform, which begins with ours."""
        title = str(terms.data.get("name") or "")
        for name, space, _ in self._known.values():
            if title.startswith(provider_name(space, name)):
                return name, space
        return None

    def label(self, id: str) -> str:
        return self._known.get(id, (id, "", ""))[0]

    def address(self, id: str) -> str:
        return "{0}@{2}".format(*self._known.get(id, (id, "", "")))

    def is_called(self, id: str, name: str) -> bool:
        """Whether *name*, a logical one or ``name@provider``, means the deployment of this id."""
        return name in (self.label(id), self.address(id))

    def ids(self, logical: str) -> set[str]:
        """What a deployment is called in requests: by its ids, and by its name on the platform."""
        known = {id: space for id, (name, space, _) in self._known.items() if name == logical}
        return {*known, *(provider_name(space, logical) for space in known.values())}


def _named(terms: DeploymentTerms) -> tuple[str, str] | None:
    """Logical name and namespace, as a part of a deployment says them."""
    env = terms.launch.env
    if "UNIGPU_NAME" in env:
        return env["UNIGPU_NAME"], env.get("UNIGPU_NAMESPACE", "default")
    text = str(terms.data)
    name, space = _NAME.search(text), _NAMESPACE.search(text)
    return None if name is None else (name[1], "default" if space is None else space[1])


class Answers:
    """The other end of every request to the platforms of one mock.

    Attributes:
        calls: Every request that arrived, in order.
        hosts: Host (and port, on this machine; ``.name``: all names under it) → provider.
    """

    def __init__(self, cloud: VirtualCloud, clock: MockClock, names: Names, router: respx.MockRouter) -> None:
        self._cloud, self._clock, self._names = cloud, clock, names
        self._lock = threading.Lock()
        self.router = router
        self.calls: list[Call] = []
        self.hosts: dict[str, str] = {}

    def answer(self, request: httpx.Request, provider: str) -> Any:
        """The reply, or a coroutine of it where unigpu's own asynchronous client asks.

        Raises:
            AssertionError: another respx router has a route for this host.
            ConfigurationError: a second thread on a virtual clock.
            httpx.TransportError: no reply, or none in the caller's time.
        """
        self._alone(request)
        call = http_call(request)
        with self._cloud.lock:
            api = self._cloud.engine.apis[provider]
        operation = (api.operation(call) or "unknown").removeprefix(f"{provider}.")
        with self._lock:
            self.calls.append(
                Call(provider=provider, operation=operation, method=call.method, path=call.path, body=call.body)
            )
        now = self._clock.now()
        timeouts = cast("dict[str, float | None]", request.extensions.get("timeout", {}))
        read = timeouts.get("read")
        until = min(now + (_LONGEST if read is None else read), request.extensions.get("unigpu.deadline", math.inf))
        with self._cloud.lock:
            self._names.learn()
            pending = self._cloud.begin(call)
            self._names.learn()
        if request.extensions.get("unigpu.async"):
            return self._later(pending, until, request)
        found: Reply | Dropped | None = None
        asked = False
        try:
            found = self._clock.hold(pending.poll, until)
            asked = True
        finally:
            if not asked:
                pending.abandon(self._clock.now())
        return self._reply(pending, found, request)

    async def _later(self, pending: Pending, until: float, request: httpx.Request) -> httpx.Response:
        touch = getattr(self._clock, "touch", None)
        if touch is not None:
            touch()
        found: Reply | Dropped | None = None
        asked = False
        try:
            found = await self._clock.ahold(pending.poll, until)
            asked = True
        finally:
            if not asked:
                pending.abandon(self._clock.now())
        return self._reply(pending, found, request)

    def _reply(self, pending: Pending, found: Reply | Dropped | None, request: httpx.Request) -> httpx.Response:
        if found is None:
            pending.abandon(self._clock.now())
        if found is None or (isinstance(found, Dropped) and found.how == "timeout"):
            raise httpx.ReadTimeout("no answer", request=request)
        if isinstance(found, Dropped):
            raise httpx.RemoteProtocolError("closed without a reply", request=request)
        return httpx.Response(found.status, headers=list(found.headers), content=found.body, request=request)

    def _alone(self, request: httpx.Request) -> None:
        ours = {id(one.router) for one in active}
        for router in HTTPCoreMocker.routers:
            if id(router) in ours:
                continue
            for route in router.routes:
                if route.pattern.match(request):
                    raise AssertionError(
                        f"a respx route of the test ({route!r}) and unigpu_mock both serve {request.url.host}. "
                        "Say what the platform answers with cloud.<provider>.fault(...), or leave unigpu_mock out."
                    )


def serve(request: httpx.Request) -> Any:
    """The innermost mock that serves this host answers, whichever router was asked."""
    for one in reversed(active):
        key = f"{request.url.host}:{request.url.port}" if request.url.host == "127.0.0.1" else request.url.host
        provider = one.hosts.get(key) or _under(one.hosts, key)
        if provider is not None:
            return one.answer(request, provider)
    return None


def _under(hosts: Mapping[str, str], key: str) -> str | None:
    """The provider whose host is a whole domain, as in ``.example.com``."""
    return next((name for host, name in hosts.items() if host.startswith(".") and key.endswith(host)), None)


def http_call(request: httpx.Request) -> HttpCall:
    """The request, as the cloud takes it."""
    url = request.url
    query: Mapping[str, str] = dict(parse_qsl(url.query.decode("ascii"), keep_blank_values=True))
    return HttpCall(
        method=request.method,
        path=unquote(url.path) or "/",
        query=query,
        headers={name.lower(): value for name, value in request.headers.items()},
        body=request.content,
        host=url.host,
        scheme=url.scheme,
        target=url.raw_path.decode("ascii"),
    )
