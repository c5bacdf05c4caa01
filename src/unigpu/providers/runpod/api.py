"""RunPod's two services, one letter apart, and what their errors mean.

``api.runpod.io/v2`` manages (role ``control``), ``api.runpod.ai/v2/{endpoint}`` takes jobs (role ``jobs``). Status
codes: https://docs.runpod.io/api-reference-v2 (the description of each operation).
"""

from __future__ import annotations

from collections.abc import Awaitable, Mapping
from dataclasses import dataclass
from typing import ClassVar, Final, Unpack
from urllib.parse import quote

from unigpu.driver import (
    API,
    DeploymentInfo,
    Io,
    Limit,
    Meaning,
    Pages,
    RequestOptions,
    Response,
    Tokens,
    parse,
)
from unigpu.errors import JobExpired, NoCapacityError, NotFoundError

from .wire import PROVIDER, HealthWire

_CHECKS: Final = 3
_CHECK_PAUSE: Final = 1.0

# https://docs.runpod.io/serverless/endpoints/send-requests, "Rate limits": requests in 10 s, per endpoint and user. We
# count all endpoints of a client as one. A burst and ten seconds of the rate together are the documented number.
LIMITS: Final[Mapping[str, Limit]] = {
    "runpod.run": Limit(rate=50, burst=500),
    "runpod.runsync": Limit(rate=100, burst=1000),
    "runpod.status": Limit(rate=50, burst=500),  # half of 2000, which leaves room for other clients of the account
    "runpod.cancel": Limit(rate=5, burst=50),
}

# What RunPod was seen to answer where nothing is free. Its 400 has no code that sets it apart from a mistake of ours:
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


@dataclass(frozen=True, kw_only=True)
class RunPodAPI(API):
    """RunPod's API.

    Attributes:
        jobs: The address of the job service.
    """

    provider: ClassVar[str] = PROVIDER
    meanings: ClassVar[tuple[Meaning, ...]] = (
        Meaning(
            (400,),
            words=_NO_CAPACITY,
            kind=NoCapacityError,
            hint="Accept more GPUs (gpu=[...]), leave regions and data centers open, or try again later.",
        ),
        Meaning(
            (403, 451),
            hint="The key may not do that. RunPod's keys are All, Restricted or Read Only: managing needs All; a "
            "Restricted key may only call the endpoints it was made for.",
        ),
    )

    pages: ClassVar[Pages | None] = Tokens("pagination.nextCursor", "cursor", more="pagination.hasNextPage")
    """The flag decides, never how many rows came: a page may be short, or empty."""

    jobs: str

    def path_of(self, info: DeploymentInfo) -> str:
        return f"/{'pods' if info.kind == 'pod' else 'serverless'}/{quote(info.id, safe='')}"

    def ask(
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
        """A request of the job service about one endpoint.

        Raises:
            NotFoundError: the service does not know the endpoint (yet, or any more), or the job.
        """
        options = RequestOptions(base=self.jobs, role="jobs", deployment=info.name) | options
        return self.send(io, method, f"/{quote(info.id, safe='')}{path}", operation, deadline=deadline, **options)

    async def job(
        self,
        io: Io,
        method: str,
        info: DeploymentInfo,
        path: str,
        operation: str,
        *,
        job_id: str,
        deadline: float,
        **options: Unpack[RequestOptions],
    ) -> Response:
        """A request about a job.

        A job that was submitted a moment ago may not be known at once (unverified), so "not found" is believed after
        three checks.

        Raises:
            DeploymentGone: the endpoint does not exist any more.
            JobExpired: it does, and does not know the job: results are kept for 30 minutes, those of ``/runsync`` for
                one, and at its ttl a job vanishes even while it runs.
        """
        error: NotFoundError | None = None
        path = f"{path}/{quote(job_id, safe='')}"
        for turn in range(_CHECKS):
            if turn:
                if io.now() + _CHECK_PAUSE >= deadline:
                    break
                await io.sleep(_CHECK_PAUSE)
            try:
                return await self.ask(io, method, info, path, operation, deadline=deadline, **options)
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
