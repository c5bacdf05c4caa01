"""``unigpu logs NAME``: what its workers print."""

from __future__ import annotations

import click

from . import options


@click.command()
@options.DEPLOYMENT
@click.option("--worker", metavar="ID", help="Only this worker.")
@click.option("--tail", type=int, default=200, metavar="N", help="Start this many lines back (default: 200).")
@click.option("--follow", is_flag=True, help="Continue with new lines until Ctrl-C.")
def command(deployment: str, worker: str | None, tail: int, *, follow: bool) -> int:
    """Print the last lines of a deployment's workers.

    DEPLOYMENT is a name, or an address such as "summarize@runpod".
    """
    from .._client import Client

    with Client() as client:
        for line in client.logs(deployment, worker=worker, follow=follow, tail=tail):
            print(f"{line.worker_id}: {line}" if line.worker_id else line, flush=follow)
    return 0
