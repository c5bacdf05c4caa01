"""The recipe of `unigpu image dockerfile app:keywords`, carried out without Docker: folders for an image.

Each instruction of the Dockerfile does here what it does there, with the paths of the image below one folder. So what
is installed, and where, is what the image would have. unigpu itself comes from this repository instead of from PyPI.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
OURS = re.compile(r'(?P<quote>"?)\bunigpu(?P<extra>\[[a-z,-]+\])?(==[\w.+-]+)?(?P=quote)')


@dataclass(frozen=True)
class Image:
    """Where things of the image are: its code, its interpreters, and the command of its containers."""

    app: Path
    bin: Path
    pyworker: Path
    command: list[str]

    def environment(self) -> dict[str, str]:
        """What a container of it sees before its platform adds anything."""
        own = {name: value for name, value in os.environ.items() if name in ("HOME", "LANG", "TMPDIR")}
        own["UNIGPU_PYWORKER_PYTHON"] = str(self.pyworker / "bin" / "python")  # in the image: /opt/pyworker/bin/python
        return {**own, "PATH": f"{self.bin}:{os.environ['PATH']}"}


def build(target: str, folder: Path) -> Image:
    """Carry out the recipe for *target* in *folder*, unless that was done already."""
    said = [sys.executable, "-m", "unigpu", "image", "dockerfile", target]
    text = subprocess.run(said, check=True, capture_output=True, text=True).stdout
    stamp = folder / f"built-{hashlib.sha256(text.encode() + (ROOT / 'pyproject.toml').read_bytes()).hexdigest()[:16]}"
    image = Image(folder / "app", folder / "env" / "bin", folder / "pyworker", [])
    fresh = not stamp.exists()
    if fresh:
        shutil.rmtree(folder, ignore_errors=True)
    for instruction, rest in _instructions(text):
        if instruction == "CMD":
            image.command.extend(json.loads(rest))
        elif instruction == "COPY":
            _copy(rest, image)
        elif fresh:
            _carry_out(instruction, rest, image)
    stamp.touch()
    return image


def _instructions(text: str) -> list[tuple[str, str]]:
    lines = [line for line in text.splitlines() if line.strip() and not line.startswith("#")]
    whole = re.sub(r"\\\n\s*", " ", "\n".join(lines))
    return [(word, rest) for word, _, rest in (line.partition(" ") for line in whole.splitlines())]


def _carry_out(instruction: str, rest: str, image: Image) -> None:
    match instruction:
        case "FROM":  # python:3.11-slim: an interpreter of its own
            image.app.mkdir(parents=True)
            subprocess.run([sys.executable, "-m", "venv", image.bin.parent], check=True)
        case "RUN":
            # As variables: this repository's path may hold spaces, or the names that are replaced.
            line = OURS.sub(lambda found: f"\"$OURS\"'{found['extra'] or ''}'", rest)
            line = line.replace("/opt/pyworker", '"$PYWORKER"')
            paths = {"OURS": str(ROOT), "PYWORKER": str(image.pyworker)}
            quiet = {"PIP_DISABLE_PIP_VERSION_CHECK": "1", "PIP_QUIET": "2"}
            env = {**image.environment(), **quiet, **paths}
            subprocess.run(["sh", "-ec", line], cwd=image.app, env=env, check=True)
        case "ENV" | "WORKDIR" | "EXPOSE":  # of the container, and all the same here
            pass
        case _:
            raise SystemExit(f"the recipe says {instruction}, which this program does not know")


def _copy(rest: str, image: Image) -> None:
    pattern, _ = rest.split()
    for path in HERE.iterdir() if pattern == "." else HERE.glob(pattern):
        if path.is_file():
            shutil.copy(path, image.app / path.name)


if __name__ == "__main__":
    print(build("app:keywords", ROOT / ".venvs" / "portable"))
