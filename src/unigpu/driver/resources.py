"""The resources that a deployment consists of on a platform, and how the lifecycle finds them again.

`ListedResource` is the usual one: found in a list by its name, read and deleted by its id. A provider describes it by
path, shape and body, and overrides what its platform does differently. `BaseResource` is what is left where a platform
is found and created in a way of its own.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final, Generic, Literal, Protocol, TypeVar, Unpack
from urllib.parse import quote

from .._io.contract import CallClass, Io, Response
from ..errors import NameConflict, NotFoundError
from ..models import DeploymentInfo, DeploymentSpec, Identity, State, WireModel
from .api import API, RequestOptions
from .pages import Pages
from .parse import shaped

__all__ = ["LISTED", "BaseResource", "Consistency", "Found", "ListedResource", "Resource", "found_of"]

W = TypeVar("W", bound=WireModel)


@dataclass(frozen=True, slots=True, kw_only=True)
class Consistency:
    """How soon a created resource is seen.

    ``atomic``: create is a PUT by name; the answer is the truth, and two creates make one.
    ``listed``: it is found by listing, late; after an unclear create it is looked for during ``settle`` seconds.
    """

    kind: Literal["atomic", "listed"]
    settle: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """One resource that carries our tag, as a list or a read showed it.

    Attributes:
        attempt: The create call that made it, where that can be read back.
        spec_hash: The spec it was made from, where that can be read back.
        created_at: Epoch seconds, where the platform tells.
        expires_at: Epoch seconds of its end, where it was given one.
        origin: Local: the folder that the handler comes from.
        info: The deployment as this resource shows it, where this is the resource that is called.
        shown: Spec field → its value, where the platform shows no spec but single fields as they were given: compared
            where no hash is known.
    """

    kind: str
    id: str
    name: str
    attempt: str | None = None
    spec_hash: str | None = None
    created_at: float | None = None
    expires_at: float | None = None
    origin: str | None = None
    info: DeploymentInfo | None = None
    shown: Mapping[str, Any] = field(default_factory=dict[str, Any])


LISTED: Final = Consistency(kind="listed", settle=15.0)
"""For platforms that do not say how late their lists are."""


def found_of(kind: str, info: DeploymentInfo, **facts: Any) -> Found:
    """The resource that is called, out of the deployment that it shows. *facts* replace single fields."""
    found = Found(
        kind=kind,
        id=info.id,
        name=info.provider_name,
        attempt=info.attempt,
        spec_hash=info.spec_hash,
        created_at=info.created_at,
        expires_at=info.expires_at,
        origin=info.origin,
        info=info,
    )
    return replace(found, **facts) if facts else found


class Resource(Protocol):
    """One thing that a deployment consists of on a platform.

    Attributes:
        kind: The platform's word: ``"endpoint"``, ``"template"``.
        call: What repeating its create may do.
        consistency: How soon a created one is seen.
        bills_cold: What it costs as created, before it is warmed, in words; ``None``: nothing.
        optional: Whether a deployment is whole without it.
    """

    @property
    def kind(self) -> str: ...
    @property
    def call(self) -> CallClass: ...
    @property
    def consistency(self) -> Consistency: ...
    @property
    def bills_cold(self) -> str | None: ...
    @property
    def optional(self) -> bool:
        return False

    async def find(self, io: Io, *, deadline: float) -> Sequence[Found]:
        """Every one that carries this deployment's name. A list that cannot be read whole raises."""
        ...

    async def create_cold(self, io: Io, made: Mapping[str, Found], *, deadline: float) -> Found:
        """Create it without any worker where the platform can. *made*: what was created before it, by kind.

        Raises:
            ConflictError: atomic ones, where the name is taken meanwhile (look again).
        """
        ...

    async def read(self, io: Io, id: str, *, deadline: float) -> Found | None:
        """It, or ``None`` where the platform certainly does not have it."""
        ...

    async def delete(self, io: Io, id: str, *, deadline: float) -> None:
        """Delete it. One that is already gone is success."""
        ...


@dataclass(frozen=True, kw_only=True)
class BaseResource:
    """What all resources of a platform have. Extend it, as a dataclass without slots, for one that is found and created
    in a way of its own.

    Attributes:
        kind: As in `Resource`; its operations are ``{kind}.list``, ``.get``, ``.create`` and ``.delete``.
        name: The name that it carries there.
        spec: What it is created from; ``None``, with `identity`, for one that exists.
    """

    api: API
    kind: str
    name: str
    spec: DeploymentSpec | None = None
    identity: Identity | None = None
    call: CallClass = CallClass.RECONCILE
    consistency: Consistency = LISTED
    bills_cold: str | None = None
    optional: bool = False

    @property
    def label(self) -> str | None:
        """The logical name, for errors."""
        return None if self.spec is None else self.spec.name

    def made_from(self) -> tuple[DeploymentSpec, Identity]:
        """What it is created from."""
        if self.spec is None or self.identity is None:
            raise AssertionError(f"a {self.kind} without a spec exists already, and is never created")
        return self.spec, self.identity

    def post(
        self, io: Io, path: str, body: Any, *, deadline: float, **options: Unpack[RequestOptions]
    ) -> Awaitable[Response]:
        """The request that creates it, and its reply; raises as `API.send`."""
        sent: RequestOptions = {"json": body, "role": "create", "call": self.call, "deployment": self.label}
        return self.api.send(io, "POST", path, f"{self.kind}.create", deadline=deadline, **(sent | options))


@dataclass(frozen=True, kw_only=True)
class ListedResource(BaseResource, Generic[W]):
    """A resource that is found in a list by its name, and read and deleted by its id. Creating it twice makes two.

    What the platform calls gone (`State.GONE`) is not found, even while it is still listed.

    Attributes:
        path: Where it is listed and created; one of them is at ``{path}/{id}``.
        shape: The model of one row.
        found: What a row shows.
        body: What is sent to create it, given spec, identity and what was created before it.
        tag: The field of a row that begins with `name`. A row with another name is not read further, so a stranger's
            odd row hides nothing; ``None``: every row is read.
        under: The field of a list that holds its rows; ``None``: the reply is the list.
        pages: Where its list is cut otherwise than the platform's others.
    """

    path: str
    shape: type[W]
    found: Callable[[W], Found]
    body: Callable[[DeploymentSpec, Identity, Mapping[str, Found]], Any] | None = None
    tag: str | None = "name"
    under: str | None = None
    pages: Pages | None = None

    def path_of(self, id: str) -> str:
        """The path of one of them."""
        return f"{self.path}/{quote(id, safe='')}"

    async def find(self, io: Io, *, deadline: float) -> Sequence[Found]:
        """As `Resource.find`."""
        return [one for one in await self.all(io, deadline=deadline) if one.name == self.name]

    async def all(self, io: Io, *, deadline: float) -> list[Found]:
        """All that `tag` lets through, also under another whole name."""
        operation = f"{self.kind}.list"
        rows = await self.api.rows(io, self.path, operation, under=self.under, pages=self.pages, deadline=deadline)
        found = [self.shown(row, operation) for row in rows if self._may_be_ours(row)]
        return [one for one in found if not _is_gone(one)]

    async def read(self, io: Io, id: str, *, deadline: float) -> Found | None:
        """As `Resource.read`."""
        operation = f"{self.kind}.get"
        reply = await self.api.optional(io, self.path_of(id), operation, deadline=deadline)
        found = None if reply is None else self.shown(self.api.body_of(reply), operation)
        return None if found is None or _is_gone(found) else found

    async def create_cold(self, io: Io, made: Mapping[str, Found], *, deadline: float) -> Found:
        """As `Resource.create_cold`."""
        if self.body is None:
            raise AssertionError(f"a {self.kind} without a body is never created")
        return await self.create(io, self.body(*self.made_from(), made), deadline=deadline)

    async def create(self, io: Io, body: Any, *, deadline: float, **options: Unpack[RequestOptions]) -> Found:
        """Create it from *body*, and what the reply shows of it."""
        reply = await self.post(io, self.path, body, deadline=deadline, **options)
        return self.shown(self.api.body_of(reply), f"{self.kind}.create")

    async def delete(self, io: Io, id: str, *, deadline: float) -> None:
        """As `Resource.delete`."""
        try:
            await self.api.send(io, "DELETE", self.path_of(id), f"{self.kind}.delete", deadline=deadline)
        except NotFoundError:
            return  # it is gone already

    async def must_not_exist(self, io: Io, *, deadline: float) -> None:
        """A name is one deployment, whatever its kind: before another kind is created, this one must not be there.

        Raises:
            NameConflict: it is.
        """
        there = await self.find(io, deadline=deadline)
        if there:
            label, article = self.label or self.name, "an" if self.kind[0] in "aeiou" else "a"
            raise NameConflict(
                f"{label} exists on {self.api.provider} as {article} {self.kind} ({there[0].id})",
                provider=self.api.provider,
                deployment=label,
                fields=("kind",),
                maybe_executed=False,
                hint="Tear it down first, or choose another name; nothing was created.",
            )

    def shown(self, row: object, operation: str) -> Found:
        """What a row shows.

        Raises:
            InvalidResponseError: the row has another shape.
        """
        return self.found(shaped(self.shape, row, f"{self.api.provider}.{operation}"))

    def _may_be_ours(self, row: Mapping[str, Any]) -> bool:
        tag = None if self.tag is None else row.get(self.tag)
        return not isinstance(tag, str) or tag.startswith(self.name)


def _is_gone(found: Found) -> bool:
    return found.info is not None and found.info.state is State.GONE
