"""`unigpu_mock`: whole platforms in memory, served through respx to every client of this process."""

from __future__ import annotations

import itertools
import os
import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from types import TracebackType
from typing import Any, Final, cast

import respx
from respx.mocks import HTTPCoreMocker

from unigpu._client.sync_client import Client
from unigpu._config import mocked
from unigpu._io.clock import use_clock
from unigpu.emulator.engine import EngineSettings
from unigpu.emulator.simulation.virtual_cloud import VirtualCloud
from unigpu.emulator.simulation.workers import Behavior
from unigpu.errors import ConfigurationError

from .._isolation import isolated
from .answers import Answers, Call, Names, active
from .answers import serve as serve_request
from .clocks import MockClock, Mode, make
from .platforms import MockPlatform, find
from .provider import MockedProvider
from .served import Answer, as_server

__all__ = ["Call", "MockedProvider", "UnigpuMock", "unigpu_mock"]

_ECHO: Final = Behavior()
_ports: Final = itertools.cycle(range(1024, 65536))  # none that a URL leaves out; nothing listens there
_VERBS: Final[Mapping[str, tuple[str, ...]]] = {  # the ends of routes' names, over all platforms
    "invoke": ("job.submit", "worker.call"),
    "submit": ("job.submit",),
    "request": ("http", "worker.call"),
    "deploy": ("deployment.put", "endpoint.create", "pod.create", "instance.create"),
    "scale": (".patch", ".scale", "endpoint.put", "workergroup.put"),
    "teardown": (".delete",),
    "wake": (".wake",),
    "stop": (".stop", ".pause"),
    "start": (".start", ".resume"),
}


class UnigpuMock:
    """See `unigpu_mock`. Attributes named like its providers are `MockedProvider`.

    Attributes:
        clock: The process's clock while the block runs.
        router: The respx router, for a test's own routes beside ours.
        state_dir: The state directory of every client while the block runs.
    """

    def __init__(
        self,
        providers: Sequence[str],
        clock: Mode,
        pass_through: Sequence[str],
        list_lag: float,
        config: str | os.PathLike[str] | None,
    ) -> None:
        if clock not in ("instant", "virtual", "real"):
            raise ConfigurationError(f'clock={clock!r}: say "instant", "virtual" or "real".')
        self._platforms = {name: find(name) for name in providers or ("local",)}
        self._mode: Mode = clock
        self._pass_through = tuple(pass_through)
        self._lag = list_lag
        self._config = config
        self._stack: ExitStack | None = None
        self._behaviors: dict[str, Behavior] = {}

    def __enter__(self) -> UnigpuMock:
        self.clock: MockClock = make(self._mode)
        self.cloud = VirtualCloud(clock=self.clock, settings=EngineSettings(list_lag=self._lag))
        self.cloud.simulation._behavior_of = self._behavior  # noqa: SLF001  # pyright: ignore[reportPrivateUsage] - one house
        self.router = respx.MockRouter(assert_all_called=False)
        self._providers = {n: MockedProvider(n, p, self.cloud) for n, p in self._platforms.items()}
        self._names = Names(self.cloud)
        self._answers = Answers(self.cloud, self.clock, self._names, self.router)
        keys = {variable: "key-of-a-mock" for p in self._platforms.values() for variable in p.keys}
        with ExitStack() as stack:
            world = isolated(keys, config=self._config, network="any" if self._pass_through else "here")
            self.state_dir = stack.enter_context(world)
            stack.enter_context(mocked(self.state_dir, self._longest_start))
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
            active.append(self._answers)
            stack.callback(active.remove, self._answers)
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
        api = platform.face(self.cloud.engine)
        self.cloud.mount(api)
        if platform.own_address:
            port = next(_ports)
            self._answers.hosts[f"127.0.0.1:{port}"] = name
            self.router.route(host="127.0.0.1", port=port).mock(side_effect=serve_request)
            stack.enter_context(platform.around(f"http://127.0.0.1:{port}"))
            return
        for host in api.hosts:
            self._answers.hosts[host] = name
            where = {"host__regex": rf"\.{re.escape(host[1:])}$"} if host.startswith(".") else {"host": host}
            self.router.route(**where).mock(side_effect=serve_request)
        stack.enter_context(platform.around(f"https://{api.hosts[0]}"))

    # -- what a test says

    def serve(
        self,
        address: str,
        fn: Callable[[Any], Any],
        *,
        cold_start: float = 1.0,
        duration: float | Callable[[Any], float] = 0.1,
        workers: int | tuple[int, int] | None = None,
        exists: bool = True,
        namespace: str = "default",
        **fields: Any,
    ) -> None:
        """Let a function deployment exist whose workers answer with *fn*.

        Args:
            address: ``"name@provider"``; without a provider: the mock's first.
            fn: Input → output; a generator streams. What it raises is the job's failure.
            cold_start: Seconds of the mock's clock from a worker's start until it is ready. A call that states no
                ``start_timeout`` waits at least for that.
            duration: What one call takes.
            workers: Default: at most one, and none while nobody calls, where the platform can; else one.
            exists: ``False``: the application deploys it itself; this only says how its workers behave then.
            namespace: Of the clients that call it.
            fields: Further spec fields.

        Raises:
            ConfigurationError: the mock does not serve that provider, or a field is wrong.
        """
        behavior = Behavior(run=fn, cold_start=cold_start, duration=duration)
        content = {"handler": "unigpu.testing._mock.served:served"}
        if address.partition("@")[2] in ("", "local"):  # its content is hashed there: a line, and not all of unigpu
            content["handler"] = self._handler()
        self._serve(address, behavior, content, exists, namespace, workers, fields)

    def serve_http(
        self,
        address: str,
        fn: Answer,
        *,
        cold_start: float = 1.0,
        duration: float = 0.1,
        workers: int | tuple[int, int] | None = None,
        exists: bool = True,
        namespace: str = "default",
        **fields: Any,
    ) -> None:
        """Let an http deployment exist whose workers answer requests with *fn*. Otherwise as `serve`.

        Args:
            fn: `httpx.Request` → `httpx.Response`, or text, bytes, JSON data, ``None`` (204). What it raises is a 500.

        Raises:
            ConfigurationError, UnsupportedError: as `serve`; the platform has no http deployments.
        """
        behavior = Behavior(http=as_server(fn), cold_start=cold_start, duration=duration)
        content = {"interface": "http", "command": ["serve"]}
        self._serve(address, behavior, content, exists, namespace, workers, fields)

    def _serve(
        self,
        address: str,
        behavior: Behavior,
        content: Mapping[str, Any],
        exists: bool,
        namespace: str,
        workers: int | tuple[int, int] | None,
        fields: Mapping[str, Any],
    ) -> None:
        name, _, provider = address.partition("@")
        provider = provider or next(iter(self._platforms))
        if provider not in self._platforms:
            raise ConfigurationError(f"{address}: this mock serves {', '.join(self._platforms)}.")
        self._behaviors[f"{name}@{provider}"] = behavior
        if not exists:
            return
        spec: dict[str, Any] = {**content, **self._platforms[provider].served, **fields}
        if workers is not None:
            spec["workers"] = workers
        with Client(provider, namespace=namespace, state_dir=self.state_dir) as client:
            client.deploy(name=name, wait=False, progress="off", **spec)

    def calls(self, name: str | None = None, verb: str | None = None) -> tuple[Call, ...]:
        """The requests so far: of one deployment (its id or name on the platform is in the path or body), of one route.

        Args:
            name: A logical name, or ``name@provider``.
            verb: ``"invoke"``, ``"submit"``, ``"request"``, ``"deploy"``, ``"scale"``, ``"teardown"``, ``"wake"``,
                ``"stop"``, ``"start"``: the routes that the verb takes on a platform; or the end of a route's name, as
                in ``"job.cancel"``. A verb may take several requests.
        """
        found = tuple(self._answers.calls)
        if name is not None:
            logical, _, provider = name.partition("@")
            ids = self._names.ids(logical)
            found = tuple(
                one
                for one in found
                if provider in ("", one.provider) and any(id in one.path or id.encode() in one.body for id in ids)
            )
        if verb is not None:
            usual = _VERBS.get(verb, (verb,))
            ends = {name: platform.verbs.get(verb, usual) for name, platform in self._platforms.items()}
            found = tuple(one for one in found if one.operation.endswith(ends[one.provider]))
        return found

    def advance(self, seconds: float) -> None:
        """Let time pass."""
        self.clock.advance(seconds)

    def crash(self, name: str) -> int:
        """Kill the workers of a deployment that there are now; what they were working on is lost.

        Args:
            name: A logical name, or ``name@provider``.

        Returns:
            How many there were.
        """
        with self.cloud.lock:
            self._names.learn()
            ids = [id for id in self.cloud.engine.deployment_ids() if self._names.is_called(id, name)]
            there = [one.id for id in ids for one in self.cloud.engine.workers(id) if one.ended_at is None]
        for worker_id in there:
            self.cloud.crash(worker_id)
        return len(there)

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
            named = {id: self._names.label(id) for id in running}
            told = ", ".join(f"{named[id]} ({row['workers_running']} running)" for id, row in running.items())
            raise AssertionError(f"after {after:g} s still billing: {told}")

    def _behavior(self, id: str) -> Behavior:
        self._names.learn()
        by_address = self._behaviors.get(self._names.address(id))
        return by_address or self._behaviors.get(self._names.label(id), _ECHO)

    def _handler(self) -> str:
        file = self.state_dir.with_name("served") / "served.py"
        if not file.exists():
            file.parent.mkdir(exist_ok=True)
            file.write_text("def served(input):\n    return input\n", "utf-8")
        return f"{file}:served"

    def _longest_start(self) -> float:
        return max((one.cold_start for one in self._behaviors.values()), default=0.0)


def unigpu_mock(
    *providers: str,
    clock: Mode = "instant",
    pass_through: Sequence[str] = (),
    list_lag: float = 0.0,
    config: str | os.PathLike[str] | None = None,
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
        config: The project's file, for deployments that it declares; default: an empty one.

    Raises:
        ConfigurationError: no mock serves that provider.
    """
    return UnigpuMock(providers, clock, pass_through, list_lag, config)
