"""Where a held call goes, and what an answer means that no worker gave: an ALB endpoint's gateway, a pod's own address.

The gateway asks for the account's key as a bearer token. The key goes to the origin that the control plane named for
this endpoint, and nowhere else; a pod gets no key at all. Neither holds a request while nothing runs, and Yotta does
not document what the gateway answers then. After an answer that a gateway may have given, the control plane decides.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final
from urllib.parse import urlsplit

from unigpu.driver import DeploymentInfo, Io, State
from unigpu.errors import DeploymentGone, NoWorkerReady, UniGPUError, UnsupportedError, WorkerLost

from . import resources
from .api import PROVIDER, YottaAPI

_NO_WORKER: Final = frozenset({404, 503})
"""What a gateway may answer without a worker behind it. A server may answer so as well."""
_BROKEN: Final = frozenset({502, 504})
"""The same, and what a gateway answers where its worker broke off."""
_MODES: Final = "https://docs.yottalabs.ai/products/serverless/service-mode"


@dataclass(frozen=True, slots=True)
class WorkerAddress:
    """Where the calls of one deployment go, and the headers that the gateway asks for there."""

    origin: str
    headers: tuple[tuple[str, str], ...] = field(default=(), repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Gateway:
    """What stands between one call and the workers of *info*."""

    api: YottaAPI
    io: Io
    info: DeploymentInfo
    deadline: float

    def must_be_reachable(self, what: str) -> None:
        """Raise `UnsupportedError` for a deployment without an address."""
        info = self.info
        if info.details.get("service_mode") == "CUSTOM":
            raise UnsupportedError(
                f"{what} is not possible on {info.name or info.provider_name}: a CUSTOM endpoint has workers that "
                "nobody can call; they fetch their work themselves.",
                provider=PROVIDER,
                deployment=info.name,
                capability=what.partition("(")[0],
                fact="service mode CUSTOM: no external interface",
                source=_MODES,
                hint='Deploy it with provider_options={"yotta": {"service_mode": "ALB"}}.',
            )

    async def address(self) -> WorkerAddress:
        """The address of its workers. A deployment without one, or that was not ready, is read again first.

        Raises:
            NoWorkerReady: it has no address yet, or does not run.
            UnsupportedError: its callers need a token, and its address is not encrypted.
        """
        info = self.info
        if info.url is None or info.state is not State.READY:
            info = await self._read()
            if info.url is None or info.state is not State.READY:
                raise _no_worker(info)
        if info.kind != "pod":
            key = "" if self.api.key is None else self.api.key.get_secret_value()
            return WorkerAddress(info.url, (("authorization", f"Bearer {key}"),))
        parts = urlsplit(info.url)
        plain = parts.scheme != "https" and parts.hostname not in ("127.0.0.1", "localhost", "::1")
        if plain and info.auth_env is not None:
            raise UnsupportedError(
                f"the address of {info.name} is not encrypted: its token is not sent there.",
                provider=PROVIDER,
                deployment=info.name,
                capability="public_endpoint",
            )
        return WorkerAddress(info.url.rstrip("/"))

    async def judge(self, status: int, *, idempotent: bool) -> None:
        """Return where a server gave this answer, or where that cannot be found out.

        Raises:
            NoWorkerReady: there was no worker; the call has not run.
            WorkerLost: its worker broke off.
        """
        if status not in _NO_WORKER | _BROKEN:
            return
        now = await self._seen()
        if now is None:
            return
        # A request that a stop breaks off meets STOPPING: what is STOPPED had no worker for it. Neither had what is not
        # yet RUNNING again, except for a call that took its worker down with it: so only an idempotent one is repeated.
        starts = (now.raw_state or "").upper().startswith("INITIALIZ")
        away = now.state is State.STOPPED or (starts and (idempotent or status in _NO_WORKER))
        if away or (status in _NO_WORKER and now.state is not State.READY):
            raise _no_worker(now)
        if status in _BROKEN and self.info.interface == "function":
            raise WorkerLost(
                f"the worker of {self.info.name or self.info.provider_name} gave no answer (HTTP {status})",
                provider=PROVIDER,
                operation="yotta.gateway.invoke",
                deployment=self.info.name,
                maybe_executed=True,
                hint="It may have run; repeat it if the handler is idempotent.",
            )

    async def must_run(self) -> None:
        """Raise `NoWorkerReady` where it does not run, after a connection that could not be made: the name of a
        stopped deployment may not resolve."""
        now = await self._seen()
        if now is not None and now.state is not State.READY:
            raise _no_worker(now)

    async def _seen(self) -> DeploymentInfo | None:
        """The deployment after the fact. A failure to read it must not hide the failure that made us read."""
        try:
            return await self._read()
        except DeploymentGone:
            raise
        except UniGPUError:
            return None

    async def _read(self) -> DeploymentInfo:
        now = await resources.read(self.api, self.io, self.info, deadline=self.deadline)
        if now is None:
            raise DeploymentGone(
                f"{self.info.name or self.info.id} does not exist any more",
                provider=PROVIDER,
                deployment=self.info.name,
                maybe_executed=False,
            )
        return now


def _no_worker(info: DeploymentInfo) -> NoWorkerReady:
    return NoWorkerReady(
        f"no worker of {info.name or info.provider_name} on yotta is ready (it is {info.raw_state})",
        provider=PROVIDER,
        deployment=info.name,
        state=str(info.state),
        reason=info.reason,
        maybe_executed=False,
    )
