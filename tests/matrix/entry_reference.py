"""The reference platform: it only lists, late; and takes a create twice."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any

from matrix_entry import NAME, Platform

from unigpu import _registry
from unigpu.emulator.contract import EmulatedAPI
from unigpu.emulator.engine import Engine


def _reference_face(engine: Engine, key: str, seed: int, page: int) -> EmulatedAPI:
    from unigpu.testing.reference import ReferenceEmulator

    return ReferenceEmulator(engine, key=key, seed=seed, page=page)


def _reference_driver() -> AbstractContextManager[object]:
    from unigpu.testing.reference import ReferenceDriver

    return _registry.using("reference", ReferenceDriver)  # a platform of tests is no entry point


def _rows(body: Any) -> list[Any]:
    return list(body.get("items") or []) if isinstance(body, dict) else []


REFERENCE = Platform(
    name="reference",
    key=("REFERENCE_API_KEY", "reference-key"),
    face=_reference_face,
    fields={
        "name": NAME,
        "handler": "app:summarize",
        "image": "ghcr.io/me/app:1",
        "gpu": "RTX 4090",
        "workers": (0, 2),
    },
    kinds=("template", "endpoint"),
    main="endpoint",
    lists=("reference.template.list", "reference.endpoint.list"),
    creates=("reference.template.create", "reference.endpoint.create"),
    deletes=("reference.template.delete", "reference.endpoint.delete"),
    empty_list=lambda operation, body: {"items": [], "next": None},
    half_list=lambda operation, body: {"items": body["items"][: len(body["items"]) // 2], "next": "zzz"},
    rows=_rows,
    entered=_reference_driver,
    share=1.0,
    pairs=None,
)
