"""The command line: one group of commands a file, each loaded only when it is used."""

from __future__ import annotations

import argparse
import importlib
import os
import sys
from collections.abc import Callable, Sequence
from typing import Final, Protocol, cast

from ..errors import ConfigurationError, UniGPUError


class Group(Protocol):
    """One group of commands: adds its parsers, each with ``run`` as a default."""

    def add(self, parser: argparse.ArgumentParser) -> None: ...


_GROUPS: Final = {
    "plan": "what a deploy would do and cost",
    "deploy": "create or adopt what the configuration declares",
    "deployments": "what is deployed",
    "invoke": "call a deployment once",
    "scale": "set the least and the most workers",
    "teardown": "end a deployment, and verify that it is gone",
    "logs": "what its workers print",
    "explain": "why a deployment is not ready",
    "offers": "what GPUs could be had now",
    "inventory": "everything that costs money now",
    "gc": "show, or end, what failed deploys left behind",
    "facts": "what is known of each platform, and where it is written",
    "config": "where each setting comes from",
    "image": "what a container image must hold",
    "cloud": "run the small cloud on this machine",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command. Returns the exit code: 0 fine, 1 it failed, 2 it was asked wrongly."""
    words = list(sys.argv[1:] if argv is None else argv)
    parser = argparse.ArgumentParser(prog="python -m unigpu", description="One client for serverless GPUs.")
    parser.add_argument("--version", action="store_true", help="print the version")
    groups = parser.add_subparsers(dest="group", metavar="COMMAND", title="commands")
    for name, text in _GROUPS.items():
        sub = groups.add_parser(name, help=text, description=text)
        if words[:1] == [name]:  # only the group that is used is imported
            group = cast("Group", importlib.import_module(f".{name}", __name__))
            group.add(sub)
    args = parser.parse_args(words)
    if args.version:
        from importlib.metadata import version

        print(version("unigpu"))
        return 0
    run: Callable[[argparse.Namespace], int] | None = getattr(args, "run", None)
    if run is None:
        (groups.choices[args.group] if args.group else parser).print_help(sys.stderr)
        return 2
    try:
        code = run(args)
        sys.stdout.flush()  # here: at the end of the program nobody could answer for it
        return code
    except BrokenPipeError:  # whoever read has gone, as `head` does; so goes what is still in the buffer
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115 - open to the end of the process
        return 1
    except ConfigurationError as error:
        print(f"unigpu: {error}", file=sys.stderr)
        return 2
    except UniGPUError as error:
        print(f"unigpu: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
