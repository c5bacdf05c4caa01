"""``unigpu invoke NAME JSON``: one call. The output goes to stdout as JSON, everything else to stderr."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from typing import Any, cast

import click

from ..errors import ConfigurationError
from . import options


@click.command()
@options.DEPLOYMENT
@click.argument("input")
@click.option("--stream", is_flag=True, help="Print each chunk when it arrives, one JSON value a line.")
@click.option("--timeout", type=float, metavar="S", help="Seconds for the whole call.")
@click.option("--start-timeout", type=float, metavar="S", help="Seconds to wait while no worker is ready.")
def command(deployment: str, input: str, *, stream: bool, timeout: float | None, start_timeout: float | None) -> int:
    """Call a deployment once, and print its output as JSON.

    DEPLOYMENT is a name, or an address such as "summarize@runpod". INPUT is a JSON object; - reads it from stdin.
    """
    from .._client import Client

    given = _object(sys.stdin.read() if input == "-" else input)
    with Client() as client:
        if stream:
            with client.stream(deployment, given, timeout=timeout, start_timeout=start_timeout) as chunks:
                for chunk in chunks:
                    print(json.dumps(chunk), flush=True)
            return 0
        result = client.invoke(deployment, given, timeout=timeout, start_timeout=start_timeout)
    print(json.dumps(result.output))
    timing = result.timing
    parts = {
        "queue": timing.queue,
        "cold start": timing.cold_start,
        "execution": timing.execution,
        "total": timing.total,
    }
    times = ", ".join(f"{name} {'–' if s is None else f'{s:.3f} s'}" for name, s in parts.items())
    print(f"worker {result.worker_id or '–'}: {times}", file=sys.stderr)
    return 0


def _object(text: str) -> Mapping[str, Any]:
    try:
        found: object = json.loads(text)
    except ValueError as exc:
        raise ConfigurationError(f"the input is not JSON: {exc}", hint='Give an object: \'{"text": "..."}\'.') from exc
    if not isinstance(found, dict):
        raise ConfigurationError("the input is not a JSON object", hint='Give an object: \'{"text": "..."}\'.')
    return cast("Mapping[str, Any]", found)
