"""What `deploy` does with a deployment of the same name: the table of the docs, as one pure function."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

from unigpu.driver import Content, DeploymentInfo, DeploymentSpec, Found, Scaling
from unigpu.errors import NameConflict

from .identity import CODE, compared, differing
from .scope import IfExists

Action = Literal["adopt", "update", "recreate"]


@dataclass(frozen=True, kw_only=True)
class Limits:
    """The limits that `scale` sets. ``None`` stays as it is."""

    workers: tuple[int, int] | None = None
    idle_timeout: float | None = None
    scaling: Scaling | None = None

    def __bool__(self) -> bool:
        return any(value is not None for value in (self.workers, self.idle_timeout, self.scaling))


@dataclass(frozen=True, kw_only=True)
class Decision:
    """What is to be done with what exists.

    Attributes:
        fields: The stated spec fields that differ.
        limits: What to scale afterwards.
        warnings: What could not be compared, or is not quite as asked.
    """

    action: Action
    fields: tuple[str, ...] = ()
    limits: Limits = field(default_factory=Limits)
    warnings: tuple[str, ...] = ()


def decide(
    found: Found,
    info: DeploymentInfo,
    spec: DeploymentSpec,
    content: Content,
    *,
    new_hash: str,
    known_hash: str | None,
    if_exists: IfExists,
    updatable: Callable[[frozenset[str]], bool],
    wall: float,
) -> Decision:
    """What to do with *found*.

    Args:
        known_hash: The spec hash that this machine's intent keeps, where the platform does not tell it.
        updatable: Whether the platform changes exactly these fields in place.
        wall: Epoch seconds now.

    Raises:
        NameConflict: the name is taken by something else, with the fields that differ.
    """
    provider, name = info.provider, spec.name
    foreign = not info.ours or (info.name is not None and info.name != name)
    if foreign:
        raise NameConflict(
            f"{info.provider_name} on {provider} carries our name for {name}, but is "
            + (f"the deployment {info.name}" if info.name else "not unigpu's"),
            provider=provider,
            deployment=name,
            hint="Choose another name; nothing was touched.",
        )
    old_hash = found.spec_hash or known_hash
    stated = compared(spec, content, provider=provider)
    fields = differing(old_hash, new_hash, stated)
    warnings: list[str] = []
    if fields is None:
        fields = tuple(sorted(one for one in stated if one in found.shown and found.shown[one] != getattr(spec, one)))
        if untold := sorted(stated - found.shown.keys()):
            warnings.append(f"not compared with what exists ({provider} does not tell): {', '.join(untold)}")
    limits = limits_to_change(info, spec)
    moved = content.origin is not None and found.origin is not None and content.origin != found.origin

    if if_exists == "error":
        raise _conflict(info, name, (*fields, *_names(limits)), 'if_exists="error" was given')
    if if_exists == "adopt" and moved:
        raise NameConflict(
            f"{name} on {provider} is deployed from {found.origin}, and this handler is in {content.origin}",
            provider=provider,
            deployment=name,
            fields=("handler", *(f for f in fields if f != "handler")),
            hint='To have both, give namespace= (or another name); if_exists="replace" takes the other one\'s place.',
        )
    if moved and not fields:
        fields = ("handler",)
    if not fields:
        return Decision(action="adopt", limits=limits, warnings=(*warnings, *ends_earlier(found, spec, wall)))
    in_place = updatable(frozenset(fields))
    if if_exists == "adopt":
        if set(fields) == {CODE} and in_place:
            return Decision(action="update", fields=fields, limits=limits, warnings=ends_earlier(found, spec, wall))
        raise _conflict(info, name, fields, None)
    if in_place:
        return Decision(action="update", fields=fields, limits=limits, warnings=ends_earlier(found, spec, wall))
    return Decision(action="recreate", fields=fields)


def limits_to_change(info: DeploymentInfo, spec: DeploymentSpec) -> Limits:
    """The stated limits that are not so; one that the platform does not tell is set without being a difference."""
    asked: dict[str, Any] = {}
    if "workers" in spec.stated and info.workers is not None and info.workers != spec.workers:
        asked["workers"] = spec.workers
    if "idle_timeout" in spec.stated and info.idle_timeout is not None and info.idle_timeout != spec.idle_timeout:
        asked["idle_timeout"] = spec.idle_timeout
    if "scaling" in spec.stated and spec.scaling is not None and "scaling" in info.details:
        now: Any = info.details["scaling"]
        if now != spec.scaling.model_dump():
            asked["scaling"] = spec.scaling
    return Limits(**asked)


def ends_earlier(found: Found, spec: DeploymentSpec, wall: float) -> tuple[str, ...]:
    """A warning where what exists ends before the ttl that was asked for."""
    if "ttl" not in spec.stated or found.expires_at is None:
        return ()
    if spec.ttl is not None and found.expires_at >= wall + spec.ttl:
        return ()
    left = max(0.0, found.expires_at - wall)
    asked = "no end" if spec.ttl is None else f"{spec.ttl:g} s"
    return (f"{spec.name} existed and ends in {left:.0f} s, earlier than asked ({asked}): a ttl is fixed at create",)


def _names(limits: Limits) -> tuple[str, ...]:
    return tuple(n for n in ("workers", "idle_timeout", "scaling") if getattr(limits, n) is not None)


def _conflict(info: DeploymentInfo, name: str, fields: tuple[str, ...], why: str | None) -> NameConflict:
    differs = f"differs in {', '.join(fields)}" if fields else "is the same"
    return NameConflict(
        f"{name} exists on {info.provider} and {differs}" + (f"; {why}" if why else ""),
        provider=info.provider,
        deployment=name,
        fields=fields,
        hint=(
            'if_exists="replace" changes it (in place where the platform can); another name or namespace= leaves it '
            "alone. Nothing was touched."
        ),
    )
