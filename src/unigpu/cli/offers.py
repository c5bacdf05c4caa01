"""``unigpu offers``: the GPUs that are available now, the cheapest first."""

from __future__ import annotations

import json
from typing import Literal

import click

from . import options


@click.command()
@click.argument("gpu", nargs=-1)
@options.PROVIDERS
@click.option("--max-price", type=float, metavar="USD", help="At most this price per worker and hour.")
@click.option("--region", "regions", multiple=True, help="A country or an area. Repeat it for several.")
@click.option("--kind", type=click.Choice(("serverless", "pod")), default="serverless")
@options.JSON
def command(
    gpu: tuple[str, ...],
    providers: tuple[str, ...],
    max_price: float | None,
    regions: tuple[str, ...],
    kind: Literal["serverless", "pod"],
    *,
    as_json: bool,
) -> int:
    """List the GPUs that are available now on every provider with a key, the cheapest first.

    GPU is a model or a memory size, such as "RTX 4090" or "24GB" (default: any).
    """
    from .._client import Client

    with Client() as client:
        found = client.offers(
            provider=providers or None,
            gpu=gpu or None,
            max_price=max_price,
            regions=regions or None,
            kind=kind,
        )
    if as_json:
        listed = [one.model_dump(mode="json") for one in found]
        print(json.dumps({"offers": listed, "unreadable": {k: str(v) for k, v in found.unreadable.items()}}))
    else:
        print(found)
    return 1 if found.unreadable else 0
