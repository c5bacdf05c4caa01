"""What the worker reads from its environment. Nothing else in the worker reads it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from unigpu.errors import ConfigurationError

DEFAULT_PORT = 8000
DEFAULT_HOST = "0.0.0.0"  # noqa: S104 - in a container the platform's proxy must reach it; local sets UNIGPU_HOST
DEFAULT_TIMEOUT = 600.0
DEFAULT_DRAIN = 30.0
DEFAULT_GRACE = 30.0
_LAST_PORT = 65535


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """The worker's settings; all times are seconds.

    Attributes:
        port: ``UNIGPU_PORT``, else ``PORT``, else 8000; 0 takes a free port.
        host: ``UNIGPU_HOST``, else all interfaces.
        concurrency: ``UNIGPU_CONCURRENCY``: calls that run at the same time.
        timeout: ``UNIGPU_TIMEOUT``: how long one call may run.
        drain: ``UNIGPU_DRAIN``: how long running calls may go on after SIGTERM.
        grace: ``UNIGPU_GRACE``: how long a call may ignore its end before the worker gives itself up.
        expires: ``UNIGPU_EXPIRES``: epoch seconds after which no work is taken; None for never.
        exit_ends_billing: ``UNIGPU_WORKER_EXIT`` is ``ends_billing``: exit when expired and idle.
        pushed: ``UNIGPU_PUSHED=1``: the platform takes an open port for readiness and any refusal for a call's failure.
            So the port opens once the handler is loaded and closes when the worker drains, and calls above the
            concurrency wait for their turn.
        traceback: ``UNIGPU_TRACEBACK=1``: replies carry the handler's traceback.
        token: The value of the variable that ``UNIGPU_AUTH`` names; callers must send it as a bearer token.
    """

    port: int = DEFAULT_PORT
    host: str = DEFAULT_HOST
    concurrency: int = 1
    timeout: float = DEFAULT_TIMEOUT
    drain: float = DEFAULT_DRAIN
    grace: float = DEFAULT_GRACE
    expires: float | None = None
    exit_ends_billing: bool = False
    pushed: bool = False
    traceback: bool = False
    token: str | None = field(default=None, repr=False)

    def alone_on(self, host: str, port: int) -> Settings:
        """The same at another address, where a program beside the worker is the only caller."""
        return replace(self, host=host, port=port)

    @property
    def patience(self) -> float:
        """How long an idle handler's leftovers (tasks, threads, exit functions) may hold the exit."""
        return max(1.0, min(self.grace, 5.0))


def read_settings(environ: Mapping[str, str], *, port: int | None = None, host: str | None = None) -> Settings:
    """Settings from the environment; an argument wins over it.

    Raises:
        ConfigurationError: A variable is not what it should be. Its name is in the message, and what it should be.
    """
    if port is not None and not 0 <= port <= _LAST_PORT:
        raise ConfigurationError(f"The port must be from 0 to {_LAST_PORT}, not {port}.")
    return Settings(
        port=port if port is not None else _port(environ),
        host=host or environ.get("UNIGPU_HOST") or DEFAULT_HOST,
        concurrency=_whole(environ, "UNIGPU_CONCURRENCY", 1, low=1),
        timeout=_seconds(environ, "UNIGPU_TIMEOUT", DEFAULT_TIMEOUT, zero=False),
        drain=_seconds(environ, "UNIGPU_DRAIN", DEFAULT_DRAIN),
        grace=_seconds(environ, "UNIGPU_GRACE", DEFAULT_GRACE),
        expires=_seconds(environ, "UNIGPU_EXPIRES", 0.0) if environ.get("UNIGPU_EXPIRES") else None,
        exit_ends_billing=environ.get("UNIGPU_WORKER_EXIT") == "ends_billing",
        pushed=environ.get("UNIGPU_PUSHED") == "1",
        traceback=environ.get("UNIGPU_TRACEBACK") == "1",
        token=_token(environ),
    )


def _port(environ: Mapping[str, str]) -> int:
    name = "UNIGPU_PORT" if environ.get("UNIGPU_PORT") else "PORT"
    return _whole(environ, name, DEFAULT_PORT, low=0, high=_LAST_PORT)


def _whole(environ: Mapping[str, str], name: str, default: int, *, low: int, high: int | None = None) -> int:
    text = environ.get(name)
    if not text:
        return default
    try:
        value = int(text)
    except ValueError:
        value = low - 1
    if value < low or (high is not None and value > high):
        limit = f"from {low} to {high}" if high is not None else f"of at least {low}"
        raise ConfigurationError(f"{name} must be a whole number {limit}, not {text[:40]!r}.")
    return value


def _seconds(environ: Mapping[str, str], name: str, default: float, *, zero: bool = True) -> float:
    text = environ.get(name)
    if not text:
        return default
    value = parse_seconds(text)
    if value is None or (value == 0 and not zero):
        raise ConfigurationError(f"{name} must be a number of seconds{'' if zero else ' above 0'}, not {text[:40]!r}.")
    return value


def parse_seconds(text: str) -> float | None:
    """A finite number that is not negative, or None."""
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) and value >= 0 else None


def _token(environ: Mapping[str, str]) -> str | None:
    # Fails closed: a spec that asks for a token must never be served without one.
    name = environ.get("UNIGPU_AUTH")
    if not name or name == "none":
        return None
    token = environ.get(name)
    if not token:
        raise ConfigurationError(f"UNIGPU_AUTH names the variable {name}, which is not set in this worker.")
    return token
