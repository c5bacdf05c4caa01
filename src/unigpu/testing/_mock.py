"""`unigpu_mock`: whole platforms in memory, served through respx to every client of this process."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Final, Literal, cast
from urllib.parse import parse_qsl, unquote

import httpx
import respx
from respx.mocks import HTTPCoreMocker

from unigpu._client._sync import Client
from unigpu._io.clock import use_clock
from unigpu.cloud._simulated import Behavior
from unigpu.cloud.contract import Dropped, HttpCall, Reply
from unigpu.cloud.engine import EngineSettings
from unigpu.cloud.faults import Fault
from unigpu.cloud.virtual import Pending, VirtualCloud
from unigpu.errors import ConfigurationError
from unigpu.models import provider_name

from ._clocks import MockClock, Mode, make
from ._isolation import isolated
from ._platforms import MockPlatform, find

__all__ = ["Call", "MockedProvider", "UnigpuMock", "unigpu_mock"]

_FOR_EVER: Final = 1e9
_ECHO: Final = Behavior()
_ports: Final = itertools.count(1)
_active: Final[list[UnigpuMock]] = []
Instead = Reply | int | Literal["drop", "timeout"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """A request that reached the mock. ``operation`` is the platform's route, as in ``"job.submit"``."""

    provider: str
    operation: str
    method: str
    path: str
    body: bytes


class MockedProvider:
    """One platform of a mock: ``cloud.local``."""

    def __init__(self, name: str, platform: MockPlatform, cloud: VirtualCloud) -> None:
        self.name = name
        self._platform = platform
        self._cloud = cloud

    def fault(
        self,
        operation: str,
        *,
        before: Instead | None = None,
        after: Instead | None = None,
        times: int | None = 1,
    ) -> Fault:
        """Let a route fail: ``cloud.reference.fault("endpoint.create", after=500)`` creates it, then answers 500.

        Args:
            operation: The platform's route; ``"endpoint.*"`` is all that begin so.
            before: What is answered while nothing happens: a status, a `Reply`, ``"drop"`` (the connection closes) or
                ``"timeout"`` (no answer at all).
            after: The same, once the platform has acted.
            times: How often; ``None``: always.

        Returns:
            The fault; its ``hits`` says how often it struck.

        Raises:
            ConfigurationError: not exactly one of *before* and *after*.
        """
        if (before is None) == (after is None):
            raise ConfigurationError("fault: say before= (nothing happens) or after= (it happens, the answer is lost).")
        name = f"{self.name}.{operation}"
        if before is not None:
            return self._cloud.engine.faults.add(name, when="before", times=times, reply=before)
        assert after is not None
        return self._cloud.engine.faults.add(name, when="after", times=times, reply=after)

    def no_capacity(self, *, times: int | None = None) -> None:
        """No worker can be had: what asks for one is refused as this platform does it, *times* or until `heal`."""
        for operation in self._platform.adds_workers:
            self._cloud.engine.faults.add(operation, times=times, reply=self._platform.no_capacity)

    def heal(self) -> None:
        """No fault any more, of this platform."""
        faults = self._cloud.engine.faults
        for fault in tuple(faults.entries):
            if fault.operation.startswith(f"{self.name}."):
                faults.remove(fault)


class UnigpuMock:
    """See `unigpu_mock`. Attributes named like its providers are `MockedProvider`.

    Attributes:
        clock: The process's clock while the block runs.
        router: The respx router, for a test's own routes beside ours.
        state_dir: The state directory of clients that are made in the block.
    """

    def __init__(self, providers: Sequence[str], clock: Mode, pass_through: Sequence[str], list_lag: float) -> None:
        if clock not in ("instant", "virtual", "real"):
            raise ConfigurationError(f'clock={clock!r}: say "instant", "virtual" or "real".')
        self._platforms = {name: find(name) for name in providers or ("local",)}
        self._mode: Mode = clock
        self._pass_through = tuple(pass_through)
        self._lag = list_lag
        self._stack: ExitStack | None = None
        self._calls: list[Call] = []
        self._lock = threading.Lock()
        self._hosts: dict[str, str] = {}
        self._behaviors: dict[str, Behavior] = {}
        self._names: dict[str, tuple[str, str]] = {}
        self.router = respx.MockRouter(assert_all_called=False)

    def __enter__(self) -> UnigpuMock:
        self.clock: MockClock = make(self._mode)
        self.cloud = VirtualCloud(clock=self.clock, settings=EngineSettings(list_lag=self._lag))
        self._providers = {n: MockedProvider(n, p, self.cloud) for n, p in self._platforms.items()}
        self.cloud.simulation._behavior_of = self._behavior  # noqa: SLF001  # pyright: ignore[reportPrivateUsage] - one house
        with ExitStack() as stack:
            keys = {variable: "key-of-a-mock" for p in self._platforms.values() for variable in p.keys}
            self.state_dir = stack.enter_context(isolated(keys))
            stack.enter_context(use_clock(self.clock))
            stack.callback(self.cloud.detach)
            for name, platform in self._platforms.items():
                self._mount(stack, name, platform)
            for host in self._pass_through:
                self.router.route(host=host).pass_through()
            stack.enter_context(self.router)
            # In front of a test's own routers, so that one which answers everything does not answer for us.
            HTTPCoreMocker.routers.remove(self.router)
            HTTPCoreMocker.routers.insert(0, self.router)
            _active.append(self)
            stack.callback(_active.remove, self)
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._stack is not None
        self._stack.close()

    def __getattr__(self, name: str) -> MockedProvider:
        providers = cast("dict[str, MockedProvider]", self.__dict__.get("_providers", {}))
        if name in providers:
            return providers[name]
        raise AttributeError(f"this mock serves {', '.join(providers) or 'nothing yet: enter it first'}; not {name!r}")

    def _mount(self, stack: ExitStack, name: str, platform: MockPlatform) -> None:
        face = platform.face(self.cloud.engine)
        self.cloud.mount(face)
        if platform.own_address:
            port = next(_ports)
            self._hosts[f"127.0.0.1:{port}"] = name
            self.router.route(host="127.0.0.1", port=port).mock(side_effect=_serve)
            stack.enter_context(platform.around(f"http://127.0.0.1:{port}"))
            return
        for host in face.hosts:
            self._hosts[host] = name
            self.router.route(host=host).mock(side_effect=_serve)
        stack.enter_context(platform.around(f"https://{face.hosts[0]}"))

    # -- what a test says

    def serve(
        self,
        address: str,
        fn: Callable[[Any], Any],
        *,
        cold_start: float = 1.0,
        duration: float | Callable[[Any], float] = 0.1,
        workers: tuple[int, int] = (0, 1),
        exists: bool = True,
        namespace: str = "default",
        **fields: Any,
    ) -> None:
        """Let a deployment exist whose workers answer with *fn*.

        Args:
            address: ``"name@provider"``; without a provider: the mock's first.
            fn: Input → output; a generator streams. What it raises is the job's failure.
            cold_start: Seconds of the mock's clock from a worker's start until it is ready.
            duration: What one call takes.
            exists: ``False``: the application deploys it itself; this only says how its workers behave then.
            namespace: Of the clients that call it.
            fields: Further spec fields.

        Raises:
            ConfigurationError: the mock does not serve that provider, or a field is wrong.
        """
        name, _, provider = address.partition("@")
        provider = provider or next(iter(self._platforms))
        if provider not in self._platforms:
            raise ConfigurationError(f"{address}: this mock serves {', '.join(self._platforms)}.")
        self._behaviors[name] = Behavior(run=fn, cold_start=cold_start, duration=duration)
        if not exists:
            return
        served: dict[str, Any] = {
            "handler": "unigpu.testing._served:served",
            **self._platforms[provider].served,
            **fields,
        }
        with Client(provider, namespace=namespace, state_dir=self.state_dir) as client:
            client.deploy(name=name, workers=workers, wait=False, progress="off", **served)

    def calls(self, name: str | None = None, verb: str | None = None) -> tuple[Call, ...]:
        """The requests so far: of one deployment (its id or name on the platform is in the path or body), of one route.

        Args:
            name: A logical name, or ``name@provider``.
            verb: ``"invoke"``, ``"submit"`` (the same route), ``"deploy"``, ``"scale"``, ``"teardown"``, ``"wake"``;
                or the end of a route's name, as in ``"job.cancel"``.
        """
        found = tuple(self._calls)
        if name is not None:
            logical, _, provider = name.partition("@")
            ids = self._ids(logical)
            found = tuple(
                one
                for one in found
                if provider in ("", one.provider) and any(id in one.path or id.encode() in one.body for id in ids)
            )
        if verb is not None:
            ends = _VERBS.get(verb, (verb,))
            found = tuple(one for one in found if one.operation.endswith(ends))
        return found

    def advance(self, seconds: float) -> None:
        """Let time pass."""
        self.clock.advance(seconds)

    def billed(self) -> Mapping[str, float]:
        """Billed seconds so far, by deployment's id; of those that are gone, too."""
        with self.cloud.lock:
            report = self.cloud.engine.meter.report(self.clock.now())
        return {id: row["billed_s"] for id, row in report["deployments"].items()}

    def assert_nothing_billing(self, after: float = 0.0) -> None:
        """Let *after* seconds pass, and then no worker may run.

        Raises:
            AssertionError: it names the deployments whose workers still cost money.
        """
        self.advance(after)
        with self.cloud.lock:
            rows = self.cloud.engine.meter.report(self.clock.now())["deployments"]
        running = {id: row for id, row in rows.items() if row["workers_running"]}
        if running:
            told = ", ".join(f"{self._label(id)} ({row['workers_running']} running)" for id, row in running.items())
            raise AssertionError(f"after {after:g} s still billing: {told}")

    # -- what happens at a request

    def answer(self, request: httpx.Request, provider: str) -> Any:
        """The reply, or a coroutine of it where unigpu's own asynchronous client asks.

        Raises:
            AssertionError: another respx router has a route for this host.
            httpx.TransportError: no reply, or none in the caller's time.
        """
        self._alone(request)
        call = _http_call(request)
        with self.cloud.lock:
            face = self.cloud.engine._faces[provider]  # noqa: SLF001  # pyright: ignore[reportPrivateUsage] - one house
        operation = (face.operation(call) or "unknown").removeprefix(f"{provider}.")
        with self._lock:
            self._calls.append(
                Call(provider=provider, operation=operation, method=call.method, path=call.path, body=call.body)
            )
        now = self.clock.now()
        timeouts = cast("dict[str, float | None]", request.extensions.get("timeout", {}))
        read = timeouts.get("read")
        until = min(
            now + (_FOR_EVER if read is None else read), request.extensions.get("unigpu.deadline", _FOR_EVER * 10)
        )
        with self.cloud.lock:
            self._learn()
            pending = self.cloud.begin(call)
            self._learn()
        if request.extensions.get("unigpu.async"):
            return self._later(pending, until, request)
        try:
            found = self.clock.hold(pending.poll, until)
        except RuntimeError as exc:
            raise AssertionError(str(exc)) from None
        return self._reply(pending, found, request)

    async def _later(self, pending: Pending, until: float, request: httpx.Request) -> httpx.Response:
        touch = getattr(self.clock, "touch", None)
        if touch is not None:
            touch()
        found: Reply | Dropped | None = None
        asked = False
        try:
            found = await self.clock.ahold(pending.poll, until)
            asked = True
        except RuntimeError as exc:  # a virtual clock, and a second thread
            raise AssertionError(str(exc)) from None
        finally:
            if not asked:
                pending.abandon(self.clock.now())
        return self._reply(pending, found, request)

    def _reply(self, pending: Pending, found: Reply | Dropped | None, request: httpx.Request) -> httpx.Response:
        if found is None:
            pending.abandon(self.clock.now())
        if found is None or (isinstance(found, Dropped) and found.how == "timeout"):
            raise httpx.ReadTimeout("no answer", request=request)
        if isinstance(found, Dropped):
            raise httpx.RemoteProtocolError("closed without a reply", request=request)
        return httpx.Response(found.status, headers=list(found.headers), content=found.body, request=request)

    def _alone(self, request: httpx.Request) -> None:
        ours = {id(one.router) for one in _active}
        for router in HTTPCoreMocker.routers:
            if id(router) in ours:
                continue
            for route in router.routes:
                if route.pattern.match(request):
                    raise AssertionError(
                        f"a respx route of the test ({route!r}) and unigpu_mock both serve {request.url.host}. "
                        "Say what the platform answers with cloud.<provider>.fault(...), or leave unigpu_mock out."
                    )

    def _behavior(self, id: str) -> Behavior:
        self._learn()
        return self._behaviors.get(self._label(id), _ECHO)

    def _learn(self) -> None:
        """Keep who is who by the platform's ids: it is told only while a deployment exists."""
        for id in self.cloud.engine.deployment_ids():
            if id not in self._names:
                env = self.cloud.engine.deployments.get(id, self.clock.now()).terms.launch.env
                self._names[id] = (env.get("UNIGPU_NAME", id), env.get("UNIGPU_NAMESPACE", "default"))

    def _label(self, id: str) -> str:
        return self._names.get(id, (id, ""))[0]

    def _ids(self, logical: str) -> set[str]:
        """What a deployment is called in requests: by its ids, and by its name on the platform."""
        known = {id: space for id, (name, space) in self._names.items() if name == logical}
        return {*known, *(provider_name(logical, space) for space in known.values())}


_VERBS: Final[Mapping[str, tuple[str, ...]]] = {
    "invoke": ("job.submit",),
    "submit": ("job.submit",),
    "deploy": ("deployment.put", "endpoint.create"),
    "scale": (".patch",),
    "teardown": (".delete",),
    "wake": (".wake",),
}


def unigpu_mock(
    *providers: str, clock: Mode = "instant", pass_through: Sequence[str] = (), list_lag: float = 0.0
) -> UnigpuMock:
    """Serve whole platforms in memory, for every client of this process, made before or in the block.

    Each deploys, starts workers, runs jobs, bills and forgets as the real one does, in no time; the state directory,
    keys and config of the machine are out of reach. It is a context manager.

    Args:
        providers: Default: ``local``. Others come with their drivers' packages.
        clock: ``"instant"``: a sleep returns at once and moves the clock, from any thread. ``"virtual"``: exact order
            among many sleepers, in one thread or loop. ``"real"``: seconds pass by themselves.
        pass_through: Hosts that requests may really reach; respx says "not mocked" for all others.
        list_lag: Seconds for which lists do not yet show what was created or deleted.

    Raises:
        ConfigurationError: no mock serves that provider.
    """
    return UnigpuMock(providers, clock, pass_through, list_lag)


def _serve(request: httpx.Request) -> Any:
    """The innermost mock that serves this host answers, whichever router was asked."""
    for mock in reversed(_active):
        key = f"{request.url.host}:{request.url.port}" if request.url.host == "127.0.0.1" else request.url.host
        provider = mock._hosts.get(key)  # noqa: SLF001  # pyright: ignore[reportPrivateUsage] - this module's own
        if provider is not None:
            return mock.answer(request, provider)
    return None


def _http_call(request: httpx.Request) -> HttpCall:
    url = request.url
    return HttpCall(
        method=request.method,
        path=unquote(url.path) or "/",
        query=dict(parse_qsl(url.query.decode("ascii"), keep_blank_values=True)),
        headers={name.lower(): value for name, value in request.headers.items()},
        body=request.content,
        host=url.host,
        scheme=url.scheme,
        target=url.raw_path.decode("ascii"),
    )
