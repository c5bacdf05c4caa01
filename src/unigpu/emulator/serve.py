"""``python -m unigpu emulator serve``: platforms' protocols on loopback, over one engine and real worker processes."""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import ipaddress
import json
import secrets
import shutil
import signal
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final

from unigpu.errors import ConfigurationError
from unigpu.models import nearest

from .contract import EmulatedAPI
from .engine import Engine
from .processes.backend import ProcessBackend, ProcessSettings
from .processes.worker_command import DEFAULT_PATH, own_environment
from .server.app import CloudServer
from .server.listener import listen, serving

EMULATORS: Final[Mapping[str, str]] = {
    "local": "unigpu.emulator.apis.local.emulator:LocalEmulator",
    "runpod": "unigpu.emulator.apis.runpod.emulator:RunPodEmulator",
    "vast": "unigpu.emulator.apis.vast.emulator:VastEmulator",
    "yotta": "unigpu.emulator.apis.yotta.emulator:YottaEmulator",
}
"""Platform → its class, loaded when it is served. Called with the engine and ``token=`` (the key that callers send)."""
_GRACE_S: Final = 2.0


def serve_main(platforms: Sequence[str], host: str, port: int) -> int:
    """Serve until SIGINT or SIGTERM; prints one line of JSON: ``{"base_urls": {platform: url}, "key": key}``.

    Raises:
        ConfigurationError: an unknown platform, an address that is not loopback, or a port that is taken.
    """
    names = _checked(platforms)
    if not _is_loopback(host):
        raise ConfigurationError(f"--host {host}: this serves loopback only, as in 127.0.0.1")
    asyncio.run(_serve(names, host, port))
    return 0


async def _serve(names: Sequence[str], host: str, port: int) -> None:
    started = (time.time(), time.monotonic())
    key = secrets.token_urlsafe(24)
    engine = Engine(now=started[1], wall=lambda now: started[0] + now - started[1])
    for name in names:
        engine.mount(_emulator(name)(engine, token=key))
    server = CloudServer(engine)
    server.backend = backend = ProcessBackend(server.emit, settings=ProcessSettings(environ=_container()))
    try:
        listener = listen(host, port)
    except (OSError, OverflowError) as exc:  # a port beyond 65535 is the latter
        reason = exc.strerror if isinstance(exc, OSError) else None
        raise ConfigurationError(f"cannot listen on {host} port {port}: {reason or exc}") from None
    end = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, end.set)
    async with serving(server, listener):
        shown = f"[{host}]" if ":" in host else host
        base = f"http://{shown}:{listener.getsockname()[1]}"
        line = json.dumps({"base_urls": {name: f"{base}/{name}" for name in names}, "key": key})
        with contextlib.suppress(BrokenPipeError):
            sys.stdout.write(line + "\n")
            sys.stdout.flush()
        await end.wait()
        server.close()
        await backend.close(grace=_GRACE_S)


def _container() -> Mapping[str, str]:
    """What containers find on their PATH: an activated environment stands for the image; else it is this interpreter's.

    Without it, ``python`` of a container's command would be the machine's own, which has nothing of an image.
    """
    own = own_environment()
    found = shutil.which("python", path=own.get("PATH"))
    if found is not None and (Path(found).parents[1] / "pyvenv.cfg").is_file():
        return own
    return {**own, "PATH": f"{Path(sys.executable).parent}:{own.get('PATH', DEFAULT_PATH)}"}


def _checked(platforms: Sequence[str]) -> list[str]:
    for platform in platforms:
        if platform not in EMULATORS:
            close = nearest(platform, EMULATORS)
            raise ConfigurationError(
                f"there is no emulator of {platform!r}" + (f"; did you mean {close!r}?" if close else ""),
                hint=f"There are: {', '.join(EMULATORS)}.",
            )
    return list(dict.fromkeys(platforms)) or list(EMULATORS)


def _emulator(name: str) -> Callable[..., EmulatedAPI]:
    module, _, attribute = EMULATORS[name].partition(":")
    found: Callable[..., EmulatedAPI] = getattr(importlib.import_module(module), attribute)
    return found


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
