"""The layers: which one wins, where each value came from, and whose keys are read."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import Any

import pytest

from unigpu import ConfigurationError
from unigpu._config import load
from unigpu.cli import main

KEY = "hunter2-key-of-a-file"


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "project"
    folder.mkdir()
    (folder / ".git").mkdir()
    monkeypatch.chdir(folder)
    return folder


def write(file: Path, text: str, mode: int = 0o600) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)
    file.chmod(mode)
    return file


def user(tmp_path: Path, text: str, mode: int = 0o600) -> Path:
    return write(tmp_path / "home" / ".config" / "unigpu" / "config.toml", text, mode)


def test_the_users_file_lies_under_the_projects(project: Path, tmp_path: Path) -> None:
    mine = user(tmp_path, 'provider = "mine"\nnamespace = "mine"\n[defaults]\nttl = "1h"\ndisk = 5\n')
    theirs = write(project / "unigpu.toml", 'namespace = "team"\n[defaults]\nttl = "8h"\n')
    settings = load()
    assert (settings.provider, settings.namespace) == ("mine", "team")
    assert settings.defaults == {"ttl": "8h", "disk": 5}
    assert settings.sources["provider"] == settings.sources["defaults.disk"] == str(mine)
    assert settings.sources["namespace"] == settings.sources["defaults.ttl"] == str(theirs)


def test_a_profile_lies_over_every_file_and_has_tables_of_its_own(project: Path, tmp_path: Path) -> None:
    user(tmp_path, f'[profiles.ci]\nprovider = "mine"\n[profiles.ci.api_keys]\nrunpod = "{KEY}"\n')
    write(
        project / "unigpu.toml",
        'provider = "p"\n[defaults]\nttl = 1\n[profiles.ci.defaults]\nttl = 2\n'
        "[profiles.ci.driver_options.local]\nx = 1\n",
    )
    assert load().provider == "p"
    assert load().find_key("runpod", None) is None
    settings = load(profile="ci")
    assert (settings.provider, settings.defaults, settings.driver_options) == ("mine", {"ttl": 2}, {"local": {"x": 1}})
    found = settings.find_key("runpod", "RUNPOD_API_KEY")
    assert found is not None
    assert found.value.get_secret_value() == KEY
    assert found.source.endswith("[profiles.ci]: api_keys.runpod")
    assert KEY not in repr(settings) + repr(found)


VENDORS: list[tuple[str, str, str]] = [
    ("runpod", ".runpod/config.toml", f'[default]\napi_key = "{KEY}"\n'),
    ("runpod", ".runpod/config.toml", f'apikey = "{KEY}"\napiurl = "https://x"\n'),
    ("runpod", ".runpod/config.toml", f'[default]\napi_key = "{KEY}"\n[work]\napi_key = "another"\n'),
    ("runpod", ".config/runpod/credentials.toml", f'api_key = "{KEY}"\n'),
    ("vast", ".config/vastai/vast_api_key", f"{KEY}\n"),
    ("vast", ".vast_api_key", KEY),
    ("yotta", ".yotta/config", f"[default]\napi_key = {KEY}\n"),
    ("yotta", ".yotta/config", f"[default]\napi_key = {KEY}\nbase_url = https://api.yottalabs.ai\n"),
    ("yotta", ".yotta/credentials", f"orgId=7\napikey={KEY}\n"),
]


@pytest.mark.parametrize(
    ("provider", "place", "text"), VENDORS, ids=[f"{p}-{n}" for n, (p, _, _) in enumerate(VENDORS)]
)
def test_a_vendors_own_file_is_read_last_and_never_written(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, provider: str, place: str, text: str
) -> None:
    file = write(tmp_path / "home" / place, text)
    before = file.stat().st_mtime_ns
    found = load().find_key(provider, "VENDOR_KEY")
    assert found is not None
    assert (found.value.get_secret_value(), found.source) == (KEY, f"the vendor's own file ({file})")
    user(tmp_path, f'[api_keys]\n{provider} = "of-the-users-file"\n')
    mine = load().api_key(provider, "VENDOR_KEY")
    assert mine is not None
    assert mine.get_secret_value() == "of-the-users-file"
    monkeypatch.setenv("VENDOR_KEY", "of-env")
    theirs = load().api_key(provider, "VENDOR_KEY")
    assert theirs is not None
    assert theirs.get_secret_value() == "of-env"
    assert (file.read_text(), file.stat().st_mtime_ns) == (text, before)


def test_a_key_that_others_can_read_is_refused_and_not_shown(project: Path, tmp_path: Path) -> None:
    write(tmp_path / "home" / ".vast_api_key", KEY, 0o640)
    with pytest.raises(ConfigurationError, match=r"others can read it \(mode 0640\).*chmod 600") as caught:
        load().api_key("vast", None)
    assert KEY not in str(caught.value)
    user(tmp_path, '[driver_options.local]\ntoken = "t"\n', 0o604)
    with pytest.raises(ConfigurationError, match="mode 0604"):
        load()


def test_a_file_without_a_key_may_be_read_by_anybody(project: Path, tmp_path: Path) -> None:
    user(tmp_path, 'namespace = "mine"\n', 0o644)
    assert load().namespace == "mine"
    write(tmp_path / "home" / ".yotta" / "config", "[default]\nregion = x\n", 0o644)
    assert load().api_key("yotta", None) is None


@pytest.mark.parametrize(
    "text",
    [f"[work]\napi_key = {KEY}\n", f"[default]\napi_key = {KEY}\nbase_url = https://api.dev.yottalabs.ai\n"],
    ids=["another profile", "another address"],
)
def test_a_key_of_yottas_file_that_is_not_the_default_profiles_or_not_for_its_address_is_not_taken(
    project: Path, tmp_path: Path, text: str
) -> None:
    write(tmp_path / "home" / ".yotta" / "config", text)
    assert load().api_key("yotta", None) is None


@pytest.mark.parametrize("text", ["", "[default\n", "x = \x00", "a b c"])
def test_a_vendors_file_of_another_shape_is_no_key_or_our_error(project: Path, tmp_path: Path, text: str) -> None:
    for place in (".runpod/config.toml", ".yotta/config", ".yotta/credentials"):
        write(tmp_path / "home" / place, text)
    for provider in ("runpod", "yotta"):
        found = None
        with contextlib.suppress(ConfigurationError):  # ours, and no other
            found = load().api_key(provider, None)
        assert found is None


def test_explain_shows_every_source_and_no_secret(
    project: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    user(tmp_path, f'[api_keys]\nrunpod = "{KEY}"\n[driver_options.local]\ntoken = "{KEY}"\n')
    text = (
        '[defaults]\nttl = "8h"\n[deployments.chat]\nhandler = "app:f"\nregistry = {username = "u", password = "%s"}\n'
    )
    write(project / "unigpu.toml", text % KEY)
    monkeypatch.setenv("UNIGPU_NAMESPACE", "of-env")
    assert main(["config", "explain"]) == 0
    shown = capsys.readouterr()
    assert KEY not in shown.out + shown.err
    lines = {line.split("  ")[0]: line for line in shown.out.splitlines()}
    assert lines["namespace"].endswith("environment (UNIGPU_NAMESPACE)")
    assert lines["defaults.ttl"].endswith(str(project / "unigpu.toml"))
    assert "***" in lines["driver_options.local.token"]
    assert main(["config", "explain", "--json"]) == 0
    assert {"setting", "value", "source"} == set(json.loads(capsys.readouterr().out)["settings"][0])


def test_explain_checks_what_is_declared(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(project / "unigpu.toml", '[deployments.chat]\nhandler = "app:f"\nworkers = [3, 1]\n')
    assert main(["config", "explain"]) == 2
    assert "unigpu.toml: deployments.chat.workers: " in capsys.readouterr().err


def test_an_argument_is_no_files_fault(project: Path) -> None:
    from unigpu import Client

    write(project / "unigpu.toml", '[deployments.chat]\nhandler = "app:f"\nworkers = 2\n')
    wrong: Any = {"workers": [3, 1]}
    with Client() as client, pytest.raises(ConfigurationError) as caught:
        client.plan("chat", provider="local", **wrong)
    assert str(caught.value).startswith("workers: ")
