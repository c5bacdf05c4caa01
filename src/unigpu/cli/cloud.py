"""``python -m unigpu cloud``: serve the small cloud, or supervise the local provider's workers."""

from __future__ import annotations

import argparse


def add(parser: argparse.ArgumentParser) -> None:
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)

    serve = commands.add_parser(
        "serve",
        help="serve platforms' wire protocols on loopback",
        description="Serve platforms' wire protocols on loopback. Prints one line of JSON: the base URLs, and the key "
        "that it accepts.",
    )
    serve.add_argument("faces", nargs="*", metavar="FACE", help="which platforms (default: all there are)")
    serve.add_argument("--host", default="127.0.0.1", help="a loopback address (default: %(default)s)")
    serve.add_argument("--port", type=int, default=0, help="a port (default: any free one)")
    serve.set_defaults(run=_serve)

    supervise = commands.add_parser(
        "supervise",
        help="run the local provider's supervisor (started by unigpu itself)",
        description="Run the local provider's supervisor. unigpu starts it by itself, with the lock's open file.",
    )
    supervise.add_argument("state_dir", help="the local provider's state directory")
    supervise.add_argument("lock_fd", type=int, help="the descriptor of the held lock")
    supervise.add_argument(
        "--idle-exit", type=float, default=3600.0, help="seconds without a call or a job after which it ends"
    )
    supervise.set_defaults(run=_supervise)


def _serve(args: argparse.Namespace) -> int:
    from ..cloud._standalone import serve_main

    return serve_main(tuple(args.faces), args.host, args.port)


def _supervise(args: argparse.Namespace) -> int:
    from ..cloud.supervisor import supervise_main

    return supervise_main(args.state_dir, args.lock_fd, idle_exit=args.idle_exit)
