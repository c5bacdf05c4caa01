"""A real small model behind the four verbs: loaded once per worker, on this repository's own texts."""

from __future__ import annotations

from pathlib import Path

from app import Detector

import unigpu

ROOT = Path(__file__).resolve().parents[2]
TEXTS = ["README.md", "Makefile", "pyproject.toml", ".ci/run", "docs/unigpu.schema.json", "src/unigpu/errors.py"]


def main() -> None:
    with (
        unigpu.Client("local") as client,
        client.deploy(name="detector", handler=Detector, workers=(0, 2), idle_timeout=30) as app,
    ):
        first = app.invoke({"text": (ROOT / "LICENSE").read_text("utf-8")})
        print(f"first call: {first.timing.cold_start:.2f} s cold start, {first.timing.execution:.3f} s execution")
        inputs = ({"text": (ROOT / name).read_text("utf-8")} for name in TEXTS)
        for name, result in zip(TEXTS, app.map(inputs, progress="off"), strict=True):
            print(
                f"{name:<26} {result.output['label']:<10} {result.output['score']:.3f}  {result.timing.execution:.3f} s"
            )


if __name__ == "__main__":
    main()
