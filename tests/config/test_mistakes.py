"""Ten typical mistakes, and the text that is printed for each: it names the file, the key, and what to do."""

from __future__ import annotations

import os
import tempfile
import unittest.mock
from pathlib import Path
from typing import Any

import pytest

from unigpu import Client, ConfigurationError
from unigpu.testing import isolated

HIDDEN = "hunter2-in-a-file"


def _project(text: str) -> Any:
    def make(folder: Path) -> dict[str, Any]:
        (folder / "unigpu.toml").write_text(text)
        return {}

    return make


def _user(text: str, mode: int = 0o600) -> Any:
    def make(folder: Path) -> dict[str, Any]:
        file = folder.parent / "home" / ".config" / "unigpu" / "config.toml"
        file.parent.mkdir(parents=True)
        file.write_text(text)
        file.chmod(mode)
        return {}

    return make


def _profile(text: str) -> Any:
    def make(folder: Path) -> dict[str, Any]:
        (folder / "unigpu.toml").write_text(text)
        return {"profile": "production"}

    return make


CHAT = '[deployments.chat]\nhandler = "app.py:f"\n'
FILE = "PROJECT/unigpu.toml"
MISTAKES: list[tuple[str, Any, str]] = [
    (
        "a mistyped key",
        _project('namespce = "team"\n'),
        f"{FILE}: namespce: there is no such setting; did you mean 'namespace'?",
    ),
    (
        "a mistyped field of a deployment",
        _project(CHAT + "worker = [0, 2]\n"),
        f"{FILE}: deployments.chat.worker: there is no such setting; did you mean 'workers'?",
    ),
    (
        "a value of the wrong type",
        _project(CHAT + '[deployments.chat.on.local]\nconcurrency = "four"\n'),
        f"{FILE}: deployments.chat.on.local.concurrency: Input should be a valid integer",
    ),
    (
        "a duration that is none",
        _project('[defaults]\nttl = "8 hours"\n' + CHAT),
        f'{FILE}: defaults.ttl: give seconds, or a text such as "90s", "15m", "6h", "2d"',
    ),
    (
        "a deployment that is not declared",
        _project('[deployments.chatt]\nhandler = "app.py:f"\n'),
        f"no deployment 'chat' is declared in {FILE}; did you mean 'chatt'? Declare it in unigpu.toml as "
        "[deployments.chat], or give its fields: deploy(name='chat', ...).",
    ),
    (
        "a profile that there is not",
        _profile('[profiles.prodution]\nnamespace = "live"\n'),
        f"there is no profile 'production' in {FILE}; did you mean 'prodution'? "
        "Write [profiles.production] into unigpu.toml.",
    ),
    (
        "a mistyped provider",
        _project('provider = "locl"\n' + CHAT),
        f"provider ({FILE}): there is no provider 'locl'; did you mean 'local'? Installed: INSTALLED.",
    ),
    (
        "a key in a project's file",
        _project(f'[api_keys]\nrunpod = "{HIDDEN}"\n'),
        f"{FILE}: api_keys: a key does not belong in a project's file, which is committed and shared. Put it into the "
        "environment, or into [api_keys] of ~/.config/unigpu/config.toml. "
        "If this file was ever shared, make a new key.",
    ),
    (
        "a key in a file that others can read",
        _user(f'[api_keys]\nrunpod = "{HIDDEN}"\n', 0o644),
        "USER holds a key, and others can read it (mode 0644). Run: chmod 600 USER. If this machine has other users, "
        "make a new key as well.",
    ),
    (
        "a file that is not TOML",
        _project("provider = local\n"),
        f"{FILE} is not valid TOML: Invalid value (at line 1, column 12).",
    ),
]


def told(make: Any, folder: Path) -> str:
    """What is printed for a mistake in a project at *folder*, which is the working directory."""
    with pytest.raises(ConfigurationError) as caught, Client(**make(folder)) as client:
        client.plan("chat", provider=client._context.session.settings.provider)
    assert HIDDEN not in repr(caught.value)
    user = folder.parent / "home" / ".config" / "unigpu" / "config.toml"
    return str(caught.value).replace(str(folder), "PROJECT").replace(str(user), "USER")


@pytest.mark.parametrize(("make", "text"), [m[1:] for m in MISTAKES], ids=[m[0] for m in MISTAKES])
def test_a_typical_mistake_is_told_in_words_that_help(
    make: Any, text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from unigpu import _registry

    folder = tmp_path / "project"
    folder.mkdir()
    (folder / ".git").mkdir()
    monkeypatch.chdir(folder)
    said = told(make, folder)
    assert said.startswith(text.replace("INSTALLED", ", ".join(_registry.installed())))
    assert HIDDEN not in said


def main() -> None:
    """``python tests/config/test_mistakes.py``: all ten, as they are printed."""
    here = Path.cwd()
    for what, make, _ in MISTAKES:
        with tempfile.TemporaryDirectory() as home, isolated():
            folder = Path(home) / "project"
            (folder / ".git").mkdir(parents=True)
            own = {"HOME": f"{home}/home", "XDG_CONFIG_HOME": f"{home}/home/.config"}
            os.chdir(folder)
            with unittest.mock.patch.dict(os.environ, own):
                for name in ("UNIGPU_CONFIG", "UNIGPU_ISOLATED"):
                    del os.environ[name]
                print(f"{what}:\n  {told(make, folder)}")
            os.chdir(here)


if __name__ == "__main__":
    main()
