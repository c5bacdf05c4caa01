"""``unigpu inventory``: everything that costs money now, on every account with a key."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING

import click

from . import options

if TYPE_CHECKING:
    from ..models.inventory import Inventory


@click.command()
@options.PROVIDERS
@options.JSON
def command(providers: tuple[str, ...], *, as_json: bool) -> int:
    """List everything that costs money now on every account with a key, including what unigpu did not create."""
    from .._client import Client

    with Client() as client:
        found = client.inventory(provider=providers or None)
    if as_json:
        items = [item.model_dump(mode="json") for item in found]
        print(json.dumps({"items": items, "unreadable": {k: str(v) for k, v in found.unreadable.items()}}))
    else:
        _show(found)
    return 1 if found.unreadable else 0


def _show(found: Inventory) -> None:
    from ..models.deployment import usd

    for item in found:
        words = [f"{item.name or item.id} ({item.kind} {item.id} on {item.provider}, {item.owner})"]
        words.append(f"{item.state or '–'}, {usd(item.per_hour)}/h, {usd(item.per_month)}/month")
        print(": ".join(words) + (f" – {item.note}" if item.note else ""))
    print(f"in all: {usd(found.per_hour)}/h, {usd(found.per_month)}/month")
    for provider, error in found.unreadable.items():
        print(f"{provider} could not be read: {error}", file=sys.stderr)
