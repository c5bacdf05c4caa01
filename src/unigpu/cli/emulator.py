"""``unigpu cloud``: the emulated platforms on this machine."""

from __future__ import annotations

import click


@click.group()
def command() -> None:
    """Serve emulated platforms on this machine."""


@command.command()
@click.argument("platforms", nargs=-1)
@click.option("--host", default="127.0.0.1", help="A loopback address (default: 127.0.0.1).")
@click.option("--port", type=int, default=0, help="A port (default: any free one).")
def serve(platforms: tuple[str, ...], host: str, port: int) -> int:
    """Serve the platforms' APIs on loopback (default: all of them).

    Prints one line of JSON: the base URLs, and the key that they accept.
    """
    from ..emulator.serve import serve_main

    return serve_main(platforms, host, port)
