"""A world of its own for a test: a state directory, an empty config, no keys, and nothing but this machine."""

from __future__ import annotations

import contextlib
import functools
import os
import tempfile
from collections.abc import Generator, Mapping
from importlib import metadata
from pathlib import Path
from typing import Final, Literal

__all__ = ["Environment", "account_variables", "isolated"]

_KEYS: Final = ("RUNPOD_API_KEY", "VAST_API_KEY", "VASTAI_API_KEY", "YOTTA_API_KEY")
_KEPT: Final = ("UNIGPU_FULL",)  # how much of a suite runs is no setting of a client
_DRIVERS: Final = "unigpu.drivers"  # as in `unigpu._registry`, whose import would load far more


class Environment:
    """The variables of an isolated process, put in place and taken back. Others that change meanwhile stay changed.

    Args:
        state: The state directory; it is made when something is kept there.
        keys: Variable → dummy.
        config: The project's file; default: an empty one.
        network: ``"here"``: clients that are made then dial this machine only.
    """

    def __init__(
        self,
        state: Path,
        keys: Mapping[str, str] | None = None,
        *,
        config: str | os.PathLike[str] | None = None,
        network: Literal["here", "any"] = "here",
        accounts: frozenset[str] | None = None,
    ) -> None:
        self._accounts = account_variables() if accounts is None else accounts
        self._mine = {
            "UNIGPU_STATE_DIR": str(state),
            "UNIGPU_CONFIG": os.devnull if config is None else os.path.abspath(config),
            "UNIGPU_ISOLATED": "network" if network == "here" else "files",
            **(keys or {}),
        }
        self._before: dict[str, str | None] = {}

    def enter(self) -> None:
        here = os.environ
        gone = [
            name
            for name in here
            if name not in self._mine and name not in _KEPT and (name.startswith("UNIGPU_") or name in self._accounts)
        ]
        self._before = {name: here.get(name) for name in (*gone, *self._mine)}
        for name in gone:
            del here[name]
        here.update(self._mine)

    def leave(self) -> None:
        """Put back what was there. Again is harmless."""
        for name, value in self._before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
        self._before = {}


@contextlib.contextmanager
def isolated(
    keys: Mapping[str, str] | None = None,
    *,
    config: str | os.PathLike[str] | None = None,
    network: Literal["here", "any"] = "here",
) -> Generator[Path]:
    """For this process: an empty state directory, an empty config, and no keys but *keys* (variable → dummy).

    No file of the user's is read, neither unigpu's nor one that a vendor's own tool keeps. Nested blocks end in their
    order.

    Args:
        config: The project's file, where a test needs what it declares; default: an empty one.
        network: ``"here"``: clients that are made in the block dial this machine only; what is mocked is served.
            ``"any"``: they may reach real platforms.

    Yields:
        The state directory. Clients that are made in the block use it; one that was made before keeps its own
        (`unigpu_mock` moves that, too).
    """
    with tempfile.TemporaryDirectory(prefix="unigpu-test-", ignore_cleanup_errors=True) as folder:
        state = Path(folder) / "state"
        environment = Environment(state, keys, config=config, network=network)
        environment.enter()
        try:
            yield state
        finally:
            environment.leave()


@functools.cache
def account_variables() -> frozenset[str]:
    """Where keys are looked for, as far as it is known without importing a driver."""
    names = {point.name for point in metadata.entry_points(group=_DRIVERS)}
    return frozenset({*_KEYS, *(f"{name.upper().replace('-', '_')}_API_KEY" for name in names)})
