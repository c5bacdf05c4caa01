"""A call in two hops: ``/route/`` names a worker and signs for it, then the worker itself is asked.

The caller itself waits: Vast keeps no queue that would hold an answer for a caller that left. Rules:

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
from typing import Any, Final, TypeVar, cast
from urllib.parse import urlsplit

from unigpu.driver import (
    CallClass,
    DeploymentInfo,
    Io,
    Request,
    Response,
    State,
    StreamResponse,
    WorkerCall,
    WorkerState,
    gone,
    is_own,
    mapping,
    shaped,
)
from unigpu.errors import (
    APIStatusError,
    DeadlineExceeded,
    InvalidResponseError,
    NotFoundError,
    NoWorkerReady,
    TransportError,
    UniGPUError,
    WorkerFailed,
)

from . import translate
from .api import VastAPI, said_no
from .bodies import COST
from .wire import PROVIDER, RouteWire

ROUTE: Final = "job.route.get"
CALL: Final = "vast.job.call"
ROUTE_S: Final = 10.0
"""Seconds for one answer of ``/route/``."""
REPLAY_S: Final = 60.0
"""``replay_timeout``: what Vast's own client sends."""
_FIRST_S: Final = 1.0
_LONGEST_S: Final = 5.0
_SAME: Final = 2
"""So often one address may be unreachable before a new request is asked for."""
_UNSIGNED: Final = 3
_CHECK_S: Final = 20.0
_FAILED: Final = 3
_CONSOLE_S: Final = 5.0
_HOST: Final = re.compile(r"[A-Za-z0-9._:-]+")


E = TypeVar("E", bound=UniGPUError)


@dataclass(slots=True)
class Route:
    """One call on its way to a worker. Made for one call, and used by it alone."""

    api: VastAPI
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
    checked_at: float | None = None
    is_ready: bool = False

    @property
    def worker(self) -> WorkerCall:
        """What a worker's answer means."""
        return WorkerCall(info=self.info, operation=CALL, own=is_own(self.info))

    async def next(self) -> tuple[str, Mapping[str, Any]]:
        """A worker's address and the signed route; waits until there is one.

        Raises:
            NoWorkerReady: no worker was ready by ``start_deadline``; or the deployment is stopped.
            DeadlineExceeded: all were busy until the deadline.
            DeploymentGone, AuthenticationError, ...: as the engine says.
            WorkerFailed: workers cannot start.
        """
        if self.checked_at is None:
            self.checked_at = self.io.now()
        while True:
            reply, body = await self.ask()
            route = shaped(RouteWire, body, reply.operation)
            self.idx = route.request_idx if route.request_idx is not None else self.idx
            if route.url:
                return self._address(route.url), body
            self.status = route.status or self.status
            await self._check_workers()
            await self.pause()

    async def pause(self) -> None:
        """Before the next question: 1 s, longer each time, 5 s at most; never past a deadline.

        Raises:
            NoWorkerReady, DeadlineExceeded: there is no time for another one.
        """
        seconds = min(_LONGEST_S, _FIRST_S * 1.5**self.waits) * (0.8 + 0.4 * self.io.random())
        self.waits += 1
        now = self.io.now()
        if not self.is_ready and now >= self.start_deadline:
            await self._check_workers(at_last=True)  # they may all be busy: that is another wait
            if not self.is_ready:
                raise self._no_worker()
        if now >= self.deadline:
            raise self.late()
        left = (self.deadline if self.is_ready else min(self.deadline, self.start_deadline)) - now
        await self.io.sleep(min(seconds, max(0.0, left)))

    async def open(
        self,
        stack: contextlib.AsyncExitStack,
        path: str,
        payload: Mapping[str, Any],
        *,
        idempotent: bool,
        headers: tuple[tuple[str, str], ...] = (),
    ) -> StreamResponse:
        """The reply of the first worker that has one, while its body is still on its way. Leaving *stack* closes it.

        Raises:
            As `next` and `unreached`.
        """
        while True:
            url, signed = await self.next()
            try:
                return await stack.enter_async_context(
                    self.io.stream(self.request(url, path, signed, payload, headers=headers))
                )
            except TransportError as exc:
                await self.unreached(url, exc, idempotent=idempotent)

    def request(
        self,
        url: str,
        path: str,
        signed: Mapping[str, Any],
        payload: Mapping[str, Any],
        *,
        headers: tuple[tuple[str, str], ...] = (),
    ) -> Request:
        """The second hop: the worker's own TLS root, no key, no proxy, and never sent twice by itself."""
        return Request(
            method="POST",
            url=f"{url}{path}",
            operation=CALL,
            headers=headers,
            json=envelope(signed, payload, self.api.secrets),
            role="worker",
            call=CallClass.USER_DECIDES,
            deadline=self.deadline,
            deployment=self.info.name,
            reroutes=True,
            foreign=True,
            trust=self.api.trust,
        )

    async def unreached(self, url: str, exc: TransportError, *, idempotent: bool) -> None:
        """A worker gave no answer. Where nothing was sent to it: pause, and ask again; after two misses at one address
        as a new request.

        Raises:
            DeadlineExceeded: at the deadline.
            WorkerLost: a worker had it, and the call may run twice: its caller sends it again.
            TransportError: a worker had it; or its address will never do.
        """
        if self.is_late(exc):
            raise self.late(ran=not exc.never_sent) from exc
        if not exc.never_sent:
            if not idempotent:
                raise exc
            raise self.worker.lost(exc.message) from exc
        self.missed = self.missed + 1 if self.unreachable == url else 1
        self.unreachable, self.status = url, f"a worker could not be reached ({exc.message})"
        if not exc.retryable:
            raise exc  # its certificate, or its address, was refused: the same would come again
        if self.missed >= _SAME:
            self.idx, self.missed = 0, 0
        await self._check_workers()
        await self.pause()

    def is_late(self, exc: TransportError) -> bool:
        return exc.stop_reason == "deadline" or self.io.now() >= self.deadline

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
            text = f"workers of {self.info.name} refuse Vast's signature (HTTP {reply.status})"
            raise self._failure(InvalidResponseError, text, operation=reply.operation)
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
            reply = await self.api.ask(
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
            error = self.api.refused(reply, refusal, self.info.name)
            await self._must_exist(error)
            raise error
        if not isinstance(body, Mapping):
            text = f"{reply.operation}: Vast's reply is neither a worker nor a status"
            raise self._failure(InvalidResponseError, text)
        return reply, mapping(cast("object", body))

    async def _must_exist(self, exc: UniGPUError, *, seconds: float = math.inf) -> None:
        """The engine says in one sentence that the key is wrong or the endpoint unknown; the console says which.

        Raises:
            DeploymentGone: there is no such endpoint.
            NoWorkerReady: it is stopped.
        """
        until = min(self.deadline, self.io.now() + seconds)
        wire = await self.api.endpoint(self.io, self.info.id, deadline=until)
        if wire is None:
            raise gone(self.info, operation=exc.operation) from exc
        if wire.endpoint_state == "stopped":
            raise self._stopped() from exc

    def _address(self, url: str) -> str:
        """The worker's address as the engine gave it; what it may resolve to is the connection's own rule.

        Raises:
            InvalidResponseError: it is not one, or plain http where that was not allowed.
        """
        scheme = _scheme(url)
        if scheme is None:
            text = f"{self.info.name}: the engine named a worker by something that is no address; it was not called"
            raise self._failure(InvalidResponseError, text)
        if scheme == "http" and not self.api.http_workers:
            raise self._failure(
                InvalidResponseError,
                f"{self.info.name}: the engine named a worker that is called without TLS; it was not called",
                hint='To call such workers all the same: driver_options={"vast": {"http_workers": True}}.',
            )
        return url.rstrip("/")

    # -- is anything coming? ------------------------------------------------------------------------------------------

    async def _check_workers(self, *, at_last: bool = False) -> None:
        """Now and then: are workers ready and busy, do they fail, or is the endpoint stopped?

        Raises:
            WorkerFailed: so many failed, and none is ready.
            NoWorkerReady: it is stopped.
        """
        now = self.io.now()
        soon = self.checked_at is not None and now - self.checked_at < _CHECK_S * (0.8 + 0.4 * self.io.random())
        if soon and not at_last:
            return
        self.checked_at = now
        try:
            workers = await self.api.workers(self.io, self.info.id, deadline=self.deadline)
        except NotFoundError:
            workers = ()
        except (TransportError, APIStatusError, InvalidResponseError):
            return  # the call's own questions decide whether the engine can be reached
        states = [translate.worker_state(one) for one in workers]
        self.is_ready = any(one.is_ready for one in states)
        failed = [one for one, state in zip(workers, states, strict=True) if state is WorkerState.FAILED]
        if self.is_ready:
            return
        if len(failed) >= _FAILED:
            said = next((one.error_msg for one in failed if one.error_msg), None) or "Vast gives no reason"
            text = f"{len(failed)} workers of {self.info.name} failed, and none is ready: {said}"
            raise self._failure(WorkerFailed, text, operation=None)
        if not at_last and all(state is WorkerState.STOPPED for state in states):
            # Many calls wait, and the console has a rate limit: where it does not answer now, a later check asks again.
            with contextlib.suppress(TransportError):
                await self._must_exist(self._no_worker(), seconds=_CONSOLE_S)

    # -- errors -------------------------------------------------------------------------------------------------------

    def _stopped(self) -> NoWorkerReady:
        return self._failure(NoWorkerReady, f"{self.info.name} is stopped", state=str(State.STOPPED), reason="stopped")

    def _no_worker(self) -> NoWorkerReady:
        text = f"no worker of {self.info.name} was ready in time: {self.status or 'Vast gives no reason'}"
        return self._failure(NoWorkerReady, text, state=None, reason=self.status, stop_reason="deadline")

    def late(self, *, ran: bool = False) -> DeadlineExceeded:
        """*ran*: a worker had it; the connection was closed, which ends it there."""
        why = "it was running, and was cancelled" if ran else self.status or "no worker took it"
        return self._failure(
            DeadlineExceeded,
            f"the call of {self.info.name} did not end in time: {why}",
            operation=CALL if ran else f"vast.{ROUTE}",
            maybe_executed=ran,
            stop_reason="deadline",
        )

    def _failure(
        self,
        kind: type[E],
        text: str,
        *,
        operation: str | None = f"vast.{ROUTE}",
        maybe_executed: bool = False,
        **more: Any,
    ) -> E:
        return kind(
            text,
            provider=PROVIDER,
            operation=operation,
            deployment=self.info.name,
            maybe_executed=maybe_executed,
            **more,
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
