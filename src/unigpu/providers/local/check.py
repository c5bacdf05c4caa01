"""What of a spec is different on this machine, and the address of a supervisor that runs already. Pure."""

from __future__ import annotations

import re
from typing import Final

from unigpu.driver import Adaptation, DeploymentSpec
from unigpu.errors import ConfigurationError

_PROCESSES: Final = "local runs processes, not containers"


def adaptations(spec: DeploymentSpec, *, idle_exit: float) -> tuple[Adaptation, ...]:
    """What of *spec* is placement that a process of this machine does not have, and what else is a little different."""
    out: list[Adaptation] = []

    def add(field: str, asked: str, got: str, reason: str) -> None:
        out.append(Adaptation(field=field, asked=asked, got=got, reason=reason))

    if spec.image is not None:
        add("image", spec.image, "the handler or command itself", _PROCESSES)
    if spec.gpu:
        names = " or ".join(g.name or f"{g.memory_gb}GB" for g in spec.gpu)
        add("gpu", names, "what this machine has", "a process sees all of this machine's GPUs")
    if spec.disk is not None:
        add("disk", f"{spec.disk} GB", "this machine's disk", _PROCESSES)
    if spec.registry is not None:
        add("registry", "a login", "none", _PROCESSES)
    for volume in spec.volumes:
        where = f" at {volume.path}" if volume.path else ""
        add(
            "volumes",
            f"{volume.name}, {volume.size_gb} GB{where}",
            f"a folder under the state directory; ${{volume.{volume.name}}} names it",
            "local mounts nothing and limits no size",
        )
    if spec.kind == "pod" or spec.workers[0] > 0:
        add(
            "workers",
            "one worker kept" if spec.kind == "pod" else f"at least {spec.workers[0]} kept",
            f"kept until {idle_exit:g} s pass without a call or a job; the next call starts them again",
            "the supervisor ends itself when it is not used (idle_exit)",
        )
    return tuple(out)


def base_url(text: str) -> str:
    """A configured base URL without its last slash.

    Raises:
        ConfigurationError: it is not plain http or https, or has a login, a query or a fragment.
    """
    if not re.fullmatch(r"https?://[^\s/?#@]+(/[^\s?#]*)?", text):
        raise ConfigurationError("local: base_url is http://HOST:PORT or https://HOST, without login or query")
    return text.rstrip("/")
