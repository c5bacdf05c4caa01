"""For all tests: no network but loopback, no account, and a state directory of its own for each."""

from __future__ import annotations

import ipaddress
import os
import signal
import socket
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

settings.register_profile(
    "unigpu",
    derandomize=True,  # the same examples on every machine: a red run can be repeated
    deadline=None,  # the machine may be busy; a timing is a benchmark, never a test
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
settings.load_profile("unigpu")

# A process that was started in the background ignores Ctrl-C, and so does what it starts: nothing would be tested.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

FULL = os.environ.get("UNIGPU_FULL") == "1"


def _is_loopback(host: object) -> bool:
    if not isinstance(host, str):
        return False
    if host in ("localhost", ""):
        return True
    try:
        return ipaddress.ip_address(host.split("%")[0]).is_loopback
    except ValueError:
        return False


class NetworkBlocked(BaseException):
    """A test tried to leave this machine. Not an Exception: no code under test may swallow it."""


@pytest.fixture(autouse=True)
def _loopback_only(monkeypatch: pytest.MonkeyPatch) -> None:
    connect, connect_ex, resolve = socket.socket.connect, socket.socket.connect_ex, socket.getaddrinfo

    def check(address: Any) -> None:
        if isinstance(address, tuple) and not _is_loopback(address[0]):
            raise NetworkBlocked(f"a test tried to connect to {address[0]}")

    def guarded_connect(self: socket.socket, address: Any) -> None:
        check(address)
        connect(self, address)

    def guarded_connect_ex(self: socket.socket, address: Any) -> int:
        check(address)
        return connect_ex(self, address)

    def guarded_resolve(host: Any, *rest: Any, **more: Any) -> Any:
        name = host.decode() if isinstance(host, bytes) else host
        if name is not None and not _is_loopback(name):
            try:
                ipaddress.ip_address(name)
            except ValueError:
                raise NetworkBlocked(f"a test tried to look up {name}") from None
        return resolve(host, *rest, **more)

    monkeypatch.setattr(socket.socket, "connect", guarded_connect)
    monkeypatch.setattr(socket.socket, "connect_ex", guarded_connect_ex)
    monkeypatch.setattr(socket, "getaddrinfo", guarded_resolve)


@pytest.fixture(autouse=True)
def _own_world(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in [n for n in os.environ if n.startswith("UNIGPU_") and n != "UNIGPU_FULL"]:
        monkeypatch.delenv(name)
    for name in ("RUNPOD_API_KEY", "VAST_API_KEY", "YOTTA_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    home = tmp_path / "home"
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(home / ".config"))
    monkeypatch.setenv("XDG_STATE_HOME", str(home / ".state"))
    monkeypatch.setenv("UNIGPU_STATE_DIR", str(tmp_path / "state"))


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Kills at random times run in one serial group; kills at named steps are told by events, and may run beside them.

    In the seeded tenth all of them are one group, so that few processes start at once.
    """
    for item in items:
        if item.get_closest_marker("kill"):
            beside = FULL and "random" not in item.name
            item.add_marker(pytest.mark.xdist_group(f"kill {item.path.stem}" if beside else "kill"))
        if item.get_closest_marker("full") and not FULL:
            item.add_marker(pytest.mark.skip(reason="the long forms run with UNIGPU_FULL=1 (make full, make soak)"))


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """What many tests counted together; here, because only the controller of parallel workers sees all of them."""

    def told(wanted: str) -> list[Any]:
        return [
            value
            for reports in terminalreporter.stats.values()
            for report in reports
            if getattr(report, "when", None) == "teardown"
            for name, value in report.user_properties
            if name == wanted
        ]

    found = told("unigpu kill counts")
    if found:
        (seed, *_), *columns = zip(*found, strict=True)
        deploys, leaked, doubled = map(sum, columns)
        line = f"{deploys} deploys tried, {leaked} leaked, {doubled} doubled (seed {seed})"
        terminalreporter.write_line(f"kills and races: {line}")
    _matrix_table(terminalreporter.write_line, told("unigpu matrix"))


def _matrix_table(write: Callable[[str], None], found: list[Any]) -> None:
    """The crash matrix: cases of each part, how they ended, and what was lost; and, run whole, of each kind."""
    kinds, ended, rows = Counter[str](), dict[str, Counter[str]](), dict[str, list[int]]()
    for name, cases, ends, *wrong in found:
        kinds.update(cases)
        ended.setdefault(name, Counter()).update(ends)
        row = [sum(cases.values()), *wrong]
        for each in (name, f"all of {name.partition(': ')[0]}", "all"):
            rows[each] = [a + b for a, b in zip(rows.get(each, [0] * 4), row, strict=True)]
    if not rows:
        return
    write("the crash matrix:")
    for name in [*sorted(ended), *sorted(row for row in rows if row.startswith("all of")), "all"]:
        count, leaked, doubled, other = rows[name]
        how = ", ".join(f"{n} {end}" for end, n in ended.get(name, Counter[str]()).most_common(4))
        write(f"  {name:<36} {count:>6} cases, {leaked} leaked, {doubled} doubled, {other} wrong otherwise  {how}")
    if FULL:
        for kind, count in sorted(kinds.items()):
            write(f"    {kind:<40} {count:>6}")
