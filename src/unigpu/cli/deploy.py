"""``python -m unigpu deploy NAME``: create a declared deployment, or adopt the one that is there."""

from __future__ import annotations

import argparse
import sys


def add(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Deploy what the configuration declares as [deployments.NAME]. It stays when the command is over; "
        "`teardown` ends it. Say `plan` first to see what it would do and cost."
    )
    parser.add_argument("name", help="a deployment of the configuration")
    parser.add_argument("--provider", help="where (default: as configured)")
    parser.add_argument("--replace", action="store_true", help="replace what exists and differs")
    parser.add_argument("--adapt", action="store_true", help="take the nearest thing for what a platform cannot do")
    parser.add_argument("--worker", action="store_true", help="start a worker, and wait until it is ready")
    parser.add_argument(
        "--settle", action="store_true", help="wait for every look at the provider's lists that is owed"
    )
    parser.add_argument("--timeout", type=float, default=1800.0, metavar="S", help="seconds (default: 1800)")
    parser.set_defaults(run=_run)


def _run(args: argparse.Namespace) -> int:
    from .._client import Client

    with Client() as client:
        app = client.deploy(
            args.name,
            provider=args.provider,
            wait="worker" if args.worker else True,
            timeout=args.timeout,
            if_exists="replace" if args.replace else "adopt",
            on_unsupported="adapt" if args.adapt else "raise",
            settle=args.settle,
        )
        print(f"{app.name}@{app.provider}: {app.change}, {app.state}, {app.rate}")
        for adaptation in app.adaptations:
            print(f"adapted: {adaptation}", file=sys.stderr)
    return 0
