"""One request to Yotta's control plane: the key is put in here, and the envelope taken off."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, cast

from pydantic import SecretStr

from unigpu.driver import UNSET, CallClass, DeploymentInfo, Io, Limit, Request, Role
from unigpu.errors import DeploymentGone, InvalidResponseError, JobExpired, NotFoundError

from ._codes import NO_TASK, PROVIDER, data_of, status_of

READ_TIMEOUT: Final = 30.0
PAGE: Final = 100
_MOST_PAGES: Final = 1000

SUBMIT_TASK: Final = "yotta.task.submit"
READ_TASK: Final = "yotta.task.read"
LIMITS: Final[Mapping[str, Limit]] = {
    SUBMIT_TASK: Limit(rate=35.0, burst=5.0),
    READ_TASK: Limit(rate=55.0, burst=5.0),
}
"""Tasks: 40 creates and 60 reads in any second, which is a burst and what is let through after it. Documented for one
endpoint, of the older API
(https://docs.yottalabs.ai/api-and-sdk/api-guides/serverless/queue-based-elastic-execution); here all endpoints of a
client share them, which keeps the account's limits (200 and 400) as well."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """Where the control plane is, and who we are there. It keeps no connection: that is the `Io`'s."""

    base: str
    key: SecretStr | None = field(repr=False)

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
        limit_key: str | None = None,
        hide: tuple[str, ...] = (),
    ) -> Any:
        """A request, and its envelope's ``data`` unless that is an error.

        Args:
            hide: Further values that no error may show, should the platform echo them.
        """
        secret = "" if self.key is None else self.key.get_secret_value()
        request = Request(
            method=method,
            url=f"{self.base}{path}",
            operation=f"{PROVIDER}.{operation}",
            headers=(("x-api-key", secret),),
            params=params,
            json=json,
            role=role,
            call=call,
            deadline=deadline,
            read_timeout=READ_TIMEOUT,
            limit_key=limit_key,
            deployment=deployment,
            status_of=status_of,
        )
        return data_of(await io.send(request), deployment=deployment, secrets=(secret, *hide))

    async def about(self, io: Io, method: str, info: DeploymentInfo, path: str, operation: str, **more: Any) -> Any:
        """A request about one endpoint or pod, where "not found" has a meaning.

        Raises:
            DeploymentGone: it does not exist.
            JobExpired: it does, and does not know the task.
        """
        collection = "pods" if info.kind == "pod" else "serverless"
        try:
            return await self.send(
                io, method, f"/v2/{collection}/{info.id}{path}", operation, deployment=info.name, **more
            )
        except NotFoundError as exc:
            about: dict[str, Any] = {"provider": PROVIDER, "operation": exc.operation, "deployment": info.name}
            if exc.status in NO_TASK:
                raise JobExpired(exc.message, **about) from exc
            raise DeploymentGone(f"{info.name or info.id} does not exist any more", status=exc.status, **about) from exc

    async def listed(self, io: Io, path: str, operation: str, *, deadline: float) -> Any:
        """A list's ``data``; that its route is not found says nothing of what exists.

        Raises:
            InvalidResponseError: the route is not there.
        """
        try:
            return await self.send(io, "GET", path, operation, deadline=deadline)
        except NotFoundError as exc:
            raise InvalidResponseError(exc.message, provider=PROVIDER, operation=exc.operation) from exc

    async def pages(
        self, io: Io, path: str, operation: str, params: tuple[tuple[str, str], ...] = (), *, deadline: float
    ) -> Sequence[Any]:
        """All rows of a list that is paged by ``page`` and ``size``, or an error."""
        found: list[Any] = []
        for number in range(1, _MOST_PAGES + 1):
            asked = (*params, ("page", str(number)), ("size", str(PAGE)))
            try:
                data = await self.send(io, "GET", path, operation, params=asked, deadline=deadline)
            except NotFoundError as exc:
                raise InvalidResponseError(exc.message, provider=PROVIDER, operation=exc.operation) from exc
            page = cast("Mapping[str, Any]", data) if isinstance(data, Mapping) else {"items": data}
            items = page.get("items")
            if not isinstance(items, list):
                break
            found += items
            if len(items) < PAGE or len(found) >= _total(page):  # pyright: ignore[reportUnknownArgumentType] - any JSON list
                return found
        raise InvalidResponseError(
            f"{operation}: the list cannot be read to its end", provider=PROVIDER, operation=f"{PROVIDER}.{operation}"
        )


def _total(page: Mapping[str, Any]) -> float:
    """How many rows there are: beside the items (v2), or in a ``pagination`` of their own (v1)."""
    nested = page.get("pagination")
    told = page.get(
        "total", cast("Mapping[str, Any]", nested).get("totalCount") if isinstance(nested, Mapping) else None
    )
    return told if isinstance(told, int) else float("inf")
