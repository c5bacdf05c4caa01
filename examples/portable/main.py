"""One handler, one image, the same calls on every platform; equal outputs. Each platform is a line of `PLATFORMS`.

    python main.py                 all of them, on this machine: no account, no Docker
    python main.py local runpod    some

The platforms are those of `unigpu emulator serve`: their protocols on loopback, and behind them workers that
are processes of the environments which the Dockerfile's recipe makes (see recipe.py).
"""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from app import keywords
from calls import CALLS
from recipe import ROOT, Image, build

import unigpu


@dataclass(frozen=True)
class Platform:
    """Where a platform's services are, below the base that `cloud serve` prints; what its spec needs; what it lacks."""

    options: Callable[[str], dict[str, Any]]
    spec: dict[str, Any] = field(default_factory=dict)
    lacks: tuple[str, ...] = ()


PLATFORMS: dict[str, Platform] = {
    "local": Platform(lambda base: {}),
    "runpod": Platform(
        lambda base: {
            "control_url": f"{base}/v2",
            "jobs_url": f"{base}/v2",
            "lb_url": f"{base}/lb/{{id}}",
            "proxy_url": f"{base}/proxy/{{id}}/{{port}}",
        },
        {"gpu": "RTX 4090"},
    ),
    # It declares replicas, one at least, so that (0, 1) becomes 1; its queue has no streaming.
    "yotta": Platform(
        lambda base: {"base_url": base},
        {"gpu": "RTX 4090", "on_unsupported": "adapt"},
        lacks=("stream",),
    ),
    # Calls go straight to the worker, so there are no jobs; no TLS on this machine.
    "vast": Platform(
        lambda base: {"console_url": base, "engine_url": base, "http_workers": True},
        {"gpu": "RTX 4090", "max_price": 1.0, "provider_options": {"vast": {"tls": False}}},
        lacks=("submit",),
    ),
}


@contextlib.contextmanager
def served(name: str, image: Image) -> Iterator[tuple[str, str]]:
    """The platform on loopback, with the image's own interpreter and code before all others: base URL and key."""
    command = [str(image.bin / "python"), "-m", "unigpu", "emulator", "serve", name]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, cwd=image.app, env=image.environment()
    ) as process:
        assert process.stdout is not None
        line = json.loads(process.stdout.readline())
        try:
            yield line["base_urls"][name], line["key"]
        finally:
            process.terminate()


def outputs(name: str, image: Image) -> dict[str, Any]:
    """What every call gives there."""
    platform = PLATFORMS[name]
    with contextlib.ExitStack() as stack:
        if name == "local":
            client = unigpu.Client("local")
        else:
            base, key = stack.enter_context(served(name, image))
            client = unigpu.Client(name, api_key=key, driver_options={name: platform.options(base)})
        stack.enter_context(client)
        app = client.deploy(
            name="portable",
            handler=keywords,
            image="ghcr.io/me/portable:1",
            workers=(0, 1),
            idle_timeout=60,
            ttl="1h",
            progress="off",
            **platform.spec,
        )
        found: dict[str, Any] = {}
        for call, make in CALLS.items():
            if call not in platform.lacks:
                began = time.monotonic()
                found[call] = make(app)
                print(f"  {name:<8} {call:<8} {time.monotonic() - began:6.2f} s", flush=True)
        app.teardown()
    return found


def main(names: list[str]) -> None:
    image = build("app:keywords", ROOT / ".venvs" / "portable")
    print("the image's command:", " ".join(image.command))
    first = outputs("local", image)
    for name in names:
        if name != "local":
            for call, found in outputs(name, image).items():
                if found != first[call]:
                    raise SystemExit(f"{call} differs:\n  local  {first[call]}\n  {name}  {found}")
    print(f"equal outputs on {', '.join(dict.fromkeys(['local', *names]))}")


if __name__ == "__main__":
    main(sys.argv[1:] or list(PLATFORMS))
