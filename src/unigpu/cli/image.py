"""``unigpu image``: what a container image must hold so that one image serves every platform."""

from __future__ import annotations

import click


@click.group()
def command() -> None:
    """Show what a container image must hold so that one image serves every platform."""


@command.command()
@click.argument("target", required=False)
@click.option("--command", "server", default="", help='Run a server that listens on $PORT: "python server.py".')
@click.option("--python", default="3.11", metavar="VERSION", help="The Python version (default: 3.11).")
def dockerfile(target: str | None, server: str, python: str) -> int:
    """Print a Dockerfile that serves a handler, or runs a server, on every platform.

    TARGET is the handler: "module:name" or "file.py:name".
    """
    import shlex

    from ..errors import ConfigurationError
    from ..worker.dockerfile import dockerfile

    try:
        words = shlex.split(server)
    except ValueError as error:
        raise ConfigurationError(f"--command: {str(error).lower()}") from None
    print(dockerfile(target, command=words, python=python), end="")
    return 0
