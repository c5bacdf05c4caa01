"""One request to RunPod, and what its errors mean.

Two services, one letter apart: ``api.runpod.io/v2`` manages (role ``control``), ``api.runpod.ai/v2/{endpoint}`` takes
jobs (role ``jobs``). Status codes: https://docs.runpod.io/api-reference-v2 (the description of each operation).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, cast
from urllib.parse import quote

from pydantic import SecretStr

from unigpu.driver import UNSET, CallClass, DeploymentInfo, Io, Limit, Request, Response, Role, check, parse, shaped
from unigpu.errors import (
    DeploymentGone,
    InvalidRequestError,
    InvalidResponseError,
    JobExpired,
    NoCapacityError,
    NotFoundError,
    PermissionDeniedError,
    UniGPUError,
)

from .wire import PROVIDER, HealthWire, PaginationWire

READ_TIMEOUT: Final = 30.0
_MOST_PAGES: Final = 1000
_LOOKS: Final = 3
_LOOK_PAUSE: Final = 1.0

# https://docs.runpod.io/serverless/endpoints/send-requests, "Rate limits": requests in 10 s, per endpoint and user. We
# count all endpoints of a client as one. A burst and ten seconds of the rate together are the documented number.
LIMITS: Final[Mapping[str, Limit]] = {
    "runpod.run": Limit(rate=50, burst=500),
    "runpod.runsync": Limit(rate=100, burst=1000),
    "runpod.status": Limit(rate=50, burst=500),  # half of 2000: looking leaves room for other clients of the account
    "runpod.cancel": Limit(rate=5, burst=50),
}

# What RunPod was seen to answer where nothing is free. A 400 has no code that would tell it from a mistake of ours:
# https://github.com/runpod/runpod-mcp and its notes quote the text. Words are all there is, so this is best effort.
_NO_CAPACITY: Final = (
    "no longer any instances available",
    "no instances available",
    "no machines available",
    "no gpu available",
    "not enough free gpus",
    "insufficient capacity",
    "no capacity",
    "out of stock",
    "currently unavailable",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class RunPodAPI:
    """Where RunPod is, and who we are there. It keeps no connection: that is the `Io`'s."""

    control: str
    jobs: str
    key: SecretStr | None = field(repr=False)

    @property
    def headers(self) -> tuple[tuple[str, str], ...]:
        """The key, put in here and nowhere else."""
        return (("authorization", f"Bearer {self._secret}"), ("accept", "application/json"))

    @property
    def _secret(self) -> str:
        return "" if self.key is None else self.key.get_secret_value()

    # -- control ------------------------------------------------------------------------------------------------------

    async def rows(
        self, io: Io, path: str, key: str, operation: str, *, deadline: float, params: tuple[tuple[str, str], ...] = ()
    ) -> Sequence[Mapping[str, Any]]:
        """All pages of a list, or an error: a list that is half read would say that something does not exist.

        Pages are followed by ``hasNextPage``, never by how many rows came: one may be short, or empty.
        """
        rows: list[Mapping[str, Any]] = []
        asked = params
        for _ in range(_MOST_PAGES):
            try:
                reply = await self.send(io, "GET", path, operation, params=asked, deadline=deadline)
            except NotFoundError as exc:  # the route is gone; that says nothing of what exists
                raise InvalidResponseError(exc.message, provider=PROVIDER, operation=exc.operation) from exc
            found: object = reply.json()
            page: Mapping[str, Any] = cast("Mapping[str, Any]", found) if isinstance(found, dict) else {}
            items = page.get(key)
            if not isinstance(items, list) or not all(isinstance(one, dict) for one in cast("list[object]", items)):
                raise InvalidResponseError(
                    f"{reply.operation}: RunPod's reply has no list of {key}",
                    provider=PROVIDER,
                    operation=reply.operation,
                )
            rows += cast("list[Mapping[str, Any]]", items)
            after = page.get("pagination")
            pages = shaped(PaginationWire, after, reply.operation) if after is not None else PaginationWire()
            if not pages.hasNextPage:
                return rows
            if not pages.nextCursor:
                break
            asked = (*params, ("cursor", pages.nextCursor))
        raise InvalidResponseError(
            f"runpod.{operation}: the list does not end", provider=PROVIDER, operation=f"runpod.{operation}"
        )

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
        """A request of REST v2, and its reply unless that is an error."""
        request = Request(
            method=method,
            url=f"{self.control}{path}",
            operation=f"runpod.{operation}",
            headers=self.headers,
            params=params,
            json=json,
            role=role,
            call=call,
            deadline=deadline,
            read_timeout=READ_TIMEOUT,
            deployment=deployment,
        )
        return self._checked(await io.send(request), deployment)

    async def about(
        self, io: Io, method: str, info: DeploymentInfo, path: str, operation: str, **more: Any
    ) -> Response:
        """A request of REST v2 about one endpoint or pod.

        Raises:
            DeploymentGone: it does not exist.
        """
        where = "pods" if info.kind == "pod" else "serverless"
        try:
            return await self.send(
                io, method, f"/{where}/{quote(info.id, safe='')}{path}", operation, deployment=info.name, **more
            )
        except NotFoundError as exc:
            raise gone(info, exc.operation) from exc

    # -- jobs ---------------------------------------------------------------------------------------------------------

    async def ask(
        self,
        io: Io,
        method: str,
        info: DeploymentInfo,
        path: str,
        operation: str,
        *,
        deadline: float,
        json: Any = UNSET,
        params: tuple[tuple[str, str], ...] = (),
        call: CallClass = CallClass.IDEMPOTENT,
        limit_key: str | None = None,
        wait: float = 0.0,
    ) -> Response:
        """A request of the job service about one endpoint. *wait*: seconds for which it may be held.

        Raises:
            NotFoundError: as `check`; what it means is the caller's to find out.
        """
        request = Request(
            method=method,
            url=f"{self.jobs}/{quote(info.id, safe='')}{path}",
            operation=f"runpod.{operation}",
            headers=self.headers,
            params=params,
            json=json,
            role="jobs",
            call=call,
            deadline=deadline,
            read_timeout=wait + READ_TIMEOUT,
            limit_key=limit_key,
            deployment=info.name,
        )
        return self._checked(await io.send(request), info.name)

    async def job(
        self, io: Io, method: str, info: DeploymentInfo, path: str, operation: str, *, job_id: str, **more: Any
    ) -> Response:
        """A request about a job.

        A job that was submitted a moment ago may not be known at once (unverified), so "not found" is believed after
        three looks.

        Raises:
            DeploymentGone: the endpoint does not exist any more.
            JobExpired: it does, and does not know the job: results are kept for 30 minutes, those of ``/runsync`` for
                one, and at its ttl a job vanishes even while it runs.
        """
        error: NotFoundError | None = None
        deadline: float = more["deadline"]
        for turn in range(_LOOKS):
            if turn:
                if io.now() + _LOOK_PAUSE >= deadline:
                    break
                await io.sleep(_LOOK_PAUSE)
            try:
                return await self.ask(io, method, info, f"{path}/{quote(job_id, safe='')}", operation, **more)
            except NotFoundError as exc:
                error = exc
                # Raises DeploymentGone where there is no endpoint.
                await self.about(io, "GET", info, "", "endpoint.get", deadline=deadline)
        raise JobExpired(
            f"RunPod does not know job {job_id} of {info.name or info.id} (any more)",
            job_id=job_id,
            provider=PROVIDER,
            operation=f"runpod.{operation}",
            deployment=info.name,
            hint="Results are kept for 30 minutes after the end, those of idempotent calls for one minute.",
        ) from error

    async def health(self, io: Io, info: DeploymentInfo, *, deadline: float) -> HealthWire:
        """An endpoint's jobs and workers now."""
        try:
            reply = await self.ask(io, "GET", info, "/health", "endpoint.health.get", deadline=deadline)
        except NotFoundError:
            return HealthWire()  # an endpoint that was just made is not known there for a moment (unverified)
        return parse(HealthWire, reply)

    # -- errors -------------------------------------------------------------------------------------------------------

    def _checked(self, response: Response, deployment: str | None) -> Response:
        try:
            return check(response, PROVIDER, deployment=deployment, secrets=(self._secret,))
        except UniGPUError as exc:
            raise meaning(exc, response) from None


def meaning(exc: UniGPUError, response: Response) -> UniGPUError:
    """What RunPod's words say beyond the status."""
    if isinstance(exc, PermissionDeniedError):
        exc.hint = (
            "The key may not do that. RunPod's keys are All, Restricted or Read Only: managing needs All; a Restricted "
            "key may only call the endpoints it was made for."
        )
    if isinstance(exc, InvalidRequestError) and exc.status == 400 and says_no_capacity(exc.message):
        return NoCapacityError(
            exc.message,
            provider=PROVIDER,
            operation=response.operation or None,
            deployment=exc.deployment,
            retryable=True,
            maybe_executed=False,
            hint="Accept more GPUs (gpu=[...]), leave regions and data centres open, or try again later.",
        )
    return exc


def says_no_capacity(text: str) -> bool:
    low = text.lower()
    return any(words in low for words in _NO_CAPACITY)


def gone(info: DeploymentInfo, operation: str | None) -> DeploymentGone:
    return DeploymentGone(
        f"{info.name or info.provider_name} does not exist on RunPod any more",
        status=404,
        provider=PROVIDER,
        operation=operation,
        deployment=info.name,
        maybe_executed=False,
        hint="Deploy it again.",
    )
