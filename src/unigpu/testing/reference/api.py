"""One request to the reference platform, and what its errors mean."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from pydantic import SecretStr

from unigpu.driver import UNSET, CallClass, DeploymentInfo, Io, Request, Response, Role, check
from unigpu.errors import (
    ConflictError,
    DeploymentGone,
    InvalidResponseError,
    JobExpired,
    NoCapacityError,
    NotFoundError,
)

from .wire import PageWire, parse

PROVIDER: Final = "reference"
READ_TIMEOUT: Final = 30.0
_MOST_PAGES: Final = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """Where the platform is, and who we are there. It keeps no connection: that is the `Io`'s."""

    base: str
    key: SecretStr | None = field(repr=False)

    async def rows(self, io: Io, kind: str, *, deadline: float) -> Sequence[Mapping[str, Any]]:
        """All pages of a list, or an error: a list that is half read would say that something does not exist."""
        rows: list[Mapping[str, Any]] = []
        params: tuple[tuple[str, str], ...] = ()
        for _ in range(_MOST_PAGES):
            try:
                reply = await self.send(io, "GET", f"/{kind}s", f"{kind}.list", params=params, deadline=deadline)
            except NotFoundError as exc:  # the route is gone; that says nothing of what exists
                raise InvalidResponseError(exc.message, provider=PROVIDER, operation=exc.operation) from exc
            page = parse(PageWire, reply)
            rows += page.items
            if page.next is None:
                return rows
            params = (("after", page.next),)
        raise InvalidResponseError(f"the list of {kind}s does not end", provider=PROVIDER, operation=f"{kind}.list")

    async def about(
        self, io: Io, method: str, info: DeploymentInfo, path: str, operation: str, **more: Any
    ) -> Response:
        """A request about one endpoint, where "not found" has a meaning.

        Raises:
            DeploymentGone: the endpoint does not exist.
            JobExpired: it does, and does not know the job.
        """
        role: Role = "jobs" if operation.startswith("job.") else "control"
        path = f"/endpoints/{info.id}{path}"
        try:
            return await self.send(io, method, path, operation, role=role, deployment=info.name, **more)
        except NotFoundError as exc:
            about: dict[str, Any] = {"provider": PROVIDER, "operation": exc.operation, "deployment": info.name}
            if role == "jobs" and "job_" in (exc.body or ""):
                raise JobExpired(exc.message, **about) from exc
            raise DeploymentGone(f"{info.name or info.id} does not exist any more", **about) from exc

    async def send(
        self,
        io: Io,
        method: str,
        path: str,
        operation: str,
        *,
        deadline: float,
        json: Any = UNSET,
        params: tuple[tuple[str, str], ...] = (),
        role: Role = "control",
        call: CallClass = CallClass.IDEMPOTENT,
        deployment: str | None = None,
    ) -> Response:
        """A request, and its reply unless that is an error. The key is put in here, and nowhere else.

        Raises:
            NoCapacityError: no such GPU is free. Which status a platform has for that, its manual must say.
        """
        secret = "" if self.key is None else self.key.get_secret_value()
        request = Request(
            method=method,
            url=f"{self.base}{path}",
            operation=f"reference.{operation}",
            headers=(("authorization", f"Bearer {secret}"),),
            params=params,
            json=json,
            role=role,
            call=call,
            deadline=deadline,
            read_timeout=READ_TIMEOUT,
            deployment=deployment,
        )
        try:
            return check(await io.send(request), PROVIDER, deployment=deployment, secrets=(secret,))
        except ConflictError as exc:
            if "no_capacity" not in (exc.body or ""):
                raise
            raise NoCapacityError(
                exc.message, provider=PROVIDER, operation=exc.operation, deployment=deployment, maybe_executed=False
            ) from exc
