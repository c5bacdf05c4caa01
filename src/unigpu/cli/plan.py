"""``unigpu plan NAME``: what deploying a declared deployment would do and cost. Nothing is changed."""

from __future__ import annotations

import json

import click

from . import options


@click.command()
@click.argument("name")
@options.PROVIDERS
@options.REPLACE
@options.ADAPT
@options.JSON
def command(name: str, providers: tuple[str, ...], *, replace: bool, adapt: bool, as_json: bool) -> int:
    """Show what deploying a declared deployment would do and cost, on every provider with a key.

    NAME is a deployment of the configuration, or an address such as "summarize@runpod".
    """
    from .._client import Client

    with Client() as client:
        plans = client.plan(
            name,
            provider=providers or None,
            if_exists="replace" if replace else "reuse",
            on_unsupported="adapt" if adapt else "raise",
        )
    if as_json:
        listed = [plan.model_dump(mode="json") for plan in plans]
        print(json.dumps({"plans": listed, "unreadable": {k: str(v) for k, v in plans.unreadable.items()}}))
    else:
        print(plans)
        for plan in plans:
            if plan.ok:
                print(f"\n{plan}")
    return 0 if any(plan.ok for plan in plans) else 1
