"""Vast's two services, their limits, and what their errors mean.

The console (``console.vast.ai/api``) manages; the engine (``run.vast.ai``) routes calls and knows the workers. Both
take the account's key in one header; the engine may want the endpoint's own instead.
https://docs.vast.ai/api-reference/rate-limits-and-errors
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from email.utils import parsedate_to_datetime
from typing import Any, Final, Unpack, cast

from pydantic import SecretStr

from unigpu.driver import (
    API,
    DeploymentInfo,
    Io,
    Limit,
    Meaning,
    RequestOptions,
    Response,
    Tokens,
    Trust,
    items,
    mapping,
    rows,
    rows_in,
    shaped,
)
from unigpu.errors import (
    APIStatusError,
    AuthenticationError,
    InsufficientBalanceError,
    InvalidResponseError,
    NotFoundError,
    QuotaExceededError,
    UniGPUError,
)

from .wire import PROVIDER, EndpointWire, GroupWire, InstanceWire, TemplateWire, WorkerWire

_NAMES: Final = 40
_INSTANCES: Final = Tokens(
    "next_token", "after_token", first=(("limit", "25"), ("order_by", '[{"col":"id","dir":"asc"}]'))
)

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

# Vast answers a key that it does not know by 404, too: docs, ``search_offers.yaml``; vastai 1.9.1, ``cli/main.py``.
_NO_KEY: Final = ("invalid user key", "session expired", "please log in", "invalid api_key", "authentication failed")
_NO_MONEY: Final = ("missing_billing", "insufficient credit", "insufficient_credit", "insufficient balance")
_ABSENT: Final = (
    "not found for user", "no_such_workergroup", "no_such_instance", "no_such_volume", "invalid autojob id",
    "not_found",
)  # fmt: skip
_MEANINGS: Final = (
    Meaning(
        (429,),
        ("search_quota_exceeded",),
        QuotaExceededError,
        "Vast's daily search quota is used up; it starts anew at midnight UTC.",
    ),
    Meaning((400, 404), _NO_KEY, AuthenticationError, "Check the key: it is missing, wrong, or was revoked."),
    Meaning((400, 402, 403), _NO_MONEY, InsufficientBalanceError, "Add funds to the account."),
    Meaning((400,), _ABSENT, NotFoundError),
)
_SUCCESS_IGNORED: Final = frozenset(
    {
        "vast.template.create",
        "vast.job.route.get",
        "vast.worker.list",
        "vast.endpoint.logs.get",
        "vast.workergroup.roll",
    }
)
"""Operations whose ``success: false`` does not say that nothing was done: an identical template is given back with it,
and the engine has words of its own."""


@dataclass(frozen=True, kw_only=True)
class VastAPI(API):
    """The console and the engine, as one account.

    Attributes:
        engine: The engine's address; `base` is the console's.
        trust: By which root workers are known.
        http_workers: Whether workers are called without TLS.
        by_endpoint: Whether the engine is asked with the endpoint's own key from the start.
        own: Endpoint id → its own key, as the console last showed it.
        asked_by_own: Endpoints whose engine refused the account's key and took their own.
    """

    provider = PROVIDER
    limits = LIMITS
    meanings = _MEANINGS
    none_words = ("no endpoints for user", "no workergroups for user", "no autojobs for user")

    engine: str
    trust: Trust
    http_workers: bool = False
    by_endpoint: bool = False
    own: dict[str, SecretStr] = field(default_factory=dict[str, SecretStr], repr=False)
    asked_by_own: set[str] = field(default_factory=set[str], repr=False)

    @property
    def secrets(self) -> tuple[str, ...]:
        """What must be in no error and reach no worker."""
        return (*super().secrets, *(key.get_secret_value() for key in tuple(self.own.values())))

    def path_of(self, info: DeploymentInfo) -> str:
        return f"/api/v0/{'instances' if info.kind == 'pod' else 'endptjobs'}/{info.id}/"

    def status_of(self, response: Response) -> int:
        """A used up daily quota comes as a 429, and is not worth a repetition: it ends at midnight."""
        if response.status == 429 and b"search_quota_exceeded" in response.content:
            return 402
        return response.status

    def error_of(
        self, response: Response, *, deployment: str | None = None, hide: tuple[str, ...] = ()
    ) -> UniGPUError | None:
        """``success: false`` says that nothing was done, whatever the status."""
        if 200 <= response.status < 300 and response.content and response.operation not in _SUCCESS_IGNORED:
            body: object = response.json()
            if mapping(body).get("success") is False:
                response = replace(response, status=400)
        return super().error_of(response, deployment=deployment, hide=hide)

    def meaning(self, error: UniGPUError, response: Response) -> UniGPUError:
        found = super().meaning(error, response)
        if isinstance(found, QuotaExceededError):
            found.retry_after = _until_reset(response) or found.retry_after
        return found

    # -- what is there ------------------------------------------------------------------------------------------------

    async def templates(self, io: Io, names: Sequence[str], *, deadline: float) -> Sequence[TemplateWire]:
        """Templates of these names. Vast searches everybody's public ones too, so there is always a filter."""
        found: list[TemplateWire] = []
        wanted = list(dict.fromkeys(names))
        for n in range(0, len(wanted), _NAMES):
            some = wanted[n : n + _NAMES]
            filters = {"name": {"eq": some[0]} if len(some) == 1 else {"in": some}}
            params = (("select_cols", '["*"]'), ("select_filters", json.dumps(filters, separators=(",", ":"))))
            listed = await self.listed(
                io, TemplateWire, "/api/v0/template/", "template.search", under="templates", params=params,
                deadline=deadline,
            )  # fmt: skip
            found += [one for one in listed if one.name in some]
        return found

    async def endpoints(self, io: Io, *, deadline: float) -> Sequence[EndpointWire]:
        listed = await self.listed(
            io, EndpointWire, "/api/v0/endptjobs/", "endpoint.list", under="results", deadline=deadline
        )
        return [self.remember(one) for one in listed]

    async def endpoint(self, io: Io, id: str, *, deadline: float) -> EndpointWire | None:
        """An endpoint by its id; ``None``: Vast says that there is none."""
        if not id.isdecimal():  # a plan's, of what is not made yet: Vast would call the request wrong
            return None
        reply = await self.optional(io, f"/api/v0/endptjobs/{id}/", "endpoint.get", deadline=deadline)
        if reply is None:
            return None
        body: object = reply.json()
        # A `null` is no "not found": it is an error, like any other shape.
        return self.remember(shaped(EndpointWire, mapping(body).get("result", body), reply.operation))

    async def groups(self, io: Io, *, deadline: float) -> Sequence[GroupWire]:
        path = "/api/v0/workergroups/"
        return await self.listed(io, GroupWire, path, "workergroup.list", under="results", deadline=deadline)

    async def instances(self, io: Io, *, deadline: float) -> Sequence[InstanceWire]:
        return await self.listed(
            io, InstanceWire, "/api/v1/instances/", "instance.list", under="instances", pages=_INSTANCES,
            deadline=deadline,
        )  # fmt: skip

    async def instance(self, io: Io, id: str, *, deadline: float) -> InstanceWire | None:
        """An instance by its id. One that was destroyed reads as ``{"instances": null}``, or as 404."""
        if not id.isdecimal():  # a plan's, of what is not made yet: Vast would call the request wrong
            return None
        path = f"/api/v0/instances/{id}/"
        reply = await self.optional(io, path, "instance.get", params=(("owner", "me"),), deadline=deadline)
        if reply is None:
            return None
        body: object = reply.json()
        if "instances" not in mapping(body):
            raise InvalidResponseError(
                f"{reply.operation}: Vast's reply has no instance", provider=PROVIDER, operation=reply.operation
            )
        row: object = mapping(body)["instances"]
        if isinstance(row, list):
            row = next(iter(items(cast("object", row))), None)
        return None if row is None else shaped(InstanceWire, row, reply.operation)

    # -- the engine ---------------------------------------------------------------------------------------------------

    def remember(self, wire: EndpointWire) -> EndpointWire:
        """An endpoint as the console shows it, with the key that its engine may want."""
        if wire.api_key is not None and wire.api_key.get_secret_value():
            self.own[str(wire.id)] = wire.api_key
        return wire

    async def ask(
        self, io: Io, path: str, operation: str, id: str, *, deadline: float, **options: Unpack[RequestOptions]
    ) -> Response:
        """A question to the engine about an endpoint. Where it refuses the key, once more with the other one: the
        account's, or the endpoint's own, which changes now and then (vastai 1.9.1, ``serverless/client/endpoint.py``).
        """
        own = self.own.get(id) if self.by_endpoint or id in self.asked_by_own else None
        key, refusal = own or self.key, None
        options |= {"base": self.engine, "key": key}
        try:
            reply = await self.send(io, "POST", path, operation, deadline=deadline, **options)
            if not _is_about_a_key(said_no(reply)):
                return reply
        except AuthenticationError as exc:
            reply, refusal = None, exc
        other = await self._other_key(io, id, key, deadline=deadline)
        if other is None:
            if reply is None:
                raise refusal or AssertionError("refused, or answered")
            return reply
        options["key"] = other
        reply = await self.send(io, "POST", path, operation, deadline=deadline, **options)
        if not _is_about_a_key(said_no(reply)):
            (self.asked_by_own.discard if other is self.key else self.asked_by_own.add)(id)
        return reply

    async def _other_key(self, io: Io, id: str, used: SecretStr | None, *, deadline: float) -> SecretStr | None:
        """One that was not *used*: the endpoint's as it was shown, or as it is now; else the account's."""
        if id not in self.own or self.own[id] == used:
            with contextlib.suppress(UniGPUError):  # the refusal counts, and its caller asks whether it exists
                await self.endpoint(io, id, deadline=deadline)
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
        body = {"id": int(id)}
        if group:
            reply = await self.send(
                io, "POST", "/get_workergroup_workers/", "worker.list", json=body, base=self.engine, deadline=deadline
            )
        else:
            reply = await self.ask(io, "/get_endpoint_workers/", "worker.list", id, json=body, deadline=deadline)
        refusal = said_no(reply)
        if refusal is not None:
            raise self.refused(reply, refusal, None)
        found: list[Any] | Mapping[str, Any] = reply.json()
        under = None if isinstance(found, list) else "workers"
        return rows(WorkerWire, rows_in(found, under, reply.operation), reply.operation)

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
    words: Any = mapping(body).get("error_msg") or mapping(body).get("error")
    return str(words) if words else None


def _is_about_a_key(words: str | None) -> bool:
    return words is not None and any(text in words.lower() for text in _NO_KEY)


def _until_reset(response: Response) -> float | None:
    """``X-RateLimit-Reset`` is an epoch (vastai 1.9.1, ``api/client.py``); ``Date`` says what time it is there."""
    try:
        reset = float(response.headers["x-ratelimit-reset"])
        now = parsedate_to_datetime(response.headers["date"]).timestamp()
    except (KeyError, ValueError, TypeError):
        return None
    return max(0.0, reset - now)
