"""What a provider can do, per interface and kind: typed flags, each carrying its fact."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import Annotated, Any, Final, Literal

from pydantic import Field, StrictBool

from ..errors import ConfigurationError, UnsupportedError
from ..models import InputModel, Interface, Kind, nearest
from .fact import UNKNOWN, Fact, ReadsText, Unknown, read_facts, select

YesNo = StrictBool | Unknown
Number = Annotated[float, Field(strict=True, ge=0, allow_inf_nan=False)]
Count = Annotated[int, Field(strict=True, ge=0)]
Words = Annotated[str, Field(min_length=1)]
Limit = Number | Literal["unlimited", "unknown"]
Signals = tuple[Literal["queue_delay", "requests", "load"], ...]
Billed = Literal["nothing", "storage", "full", "unknown"]

_ABOUT: Final = frozenset({"provider", "interface", "kind"})
# Values that mean "no" in the boolean view.
_NO: Final = frozenset({"none", "nothing", "nobody", "unknown"})


class Capabilities(InputModel):
    """What one provider can do for one kind of deployment. Printing it shows a table.

    Each attribute but the first three is a `Fact`: ``caps.cancel.value``, ``caps.cancel.source``.
    ``supports("cancel")`` is the same as yes or no. A flag that the driver's facts leave out has the value
    ``"unknown"``, the status ``"unknown"`` and no source.
    """

    provider: str
    interface: Interface
    kind: Kind

    # Which verbs there are.
    invoke: Annotated[Fact[YesNo], Field(description="JSON in, JSON out, through a handler")] = UNKNOWN
    submit: Annotated[Fact[YesNo], Field(description="a job with an id that outlives the call")] = UNKNOWN
    cancel: Annotated[
        Fact[Literal["none", "queued", "running", "disconnect", "unknown"]],
        Field(description="what can be cancelled: queued jobs, running ones too, or by closing the connection"),
    ] = UNKNOWN
    streaming: Annotated[
        Fact[Literal["none", "poll", "cursor", "native", "unknown"]],
        Field(description="how stream() gets chunks: drained by polling, by a cursor, or as the worker sends them"),
    ] = UNKNOWN
    request: Annotated[Fact[YesNo], Field(description="plain HTTP requests to the worker's own server")] = UNKNOWN
    streamed_replies: Annotated[
        Fact[YesNo], Field(description="the reply to a request arrives piece by piece, as it is sent")
    ] = UNKNOWN
    websocket: Annotated[Fact[YesNo], Field(description="WebSocket connections to the worker")] = UNKNOWN
    scale: Annotated[Fact[YesNo], Field(description="limits can be changed while it runs")] = UNKNOWN
    update: Annotated[
        Fact[Literal["in_place", "recreate", "unknown"]],
        Field(description="a changed spec: in place, or torn down and made anew"),
    ] = UNKNOWN
    wake: Annotated[Fact[YesNo], Field(description="one worker can be started without a call")] = UNKNOWN
    stop: Annotated[Fact[YesNo], Field(description="it can be paused, and started again")] = UNKNOWN
    logs: Annotated[Fact[YesNo], Field(description="the workers' logs can be read")] = UNKNOWN

    # The elasticity model.
    elasticity_model: Annotated[
        Fact[Literal["autoscaled", "declared", "fixed", "unknown"]],
        Field(description="who adds workers: an autoscaler, the number you declare, or nobody"),
    ] = UNKNOWN
    autoscaling_signals: Annotated[
        Fact[Signals | Unknown], Field(description="what makes the autoscaler add a worker")
    ] = UNKNOWN
    min_workers: Annotated[
        Fact[Count | Unknown], Field(description="the smallest least number of workers that can be asked for")
    ] = UNKNOWN
    max_workers: Annotated[
        Fact[Count | Literal["unlimited", "unknown"]],
        Field(description="the largest most number of workers that can be asked for"),
    ] = UNKNOWN
    scale_to_zero: Annotated[
        Fact[Literal["automatic", "manual", "none", "unknown"]],
        Field(description="whether the last worker ends when there is no work"),
    ] = UNKNOWN
    wakes_on_request: Annotated[
        Fact[YesNo], Field(description="a call at zero workers starts one, and waits for it")
    ] = UNKNOWN
    exact_replicas: Annotated[Fact[YesNo], Field(description="workers=3 holds exactly three")] = UNKNOWN
    idle_timeout: Annotated[Fact[YesNo], Field(description="idle_timeout has an effect")] = UNKNOWN
    concurrency: Annotated[
        Fact[Literal["platform", "worker", "none", "unknown"]],
        Field(description="who holds a worker to its number of calls at a time"),
    ] = UNKNOWN

    # Cold starts.
    cold_start: Annotated[
        Fact[tuple[Number, Number] | Unknown], Field(description="from no worker to the first work: low and high end")
    ] = UNKNOWN

    # The smallest thing billed.
    bills: Annotated[Fact[YesNo], Field(description="it costs money at all")] = UNKNOWN
    billing_unit: Annotated[
        Fact[Number | Literal["nothing", "unknown"]], Field(description="the smallest time that is billed")
    ] = UNKNOWN
    bills_loading: Annotated[Fact[Billed], Field(description="what is billed while a worker starts")] = UNKNOWN
    bills_idle: Annotated[Fact[Billed], Field(description="what is billed while a worker is ready and has no work")] = (
        UNKNOWN
    )
    bills_stopped: Annotated[Fact[Billed], Field(description="what is billed while it is stopped or has no worker")] = (
        UNKNOWN
    )
    billed_from: Annotated[Fact[Words], Field(description="the platform's word for the state from which it bills")] = (
        UNKNOWN
    )
    storage_billing: Annotated[Fact[Words], Field(description="how storage is billed")] = UNKNOWN
    bandwidth_billing: Annotated[Fact[Words], Field(description="how traffic is billed")] = UNKNOWN
    max_price: Annotated[
        Fact[Literal["met", "search", "catalogue", "after_create", "none", "unknown"]],
        Field(
            description="where a price cap is held: it is free, in the search, by the catalogue, after create, nowhere"
        ),
    ] = UNKNOWN
    max_price_required: Annotated[Fact[YesNo], Field(description="prices are open, so a cap must be given")] = UNKNOWN

    # Whose machines they are.
    inventory: Annotated[
        Fact[Literal["this_machine", "own", "partners", "marketplace", "pooled_clouds", "unknown"]],
        Field(description="whose machines they are"),
    ] = UNKNOWN
    preemption: Annotated[
        Fact[Literal["none", "notice", "without_notice", "unknown"]],
        Field(description="whether a worker may be taken away"),
    ] = UNKNOWN
    host_trust: Annotated[
        Fact[Literal["you", "provider", "host", "unknown"]],
        Field(description="who can read a worker's disk and environment: only you, the provider, or a stranger's host"),
    ] = UNKNOWN
    public_endpoint: Annotated[
        Fact[YesNo], Field(description="the worker's port is open to the internet, without a key")
    ] = UNKNOWN
    regions: Annotated[
        Fact[Literal["met", "countries", "own_ids", "none", "unknown"]],
        Field(description="how a place can be asked for: it is here, by country, by the platform's ids, not at all"),
    ] = UNKNOWN

    # What runs there.
    images: Annotated[
        Fact[Literal["required", "ignored", "unknown"]], Field(description="whether it runs container images")
    ] = UNKNOWN
    foreign_images: Annotated[Fact[YesNo], Field(description="an image without unigpu's worker can serve")] = UNKNOWN
    gpu: Annotated[
        Fact[Literal["required", "ignored", "unknown"]], Field(description="whether the acceptable GPUs must be said")
    ] = UNKNOWN
    gpu_order: Annotated[Fact[YesNo], Field(description="the order of the acceptable GPUs is kept")] = UNKNOWN
    volumes: Annotated[
        Fact[Literal["shared", "worker_disk", "none", "unknown"]],
        Field(description="disks that outlive workers: shared by all, one machine's own, or none"),
    ] = UNKNOWN
    secret_store: Annotated[
        Fact[YesNo], Field(description="secrets can be stored on the platform, and referred to")
    ] = UNKNOWN
    worker_exit: Annotated[
        Fact[Literal["ends_billing", "replaced", "unknown"]],
        Field(description="what happens when a worker's process ends by itself"),
    ] = UNKNOWN
    ttl_enforced_by: Annotated[
        Fact[Literal["platform", "worker", "client", "nobody", "unknown"]],
        Field(description="who ends a deployment at its ttl"),
    ] = UNKNOWN
    execution_timeout: Annotated[
        Fact[Literal["platform", "worker", "none", "unknown"]],
        Field(description="who ends a call at its execution timeout"),
    ] = UNKNOWN
    max_execution_timeout: Annotated[Fact[Limit], Field(description="the longest execution timeout")] = UNKNOWN

    # Calls, queues and results.
    empty_input: Annotated[Fact[YesNo], Field(description="{} is taken as an input")] = UNKNOWN
    max_payload: Annotated[Fact[Limit], Field(description="the largest input")] = UNKNOWN
    max_request_time: Annotated[Fact[Limit], Field(description="the longest that one HTTP exchange may take")] = UNKNOWN
    rate_limits: Annotated[Fact[Words], Field(description="how many calls are taken in what time")] = UNKNOWN
    queue_durability: Annotated[
        Fact[Literal["none", "memory", "durable", "unknown"]],
        Field(description="what becomes of queued calls when the queue's host fails"),
    ] = UNKNOWN
    job_persistence: Annotated[
        Fact[Literal["none", "memory", "durable", "unknown"]],
        Field(description="what becomes of results when their host fails"),
    ] = UNKNOWN
    result_retention: Annotated[Fact[Limit], Field(description="how long a result is kept")] = UNKNOWN
    delivery: Annotated[
        Fact[Literal["at_most_once", "at_least_once", "unknown"]],
        Field(description="how often a handler may run for one call"),
    ] = UNKNOWN
    webhooks: Annotated[Fact[YesNo], Field(description="the platform calls an address when a job ends")] = UNKNOWN
    sessions: Annotated[Fact[YesNo], Field(description="calls can be held to one worker")] = UNKNOWN
    sla: Annotated[Fact[Words], Field(description="what availability is promised")] = UNKNOWN

    def fact(self, flag: str) -> Fact[Any]:
        """The fact behind a flag.

        Raises:
            ConfigurationError: there is no such flag; names the nearest.
        """
        if flag not in FLAGS:
            near = nearest(flag, FLAGS)
            raise ConfigurationError(
                f"capabilities: there is no flag {flag!r}" + (f"; did you mean {near!r}?" if near else "."),
                provider=self.provider,
            )
        found: Fact[Any] = getattr(self, flag)
        return found

    def supports(self, flag: str) -> bool:
        """Yes or no. ``False``, zero, an empty list, ``none``, ``nothing``, ``nobody`` and ``unknown`` are no."""
        value = self.fact(flag).value
        return value not in _NO if isinstance(value, str) else bool(value)

    def facts(self) -> Iterator[tuple[str, Fact[Any]]]:
        """Every flag with its fact, in the order of the table."""
        return ((flag, self.fact(flag)) for flag in FLAGS)

    def __str__(self) -> str:
        rows = [(flag, fact.shown, fact.status, fact.note or FLAGS[flag]) for flag, fact in self.facts()]
        wide = [max(len(row[i]) for row in rows) for i in range(3)]
        head = f"{self.provider}: {self.interface}, {self.kind}"
        lines = ["  ".join((*(cell.ljust(w) for cell, w in zip(row, wide, strict=False)), row[3])) for row in rows]
        return "\n".join((head, *lines))

    __repr__ = __str__


FLAGS: Final[Mapping[str, str]] = {
    name: field.description or "" for name, field in Capabilities.model_fields.items() if name not in _ABOUT
}
"""Every flag, with what it says."""


def load(
    provider: str,
    *,
    interface: Interface = "function",
    kind: Kind = "serverless",
    facts: Mapping[str, Any] | ReadsText | None = None,
) -> Capabilities:
    """The capabilities of one provider, for one interface and kind of deployment.

    Args:
        facts: What a driver outside this package brings (its attribute ``facts``); ``None``: our own file.

    Raises:
        ConfigurationError: the facts have a flag, a table or a value that cannot be.
        UnsupportedError: the provider has no such deployments.
    """
    if facts is None:
        return _own(provider, interface, kind)
    return _checked(provider, read_facts(provider, facts), interface, kind)


@lru_cache(maxsize=64)
def _own(provider: str, interface: Interface, kind: Kind) -> Capabilities:
    return _checked(provider, read_facts(provider, None), interface, kind)


def _checked(provider: str, whole: Mapping[str, Any], interface: Interface, kind: Kind) -> Capabilities:
    flags = select(provider, whole, interface, kind)
    reserved = sorted(_ABOUT.intersection(flags))
    if reserved:
        raise ConfigurationError(f"facts of {provider}: {reserved[0]} is no flag.", provider=provider)
    try:
        return Capabilities.model_validate({"provider": provider, "interface": interface, "kind": kind, **flags})
    except ConfigurationError as exc:
        raise ConfigurationError(
            f"facts of {provider} ({interface}, {kind}): {exc.message}", provider=provider
        ) from None


def refuse(caps: Capabilities, flag: str, *, doing: str, instead: str | None = None) -> UnsupportedError:
    """The error for something that *flag* says cannot be done.

    Args:
        doing: What was asked, as in ``"stream"`` or ``"scaling a pod"``: the beginning of a sentence.
        instead: What to do instead, as a sentence; ``None``: what is known for this flag.
    """
    fact = caps.fact(flag)
    because = f": {fact.note}" if fact.note else ""
    return UnsupportedError(
        f"{doing} is not possible on {caps.provider} ({caps.interface}, {caps.kind}){because.rstrip('.')}.",
        capability=flag,
        fact=f"{flag} = {fact}",
        source=fact.source,
        provider=caps.provider,
        hint=f"{instead or _instead(caps, flag)} [{flag} = {fact}, {fact.source}]".strip(),
    )


def require(caps: Capabilities, flag: str, *, doing: str, instead: str | None = None) -> None:
    """Pass, or refuse. What is unknown passes: whether the driver has the verb shows when it is called.

    Raises:
        UnsupportedError: *flag* is not so.
    """
    if caps.fact(flag).value != "unknown" and not caps.supports(flag):
        raise refuse(caps, flag, doing=doing, instead=instead)


VERBS: Final[Mapping[str, str]] = {
    "invoke": "invoke", "map": "invoke", "submit": "submit", "stream": "streaming", "cancel": "cancel",
    "request": "request", "openai": "request", "scale": "scale", "wake": "wake", "stop": "stop", "start": "stop",
    "logs": "logs",
}  # fmt: skip
"""The flag that each verb of the client stands on."""

_HTTP: Final = "it is an http deployment."


def _instead(caps: Capabilities, flag: str) -> str:
    """What is known of a platform beside the flags: a way that there is, for each verb that is refused."""
    http = caps.interface == "http"
    match flag:
        case "invoke" | "submit" if http:
            return f"Use request() or openai(): {_HTTP}"
        case "streaming" if http:
            return f"Use request(..., stream=True): {_HTTP}"
        case "request":
            more = [f"{verb}()" for verb in ("submit", "stream") if caps.supports(VERBS[verb])]
            return f"Use {', '.join(['invoke()', *more])} or map(): it is a function deployment."
        case "submit":
            return "Use invoke(), which waits for the answer."
        case "streaming":
            return "Use invoke(), which returns the whole."
        case "cancel":
            return "It runs to its end, or to its execution_timeout; teardown() ends its workers, and it too."
        case "stop":
            return "Use teardown(), and deploy() again."
        case "wake":
            return f"It always has its workers, or a {'request' if http else 'call'} wakes it."
        case "scale" if caps.kind == "pod":
            return 'A pod is exactly one worker; deploy more of them, or use kind="serverless".'
        case "logs":
            return "Use explain() for what the platform tells of its workers; their logs are in its console."
        case _:
            return ""
