"""``python -m unigpu inventory``: everything that costs money now, on every account with a key."""

from __future__ import annotations

import argparse
import json
import sys

from ..models.deployment import usd
from ..models.inventory import Inventory


def add(parser: argparse.ArgumentParser) -> None:
    parser.description = "Show everything that costs money now on every account with a key, whoever made it."
    parser.add_argument("--provider", action="append", help="only this provider (may be given several times)")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.set_defaults(run=_run)


def _run(args: argparse.Namespace) -> int:
    from .._client import Client

    with Client() as client:
        found = client.inventory(provider=args.provider)
    if args.json:
        items = [item.model_dump(mode="json") for item in found]
        print(json.dumps({"items": items, "unreadable": {k: str(v) for k, v in found.unreadable.items()}}))
    else:
        _show(found)
    return 1 if found.unreadable else 0


def _show(found: Inventory) -> None:
    for item in found:
        words = [f"{item.name or item.id} ({item.kind} {item.id} on {item.provider}, {item.owner})"]
        words.append(f"{item.state or '–'}, {usd(item.per_hour)}/h, {usd(item.per_month)}/month")
        print(": ".join(words) + (f" – {item.note}" if item.note else ""))
    print(f"in all: {usd(found.per_hour)}/h, {usd(found.per_month)}/month")
    for provider, error in found.unreadable.items():
        print(f"{provider} could not be read: {error}", file=sys.stderr)
