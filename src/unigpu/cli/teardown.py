"""``python -m unigpu teardown NAME``: ended, and verified gone."""

from __future__ import annotations

import argparse


def add(parser: argparse.ArgumentParser) -> None:
    parser.description = "End a deployment, and verify that it is gone. Its volumes stay unless --volumes is said."
    parser.add_argument("deployment", help='its name, or an address as in "summarize@runpod"')
    parser.add_argument("--volumes", action="store_true", help="delete its volumes, too, with what is on them")
    parser.add_argument("--timeout", type=float, default=600.0, metavar="S", help="seconds (default: 600)")
    parser.set_defaults(run=_run)


def _run(args: argparse.Namespace) -> int:
    from .._client import Client

    with Client() as client:
        client.teardown(args.deployment, volumes=args.volumes, timeout=args.timeout)
    print(f"{args.deployment} is gone")
    return 0
