"""``python -m unigpu explain NAME``: why a deployment is not ready, with evidence and the next step."""

from __future__ import annotations

import argparse


def add(parser: argparse.ArgumentParser) -> None:
    parser.description = "Say why a deployment is not ready: what was seen, and what to do."
    parser.add_argument("deployment", help='its name, or an address as in "summarize@runpod"')
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.set_defaults(run=_run)


def _run(args: argparse.Namespace) -> int:
    from .._client import Client

    with Client() as client:
        found = client.explain(args.deployment)
    print(found.model_dump_json() if args.json else found)
    return 0 if found.cause in ("ready", "cold") else 1
