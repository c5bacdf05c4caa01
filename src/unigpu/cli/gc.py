"""``unigpu gc``: what failed deploys left behind; with ``--delete`` it is deleted."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING

import click

from . import options

if TYPE_CHECKING:
    from ..models.gc import GcReport


@click.command()
@options.PROVIDERS
@click.option("--namespace", metavar="NAME", help="The namespace (default: the configured one).")
@click.option("--all-namespaces", is_flag=True, help="Show what belongs to other namespaces, too.")
@click.option("--delete", is_flag=True, help="Delete what may be deleted.")
@options.JSON
def command(
    providers: tuple[str, ...], namespace: str | None, *, all_namespaces: bool, delete: bool, as_json: bool
) -> int:
    """List what deploys left behind and no deployment uses.

    With --delete, this deletes what deploys of this machine gave up, duplicates of one name, and what has expired. It
    never deletes what is unclaimed, and deletes nothing when a provider's list could not be read.
    """
    from .._client import Client

    with Client(namespace=namespace) as client:
        report = client.gc(provider=providers or None, delete=delete, all_namespaces=all_namespaces)
    if as_json:
        rows = [row.model_dump(mode="json") for row in report]
        print(json.dumps({"rows": rows, "unreadable": {k: str(v) for k, v in report.unreadable.items()}}))
    else:
        _show(report)
    # For CI: a list is incomplete, or something that should be gone still exists.
    return 1 if report.unreadable or (delete and report.deletable) else 0


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
