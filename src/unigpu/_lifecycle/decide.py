"""What `deploy` does with a deployment of the same name: the table in the documentation, as one pure function."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

from unigpu.driver import Content, DeploymentInfo, DeploymentSpec, Found, Scaling
from unigpu.errors import NameConflict

from .identity import CODE, compared, differing
from .scope import IfExists

Action = Literal["reuse", "update", "recreate"]


@dataclass(frozen=True, kw_only=True)
class LimitChange:
    """The limits that `scale` sets. ``None``: no change."""

    workers: tuple[int, int] | None = None
    idle_timeout: float | None = None
    scaling: Scaling | None = None

    def __bool__(self) -> bool:
        return any(value is not None for value in (self.workers, self.idle_timeout, self.scaling))


@dataclass(frozen=True, kw_only=True)
class DeployDecision:
    """What to do with the deployment that exists.

    Attributes:
        fields: The stated spec fields that differ.
        limits: The limits to set afterwards.
        warnings: What could not be compared, or differs a little from the request.
    """

    action: Action
    fields: tuple[str, ...] = ()
    limits: LimitChange = field(default_factory=LimitChange)
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
) -> DeployDecision:
    """What to do with *found*.

    Args:
        known_hash: The spec hash in this machine's intent, for platforms that do not return it.
        updatable: Whether the platform changes exactly these fields in place.
        wall: Epoch seconds now.

    Raises:
        NameConflict: another deployment has the name; with the fields that differ.
    """
    provider, name = info.provider, spec.name
    foreign = not info.ours or (info.name is not None and info.name != name)
    if foreign:
        raise NameConflict(
            f"{info.provider_name} on {provider} has the name that unigpu uses for {name}, but "
            + (f"it is the deployment {info.name}" if info.name else "unigpu did not create it"),
            provider=provider,
            deployment=name,
            hint="Choose another name. Nothing was changed.",
        )
    old_hash = found.spec_hash or known_hash
    stated = compared(spec, content, provider=provider)
    fields = differing(old_hash, new_hash, stated)
    warnings: list[str] = []
    if fields is None:
        fields = tuple(sorted(one for one in stated if one in found.shown and found.shown[one] != getattr(spec, one)))
        if hidden := sorted(stated - found.shown.keys()):
            warnings.append(f"not compared with what exists ({provider} does not return it): {', '.join(hidden)}")
    limits = limits_to_change(info, spec)
    moved = content.origin is not None and found.origin is not None and content.origin != found.origin

    if if_exists == "error":
        raise _conflict(info, name, (*fields, *_names(limits)), 'if_exists="error" was given')
    if if_exists == "reuse" and moved:
        raise NameConflict(
            f"{name} on {provider} was deployed from {found.origin}, but this handler is in {content.origin}",
            provider=provider,
            deployment=name,
            fields=("handler", *(f for f in fields if f != "handler")),
            hint='To keep both, pass namespace= or another name. To replace the other one, pass if_exists="replace".',
        )
    if moved and not fields:
        fields = ("handler",)
    if not fields:
        return DeployDecision(action="reuse", limits=limits, warnings=(*warnings, *expires_earlier(found, spec, wall)))
    in_place = updatable(frozenset(fields))
    if if_exists == "reuse":
        if set(fields) == {CODE} and in_place:
            return DeployDecision(
                action="update", fields=fields, limits=limits, warnings=expires_earlier(found, spec, wall)
            )
        raise _conflict(info, name, fields, None)
    if in_place:
        return DeployDecision(
            action="update", fields=fields, limits=limits, warnings=expires_earlier(found, spec, wall)
        )
    return DeployDecision(action="recreate", fields=fields)


def limits_to_change(info: DeploymentInfo, spec: DeploymentSpec) -> LimitChange:
    """The stated limits that differ. A limit that the platform does not return is set, but is no difference."""
    asked: dict[str, Any] = {}
    if "workers" in spec.stated and info.workers is not None and info.workers != spec.workers:
        asked["workers"] = spec.workers
    if "idle_timeout" in spec.stated and info.idle_timeout is not None and info.idle_timeout != spec.idle_timeout:
        asked["idle_timeout"] = spec.idle_timeout
    if "scaling" in spec.stated and spec.scaling is not None and "scaling" in info.details:
        now: Any = info.details["scaling"]
        if now != spec.scaling.model_dump():
            asked["scaling"] = spec.scaling
    return LimitChange(**asked)


def expires_earlier(found: Found, spec: DeploymentSpec, wall: float) -> tuple[str, ...]:
    """A warning where the existing deployment expires before the requested ttl."""
    if "ttl" not in spec.stated or found.expires_at is None:
        return ()
    if spec.ttl is not None and found.expires_at >= wall + spec.ttl:
        return ()
    left = max(0.0, found.expires_at - wall)
    asked = "never" if spec.ttl is None else f"{spec.ttl:g} s"
    return (
        f"{spec.name} already exists and expires in {left:.0f} s, earlier than requested ({asked}): "
        "the ttl is fixed at creation",
    )


def _names(limits: LimitChange) -> tuple[str, ...]:
    return tuple(n for n in ("workers", "idle_timeout", "scaling") if getattr(limits, n) is not None)


def _conflict(info: DeploymentInfo, name: str, fields: tuple[str, ...], why: str | None) -> NameConflict:
    differs = f"differs in {', '.join(fields)}" if fields else "is the same"
    return NameConflict(
        f"{name} exists on {info.provider} and {differs}" + (f"; {why}" if why else ""),
        provider=info.provider,
        deployment=name,
        fields=fields,
        hint=(
            'if_exists="replace" changes it, in place where the platform can. Another name or namespace= leaves it '
            "alone. Nothing was changed."
        ),
    )
