"""The local provider: real worker processes on this machine, under a supervisor that starts and ends by itself."""

from __future__ import annotations

from .driver import LocalDriver

__all__ = ["LocalDriver"]
