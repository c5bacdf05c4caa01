"""The emulator on real time: an ASGI app over an engine and a backend.

One turn of the loop carries a call through: the engine answers, ticks, its effects are carried out (records are on the
disk by then), and only then does the answer leave. Calls that the engine holds are asked again after every change, and
when their time is up.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import dataclass, field
from typing import Any, Final, cast

from ..contract import (
    Answer,
    Backend,
    Callback,
    CallbackDone,
    CancelPush,
    Dropped,
    Effect,
    Event,
    Forward,
    ForwardDone,
    Hold,
    HttpCall,
    Persist,
    Push,
    Reply,
    StartWorker,
    StopWorker,
)
from ..engine import Engine
from ..http_client import UpstreamError, call
from . import forward

log = logging.getLogger("unigpu.cloud.server")

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

BODY_LIMIT: Final = 64_000_000
"""Bytes that a request may have."""
_CALLBACK_S: Final = 30.0
_AGAIN_S: Final = (0.02, 0.1, 0.3, 1.0)
"""Pauses between the tries of a request whose worker was gone before it got a byte."""
_SHORTEST: Final = 0.001


@dataclass(slots=True, eq=False)
class _Held:
    hold: Hold
    answer: asyncio.Future[Reply | Forward | Dropped] = field(repr=False)


class CloudServer:
    """An ASGI app. Set `backend` before the first call; `close` ends the timer and the callbacks.

    Attributes:
        refuse: Asked before each call: an answer that is given instead (a server that is closing).
        persist: Writes a record; raises `OSError` where it cannot, and the call that needed it is answered 507.
        open_calls: Calls that have no answer yet.
        last_call: When the last call began or ended, on ``clock``.
    """

    backend: Backend

    def __init__(
        self,
        engine: Engine,
        *,
        clock: Callable[[], float] = time.monotonic,
        persist: Callable[[Persist], None] | None = None,
        refuse: Callable[[HttpCall], Reply | None] | None = None,
        after: Callable[[HttpCall, Reply], Reply] | None = None,
    ) -> None:
        self.engine = engine
        self.clock = clock
        self.persist = persist
        self.refuse = refuse
        self.after = after
        self.open_calls = 0
        self.last_call = clock()
        self._held: dict[_Held, None] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._soon = False
        self._closed = False
        self._tasks: set[asyncio.Task[None]] = set()

    # -- the engine's turn ----------------------------------------------------------------------------------------

    def emit(self, event: Event) -> None:
        """Tell the engine what happened. For backends."""
        if not self._closed:
            self.engine.event(event, self.clock())
            self._kick()

    def pump(self) -> list[Persist]:
        """Let the engine do what is due, carry it out, and answer the calls that waited for it.

        Returns:
            The records that could not be written; the engine has taken their changes back.
        """
        failed: list[Persist] = []
        if self._closed:
            return failed
        try:
            for effect in self.engine.tick(self.clock()):
                if isinstance(effect, Persist):
                    if not self._write(effect):
                        failed.append(effect)
                else:
                    self._carry_out(effect)
            self._ask_held()
        finally:
            self._plan()  # whatever went wrong in this turn, there is a next one
        return failed

    def close(self) -> None:
        """Answer what is held with 503, and do nothing more."""
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()
        for held in list(self._held):
            if not held.answer.done():
                held.answer.set_result(closing())
        for task in self._tasks:
            task.cancel()

    def _kick(self) -> None:
        """One turn for all that happens in this turn of the loop."""
        if not self._soon:
            self._soon = True
            asyncio.get_running_loop().call_soon(self._kicked)

    def _kicked(self) -> None:
        self._soon = False
        self.pump()

    def _ask_held(self) -> None:
        now = self.clock()
        for held in list(self._held):
            if not held.answer.done() and (answer := held.hold.poll(now)) is not None:
                held.answer.set_result(answer)
                self._kick()  # an answer may have changed something: a job was taken

    def _plan(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        dues = [held.hold.until for held in self._held]
        if (due := self.engine.next_due()) is not None:
            dues.append(due)
        if dues:
            delay = max(_SHORTEST, min(dues) - self.clock())
            self._timer = asyncio.get_running_loop().call_later(delay, self.pump)

    def _write(self, effect: Persist) -> bool:
        if self.persist is None:
            return True
        try:
            self.persist(effect)
        except OSError as exc:
            log.error("a record (%s) cannot be written: %s", effect.kind, exc.strerror or exc)
            self.engine.undo_persist(effect, self.clock())
            self._kick()
            return False
        return True

    def _carry_out(self, effect: Effect) -> None:
        match effect:
            case StartWorker() | StopWorker() | Push() | CancelPush():
                self.backend.carry_out(effect)
            case Callback():
                self._task(self._call_back(effect))
            case Persist():
                self._write(effect)

    async def _call_back(self, effect: Callback) -> None:
        status: int | None = None
        with contextlib.suppress(UpstreamError):
            status, _ = await call("POST", effect.url, headers=effect.headers, body=effect.body, seconds=_CALLBACK_S)
        self.emit(CallbackDone(callback_id=effect.callback_id, status=status))

    def _task(self, work: Any) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    # -- one call -------------------------------------------------------------------------------------------------

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            raise RuntimeError(f"the emulator serves HTTP only, not {scope['type']}")
        self.open_calls += 1
        self.last_call = self.clock()
        try:
            await self._serve(scope, receive, send)
        finally:
            self.open_calls -= 1
            self.last_call = self.clock()

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        body = await _read(receive)
        if body is None:
            return
        call = forward.http_call(scope, body)
        refused = self.refuse(call) if self.refuse is not None else None
        if refused is None and len(body) > BODY_LIMIT:
            refused = error(413, "too_large", f"a request may have {BODY_LIMIT} bytes")
        answer = refused or self._answer(call)
        gone = asyncio.create_task(_disconnected(receive))
        try:
            found = await self._settled(answer, gone)
            for pause in (*_AGAIN_S, None):
                if not isinstance(found, Forward):
                    break
                failed = await self._pass_on(found, gone, scope, send)
                if failed is None:
                    return
                if not failed.never_sent or pause is None:
                    found = forward.bad_gateway(failed)
                    break
                # Its worker was gone before it got a byte: another one takes the request, as soon as that is known.
                await asyncio.sleep(pause)
                found = await self._settled(self._answer(call), gone)
            if isinstance(found, Reply):
                await _reply(send, self.after(call, found) if self.after is not None else found)
            elif isinstance(found, Dropped):
                if found.how == "drop":
                    _drop(scope)
                else:
                    await gone
        finally:
            gone.cancel()

    def _answer(self, call: HttpCall) -> Answer:
        self.pump()  # what is due by now comes first, so that what fails below is this call's
        answer = self.engine.handle(call, self.clock())
        failed = self.pump()
        if any(record.kind.startswith("deployment") for record in failed):
            return error(507, "disk_full", "the state directory cannot be written (the disk is full?); nothing changed")
        return answer

    async def _settled(self, answer: Answer, gone: asyncio.Task[None]) -> Reply | Forward | Dropped | None:
        """The answer once it is no `Hold`; ``None``: the caller left."""
        return await self._hold(answer, gone) if isinstance(answer, Hold) else answer

    async def _hold(self, hold: Hold, gone: asyncio.Task[None]) -> Reply | Forward | Dropped | None:
        """The answer, or ``None`` where the caller left first."""
        held = _Held(hold, asyncio.get_running_loop().create_future())
        self._held[held] = None
        self._ask_held()
        self._plan()
        try:
            waits: set[asyncio.Future[Any]] = {held.answer, gone}
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            del self._held[held]
            if not held.answer.done() and hold.abandoned is not None:
                hold.abandoned(self.clock())
                self._kick()
        if not held.answer.done():
            return None
        answer = held.answer.result()
        if gone.done() and isinstance(answer, Forward):
            self.emit(ForwardDone(worker_id=answer.worker_id, lease=answer.lease))
            return None
        return answer

    async def _pass_on(
        self, answer: Forward, gone: asyncio.Task[None], scope: Scope, send: Send
    ) -> forward.NoAnswer | None:
        """Let a worker answer, and return why the caller has nothing of an answer yet, where that is so."""
        status: int | None = None

        async def marked(message: MutableMapping[str, Any]) -> None:
            if message["type"] == "http.response.start":
                also = [(name.encode(), value.encode()) for name, value in answer.marks]
                message = {**message, "headers": [*message["headers"], *also]}
            await send(message)

        try:
            status = await forward.forward(answer.call, self.backend.address(answer.worker_id), gone, marked)
        except forward.NoAnswer as exc:
            log.info("worker %s: %s", answer.worker_id, exc)
            return exc
        except UpstreamError as exc:
            log.info("worker %s: %s", answer.worker_id, exc)
            _drop(scope)  # half an answer is out: only a cut connection says that the rest is missing
        finally:
            self.emit(ForwardDone(worker_id=answer.worker_id, lease=answer.lease, status=status))
        return None


def error(status: int, type: str, message: str) -> Reply:
    """An answer of the server's own, in the form that all of ours have."""
    headers = (("x-unigpu-error", type),)  # told from a worker's own answers
    return Reply.json({"error": {"type": type, "message": message}}, status=status, headers=headers)


def closing() -> Reply:
    """What a server that is closing answers."""
    return error(503, "closing", "this server is closing; look for the next one")


async def _reply(send: Send, reply: Reply) -> None:
    headers = [(k.encode("latin-1"), v.encode("latin-1")) for k, v in reply.headers]
    headers.append((b"content-length", str(len(reply.body)).encode()))
    await send({"type": "http.response.start", "status": reply.status, "headers": headers})
    await send({"type": "http.response.body", "body": reply.body})


async def _read(receive: Receive) -> bytes | None:
    """The body, cut a little above the limit; ``None`` where the caller left while sending it."""
    parts: list[bytes] = []
    size = 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            return None
        part = cast("bytes", message.get("body", b""))
        if size <= BODY_LIMIT:
            parts.append(part)
        size += len(part)
        if not message.get("more_body", False):
            return b"".join(parts)


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


def _drop(scope: Scope) -> None:
    """Close the connection without an answer, as a network does."""
    transport: asyncio.Transport | None = scope.get("state", {}).get("transport")
    if transport is None:
        raise RuntimeError("this server cannot drop a connection")
    transport.abort()
