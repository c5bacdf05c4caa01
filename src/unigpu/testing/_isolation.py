"""A world of its own for a test: a state directory, an empty config, and no keys in the environment."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Generator, Mapping
from importlib import metadata
from pathlib import Path
from typing import Final
from unittest import mock

__all__ = ["isolated"]

_VENDOR_KEYS: Final = ("RUNPOD_API_KEY", "VAST_API_KEY", "YOTTA_API_KEY")
_KEPT: Final = ("UNIGPU_FULL",)  # how much of a suite runs is no setting of a client


@contextlib.contextmanager
def isolated(keys: Mapping[str, str] | None = None) -> Generator[Path]:
    """For this process: an empty home for state and config, and no keys in the environment
    but *keys* (variable → dummy). It blocks no network: `unigpu_mock` does.

    Clients that are made in the block read these; one made before keeps the state directory that it had.
    Nested blocks end in their order.

    Yields:
        The state directory.
    """
    with tempfile.TemporaryDirectory(prefix="unigpu-test-", ignore_cleanup_errors=True) as folder:
        home = Path(folder)
        config = home / "unigpu.toml"
        config.touch()
        state = home / "state"
        mine = {
            "UNIGPU_STATE_DIR": str(state),
            "UNIGPU_CONFIG": str(config),
            "XDG_CONFIG_HOME": str(home / "config"),
            **(keys or {}),
        }
        gone = [
            name
            for name in os.environ
            if name not in mine and name not in _KEPT and (name.startswith("UNIGPU_") or name in _account_variables())
        ]
        with mock.patch.dict(os.environ, mine):
            for name in gone:
                del os.environ[name]
            yield state


def _account_variables() -> frozenset[str]:
    """Where keys are looked for, as far as it is known without importing a driver."""
    from unigpu import _registry

    names = {point.name for point in metadata.entry_points(group=_registry.GROUP)}
    return frozenset({*_VENDOR_KEYS, *(f"{name.upper().replace('-', '_')}_API_KEY" for name in names)})
