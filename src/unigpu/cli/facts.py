"""``unigpu facts``: what is known of each platform, where it is written, and how sure it is."""

from __future__ import annotations

import datetime
import json
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Literal

import click

from . import options

if TYPE_CHECKING:
    from ..elasticity.fact import Fact


@click.command()
@click.argument("providers", nargs=-1)
@click.option("--interface", type=click.Choice(("function", "http")), default="function")
@click.option("--kind", type=click.Choice(("serverless", "pod")), default="serverless")
@click.option("--older", type=int, metavar="DAYS", help="List the facts that were read more than DAYS ago.")
@options.JSON
def command(
    providers: tuple[str, ...],
    interface: Literal["function", "http"],
    kind: Literal["serverless", "pod"],
    older: int | None,
    *,
    as_json: bool,
) -> int:
    """Show the facts of each platform, with the source of each.

    With one provider this shows every fact of it; with several, or none, the four questions side by side.
    """
    from .. import _registry
    from .._client.compare import compare, facts_of

    names: list[str] = list(dict.fromkeys(providers)) or list(_registry.installed())
    if older is not None:
        return _older(names, older, as_json=as_json)
    if as_json:
        print(json.dumps({name: _whole(name) for name in names}))
    elif len(names) == 1 and providers:
        shapes, further, reading = facts_of(names[0])
        if reading:
            print(reading, end="\n\n")
        asked = [one for one in shapes if (one.interface, one.kind) == (interface, kind)]
        print(asked[0] if asked else compare(names[0], interface=interface, kind=kind))
        for name, fact in further.items():
            print(f"\n{fact.title}\n  {name} = {fact}\n  {fact.source}" + (f"\n  {fact.note}" if fact.note else ""))
    else:
        print(compare(*names, interface=interface, kind=kind))
    return 0


def _every(provider: str) -> Iterator[tuple[str, str, Fact[Any]]]:
    """Each fact of a provider: which deployments, its name, and it."""
    from .._client.compare import facts_of

    shapes, further, _ = facts_of(provider)
    for caps in shapes:
        for flag, fact in caps.facts():
            yield f"{caps.interface}/{caps.kind}", flag, fact
    for name, one in further.items():
        yield "more", name, one


def _whole(provider: str) -> dict[str, Any]:
    from .._client.compare import facts_of

    out: dict[str, Any] = {"reading": facts_of(provider)[2]}
    for where, name, fact in _every(provider):
        out.setdefault(where, {})[name] = fact.model_dump(mode="json")
    return out


def _older(names: list[str], days: int, *, as_json: bool) -> int:
    before = datetime.datetime.now(tz=datetime.UTC).date() - datetime.timedelta(days=days)
    old = sorted(
        {
            (fact.retrieved.isoformat(), name, flag, fact.source)
            for name in names
            for _, flag, fact in _every(name)
            if fact.retrieved is not None and fact.retrieved < before
        }
    )
    if as_json:
        keys = ("retrieved", "provider", "fact", "source")
        print(json.dumps([dict(zip(keys, row, strict=True)) for row in old]))
    else:
        for retrieved, name, flag, source in old:
            print(f"{retrieved}  {name}  {flag}  {source}")
        print(f"{len(old)} facts were read more than {days} days ago.")
    return 0
