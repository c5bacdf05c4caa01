"""The program: its verbs, each imported only when it runs, and the exit codes."""

from __future__ import annotations

import difflib
import importlib
import sys
from collections.abc import Sequence
from typing import Final

import click

from ..errors import ConfigurationError, UniGPUError

VERBS: Final = {
    "plan": "Show what a deploy would do and cost.",
    "deploy": "Create a declared deployment, or use the one that exists.",
    "deployments": "List your deployments.",
    "invoke": "Call a deployment once.",
    "scale": "Set the minimum and maximum number of workers.",
    "teardown": "Delete a deployment, and verify that it is gone.",
    "logs": "Print the output of a deployment's workers.",
    "explain": "Explain why a deployment is not ready.",
    "offers": "List the GPUs that are available now, the cheapest first.",
    "inventory": "List everything that costs money now.",
    "gc": "List what failed deploys left behind, or delete it.",
    "facts": "Compare the platforms, with a source for each fact.",
    "config": "Show where each setting comes from.",
    "image": "Print a Dockerfile that runs on every platform.",
    "emulator": "Serve emulated platforms on this machine.",
}
"""Each verb with its line of help. The module of the same name defines it as ``command``."""


class Program(click.Group):
    """Imports a verb's module when the verb runs, so that one verb never pays for the imports of another."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in VERBS:
            return None
        command: click.Command = importlib.import_module(f".{cmd_name}", __package__).command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):  # click would import every verb to read its help
            formatter.write_dl(list(VERBS.items()))

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        near = () if args[0] in VERBS else difflib.get_close_matches(args[0], VERBS, n=1)
        if near:  # click suggests only the commands that are already imported
            ctx.fail(f"No such command {args[0]!r}. Did you mean {near[0]!r}?")
        return super().resolve_command(ctx, args)

    def invoke(self, ctx: click.Context) -> int:
        code: int = super().invoke(ctx)
        sys.stdout.flush()  # here, where click handles a pipe that its reader has closed
        return code


@click.group(cls=Program, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="unigpu", message="%(version)s", help="Print the version.")
def program() -> None:
    """One client for serverless GPUs."""


def run(argv: Sequence[str] | None) -> int:
    """Run one command, and turn what it raises into an exit code."""
    try:
        code: int = program.main(argv, standalone_mode=False)
    except click.Abort:  # Ctrl-C
        return 130
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except UniGPUError as error:
        print(f"unigpu: {error}", file=sys.stderr)
        return 2 if isinstance(error, ConfigurationError) else 1
    return code
