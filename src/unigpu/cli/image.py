"""``python -m unigpu image``: what a container image must hold so that one image serves every platform."""

from __future__ import annotations

import argparse


def add(parser: argparse.ArgumentParser) -> None:
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    dockerfile = commands.add_parser(
        "dockerfile",
        help="print a Dockerfile for a handler",
        description="Print a Dockerfile that serves a handler on every platform.",
    )
    dockerfile.add_argument("target", help='the handler: "module:name" or "file.py:name"')
    dockerfile.add_argument("--python", default="3.11", help="the Python version (default: %(default)s)")
    dockerfile.set_defaults(run=_dockerfile)


def _dockerfile(args: argparse.Namespace) -> int:
    from ..worker.dockerfile import dockerfile

    print(dockerfile(args.target, python=args.python), end="")
    return 0
