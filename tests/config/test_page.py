"""`docs/config.md` as it stands: its file is read, its deployments are planned, and what explain prints of it."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from unigpu import Client, ConfigurationError
from unigpu._config import load

PAGE = (Path(__file__).parents[2] / "docs" / "config.md").read_text("utf-8")


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The page's own project file, with the code that it names."""
    folder = tmp_path / "project"
    folder.mkdir()
    (folder / ".git").mkdir()
    (text,) = re.findall(r"^```toml\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)
    (folder / "unigpu.toml").write_text(text)
    (folder / "app.py").write_text("def summarize(input):\n    return input\n")
    monkeypatch.chdir(folder)
    return folder


def test_the_pages_file_says_what_the_page_says(project: Path) -> None:
    with Client() as client:
        spec = client.plan("summarize").on("local").spec
        assert (spec.workers, spec.ttl) == ((0, 1), 8 * 3600.0)
        changed = client.plan("summarize", workers=(0, 5)).on("local").spec
        assert changed.workers == (0, 5)  # what is said in code wins
    assert load().namespace == "team"
    assert load(profile="ci").namespace == "ci"
    assert load().driver_options == {"local": {"idle_exit": "10m"}}


def test_explain_says_where_each_value_came_from(project: Path) -> None:
    env = {**os.environ, "UNIGPU_NAMESPACE": "mine", "RUNPOD_API_KEY": "hunter2"}
    command = [sys.executable, "-m", "unigpu", "config", "explain"]
    ended = subprocess.run(command, cwd=project, env=env, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    rows = {line.split("  ")[0]: line for line in ended.stdout.splitlines()}
    assert rows["namespace"].split("  ")[-1].strip() == "environment (UNIGPU_NAMESPACE)"
    assert rows["provider"].endswith(str(project / "unigpu.toml"))
    assert "hunter2" not in ended.stdout + ended.stderr


def test_every_variable_that_the_page_names_is_read(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    named = set(re.findall(r"`(UNIGPU_[A-Z_]+)\b", PAGE))
    source = "".join(file.read_text("utf-8") for file in Path(load.__code__.co_filename).parent.glob("*.py"))
    assert {name for name in named if name not in source} <= {"UNIGPU_"}  # `UNIGPU_<PROVIDER>_API_KEY`
    assert {"UNIGPU_PROVIDER", "UNIGPU_NAMESPACE", "UNIGPU_PROFILE", "UNIGPU_STATE_DIR", "UNIGPU_CONFIG"} <= named
    assert "UNIGPU_ISOLATED" in named
    monkeypatch.setenv("UNIGPU_ISOLATED", "yes")
    with pytest.raises(ConfigurationError, match="UNIGPU_ISOLATED"):
        load()


def test_isolation_reads_no_file_of_the_users(project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = tmp_path / "home"
    (home / ".config" / "unigpu").mkdir(parents=True)
    (home / ".config" / "unigpu" / "config.toml").write_text('[driver_options.vast]\nbase_url = "http://x"\n')
    (home / ".vast_api_key").write_text("a-real-one")
    (home / ".vast_api_key").chmod(0o600)
    assert load().user_file is not None
    assert load().find_key("vast", None) is not None
    monkeypatch.setenv("UNIGPU_ISOLATED", "files")
    assert load().user_file is None
    assert load().find_key("vast", None) is None
    assert load().file == project / "unigpu.toml"
