"""``unigpu explain NAME``: why a deployment is not ready, with evidence and the next step."""

from __future__ import annotations

import click

from . import options


@click.command()
@options.DEPLOYMENT
@options.JSON
def command(deployment: str, *, as_json: bool) -> int:
    """Explain why a deployment is not ready, with the evidence and the next step.

    DEPLOYMENT is a name, or an address such as "summarize@runpod".
    """
    from .._client import Client

    with Client() as client:
        found = client.explain(deployment)
    print(found.model_dump_json() if as_json else found)
    return 0 if found.cause in ("ready", "cold") else 1
