"""The calls: the same on every platform. What comes back must be the same, too."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from unigpu import Deployment, JobFailed

TEXTS = [
    "A worker starts when a call comes. A worker ends when no call comes.\n\nThe price is the price of the worker.",
    (Path(__file__).parent / "app.py").read_text("utf-8"),
    "ein Wörtchen, zwei Wörtchen, drei Wörtchen; 四つの言葉; and four plain words of plain English",
]


def invoke(app: Deployment) -> Any:
    return [app.invoke({"text": text}).output for text in TEXTS]


def at_once(app: Deployment) -> Any:
    inputs = ({"text": text, "most": most} for text in TEXTS for most in (1, 2))
    return [result.output for result in app.map(inputs, concurrency=3, progress="off")]


def stream(app: Deployment) -> Any:
    with app.stream({"text": TEXTS[0]}) as chunks:
        return list(chunks)


def failure(app: Deployment) -> Any:
    try:
        return app.invoke({"text": "  "}).output
    except JobFailed as failed:
        return [failed.error_type, failed.error_message]


def submit(app: Deployment) -> Any:
    jobs = [app.submit({"text": text}) for text in TEXTS]
    return [job.result(timeout=120).output for job in jobs]


CALLS: dict[str, Callable[[Deployment], Any]] = {
    "invoke": invoke,
    "map": at_once,
    "stream": stream,
    "failure": failure,
    "submit": submit,
}
