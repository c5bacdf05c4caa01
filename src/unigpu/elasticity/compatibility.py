"""What of a spec a platform cannot meet, judged by its flags alone. Pure; the client's gate raises or adapts.

A *demand* is a field that was stated. One that a platform cannot meet is refused, with the nearest thing where there is
one. Some things must be said first, because no default is safe: those are `Unmet.must_say`, and adapting never
answers them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol, cast

from ..errors import ConfigurationError, UniGPUError, UnsupportedError
from ..models import Adaptation, DeploymentSpec, InputModel, SecretRef, TtlEnforcer
from ..models._text import seconds, worker_range_text
from .capabilities import FLAGS, Capabilities

_TIMES: Final = frozenset({"idle_timeout", "execution_timeout", "ttl"})


class AnyRefusal(Protocol):
    """What `Unmet` here and `unigpu.driver.Refusal` have in common."""

    @property
    def field(self) -> str: ...
    @property
    def capability(self) -> str: ...
    @property
    def message(self) -> str: ...
    @property
    def nearest(self) -> Mapping[str, Any] | None: ...
    @property
    def got(self) -> str: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Unmet:
    """A demand that the platform cannot meet, or something that must be said first.

    Attributes:
        field: The spec field.
        capability: The flag that says so.
        message: What cannot be done, and what to do instead.
        nearest: Spec fields that are the nearest thing; ``None``: there is none. A value that is the field's default
            means: as if it had not been stated.
        got: What ``nearest`` means, in words.
        must_say: The user must say it before something is created: a `ConfigurationError`, whatever
            ``on_unsupported`` is. To reuse what exists, nothing of this kind is needed.
    """

    field: str
    capability: str
    message: str
    nearest: Mapping[str, Any] | None = None
    got: str = ""
    must_say: bool = False


def demands(spec: DeploymentSpec, caps: Capabilities) -> tuple[Unmet, ...]:
    """Everything in *spec* that *caps* cannot meet, in the order in which to tell it. Empty: it can be sent."""
    found = [*_content(spec, caps), *_placement(spec, caps), *_ends(spec, caps), *_limits(spec, caps)]
    return tuple(sorted(found, key=lambda one: not one.must_say))


def _content(spec: DeploymentSpec, caps: Capabilities) -> Iterator[Unmet]:
    provider = caps.provider
    if caps.images.value == "required" and spec.image is None:
        if spec.handler is None:
            message = f"image: {provider} runs container images; give image=."
        else:
            message = (
                f"image: {provider} runs container images, so a handler needs one: image= names an image that holds "
                "your code, unigpu[worker] and Python 3.11 or newer. To print a Dockerfile for it: "
                f"python -m unigpu image dockerfile {spec.handler}"
            )
        yield Unmet(field="image", capability="images", message=message, must_say=True)
    if caps.images.value == "ignored" and spec.handler is None and spec.command is None:
        if spec.image is not None:
            message = (
                f"image: {provider} runs processes, not containers. Give handler= or command= beside image=: "
                f"{provider} runs that itself, and a cloud runs it in the image."
            )
            yield Unmet(field="image", capability="images", message=message)
        else:
            what = 'handler="app:summarize"' if spec.interface == "function" else 'command=["python", "server.py"]'
            yield Unmet(field="handler", capability="images", message=f"say what runs: {what}.", must_say=True)
    if spec.secrets and caps.host_trust.value == "host" and "secrets_on_shared_hosts" not in spec.accept:
        yield Unmet(
            field="secrets",
            capability="host_trust",
            message=f"secrets: on {provider} the host that runs a worker can read its disk and environment. "
            'To send them all the same: accept=["secrets_on_shared_hosts"]. Or leave them out.',
        )
    if caps.secret_store.value is False and any(isinstance(value, SecretRef) for value in spec.secrets.values()):
        yield Unmet(
            field="secrets",
            capability="secret_store",
            message=f"secrets: {provider} stores none, so a SecretRef names nothing there; give the value or the "
            "name of an environment variable.",
        )
    if caps.public_endpoint.value is True and spec.auth is None:
        yield Unmet(
            field="auth",
            capability="public_endpoint",
            message=f"auth: {provider} opens the port of {spec.name} to the internet. Say who may call it: "
            'auth=BearerToken(env="NAME"), a token that callers must send, or auth="none" to leave it open.',
            must_say=True,
        )
    if spec.volumes and caps.volumes.value == "none":
        yield Unmet(
            field="volumes",
            capability="volumes",
            message=f"volumes: {provider} has none for {caps.kind} deployments; keep what must last elsewhere.",
            nearest=_unless_mounted(spec),
            got="no volume",
        )
    if spec.volumes and caps.volumes.value == "worker_disk":
        yield Unmet(
            field="volumes",
            capability="volumes",
            message=f"volumes: on {provider} a volume is one machine's own disk, not shared and lost with it.",
            nearest={},
            got="a folder on each worker's own disk",
        )


def _unless_mounted(spec: DeploymentSpec) -> Mapping[str, Any] | None:
    """No volumes: only where nothing in the spec names one."""
    texts = (*spec.env.values(), *(spec.command or ()))
    return None if any("${volume." in text for text in texts) else {"volumes": ()}


def _placement(spec: DeploymentSpec, caps: Capabilities) -> Iterator[Unmet]:
    provider = caps.provider
    if caps.gpu.value == "required" and spec.gpu is None:
        yield Unmet(
            field="gpu",
            capability="gpu",
            message=f'gpu: {provider} bills by the GPU; say which are acceptable, as in gpu=["RTX 4090", "L40S"].',
            must_say=True,
        )
    if caps.max_price_required.value is True and spec.max_price is None:
        yield Unmet(
            field="max_price",
            capability="max_price_required",
            message=f"max_price: prices on {provider} are open; say the most that a worker may cost, in USD per hour, "
            "all its GPUs and disk.",
            must_say=True,
        )
    if caps.max_price.value == "none" and spec.max_price is not None:
        yield Unmet(
            field="max_price",
            capability="max_price",
            message=f"max_price: {provider} tells no price before it bills, so a cap cannot be held; leave it out.",
            nearest={"max_price": None},
            got="no cap",
        )
    if caps.regions.value == "none" and spec.regions is not None:
        yield Unmet(
            field="regions",
            capability="regions",
            message=f"regions: a place cannot be asked for on {provider}; leave regions out.",
            nearest={"regions": None},
            got="any region",
        )
    if caps.regions.value == "own_ids" and spec.regions is not None:
        yield Unmet(
            field="regions",
            capability="regions",
            message=f"regions: {provider} knows only its own region ids; they go into provider_options.",
            nearest={"regions": None},
            got="any region",
        )


def _ends(spec: DeploymentSpec, caps: Capabilities) -> Iterator[Unmet]:
    if caps.bills.value is False or caps.scale_to_zero.value not in ("manual", "none"):
        return
    least = max(1, spec.workers[0])
    if spec.kind == "serverless" and "workers" not in spec.stated:
        yield Unmet(
            field="workers",
            capability="scale_to_zero",
            message=f"{spec.name} on {caps.provider} never scales to zero, so say how many workers it has, as in "
            f"workers=1: each bills from {caps.billed_from.value} until teardown.",
            must_say=True,
        )
    if "ttl" not in spec.stated:
        workers = "1 worker bills" if least == 1 else f"{least} workers bill"
        yield Unmet(
            field="ttl",
            capability="scale_to_zero",
            message=f"{spec.name} on {caps.provider} never scales to zero: {workers} from {caps.billed_from.value} "
            'until teardown. Say ttl="6h", or ttl=None to mean for ever.',
            must_say=True,
        )


def _limits(spec: DeploymentSpec, caps: Capabilities) -> Iterator[Unmet]:
    provider = caps.provider
    if "workers" in spec.stated:
        refused = check_workers(spec.workers, caps)
        if refused is not None:
            yield refused
    if "idle_timeout" in spec.stated and caps.idle_timeout.value is False:
        yield Unmet(
            field="idle_timeout",
            capability="idle_timeout",
            message=f"idle_timeout: {_a(caps)} on {provider} is not stopped when it is idle; leave it out, give ttl=.",
            nearest={"idle_timeout": DeploymentSpec.model_fields["idle_timeout"].default},
            got="no idle stop",
        )
    signals = caps.autoscaling_signals.value
    if spec.scaling is not None and signals != "unknown" and spec.scaling.signal not in signals:
        known = ", ".join(f'"{signal}"' for signal in signals if signal != "load")
        yield Unmet(
            field="scaling",
            capability="autoscaling_signals",
            message=f'scaling: {_a(caps)} on {provider} is not scaled by "{spec.scaling.signal}"; '
            + (f"by {known}." if known else "leave scaling out."),
            nearest={"scaling": None},
            got="the platform's own rule",
        )
    if spec.concurrency > 1 and caps.concurrency.value == "none":
        yield Unmet(
            field="concurrency",
            capability="concurrency",
            message=f"concurrency: a worker on {provider} takes one call at a time; leave it out, and add workers.",
            nearest={"concurrency": 1},
            got="1",
        )
    longest = caps.max_execution_timeout.value
    if isinstance(longest, float | int) and "execution_timeout" in spec.stated and spec.execution_timeout > longest:
        yield Unmet(
            field="execution_timeout",
            capability="max_execution_timeout",
            message=f"execution_timeout: the longest on {provider} is {seconds(longest)}.",
            nearest={"execution_timeout": longest},
            got=seconds(longest),
        )


def check_workers(workers: tuple[int, int], caps: Capabilities) -> Unmet | None:
    """What of a range of workers the platform cannot meet: for a spec, and for ``scale``."""
    least, most = workers
    smallest = 0 if caps.min_workers.value == "unknown" else caps.min_workers.value
    largest = caps.max_workers.value
    low, high = max(least, smallest), max(most, smallest)
    if isinstance(largest, int):
        low, high = min(low, largest), min(high, largest)
    flag = why = ""
    if least < smallest:
        flag, why = "min_workers", f"the least on {caps.provider} is {smallest}"
    elif (low, high) != workers:
        flag, why = "max_workers", f"the most on {caps.provider} is {largest}"
    if caps.elasticity_model.value in ("declared", "fixed") and low != high:
        if not why:
            flag, why = "elasticity_model", f"{caps.provider} adds no workers by itself: it keeps the number it is told"
        low = high = max(1, low)
    if not why:
        return None
    return Unmet(
        field="workers",
        capability=flag,
        message=f"workers: {why} ({_a(caps)}); say workers={low if low == high else (low, high)}.",
        nearest={"workers": (low, high)},
        got=worker_range_text((low, high)),
    )


def notes(spec: DeploymentSpec, caps: Capabilities) -> tuple[Adaptation, ...]:
    """What is not as the spec says, and no reason to refuse: defaults that the platform lacks, limits nobody holds."""
    out: list[Adaptation] = []
    if spec.kind == "serverless" and caps.idle_timeout.value is False and "idle_timeout" not in spec.stated:
        out.append(_note(spec, caps, "idle_timeout", seconds(spec.idle_timeout), "no idle stop", "idle_timeout"))
    held = caps.execution_timeout.value
    if held == "none" or (held == "worker" and not spec.runs_our_worker(caps.provider)):
        reason = None if held == "none" else "unigpu's worker would hold it, and this is another program"
        got = "not enforced"
        out.append(
            _note(spec, caps, "execution_timeout", seconds(spec.execution_timeout), got, "execution_timeout", reason)
        )
    if spec.ttl is not None and ttl_enforcer(spec, caps) in ("client", "nobody"):
        by = "a client's next call or gc" if ttl_enforcer(spec, caps) == "client" else "nobody"
        got = f"ended by {by}; nobody ends it while no client runs"
        out.append(_note(spec, caps, "ttl", seconds(spec.ttl), got, "ttl_enforced_by"))
    return tuple(out)


def ttl_enforcer(spec: DeploymentSpec, caps: Capabilities) -> TtlEnforcer:
    """Who ends this deployment at its ttl: a worker only where it is ours, and where its exit ends the billing."""
    enforcer = known_ttl_enforcer(caps)
    ours = spec.runs_our_worker(caps.provider) and caps.worker_exit.value == "ends_billing"
    return "client" if enforcer == "worker" and not ours else enforcer


def known_ttl_enforcer(caps: Capabilities) -> TtlEnforcer:
    """Who ends a deployment at its ttl by the facts; the client, where they do not say."""
    return "client" if caps.ttl_enforced_by.value == "unknown" else caps.ttl_enforced_by.value


def error(refused: Sequence[AnyRefusal], caps: Capabilities) -> UniGPUError:
    """The error for what `demands` or a driver's check found: all of it in one message.

    Returns:
        ConfigurationError: where something must be said first.
        UnsupportedError: with the flag, the fact and its source, else.
    """
    said = [one.message for one in refused if isinstance(one, Unmet) and one.must_say]
    if said:
        return ConfigurationError(" ".join(said), provider=caps.provider)
    first = refused[0]
    text = " ".join(dict.fromkeys(one.message for one in refused))
    fact = caps.fact(first.capability) if first.capability in FLAGS else None
    possible = all(one.nearest is not None for one in refused)
    adapt = 'on_unsupported="adapt" takes the nearest thing instead.' if possible else ""
    because = f"[{first.capability} = {fact}, {fact.source}]" if fact else ""
    return UnsupportedError(
        text,
        capability=first.capability,
        fact=f"{first.capability} = {fact}" + (f": {fact.note}" if fact.note else "") if fact else None,
        source=fact.source if fact else None,
        provider=caps.provider,
        hint=" ".join(filter(None, (adapt, because))) or None,
    )


def adapt(
    spec: DeploymentSpec, refused: Iterable[AnyRefusal], caps: Capabilities
) -> tuple[DeploymentSpec, tuple[Adaptation, ...]]:
    """*spec* with the nearest thing for each demand that was refused, and the list of what changed.

    Raises:
        ConfigurationError: where something must be said first.
        UnsupportedError: where there is no nearest thing.
    """
    all_refused = tuple(refused)
    hopeless = [one for one in all_refused if one.nearest is None]
    if hopeless:
        raise error(hopeless, caps)
    changes: dict[str, Any] = {}
    out: list[Adaptation] = []
    for one in all_refused:
        changes.update(one.nearest or {})
        source = caps.fact(one.capability).source if one.capability in FLAGS else None
        asked = _asked(spec, one.field)
        out.append(Adaptation(field=one.field, asked=asked, got=one.got, reason=one.message, source=source))
    blank = {name for name, value in changes.items() if value == DeploymentSpec.model_fields[name].get_default()}
    kept = {name: getattr(spec, name) for name in spec.model_fields_set if name not in blank}
    stated = {name: value for name, value in changes.items() if name not in blank}
    return DeploymentSpec.model_validate({**kept, **stated}), tuple(out)


def provider_options(spec: DeploymentSpec, provider: str, model: type[InputModel]) -> InputModel:
    """The options of *spec* for one provider, checked by its driver's model. Other providers' are not looked at.

    Raises:
        ConfigurationError: an unknown key (names the nearest), or a value that cannot be.
    """
    try:
        return model.model_validate(dict(spec.options(provider)))
    except ConfigurationError as exc:
        lines = [f"provider_options.{provider}.{line}" for line in exc.message.split("; ")]
        raise ConfigurationError("; ".join(lines), provider=provider) from None


def _note(
    spec: DeploymentSpec, caps: Capabilities, field: str, asked: str, got: str, flag: str, reason: str | None = None
) -> Adaptation:
    fact = caps.fact(flag)
    told = asked if field in spec.stated else f"{asked} (the default)"
    why = reason or fact.note or FLAGS[flag]
    return Adaptation(field=field, asked=told, got=got, reason=f"{caps.provider}: {why}", source=fact.source)


def _a(caps: Capabilities) -> str:
    return "a pod" if caps.kind == "pod" else f"a serverless {caps.interface} deployment"


def _asked(spec: DeploymentSpec, field: str) -> str:
    value: object = getattr(spec, field, None)
    if field == "workers":
        return worker_range_text(spec.workers)
    return seconds(value) if field in _TIMES and isinstance(value, float) else _shown(value)


def _shown(value: object) -> str:
    if isinstance(value, tuple):
        return ", ".join(_shown(item) for item in cast("tuple[object, ...]", value))
    if isinstance(value, InputModel) and type(value).__str__ is InputModel.__str__:
        return ", ".join(f"{name} {_shown(item)}" for name, item in value if item is not None)
    return str(value)
