"""The handler: a neural network that says what kind of text it reads (Google's Magika, 3 MB of ONNX in its package)."""

from __future__ import annotations

from typing import Any

from magika import Magika


class Detector:
    def __init__(self) -> None:  # once per worker: this is what a cold start pays for
        self.model = Magika()

    def __call__(self, input: dict[str, Any]) -> dict[str, Any]:
        found = self.model.identify_bytes(input["text"].encode())
        return {"label": found.output.label, "score": round(float(found.score), 3)}
