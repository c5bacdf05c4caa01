"""``python -m unigpu scale NAME MIN [MAX]``: absolute limits."""

from __future__ import annotations

import argparse


def add(parser: argparse.ArgumentParser) -> None:
    parser.description = "Set how many workers a deployment has at least and at most. One number: exactly so many."
    parser.add_argument("deployment", help='its name, or an address as in "summarize@runpod"')
    parser.add_argument("least", type=int, metavar="MIN", help="workers at least")
    parser.add_argument("most", type=int, nargs="?", metavar="MAX", help="workers at most (default: MIN)")
    parser.add_argument("--adapt", action="store_true", help="take the nearest thing for what a platform cannot do")
    parser.set_defaults(run=_run)


def _run(args: argparse.Namespace) -> int:
    from .._client import Client

    with Client() as client:
        limits = (args.least, args.least if args.most is None else args.most)
        app = client.scale(args.deployment, limits, on_unsupported="adapt" if args.adapt else "raise")
        print(f"{app.name}@{app.provider}: {app.state}, {app.rate}")
    return 0
