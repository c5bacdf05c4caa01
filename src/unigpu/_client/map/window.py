"""The engine of `map`: a window of workers over a feed of inputs, and what is done with each result on its way out."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Literal

import anyio

from unigpu._io.clock import get_clock
from unigpu.errors import ClientClosed, StateError, UniGPUError
from unigpu.models import Progress, Result

from ..progress import Reporter
from .checkpoint import Checkpoint
from .inputs import Arrivals, Intake, Item, Order, replaced_key

RunItem = Callable[[Item], Awaitable[Result]]
Prepare = Callable[[], AbstractAsyncContextManager[tuple[RunItem, int]]]
OnError = Literal["raise", "return"]


@dataclass(frozen=True, kw_only=True)
class MapPlan:
    """What a `map` is to do, all of it checked.

    Attributes:
        prepare: Makes the call and the size of the window; it may read (names are resolved in it).
    """

    label: str
    provider: str
    prepare: Prepare
    intake: Intake
    order: Order
    on_error: OnError
    checkpoint: Checkpoint | None
    reporter: Reporter


class Window:
    """Runs a window of workers over *feed* until it gives ``None``, and hands each result to *deliver*.

    Args:
        sized: Gets the window before the first item is asked for.
    """

    def __init__(
        self,
        prepare: Prepare,
        feed: Callable[[], Awaitable[Item | None]],
        deliver: Callable[[int, Result], None],
        sized: Callable[[int], None],
    ) -> None:
        self._prepare, self._feed, self._deliver, self._sized = prepare, feed, deliver, sized
        self.failure: BaseException | None = None
        self._scope: anyio.CancelScope | None = None
        self._cancelled = False

    async def run(self) -> None:
        """Run to the end; what ends it early, other than a cancellation, is kept in `failure`."""
        with anyio.CancelScope() as scope:
            self._scope = scope
            if self._cancelled:
                scope.cancel()
            try:
                async with self._prepare() as (run, window):
                    self._sized(window)
                    async with anyio.create_task_group() as group:
                        for _ in range(window):
                            group.start_soon(self._work, run, group.cancel_scope)
            except Exception as exc:
                self.failure = self.failure or exc

    def cancel(self) -> None:
        """Stop: calls in flight are cancelled, which cancels their jobs."""
        self._cancelled = True
        if self._scope is not None:
            self._scope.cancel()

    async def _work(self, run: RunItem, scope: anyio.CancelScope) -> None:
        try:
            while (item := await self._feed()) is not None:
                self._deliver(item.index, item.outcome or await self._one(run, item))
        except Exception as exc:  # the user's input iterator, or a fault of ours: it ends the map
            self.failure = self.failure or exc
            scope.cancel()

    async def _one(self, run: RunItem, item: Item) -> Result:
        try:
            return replaced_key(await run(item), item.key)
        except (StateError, ClientClosed):
            raise  # nothing more can be recorded, or sent
        except UniGPUError as exc:
            return Result(error=exc, key=item.key, job_id=getattr(exc, "job_id", None))


class Giving:
    """What both iterators do with a result that is due: order, checkpoint, progress, and the error that is raised."""

    def __init__(self, plan: MapPlan) -> None:
        self.plan = plan
        self.arrivals = Arrivals(plan.order)
        self._last: str | None = None
        self._done = self._failed = 0
        self._began = get_clock().now()

    def took(self) -> None:
        """The consumer asks for the next one: it has dealt with the last."""
        if self._last is not None and self.plan.checkpoint is not None:
            self.plan.checkpoint.taken(self._last)
        self._last = None

    def give(self, result: Result) -> Result:
        if result.error is not None and self.plan.on_error == "raise":
            result.error.add_note(f"map(): it was the input with the key {result.key!r}")
            raise result.error
        self._done += result.ok
        self._failed += not result.ok
        self._last = result.key if result.ok else None
        self.tell("mapping")
        return result

    def tell(self, phase: str) -> None:
        if not self.plan.reporter.listens(phase):
            return
        self.plan.reporter(
            Progress(
                deployment=self.plan.label,
                provider=self.plan.provider,
                phase=phase,
                elapsed=get_clock().now() - self._began,
                message=f"{self._done} done, {self._failed} failed, {self.arrivals.outstanding} open",
            )
        )

    def end(self) -> None:
        self.plan.reporter.close()
        if self.plan.checkpoint is not None:
            self.plan.checkpoint.close()
