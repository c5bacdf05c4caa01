"""The pytest plugin: no test of an application can touch a real account. It is active where unigpu is installed.

Each test has a state directory of its own, no keys, an empty config, and clients that dial this machine only.
``@pytest.mark.unigpu_real_state`` opts out, ``-p no:unigpu`` turns all of it off. The fixture ``unigpu_cloud`` is a
`unigpu_mock`; ``@pytest.mark.unigpu_mock("runpod", clock="virtual")`` says of what.

An application's whole suite pays for importing this: nothing of unigpu is imported here but `_isolation`.
"""

from __future__ import annotations

import itertools
import os
import shutil
import tempfile
from collections.abc import Generator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pytest

from ._isolation import Environment, account_variables

if TYPE_CHECKING:
    from ._mock.mock import UnigpuMock

_REAL: Final = "unigpu_real_state"
_MOCK: Final = "unigpu_mock"


class _Session:
    """The isolation of a run of pytest: one of the whole, for what is imported and collected, and one of each test."""

    def __init__(self) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="unigpu-tests-"))
        self._accounts = account_variables()
        self._numbers = itertools.count(1)
        self._whole = self._environment("session")
        self._whole.enter()

    def leave(self) -> None:
        """Give back the environment, and end what tests left running on this machine."""
        for state in sorted(one.parents[1] for one in self._folder.glob("*/local/supervisor.json")):
            _end(state)
        self._whole.leave()
        shutil.rmtree(self._folder, ignore_errors=True)

    def off(self) -> None:
        self._whole.leave()

    def on(self) -> None:
        self._whole.enter()

    def of_a_test(self) -> Environment:
        return self._environment(str(next(self._numbers)))

    def _environment(self, name: str) -> Environment:
        return Environment(self._folder / name, accounts=self._accounts)


_session: Final = pytest.StashKey[_Session]()


@pytest.hookimpl(tryfirst=True)
def pytest_load_initial_conftests(early_config: pytest.Config) -> None:
    """Before any conftest is imported: it may import an application that makes a client."""
    _begin(early_config)


def _begin(config: pytest.Config) -> None:
    session = config.stash[_session] = _Session()
    config.add_cleanup(session.leave)


def pytest_configure(config: pytest.Config) -> None:
    if _session not in config.stash:  # named in a conftest's pytest_plugins: later than it should be
        _begin(config)
    config.addinivalue_line("markers", f"{_REAL}: the test means the real accounts, state and config of this machine")
    config.addinivalue_line("markers", f"{_MOCK}(*providers, **options): what the fixture unigpu_cloud serves")
    if getattr(config.option, "dist", "no") != "no" and not hasattr(config, "workerinput"):
        config.stash[_session].off()  # xdist's workers take their environment from here, and isolate themselves


@pytest.hookimpl(hookwrapper=True, tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None]:
    """Around everything of a test, fixtures of any scope that it is the first to use included."""
    session = item.config.stash[_session]
    if item.get_closest_marker(_REAL):
        session.off()
        try:
            yield
        finally:
            session.on()
        return
    environment = session.of_a_test()
    environment.enter()
    try:
        yield
    finally:
        environment.leave()


@pytest.fixture
def unigpu_cloud(request: pytest.FixtureRequest) -> Generator[UnigpuMock]:
    """A platform in memory; ``@pytest.mark.unigpu_mock("runpod")`` says which, and takes the mock's options."""
    from unigpu.testing import unigpu_mock

    marker: Any = request.node.get_closest_marker(_MOCK)
    said: tuple[Any, ...] = marker.args if marker else ()
    options: dict[str, Any] = marker.kwargs if marker else {}
    with unigpu_mock(*said, **options) as cloud:
        yield cloud


def _end(state: Path) -> None:
    """Tear down what a test deployed on this machine and left, in whatever namespace: with the last one, all ends."""
    from unigpu import Client, UniGPUError
    from unigpu._io.bridge import run_sync
    from unigpu._lifecycle import deploying

    try:
        with Client("local", state_dir=state, config=os.devnull) as client:
            context = client._context  # noqa: SLF001  # pyright: ignore[reportPrivateUsage] - the public list shows one namespace
            deadline = context.io.now() + 30.0
            rows = run_sync(
                deploying(context.session.driver("local")).deployments(context.transports.near, deadline=deadline)
            )
        for row in rows:
            with Client("local", state_dir=state, config=os.devnull, namespace=row.namespace) as client:
                client.teardown(row.name or row.provider_name)
    except UniGPUError as exc:
        print(f"unigpu: a test left something running on this machine, which could not be ended: {exc}")  # noqa: T201 - at the end of a run there is nobody else to tell
