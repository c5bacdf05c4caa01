"""``python -m unigpu deployments``: those of this namespace, on every provider with a key."""

from __future__ import annotations

import argparse
import json
import sys

from ..models._lines import worker_range_text


def add(parser: argparse.ArgumentParser) -> None:
    parser.description = "List the deployments of this namespace, on every provider that has a key."
    parser.add_argument("--provider", action="append", help="only this provider (may be given several times)")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.set_defaults(run=_run)


def _run(args: argparse.Namespace) -> int:
    from .._client import Client

    with Client() as client:
        found = client.deployments(provider=args.provider)
        infos = [one.info for one in found]
    if args.json:
        rows = [info.model_dump(mode="json") for info in infos]
        print(json.dumps({"deployments": rows, "unreadable": {k: str(v) for k, v in found.unreadable.items()}}))
    else:
        for info in infos:
            workers = "workers unknown" if info.workers is None else f"{worker_range_text(info.workers)} workers"
            print(f"{info.name or info.provider_name}@{info.provider}: {info.state}, {workers}, {info.rate}")
        if not infos and not found.unreadable:
            print("nothing is deployed")
        for provider, error in found.unreadable.items():
            print(f"{provider} could not be read: {error}", file=sys.stderr)
    return 1 if found.unreadable else 0
