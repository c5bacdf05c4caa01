"""What repeating costs and saves, by fault rate, with and without retry tokens: 20,000 calls each, on virtual time.

A call's sending fails with the given probability, independently (HTTP 503). The breaker is left out of the first two
pairs of columns, so that they show the tokens alone; the last pair is what a client really does. A pause of 50 ms is
between calls, so that an hour's worth of calls passes in seconds.
"""

from __future__ import annotations

import argparse
import contextlib
import random
import time

from unigpu._io.bridge import run_sync
from unigpu._io.clock import InstantClock
from unigpu._io.contract import CallClass, Headers, Request, Response
from unigpu._io.in_memory import MemoryIo
from unigpu._io.resilience.protection import Protection
from unigpu._io.resilience.retry import RetryingIo
from unigpu._io.resilience.retry_budget import RetryTokens
from unigpu.errors import CircuitOpen

RATES = (0.05, 0.20, 0.30, 0.50, 0.80, 1.00)
PAUSE_S = 0.05
GOOD, BAD = Response(status=200, headers=Headers()), Response(status=503, headers=Headers())


def run(rate: float, protection: Protection, calls: int, seed: int) -> tuple[float, float]:
    """Sendings per call, and the share of calls that succeeded."""
    clock, dice, sent, good = InstantClock(), random.Random(seed), 0, 0

    def handle(_: Request) -> Response:
        nonlocal sent
        sent += 1
        return BAD if dice.random() < rate else GOOD

    io = RetryingIo(MemoryIo(handle, clock, sync=True, random=dice.random), protection=protection)
    for _ in range(calls):
        request = Request(
            method="GET",
            url="https://api.example/",
            operation="bench.get",
            role="control",
            call=CallClass.IDEMPOTENT,
            deadline=clock.now() + 60.0,
        )
        with contextlib.suppress(CircuitOpen):
            good += run_sync(io.send(request)).status == 200
        clock.sleep(PAUSE_S)
    return sent / calls, good / calls


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--calls", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=7)
    args = parser.parse_args()
    began = time.perf_counter()
    print(f"{args.calls:,} calls, at most 4 sendings each, seed {args.seed}\n")
    print("| Fault rate | Attempts per call, no tokens | With tokens | Success, no tokens | With tokens |"
          " Attempts, tokens and breaker | Success, both |")  # fmt: skip
    print("|---|---|---|---|---|---|---|")
    for rate in RATES:
        plain = run(rate, Protection(), args.calls, args.seed)
        tokens = run(rate, Protection(tokens=RetryTokens()), args.calls, args.seed)
        both = run(rate, Protection.usual(), args.calls, args.seed)
        print(
            f"| {rate:.0%} | {plain[0]:.2f} | {tokens[0]:.2f} | {plain[1]:.3%} | {tokens[1]:.3%} "
            f"| {both[0]:.2f} | {both[1]:.3%} |"
        )
    print(f"\n{time.perf_counter() - began:.1f} s")


if __name__ == "__main__":
    main()
