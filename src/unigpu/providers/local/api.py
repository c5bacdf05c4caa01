"""The way to the supervisor: a request, sent to the one that lives there now.

Every call of the protocol may be repeated (creates carry their attempt, jobs their id), so a call that met a supervisor
which was just leaving, or died, is sent again to the next one. A platform's driver never does that; here the platform
is a process of ours, and finding it is a part of calling it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import quote

from pydantic import SecretStr

from unigpu.driver import UNSET, CallClass, DeploymentInfo, Io, Request, Response, Role, check, is_rehearsal
from unigpu.errors import DeploymentGone, JobExpired, NoCapacityError, StateError, TransportError

from . import launch
from .wire import refusal

_PAUSE: Final = 0.02
_SLACK_S: Final = 15.0  # beyond the time for which a request is held


@dataclass(frozen=True, slots=True, kw_only=True)
class SupervisorAPI:
    """Calls the supervisor of *directory*, or a server that was configured by its address.

    Attributes:
        directory: Where a supervisor lives, or is started.
        fixed: A server that is there already; nothing is started then.
    """

    directory: launch.SupervisorDirectory | None
    fixed: launch.Link | None = None

    async def call(
        self,
        io: Io,
        method: str,
        path: str,
        operation: str,
        *,
        deadline: float,
        json: Any = UNSET,
        params: tuple[tuple[str, str], ...] = (),
        headers: tuple[tuple[str, str], ...] = (),
        role: Role = "control",
        start: bool = False,
        wait: float = 0.0,
        cleanup: bool = False,
        deployment: str | None = None,
    ) -> tuple[Response, launch.Link] | None:
        """Send it. ``None``: no supervisor lives, and nothing is deployed.

        Raises:
            TransportError: no usable reply.
            StateError: the state directory cannot be written, or the supervisor says its disk is full.
        """
        while True:
            link = await self.link(io, start=start, deadline=deadline)
            if link is None:
                return None
            request = Request(
                method=method,
                url=f"{link.base}/v1{path}",
                operation=f"local.{operation}",
                headers=(*headers, *authorization(link)),
                params=params,
                json=json,
                role=role,
                call=CallClass.IDEMPOTENT,
                deadline=deadline,
                read_timeout=wait + _SLACK_S,
                cleanup=cleanup,
                deployment=deployment,
                reroutes=self.fixed is None,  # without a connection it turns to the next supervisor
            )
            try:
                response = await io.send(request)
            except TransportError:
                if io.now() >= deadline or self.is_still(link):
                    raise
            else:
                if not self._is_leaving(response, link) or io.now() >= deadline:
                    return self._checked(response), link
            await io.sleep(_PAUSE)

    async def about(
        self, io: Io, method: str, info: DeploymentInfo, path: str, operation: str, *, deadline: float, **more: Any
    ) -> Response:
        """A call about a deployment that should be there.

        Raises:
            DeploymentGone: it is not.
        """
        where = f"/deployments/{info.provider_name}{path}"
        reply = await self.call(io, method, where, operation, deadline=deadline, deployment=info.name, **more)
        if reply is None or _is_gone(reply[0], operation):
            raise gone(info.name)
        return ok(reply, deployment=info.name)

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
        params: tuple[tuple[str, str], ...] = (),
    ) -> Response:
        """A call about a job; *hold*: seconds for which the answer may wait for news.

        Raises:
            JobExpired: it is not known (any more).
            DeploymentGone: nor is its deployment.
        """
        if hold > 0:
            params = (*params, ("wait", f"{hold:g}"))
        where = f"/deployments/{info.provider_name}/jobs/{quote(job_id, safe='')}{path}"
        reply = await self.call(
            io, method, where, operation,
            deadline=deadline, params=params, role="jobs", wait=hold, deployment=info.name,
        )  # fmt: skip
        if reply is None or _is_gone(reply[0], operation):
            raise gone(info.name)
        if is_absent(reply[0]):
            raise JobExpired(
                f"the local supervisor does not know job {job_id}: {refusal(reply[0]).error.message or 'it is gone'}",
                job_id=job_id,
                provider="local",
                operation=f"local.{operation}",
                deployment=info.name,
            )
        return ok(reply, deployment=info.name)

    async def link(self, io: Io, *, start: bool, deadline: float) -> launch.Link | None:
        """The supervisor that lives; ``None``: none does, and nothing is deployed."""
        if self.fixed is not None:
            return self.fixed
        if self.directory is None:
            raise StateError(
                "the local provider keeps its deployments in a state directory, and this client has none",
                provider="local",
                hint="Leave state_dir out, or give one; base_url= in driver_options names a server that runs already.",
            )
        if is_rehearsal(io):  # a plan starts nothing, and what it would send needs no address
            return await launch.connect(io, self.directory, start=False, deadline=deadline) or launch.Link(
                base="", token=None
            )
        return await launch.connect(io, self.directory, start=start, deadline=deadline)

    def is_still(self, link: launch.Link) -> bool:
        """Whether *link* is the supervisor that lives now."""
        return self.directory is None or self.fixed is not None or launch.is_current(self.directory, link)

    def _is_leaving(self, response: Response, link: launch.Link) -> bool:
        """Whether it was answered by one that ends, or by a stranger on its port."""
        if response.status == 503 and refusal(response).error.type == "closing":
            return self.fixed is None
        # Its port may be another program's by now, whose "not found" is no news of ours.
        return response.status >= 400 and not self.is_still(link)

    def _checked(self, response: Response) -> Response:
        if response.status == 507:
            raise StateError(
                f"the local supervisor could not record it: {refusal(response).error.message}",
                provider="local",
                operation=response.operation,
                maybe_executed=False,
                hint="Free some space, or choose another directory with UNIGPU_STATE_DIR.",
            )
        return response


def authorization(link: launch.Link) -> tuple[tuple[str, str], ...]:
    """The header by which a supervisor knows us."""
    return () if link.token is None else (("authorization", f"Bearer {link.token}"),)


def ok(reply: tuple[Response, launch.Link], *, deployment: str | None) -> Response:
    """The response, where it is a success.

    Raises:
        APIStatusError: the kind that belongs to its status.
        NoCapacityError: a mock says so; this machine itself never does.
    """
    response, link = reply
    if response.status == 409 and (error := refusal(response).error).type == "no_capacity":
        raise NoCapacityError(
            error.message, provider="local", operation=response.operation, deployment=deployment, maybe_executed=False
        )
    return check(response, "local", deployment=deployment, secrets=(link.token,) if link.token else ())


def plain(secret: SecretStr | None) -> str | None:
    return None if secret is None else secret.get_secret_value()


def is_absent(response: Response) -> bool:
    return response.status == 404


def _is_gone(response: Response, operation: str) -> bool:
    """Whether the deployment itself is not there (an unknown job or worker is another matter)."""
    if response.status != 404:
        return False
    return refusal(response).error.type == "gone" or operation.startswith("deployment.")


def gone(name: str | None) -> DeploymentGone:
    return DeploymentGone(
        f"{name or 'the deployment'} does not exist on local any more",
        status=404,
        provider="local",
        deployment=name,
        maybe_executed=False,
    )
