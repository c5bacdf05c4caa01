"""Everything unigpu raises.

* UniGPUError
  x ConfigurationError         before any request: no key, unknown provider, bad option or spec
    - InvalidInput             the input of a call cannot be sent (not JSON, not an object)
    - PayloadTooLarge          the input is above what the platform takes
  x UnsupportedError           the platform cannot do that (capability, fact, source)
  x TransportError             no usable reply
    - TransportTimeout
    - CircuitOpen              not sent: the last calls to this provider all failed
    - StreamInterrupted        a stream broke; carries what had arrived
  x APIStatusError             the provider answered with an error
    - AuthenticationError
    - PermissionDeniedError
    - NotFoundError
      - DeploymentGone         a deployment that existed does not exist any more
    - ConflictError
    - InvalidRequestError
    - RateLimitError
    - QuotaExceededError
    - InsufficientBalanceError
    - ProviderUnavailableError
  x InvalidResponseError       a reply of a shape we do not know
  x NoCapacityError            no such GPU now
  x DeadlineExceeded           we stopped waiting (also a TimeoutError)
    - NoWorkerReady            no worker became ready within start_timeout
  x NameConflict               the name is taken by something else
  x PlanChanged                what the plan promised is not so any more
  x CheckpointMismatch         a checkpoint file belongs to other inputs
  x WorkerFailed               a worker cannot start
  x DeployOutcomeUnknown       a create was lost, and looking did not settle it
  x PartialDeployError         a deploy failed and its undo failed too
  x TeardownIncomplete         something that should be gone is still there
  x StateError                 the state directory cannot be written or is not ours
  x ClientClosed               the client was used after close()
  x JobFailed                  the job ran, and failed
    - WorkerLost               the worker died while it ran the job
  x JobCancelled
  x JobExpired                 the platform no longer knows the job, or its result
  x ResultUnknown              the call may have run; its result is lost

Every error says what happened, what may still cost money, and what to do next.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

__all__ = [
    "APIStatusError",
    "AuthenticationError",
    "CheckpointMismatch",
    "CircuitOpen",
    "ClientClosed",
    "ConfigurationError",
    "ConflictError",
    "DeadlineExceeded",
    "DeployOutcomeUnknown",
    "DeploymentGone",
    "InsufficientBalanceError",
    "InvalidInput",
    "InvalidRequestError",
    "InvalidResponseError",
    "JobCancelled",
    "JobExpired",
    "JobFailed",
    "NameConflict",
    "NoCapacityError",
    "NoWorkerReady",
    "NotFoundError",
    "PartialDeployError",
    "PayloadTooLarge",
    "PermissionDeniedError",
    "PlanChanged",
    "ProviderUnavailableError",
    "QuotaExceededError",
    "RateLimitError",
    "ResultUnknown",
    "StateError",
    "StreamInterrupted",
    "TeardownIncomplete",
    "TransportError",
    "TransportTimeout",
    "UniGPUError",
    "UnsupportedError",
    "WorkerFailed",
    "WorkerLost",
]

# Live objects that an error may carry; a pickled error keeps their ids, never the objects.
_HANDLES = ("job", "deployment_handle")


class UniGPUError(Exception):
    """Base of everything unigpu raises.

    Attributes:
        message: What happened, in one sentence.
        provider: The provider's name, where one was involved.
        operation: The call that failed, as in ``"runpod.endpoint.create"``.
        deployment: The deployment's logical name, where one was involved.
        retryable: Whether the same call may succeed if repeated later.
        maybe_executed: ``True`` if user code or a change may have run although no answer
            arrived, ``False`` if it certainly did not, ``None`` where the question does not apply.
        may_bill: What exists, or may exist, and may still cost money.
        hint: What to do next.
        stop_reason: Why retrying stopped: ``attempts``, ``deadline``, ``retry_after``,
            ``tokens`` (too many calls failed lately), ``breaker`` (the last ones all did),
            ``class`` (this call is never repeated blindly).
        attempts: How many times the request was sent.
    """

    default_retryable = False

    def __init__(
        self,
        message: str,
        *,
        provider: str | None = None,
        operation: str | None = None,
        deployment: str | None = None,
        retryable: bool | None = None,
        maybe_executed: bool | None = None,
        may_bill: tuple[str, ...] = (),
        hint: str | None = None,
        stop_reason: str | None = None,
        attempts: int | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.provider = provider
        self.operation = operation
        self.deployment = deployment
        self.retryable = self.default_retryable if retryable is None else retryable
        self.maybe_executed = maybe_executed
        self.may_bill = may_bill
        self.hint = hint
        self.stop_reason = stop_reason
        self.attempts = attempts

    def __str__(self) -> str:
        parts = [self.message]
        if (self.may_bill or self.hint) and not self.message.endswith((".", "!", "?", ":")):
            parts = [f"{self.message}."]
        if self.may_bill:
            parts.append(f"May still bill: {'; '.join(self.may_bill)}.")
        if self.hint:
            parts.append(self.hint)
        return " ".join(parts)

    def __reduce__(self) -> tuple[Any, ...]:
        state = {k: (None if k in _HANDLES else v) for k, v in self.__dict__.items()}
        return (_restore, (type(self), self.args), state)


def _restore(cls: type[UniGPUError], args: tuple[Any, ...]) -> UniGPUError:
    error = cls.__new__(cls, *args)
    error.args = args
    return error


class ConfigurationError(UniGPUError):
    """Something is missing or wrong in what we were given. Nothing was sent."""


class InvalidInput(ConfigurationError):
    """The input of a call cannot be sent as JSON.

    Attributes:
        path: Where in the input, as in ``"$.items[3].when"``.
    """

    def __init__(self, message: str, *, path: str = "$", **rest: Any) -> None:
        super().__init__(message, **rest)
        self.path = path


class PayloadTooLarge(ConfigurationError):
    """The input is larger than the platform takes.

    Attributes:
        limit: Bytes the platform takes.
        size: Bytes of this input.
    """

    def __init__(self, message: str, *, limit: int, size: int, **rest: Any) -> None:
        super().__init__(message, **rest)
        self.limit = limit
        self.size = size


class UnsupportedError(UniGPUError):
    """The platform cannot do that. Nothing that changes or costs anything was sent.

    Attributes:
        capability: The flag that says so.
        fact: The fact behind the flag, in words.
        source: Where the fact comes from.
    """

    def __init__(
        self,
        message: str,
        *,
        capability: str | None = None,
        fact: str | None = None,
        source: str | None = None,
        **rest: Any,
    ) -> None:
        super().__init__(message, **rest)
        self.capability = capability
        self.fact = fact
        self.source = source


class TransportError(UniGPUError):
    """No usable reply arrived.

    Attributes:
        never_sent: True where the request certainly did not leave this machine.
    """

    default_retryable = True

    def __init__(self, message: str, *, never_sent: bool = False, **rest: Any) -> None:
        rest.setdefault("maybe_executed", not never_sent)
        super().__init__(message, **rest)
        self.never_sent = never_sent


class TransportTimeout(TransportError):
    """No usable reply arrived in time."""


class CircuitOpen(TransportError):
    """Not sent: the last calls to this provider all failed; it is tried again a little later.

    Attributes:
        retry_after: Seconds until it is tried again.
    """

    def __init__(self, message: str, *, retry_after: float | None = None, **rest: Any) -> None:
        rest.setdefault("never_sent", True)
        super().__init__(message, **rest)
        self.retry_after = retry_after


class StreamInterrupted(TransportError):
    """A stream broke before its end.

    Attributes:
        partial: The chunks that had arrived.
    """

    def __init__(self, message: str, *, partial: tuple[Any, ...] = (), **rest: Any) -> None:
        super().__init__(message, **rest)
        self.partial = partial


class APIStatusError(UniGPUError):
    """The provider answered with an error.

    Attributes:
        status: The HTTP status, or the provider's own code where that decides.
        request_id: The provider's id for the request, where it gave one.
        body: The reply, shortened, with secrets taken out.
        retry_after: Seconds the provider asked us to wait, where it did.
    """

    def __init__(
        self,
        message: str,
        *,
        status: int | None = None,
        request_id: str | None = None,
        body: str | None = None,
        retry_after: float | None = None,
        **rest: Any,
    ) -> None:
        super().__init__(message, **rest)
        self.status = status
        self.request_id = request_id
        self.body = body
        self.retry_after = retry_after


class AuthenticationError(APIStatusError):
    """The key is missing, malformed, or not valid (any more)."""


class PermissionDeniedError(APIStatusError):
    """The key is valid, but may not do that."""


class NotFoundError(APIStatusError):
    """There is no such thing."""


class DeploymentGone(NotFoundError):
    """The deployment existed and does not exist any more."""


class ConflictError(APIStatusError):
    """The thing is in a state in which that cannot be done."""


class InvalidRequestError(APIStatusError):
    """The provider says the request is wrong."""


class RateLimitError(APIStatusError):
    """Too many requests."""

    default_retryable = True


class QuotaExceededError(APIStatusError):
    """The account may not have more of that."""


class InsufficientBalanceError(APIStatusError):
    """The account has too little money."""


class ProviderUnavailableError(APIStatusError):
    """The provider has a fault of its own (5xx)."""

    default_retryable = True


class InvalidResponseError(UniGPUError):
    """A reply of a shape we do not know.

    Attributes:
        body: The reply, shortened, with secrets taken out.
    """

    def __init__(self, message: str, *, body: str | None = None, **rest: Any) -> None:
        super().__init__(message, **rest)
        self.body = body


class NoCapacityError(UniGPUError):
    """No such GPU is to be had now: the commonest real failure of this field."""

    default_retryable = True


class DeadlineExceeded(UniGPUError, TimeoutError):
    """We stopped waiting; what we waited for may still happen."""

    default_retryable = True

    def __init__(self, message: str, *, job: Any = None, job_id: str | None = None, **rest: Any) -> None:
        super().__init__(message, **rest)
        self.job = job
        self.job_id = job_id


class NoWorkerReady(DeadlineExceeded):
    """No worker of the deployment became ready within ``start_timeout``.

    Attributes:
        state: The deployment's state as last seen.
        reason: Why no worker is ready, as far as it is known.
        retry_after: Seconds after which another try is worth it, where that is known.
        job: The job, left in the queue because the call said ``on_timeout="keep"``.
    """

    def __init__(
        self,
        message: str,
        *,
        state: str | None = None,
        reason: str | None = None,
        retry_after: float | None = None,
        **rest: Any,
    ) -> None:
        super().__init__(message, **rest)
        self.state = state
        self.reason = reason
        self.retry_after = retry_after


class NameConflict(UniGPUError):
    """The name is taken by a deployment that is not what was asked for.

    Attributes:
        fields: The spec fields that differ.
    """

    def __init__(self, message: str, *, fields: tuple[str, ...] = (), **rest: Any) -> None:
        super().__init__(message, **rest)
        self.fields = fields


class PlanChanged(UniGPUError):
    """What the plan promised is not so any more. Nothing was done."""


class CheckpointMismatch(ConfigurationError):
    """A checkpoint file belongs to another deployment, or to other inputs."""


class WorkerFailed(UniGPUError):
    """A worker cannot start.

    Attributes:
        reason: ``image_pull``, ``crash_loop``, ``probe``, ``out_of_memory``, ``host_lost``, or ``unknown``.
        logs: The last lines of the worker's log.
        next_step: What to try.
    """

    def __init__(
        self,
        message: str,
        *,
        reason: str = "unknown",
        logs: tuple[str, ...] = (),
        next_step: str | None = None,
        **rest: Any,
    ) -> None:
        super().__init__(message, **rest)
        self.reason = reason
        self.logs = logs
        self.next_step = next_step

    def __str__(self) -> str:
        parts = [super().__str__()]
        if self.next_step:
            parts.append(self.next_step)
        if self.logs:
            parts.append("Last log lines:\n  " + "\n  ".join(self.logs))
        return " ".join(parts)


class DeployOutcomeUnknown(UniGPUError):
    """A create was sent, its answer was lost, and looking did not settle whether it exists."""


class PartialDeployError(UniGPUError):
    """A deploy failed, and undoing what it had created failed too.

    Attributes:
        leaked: What is left, as ``(kind, id)`` pairs.
    """

    def __init__(self, message: str, *, leaked: tuple[tuple[str, str], ...] = (), **rest: Any) -> None:
        super().__init__(message, **rest)
        self.leaked = leaked


class TeardownIncomplete(UniGPUError):
    """Something that should be gone is still there.

    Attributes:
        remaining: What is left, as ``(kind, id)`` pairs.
    """

    default_retryable = True

    def __init__(self, message: str, *, remaining: tuple[tuple[str, str], ...] = (), **rest: Any) -> None:
        super().__init__(message, **rest)
        self.remaining = remaining


class StateError(UniGPUError):
    """The state directory cannot be written (full, read only), or is not ours alone."""


class ClientClosed(UniGPUError):
    """The client was used after it was closed."""


class JobFailed(UniGPUError):
    """The job ran, and failed. The handler's error is data here, never an exception class of its own.

    Attributes:
        job_id: The job's id.
        error_type: The name of the handler's exception, where it is known.
        error_message: Its message.
        traceback: The handler's traceback as text, only where the worker was told to send it.
    """

    def __init__(
        self,
        message: str,
        *,
        job_id: str | None = None,
        error_type: str | None = None,
        error_message: str | None = None,
        traceback: str | None = None,
        **rest: Any,
    ) -> None:
        super().__init__(message, **rest)
        self.job_id = job_id
        self.error_type = error_type
        self.error_message = error_message
        self.traceback = traceback


class WorkerLost(JobFailed):
    """The worker died while it ran the job."""


class JobCancelled(UniGPUError):
    """The job was cancelled."""

    def __init__(self, message: str, *, job_id: str | None = None, **rest: Any) -> None:
        super().__init__(message, **rest)
        self.job_id = job_id


class JobExpired(UniGPUError):
    """The platform no longer knows the job, or no longer keeps its result."""

    def __init__(self, message: str, *, job_id: str | None = None, **rest: Any) -> None:
        super().__init__(message, **rest)
        self.job_id = job_id


class ResultUnknown(UniGPUError):
    """The call may have run; its result is lost. Repeat it only if the handler is idempotent."""

    def __init__(self, message: str, *, job_id: str | None = None, **rest: Any) -> None:
        rest.setdefault("maybe_executed", True)
        super().__init__(message, **rest)
        self.job_id = job_id


def describe(error: UniGPUError) -> Mapping[str, Any]:
    """The error's public attributes, for structured logs. Live handles are left out."""
    return {k: v for k, v in error.__dict__.items() if not k.startswith("_") and k not in _HANDLES}
