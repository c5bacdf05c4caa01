"""``python -m unigpu gc``: what failed deploys left, shown; with ``--delete`` it is ended."""

from __future__ import annotations

import argparse
import json
import sys

from ..models.gc import GcReport


def add(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Show what deploys left and nobody stands behind. With --delete, what this machine's deploys gave up, "
        "duplicates of one name, and what has expired is ended; what is unclaimed never is. Nothing is deleted when a "
        "provider's list could not be read."
    )
    parser.add_argument("--provider", action="append", help="only this provider (may be given several times)")
    parser.add_argument("--namespace", help="the namespace (default: as configured)")
    parser.add_argument("--all-namespaces", action="store_true", help="show those of other namespaces, too")
    parser.add_argument("--delete", action="store_true", help="delete what may be deleted")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.set_defaults(run=_run)


def _run(args: argparse.Namespace) -> int:
    from .._client import Client

    with Client(namespace=args.namespace) as client:
        report = client.gc(provider=args.provider, delete=args.delete, all_namespaces=args.all_namespaces)
    if args.json:
        rows = [row.model_dump(mode="json") for row in report]
        print(json.dumps({"rows": rows, "unreadable": {k: str(v) for k, v in report.unreadable.items()}}))
    else:
        _show(report)
    # For CI: something is not known, or is still there although it should not be.
    return 1 if report.unreadable or (args.delete and report.deletable) else 0


def _show(report: GcReport) -> None:
    for row in report:
        print(row)
    if not report and not report.unreadable:
        print("nothing was left behind")
    for provider, error in report.unreadable.items():
        print(f"{provider} could not be read: {error}", file=sys.stderr)
    if report.refused:
        print("nothing was deleted, because not everything could be read; --provider leaves one out", file=sys.stderr)
    elif report.deletable and not report.deleting:
        print(f"{len(report.deletable)} of them can be deleted: add --delete")
