"""The flavours of the testing kit, for tests that load helpers by their path (see ``tests/client/conftest.py``)."""

from __future__ import annotations

from unigpu.testing._conformance.flavors import NAMES, Flavour, Plain, unwrap, wrap

__all__ = ["NAMES", "Flavour", "Plain", "unwrap", "wrap"]
