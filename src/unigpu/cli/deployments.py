"""``unigpu deployments``: those of this namespace, on every provider with a key."""

from __future__ import annotations

import json
import sys

import click

from . import options


@click.command()
@options.PROVIDERS
@options.JSON
def command(providers: tuple[str, ...], *, as_json: bool) -> int:
    """List the deployments of this namespace, on every provider with a key."""
    from .._client import Client
    from ..models._text import worker_range_text

    with Client() as client:
        found = client.deployments(provider=providers or None)
        infos = [one.info for one in found]
    if as_json:
        rows = [info.model_dump(mode="json") for info in infos]
        print(json.dumps({"deployments": rows, "unreadable": {k: str(v) for k, v in found.unreadable.items()}}))
    else:
        for info in infos:
            workers = "workers unknown" if info.workers is None else f"{worker_range_text(info.workers)} workers"
            print(f"{info.name or info.provider_name}@{info.provider}: {info.state}, {workers}, {info.rate}")
        if not infos and not found.unreadable:
            print("nothing is deployed")
        for provider, error in found.unreadable.items():
            print(f"{provider} could not be read: {error}", file=sys.stderr)
    return 1 if found.unreadable else 0
