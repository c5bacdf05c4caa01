"""How a worker process is started: its command, its environment, its port, and how its end is explained."""

from __future__ import annotations

import os
import random
import secrets
import socket
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from ..contract import Launch, worker_number
from .push import PushTarget

HOST: Final = "127.0.0.1"
_MEASURED: Final = ("COVERAGE_PROCESS_CONFIG", "COVERAGE_PROCESS_START")  # tests measure child processes, too
_PROGRAMS: Final = ("UNIGPU_PYWORKER_PYTHON", "UNIGPU_RUNPOD_PYTHON")  # where this machine has vendors' programs
_INHERITED: Final = ("HOME", "LANG", "LC_ALL", "LC_CTYPE", "TMPDIR", "TZ", *_PROGRAMS, *_MEASURED)
_TOKEN: Final = "UNIGPU_WORKER_TOKEN"
DEFAULT_PATH: Final = "/usr/local/bin:/usr/bin:/bin"
_LOWEST_PORT: Final = 10_240
_PORT_TRIES: Final = 200
_OUT_OF_MEMORY: Final = ("MemoryError", "OutOfMemoryError", "CUDA out of memory", "std::bad_alloc")


def is_ours(launch: Launch) -> bool:
    """Whether it runs a handler in a portable worker of ours, not a command of the user's."""
    return launch.handler is not None


def command(launch: Launch) -> list[str]:
    """The worker's command line.

    Raises:
        ValueError: it names neither a handler nor a command.
    """
    if launch.handler is not None:
        if not launch.python:
            raise ValueError("a handler needs the interpreter that runs it")
        return [launch.python, "-m", "unigpu.worker", launch.handler]
    if not launch.argv:
        raise ValueError("there is neither a handler nor a command to run")
    return list(launch.argv)


def environment(
    launch: Launch, *, port: int, own: Mapping[str, str], tag: str | None = None, worker_id: str = ""
) -> dict[str, str]:
    """All that the worker sees: a handful of ours, what was declared, and the port. No key, no token of ours.

    *own* is the supervisor's environment; *tag* marks every process of this supervisor, so that a later one can find
    what a crash left behind.
    """
    env = {name: own[name] for name in _INHERITED if name in own}
    env["PATH"] = own.get("PATH", DEFAULT_PATH)
    if launch.python:
        _activate(env, launch.python)
    env["PYTHONUNBUFFERED"] = "1"
    env.update(launch.env)
    env.update(PORT=str(port), UNIGPU_PORT=str(port), UNIGPU_HOST=HOST)
    known: dict[str, object] = {"worker": worker_id, "number": worker_number(worker_id), "port": port}
    if any("{second}" in value for value in launch.per_worker.values()):
        known["second"] = free_port(frozenset({port}))
    env.update({name.format_map(known): value.format_map(known) for name, value in launch.per_worker.items()})
    if tag is not None:
        env["UNIGPU_LOCAL"] = tag
    return env


def _activate(env: dict[str, str], python: str) -> None:
    """What an activated environment of that interpreter would set: commands it installed are found first."""
    folder = Path(python).parent
    if folder.is_absolute():
        env["PATH"] = f"{folder}:{env['PATH']}"
        if (folder.parent / "pyvenv.cfg").is_file():
            env["VIRTUAL_ENV"] = str(folder.parent)
        elif (folder.parent / "conda-meta").is_dir():
            env["CONDA_PREFIX"] = str(folder.parent)


def require_token(env: dict[str, str]) -> None:
    """Let a worker of ours take calls of ours alone, unless its deployment has a token of its own.

    Loopback is open to every user of the machine, and to every page that a browser on it shows.
    """
    if not env.get("UNIGPU_AUTH"):
        env["UNIGPU_AUTH"] = _TOKEN
        env[_TOKEN] = secrets.token_urlsafe(24)


def push_target(launch: Launch, env: Mapping[str, str], port: int) -> PushTarget:
    """Where a worker started with this environment takes jobs."""
    token = env.get(env.get("UNIGPU_AUTH", ""))
    route = env.get("UNIGPU_ROUTE")
    if is_ours(launch) or not route:
        return PushTarget(host=HOST, port=port, token=token)
    return PushTarget(host=HOST, port=port, route=route, raw=True, token=token)


def stated_port(launch: Launch) -> int | None:
    """The port that the spec says its server listens on."""
    port = launch.extra.get("port")
    return port if isinstance(port, int) else None


def free_port(taken: frozenset[int], *, stated: int | None = None) -> int:
    """A port that nobody listens on, below those the kernel hands out by itself; the *stated* one where it is free.

    Between this look and the worker's own bind, only a program that asks for this very number could take it; the worker
    then fails to start, and the next one gets another.

    Raises:
        OSError: there is none.
    """
    if stated is not None and stated not in taken and _is_free(stated):
        return stated
    high = _first_ephemeral()
    low = max(_LOWEST_PORT, high - 12_000)
    for _ in range(_PORT_TRIES if low < high else 0):
        port = random.randrange(low, high)
        if port not in taken and _is_free(port):
            return port
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as servers do: a port in TIME_WAIT is free
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
    return True


def _first_ephemeral() -> int:
    try:
        return int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    except (OSError, ValueError, IndexError):
        return 32_768


def out_of_memory(code: int, lines: Sequence[str], *, kernel_killed: bool) -> bool:
    """Whether a worker ended for want of memory: the kernel counted it, or its last lines say so."""
    if code == 0:
        return False
    return (code == -9 and kernel_killed) or any(word in line for line in lines for word in _OUT_OF_MEMORY)


def own_environment() -> Mapping[str, str]:
    """The environment of this process."""
    return os.environ
