"""Facts of clouds that do not exist, so that no test stands on a real platform's."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest

from unigpu.elasticity.capabilities import Capabilities, load
from unigpu.elasticity.fact import read_facts
from unigpu.models import Interface, Kind

SOURCE = "https://docs.cloud.example/page"


@pytest.fixture(scope="session")
def cloud() -> Callable[..., Capabilities]:
    """Capabilities of a cloud that bills, scales to zero and runs images; each keyword sets a flag's value."""

    def make(
        provider: str = "cloud", *, interface: Interface = "function", kind: Kind = "serverless", **values: Any
    ) -> Capabilities:
        whole = copy.deepcopy(dict(read_facts("local", None)))
        exact = f"{interface}/{kind}"
        common: dict[str, Any] = {
            "bills": True,
            "images": "required",
            "gpu": "required",
            "host_trust": "provider",
            "inventory": "own",
            "billed_from": "RUNNING",
            "secret_store": True,
        }
        whole[exact] = {
            name: {"value": value, "status": "documented", "source": SOURCE, "note": f"so the cloud says of {name}"}
            for name, value in {**common, **values}.items()
        }
        return load(provider, interface=interface, kind=kind, facts=whole)

    return make
