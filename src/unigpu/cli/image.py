"""``python -m unigpu image``: what a container image must hold so that one image serves every platform."""

from __future__ import annotations

import argparse


def add(parser: argparse.ArgumentParser) -> None:
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    dockerfile = commands.add_parser(
        "dockerfile",
        help="print a Dockerfile for a handler, or for a server",
        description="Print a Dockerfile that serves a handler, or runs a server, on every platform.",
    )
    dockerfile.add_argument("target", nargs="?", help='the handler: "module:name" or "file.py:name"')
    dockerfile.add_argument(
        "--command", dest="server", default="", help='a server instead, which listens on $PORT: "python server.py"'
    )
    dockerfile.add_argument("--python", default="3.11", help="the Python version (default: %(default)s)")
    dockerfile.set_defaults(run=_dockerfile)


def _dockerfile(args: argparse.Namespace) -> int:
    import shlex

    from ..errors import ConfigurationError
    from ..worker.dockerfile import dockerfile

    try:
        command = shlex.split(args.server)
    except ValueError as error:
        raise ConfigurationError(f"--command: {str(error).lower()}") from None
    print(dockerfile(args.target, command=command, python=args.python), end="")
    return 0
