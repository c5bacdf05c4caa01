"""Faults on purpose: an answer lost, refused or replaced, before or after the engine acted."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

from ..contract import Answer, Dropped, Forward, Hold, HttpCall, Reply

When = Literal["before", "after"]
Instead = Reply | int | Literal["drop", "timeout"]


@dataclass(slots=True)
class Fault:
    """One fault. ``hits`` counts how often it struck; ``left`` how often it still will (``None``: always)."""

    operation: str
    when: When
    instead: Reply | Dropped
    left: int | None
    match: Callable[[HttpCall], bool] | None = None
    hits: int = 0


@dataclass(slots=True)
class Faults:
    """The faults of one engine. The first that fits a call strikes.

    A request that is forwarded to a worker is streamed, so only faults *before* can strike there.
    """

    entries: list[Fault] = field(default_factory=list[Fault])

    def add(
        self,
        operation: str,
        *,
        when: When = "before",
        times: int | None = 1,
        reply: Instead = "drop",
        match: Callable[[HttpCall], bool] | None = None,
    ) -> Fault:
        """Let *operation* fail.

        Args:
            operation: An emulated API's name of a route, as in ``"local.deployment.put"``; ``"local.*"`` fits all.
            when: Before the engine acts (nothing happened), or after (it happened, and the answer is lost).
            times: How often; ``None``: until it is removed.
            reply: A whole reply, an HTTP status, ``"drop"`` (connection closed) or ``"timeout"`` (no answer at all).
            match: Which calls; ``None``: all.
        """
        fault = Fault(operation=operation, when=when, instead=_instead(reply), left=times, match=match)
        self.entries.append(fault)
        return fault

    def remove(self, fault: Fault) -> None:
        """Take a fault back. One that is not there any more is no error."""
        if fault in self.entries:
            self.entries.remove(fault)

    def clear(self) -> None:
        self.entries.clear()

    def strike(self, operation: str, when: When, call: HttpCall) -> Reply | Dropped | None:
        """What to answer instead, if a fault strikes this call."""
        for fault in self.entries:
            if fault.when != when or not _fits(fault.operation, operation):
                continue
            if fault.match is not None and not fault.match(call):
                continue
            fault.hits += 1
            if fault.left is not None:
                fault.left -= 1
                if fault.left <= 0:
                    self.entries.remove(fault)
            return fault.instead
        return None

    def after(self, operation: str, call: HttpCall, answer: Answer) -> Answer:
        """The answer that leaves, where the engine has acted and answered *answer*."""
        if isinstance(answer, Forward | Dropped):
            return answer
        if isinstance(answer, Reply):
            return self.strike(operation, "after", call) or answer

        hold = answer

        def poll(now: float) -> Reply | Forward | Dropped | None:
            found = hold.poll(now)
            if not isinstance(found, Reply):
                return found
            return self.strike(operation, "after", call) or found

        return Hold(until=hold.until, poll=poll, abandoned=hold.abandoned)


def _fits(pattern: str, operation: str) -> bool:
    return pattern == operation or (pattern.endswith("*") and operation.startswith(pattern[:-1]))


def _instead(reply: Instead) -> Reply | Dropped:
    if isinstance(reply, Reply):
        return reply
    if isinstance(reply, int):
        error = {"type": "injected", "message": "an injected fault"}
        return Reply.json({"error": error}, status=reply)
    return Dropped(how=reply)
