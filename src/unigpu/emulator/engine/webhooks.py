"""Webhooks: called until somebody answers with 2xx, or the tries are used up."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from ..contract import Callback, CallbackDone
from .state import EngineState

Told = Callable[[int, int | None, float], None]
Body = Callable[[int], bytes]


@dataclass(slots=True)
class _Open:
    callback: Callback
    waits: tuple[float, ...]
    told: Told | None
    body: Body | None
    tries: int = 0


class Callbacks:
    """The webhooks that are not answered yet."""

    def __init__(self, core: EngineState) -> None:
        self._core = core
        self._open: dict[str, _Open] = {}

    def add(
        self,
        callback: Callback,
        *,
        waits: tuple[float, ...] = (),
        told: Told | None = None,
        body: Body | None = None,
    ) -> str:
        """Call a webhook; again after each of *waits* (seconds) for as long as it fails. Gives its id.

        Args:
            told: Called after each try with its number, the HTTP status (``None``: no answer) and the time.
            body: Makes the body of a try from its number, which counts from 1, where they differ.
        """
        id = callback.callback_id or self._core.new_id("callback")
        self._open[id] = _Open(replace(callback, callback_id=id), waits, told, body)
        self._send(id)
        return id

    def done(self, event: CallbackDone, now: float) -> None:
        """The driver has called it."""
        entry = self._open.get(event.callback_id)
        if entry is None:
            return
        if entry.told is not None:
            entry.told(entry.tries, event.status, now)
        answered = event.status is not None and 200 <= event.status < 300
        if answered or entry.tries > len(entry.waits):
            del self._open[event.callback_id]
            return
        self._core.at(now + entry.waits[entry.tries - 1], lambda _: self._send(event.callback_id))

    def _send(self, id: str) -> None:
        entry = self._open[id]
        entry.tries += 1
        callback = entry.callback if entry.body is None else replace(entry.callback, body=entry.body(entry.tries))
        self._core.effects.append(callback)
