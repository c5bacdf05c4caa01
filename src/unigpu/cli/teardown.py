"""``unigpu teardown NAME``: deleted, and verified gone."""

from __future__ import annotations

import click

from . import options


@click.command()
@options.DEPLOYMENT
@click.option("--volumes", is_flag=True, help="Delete its volumes, too, with the data on them.")
@click.option("--timeout", type=float, default=600.0, metavar="S", help="Seconds for everything (default: 600).")
def command(deployment: str, *, volumes: bool, timeout: float) -> int:
    """Delete a deployment, and verify that it is gone. Its volumes stay without --volumes.

    DEPLOYMENT is a name, or an address such as "summarize@runpod".
    """
    from .._client import Client

    with Client() as client:
        client.teardown(deployment, volumes=volumes, timeout=timeout)
    print(f"{deployment} is gone")
    return 0
