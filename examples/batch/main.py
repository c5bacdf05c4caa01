"""Many inputs, and a crash costs nothing: kill this program, start it again, and it goes on where it was."""

from __future__ import annotations

from pathlib import Path

from app import measure

import unigpu

ROOT = Path(__file__).resolve().parents[2]
DONE = Path("batch.checkpoint.jsonl")


def main() -> None:
    paths = [*sorted((ROOT / "docs").rglob("*.md")), *sorted(ROOT.glob("*.md"))]
    pages = ({"page": str(path.relative_to(ROOT)), "text": path.read_text("utf-8")} for path in paths)
    with unigpu.Client("local") as client:
        app = client.deploy(name="readable", handler=measure, workers=(0, 2), idempotent=True, ttl="1h")
        results = app.map(pages, key=lambda page: page["page"], checkpoint=DONE, progress="off")
        for result in results:
            found = result.output
            print(f"{result.key:<28} {found['words']:>6} words, reading ease {found['ease']:>5}", flush=True)
        app.teardown()
    DONE.unlink()  # all was taken: the next start begins anew


if __name__ == "__main__":
    main()
