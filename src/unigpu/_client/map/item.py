"""What one input of a `map` comes to: a call, or, with a checkpoint, a job that is recorded and can be found again."""

from __future__ import annotations

import contextlib
import os
import uuid
from collections.abc import AsyncGenerator, Callable, Iterable, Mapping
from contextlib import AbstractAsyncContextManager
from typing import Any, Final

from unigpu import _lifecycle
from unigpu._io.contract import EncodedJSON
from unigpu._lifecycle import CallOptions
from unigpu.driver import CallClass
from unigpu.errors import JobCancelled, JobExpired, JobFailed, ResultUnknown, UniGPUError
from unigpu.models import DeploymentInfo, Result

from .. import arguments
from ..calls import CallArguments, Calls
from ..lookup import DeploymentLike, Target
from ..progress import ProgressMode, Reporter
from .checkpoint import Checkpoint
from .inputs import Intake, Item, Order
from .window import MapPlan, OnError, RunItem

_MOST: Final = 1000
"""The largest window that is chosen by itself."""
_UNKNOWN_WORKERS: Final = 10
_ORDERS: Final[tuple[Order, ...]] = ("input", "done")
_ON_ERROR: Final[tuple[OnError, ...]] = ("raise", "return")


def plan_map(
    calls: Calls,
    inner: Callable[[], AbstractAsyncContextManager[Calls]],
    deployment: DeploymentLike,
    inputs: Iterable[Mapping[str, Any]],
    *,
    concurrency: int | None,
    order: Order,
    on_error: OnError,
    start_timeout: float | None,
    timeout: float | None,
    idempotent: bool | None,
    key: Callable[[Any], str] | None,
    checkpoint: str | os.PathLike[str] | None,
    progress: ProgressMode,
) -> MapPlan:
    """Check everything that was given, and say what is to be done. Nothing is sent.

    Args:
        inner: Gives the calls that the map makes: another flavor's, for the sync `map`.
    """
    session = calls.session
    session.open()
    label, provider = calls.lookup.label(deployment)
    order = arguments.choice(order, "order", _ORDERS)
    on_error = arguments.choice(on_error, "on_error", _ON_ERROR)
    reporter = Reporter(progress)
    window = None if concurrency is None else arguments.count(concurrency, "concurrency", most=10_000)
    asked = CallArguments.checked(start_timeout, timeout, idempotent=idempotent, timeout_from="ready")
    file = (
        None if checkpoint is None else Checkpoint(checkpoint, deployment=f"{label}@{provider} in {session.namespace}")
    )
    try:
        intake = Intake(inputs, key, file)
    except BaseException:
        if file is not None:
            file.close()
        raise

    @contextlib.asynccontextmanager
    async def prepare() -> AsyncGenerator[tuple[RunItem, int]]:
        async with inner() as inside:
            target = await inside.lookup.target(deployment, inside.context.soon())
            inside.gate.require("invoke", target.info, doing="map()")
            yield ItemCall(inside, target, asked, file).run, window or _window(target.info)

    return MapPlan(
        label=label,
        provider=provider,
        prepare=prepare,
        intake=intake,
        order=order,
        on_error=on_error,
        checkpoint=file,
        reporter=reporter,
    )


class ItemCall:
    """Runs one item at a time, many times side by side."""

    def __init__(self, calls: Calls, target: Target, asked: CallArguments, checkpoint: Checkpoint | None) -> None:
        self._calls = calls
        self._info = target.info
        self._scope = target.scope
        self._asked = asked
        self._checkpoint = checkpoint

    async def run(self, item: Item) -> Result:
        assert item.input is not None
        self._calls.session.open()  # a client that is closed meanwhile sends nothing more
        caps = self._calls.admit("invoke", self._info, item.input, self._asked)
        options = self._asked.options(self._calls.gate, self._info, caps)
        if self._checkpoint is None:
            return await _lifecycle.invoke(self._scope, self._info, item.input, options)
        try:
            result = await self._recorded(item, item.input, options, self._checkpoint)
        except UniGPUError as exc:
            # What is certain, and what was reported once as unknown, may run again in a resumed map; a job that
            # may still run is asked for first.
            if not exc.maybe_executed or isinstance(exc, JobFailed | JobCancelled | JobExpired | ResultUnknown):
                self._checkpoint.failed(item.key)
            raise
        self._checkpoint.done(item.key, result)
        return result

    async def _recorded(self, item: Item, input: EncodedJSON, options: CallOptions, checkpoint: Checkpoint) -> Result:
        if item.entry is not None and item.entry.state == "submitted":
            found = await self._resumed(item.key, item.entry.job_id, options)
            if found is not None:
                return found
        driver = self._scope.driver
        if not driver.has_jobs(self._info):
            checkpoint.submitted(item.key, None)
            return await _lifecycle.invoke(self._scope, self._info, input, options)
        if driver.submit_call is CallClass.IDEMPOTENT:  # it takes our id, so the id is known before it is sent
            job_id = uuid.uuid4().hex
            checkpoint.submitted(item.key, job_id)
            return await _lifecycle.invoke(self._scope, self._info, input, options, job_id=job_id)
        checkpoint.submitted(item.key, None)
        job = await _lifecycle.submit(self._scope, self._info, input, options)
        checkpoint.submitted(item.key, job.id)
        return await _lifecycle.job_result(self._scope, self._info, job.id, options)

    async def _resumed(self, key: str, job_id: str | None, options: CallOptions) -> Result | None:
        """What became of an input that was sent before: its result, or ``None``: run it (again)."""
        if job_id is not None:
            try:
                return await _lifecycle.job_result(self._scope, self._info, job_id, options)
            except JobCancelled:
                return None  # the map that started it was ended early, on purpose
            except JobExpired:
                pass
        if options.idempotent:
            return None
        raise ResultUnknown(
            f"the input {key!r} was sent by a map that ended, and what became of it cannot be known"
            + (f" (job {job_id} is not kept any more)." if job_id else " (there is no job id for it)."),
            job_id=job_id,
            provider=self._info.provider,
            deployment=self._info.name,
            hint="A next run of this map runs it again; say idempotent=True to have that done at once.",
        )


def _window(info: DeploymentInfo) -> int:
    """As many calls as the deployment can run at a time."""
    most = _UNKNOWN_WORKERS if info.workers is None else info.workers[1]
    return max(1, min(_MOST, most * info.concurrency))
