"""Yotta Labs in conformance: its driver against its emulator in memory, with every call failing in turn."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import pytest

from unigpu.emulator.apis.yotta.emulator import Quirks, YottaEmulator
from unigpu.emulator.contract import EmulatedAPI
from unigpu.emulator.engine import Engine
from unigpu.testing import FaceBench
from unigpu.testing._conformance.faults import WireConformance
from unigpu.testing._conformance.flavors import Name

FIELDS: Mapping[str, Any] = {
    "image": "ghcr.io/me/app:1", "gpu": ["RTX 4090", "H100 SXM"], "workers": 1, "ttl": None, "auth": "none"
}  # fmt: skip
CONFIG = """[defaults]
on_unsupported = "adapt"  # a range of workers is taken as its least, at least one
"""


def _face(quirks: Quirks) -> Any:
    def made(engine: Engine, key: str) -> EmulatedAPI:
        return YottaEmulator(engine, token=key, quirks=quirks)

    return made


def _bench(tmp_path: Path, quirks: Quirks) -> FaceBench:
    config = tmp_path / "unigpu.toml"
    config.write_text(CONFIG)
    return FaceBench(
        "yotta",
        _face(quirks),
        fields=FIELDS,
        list_operation="yotta.endpoint.list",
        options=lambda key: {"api_key": key, "config": config},
    )


class TestYotta(WireConformance):
    """As the platform is taken to be: no environment is shown."""

    @pytest.fixture
    def wire(self, tmp_path: Path) -> Iterator[FaceBench]:
        with _bench(tmp_path, Quirks()) as made:
            yield made

    @pytest.fixture
    def bench(self, wire: FaceBench) -> FaceBench:
        return wire


class TestYottaThatShowsTheEnvironment(WireConformance):
    """The same, where the API shows the environment: attempts, names and ends are read back. On one flavour: each
    one's own paths are proved above."""

    flavours: ClassVar[Sequence[Name]] = ("asyncio",)

    @pytest.fixture
    def wire(self, tmp_path: Path) -> Iterator[FaceBench]:
        quirks = Quirks(shows_env="envVars", env_key="envVars", credential_key="credentialId", numeric_ids=True)
        with _bench(tmp_path, quirks) as made:
            yield made

    @pytest.fixture
    def bench(self, wire: FaceBench) -> FaceBench:
        return wire
