"""How long ``import unigpu`` and ``unigpu --help`` take, beside ``import httpx`` and a bare interpreter.

Each is a process of its own, in turn, in the same run; the median of the difference to the bare interpreter is printed.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import time

RUNS = 15
ARGUMENTS = {
    "bare": ("-c", "pass"),
    "unigpu": ("-c", "import unigpu"),
    "unigpu.Client": ("-c", "import unigpu; unigpu.Client"),
    "httpx": ("-c", "import httpx"),
    "unigpu --help": ("-m", "unigpu", "--help"),
}


def once(arguments: tuple[str, ...]) -> float:
    began = time.perf_counter()
    subprocess.run([sys.executable, *arguments], check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - began


def main() -> None:
    for arguments in ARGUMENTS.values():
        once(arguments)  # warm bytecode and file cache
    times: dict[str, list[float]] = {name: [] for name in ARGUMENTS}
    for _ in range(RUNS):
        for name, arguments in ARGUMENTS.items():
            times[name].append(once(arguments))
    bare = statistics.median(times["bare"])
    for name in ARGUMENTS:
        median = statistics.median(times[name])
        print(f"{name:<14} {1000 * median:7.1f} ms   above bare: {1000 * (median - bare):6.1f} ms")


if __name__ == "__main__":
    main()
