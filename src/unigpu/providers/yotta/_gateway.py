"""Calls on a held connection: through the gateway of an ALB endpoint, or at a pod's own address.

The gateway asks for the account's key as a bearer token. The key goes to the origin that the control plane named for
this endpoint, and nowhere else; a pod gets no key at all. Neither holds a request while nothing runs, and what the
gateway answers then is not documented: after an answer that a gateway may have given, the control plane is asked.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator, Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import urlsplit

from unigpu import _config
from unigpu.driver import (
    CallClass,
    DeploymentInfo,
    HTTPCall,
    Invocation,
    Io,
    Request,
    Response,
    Result,
    State,
    StreamResponse,
    Timing,
    error_for,
)
from unigpu.errors import (
    ConfigurationError,
    DeploymentGone,
    InvalidResponseError,
    JobFailed,
    NoWorkerReady,
    TransportError,
    UniGPUError,
    UnsupportedError,
    WorkerLost,
)

from . import _tasks
from ._codes import PROVIDER
from ._line import Line

INVOKE: Final = "yotta.gateway.invoke"
REQUEST: Final = "yotta.gateway.request"
_NOBODY: Final = frozenset({404, 503})
"""What a gateway may say where nobody is behind it. A server may say so as well."""
_BROKEN: Final = frozenset({502, 504})
"""The same, and what it says where its worker broke off."""
_MODES: Final = "https://docs.yottalabs.ai/products/serverless/service-mode"

Look = Callable[[], Awaitable[DeploymentInfo | None]]


@dataclass(frozen=True, slots=True)
class Door:
    """Where calls of one deployment go, and what opens it."""

    origin: str
    headers: tuple[tuple[str, str], ...] = field(repr=False)


def must_be_reachable(info: DeploymentInfo, what: str) -> None:
    """Raise `UnsupportedError` for a deployment that nobody can call."""
    if info.details.get("service_mode") == "CUSTOM":
        raise UnsupportedError(
            f"{what} is not possible on {info.name or info.provider_name}: a CUSTOM endpoint has workers that nobody "
            "can call; they fetch their work themselves.",
            provider=PROVIDER,
            deployment=info.name,
            capability=what.partition("(")[0],
            fact="service mode CUSTOM: no external interface",
            source=_MODES,
            hint='Deploy it with provider_options={"yotta": {"service_mode": "ALB"}}.',
        )


async def door(line: Line, info: DeploymentInfo, look: Look) -> Door:
    """The address of *info*; one that had none when it was last seen is looked up.

    Raises:
        NoWorkerReady: it has none yet, or does not run.
    """
    if info.url is None or info.state is not State.READY:
        info = await _now(info, look)
        if info.url is None or info.state is not State.READY:
            raise _nobody(info)
    address = info.url
    if info.kind == "pod":
        return Door(address.rstrip("/"), _own_token(info, address))
    secret = "" if line.key is None else line.key.get_secret_value()
    return Door(address, (("authorization", f"Bearer {secret}"),))


async def invoke(line: Line, io: Io, info: DeploymentInfo, call: Invocation, look: Look) -> Result:
    """As `unigpu.driver.Invokes.invoke`."""
    must_be_reachable(info, "invoke()")
    where = await door(line, info, look)
    ours = _tasks.is_ours(info)
    headers = (("x-unigpu-job", call.job_id), ("x-unigpu-timeout", f"{call.execution_timeout:g}")) if ours else ()
    request = Request(
        method="POST",
        url=f"{where.origin}{info.route or _tasks.INVOKE}",
        operation=INVOKE,
        headers=(*where.headers, *headers),
        json={"input": call.input} if ours else call.input,
        role="worker",
        call=CallClass.IDEMPOTENT if call.idempotent else CallClass.USER_DECIDES,
        deadline=call.deadline,
        deployment=info.name,
        foreign=True,
    )
    try:
        reply = await io.send(request)
    except TransportError as exc:
        if exc.never_sent:
            await _must_run(info, look)  # its name may be gone while it is stopped
        raise
    if ours:
        return await _envelope(reply, info, look, _secrets(where), idempotent=call.idempotent)
    if 200 <= reply.status < 300:
        return Result(output=reply.json())
    await _judge(reply.status, info, look, idempotent=call.idempotent)
    raise error_for(reply, PROVIDER, deployment=info.name, secrets=_secrets(where), maybe_executed=True)


async def _envelope(
    reply: Response, info: DeploymentInfo, look: Look, secrets: tuple[str, ...], *, idempotent: bool
) -> Result:
    """What our worker said; whatever else it is, is the gateway's."""
    try:
        envelope, error, seconds = _tasks.answer_of(reply.json())
    except InvalidResponseError:
        envelope, error, seconds = None, None, None
    timing = Timing(execution=seconds, source=None if seconds is None else "execution: worker")
    if envelope is not None and reply.status == 200:
        return Result(output=envelope["output"], timing=timing)
    common: dict[str, Any] = {"provider": PROVIDER, "operation": INVOKE, "deployment": info.name}
    if error is not None and error.type in _tasks.REFUSALS:
        raise NoWorkerReady(
            f"the worker of {info.name or info.provider_name} takes no call: {error.message or error.type}",
            state=str(info.state),
            reason=error.type,
            maybe_executed=False,
            **common,
        )
    if error is not None and reply.status == 200:
        raise JobFailed(
            f"the call of {info.name or info.provider_name} failed: {error.type}: {error.message}",
            error_type=error.type,
            error_message=error.message,
            traceback=error.traceback,
            maybe_executed=True,
            **common,
        )
    await _judge(reply.status, info, look, idempotent=idempotent)
    if 200 <= reply.status < 300:
        raise InvalidResponseError("the answer is not that of unigpu's worker", maybe_executed=True, **common)
    raise error_for(reply, PROVIDER, deployment=info.name, secrets=secrets)


@contextlib.asynccontextmanager
async def request(
    line: Line, io: Io, info: DeploymentInfo, call: HTTPCall, look: Look
) -> AsyncGenerator[StreamResponse]:
    """As `unigpu.driver.Requests.request`."""
    must_be_reachable(info, "request()")
    where = await door(line, info, look)
    mine = {name for name, _ in where.headers}
    if info.kind != "pod" and any(name in mine for name, _ in call.headers):
        raise UnsupportedError(
            "an Authorization header of your own is not possible: Yotta's gateway takes it for the account's key.",
            provider=PROVIDER,
            deployment=info.name,
            capability="request",
            hint="Use another header, as in X-Api-Key.",
        )
    asked = Request(
        method=call.method,
        url=f"{where.origin}{call.target}",
        operation=REQUEST,
        headers=(*call.headers, *(pair for pair in where.headers if info.kind != "pod")),
        content=call.content,
        role="worker",
        call=CallClass.IDEMPOTENT if call.idempotent else CallClass.USER_DECIDES,
        deadline=call.deadline,
        read_timeout=call.read_timeout,
        deployment=info.name,
        foreign=True,
    )
    opening = io.stream(asked)
    try:
        reply = await opening.__aenter__()
    except TransportError as exc:
        if exc.never_sent:
            await _must_run(info, look)
        raise
    try:
        await _judge(reply.status, info, look, idempotent=call.idempotent)
        yield reply
    finally:
        await opening.__aexit__(None, None, None)


# -- what an answer means that a gateway may have given


async def _judge(status: int, info: DeploymentInfo, look: Look, *, idempotent: bool) -> None:
    """Return where a server gave it, or where nobody can tell.

    Raises:
        NoWorkerReady: nobody was there; it has not run.
        WorkerLost: its worker broke off.
    """
    if status not in _NOBODY | _BROKEN:
        return
    now = await _seen(info, look)
    if now is None:
        return
    # A request that a stop breaks off meets STOPPING: what is STOPPED had nobody for it. Neither had what is not yet
    # RUNNING again, but for a call that took its worker down with it: only one that may run twice is made again then.
    starts = (now.raw_state or "").upper().startswith("INITIALIZ")
    away = now.state is State.STOPPED or (starts and (idempotent or status in _NOBODY))
    if away or (status in _NOBODY and now.state is not State.READY):
        raise _nobody(now)
    if status in _BROKEN and info.interface == "function":
        raise WorkerLost(
            f"the worker of {info.name or info.provider_name} gave no answer (HTTP {status})",
            provider=PROVIDER,
            operation=INVOKE,
            deployment=info.name,
            maybe_executed=True,
            hint="It may have run; repeat it if the handler is idempotent.",
        )


async def _must_run(info: DeploymentInfo, look: Look) -> None:
    now = await _seen(info, look)
    if now is not None and now.state is not State.READY:
        raise _nobody(now)


async def _seen(info: DeploymentInfo, look: Look) -> DeploymentInfo | None:
    """A look after the fact. One that fails says nothing, and must not hide what it was made for."""
    try:
        return await _now(info, look)
    except DeploymentGone:
        raise
    except UniGPUError:
        return None


async def _now(info: DeploymentInfo, look: Look) -> DeploymentInfo:
    now = await look()
    if now is None:
        raise DeploymentGone(
            f"{info.name or info.id} does not exist any more",
            provider=PROVIDER,
            deployment=info.name,
            maybe_executed=False,
        )
    return now


def _nobody(info: DeploymentInfo) -> NoWorkerReady:
    return NoWorkerReady(
        f"no worker of {info.name or info.provider_name} on yotta is ready (it is {info.raw_state})",
        provider=PROVIDER,
        deployment=info.name,
        state=str(info.state),
        reason=info.reason,
        maybe_executed=False,
    )


def _own_token(info: DeploymentInfo, address: str) -> tuple[tuple[str, str], ...]:
    """The deployment's own token, for a pod's port, which is open to everybody.

    Raises:
        ConfigurationError: its variable is not set here.
        UnsupportedError: the address is not encrypted.
    """
    if info.auth_env is None:
        return ()
    token = _config.secret(info.auth_env)
    if token is None:
        raise ConfigurationError(
            f"{info.name} asks for a token, and the variable {info.auth_env} is not set in this environment.",
            provider=PROVIDER,
            deployment=info.name,
        )
    parts = urlsplit(address)
    if parts.scheme != "https" and parts.hostname not in ("127.0.0.1", "localhost", "::1"):
        raise UnsupportedError(
            f"the address of {info.name} is not encrypted: its token is not sent there.",
            provider=PROVIDER,
            deployment=info.name,
            capability="public_endpoint",
        )
    return (("authorization", f"Bearer {token.get_secret_value()}"),)


def _secrets(where: Door) -> tuple[str, ...]:
    return tuple(value.removeprefix("Bearer ") for _, value in where.headers)


__all__ = ["INVOKE", "REQUEST", "Door", "door", "invoke", "must_be_reachable", "request"]
