"""The supervisor's API client: a request, sent to the supervisor that lives now.

Every request but the verb `request` may be repeated (creates carry their attempt, jobs their id). So a request that met
a supervisor which was just leaving, or died, is sent again to the next one. Another platform's driver never does that;
here the platform is a process of ours, and finding it is a part of calling it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final, Unpack
from urllib.parse import quote

from pydantic import SecretStr

from unigpu.driver import (
    API,
    DeploymentInfo,
    Io,
    Params,
    RequestOptions,
    Response,
    bearer,
    gone,
    is_rehearsal,
)
from unigpu.errors import (
    DeploymentGone,
    JobExpired,
    NoCapacityError,
    NotFoundError,
    StateError,
    TransportError,
    UniGPUError,
)

from . import launch
from .wire import refusal

PROVIDER: Final = "local"
Reached = tuple[Response, launch.Link]
"""A reply, and the supervisor that gave it."""
PAUSE: Final = 0.02
"""Seconds until the next supervisor is looked up."""
_SLACK_S: Final = 15.0  # beyond the time for which a request is held


@dataclass(frozen=True, kw_only=True)
class SupervisorAPI(API):
    """Calls the supervisor of *directory*, or a server that was configured by its address.

    Attributes:
        directory: Where a supervisor lives, or is started.
        fixed: A server that runs already; nothing is started then.
    """

    provider = PROVIDER
    read_timeout = _SLACK_S

    base: str = ""
    directory: launch.SupervisorDirectory | None
    fixed: launch.Link | None = None

    def headers(self, key: SecretStr | None) -> Params:
        return bearer(key)

    def path_of(self, info: DeploymentInfo) -> str:
        return f"/deployments/{quote(info.provider_name, safe='')}"

    def meaning(self, error: UniGPUError, response: Response) -> UniGPUError:
        """What the supervisor's own words make of a status."""
        said = refusal(response).error
        if response.status == 404 and said.type == "gone":
            return DeploymentGone(error.message, status=404, **_about(error))
        if response.status == 409 and said.type == "no_capacity":  # a mock says so; this machine itself never does
            return NoCapacityError(said.message, **_about(error))
        if response.status == 507:
            return StateError(
                f"the local supervisor could not record it: {said.message}",
                hint="Free some space, or choose another directory with UNIGPU_STATE_DIR.",
                **_about(error),
            )
        return error

    def absent(self, info: DeploymentInfo, error: NotFoundError) -> UniGPUError:
        """The deployment is gone, or it is there, and a worker or job of it is not."""
        itself = (error.operation or "").startswith(f"{PROVIDER}.deployment.")
        return gone(info, error) if itself or isinstance(error, DeploymentGone) else error

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
        """As `unigpu.driver.API.send`. Where no supervisor lives, nothing is deployed, so it is not found."""
        reply = await self.reach(io, method, path, operation, deadline=deadline, info=info, **options)
        if reply is not None:
            return self.success(reply, info)
        if info is not None:
            raise gone(info, operation=f"{PROVIDER}.{operation}")
        raise NotFoundError(
            f"{PROVIDER}.{operation}: no supervisor lives, so nothing is deployed", status=404, provider=PROVIDER
        )

    async def reach(
        self,
        io: Io,
        method: str,
        path: str,
        operation: str,
        *,
        deadline: float,
        info: DeploymentInfo | None = None,
        start: bool = False,
        **options: Unpack[RequestOptions],
    ) -> Reached | None:
        """Send it to the supervisor that lives, whatever it replies. ``None``: none lives, and nothing is deployed.

        Args:
            start: Start a supervisor where none lives.

        Raises:
            TransportError: no usable reply.
            StateError: the state directory cannot be written.
        """
        while True:
            link = await self.link(io, start=start, deadline=deadline)
            if link is None:
                return None
            options |= {"base": f"{link.base}/v1", "key": link.token, "reroutes": self.fixed is None}
            request = self.request(method, path, operation, deadline=deadline, info=info, **options)
            try:
                response = await io.send(request)
            except TransportError:
                if io.now() >= deadline or self.is_still(link):
                    raise
            else:
                if not self._is_leaving(response, link) or io.now() >= deadline:
                    return response, link
            await io.sleep(PAUSE)

    def success(self, reply: Reached, info: DeploymentInfo | None = None, *, deployment: str | None = None) -> Response:
        """The response, where it is a success; raises as `send`."""
        response, link = reply
        return self.checked(response, info=info, deployment=deployment, hide=link.secrets)

    async def job(
        self,
        io: Io,
        method: str,
        info: DeploymentInfo,
        job_id: str,
        path: str,
        operation: str,
        *,
        deadline: float,
        hold: float = 0.0,
        params: Params = (),
    ) -> Response:
        """A request about a job.

        Args:
            hold: Seconds for which the answer may wait for news.

        Raises:
            JobExpired: the supervisor does not have it (any more).
            DeploymentGone: nor its deployment.
        """
        more: RequestOptions = {"role": "jobs", "params": params, "read_timeout": hold + self.read_timeout}
        if hold > 0:
            more["params"] = (*params, ("wait", f"{hold:g}"))
        where = f"{self.path_of(info)}/jobs/{quote(job_id, safe='')}{path}"
        reply = await self.reach(io, method, where, operation, deadline=deadline, info=info, **more)
        if reply is None:
            raise gone(info, operation=f"{PROVIDER}.{operation}")
        said = refusal(reply[0]).error
        if reply[0].status == 404 and said.type != "gone":
            raise JobExpired(
                f"the local supervisor does not know job {job_id}: {said.message or 'it is gone'}",
                job_id=job_id,
                provider=PROVIDER,
                operation=f"{PROVIDER}.{operation}",
                deployment=info.name,
            )
        return self.success(reply, info)

    async def link(self, io: Io, *, start: bool, deadline: float) -> launch.Link | None:
        """The supervisor that lives; ``None``: none does, and nothing is deployed."""
        if self.fixed is not None:
            return self.fixed
        if self.directory is None:
            raise StateError(
                "the local provider keeps its deployments in a state directory, and this client has none",
                provider=PROVIDER,
                hint="Leave state_dir out, or give one; base_url= in driver_options names a server that runs already.",
            )
        if not is_rehearsal(io):
            return await launch.connect(io, self.directory, start=start, deadline=deadline)
        # A plan starts nothing, and what it would send needs no address.
        return await launch.connect(io, self.directory, start=False, deadline=deadline) or launch.Link(base="")

    def is_still(self, link: launch.Link) -> bool:
        """Whether *link* is the supervisor that lives now."""
        return self.directory is None or self.fixed is not None or launch.is_current(self.directory, link)

    def _is_leaving(self, response: Response, link: launch.Link) -> bool:
        """Whether it was answered by a supervisor that ends, or by a stranger on its port."""
        if response.status == 503 and refusal(response).error.type == "closing":
            return self.fixed is None
        # Its port may be another program's by now, whose "not found" says nothing about our deployments.
        return response.status >= 400 and not self.is_still(link)


def _about(error: UniGPUError) -> dict[str, Any]:
    """What all errors of one reply share. The supervisor refuses before it acts."""
    return {
        "provider": PROVIDER,
        "operation": error.operation,
        "deployment": error.deployment,
        "attempts": error.attempts,
        "maybe_executed": False,
    }
