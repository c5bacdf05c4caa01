"""The calls of a function deployment: invoke, submit, a job's verbs, stream; one source for both flavors."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

from unigpu import _config, _lifecycle
from unigpu._io.contract import EncodedJSON
from unigpu._lifecycle import CallOptions, OnTimeout, StreamRun
from unigpu.elasticity.capabilities import Capabilities, refuse
from unigpu.errors import ConfigurationError, DeadlineExceeded, NotFoundError, UniGPUError
from unigpu.models import DeploymentInfo, JobInfo, JobStatus, Result

from . import arguments
from .context import Context
from .gate import Gate
from .handle_state import Submitted
from .lookup import DeploymentLike, Lookup, Target
from .transports import Transports

Verb = Literal["invoke", "submit", "stream"]


@dataclass(frozen=True, slots=True, kw_only=True)
class CallArguments:
    """How a call may wait, checked; what was not said is filled in once the deployment is known."""

    start_timeout: float | None
    timeout: float | None
    on_timeout: OnTimeout = "cancel"
    idempotent: bool | None = None
    wake: bool = True
    timeout_from: Literal["call", "ready"] = "call"

    @classmethod
    def checked(
        cls,
        start_timeout: float | None,
        timeout: float | None,
        *,
        on_timeout: OnTimeout = "cancel",
        idempotent: bool | None = None,
        wake: bool = True,
        timeout_from: Literal["call", "ready"] = "call",
    ) -> CallArguments:
        """Raises `ConfigurationError` for what cannot be."""
        return cls(
            start_timeout=arguments.seconds_or_none(start_timeout, "start_timeout"),
            timeout=arguments.seconds_or_none(timeout, "timeout"),
            on_timeout=arguments.choice(on_timeout, "on_timeout", arguments.ON_TIMEOUT),
            idempotent=None if idempotent is None else arguments.flag(idempotent, "idempotent"),
            wake=arguments.flag(wake, "wake"),
            timeout_from=timeout_from,
        )

    def options(self, gate: Gate, info: DeploymentInfo, caps: Capabilities) -> CallOptions:
        return CallOptions(
            start_timeout=gate.start_timeout(self.start_timeout, caps),
            timeout=self.timeout,
            execution_timeout=info.execution_timeout,
            on_timeout=self.on_timeout,
            idempotent=info.idempotent if self.idempotent is None else self.idempotent,
            wake=self.wake,
            timeout_from=self.timeout_from,
            token=_config.secret(info.auth_env) if info.auth_env and info.interface == "function" else None,
        )


@dataclass(frozen=True, slots=True)
class Call:
    """One call that passed the gate: what is sent where, and how it may wait."""

    verb: Verb
    target: Target
    input: EncodedJSON
    asked: CallArguments
    options: CallOptions


class Calls:
    """What `Verbs` is for deployments, for their calls.

    Args:
        handle: Makes this flavor's `Job`, for an error that left one behind.
    """

    def __init__(self, context: Context, lookup: Lookup, handle: Callable[[Submitted], object]) -> None:
        self.context = context
        self.lookup = lookup
        self.session = context.session
        self.gate = context.gate
        self._handle = handle

    async def invoke(self, deployment: DeploymentLike, input: Mapping[str, Any], asked: CallArguments) -> Result:
        call = await self.begin("invoke", deployment, input, asked)
        while True:
            try:
                result = await _lifecycle.invoke(call.target.scope, call.target.info, call.input, call.options)
                self.lookup.used(call.target)
                return result
            except UniGPUError as exc:
                call = await self.renewed(call, exc)

    async def submit(self, deployment: DeploymentLike, input: Mapping[str, Any], asked: CallArguments) -> Submitted:
        call = await self.begin("submit", deployment, input, asked)
        while True:
            try:
                job = await _lifecycle.submit(call.target.scope, call.target.info, call.input, call.options)
                self.lookup.used(call.target)
                return Submitted(call.target.info, job, call.options)
            except UniGPUError as exc:
                call = await self.renewed(call, exc)

    def stream(self, deployment: DeploymentLike, input: Mapping[str, Any], asked: CallArguments) -> StreamSource:
        """A stream that is sent when its first chunk is asked for. What was given is checked now."""
        self.session.open()
        self.lookup.check(deployment)
        return StreamSource(_Unsent(self, deployment, arguments.job_input(input), asked))

    def over(self, transports: Transports) -> Calls:
        """The same calls over other connections, for the loop of a sync `map`."""
        context = Context(self.session, self.gate, transports)
        return Calls(context, Lookup(context), self._handle)

    # -- a job's verbs

    async def status(self, submitted: Submitted) -> JobInfo:
        self.session.open()
        scope = self.context.scope_of(submitted.info)
        return await _lifecycle.job_status(scope, submitted.info, submitted.job.id, deadline=self.context.soon())

    async def result(self, submitted: Submitted, timeout: float | None) -> Result:
        self.session.open()
        within = arguments.seconds_or_none(timeout, "timeout")
        options = submitted.options
        if within is not None:  # the wait ends, and the job runs on
            options = replace(options, start_timeout=within, timeout=within, on_timeout="keep")
        scope = self.context.scope_of(submitted.info)
        try:
            return await _lifecycle.job_result(scope, submitted.info, submitted.job.id, options)
        except DeadlineExceeded as exc:
            raise self._with_job(exc, submitted.info, options) from None

    async def cancel(self, submitted: Submitted) -> JobInfo:
        self.session.open()
        self.gate.require("cancel", submitted.info, doing="cancel()")
        scope = self.context.scope_of(submitted.info)
        return await _lifecycle.job_cancel(scope, submitted.info, submitted.job.id, deadline=self.context.soon())

    def follow(self, submitted: Submitted) -> StreamSource:
        """The stream of a job that was submitted."""
        self.session.open()
        self.gate.require("streaming", submitted.info, doing="stream()")
        scope = self.context.scope_of(submitted.info)
        return StreamSource(_lifecycle.job_stream(scope, submitted.info, submitted.job.id, submitted.options))

    # -- shared

    async def begin(
        self, verb: Verb, deployment: DeploymentLike, input: Mapping[str, Any], asked: CallArguments
    ) -> Call:
        """The call, after its gate. The input is encoded here, and nowhere else."""
        self.session.open()
        encoded = arguments.job_input(input)
        target = await self.lookup.target(deployment, self.context.soon())
        return self._admitted(verb, target, encoded, asked)

    async def renewed(self, call: Call, error: UniGPUError) -> Call:
        """The call, to be made once more because its deployment is gone and was found again.

        Raises:
            UniGPUError: *error*, where that cannot help.
        """
        if isinstance(error, DeadlineExceeded):
            raise self._with_job(error, call.target.info, call.options) from None
        target = await self.lookup.renewed(call.target, error)
        return self._admitted(call.verb, target, call.input, call.asked)

    def _admitted(self, verb: Verb, target: Target, input: EncodedJSON, asked: CallArguments) -> Call:
        caps = self.admit(verb, target.info, input, asked)
        return Call(verb, target, input, asked, asked.options(self.gate, target.info, caps))

    def admit(self, verb: Verb, info: DeploymentInfo, input: EncodedJSON, asked: CallArguments) -> Capabilities:
        """The gate of a call.

        Raises:
            UnsupportedError: the platform cannot do that for this deployment, or does not take such an input.
            PayloadTooLarge: the input is above what it takes.
        """
        caps = self.gate.require("streaming" if verb == "stream" else verb, info, doing=f"{verb}()")
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
            exc.job = self._handle(Submitted(info, JobInfo(id=exc.job_id, status=JobStatus.UNKNOWN), options))
        return exc


@dataclass(frozen=True, slots=True)
class _Unsent:
    """A streamed call whose first chunk nothing has asked for yet."""

    calls: Calls
    deployment: DeploymentLike
    input: EncodedJSON
    asked: CallArguments

    async def run(self) -> tuple[Call, StreamRun]:
        call = await self.calls.begin("stream", self.deployment, self.input, self.asked)
        self.calls.lookup.used(call.target)
        return call, _run_of(call)


class StreamSource:
    """One stream: opened when it is first read, closed once. Chunks one by one, and the whole result after the end.

    Args:
        source: The stream of a job that exists, or a call that is sent when the first chunk is asked for.
    """

    def __init__(self, source: StreamRun | _Unsent) -> None:
        self._source = source
        self._run: StreamRun | None = None
        self.closed = False
        self.ended = False

    async def next(self) -> Any:
        """The next chunk. Raises `StopAsyncIteration` at the end."""
        if self.ended or self.closed:
            raise StopAsyncIteration
        try:
            return await (self._first(self._source) if self._run is None else self._run.__anext__())
        except BaseException:  # the end, or an error: what raised has decided about the job
            self.ended = self._run is not None
            raise

    async def _first(self, source: StreamRun | _Unsent) -> Any:
        if not isinstance(source, _Unsent):
            self._run = source
            return await source.__anext__()
        call, self._run = await source.run()
        try:
            return await self._run.__anext__()
        except NotFoundError as exc:
            call = await source.calls.renewed(call, exc)
            self._run = _run_of(call)
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


def _run_of(call: Call) -> StreamRun:
    return _lifecycle.stream(call.target.scope, call.target.info, call.input, call.options)
