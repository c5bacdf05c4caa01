"""GPU names: one canonical name each, with every platform's spelling, memory and form factor."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field

from ._base import InputModel


class GPURequest(InputModel):
    """One acceptable GPU: by name, or by the least memory.

    Attributes:
        name: The canonical name, as in ``"RTX 4090"``; ``None`` where memory alone decides.
        memory_gb: The least memory of one GPU in gigabytes, for a request such as ``"24GB"``.
        count: GPUs in one worker.
    """

    name: str | None = None
    memory_gb: Annotated[int | None, Field(ge=1)] = None
    count: Annotated[int, Field(ge=1, le=16)] = 1


def gpu_requests(value: Any) -> Any:
    """A set of acceptable GPUs from ``"RTX 4090"``, ``["L40S", "H100:2"]`` or ``"24GB"``."""
    return value
