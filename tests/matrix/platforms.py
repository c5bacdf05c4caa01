"""The platforms of the matrix. One joins with an entry here; every test of this folder then runs on it too.

``UNIGPU_MATRIX=runpod`` keeps to some.
"""

from __future__ import annotations

import os
from collections.abc import Sequence

from matrix_entry import NAME, Platform
from matrix_entry_reference import REFERENCE
from matrix_entry_runpod import RUNPOD
from matrix_entry_vast import VAST
from matrix_entry_yotta import YOTTA

_ALL = (REFERENCE, RUNPOD, VAST, YOTTA)
_WANTED = os.environ.get("UNIGPU_MATRIX", "").replace(",", " ").split()
PLATFORMS: Sequence[Platform] = tuple(one for one in _ALL if not _WANTED or one.name in _WANTED)
"""Those of this run."""

__all__ = ["NAME", "PLATFORMS", "Platform"]
