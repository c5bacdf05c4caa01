"""A handler for Vast's own worker program."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any


async def work(input: dict[str, Any]) -> AsyncIterator[Any]:
    """Echoes; or counts; or fails; or runs until a file is there, and says by others that it began and ended."""
    if "fail" in input:
        raise ValueError(input["fail"])
    if "began" in input:
        Path(input["began"]).touch()
        try:
            while not Path(input["go"]).exists():
                await asyncio.sleep(0.01)
        finally:
            Path(input["began"] + ".ended").touch()
    if "count" in input:
        for number in range(input["count"]):
            yield number
        return
    yield {"echo": input}
