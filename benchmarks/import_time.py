"""How long ``import unigpu`` takes, beside ``import httpx`` and a bare interpreter, in the same run.

Each is a process of its own, in turn; the median of the difference to the bare interpreter is printed.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import time

RUNS = 15
CODE = {
    "bare": "pass",
    "unigpu": "import unigpu",
    "unigpu.Client": "import unigpu; unigpu.Client",
    "httpx": "import httpx",
}


def once(code: str) -> float:
    began = time.perf_counter()
    subprocess.run([sys.executable, "-c", code], check=True)
    return time.perf_counter() - began


def main() -> None:
    for code in CODE.values():
        once(code)  # warm bytecode and file cache
    times: dict[str, list[float]] = {name: [] for name in CODE}
    for _ in range(RUNS):
        for name, code in CODE.items():
            times[name].append(once(code))
    bare = statistics.median(times["bare"])
    for name in CODE:
        median = statistics.median(times[name])
        print(f"{name:<14} {1000 * median:7.1f} ms   above bare: {1000 * (median - bare):6.1f} ms")


if __name__ == "__main__":
    main()
