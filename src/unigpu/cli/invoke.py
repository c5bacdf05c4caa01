"""``python -m unigpu invoke NAME JSON``: one call. The output goes to stdout as JSON, all else to stderr."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping
from typing import Any, cast

from ..errors import ConfigurationError


def add(parser: argparse.ArgumentParser) -> None:
    parser.description = "Call a deployment once. Its output is printed as JSON; with --stream, one line a chunk."
    parser.add_argument("deployment", help='its name, or an address as in "summarize@runpod"')
    parser.add_argument("input", help="the input, a JSON object; - reads it from stdin")
    parser.add_argument("--stream", action="store_true", help="print each chunk as it comes")
    parser.add_argument("--timeout", type=float, metavar="S", help="seconds for the whole call")
    parser.add_argument("--start-timeout", type=float, metavar="S", help="seconds without any ready worker")
    parser.set_defaults(run=_run)


def _run(args: argparse.Namespace) -> int:
    from .._client import Client

    given = _object(sys.stdin.read() if args.input == "-" else args.input)
    waits = {"timeout": args.timeout, "start_timeout": args.start_timeout}
    with Client() as client:
        if args.stream:
            with client.stream(args.deployment, given, **waits) as chunks:
                for chunk in chunks:
                    print(json.dumps(chunk), flush=True)
            return 0
        result = client.invoke(args.deployment, given, **waits)
    print(json.dumps(result.output))
    timing = result.timing
    parts = {
        "queue": timing.queue,
        "cold start": timing.cold_start,
        "execution": timing.execution,
        "total": timing.total,
    }
    said = ", ".join(f"{name} {'–' if s is None else f'{s:.3f} s'}" for name, s in parts.items())
    print(f"worker {result.worker_id or '–'}: {said}", file=sys.stderr)
    return 0


def _object(text: str) -> Mapping[str, Any]:
    try:
        found: object = json.loads(text)
    except ValueError as exc:
        raise ConfigurationError(f"the input is not JSON: {exc}", hint='Give an object: \'{"text": "..."}\'.') from exc
    if not isinstance(found, dict):
        raise ConfigurationError("the input is not a JSON object", hint='Give an object: \'{"text": "..."}\'.')
    return cast("Mapping[str, Any]", found)
