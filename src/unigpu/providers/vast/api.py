"""One request to Vast, and what its errors mean.

Two services: the console (``console.vast.ai/api``) manages, the engine (``run.vast.ai``) routes calls and knows the
workers. Both take the account's key in one header; the engine may want the endpoint's own instead. Errors: https://docs.vast.ai/api-reference/rate-limits-and-errors.
"""

from __future__ import annotations

import contextlib
import json as _json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from email.utils import parsedate_to_datetime
from typing import Any, Final

from pydantic import SecretStr

from unigpu.driver import (
    UNSET,
    CallClass,
    DeploymentInfo,
    Headers,
    Io,
    Limit,
    Request,
    Response,
    Role,
    Trust,
    check,
    mapping,
    rows,
    rows_in,
    shaped,
)
from unigpu.errors import (
    APIStatusError,
    AuthenticationError,
    DeploymentGone,
    InsufficientBalanceError,
    InvalidResponseError,
    NoCapacityError,
    NotFoundError,
    QuotaExceededError,
    UniGPUError,
)

from .wire import PROVIDER, EndpointWire, GroupWire, InstanceWire, TemplateWire, WorkerWire

READ_TIMEOUT: Final = 30.0
_MOST_PAGES: Final = 1000
_PAGE: Final = 25
_NAMES: Final = 40
_NO_HEADERS: Final = Headers()

# Least seconds between two calls of one route: ``x-rateLimit`` of the specification that Vast makes from its code
# (https://github.com/vast-ai/docs/pull/915, commit 4c1c657), else ``x-rate-limit`` of the documents. Vast calls them
# unpublished and movable; a 429 is waited for all the same.
LIMITS: Final[Mapping[str, Limit]] = {
    f"vast.{key}": Limit(rate=1 / seconds)
    for key, seconds in {
        "endpoint.create": 4.0, "endpoint.list": 3.0, "endpoint.get": 3.0, "endpoint.put": 2.0, "endpoint.delete": 3.0,
        "workergroup.create": 2.0, "workergroup.list": 2.0, "workergroup.put": 2.0, "workergroup.delete": 2.0,
        "template.create": 1.9, "template.search": 1.9, "template.put": 1.9, "template.delete": 1.9,
        "offers.search": 2.0, "instance.create": 4.5, "instance.get": 2.0, "instance.list": 1.0, "instance.put": 1.0,
        "instance.delete": 3.0, "volume.list": 2.0,
    }.items()
}  # fmt: skip

# Vast tells a key that it does not know by 404, too: docs, ``search_offers.yaml``; vastai 1.9.1, ``cli/main.py``.
_NO_KEY: Final = ("invalid user key", "session expired", "please log in", "invalid api_key", "authentication failed")
_NO_MONEY: Final = ("missing_billing", "insufficient credit", "insufficient_credit", "insufficient balance")
_ABSENT: Final = (
    "not found for user", "no_such_workergroup", "no_such_instance", "no_such_volume", "invalid autojob id",
    "not_found",
)  # fmt: skip
_NONE_OF_THEM: Final = ("no endpoints for user", "no workergroups for user", "no autojobs for user")


@dataclass(frozen=True, slots=True, kw_only=True)
class VastAPI:
    """Where Vast is, and who we are there. It keeps no connection: that is the `Io`'s."""

    console: str
    engine: str
    key: SecretStr | None = field(repr=False)
    trust: Trust
    http_workers: bool = False
    by_endpoint: bool = False
    own: dict[str, SecretStr] = field(default_factory=dict[str, SecretStr], repr=False)
    """Endpoint id → its own key, as the console last showed it."""
    asked_by_own: set[str] = field(default_factory=set[str], repr=False)
    """Endpoints whose engine refused the account's key and took their own."""

    @property
    def headers(self) -> tuple[tuple[str, str], ...]:
        return self.headers_of(self.key)

    def headers_of(self, key: SecretStr | None) -> tuple[tuple[str, str], ...]:
        """The key, put in here and nowhere else."""
        text = "" if key is None else key.get_secret_value()
        return (("authorization", f"Bearer {text}"), ("accept", "application/json"))

    @property
    def secrets(self) -> tuple[str, ...]:
        """What must be in no error and reach no worker."""
        return (self.secret, *(key.get_secret_value() for key in tuple(self.own.values())))

    @property
    def secret(self) -> str:
        return "" if self.key is None else self.key.get_secret_value()

    async def send(
        self,
        io: Io,
        method: str,
        path: str,
        operation: str,
        *,
        deadline: float,
        json: Any = UNSET,
        params: tuple[tuple[str, str], ...] = (),
        role: Role = "control",
        call: CallClass = CallClass.IDEMPOTENT,
        deployment: str | None = None,
        engine: bool = False,
        read_timeout: float = READ_TIMEOUT,
        key: SecretStr | None = None,
    ) -> Response:
        """A request, and its reply unless that is an error by its status. *key*: another than the account's."""
        request = Request(
            method=method,
            url=f"{self.engine if engine else self.console}{path}",
            operation=f"vast.{operation}",
            headers=self.headers_of(key or self.key),
            params=params,
            json=json,
            role=role,
            call=call,
            deadline=deadline,
            read_timeout=read_timeout,
            limit_key=f"vast.{operation}" if f"vast.{operation}" in LIMITS else None,
            deployment=deployment,
            status_of=_meant,
        )
        return self.checked(await io.send(request), deployment)

    async def done(self, io: Io, method: str, path: str, operation: str, **more: Any) -> Response:
        """A request whose reply says ``success: false`` where nothing was done, whatever its status.

        Raises:
            As `send`, by what the words mean.
        """
        reply = await self.send(io, method, path, operation, **more)
        if reply.content:
            body: object = reply.json()
            if mapping(body).get("success") is False:
                self.checked(replace(reply, status=400), more.get("deployment"))
        return reply

    def checked(self, response: Response, deployment: str | None) -> Response:
        if 200 <= response.status < 300:
            return response
        try:
            return check(response, PROVIDER, deployment=deployment, secrets=self.secrets)
        except UniGPUError as exc:
            raise meaning(exc, response) from None

    # -- lists, whole or an error ------------------------------------------------------------------------------------

    async def templates(self, io: Io, names: Sequence[str], *, deadline: float) -> Sequence[TemplateWire]:
        """Templates of these names. Vast searches everybody's public ones too, so there is always a filter."""
        found: list[TemplateWire] = []
        wanted = list(dict.fromkeys(names))
        for n in range(0, len(wanted), _NAMES):
            some = wanted[n : n + _NAMES]
            filters = {"name": {"eq": some[0]} if len(some) == 1 else {"in": some}}
            params = (("select_cols", '["*"]'), ("select_filters", _json.dumps(filters, separators=(",", ":"))))
            reply = await self._list(io, "/api/v0/template/", "template.search", deadline=deadline, params=params)
            rows = [
                shaped(TemplateWire, row, reply.operation)
                for row in rows_in(reply.json(), "templates", reply.operation)
            ]
            found += [one for one in rows if one.name in some]
        return found

    async def endpoints(self, io: Io, *, deadline: float) -> Sequence[EndpointWire]:
        reply = await self._list(io, "/api/v0/endptjobs/", "endpoint.list", deadline=deadline)
        listed = rows_in(reply.json(), "results", reply.operation)
        return [self.remember(one) for one in rows(EndpointWire, listed, reply.operation)]

    async def groups(self, io: Io, *, deadline: float) -> Sequence[GroupWire]:
        reply = await self._list(io, "/api/v0/workergroups/", "workergroup.list", deadline=deadline)
        return rows(GroupWire, rows_in(reply.json(), "results", reply.operation), reply.operation)

    async def instances(self, io: Io, *, deadline: float) -> Sequence[InstanceWire]:
        """All pages: a list that is half read would say that something does not exist."""
        found: list[InstanceWire] = []
        base = (("limit", str(_PAGE)), ("order_by", '[{"col":"id","dir":"asc"}]'))
        asked: tuple[tuple[str, str], ...] = base
        for _ in range(_MOST_PAGES):
            reply = await self._list(io, "/api/v1/instances/", "instance.list", deadline=deadline, params=asked)
            body: object = reply.json()
            found += rows(InstanceWire, rows_in(body, "instances", reply.operation), reply.operation)
            token: object = mapping(body).get("next_token")
            if not token:
                return found
            asked = (*base, ("after_token", str(token)))
        raise InvalidResponseError("vast.instance.list: the list does not end", provider=PROVIDER)

    async def _list(self, io: Io, path: str, operation: str, **more: Any) -> Response:
        try:
            return await self.done(io, "GET", path, operation, **more)
        except NotFoundError as exc:  # the route is gone; that says nothing of what exists
            raise InvalidResponseError(exc.message, provider=PROVIDER, operation=exc.operation) from exc
        except APIStatusError as exc:
            if exc.status == 400 and any(words in exc.message.lower() for words in _NONE_OF_THEM):
                empty = b'{"success":true,"results":[]}'
                return Response(status=200, headers=_NO_HEADERS, content=empty, operation=f"vast.{operation}")
            raise

    # -- the engine -------------------------------------------------------------------------------------------------

    def remember(self, wire: EndpointWire) -> EndpointWire:
        """An endpoint as the console shows it, with the key that its engine may want."""
        if wire.api_key is not None and wire.api_key.get_secret_value():
            self.own[str(wire.id)] = wire.api_key
        return wire

    async def ask(self, io: Io, path: str, operation: str, id: str, *, deadline: float, **more: Any) -> Response:
        """A question to the engine about an endpoint. Where it refuses the key, once more with the other one: the
        account's, or the endpoint's own, which changes now and then (vastai 1.9.1, ``serverless/client/endpoint.py``).
        """
        own = self.own.get(id) if self.by_endpoint or id in self.asked_by_own else None
        key, refusal = own or self.key, None
        try:
            reply = await self.send(io, "POST", path, operation, deadline=deadline, engine=True, key=key, **more)
            if not _is_about_a_key(said_no(reply)):
                return reply
        except AuthenticationError as exc:
            reply, refusal = None, exc
        other = await self._other_key(io, id, key, deadline=deadline)
        if other is None:
            if reply is None:
                raise refusal or AssertionError("refused, or answered")
            return reply
        reply = await self.send(io, "POST", path, operation, deadline=deadline, engine=True, key=other, **more)
        if not _is_about_a_key(said_no(reply)):
            (self.asked_by_own.discard if other is self.key else self.asked_by_own.add)(id)
        return reply

    async def _other_key(self, io: Io, id: str, used: SecretStr | None, *, deadline: float) -> SecretStr | None:
        """One that was not *used*: the endpoint's as it was shown, or as it is now; else the account's."""
        if id not in self.own or self.own[id] == used:
            with contextlib.suppress(UniGPUError):  # the refusal counts, and its caller asks whether it exists
                reply = await self.done(io, "GET", f"/api/v0/endptjobs/{id}/", "endpoint.get", deadline=deadline)
                self.remember(shaped(EndpointWire, mapping(reply.json()).get("result"), reply.operation))
        own = self.own.get(id)
        return own if own is not None and own != used else self.key if self.key != used else None

    async def workers(self, io: Io, id: str, *, deadline: float, group: bool = False) -> Sequence[WorkerWire]:
        """An endpoint's workers, or a workergroup's.

        The reply is a bare list, or ``{"workers": [...]}`` as the documents have it. An error comes with HTTP 200 as
        text or as ``error_msg``, also for an endpoint that the engine does not know yet: those are no workers.

        Raises:
            NotFoundError: the engine says that it does not know it.
            AuthenticationError: the key may not see it.
        """
        path = "/get_workergroup_workers/" if group else "/get_endpoint_workers/"
        body = {"id": int(id)}
        if group:
            reply = await self.send(io, "POST", path, "worker.list", json=body, deadline=deadline, engine=True)
        else:
            reply = await self.ask(io, path, "worker.list", id, json=body, deadline=deadline)
        refusal = said_no(reply)
        if refusal is None:
            return [
                shaped(WorkerWire, row, reply.operation) for row in rows_in(reply.json(), "workers", reply.operation)
            ]
        raise self.refused(reply, refusal, None)

    def refused(self, reply: Response, words: str, deployment: str | None) -> UniGPUError:
        """What the engine's "no" in an HTTP 200 means: it does not know the endpoint, or the key. It says both in one
        sentence, so who needs to know asks the console."""
        low = words.lower()
        kind: type[APIStatusError] = NotFoundError
        if "not found" not in low and any(text in low for text in _NO_KEY):
            kind = AuthenticationError
        return kind(
            f"{reply.operation}: {words[:300]}",
            status=reply.status,
            provider=PROVIDER,
            operation=reply.operation,
            deployment=deployment,
            maybe_executed=False,
        )


def said_no(reply: Response) -> str | None:
    """The engine's words where a 200 is an error: a JSON text, or an object with ``error_msg``."""
    body: object = reply.json()
    if isinstance(body, str):
        return body
    words = mapping(body).get("error_msg") or mapping(body).get("error")
    return str(words) if words else None


def _is_about_a_key(words: str | None) -> bool:
    return words is not None and any(text in words.lower() for text in _NO_KEY)


def meaning(exc: UniGPUError, response: Response) -> UniGPUError:
    """What Vast's words say beyond the status."""
    if not isinstance(exc, APIStatusError):
        return exc
    words = exc.message.lower()
    if exc.status == 429 and "search_quota_exceeded" in words:
        return _as(
            QuotaExceededError,
            exc,
            retry_after=_until_reset(response),
            hint="Vast's daily search quota is used up; it starts anew at midnight UTC.",
        )
    if exc.status in (400, 404) and any(text in words for text in _NO_KEY):
        return _as(AuthenticationError, exc, hint="Check the key: it is missing, wrong, or was revoked.")
    if exc.status in (400, 402, 403) and any(text in words for text in _NO_MONEY):
        return _as(InsufficientBalanceError, exc, hint="Add funds to the account.")
    if exc.status == 400 and any(text in words for text in _ABSENT):
        return _as(NotFoundError, exc)
    return exc


def no_capacity(exc: APIStatusError) -> bool:
    """Whether an offer was taken by somebody else: normal between a search and a rental."""
    return exc.status in (404, 410) or "no_such_ask" in exc.message or "offer_not_found" in exc.message


def _as(
    kind: type[APIStatusError], exc: APIStatusError, *, retry_after: float | None = None, hint: str | None = None
) -> APIStatusError:
    return kind(
        exc.message,
        status=exc.status,
        request_id=exc.request_id,
        body=exc.body,
        retry_after=retry_after or exc.retry_after,
        provider=PROVIDER,
        operation=exc.operation,
        deployment=exc.deployment,
        maybe_executed=exc.maybe_executed,
        attempts=exc.attempts,
        hint=hint or exc.hint,
    )


def _until_reset(response: Response) -> float | None:
    """``X-RateLimit-Reset`` is an epoch (vastai 1.9.1, ``api/client.py``); ``Date`` says what time it is there."""
    try:
        reset = float(response.headers["x-ratelimit-reset"])
        now = parsedate_to_datetime(response.headers["date"]).timestamp()
    except (KeyError, ValueError, TypeError):
        return None
    return max(0.0, reset - now)


def _meant(response: Response) -> int:
    """A used up daily quota comes as a 429, and is not worth a repetition: it ends at midnight."""
    if response.status == 429 and b"search_quota_exceeded" in response.content:
        return 402
    return response.status


def gone(info: DeploymentInfo, operation: str | None) -> DeploymentGone:
    return DeploymentGone(
        f"{info.name or info.provider_name} does not exist on Vast any more",
        status=404,
        provider=PROVIDER,
        operation=operation,
        deployment=info.name,
        maybe_executed=False,
        hint="Deploy it again.",
    )


def no_offer(name: str | None, tried: int, why: str) -> NoCapacityError:
    return NoCapacityError(
        f"Vast has no machine for {name} now: {tried} offers tried{why}.",
        provider=PROVIDER,
        operation="vast.instance.create",
        deployment=name,
        retryable=True,
        maybe_executed=False,
        hint="Accept more GPUs, a higher max_price, more regions, or a lower reliability in provider_options.",
    )
