"""What a driver gets for one call, and what it gives back beside a `JobInfo` or a `Result`."""

from __future__ import annotations

import difflib
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pydantic import SecretStr

from .._io.contract import CallClass, Headers, Request, Response, Role, StreamResponse
from ..errors import ConflictError, NotFoundError
from ..models import DeploymentInfo, Interface, JobInfo, JobStatus, Result

__all__ = ["BufferedReply", "ChunkPage", "EndpointRef", "HTTPCall", "Invocation", "buffered"]


@dataclass(frozen=True, slots=True, kw_only=True)
class EndpointRef:
    """An endpoint on the platform that unigpu did not create.

    Attributes:
        id: The platform's id of it, or its name there.
        interface: ``"function"`` or ``"http"``; ``None``: the platform says which.
        port: The port of its own server, where the platform has several.
        route: Where a call is posted, on platforms where an endpoint has several routes.
    """

    id: str
    interface: Interface | None = None
    port: int | None = None
    route: str | None = None

    def pick(self, found: Sequence[DeploymentInfo], *, provider: str) -> DeploymentInfo:
        """The one of *found* that this names: by id, else by the name on the platform.

        Raises:
            NotFoundError: none has that id or name; names those that are nearly it.
            ConflictError: several have that name.
        """
        exact = [one for one in found if one.id == self.id]
        named = exact or [one for one in found if one.provider_name == self.id]
        if len(named) > 1:
            raise ConflictError(
                f"several endpoints on {provider} are named {self.id!r}: {', '.join(one.id for one in named)}",
                provider=provider,
                hint="Give one of these ids.",
            )
        if not named:
            raise self.not_found(found, provider=provider)
        return self.applied(named[0])

    def applied(self, info: DeploymentInfo) -> DeploymentInfo:
        """*info* with what this states."""
        stated = {"interface": self.interface, "port": self.port, "route": self.route}
        return info.model_copy(update={name: value for name, value in stated.items() if value is not None})

    def not_found(self, found: Sequence[DeploymentInfo], *, provider: str) -> NotFoundError:
        """The error that names what exists on the account under a like name or id."""
        shown = {text: one for one in found for text in (one.id, one.provider_name)}
        near = difflib.get_close_matches(self.id, shown, n=3, cutoff=0.6)
        known = list({shown[text].id: shown[text] for text in near}.values()) or list(found[:3])
        listed = ", ".join(f"{one.id} ({one.provider_name})" for one in known)
        exist = "There are none on this account." if not found else f"On this account: {listed}"
        if len(found) > len(known):
            exist += f", and {len(found) - len(known)} more"
        return NotFoundError(
            f"{provider} has no endpoint with the id or name {self.id!r}",
            status=404,
            provider=provider,
            maybe_executed=False,
            hint=f"{exist}{'' if exist.endswith('.') else '.'}",
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Invocation:
    """One call of a function deployment.

    Attributes:
        input: Put it into ``Request.json`` as it is, alone or inside of an envelope: it is encoded already, and a copy
            would be encoded again.
        job_id: Our own id, for platforms that take one: a repeated submit is then harmless.
        deadline: On `Io.now`'s clock; the whole call.
        start_deadline: By when a worker must be ready, where the platform itself holds the call (no job API).
        execution_timeout: Seconds the handler may run.
        idempotent: It may safely run twice.
        hold: Seconds for which a submit may be held until the job has ended, because its caller waits anyway; 0: it
            returns at once.
        token: What the deployment's own worker asks its callers for, where its spec says ``auth=BearerToken(...)``.
    """

    input: Mapping[str, Any] = field(repr=False)
    job_id: str
    deadline: float
    start_deadline: float
    execution_timeout: float
    idempotent: bool = False
    hold: float = 0.0
    token: SecretStr | None = field(default=None, repr=False)


def answered(call: Invocation, result: Result) -> JobInfo:
    """What `submit` returns where the platform answers in one call: the job as it ended."""
    return JobInfo(
        id=call.job_id,
        status=JobStatus.DONE,
        output=result.output,
        worker_id=result.worker_id,
        timing=result.timing,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class ChunkPage:
    """Some chunks of a stream.

    Attributes:
        after: The cursor for the next page.
        end: No more will come.
        ready_workers: Workers of the deployment that are ready, where the platform tells with it.
        started: Whether a worker has taken the job, where the platform tells with it.
    """

    chunks: tuple[Any, ...] = ()
    after: int = 0
    end: bool = False
    ready_workers: int | None = None
    started: bool | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class HTTPCall:
    """One request to an http deployment: the user's own server.

    Attributes:
        target: Path and query, encoded: ``"/v1/models?limit=3"``.
        headers: The caller's; none that belongs to one connection, and none of ours.
        deadline: On `Io.now`'s clock; the whole, the body included.
        hold: Seconds for which the platform may hold it while no worker is ready and free.
        wake: Whether it may start a stopped deployment.
        idempotent: It may safely run twice.
        read_timeout: Seconds without a byte after which it is given up, beyond *hold*; ``None``: the deadline alone.
    """

    method: str
    target: str
    headers: tuple[tuple[str, str], ...] = field(default=(), repr=False)
    content: bytes | None = field(default=None, repr=False)
    deadline: float
    hold: float
    wake: bool = True
    idempotent: bool = False
    read_timeout: float | None = None

    def request(
        self,
        url: str,
        *,
        info: DeploymentInfo,
        operation: str,
        headers: tuple[tuple[str, str], ...] | None = None,
        role: Role = "worker",
        held: float = 0.0,
        reroutes: bool = False,
    ) -> Request:
        """The call as a request to *url*. Whatever the server replies is data: see `Request.foreign`.

        Args:
            operation: The full name, as in ``"runpod.http"``.
            headers: Instead of the caller's own.
            held: Seconds for which the platform may hold it without a byte.
        """
        return Request(
            method=self.method,
            url=url,
            operation=operation,
            headers=self.headers if headers is None else headers,
            content=self.content,
            role=role,
            call=CallClass.IDEMPOTENT if self.idempotent else CallClass.USER_DECIDES,
            deadline=self.deadline,
            read_timeout=None if self.read_timeout is None else held + self.read_timeout,
            deployment=info.name,
            reroutes=reroutes,
            foreign=True,
        )


@dataclass(frozen=True, slots=True)
class BufferedReply:
    """A reply that was read whole, as one whose body is still on its way."""

    response: Response

    @property
    def status(self) -> int:
        return self.response.status

    @property
    def headers(self) -> Headers:
        return self.response.headers

    async def chunks(self) -> AsyncIterator[bytes]:
        if self.response.content:
            yield self.response.content

    async def read(self) -> bytes:
        return self.response.content


async def buffered(reply: StreamResponse, operation: str) -> Response:
    """A reply read whole, to be judged."""
    return Response(status=reply.status, headers=reply.headers, content=await reply.read(), operation=operation)
