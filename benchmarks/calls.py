"""1,000 one-second calls at once through `AsyncClient`, on the local provider: every room, and a real worker process.

    python benchmarks/calls.py [--calls 1000] [--seconds 1]

Prints how many completed with their own answer, and in what time; beside it one call alone, in the same run.
"""

from __future__ import annotations

import argparse
import asyncio
import tempfile
import time
from pathlib import Path

import unigpu

HANDLER = """
import asyncio

async def wait(input):
    await asyncio.sleep(input["seconds"])
    return {"n": input["n"]}
"""


async def measure(calls: int, seconds: float, folder: Path) -> None:
    (folder / "waits.py").write_text(HANDLER)
    async with unigpu.AsyncClient("local", state_dir=folder / "state") as client:
        deployed = await client.deploy(
            name="waits", handler=f"{folder}/waits.py:wait", workers=1, concurrency=calls, wait="worker", progress="off"
        )

        async def one(n: int) -> bool:
            result = await client.invoke(deployed, {"n": n, "seconds": seconds}, timeout=120)
            return bool(result.output == {"n": n})

        try:
            start = time.perf_counter()
            await one(0)
            print(f"one call alone               {time.perf_counter() - start:6.2f} s")
            for name in ("at once", "at once, again"):
                start = time.perf_counter()
                right = sum(await asyncio.gather(*(one(n) for n in range(calls))))
                print(f"{name:<28} {time.perf_counter() - start:6.2f} s, {right} of {calls} completed")
        finally:
            await client.teardown(deployed)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--calls", type=int, default=1000)
    parser.add_argument("--seconds", type=float, default=1.0)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(measure(args.calls, args.seconds, Path(folder)))


if __name__ == "__main__":
    main()
