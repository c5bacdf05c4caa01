"""Where a setting comes from, and what is said when it is wrong."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from unigpu import Client, ConfigurationError, _config
from unigpu._config import load


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory of a project, without any file yet."""
    folder = tmp_path / "project"
    (folder / "deep" / "er").mkdir(parents=True)
    (folder / ".git").mkdir()
    monkeypatch.chdir(folder / "deep" / "er")
    return folder


def test_nothing_configured_is_local(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("UNIGPU_STATE_DIR")
    monkeypatch.delenv("XDG_STATE_HOME")
    settings = load()
    assert (settings.provider, settings.namespace) == ("local", "default")
    assert settings.state_dir == Path.home() / ".local" / "state" / "unigpu"
    assert set(settings.sources.values()) == {"default"}


def test_argument_wins_over_environment_wins_over_file(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (project / "unigpu.toml").write_text('provider = "of-file"\nnamespace = "of-file"\n')
    assert (load().provider, load().sources["provider"]) == ("of-file", str(project / "unigpu.toml"))
    monkeypatch.setenv("UNIGPU_PROVIDER", "of-env")
    monkeypatch.setenv("UNIGPU_NAMESPACE", "of-env")
    assert (load().provider, load().namespace) == ("of-env", "of-env")
    assert load().sources["namespace"] == "environment (UNIGPU_NAMESPACE)"
    settings = load(provider="of-arg", namespace="of-arg")
    assert (settings.provider, settings.namespace, settings.sources["provider"]) == ("of-arg", "of-arg", "argument")


def test_the_state_directory_has_its_own_order(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UNIGPU_STATE_DIR", "own")
    assert load().state_dir == project / "deep" / "er" / "own"
    assert load(state_dir="given").state_dir == project / "deep" / "er" / "given"
    assert load(state_dir=None).state_dir is None
    monkeypatch.delenv("UNIGPU_STATE_DIR")
    monkeypatch.setenv("XDG_STATE_HOME", "/xdg")
    assert load().state_dir == Path("/xdg/unigpu")


def test_a_table_in_pyproject_is_the_same_and_the_nearest_file_counts(project: Path) -> None:
    (project / "pyproject.toml").write_text('[tool.unigpu]\nprovider = "of-pyproject"\n')
    assert load().provider == "of-pyproject"
    (project / "deep" / "pyproject.toml").write_text("[tool.other]\nx = 1\n")
    assert load().provider == "of-pyproject", "a pyproject.toml without our table is passed by"
    (project / "deep" / "unigpu.toml").write_text('provider = "nearer"\n')
    assert load().provider == "nearer"
    assert load(config=project / "pyproject.toml").provider == "of-pyproject"


def test_the_search_ends_at_the_repository(project: Path) -> None:
    (project.parent / "unigpu.toml").write_text('provider = "outside"\n')
    assert load().provider == "local"


def test_a_profile_is_another_set_of_names(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (project / "unigpu.toml").write_text('namespace = "team"\n[profiles.ci]\nprovider = "fake"\nnamespace = "ci"\n')
    assert load().namespace == "team"
    assert (load(profile="ci").provider, load(profile="ci").namespace) == ("fake", "ci")
    monkeypatch.setenv("UNIGPU_PROFILE", "ci")
    assert load().namespace == "ci"
    with pytest.raises(ConfigurationError, match=r"no profile 'cii'.*did you mean 'ci'"):
        load(profile="cii")


MISTAKES = [
    ('provder = "x"', "provder: there is no such setting; did you mean 'provider'?"),
    ("provider = 5", "give a text"),
    ('provider = ""', "give a text"),
    ('namespace = "Big Letters"', "lower-case"),
    ("defaults = 1", "defaults is a table"),
    ("[deployments]\nx = 1", "deployments.x is a table, not a number"),
    ("[defaults]\ntttl = 1", "defaults.tttl: there is no such setting; did you mean 'ttl'"),
    ("[deployments.x]\nworker = 1", "deployments.x.worker: there is no such setting; did you mean 'workers'"),
    ("[deployments.x.on]\nfake = 1", "deployments.x.on.fake is a table"),
    ("[deployments.x.on.fake]\nhandlr = 1", "deployments.x.on.fake.handlr: there is no such setting"),
    ("[driver_options]\nlocal = 1", "driver_options.local is a table"),
    ("[profiles.ci]\nregion = 1", "profiles.ci.region: there is no such setting"),
    ("provider = ", "not valid TOML"),
    ('api_key = "hunter2"', "api_key: there is no such setting"),
]


@pytest.mark.parametrize(("text", "message"), MISTAKES, ids=[m for _, m in MISTAKES])
def test_a_mistake_names_the_file_and_the_key(project: Path, text: str, message: str) -> None:
    (project / "unigpu.toml").write_text(text)
    with pytest.raises(ConfigurationError) as caught:
        load(profile="ci" if "profiles" in text else None)
    assert message in str(caught.value)
    assert "unigpu.toml" in str(caught.value)
    assert "hunter2" not in str(caught.value)


def test_a_file_that_was_asked_for_must_be_there(project: Path) -> None:
    for wrong in ("none.toml", project, "nul\0", 5, "~nobody-of-that-name/x"):
        with pytest.raises(ConfigurationError):
            load(config=wrong)  # type: ignore[arg-type]  # a caller without a type checker


def test_a_deleted_working_directory_is_no_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    assert load().provider == "local"


def test_keys_come_from_argument_then_our_variable_then_the_vendors(monkeypatch: pytest.MonkeyPatch) -> None:
    def key(settings: Any) -> str | None:
        found = settings.api_key("run-pod", "RUNPOD_KEY")
        return None if found is None else found.get_secret_value()

    assert key(load()) is None
    monkeypatch.setenv("RUNPOD_KEY", "vendors")
    settings = load()
    assert key(settings) == "vendors"
    monkeypatch.setenv("UNIGPU_RUN_POD_API_KEY", "ours")
    assert key(settings) == "ours", "read late, not when the settings were made"
    assert key(load(api_key={"run-pod": SecretStr("given")})) == "given"
    assert key(load(provider="other", api_key="given")) == "ours", "a plain key is never another provider's"
    assert key(load(provider="run-pod", api_key="given")) == "given"


def test_a_key_never_shows() -> None:
    settings = load(provider="x", api_key="hunter2", driver_options={"x": {"token": "hunter2"}})
    assert "hunter2" not in repr(settings) + str(settings)


def test_local_has_no_key() -> None:
    for given in ({"api_key": "k"}, {"api_key": "k", "provider": "local"}):
        with pytest.raises(ConfigurationError, match="local has no key"):
            load(**given)  # type: ignore[arg-type]  # one of several arguments
    for wrong in (5, "", {"x": 5}, SecretStr("")):
        with pytest.raises(ConfigurationError):
            load(provider="x", api_key=wrong)  # type: ignore[arg-type]  # a caller without a type checker


def test_a_provider_without_its_key_names_the_variables(monkeypatch: pytest.MonkeyPatch, cloud: Any) -> None:
    from unigpu import _registry

    keyed = type("Keyed", (_registry.load("fake"),), {"name": "keyed", "env_key": "KEYED_KEY"})
    with _registry.using("keyed", keyed), Client("keyed") as client:
        with pytest.raises(ConfigurationError, match=r"KEYED_KEY \(or UNIGPU_KEYED_API_KEY\)"):
            client.deploy(name="x", handler="a:b")
        monkeypatch.setenv("KEYED_KEY", "k")
        client.deploy(name="x", handler="a:b", progress="off")
    with Client("fake", api_key="k") as client, pytest.raises(ConfigurationError, match="has no key"):
        client.workers("x")


def test_a_key_for_a_provider_that_there_is_not_is_a_mistyped_name(cloud: Any) -> None:
    for given in ({"api_key": {"fakee": "k"}}, {"provider": "fakee", "api_key": "k"}):
        with pytest.raises(ConfigurationError, match="did you mean 'fake'"):
            Client(**given)  # type: ignore[arg-type]  # one of several arguments


def test_declared_deployments_defaults_and_what_differs_on_a_provider(project: Path, cloud: Any) -> None:
    (project / "unigpu.toml").write_text(
        'provider = "fake"\n[defaults]\nidle_timeout = "2m"\n[deployments.summarize]\nhandler = "app:f"\n'
        "workers = [0, 2]\n[deployments.summarize.on.fake]\nworkers = [0, 5]\n"
    )
    with Client() as client:
        app = client.deploy("summarize", idle_timeout=30, progress="off")
        assert (app.info.workers, app.name) == ((0, 5), "summarize")
        (row,) = cloud.rows.values()
        assert row.spec.idle_timeout == 30
        with pytest.raises(ConfigurationError, match="did you mean 'summarize'"):
            client.deploy("sumarize")
        client.deploy(name="other", handler="app:f", progress="off")
        assert [r.spec.idle_timeout for r in cloud.rows.values()] == [30, 120]


def test_the_configuration_may_say_that_it_adapts(project: Path, cloud: Any) -> None:
    (project / "unigpu.toml").write_text('[defaults]\non_unsupported = "adpt"\n')
    with Client("fake") as client, pytest.raises(ConfigurationError, match="did you mean 'adapt'"):
        client.deploy(name="x", handler="a:b")


def test_driver_options_of_file_and_argument_are_merged_and_checked_when_used(project: Path, cloud: Any) -> None:
    (project / "unigpu.toml").write_text('[driver_options.fake]\nspeed = 2\nbase_url = "http://x"\n')
    with Client("fake", driver_options={"fake": {"speed": 3}, "other": {"x": 1}}) as client:
        client.deployments(provider="fake")
        driver = client._context.session.driver("fake")
        assert dict(driver.config.options) == {"speed": 3, "base_url": "http://x"}  # type: ignore[attr-defined]  # the fake
    wrong = Client("fake", driver_options={"fake": {"sped": 3}})
    with pytest.raises(ConfigurationError, match="did you mean 'speed'"):
        wrong.deployments(provider="fake")


def test_only_the_configuration_reads_the_environment() -> None:
    folder = Path(_config.__file__).parent.parent
    readers = [
        str(file.relative_to(folder))
        for file in folder.rglob("*.py")
        if re.search(r"\bos\.(environb?|getenvb?)\b|import .*\benviron\b", file.read_text())
    ]
    # The worker is a leaf and reads its own; workers are started with an environment that is built from nothing; the
    # way out asks the system's rule for proxies.
    allowed = ("_config/", "worker/", "emulator/", "providers/local/launch.py", "_io/http/proxy.py", "cli/", "testing/")
    assert [name for name in readers if not name.startswith(allowed)] == []
