"""``python -m unigpu facts``: what is known of each platform, where it is written, and how sure it is."""

from __future__ import annotations

import argparse
import datetime
import json
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ..elasticity.fact import Fact


def add(parser: argparse.ArgumentParser) -> None:
    parser.description = "Show what is known of each platform: the four questions side by side, or every fact of one."
    parser.add_argument("provider", nargs="*", help="one: every fact of it; several, or none: side by side")
    parser.add_argument("--interface", choices=("function", "http"), default="function")
    parser.add_argument("--kind", choices=("serverless", "pod"), default="serverless")
    parser.add_argument("--older", type=int, metavar="DAYS", help="list facts that were read more than DAYS ago")
    parser.add_argument("--json", action="store_true", help="print one JSON object with every fact")
    parser.set_defaults(run=_run)


def _run(args: argparse.Namespace) -> int:
    from .. import _registry
    from .._client._compare import compare, facts_of

    names: list[str] = list(dict.fromkeys(args.provider)) or list(_registry.installed())
    if args.older is not None:
        return _older(names, args.older, as_json=args.json)
    if args.json:
        print(json.dumps({name: _whole(name) for name in names}))
    elif len(names) == 1 and args.provider:
        shapes, further, reading = facts_of(names[0])
        if reading:
            print(reading, end="\n\n")
        asked = [one for one in shapes if (one.interface, one.kind) == (args.interface, args.kind)]
        print(asked[0] if asked else compare(names[0], interface=args.interface, kind=args.kind))
        for name, fact in further.items():
            print(f"\n{fact.title}\n  {name} = {fact}\n  {fact.source}" + (f"\n  {fact.note}" if fact.note else ""))
    else:
        print(compare(*names, interface=args.interface, kind=args.kind))
    return 0


def _every(provider: str) -> Iterator[tuple[str, str, Fact[Any]]]:
    """Each fact of a provider: which deployments, its name, and it."""
    from .._client._compare import facts_of

    shapes, further, _ = facts_of(provider)
    for caps in shapes:
        for flag, fact in caps.facts():
            yield f"{caps.interface}/{caps.kind}", flag, fact
    for name, one in further.items():
        yield "more", name, one


def _whole(provider: str) -> dict[str, Any]:
    from .._client._compare import facts_of

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
            if fact.retrieved < before
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
