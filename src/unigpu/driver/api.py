"""A platform's API client: one request, what its errors mean, and lists that are whole.

A provider extends `API` with its address, its error table and its quirks. `API.send` awaits ``io.send`` directly: it
retries nothing, waits for nothing and keeps no connection; all of that is the `Io`'s.
"""

from __future__ import annotations

from collections.abc import Awaitable, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Final, TypedDict, TypeVar, Unpack

from pydantic import SecretStr

from .._io.contract import UNSET, CallClass, Io, Request, Response, Role
from .._io.resilience.rate_limit import Limit
from .._io.status import error_for
from ..errors import APIStatusError, DeploymentGone, InvalidResponseError, NotFoundError, UniGPUError
from ..models import DeploymentInfo, WireModel
from .pages import Pages, Params
from .parse import mapping, rows_in, shaped

__all__ = ["API", "Meaning", "RequestOptions", "as_kind", "bearer", "gone"]

W = TypeVar("W", bound=WireModel)

_MOST_PAGES: Final = 1000


class RequestOptions(TypedDict, total=False):
    """What a request may have beside method, path, operation and deadline.

    Attributes:
        headers: Beside the key's, or in place of one of the same name.
        base: Another service of the platform than `API.base`.
        key: Another key than `API.key`.
        deployment: The logical name, where the request is about a deployment but "not found" is not about it.
        read_timeout: Another than `API.read_timeout`; ``None``: the deadline alone.
        limit_key: Another rate bucket than the operation's own.
        hide: Further values that no error may show, should the platform echo them.
    """

    json: Any
    params: Params
    headers: Params
    base: str
    key: SecretStr | None
    role: Role
    call: CallClass
    deployment: str | None
    read_timeout: float | None
    limit_key: str | None
    cleanup: bool
    reroutes: bool
    hide: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Meaning:
    """One row of an error table: what a status means on this platform, beyond the status itself.

    Attributes:
        status: The statuses that the row is about.
        words: Any of these, in lower case, must be in the message or the body; empty: whatever it says.
        kind: The error that it becomes; ``None``: it stays the one that belongs to the status.
        hint: What to do next.
    """

    status: tuple[int, ...]
    words: tuple[str, ...] = ()
    kind: type[UniGPUError] | None = None
    hint: str | None = None

    def fits(self, error: APIStatusError) -> bool:
        text = f"{error.message} {error.body or ''}".lower()
        return error.status in self.status and (not self.words or any(words in text for words in self.words))


@dataclass(frozen=True, kw_only=True)
class API:
    """Where a platform is, and who we are there. Extend it, as a dataclass without slots.

    Attributes:
        provider: The first word of every operation, and the provider of every error.
        read_timeout: Seconds without a byte before an attempt is given up.
        limits: The documented rates by full operation; the client keeps to them.
        meanings: The error table; the first row that fits decides.
        pages: How its lists are cut into pages; ``None``: they are not.
        none_words: Words of a 400 or 404 that a list answers where there is nothing to list.
        base: The address, without a slash at its end.
    """

    provider: ClassVar[str]
    read_timeout: ClassVar[float] = 30.0
    limits: ClassVar[Mapping[str, Limit]] = {}
    meanings: ClassVar[tuple[Meaning, ...]] = ()
    pages: ClassVar[Pages | None] = None
    none_words: ClassVar[tuple[str, ...]] = ()

    base: str
    key: SecretStr | None = field(default=None, repr=False)

    # -- what a platform says of itself -------------------------------------------------------------------------------

    def headers(self, key: SecretStr | None) -> Params:
        """The headers of every request: *key*, and what kind of reply is wanted."""
        return (*bearer(key), ("accept", "application/json"))

    @property
    def secrets(self) -> tuple[str, ...]:
        """What no error may show."""
        return () if self.key is None else (self.key.get_secret_value(),)

    def path_of(self, info: DeploymentInfo) -> str:
        """The path of one deployment, as in ``"/endpoints/ID"``."""
        raise NotImplementedError

    def body_of(self, response: Response) -> Any:
        """The reply's JSON, without an envelope where the platform has one."""
        return response.json()

    def parse(self, shape: type[W], response: Response) -> W:
        """The reply's body, without an envelope, as *shape*; raises as `unigpu.driver.shaped`."""
        return shaped(shape, self.body_of(response), response.operation)

    def status_of(self, response: Response) -> int:
        """As `Request.status_of`, for platforms that put an error into an HTTP 200."""
        return response.status

    def error_of(
        self, response: Response, *, deployment: str | None = None, hide: tuple[str, ...] = ()
    ) -> UniGPUError | None:
        """The error that a reply means; ``None``: it is a success."""
        if 200 <= response.status < 300:
            return None
        secrets = (*self.secrets, *hide)
        return self.meaning(error_for(response, self.provider, deployment=deployment, secrets=secrets), response)

    def meaning(self, error: UniGPUError, response: Response) -> UniGPUError:
        """What *error* is on this platform, by `meanings`."""
        if not isinstance(error, APIStatusError):
            return error
        row = next((row for row in self.meanings if row.fits(error)), None)
        if row is None:
            return error
        if row.kind is not None:
            return as_kind(row.kind, error, hint=row.hint)
        error.hint = row.hint or error.hint
        return error

    def absent(self, info: DeploymentInfo, error: NotFoundError) -> UniGPUError:
        """What "not found" means in a request about *info*."""
        return gone(info, error)

    # -- requests -----------------------------------------------------------------------------------------------------

    def request(
        self,
        method: str,
        path: str,
        operation: str,
        *,
        deadline: float,
        info: DeploymentInfo | None = None,
        **options: Unpack[RequestOptions],
    ) -> Request:
        """A request, as data. The key becomes text here, and nowhere else."""
        name = f"{self.provider}.{operation}"
        own = options.get("headers", ())
        replaced = {header for header, _ in own}
        kept = [pair for pair in self.headers(options.get("key", self.key)) if pair[0] not in replaced]
        return Request(
            method=method,
            url=f"{options.get('base', self.base)}{path}",
            operation=name,
            headers=(*kept, *own),
            params=options.get("params", ()),
            json=options.get("json", UNSET),
            role=options.get("role", "control"),
            call=options.get("call", CallClass.IDEMPOTENT),
            deadline=deadline,
            read_timeout=options.get("read_timeout", self.read_timeout),
            limit_key=options.get("limit_key", name if name in self.limits else None),
            cleanup=options.get("cleanup", False),
            deployment=options.get("deployment", None if info is None else info.name),
            reroutes=options.get("reroutes", False),
            status_of=self.status_of,
        )

    async def send(
        self,
        io: Io,
        method: str,
        path: str,
        operation: str,
        *,
        deadline: float,
        info: DeploymentInfo | None = None,
        **options: Unpack[RequestOptions],
    ) -> Response:
        """A request, and its reply unless that is an error.

        Args:
            operation: Without the provider, as in ``"endpoint.get"``.
            info: The deployment that the request is about: "not found" is about it, too.

        Raises:
            UniGPUError: what the reply means. With *info*, a `NotFoundError` becomes what `absent` says.
        """
        request = self.request(method, path, operation, deadline=deadline, info=info, **options)
        reply = await io.send(request)
        return self.checked(reply, info=info, deployment=request.deployment, hide=options.get("hide", ()))

    def about(
        self,
        io: Io,
        method: str,
        info: DeploymentInfo,
        path: str,
        operation: str,
        *,
        deadline: float,
        **options: Unpack[RequestOptions],
    ) -> Awaitable[Response]:
        """`send` to *path* below the deployment's own."""
        return self.send(io, method, f"{self.path_of(info)}{path}", operation, deadline=deadline, info=info, **options)

    async def optional(
        self, io: Io, path: str, operation: str, *, deadline: float, **options: Unpack[RequestOptions]
    ) -> Response | None:
        """The reply to a GET; ``None`` where the platform says that there is no such thing."""
        try:
            return await self.send(io, "GET", path, operation, deadline=deadline, **options)
        except NotFoundError:
            return None

    async def rows(
        self,
        io: Io,
        path: str,
        operation: str,
        *,
        deadline: float,
        under: str | None = None,
        pages: Pages | None = None,
        **options: Unpack[RequestOptions],
    ) -> list[Mapping[str, Any]]:
        """All rows of a list. A list that is read in part would say that something does not exist, so it is an error.

        Args:
            under: The field that holds the rows; ``None``: the reply is the list itself.
            pages: Where this list is cut otherwise than the platform's others (`API.pages`).

        Raises:
            InvalidResponseError: the list cannot be read to its end, or its route is not there.
        """
        found: list[Mapping[str, Any]] = []
        given = options.get("params", ())
        pages = pages or self.pages
        query = () if pages is None else pages.first
        for number in range(1, _MOST_PAGES + 1):
            options["params"] = (*given, *query)
            try:
                reply = await self.send(io, "GET", path, operation, deadline=deadline, **options)
            except APIStatusError as exc:
                if exc.status in (400, 404) and any(words in exc.message.lower() for words in self.none_words):
                    return found
                if isinstance(exc, NotFoundError):  # the route is gone, which is no news of what exists
                    raise InvalidResponseError(exc.message, provider=self.provider, operation=exc.operation) from exc
                raise
            body = self.body_of(reply)
            page = rows_in(body, under, reply.operation)
            found += page
            if pages is None:
                return found
            further = pages.after(mapping(body), number=number, rows=len(page), total=len(found))
            if further is None:
                return found
            if not further:
                break
            query = further
        raise InvalidResponseError(
            f"{self.provider}.{operation}: the list cannot be read to its end",
            provider=self.provider,
            operation=f"{self.provider}.{operation}",
        )

    async def listed(
        self,
        io: Io,
        shape: type[W],
        path: str,
        operation: str,
        *,
        deadline: float,
        under: str | None = None,
        pages: Pages | None = None,
        **options: Unpack[RequestOptions],
    ) -> list[W]:
        """All rows of a list, each as *shape*; raises as `rows` and `unigpu.driver.shaped`."""
        found = await self.rows(io, path, operation, deadline=deadline, under=under, pages=pages, **options)
        return [shaped(shape, row, f"{self.provider}.{operation}") for row in found]

    def checked(
        self,
        response: Response,
        *,
        info: DeploymentInfo | None = None,
        deployment: str | None = None,
        hide: tuple[str, ...] = (),
    ) -> Response:
        """*response* itself where it is a success; raises as `send`."""
        error = self.error_of(response, deployment=deployment if info is None else info.name, hide=hide)
        if error is None:
            return response
        if info is not None and isinstance(error, NotFoundError):
            raise self.absent(info, error) from error
        raise error


def bearer(key: SecretStr | None) -> Params:
    """The header that carries *key*; none without one."""
    return () if key is None else (("authorization", f"Bearer {key.get_secret_value()}"),)


def as_kind(
    kind: type[UniGPUError], error: APIStatusError, *, hint: str | None = None, retry_after: float | None = None
) -> UniGPUError:
    """The same failure as an error of another kind, with all that *error* knows."""
    more: dict[str, Any] = {}
    if issubclass(kind, APIStatusError):
        more = {"status": error.status, "request_id": error.request_id, "body": error.body}
        more["retry_after"] = error.retry_after if retry_after is None else retry_after
    return kind(
        error.message,
        provider=error.provider,
        operation=error.operation,
        deployment=error.deployment,
        maybe_executed=error.maybe_executed,
        hint=hint or error.hint,
        stop_reason=error.stop_reason,
        attempts=error.attempts,
        **more,
    )


def gone(info: DeploymentInfo, error: APIStatusError | None = None, *, operation: str | None = None) -> DeploymentGone:
    """The error for a deployment that the platform says does not exist."""
    return DeploymentGone(
        f"{info.name or info.provider_name} does not exist on {info.provider} any more",
        status=404 if error is None else error.status,
        provider=info.provider,
        operation=operation or (None if error is None else error.operation),
        deployment=info.name,
        maybe_executed=False,
        hint="Deploy it again.",
    )
