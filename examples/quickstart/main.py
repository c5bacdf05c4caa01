"""The main job on this machine: deploy, invoke, map, scale, stream, teardown. `make quickstart` runs it."""

from __future__ import annotations

import os
import time
from pathlib import Path

from app import sections

import unigpu

HERE = Path(__file__).parent


def row(what: str, result: unigpu.Result) -> str:
    t = result.timing
    cells = (f"{x:8.3f}" if x is not None else "       –" for x in (t.queue, t.cold_start, t.execution, t.total))
    return f"  {what:<30.30} {' '.join(cells)}  {result.worker_id or '–'}"


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def main() -> None:
    began = time.monotonic()
    texts = sections()
    head = f"  {'seconds':<30} {'queue':>8} {'cold':>8} {'run':>8} {'total':>8}  worker"
    with unigpu.Client("local") as client:
        print("1. deploy: no worker runs yet")
        app = client.deploy(name="quickstart", handler=f"{HERE / 'app.py'}:Reader", workers=(0, 1), idle_timeout=20)
        print(f"   {app!r}  {app.change}  {app.rate}")

        print("2. invoke: the first call waits for a worker (a cold start), the second does not")
        print(head)
        for what in ("first call (cold)", "second call (warm)"):
            print(row(what, app.invoke({"text": texts[0]["text"], "most": 1})))

        print("3. scale to at most 3 workers, and map over", len(texts), "sections of this repository's documents")
        app.scale(workers=(0, 3))
        print(head)
        used: set[str | None] = set()
        inputs = ({"text": part["text"], "most": 1} for part in texts)
        for part, result in zip(texts, app.map(inputs, concurrency=6, progress="off"), strict=True):
            used.add(result.worker_id)
            print(row(part["id"], result))
            print(f"      → {result.output[0][:96]}")
        print(f"   {len(texts)} sections, {len(used)} workers")

        print("4. stream: sentences arrive as they are found")
        with app.stream({"text": max(texts, key=lambda p: len(p["text"]))["text"], "most": 3}) as stream:
            for sentence in stream:
                print(f"   > {sentence[:100]}")

        print("5. teardown: gone, and verified gone")
        pids = [worker.pid for worker in app.workers() if worker.pid]
        app.teardown()
        left = [d for d in client.deployments() if d.name == "quickstart"]
        running = sum(map(alive, pids))
        print(f"   deployments of that name left: {len(left)}; worker processes left: {running} of {len(pids)}")
    print(f"done in {time.monotonic() - began:.1f} s")


if __name__ == "__main__":
    main()
