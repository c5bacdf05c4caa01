"""How many frames and files of unigpu a call passes on its way to the connection, and how often its input is encoded.

    python scripts/call_depth.py             # print the table
    python scripts/call_depth.py --check     # exit 1 where a figure is above its limit

Measured in the synchronous client, under `unigpu_mock`, at the request that does the work: the one that creates what
is paid for `deploy`, and the one that carries the input for `invoke`. A frame counts where its code is in ``unigpu``,
from the user's call to `HttpIo.send`, both included.
"""

from __future__ import annotations

import argparse
import inspect
import json
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

import unigpu
from unigpu._io.http.client import SyncHttpIo
from unigpu.testing import unigpu_mock

ROOT = Path(unigpu.__file__).parent
MARK = "call-depth-input"
SPEC: dict[str, Any] = {"image": "ghcr.io/you/app@sha256:" + "0" * 64, "gpu": "RTX 4090", "max_price": 2.0}
# Provider → the operation that creates what is paid, and the one that carries the input of a call.
OPERATIONS = {
    "runpod": ("runpod.endpoint.create", "runpod.job.submit"),
    "vast": ("vast.template.create", "vast.job.call"),
}
# The emulator and the mock encode as well: they are no part of the client.
OURS = frozenset({"_client", "_io", "_lifecycle", "driver", "driver.py", "elasticity", "models", "providers"})


@dataclass
class Seen:
    """What one verb sent."""

    stacks: dict[str, list[CodeType]] = field(default_factory=dict[str, list[CodeType]])
    requests: int = 0
    encodings: int = 0


@dataclass(frozen=True)
class Row:
    provider: str
    verb: str
    operation: str
    frames: int
    files: int
    requests: int
    encodings: int


def stack(frame: FrameType | None) -> list[CodeType]:
    """The code of unigpu's frames from *frame* outwards, the innermost first."""
    found: list[CodeType] = []
    while frame is not None:
        if ROOT in Path(frame.f_code.co_filename).parents:
            found.append(frame.f_code)
        frame = frame.f_back
    return found


@contextmanager
def watched() -> Iterator[Seen]:
    """Note every request that reaches `HttpIo.send`, and every encoding of something that holds `MARK`."""
    seen = Seen()
    send, encode = SyncHttpIo.send, json.JSONEncoder.encode

    async def noting(self: SyncHttpIo, request: Any) -> Any:
        seen.requests += 1
        if request.operation not in seen.stacks:  # a request that is sent again has come the same way
            seen.stacks[request.operation] = [send.__code__, *stack(inspect.currentframe())]
        return await send(self, request)

    def counting(self: json.JSONEncoder, value: Any) -> str:
        text = encode(self, value)
        outer = next(iter(stack(inspect.currentframe())), None)
        if MARK in text and outer is not None and Path(outer.co_filename).relative_to(ROOT).parts[0] in OURS:
            seen.encodings += 1
        return text

    SyncHttpIo.send, json.JSONEncoder.encode = noting, counting  # type: ignore[method-assign]
    try:
        yield seen
    finally:
        SyncHttpIo.send, json.JSONEncoder.encode = send, encode  # type: ignore[method-assign]


def measure(provider: str, *, show: bool = False) -> Iterator[Row]:
    create, call = OPERATIONS[provider]
    with unigpu_mock(provider), unigpu.Client(provider) as client:
        with watched() as seen:
            app = client.deploy(name="depth", workers=(0, 1), progress="off", **SPEC)
        yield row(provider, "deploy", create, seen, show=show)
        with watched() as seen:
            client.invoke(app, {"text": MARK})
        yield row(provider, "invoke", call, seen, show=show)


def row(provider: str, verb: str, operation: str, seen: Seen, *, show: bool) -> Row:
    if operation not in seen.stacks:
        raise SystemExit(f"{provider} {verb}: no {operation} among {', '.join(seen.stacks)}")
    codes = seen.stacks[operation]
    if show:
        print(f"{provider} {verb}, to {operation}:")
        for code in reversed(codes):
            print(f"    {Path(code.co_filename).relative_to(ROOT)}: {code.co_qualname}")
    files = {code.co_filename for code in codes}
    return Row(provider, verb, operation, len(codes), len(files), seen.requests, seen.encodings)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="exit 1 where a figure is above its limit")
    parser.add_argument("--show", action="store_true", help="print every frame")
    parser.add_argument("--invoke", default="15/12", metavar="FRAMES/FILES", help="limits of invoke (default: 15/12)")
    parser.add_argument("--deploy", default="16/12", metavar="FRAMES/FILES", help="limits of deploy (default: 16/12)")
    parser.add_argument("--encodings", type=int, default=1, help="limit of encodings of an input (default: 1)")
    given = parser.parse_args(arguments)
    rows = [one for provider in OPERATIONS for one in measure(provider, show=given.show)]
    print(f"{'provider':10}{'verb':8}{'to':26}{'frames':>7}{'files':>7}{'requests':>10}{'encodings':>11}")
    over: list[str] = []
    for one in rows:
        encodings = str(one.encodings) if one.verb == "invoke" else "-"
        print(
            f"{one.provider:10}{one.verb:8}{one.operation:26}{one.frames:7}{one.files:7}"
            f"{one.requests:10}{encodings:>11}"
        )
        frames, files = map(int, getattr(given, one.verb).split("/"))
        if one.frames > frames or one.files > files:
            over.append(f"{one.provider} {one.verb}: above {frames} frames in {files} files")
        if one.verb == "invoke" and one.encodings > given.encodings:
            over.append(f"{one.provider} {one.verb}: the input is encoded more than {given.encodings} time(s)")
    for line in over:
        print(line)
    return int(given.check and bool(over))


if __name__ == "__main__":
    sys.exit(main())
