"""Which GPUs this machine has, by the NVIDIA driver's own files. No program is run to find out."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Final

from unigpu.driver import GPURequest, Offer
from unigpu.errors import ConfigurationError

_DRIVER: Final = Path("/proc/driver/nvidia/gpus")


def offers(folder: Path = _DRIVER) -> tuple[Offer, ...]:
    """This machine, at $0: one offer for each kind of GPU, else one without any."""
    source = "this machine"
    found = Counter(_models(folder))
    if not found:
        return (Offer(provider="local", price_per_hour=0.0, available=1, source=source),)
    return tuple(
        Offer(provider="local", gpu=_canonical(name), price_per_hour=0.0, available=count, source=source)
        for name, count in sorted(found.items())
    )


def _models(folder: Path) -> list[str]:
    try:
        files = sorted(folder.glob("*/information"))
        lines = [line for file in files for line in file.read_text("utf-8", "replace").splitlines()]
    except OSError:  # absent or not readable: nothing is known, and nothing is claimed
        return []
    return [line.partition(":")[2].strip() for line in lines if line.startswith("Model:")]


def _canonical(name: str) -> str:
    try:
        return GPURequest(name=name).name or name
    except ConfigurationError:  # a GPU that the table does not know keeps the driver's word
        return name
