"""``unigpu deploy NAME``: create a declared deployment, or use the one that exists."""

from __future__ import annotations

import sys

import click

from . import options


@click.command()
@click.argument("name")
@click.option("--provider", metavar="NAME", help="Deploy there (default: the configured provider).")
@options.REPLACE
@options.ADAPT
@click.option("--worker", is_flag=True, help="Start a worker, and wait until it is ready.")
@click.option("--settle", is_flag=True, help="Wait for every follow-up check of the provider's lists.")
@click.option("--timeout", type=float, default=1800.0, metavar="S", help="Seconds for everything (default: 1800).")
def command(
    name: str, provider: str | None, *, replace: bool, adapt: bool, worker: bool, settle: bool, timeout: float
) -> int:
    """Deploy what the configuration declares as [deployments.NAME].

    It stays deployed when the command ends; `unigpu teardown` deletes it. `unigpu plan` shows first what a deploy
    would do and cost.
    """
    from .._client import Client

    with Client() as client:
        app = client.deploy(
            name,
            provider=provider,
            wait="worker" if worker else True,
            timeout=timeout,
            if_exists="replace" if replace else "reuse",
            on_unsupported="adapt" if adapt else "raise",
            settle=settle,
        )
        print(f"{app.name}@{app.provider}: {app.change}, {app.state}, {app.rate}")
        for adaptation in app.adaptations:
            print(f"adapted: {adaptation}", file=sys.stderr)
    return 0
