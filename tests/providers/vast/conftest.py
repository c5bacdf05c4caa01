"""Clients of Vast in memory, on a clock that jumps."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from unigpu import Client, Deployment
from unigpu._io.clock import InstantClock, use_clock

if "vast_world" not in sys.modules:  # the suite's import mode puts no folder on the path
    _spec = importlib.util.spec_from_file_location("vast_world", Path(__file__).with_name("vast_world.py"))
    assert _spec is not None
    assert _spec.loader is not None
    _module = importlib.util.module_from_spec(_spec)
    sys.modules["vast_world"] = _module
    _spec.loader.exec_module(_module)

from vast_world import FIELDS, KEY, Account, Kept, Script


@pytest.fixture
def clock() -> Iterator[InstantClock]:
    made = InstantClock(1000.0, epoch=1.8e9)
    with use_clock(made):
        yield made


@pytest.fixture
def account(clock: InstantClock) -> Account:
    return Account(clock=clock)


@pytest.fixture
def script(account: Account) -> Script:
    """Put before the account's own answers."""
    account.before = made = Script()
    return made


@pytest.fixture
def connect(tmp_path: Path, clock: InstantClock) -> Iterator[Callable[..., Client]]:
    """Makes clients of a world; they are closed at the end, while the clock still jumps."""
    made: list[Client] = []
    config = tmp_path / "unigpu.toml"
    config.touch()

    def connect(world: Kept, *, state: str = "state", **options: Any) -> Client:
        given = {"api_key": KEY, "config": config, "state_dir": tmp_path / state, "transport": world, **options}
        made.append(Client("vast", **given))
        return made[-1]

    yield connect
    for one in made:
        one.close()


@pytest.fixture
def client(connect: Callable[..., Client], account: Account) -> Client:
    return connect(account)


@pytest.fixture
def app(client: Client, account: Account) -> Deployment:
    """A function with a worker that is ready, whatever a script says later."""
    return client.deploy(**FIELDS, wait="worker")
