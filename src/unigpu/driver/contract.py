"""The contract of a driver: what it is made from, what it says of a spec, and the protocols of its verbs.

A driver is small verbs, each one idea, each ``async def verb(self, io, ...)``. It keeps no client, lock, task or
thread; it never retries, never sleeps but by ``io.sleep``, and never guesses: an unknown status is ``UNKNOWN``, and a
list that cannot be read whole is an error, never empty. The sequence (find, create cold, record, warm, settle, undo)
belongs to the lifecycle, one for all platforms; see ``docs/design.md``.

A driver derives from `CallDriver`, which calls what exists, or from `DeployDriver`, which also creates and deletes. It
adds the protocols that it supports; the client raises `UnsupportedError` for the others, before it sends anything.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import Any, ClassVar, Final, Literal, Protocol, runtime_checkable

from pydantic import SecretStr

from .._io.contract import CallClass, Io, StreamResponse
from .._io.poll import STATE_PACE, Pace
from .._io.resilience.rate_limit import Limit
from ..elasticity.fact import ReadsText
from ..errors import NotFoundError, UnsupportedError
from ..models import (
    Adaptation,
    DeploymentInfo,
    DeploymentSpec,
    GPURequest,
    Identity,
    InputModel,
    JobInfo,
    LogLine,
    Rate,
    Scaling,
    Worker,
)
from ..models.inventory import InventoryItem
from ..models.offer import Offer
from .calls import ChunkPage, EndpointRef, HTTPCall, Invocation
from .resources import Resource

DRIVER_API = 1
"""The version of this contract. A driver that names another one is refused with both numbers."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DriverConfig:
    """What a driver is made from.

    Attributes:
        api_key: The account's key. The plain value is fetched where a header is built, nowhere else.
        options: The provider's own settings (``driver_options``), checked by the driver's `Driver.Options`.
        namespace: The namespace, for platforms whose lists must be filtered by it.
        state_dir: Where a driver that runs things on this machine keeps them; ``None``: it may keep nothing.
    """

    api_key: SecretStr | None = field(default=None, repr=False)
    options: Mapping[str, Any] = field(default_factory=dict[str, Any])
    namespace: str = "default"
    state_dir: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """Something stated that the platform cannot do.

    Attributes:
        capability: The flag that says so.
        message: What cannot be done, and what to do instead.
        nearest: Spec fields that are the nearest thing (for ``on_unsupported="adapt"``); ``None``: there is none.
        got: What ``nearest`` means, in words.
    """

    field: str
    capability: str
    message: str
    nearest: Mapping[str, Any] | None = None
    got: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Checked:
    """What a driver says of a spec before anything is sent."""

    adaptations: tuple[Adaptation, ...] = ()
    refusals: tuple[Refusal, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Content:
    """What a spec's content is, for its hash.

    Attributes:
        items: Name → text that stands for the content; ``"code"`` is what may differ without being another deployment.
        origin: Local: the folder that the handler comes from.
        notes: What was left out, in words.
    """

    items: Mapping[str, str] = field(default_factory=dict[str, str])
    origin: str | None = None
    notes: tuple[str, ...] = ()


class NoOptions(InputModel):
    """The options of a driver that has none."""


class CallDriver(ABC):
    """The first tier: a driver that calls endpoints which exist. ``__init__`` takes one `DriverConfig` and does no I/O.

    It needs a `name`, `driver_api`, `find` and `submit`; and `status` where the platform has jobs. The user gets
    ``client.get(id=...)``, ``invoke`` and ``map``, with retries, deadlines and events; with jobs ``submit`` too.
    `Cancels`, `StreamsJobs` or `Streams`, and `Requests` add the verbs of their names.

    Every attribute that the client reads is declared here or in one of the protocols of this module; the registry
    refuses a driver with a name that is nearly one of them.

    Attributes:
        name: The provider, as users write it.
        driver_api: `DRIVER_API` as the author knew it.
        env_key: The environment variable of the account's key; ``None``: it needs none.
        Options: The model of ``driver_options`` for this provider.
        SpecOptions: The model of ``provider_options`` for this provider.
        facts: The platform's facts, as a mapping or a TOML file; a flag that they leave out is ``unknown``.
        limits: The platform's documented rates by `Request.limit_key`, which begins with the provider's name. The
            client keeps to them, because waiting costs less than a 429.
        base: The address of the control plane, to which records of unfinished work are bound; ``None``: the name.
        state_pace: How often the state of a deployment is worth asking for.
        long_poll: Seconds for which `status` and `chunks` may hold a request; 0: the platform answers at once.
        submit_call: What repeating a submit may do (``IDEMPOTENT`` where the platform takes our id).
    """

    name: ClassVar[str]
    driver_api: ClassVar[int]
    env_key: ClassVar[str | None] = None
    Options: ClassVar[type[InputModel]] = NoOptions
    SpecOptions: ClassVar[type[InputModel]] = NoOptions
    facts: ClassVar[Mapping[str, Any] | ReadsText | None] = None
    limits: ClassVar[Mapping[str, Limit]] = {}
    state_pace: ClassVar[Pace] = STATE_PACE
    submit_call: ClassVar[CallClass] = CallClass.USER_DECIDES
    base: str | None = None
    long_poll: float = 0.0

    @abstractmethod
    def __init__(self, config: DriverConfig) -> None: ...

    @abstractmethod
    async def find(self, io: Io, ref: EndpointRef, *, deadline: float) -> DeploymentInfo:
        """The endpoint that *ref* names, as it is now. Nothing is written on the platform.

        Raises:
            NotFoundError: there is none.
            ConfigurationError: the platform does not show something that *ref* leaves open; names the argument.
        """

    async def read(self, io: Io, info: DeploymentInfo, *, deadline: float) -> DeploymentInfo | None:
        """The deployment now; ``None`` where it is certainly gone. By default `find` by its id."""
        ref = EndpointRef(id=info.id, interface=info.interface, port=info.port, route=info.route)
        try:
            return await self.find(io, ref, deadline=deadline)
        except NotFoundError:
            return None

    async def workers(self, io: Io, info: DeploymentInfo, *, deadline: float) -> Sequence[Worker]:
        """The workers that the platform shows, including those that failed lately; by default none."""
        return ()

    @abstractmethod
    async def submit(self, io: Io, info: DeploymentInfo, call: Invocation) -> JobInfo:
        """Call it. With jobs: put the job into the queue; where it ends within ``call.hold`` seconds the answer may be
        the job as it ended. Without: wait for the answer, and return the job as it ended.

        Raises:
            NoWorkerReady: no worker took it, and it has not run. A stopped deployment is started then, and the call
                made again once a worker is ready, until ``call.start_deadline``.
        """

    def has_jobs(self, info: DeploymentInfo) -> bool:
        """Whether `submit` returns a job; else it returns the answer, and ``client.submit`` is refused.

        By default a driver has jobs where it has `status`; one whose deployments differ overrides this.
        """
        return type(self).status is not CallDriver.status

    async def status(self, io: Io, info: DeploymentInfo, job_id: str, *, wait: float = 0.0, deadline: float) -> JobInfo:
        """The job now, or as soon as it ends within *wait* seconds. Not called where there are no jobs.

        Raises:
            JobExpired: where the platform does not know it any more.
        """
        raise UnsupportedError(
            f"{self.name} has no jobs", provider=self.name, capability="submit", hint="Use invoke()."
        )


class DeployDriver(CallDriver):
    """The second tier: a driver that creates, changes and deletes deployments, with the whole promise of the lifecycle.

    `Updates`, `Wakes`, `Pauses`, `Logs`, `ListsOffers` and `Inventories` add what their names say.
    """

    def check(self, spec: DeploymentSpec) -> Checked:
        """What of *spec* the platform cannot do, beside what its facts say. Pure: the gate raises or adapts."""
        return Checked()

    def content(self, spec: DeploymentSpec) -> Content:
        """What the content of *spec* is; by default the image, which is a field of the spec already."""
        return Content()

    def rate(self, spec: DeploymentSpec) -> Rate:
        """What *spec* would cost, as far as it is known without asking."""
        return Rate()

    @abstractmethod
    def resources(self, spec: DeploymentSpec, identity: Identity) -> Sequence[Resource]:
        """What a deployment consists of, in the order of creation."""

    @abstractmethod
    def parts(self, info: DeploymentInfo) -> Sequence[Resource]:
        """The same for one that exists: for teardown, which has no spec. `find` finds by its name."""

    @abstractmethod
    async def deployments(self, io: Io, *, deadline: float) -> Sequence[DeploymentInfo]:
        """All there are on the account. A list that cannot be read whole raises."""

    @abstractmethod
    async def read(self, io: Io, info: DeploymentInfo, *, deadline: float) -> DeploymentInfo | None:
        """The deployment now; ``None`` where it is certainly gone."""

    async def find(self, io: Io, ref: EndpointRef, *, deadline: float) -> DeploymentInfo:
        """As `CallDriver.find`; by default the one in the list whose id or name it is."""
        return ref.pick(await self.deployments(io, deadline=deadline), provider=self.name)

    async def warm(self, io: Io, info: DeploymentInfo, spec: DeploymentSpec, *, deadline: float) -> None:
        """Set the limits that were asked for, after everything was created cold and recorded."""
        await self.scale(io, info, workers=spec.workers, deadline=deadline)

    @abstractmethod
    async def scale(
        self,
        io: Io,
        info: DeploymentInfo,
        *,
        workers: tuple[int, int] | None = None,
        idle_timeout: float | None = None,
        scaling: Scaling | None = None,
        deadline: float,
    ) -> None:
        """Set absolute limits; what is ``None`` stays."""


@runtime_checkable
class Cancels(Protocol):
    """Platforms that cancel a job."""

    async def cancel(self, io: Io, info: DeploymentInfo, job_id: str, *, deadline: float) -> JobInfo:
        """Cancel it. One that had ended stays as it ended."""
        ...


@runtime_checkable
class Logs(Protocol):
    """Platforms whose workers' logs can be read."""

    def logs(
        self, io: Io, info: DeploymentInfo, *, worker: str | None, follow: bool, tail: int
    ) -> AsyncIterator[LogLine]:
        """The last *tail* lines of one worker or all, and what follows where *follow*."""
        ...


@runtime_checkable
class StreamsJobs(Protocol):
    """Platforms whose jobs' chunks are read by a cursor or drained."""

    async def chunks(
        self, io: Io, info: DeploymentInfo, job_id: str, *, after: int, wait: float, deadline: float
    ) -> ChunkPage: ...


@runtime_checkable
class Streams(Protocol):
    """Platforms without jobs whose replies stream; leaving closes the connection."""

    def stream(self, io: Io, info: DeploymentInfo, call: Invocation) -> AsyncIterator[Any]: ...


@runtime_checkable
class Requests(Protocol):
    """Platforms that hand a request to the user's own server.

    Attributes:
        request_hold: Seconds for which the platform itself may hold a request while no worker is ready.
    """

    @property
    def request_hold(self) -> float: ...

    def request(self, io: Io, info: DeploymentInfo, call: HTTPCall) -> AbstractAsyncContextManager[StreamResponse]:
        """Send it, and give the server's reply, whatever its status. Leaving closes the connection.

        Raises:
            NoWorkerReady: no worker took it within ``hold``; it has not run.
            WorkerLost: its worker gave no answer.
            WorkerFailed: workers cannot start.
            DeploymentGone: there is no such deployment.
        """
        ...


@runtime_checkable
class Updates(Protocol):
    """Platforms that can change a deployment in place.

    Attributes:
        update_kinds: The kinds of deployment that can be.
    """

    update_kinds: ClassVar[frozenset[str]]

    def updatable(self, fields: frozenset[str]) -> bool:
        """Whether a change of exactly these spec fields can be made in place."""
        ...

    async def update(
        self, io: Io, info: DeploymentInfo, spec: DeploymentSpec, identity: Identity, *, deadline: float
    ) -> None: ...


@runtime_checkable
class Wakes(Protocol):
    """Platforms where one worker can be started without a call."""

    async def wake(self, io: Io, info: DeploymentInfo, *, deadline: float) -> None: ...


@runtime_checkable
class Pauses(Protocol):
    """Platforms that can stop a deployment and start it again. Both are success where it is already so."""

    async def stop(self, io: Io, info: DeploymentInfo, *, deadline: float) -> None: ...
    async def start(self, io: Io, info: DeploymentInfo, *, deadline: float) -> None: ...


@runtime_checkable
class Inventories(Protocol):
    """Platforms where more than deployments costs money: workers, machines, disks and volumes, whoever made them."""

    async def inventory(self, io: Io, *, deadline: float) -> Sequence[InventoryItem]:
        """Everything that bills now, or may: ours, others', stopped and still billing. Unknown prices are ``None``.

        Raises:
            UniGPUError: a list could not be read whole.
        """
        ...


@runtime_checkable
class ListsOffers(Protocol):
    """Platforms that tell what GPUs they have now, and at which price."""

    async def offers(
        self,
        io: Io,
        *,
        gpu: tuple[GPURequest, ...] | None,
        max_price: float | None,
        regions: tuple[str, ...] | None,
        kind: Literal["serverless", "pod"],
        deadline: float,
    ) -> Sequence[Offer]:
        """What could be rented now. What is asked for narrows the search where the platform can; the client looks
        through the answer again, but for areas such as "EU", which only the driver can turn into places.

        Raises:
            UniGPUError: the list could not be read whole.
        """
        ...


CONTRACT: Final[frozenset[str]] = frozenset(
    name
    for cls in (
        CallDriver, DeployDriver, Cancels, Inventories, ListsOffers, Logs, Pauses, Requests, Streams, StreamsJobs,
        Updates, Wakes,
    )
    for name in (*vars(cls), *vars(cls).get("__annotations__", ()))
    if not name.startswith("_")
)  # fmt: skip
"""Every public name that the client reads of a driver."""
