"""``unigpu scale NAME MIN [MAX]``: absolute limits."""

from __future__ import annotations

import click

from . import options


@click.command()
@options.DEPLOYMENT
@click.argument("minimum", type=int, metavar="MIN")
@click.argument("maximum", type=int, metavar="[MAX]", required=False)
@options.ADAPT
def command(deployment: str, minimum: int, maximum: int | None, *, adapt: bool) -> int:
    """Set the minimum and maximum number of workers (MAX defaults to MIN).

    DEPLOYMENT is a name, or an address such as "summarize@runpod".
    """
    from .._client import Client

    with Client() as client:
        limits = (minimum, minimum if maximum is None else maximum)
        app = client.scale(deployment, limits, on_unsupported="adapt" if adapt else "raise")
        print(f"{app.name}@{app.provider}: {app.state}, {app.rate}")
    return 0
