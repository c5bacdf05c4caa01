"""What a deploy would do and cost, on each provider: as data, and as a table."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal, overload

from pydantic import Field

from ..errors import UniGPUError
from ._model_kinds import Data
from .deployment import Adaptation, Rate, usd
from .spec import DeploymentSpec

Action = Literal["create", "reuse", "scale", "update", "recreate", "excluded"]


class PlannedRequest(Data):
    """One request that would be sent. Keys, secrets and what looks like one are hidden.

    Attributes:
        operation: A dotted name, as in ``"runpod.endpoint.create"``.
        url: Without its query; ids that the platform has yet to give are placeholders, as in ``new-template``.
        body: The JSON body; ``None``: it has none.
    """

    operation: str
    method: str
    url: str
    params: Mapping[str, str] = Field(default_factory=dict)
    headers: Mapping[str, str] = Field(default_factory=dict)
    body: Any = None

    def __str__(self) -> str:
        text = f"{self.method} {self.url}"
        return text if self.body is None else f"{text} {json.dumps(self.body, ensure_ascii=False, default=str)}"


class Plan(Data):
    """What ``deploy`` would do on one provider. ``client.deploy(plan)`` does exactly that, or raises `PlanChanged`.

    Attributes:
        action: ``create``, ``reuse`` (nothing changes), ``scale``, ``update`` (in place), ``recreate`` (torn down and
            created anew: downtime), or ``excluded``: it cannot be had there, for `reason`.
        spec: What was asked, with what the configuration adds.
        fields: The stated fields that differ from what exists.
        requests: The changes that would be sent, in order.
        adaptations: What would not be as the spec says, and why.
        reason: Why it is excluded.
        existing: Kind and id of what has the name now.
    """

    provider: str
    name: str
    namespace: str
    action: Action
    spec: DeploymentSpec = Field(repr=False)
    if_exists: Literal["reuse", "error", "replace"] = "reuse"
    on_unsupported: Literal["raise", "adapt"] = "raise"
    fields: tuple[str, ...] = ()
    requests: tuple[PlannedRequest, ...] = Field(default=(), repr=False)
    adaptations: tuple[Adaptation, ...] = ()
    rate: Rate = Field(default_factory=Rate)
    warnings: tuple[str, ...] = ()
    reason: str | None = None
    existing: tuple[tuple[str, str], ...] = ()
    spec_hash: str | None = None

    @property
    def ok(self) -> bool:
        """Whether it can be deployed."""
        return self.action != "excluded"

    def differences(self, now: Plan) -> tuple[str, ...]:
        """In what the same plan, made again, differs: each in words."""
        if now.action != self.action:
            return (f"it would now {_verb(now)}" + (f" ({now.reason})" if now.reason else ""),)
        pairs = {
            "another one has the name": (self.existing, now.existing),
            "the spec, or the code, is another": (self.spec_hash, now.spec_hash),
            "other fields differ": (self.fields, now.fields),
            "other requests would be sent": (_sent(self), _sent(now)),
            "other things would be adapted": (self.adaptations, now.adaptations),
            f"the rate is {now.rate}": (self.rate, now.rate),
        }
        return tuple(text for text, (before, after) in pairs.items() if before != after)

    def __str__(self) -> str:
        lines = [f"{self.name} on {self.provider}: would {_verb(self)}" + ("" if self.ok else f": {self.reason}")]
        if self.ok:
            source = f" ({self.rate.source})" if self.rate.source else ""
            lines.append(f"  rate: {self.rate}{source}")
        lines += [f"  adapted: {one}" for one in self.adaptations]
        lines += [f"  note: {one}" for one in self.warnings]
        lines += [f"  sends: {one}" for one in self.requests]
        return "\n".join(lines)


class Plans(Sequence[Plan]):
    """One plan a provider: those that can be had first, the cheapest at its most first; excluded ones stay in.

    Attributes:
        unreadable: Provider → why it could not be read. What would happen there is not known.
    """

    def __init__(self, plans: Sequence[Plan], unreadable: Mapping[str, UniGPUError]) -> None:
        self._plans = tuple(sorted(plans, key=_order))
        self.unreadable = dict(unreadable)

    @overload
    def __getitem__(self, index: int) -> Plan: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Plan]: ...
    def __getitem__(self, index: int | slice) -> Plan | Sequence[Plan]:
        return self._plans[index]

    def __len__(self) -> int:
        return len(self._plans)

    def __iter__(self) -> Iterator[Plan]:
        return iter(self._plans)

    def on(self, provider: str) -> Plan:
        """The plan of one provider.

        Raises:
            UniGPUError: it could not be read, or was not asked for.
        """
        for plan in self._plans:
            if plan.provider == provider:
                return plan
        raise self.unreadable.get(provider) or UniGPUError(f"there is no plan for {provider}.", provider=provider)

    def __str__(self) -> str:
        rows: list[tuple[str, ...]] = [("PROVIDER", "WHAT", "IDLE/H", "AT MOST/H", "REQUESTS", "NOTES")]
        rows += [_row(plan) for plan in self._plans]
        rows += [(name, "unreadable", "–", "–", "–", str(exc)) for name, exc in sorted(self.unreadable.items())]
        return table(rows)

    def __repr__(self) -> str:
        lost = f", unreadable: {', '.join(sorted(self.unreadable))}" if self.unreadable else ""
        return f"<Plans {[f'{p.action} {p.name}@{p.provider}' for p in self._plans]!r}{lost}>"


def table(rows: Sequence[tuple[str, ...]]) -> str:
    """Rows as aligned columns; the last one is as long as it is."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]) - 1)]
    lines = ("  ".join([*(cell.ljust(w) for cell, w in zip(row, widths, strict=False)), row[-1]]) for row in rows)
    return "\n".join(line.rstrip() for line in lines)


def _row(plan: Plan) -> tuple[str, ...]:
    if not plan.ok:
        return plan.provider, "excluded", "–", "–", "–", plan.reason or ""
    notes = [f"adapts {', '.join(a.field for a in plan.adaptations)}"] if plan.adaptations else []
    notes += [f"differs in {', '.join(plan.fields)}"] if plan.fields else []
    idle, most = (usd(price, unknown="–") for price in (plan.rate.idle_per_hour, plan.rate.max_per_hour))
    return plan.provider, plan.action, idle, most, str(len(plan.requests)), "; ".join(notes)


def _order(plan: Plan) -> tuple[bool, bool, float, str]:
    most = plan.rate.max_per_hour
    return not plan.ok, most is None, most or 0.0, plan.provider


def _sent(plan: Plan) -> list[tuple[str, str]]:
    return [(one.method, one.operation) for one in plan.requests]


def _verb(plan: Plan) -> str:
    texts = {"reuse": "be reused as it is", "recreate": "be torn down and created anew", "excluded": "be excluded"}
    done = {"create": "be created", "scale": "be scaled", "update": "be updated in place"}
    return texts.get(plan.action) or done[plan.action]
