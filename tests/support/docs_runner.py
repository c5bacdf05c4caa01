"""Runs the blocks of one page, in a process of its own: ``python docs_runner.py STEPS.json``.

Each step is a block of Python or a command, with the page and line that it comes from, and what it should print. The
first that fails ends it, with a traceback that points into the page. What the page left deployed is torn down.
"""

from __future__ import annotations

import contextlib
import io
import ipaddress
import json
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any


def loopback_only(event: str, args: tuple[Any, ...]) -> None:
    """An audit hook: a page that leaves this machine fails."""
    if event == "socket.connect" and isinstance(args[1], tuple):
        host = str(args[1][0])
        if host != "localhost" and not ipaddress.ip_address(host).is_loopback:
            raise SystemExit(f"a page tried to connect to {host}")


def like(expected: str) -> re.Pattern[str]:
    """`expected`, in which ``…`` stands for anything within a line, and a line of ``…`` for any lines."""
    parts = [
        r"(?:.*\n)*?"
        if line.strip() == "…"
        else ".*?".join(re.escape(part) for part in line.rstrip().split("…")) + r" *\n"
        for line in expected.splitlines()
    ]
    return re.compile("".join(parts))


def check(step: dict[str, Any], printed: str) -> None:
    expected = step["prints"]
    if expected is not None and like(expected).fullmatch(printed if printed.endswith("\n") else f"{printed}\n") is None:
        raise SystemExit(
            f"{step['page']}:{step['line']} prints something else.\n--- it says:\n{expected}--- it prints:\n{printed}"
        )


def run_python(step: dict[str, Any], names: dict[str, Any]) -> str:
    source = "\n" * (step["line"] - 1) + step["text"]
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        exec(compile(source, step["page"], "exec"), names)  # the page's own code
    return out.getvalue()


def run_command(step: dict[str, Any]) -> str:
    words = shlex.split(step["text"], comments=True)
    line = [sys.executable, *words[1:]] if words[0] == "python" else [sys.executable, "-m", *words]
    ran = subprocess.run(line, capture_output=True, text=True, check=False)
    if ran.returncode != 0:
        raise SystemExit(
            f"{step['page']}:{step['line']}: `{step['text']}` ended with {ran.returncode}\n{ran.stdout}{ran.stderr}"
        )
    return ran.stdout


def clean_up() -> None:
    import unigpu

    with unigpu.Client("local") as client:
        for left in client.deployments(provider="local"):
            left.teardown()


def main() -> None:
    steps = json.loads(Path(sys.argv[1]).read_text("utf-8"))
    sys.path[0] = ""
    sys.addaudithook(loopback_only)
    names: dict[str, Any] = {"__name__": "__main__"}
    try:
        for step in steps:
            printed = run_command(step) if step["kind"] == "command" else run_python(step, names)
            sys.stdout.write(printed)
            check(step, printed)
    finally:
        clean_up()


if __name__ == "__main__":
    main()
