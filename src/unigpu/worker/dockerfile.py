"""The Dockerfile of an image that serves one handler, or one server, on every platform. Pure text; nothing is built.

The vendors' worker packages cannot share one environment (``runpod`` 1.12.0 needs cryptography ≥ 50, ``vastai`` 1.9.1
needs exactly 49: tried on 2026-11-24). Vast's PyWorker is a process of its own anyway, so it gets its own.
"""

from __future__ import annotations

import importlib.metadata
import json
import re
from collections.abc import Collection, Sequence

from unigpu.errors import ConfigurationError

PROVIDERS = ("runpod", "vast", "yotta")
RUNPOD = "runpod==1.12.0"
VASTAI = "vastai==1.9.1"

_TARGET = re.compile(r"(?![/-])[\w./-]+:[A-Za-z_][\w.]*")
_PYTHON = re.compile(r"3\.(\d+)(\.\d+)?")
_OLDEST = 11


def dockerfile(
    target: str | None = None,
    *,
    command: Sequence[str] = (),
    python: str = "3.11",
    providers: Collection[str] = PROVIDERS,
) -> str:
    """The text of a Dockerfile that serves ``target``, or runs ``command``; build it in the folder that holds the code.

    Args:
        target: ``module:name`` or ``file.py:name``, relative to that folder.
        command: A server's command instead (``interface="http"``): it listens on ``$PORT``. A deployment names it, too.
        python: Python's version, 3.11 or newer.
        providers: Where the image shall run; each may add what its platform needs. Plain HTTP needs nothing more.

    Raises:
        ConfigurationError: One of them is not as described.
    """
    if (target is None) != bool(command):
        raise ConfigurationError("An image is for a handler or for a server's command: say one of them.")
    if target is not None and (not _TARGET.fullmatch(target) or ".." in target):
        raise ConfigurationError(
            f"{target!r} cannot be served from an image: say module:name or file.py:name, relative to the folder of "
            "the handler's code."
        )
    match = _PYTHON.fullmatch(python)
    if match is None or int(match[1]) < _OLDEST:
        raise ConfigurationError(f"The worker needs Python 3.{_OLDEST} or newer, not {python!r}.")
    if unknown := sorted(set(providers) - set(PROVIDERS)):
        raise ConfigurationError(f"Unknown provider {unknown[0]!r}; an image can be made for {', '.join(PROVIDERS)}.")
    parts = [_head(python)]
    if "vast" in providers:
        parts.append(_PYWORKER if target is not None else _PYWORKER + _BESIDE.format(unigpu=_ourselves("")))
    own = [] if target is None else [_ourselves("[worker]"), *([RUNPOD] if "runpod" in providers else [])]
    parts.append(_app(own, ["python", "-m", "unigpu.worker", target] if target is not None else command))
    return "\n".join(parts)


def _head(python: str) -> str:
    return f"""\
FROM python:{python}-slim

# The GPU's driver comes from the host; its libraries come with your packages.
ENV PYTHONUNBUFFERED=1 \\
    PIP_NO_CACHE_DIR=1 \\
    NVIDIA_VISIBLE_DEVICES=all \\
    NVIDIA_DRIVER_CAPABILITIES=compute,utility
WORKDIR /app
"""


_PYWORKER = f"""\
# Vast's worker program is a process of its own, in an environment of its own: its packages clash with RunPod's.
RUN python -m venv /opt/pyworker && /opt/pyworker/bin/pip install {VASTAI} setuptools
"""
_BESIDE = """\
# On Vast a deployment with this command starts it behind that program, set up by one file of unigpu's.
RUN /opt/pyworker/bin/pip install --no-deps {unigpu}
"""


def _app(packages: list[str], command: Sequence[str]) -> str:
    quoted = " ".join(f'"{package}"' for package in packages)
    worker = f"# The worker comes first: what changes most comes last.\nRUN pip install {quoted}\n" if packages else ""
    return f"""\
{worker}# Your packages (requirements.txt, when there is one), then your code.
COPY requirements.tx[t] ./
RUN if [ -f requirements.txt ]; then pip install -r requirements.txt; fi
COPY . .

EXPOSE 8000
CMD {json.dumps(list(command))}
"""


def _ourselves(extra: str) -> str:
    # The same release on both sides of the wire.
    try:
        return f"unigpu{extra}=={importlib.metadata.version('unigpu')}"
    except importlib.metadata.PackageNotFoundError:  # run from a folder of sources
        return f"unigpu{extra}"
