"""The calls of a function deployment: invoke, submit, a job's verbs, stream; one source for all flavours."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from typing import Any, Literal, TypeVar, cast

from unigpu import _config, _lifecycle
from unigpu._io.contract import EncodedJSON
from unigpu._lifecycle import CallOptions, Scope, StreamRun
from unigpu.elasticity.capabilities import Capabilities, refuse
from unigpu.errors import ConfigurationError, DeadlineExceeded, NotFoundError
from unigpu.models import DeploymentInfo, JobInfo, Result

from . import arguments
from .handle_state import Submitted
from .session import CONTROL_SECONDS, Home, Seen
from .verbs import Core

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """How a call may wait, checked; what was not said is filled in once the deployment is known."""

    start_timeout: float | None
    timeout: float | None
    on_timeout: Literal["cancel", "keep"] = "cancel"
    idempotent: bool | None = None
    wake: bool = True
    timeout_from: Literal["call", "ready"] = "call"

    @classmethod
    def checked(
        cls,
        start_timeout: object,
        timeout: object,
        *,
        on_timeout: object = "cancel",
        idempotent: object = None,
        wake: object = True,
        timeout_from: Literal["call", "ready"] = "call",
    ) -> Asked:
        """Raises `ConfigurationError` for what cannot be."""
        arguments.choice(on_timeout, "on_timeout", ("cancel", "keep"))
        return cls(
            start_timeout=arguments.seconds_or_none(start_timeout, "start_timeout"),
            timeout=arguments.seconds_or_none(timeout, "timeout"),
            on_timeout=cast('Literal["cancel", "keep"]', on_timeout),
            idempotent=None if idempotent is None else arguments.flag(idempotent, "idempotent"),
            wake=arguments.flag(wake, "wake"),
            timeout_from=timeout_from,
        )

    def options(self, home: Home, info: DeploymentInfo, caps: Capabilities) -> CallOptions:
        return CallOptions(
            start_timeout=home.start_timeout(self.start_timeout, caps),
            timeout=self.timeout,
            execution_timeout=info.execution_timeout,
            on_timeout=self.on_timeout,
            idempotent=info.idempotent if self.idempotent is None else self.idempotent,
            wake=self.wake,
            timeout_from=self.timeout_from,
            token=_config.secret(info.auth_env) if info.auth_env and info.interface == "function" else None,
        )


class Calls:
    """What `Core` is for deployments, for their calls.

    Args:
        handle: Makes this flavour's `Job`, for an error that left one behind.
    """

    def __init__(self, core: Core, handle: Callable[[Submitted], object]) -> None:
        self.core = core
        self.home = core.home
        self._handle = handle

    async def invoke(self, deployment: object, input: object, asked: Asked) -> Result:
        async def call(scope: Scope, info: DeploymentInfo, options: CallOptions, plain: EncodedJSON) -> Result:
            return await _lifecycle.invoke(scope, info, plain, options)

        return await self._call(deployment, input, asked, "invoke", call)

    async def submit(self, deployment: object, input: object, asked: Asked) -> Submitted:
        async def call(scope: Scope, info: DeploymentInfo, options: CallOptions, plain: EncodedJSON) -> Submitted:
            return Submitted(info, await _lifecycle.submit(scope, info, plain, options), options)

        return await self._call(deployment, input, asked, "submit", call)

    def stream(self, deployment: object, input: object, asked: Asked) -> StreamSource:
        """A stream that opens when it is first read. What was given is checked now."""
        self.home.open()
        self.core.check_target(deployment)
        plain = arguments.job_input(input)

        async def opened(again: bool) -> StreamRun:
            async def call(scope: Scope, info: DeploymentInfo, options: CallOptions, sent: EncodedJSON) -> StreamRun:
                return _lifecycle.stream(scope, info, sent, options)

            if again:
                await self.core.renew(deployment, self._soon())
            return await self._call(deployment, plain, asked, "stream", call)

        return StreamSource(opened, again=True)

    # -- a job's verbs

    async def status(self, submitted: Submitted) -> JobInfo:
        self.home.open()
        scope = self.core.scope_of(submitted.info)
        return await _lifecycle.job_status(scope, submitted.info, submitted.job.id, deadline=self._soon())

    async def result(self, submitted: Submitted, timeout: object) -> Result:
        self.home.open()
        within = arguments.seconds_or_none(timeout, "timeout")
        options = submitted.options
        if within is not None:
            options = _kept(options, within)
        try:
            return await _lifecycle.job_result(
                self.core.scope_of(submitted.info), submitted.info, submitted.job.id, options
            )
        except DeadlineExceeded as exc:
            raise self._with_job(exc, submitted.info, options) from None

    async def cancel(self, submitted: Submitted) -> JobInfo:
        self.home.open()
        self.home.require("cancel", submitted.info, doing="cancel()")
        scope = self.core.scope_of(submitted.info)
        return await _lifecycle.job_cancel(scope, submitted.info, submitted.job.id, deadline=self._soon())

    def follow(self, submitted: Submitted) -> StreamSource:
        """The stream of a job that was submitted."""
        self.home.open()
        self.home.require("streaming", submitted.info, doing="stream()")

        async def opened(again: bool) -> StreamRun:
            scope = self.core.scope_of(submitted.info)
            return _lifecycle.job_stream(scope, submitted.info, submitted.job.id, submitted.options)

        return StreamSource(opened, again=False)

    # -- shared

    async def _call(
        self,
        deployment: object,
        input: object,
        asked: Asked,
        verb: Literal["invoke", "submit", "stream"],
        call: Callable[[Scope, DeploymentInfo, CallOptions, EncodedJSON], Awaitable[T]],
    ) -> T:
        self.home.open()
        plain = arguments.job_input(input)
        answer: list[T] = []

        async def act(scope: Scope, seen: Seen) -> None:
            info = seen.info
            caps = self.admit(info, plain, asked, verb)
            options = asked.options(self.home, info, caps)
            try:
                answer.append(await call(scope, info, options, plain))
            except DeadlineExceeded as exc:
                raise self._with_job(exc, info, options) from None

        await self.core.on(deployment, self._soon(), act, pays=False)
        return answer[0]

    def admit(
        self, info: DeploymentInfo, input: EncodedJSON, asked: Asked, verb: Literal["invoke", "submit", "stream"]
    ) -> Capabilities:
        """The gate of a call.

        Raises:
            UnsupportedError: the platform cannot do that for this deployment, or does not take such an input.
            PayloadTooLarge: the input is above what it takes.
        """
        flag = "streaming" if verb == "stream" else verb
        caps = self.home.require(flag, info, doing=f"{verb}()")
        if asked.on_timeout == "keep" and not caps.supports("submit"):
            raise refuse(caps, "submit", doing='on_timeout="keep"', instead='Use on_timeout="cancel".')
        if not input and not caps.supports("empty_input"):
            raise refuse(caps, "empty_input", doing="An empty input ({})", instead="Send at least one key.")
        limit = caps.max_payload.value
        if not isinstance(limit, str):
            arguments.check_size(input, int(limit))
        return caps

    def _with_job(self, exc: DeadlineExceeded, info: DeploymentInfo, options: CallOptions) -> DeadlineExceeded:
        """The error, with a handle of the job that was left in the queue."""
        if exc.job_id is not None and exc.job is None and options.on_timeout == "keep":
            exc.job = self._handle(Submitted(info, JobInfo(id=exc.job_id, status="UNKNOWN"), options))  # type: ignore[arg-type]  # a StrEnum takes its text
        return exc

    def _soon(self) -> float:
        return self.core.io.now() + CONTROL_SECONDS


class StreamSource:
    """One stream: opened when it is first read, closed once. Chunks one by one, and the whole result after the end.

    Args:
        opened: Finds the deployment; ``True``: looks it up again, because what was remembered is gone.
        again: Whether what is gone may be looked up again.
    """

    def __init__(self, opened: Callable[[bool], Awaitable[StreamRun]], *, again: bool) -> None:
        self._opened = opened
        self._may_reopen = again
        self._run: StreamRun | None = None
        self.closed = False
        self.ended = False

    async def next(self) -> Any:
        """The next chunk. Raises `StopAsyncIteration` at the end."""
        if self.ended or self.closed:
            raise StopAsyncIteration
        if self._run is None:
            self._run = await self._opened(False)
        try:
            chunk = await self._first(self._run) if self._may_reopen else await self._run.__anext__()
        except BaseException:  # the end, or an error: what raised has decided about the job
            self.ended = True
            raise
        self._may_reopen = False
        return chunk

    async def _first(self, run: StreamRun) -> Any:
        try:
            return await run.__anext__()
        except NotFoundError as exc:
            if exc.maybe_executed:
                raise
            self._may_reopen = False
            self._run = await self._opened(True)
            return await self._run.__anext__()

    async def close(self) -> None:
        """Leave it: a job that still runs is cancelled where the platform can."""
        if not self.closed:
            self.closed = True
            if self._run is not None:
                await self._run.aclose()

    @property
    def is_open(self) -> bool:
        """Whether it was begun and neither read to its end nor closed."""
        return self._run is not None and not self.closed and not self.ended

    @property
    def result(self) -> Result:
        """The whole result, after the end.

        Raises:
            ConfigurationError: the stream has not been read to its end.
        """
        found = None if self._run is None else self._run.result
        if found is None:
            raise ConfigurationError("result is there after the stream was read to its end.")
        return found


def _kept(options: CallOptions, seconds: float) -> CallOptions:
    """For a wait of its own: it ends after *seconds*, and the job runs on."""
    return replace(options, start_timeout=seconds, timeout=seconds, on_timeout="keep")
