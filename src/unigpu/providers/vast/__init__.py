"""Vast.ai: serverless endpoints on a marketplace of machines, and single machines of it."""

from __future__ import annotations

from .driver import VastDriver

__all__ = ["VastDriver"]
