"""``python -m unigpu plan NAME``: what deploying a declared deployment would do and cost. Nothing is changed."""

from __future__ import annotations

import argparse
import json


def add(parser: argparse.ArgumentParser) -> None:
    parser.description = "Show what deploying a declared deployment would do and cost, on every provider with a key."
    parser.add_argument("name", help='a deployment of the configuration, or an address as in "summarize@runpod"')
    parser.add_argument("--provider", action="append", help="only this provider (may be given several times)")
    parser.add_argument("--replace", action="store_true", help="what exists and differs would be replaced")
    parser.add_argument("--adapt", action="store_true", help="take the nearest thing for what a platform cannot do")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.set_defaults(run=_run)


def _run(args: argparse.Namespace) -> int:
    from .._client import Client

    with Client() as client:
        plans = client.plan(
            args.name,
            provider=args.provider,
            if_exists="replace" if args.replace else "adopt",
            on_unsupported="adapt" if args.adapt else "raise",
        )
    if args.json:
        listed = [plan.model_dump(mode="json") for plan in plans]
        print(json.dumps({"plans": listed, "unreadable": {k: str(v) for k, v in plans.unreadable.items()}}))
    else:
        print(plans)
        for plan in plans:
            if plan.ok:
                print(f"\n{plan}")
    return 0 if any(plan.ok for plan in plans) else 1
