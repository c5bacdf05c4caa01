"""``python -m unigpu logs NAME``: what its workers print."""

from __future__ import annotations

import argparse


def add(parser: argparse.ArgumentParser) -> None:
    parser.description = "Print the last lines of a deployment's workers; with --follow, new ones until Ctrl-C."
    parser.add_argument("deployment", help='its name, or an address as in "summarize@runpod"')
    parser.add_argument("--worker", help="only this worker's")
    parser.add_argument("--tail", type=int, default=200, metavar="N", help="so many lines back (default: 200)")
    parser.add_argument("--follow", action="store_true", help="go on with new lines")
    parser.set_defaults(run=_run)


def _run(args: argparse.Namespace) -> int:
    from .._client import Client

    with Client() as client:
        for line in client.logs(args.deployment, worker=args.worker, follow=args.follow, tail=args.tail):
            print(f"{line.worker_id}: {line}" if line.worker_id else line, flush=args.follow)
    return 0
