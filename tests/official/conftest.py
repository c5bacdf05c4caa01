"""The vendors' own clients and workers, each in an environment of its own: only under ``make official``."""

from __future__ import annotations

import os

if os.environ.get("UNIGPU_OFFICIAL") != "1":
    collect_ignore_glob = ["*"]
