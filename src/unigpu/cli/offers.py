"""``python -m unigpu offers``: what GPUs could be had now, the cheapest first."""

from __future__ import annotations

import argparse
import json


def add(parser: argparse.ArgumentParser) -> None:
    parser.description = "Show what GPUs could be had now on every provider with a key, the cheapest first."
    parser.add_argument("gpu", nargs="*", help='acceptable GPUs, as in "RTX 4090" or "24GB" (default: any)')
    parser.add_argument("--provider", action="append", help="only this provider (may be given several times)")
    parser.add_argument("--max-price", type=float, help="USD per worker-hour")
    parser.add_argument("--region", action="append", help="a country or an area (may be given several times)")
    parser.add_argument("--kind", choices=("serverless", "pod"), default="serverless")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.set_defaults(run=_run)


def _run(args: argparse.Namespace) -> int:
    from .._client import Client

    with Client() as client:
        found = client.offers(
            provider=args.provider,
            gpu=args.gpu or None,
            max_price=args.max_price,
            regions=args.region,
            kind=args.kind,
        )
    if args.json:
        listed = [one.model_dump(mode="json") for one in found]
        print(json.dumps({"offers": listed, "unreadable": {k: str(v) for k, v in found.unreadable.items()}}))
    else:
        print(found)
    return 1 if found.unreadable else 0
