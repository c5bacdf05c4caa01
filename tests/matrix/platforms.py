"""The platforms of the matrix. One joins with an entry here; every test of this folder then runs on it too.

``UNIGPU_MATRIX=runpod`` keeps to some.
"""

from __future__ import annotations

import os
from collections.abc import Sequence

from matrix_entry import NAME, Platform
from matrix_entry_reference import REFERENCE
from matrix_entry_runpod import RUNPOD, RUNPOD_POD
from matrix_entry_vast import VAST, VAST_POD
from matrix_entry_yotta import YOTTA, YOTTA_POD

_ALL = (REFERENCE, RUNPOD, RUNPOD_POD, VAST, VAST_POD, YOTTA, YOTTA_POD)
_WANTED = os.environ.get("UNIGPU_MATRIX", "").replace(",", " ").split()
PLATFORMS: Sequence[Platform] = tuple(one for one in _ALL if not _WANTED or one.name in _WANTED)
"""Those of this run."""

__all__ = ["NAME", "PLATFORMS", "Platform"]
