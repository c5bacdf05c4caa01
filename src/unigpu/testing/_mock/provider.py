"""One platform of a mock, and what a test may do to it: faults by name, and no capacity."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

from unigpu.emulator.contract import HttpCall, Reply
from unigpu.emulator.engine.faults import Fault
from unigpu.emulator.simulation.virtual_cloud import VirtualCloud
from unigpu.errors import ConfigurationError
from unigpu.models import nearest
from unigpu.models.gpu import members

from .platforms import MockPlatform

__all__ = ["Instead", "MockedProvider"]

Instead = Reply | int | Literal["drop", "timeout"]


class MockedProvider:
    """One platform of a mock: ``cloud.local``."""

    def __init__(self, name: str, platform: MockPlatform, cloud: VirtualCloud) -> None:
        self.name = name
        self._platform = platform
        self._cloud = cloud

    def fault(
        self,
        operation: str,
        *,
        before: Instead | None = None,
        after: Instead | None = None,
        times: int | None = 1,
    ) -> Fault:
        """Let a route fail: ``cloud.reference.fault("endpoint.create", after=500)`` creates it, then answers 500.

        Args:
            operation: The platform's route; ``"endpoint.*"`` is all that begin so.
            before: What is answered while nothing happens: a status, a `Reply`, ``"drop"`` (the connection closes) or
                ``"timeout"`` (no answer at all).
            after: The same, once the platform has acted.
            times: How often; ``None``: always.

        Returns:
            The fault; its ``hits`` says how often it struck.

        Raises:
            ConfigurationError: not exactly one of *before* and *after*, or no such route: a fault that can never
                strike would make a test pass that proves nothing.
        """
        self._known(operation)
        if (before is None) == (after is None):
            raise ConfigurationError("fault: say before= (nothing happens) or after= (it happens, the answer is lost).")
        name = f"{self.name}.{operation}"
        if before is not None:
            return self._cloud.engine.faults.add(name, when="before", times=times, reply=before)
        assert after is not None
        return self._cloud.engine.faults.add(name, when="after", times=times, reply=after)

    def no_capacity(self, gpu: str | Sequence[str] | None = None, *, times: int | None = None) -> None:
        """No worker can be had: a request that asks for one is refused as this platform does it.

        An autoscaler that looks for machines by itself asks nobody: where no worker should come to what exists, serve
        it with a ``cold_start`` that is longer than anybody waits.

        Args:
            gpu: Only of these: a request that would take another one goes through. ``None``: of any.
            times: How often, over all operations that ask for workers; ``None``: until `heal`.

        Raises:
            ConfigurationError: nobody knows that GPU, or the platform places none.
        """
        match = None if gpu is None else self._only([gpu] if isinstance(gpu, str) else gpu)
        faults, made = self._cloud.engine.faults, list[Fault]()

        def strikes(call: HttpCall) -> bool:
            if match is not None and not match(call):
                return False
            return times is None or sum(fault.hits for fault in made) < times

        for operation in self._platform.adds_workers:
            made.append(faults.add(operation, times=None, reply=self._platform.no_capacity, match=strikes))

    def _known(self, operation: str) -> None:
        """Raise unless there is such a route, where the emulator tells its routes (its attribute ``operations``)."""
        api = self._cloud.engine.apis[self.name]
        routes: Sequence[str] = sorted(getattr(api, "operations", ()))
        start = operation.removesuffix("*")
        if routes and operation not in routes and not (start != operation and any(r.startswith(start) for r in routes)):
            near = nearest(operation, routes)
            raise ConfigurationError(
                f"fault: {self.name} has no route {operation!r}" + (f"; did you mean {near!r}?" if near else "."),
                hint=f"There are: {', '.join(routes)}.",
            )

    def _only(self, names: Sequence[str]) -> Callable[[HttpCall], bool]:
        """Whether a request asks for GPUs, and for none but these."""
        gpus = self._platform.gpus
        if gpus is None:
            raise ConfigurationError(f"no_capacity: {self.name} places no GPUs; leave gpu= out.")
        gone = {one.name for name in names for one in members(name)}

        def match(call: HttpCall) -> bool:
            asked = [
                one.name for name in gpus(call, self._cloud.engine, self._cloud.clock.now()) for one in members(name)
            ]
            return bool(asked) and gone.issuperset(asked)

        return match

    def heal(self) -> None:
        """No fault any more, of this platform."""
        faults = self._cloud.engine.faults
        for fault in tuple(faults.entries):
            if fault.operation.startswith(f"{self.name}."):
                faults.remove(fault)
