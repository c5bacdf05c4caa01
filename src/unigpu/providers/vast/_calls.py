"""A call in two hops: ``/route/`` names a worker and signs for it, then the worker itself is asked.

What waits here is this caller: Vast keeps no queue that would hand an answer to somebody who left. Rules:

* Everything ends at the deadline, every pause included.
* The worker is a stranger's machine. It gets the signed route and the payload: no key, no header of ours.
* A worker that cannot be reached was not asked: another one is, after a pause. After it was asked, a call that may not
  run twice is not sent again.
* The ``request_idx`` of the first answer goes with every further one, so that one call is counted once.

https://docs.vast.ai/api-reference/serverless/route, https://github.com/vast-ai/docs/pull/915 (``post_route``), vastai
1.9.1 (``serverless/client/client.py``, ``serverless/server/lib/backend.py``).
"""

from __future__ import annotations

import contextlib
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, cast
from urllib.parse import urlsplit

from unigpu.driver import CallClass, DeploymentInfo, Io, Request, Response, State, WorkerState
from unigpu.errors import (
    APIStatusError,
    DeadlineExceeded,
    InvalidRequestError,
    InvalidResponseError,
    NotFoundError,
    NoWorkerReady,
    TransportError,
    UniGPUError,
    WorkerFailed,
)

from . import _map
from ._body import COST
from ._line import Line, gone, said_no
from ._parts import endpoint_of
from ._wire import PROVIDER, RouteWire, mapping, shaped

ROUTE: Final = "job.route.get"
ROUTE_S: Final = 10.0
"""Seconds for one answer of ``/route/``."""
REPLAY_S: Final = 60.0
"""``replay_timeout``: what Vast's own client sends."""
_FIRST: Final = 1.0
_LONGEST: Final = 5.0
_SAME: Final = 2
"""So often one address may be unreachable before a new request is asked for."""
_UNSIGNED: Final = 3
_LOOK: Final = 20.0
_FAILED: Final = 3
_CONSOLE_S: Final = 5.0
_HOST: Final = re.compile(r"[A-Za-z0-9._:-]+")


@dataclass(slots=True)
class Way:
    """The way of one call to a worker. Made for one call, and used by it alone."""

    line: Line
    io: Io
    info: DeploymentInfo
    start_deadline: float
    deadline: float
    idx: int = 0
    waits: int = 0
    missed: int = 0
    unsigned: int = 0
    unreachable: str | None = None
    status: str | None = None
    looked_at: float | None = None
    is_ready: bool = False

    @property
    def secrets(self) -> tuple[str, ...]:
        """What must not reach a worker, should an answer of the engine's hold it."""
        own = self.line.own.get(self.info.id)
        return (self.line.secret, *(() if own is None else (own.get_secret_value(),)))

    async def next(self) -> tuple[str, Mapping[str, Any]]:
        """A worker's address and the signed route; waits until there is one.

        Raises:
            NoWorkerReady: no worker was ready by ``start_deadline``; or it is stopped, and somebody must start it.
            DeadlineExceeded: all were busy until the deadline.
            DeploymentGone, AuthenticationError, ...: as the engine says.
            WorkerFailed: workers cannot start.
        """
        if self.looked_at is None:
            self.looked_at = self.io.now()
        while True:
            reply, body = await self.ask()
            route = shaped(RouteWire, body, reply.operation)
            self.idx = route.request_idx if route.request_idx is not None else self.idx
            if route.url:
                return self._address(route.url), body
            self.status = route.status or self.status
            await self._look()
            await self.pause()

    async def pause(self) -> None:
        """Before the next question: 1 s, longer each time, 5 s at most; never past a deadline.

        Raises:
            NoWorkerReady, DeadlineExceeded: there is no time for another one.
        """
        seconds = min(_LONGEST, _FIRST * 1.5**self.waits) * (0.8 + 0.4 * self.io.random())
        self.waits += 1
        now = self.io.now()
        if not self.is_ready and now >= self.start_deadline:
            await self._look(at_last=True)  # they may all be busy: that is another wait
            if not self.is_ready:
                raise self._nobody()
        if now >= self.deadline:
            raise self.late()
        left = (self.deadline if self.is_ready else min(self.deadline, self.start_deadline)) - now
        await self.io.sleep(min(seconds, max(0.0, left)))

    async def unreached(self, url: str, exc: TransportError) -> None:
        """Nothing was sent to that address: pause, and ask again; after two misses as a new request."""
        self.missed = self.missed + 1 if self.unreachable == url else 1
        self.unreachable, self.status = url, f"a worker could not be reached ({exc.message})"
        if not exc.retryable:
            raise exc  # its certificate, or its address, was refused: the same would come again
        if self.missed >= _SAME:
            self.idx, self.missed = 0, 0
        await self._look()
        await self.pause()

    async def refused(self, why: str) -> None:
        """A worker is busy, or draining: it did not run."""
        self.status, self.is_ready = f"a worker refused it: {why}", True
        await self.pause()

    async def not_signed(self, reply: Response) -> None:
        """A worker does not take the signature: a new route is asked for, a few times.

        Raises:
            InvalidResponseError: none is taken.
        """
        self.unsigned += 1
        if self.unsigned >= _UNSIGNED:
            raise InvalidResponseError(
                f"workers of {self.info.name} refuse Vast's signature (HTTP {reply.status})",
                provider=PROVIDER,
                operation=reply.operation,
                deployment=self.info.name,
                maybe_executed=False,
            )
        self.idx = 0
        await self.pause()

    # -- the engine ---------------------------------------------------------------------------------------------------

    async def ask(self) -> tuple[Response, Mapping[str, Any]]:
        """One question to ``/route/``, and the engine's answer where that is no refusal."""
        name = self.info.details.get("endpoint_name") or f"{self.info.provider_name}-{self.info.attempt}"
        now = self.io.now()
        until = min(self.deadline, max(self.start_deadline, now + ROUTE_S))
        if until <= now:
            raise self.late()
        try:
            reply = await self.line.ask(
                self.io,
                "/route/",
                ROUTE,
                self.info.id,
                json={"endpoint": name, "cost": COST, "request_idx": self.idx, "replay_timeout": REPLAY_S},
                role="jobs",
                deadline=until,
                deployment=self.info.name,
                read_timeout=ROUTE_S,
            )
        except APIStatusError as exc:
            if exc.status in (400, 401, 404):
                await self._must_exist(exc)
            raise
        body: object = reply.json()
        refusal = None if mapping(body).get("url") else said_no(reply)
        if refusal is not None:
            error = self.line.refused(reply, refusal, self.info.name)
            await self._must_exist(error)
            raise error
        if not isinstance(body, Mapping):
            raise InvalidResponseError(
                f"{reply.operation}: Vast's reply is neither a worker nor a status",
                provider=PROVIDER,
                operation=reply.operation,
                deployment=self.info.name,
                maybe_executed=False,
            )
        return reply, mapping(cast("object", body))

    async def _must_exist(self, exc: UniGPUError, *, seconds: float = math.inf) -> None:
        """The engine says in one sentence that the key is wrong or the endpoint unknown; the console says which.

        Raises:
            DeploymentGone: there is no such endpoint.
            NoWorkerReady: it is stopped.
        """
        until = min(self.deadline, self.io.now() + seconds)
        wire = await endpoint_of(self.line, self.io, self.info.id, deadline=until)
        if wire is None:
            raise gone(self.info, exc.operation) from exc
        if wire.endpoint_state == "stopped":
            raise self._stopped() from exc

    def _address(self, url: str) -> str:
        """The worker's address as the engine gave it; what it may resolve to is the connection's own rule.

        Raises:
            InvalidResponseError: it is not one, or plain http where that was not allowed.
        """
        scheme = _scheme(url)
        if scheme is None:
            raise self._bad_address("the engine named a worker by something that is no address; it was not called")
        if scheme == "http" and not self.line.http_workers:
            raise self._bad_address(
                "the engine named a worker that is called without TLS; it was not called",
                'To call such workers all the same: driver_options={"vast": {"http_workers": True}}.',
            )
        return url.rstrip("/")

    def _bad_address(self, text: str, hint: str | None = None) -> InvalidResponseError:
        return InvalidResponseError(
            f"{self.info.name}: {text}",
            provider=PROVIDER,
            operation=f"vast.{ROUTE}",
            deployment=self.info.name,
            maybe_executed=False,
            hint=hint,
        )

    # -- is anything coming? ------------------------------------------------------------------------------------------

    async def _look(self, *, at_last: bool = False) -> None:
        """Now and then, at the workers: are they ready and busy, failing, or is it stopped?

        Raises:
            WorkerFailed: so many failed, and none is ready.
            NoWorkerReady: it is stopped.
        """
        now = self.io.now()
        soon = self.looked_at is not None and now - self.looked_at < _LOOK * (0.8 + 0.4 * self.io.random())
        if soon and not at_last:
            return
        self.looked_at = now
        try:
            workers = await self.line.workers(self.io, self.info.id, deadline=self.deadline)
        except NotFoundError:
            workers = ()
        except (TransportError, APIStatusError, InvalidResponseError):
            return  # the call's own questions decide whether the engine can be reached
        states = [_map.worker_state(one) for one in workers]
        self.is_ready = any(one.is_ready for one in states)
        failed = [one for one, state in zip(workers, states, strict=True) if state is WorkerState.FAILED]
        if self.is_ready:
            return
        if len(failed) >= _FAILED:
            said = next((one.error_msg for one in failed if one.error_msg), None) or "Vast tells no reason"
            raise WorkerFailed(
                f"{len(failed)} workers of {self.info.name} failed, and none is ready: {said}",
                provider=PROVIDER,
                deployment=self.info.name,
                maybe_executed=False,
            )
        if not at_last and all(state is WorkerState.STOPPED for state in states):
            with contextlib.suppress(
                TransportError
            ):  # many wait, and the console is asked seldom: it is looked at later
                await self._must_exist(self._nobody(), seconds=_CONSOLE_S)

    def _stopped(self) -> NoWorkerReady:
        return NoWorkerReady(
            f"{self.info.name} is stopped",
            state=str(State.STOPPED),
            reason="stopped",
            provider=PROVIDER,
            operation=f"vast.{ROUTE}",
            deployment=self.info.name,
            maybe_executed=False,
        )

    def _nobody(self) -> NoWorkerReady:
        return NoWorkerReady(
            f"no worker of {self.info.name} was ready in time: {self.status or 'Vast gives no reason'}",
            state=None,
            reason=self.status,
            provider=PROVIDER,
            operation=f"vast.{ROUTE}",
            deployment=self.info.name,
            maybe_executed=False,
            stop_reason="deadline",
        )

    def late(self, *, ran: bool = False) -> DeadlineExceeded:
        """*ran*: a worker had it; the connection was closed, which ends it there."""
        return DeadlineExceeded(
            f"the call of {self.info.name} did not end in time"
            + (": it was running, and was cancelled" if ran else f": {self.status or 'no worker took it'}"),
            provider=PROVIDER,
            operation="vast.job.call" if ran else f"vast.{ROUTE}",
            deployment=self.info.name,
            maybe_executed=ran,
            stop_reason="deadline",
        )


def _scheme(url: str) -> str | None:
    """``http`` or ``https`` where *url* is nothing but scheme, host and port; ``None``: it is something else."""
    if not url.isascii() or any(c <= " " or c in "\\\x7f" for c in url):
        return None
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        return None
    plain = parts.path in ("", "/") and not parts.query and not parts.fragment and "@" not in parts.netloc
    good = plain and parts.scheme in ("http", "https") and port != 0 and not url.endswith("#")
    return parts.scheme if good and _HOST.fullmatch(parts.hostname or "") else None


def envelope(route: Mapping[str, Any], payload: Mapping[str, Any], secrets: Sequence[str]) -> dict[str, Any]:
    """What a worker gets. Newer workers read more of the route than older ones, so all of it is passed on, but for
    what would be a key."""
    signed = {
        name: value
        for name, value in route.items()
        if "key" not in name.lower()
        and "token" not in name.lower()
        and not any(secret and secret in str(value) for secret in secrets)
    }
    return {"auth_data": {"request_idx": 0, **signed}, "session_id": None, "payload": payload}


def to_worker(
    way: Way, url: str, path: str, body: Mapping[str, Any], *, headers: tuple[tuple[str, str], ...] = ()
) -> Request:
    """The second hop: the worker's own TLS root, no key, no proxy, and never sent twice by itself."""
    return Request(
        method="POST",
        url=f"{url}{path}",
        operation="vast.job.call",
        headers=headers,
        json=body,
        role="worker",
        call=CallClass.USER_DECIDES,
        deadline=way.deadline,
        deployment=way.info.name,
        reroutes=True,
        foreign=True,
        trust=way.line.trust,
    )


def is_late(way: Way, exc: TransportError) -> bool:
    return exc.stop_reason == "deadline" or way.io.now() >= way.deadline


def wrong_call(way: Way, reply: Response, words: str) -> InvalidRequestError:
    return InvalidRequestError(
        f"a worker of {way.info.name} does not take the call: HTTP {reply.status}{': ' + words if words else ''}",
        status=reply.status,
        provider=PROVIDER,
        operation=reply.operation,
        deployment=way.info.name,
        maybe_executed=False,
        hint='The path is the one that the image\'s PyWorker has: provider_options={"vast": {"route": "/..."}}.'
        if reply.status in (404, 405)
        else None,
    )
