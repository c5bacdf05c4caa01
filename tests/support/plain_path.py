"""The repository by a path without a blank: platforms that take a command as one text split it there."""

from __future__ import annotations

import atexit
import shutil
import tempfile
from pathlib import Path


def plain(folder: Path) -> Path:
    """*folder*, or a link to it where its path has a blank; the link goes when the process ends."""
    if not any(character.isspace() for character in str(folder)):
        return folder
    made = Path(tempfile.mkdtemp(prefix="unigpu-"))
    atexit.register(shutil.rmtree, made, ignore_errors=True)
    link = made / "link"
    link.symlink_to(folder, target_is_directory=True)
    return link
