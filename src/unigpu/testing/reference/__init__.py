"""A small imaginary platform, complete: its protocol over the engine, its driver, and its facts.

It is what the crash matrix runs on, and the worked example of ``docs/write-a-driver.md``.
"""

from __future__ import annotations

from .driver import ReferenceDriver
from .emulator import HOST, ReferenceEmulator

__all__ = ["HOST", "ReferenceDriver", "ReferenceEmulator"]
