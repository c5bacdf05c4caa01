"""A fact about a platform, and the files that hold them.

A file is TOML. ``has`` lists the deployments a provider knows, as ``"function/serverless"``; ``retrieved`` is the day
on which the sources were read; ``[sources]`` gives short names to addresses. ``reading`` says in a few honest sentences
what "serverless" means there, and ``[more]`` holds the facts that are no flags, as in:

    [more.flashboot]
    title = "FlashBoot is on unless it is switched off"
    value = true
    status = "contradicted"

Each other table holds flags:

    ["*"]                     every deployment
    ["*/pod"]                 every pod
    ["http/*"]                every http deployment
    ["function/serverless"]   only these

A narrower table wins over a wider one, and the kind of deployment is narrower than its interface. A flag is
``{ value, unit, status, source, retrieved, note }``. ``source`` is an address, or the short name of one with
``#anchor`` or ``/path`` behind it.
"""

from __future__ import annotations

import datetime
import tomllib
from collections.abc import Mapping
from importlib import resources
from typing import Annotated, Any, Final, Generic, Literal, Protocol, Self, TypeVar, cast

from pydantic import BeforeValidator, Field, model_validator

from ..errors import ConfigurationError, UnsupportedError
from ..models import InputModel, Interface, Kind, nearest

T = TypeVar("T")

Status = Literal["documented", "accepted", "observed", "contradicted", "unknown"]
Unknown = Literal["unknown"]
Plain = bool | int | float | str | tuple[bool | int | float | str, ...]

_SETTINGS = frozenset({"has", "retrieved", "sources", "reading", "more"})
_FIELDS = frozenset({"value", "unit", "status", "source", "retrieved", "note"})


class ReadsText(Protocol):
    """A file, as a driver outside this package may bring one: a `pathlib.Path`, or a packaged resource."""

    def read_text(self, encoding: str | None = None) -> str: ...


def _as_list(value: object) -> object:
    return tuple(value) if isinstance(value, list) else value  # pyright: ignore[reportUnknownArgumentType, reportUnknownVariableType] - a TOML list of anything; the model checks its items


class Fact(InputModel, Generic[T]):
    """One thing that is known of a platform.

    Attributes:
        value: What is so; ``"unknown"`` where nobody says.
        unit: What a number counts, as in ``"s"``.
        status: ``documented`` (the platform says so), ``accepted`` (its API takes it, the effect is unproven),
            ``observed`` (seen, by a test or a report), ``contradicted`` (sources disagree; see ``note``) or ``unknown``
            (the driver's facts say nothing).
        source: The address where it is written; empty where the status is ``unknown``.
        retrieved: The day on which it was read there; ``None`` where the status is ``unknown``.
        note: What the value leaves out.
    """

    value: Annotated[T, BeforeValidator(_as_list)]
    unit: str | None = None
    status: Status
    source: Annotated[str, Field(pattern=r"^(https?://\S+)?$")]
    retrieved: datetime.date | None
    note: str | None = None

    @model_validator(mode="after")
    def _sourced(self) -> Self:
        if self.status == "unknown" and self.value != "unknown":
            raise ValueError('status: "unknown" goes with the value "unknown"')
        if self.status != "unknown" and (not self.source or self.retrieved is None):
            raise ValueError("source: say where it is written, and in retrieved on which day it was read")
        return self

    @property
    def shown(self) -> str:
        """The value and its unit, as text."""
        value: object = self.value
        if isinstance(value, bool):
            return "yes" if value else "no"
        if isinstance(value, tuple):
            items = cast("tuple[object, ...]", value)
            texts = [_plain(item) for item in items]
            numbers = len(items) == 2 and all(isinstance(item, int | float) for item in items)
            text = " to ".join(texts) if numbers else ", ".join(texts) or "none"
        else:
            text = _plain(value)
        return f"{text} {self.unit}" if self.unit and not isinstance(value, str) else text

    def __str__(self) -> str:
        return self.shown if self.retrieved is None else f"{self.shown} ({self.status}, {self.retrieved.isoformat()})"


UNKNOWN: Final[Fact[Any]] = Fact[Any](value="unknown", status="unknown", source="", retrieved=None)
"""What stands for a flag that the facts leave out."""


class FurtherFact(Fact[Plain]):
    """A fact that is no flag.

    Attributes:
        title: What it is about, in a line.
        about: Which deployments, as in ``"function/serverless"`` or ``"*/pod"``; ``"*"``: all.
    """

    title: Annotated[str, Field(min_length=1)]
    about: str = "*"


def _plain(value: object) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def read_facts(provider: str, facts: Mapping[str, Any] | ReadsText | None) -> Mapping[str, Any]:
    """The whole of a provider's facts, unchecked. ``None``: the file that this package holds for it; empty where it
    holds none, because a driver need not bring any.

    Raises:
        ConfigurationError: a file that the driver names cannot be read, or is not TOML.
    """
    if isinstance(facts, Mapping):
        return facts
    source: ReadsText = (
        facts if facts is not None else resources.files("unigpu.elasticity").joinpath("facts", f"{provider}.toml")
    )
    try:
        return tomllib.loads(source.read_text(encoding="utf-8"))
    except (OSError, ValueError) as exc:
        if facts is None and isinstance(exc, FileNotFoundError):
            return {}
        why = "the file cannot be read" if isinstance(exc, OSError) else f"they are not TOML: {exc}"
        raise ConfigurationError(f"facts of {provider}: {why}.", provider=provider) from None


def select(provider: str, whole: Mapping[str, Any], interface: Interface, kind: Kind) -> dict[str, Any]:
    """The facts of one kind of deployment, as plain data: wider tables first, narrower ones over them.

    Raises:
        ConfigurationError: where the file has a table, a key or a source that it cannot have.
        UnsupportedError: where the provider has no such deployments.
    """
    has = _check_tables(provider, whole)
    wanted = f"{interface}/{kind}"
    if wanted not in has:
        raise UnsupportedError(
            f"{provider} has no {interface} deployments of the kind {kind!r}; it has: {', '.join(sorted(has))}.",
            capability="kind",
            provider=provider,
        )
    out: dict[str, Any] = {}
    for table in ("*", f"{interface}/*", f"*/{kind}", wanted):
        for flag, fact in whole.get(table, {}).items():
            out[flag] = completed(provider, table, flag, fact, whole)
    return out


def _check_tables(provider: str, whole: Mapping[str, Any]) -> frozenset[str]:
    known = {f"{i}/{k}" for i in ("function", "http", "*") for k in ("serverless", "pod", "*")} - {"*/*"}
    known |= {"*"} | _SETTINGS
    for table, content in whole.items():
        if table not in known:
            near = nearest(table, known)
            raise _broken(provider, f"there is no table {table!r}" + (f"; did you mean {near!r}?" if near else ""))
        if table not in {"has", "retrieved", "reading"} and not isinstance(content, Mapping):
            raise _broken(provider, f"{table!r} is a table")
    complete = {name for name in known - _SETTINGS if "*" not in name}
    has: Any = whole.get("has") if whole else list(complete)
    if not isinstance(has, list | tuple) or not has or not complete.issuperset(has):  # pyright: ignore[reportUnknownArgumentType] - a TOML list of anything, being checked
        raise _broken(provider, f"`has` lists one or more of {', '.join(sorted(complete))}")
    return frozenset(has)  # pyright: ignore[reportUnknownArgumentType, reportUnknownVariableType] - a subset of `complete`, just checked


def completed(
    provider: str, table: str, flag: str, fact: object, whole: Mapping[str, Any], *, fields: tuple[str, ...] = ()
) -> dict[str, Any]:
    """One fact as plain data, its source and its date filled in. *fields*: what it may have beside a fact's own.

    Raises:
        ConfigurationError: it has a field or a source that it cannot have.
    """
    sources: Mapping[str, str] = whole.get("sources", {})
    allowed = _FIELDS.union(fields)
    if not isinstance(fact, Mapping):
        raise _broken(provider, f"[{table!r}] {flag}: a fact is a table with value, status and source")
    given: dict[str, Any] = dict(fact)  # pyright: ignore[reportUnknownArgumentType] - a TOML table, whose keys are text
    for key in given:
        if key not in allowed:
            near = nearest(key, allowed)
            raise _broken(
                provider,
                f"[{table!r}] {flag}.{key}: there is no such field" + (f"; did you mean {near!r}?" if near else ""),
            )
    if "retrieved" not in given and "retrieved" in whole:
        given["retrieved"] = whole["retrieved"]
    source = given.get("source")
    if isinstance(source, str) and "://" not in source:
        ends = min((source.index(mark) for mark in "#/" if mark in source), default=len(source))
        if source[:ends] not in sources:
            raise _broken(provider, f"[{table!r}] {flag}: [sources] has no {source[:ends]!r}")
        given["source"] = sources[source[:ends]] + source[ends:]
    return given


def read_reading(provider: str, facts: Mapping[str, Any] | ReadsText | None = None) -> str | None:
    """What "serverless" means there, in the words of the facts; ``None``: they do not say."""
    found = read_facts(provider, facts).get("reading")
    return " ".join(found.split()) if isinstance(found, str) else None


def read_further(provider: str, facts: Mapping[str, Any] | ReadsText | None = None) -> Mapping[str, FurtherFact]:
    """The facts of the table ``more``, by name.

    Raises:
        ConfigurationError: one has a field or a value that cannot be, or no source or date.
    """
    whole = read_facts(provider, facts)
    table: Any = whole.get("more", {})
    if not isinstance(table, Mapping):
        raise _broken(provider, "'more' is a table")
    out: dict[str, FurtherFact] = {}
    for name, given in table.items():  # pyright: ignore[reportUnknownVariableType] - a TOML table of anything
        fact = completed(provider, "more", name, given, whole, fields=("title", "about"))  # pyright: ignore[reportUnknownArgumentType] - the same
        try:
            out[str(name)] = FurtherFact.model_validate(fact)  # pyright: ignore[reportUnknownArgumentType] - the same
        except ConfigurationError as exc:
            raise ConfigurationError(f"facts of {provider} (more.{name}): {exc.message}", provider=provider) from None
    return out


def _broken(provider: str, why: str) -> ConfigurationError:
    return ConfigurationError(f"facts of {provider}: {why}.", provider=provider)
