"""Yotta Labs: declared replicas of your container on a pool of several clouds, and pods."""

from __future__ import annotations

from .driver import YottaDriver

__all__ = ["YottaDriver"]
