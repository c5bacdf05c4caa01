"""Drivers are entry points; a broken one costs only those who use it."""

from __future__ import annotations

import sys
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest

from unigpu import Client, ConfigurationError, _registry

GOOD = """
from unigpu.driver import CallDriver
class Driver(CallDriver):
    name = "good"
    driver_api = 1
    env_key = "GOOD_KEY"
    def __init__(self, config): pass
    async def find(self, io, ref, *, deadline): raise NotImplementedError
    async def submit(self, io, info, call): raise NotImplementedError
"""


@pytest.fixture
def plugins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Installs a package with one driver, as pip would: a module and a ``.dist-info`` on the path."""
    monkeypatch.setattr(_registry, "_loaded", {})
    monkeypatch.syspath_prepend(str(tmp_path))

    def install(package: str, driver: str, code: str) -> None:
        monkeypatch.delitem(sys.modules, package, raising=False)
        (tmp_path / f"{package}.py").write_text(code)
        info = tmp_path / f"{package}-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text(f"[unigpu.drivers]\n{driver} = {package}:Driver\n")

    return install


def test_a_plugin_is_found_by_name_and_imported_when_it_is_used(plugins: Any) -> None:
    plugins("unigpu_good", "good", GOOD)
    assert {"good", "local"} <= set(_registry.installed())
    assert _registry.load("good").name == "good"
    assert _registry.load("good") is _registry.load("good")


def test_an_unknown_provider_names_the_nearest_and_all_there_are(plugins: Any) -> None:
    plugins("unigpu_good", "good", GOOD)
    with pytest.raises(ConfigurationError, match="'goood'; did you mean 'good'") as caught:
        _registry.load("goood")
    assert "local" in str(caught.value)
    with pytest.raises(ConfigurationError, match="did you mean 'good'"):
        Client("goood")


def test_an_import_error_names_the_package_and_spares_the_others(plugins: Any) -> None:
    plugins("unigpu_good", "good", GOOD)
    plugins("unigpu_broken", "broken", "import a_module_that_is_not_there\n")
    with pytest.raises(ConfigurationError, match=r"package unigpu[_-]broken .*ModuleNotFoundError") as caught:
        _registry.load("broken")
    assert isinstance(caught.value.__cause__, ModuleNotFoundError)
    assert _registry.load("good").name == "good"
    with Client("local", state_dir=None) as client:
        assert "broken" in client.deployments(provider=["broken"]).unreadable


def test_a_module_without_the_class_is_told(plugins: Any) -> None:
    plugins("unigpu_empty", "empty", "")
    with pytest.raises(ConfigurationError, match="AttributeError"):
        _registry.load("empty")
    plugins("unigpu_wrong", "wrong", "Driver = 5")
    with pytest.raises(ConfigurationError, match="no driver class"):
        _registry.load("wrong")


@pytest.mark.parametrize(("api", "upgrade"), [(2, "Upgrade unigpu"), (0, "Upgrade unigpu_old")])
def test_another_version_of_the_contract_is_refused_with_both_numbers(plugins: Any, api: int, upgrade: str) -> None:
    plugins("unigpu_old", "old", GOOD.replace("driver_api = 1", f"driver_api = {api}").replace('"good"', '"old"'))
    with pytest.raises(ConfigurationError, match=rf"version {api} .*has version 1") as caught:
        _registry.load("old")
    assert upgrade in str(caught.value).replace("-", "_")


def test_two_packages_of_one_name_are_both_named(plugins: Any) -> None:
    plugins("unigpu_good", "good", GOOD)
    plugins("unigpu_gooder", "good", GOOD)
    with pytest.raises(ConfigurationError, match=r"unigpu.good .* and unigpu.gooder "):
        _registry.load("good")


def test_a_driver_that_calls_itself_otherwise_is_refused(plugins: Any) -> None:
    plugins("unigpu_alias", "alias", GOOD)
    with pytest.raises(ConfigurationError, match=r"registers 'alias'.*calls itself 'good'"):
        _registry.load("alias")


def test_the_built_in_driver_is_an_entry_point_like_any_other() -> None:
    points = {p.name: p.value for p in metadata.entry_points(group="unigpu.drivers")}
    assert points["local"] == "unigpu.providers.local:LocalDriver"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("    long_pol = 1.0", "has an attribute 'long_pol', which unigpu does not read; did you mean 'long_poll'"),
        ("    limit = {}", "did you mean 'limits'"),
        ("    fact = {}", "did you mean 'facts'"),
        ("    def chunk(self): pass", "did you mean 'chunks'"),
        ("    def has_jobs(self, info): return True", "lacks status: a driver that overrides has_jobs needs it"),
    ],
)
def test_a_misspelt_attribute_is_refused_with_the_nearest_name(plugins: Any, change: str, said: str) -> None:
    plugins("unigpu_good", "good", GOOD + change + "\n")
    with pytest.raises(ConfigurationError) as caught:
        _registry.load("good")
    assert said in str(caught.value)


def test_names_of_a_drivers_own_that_are_like_none_of_the_contract_are_fine(plugins: Any) -> None:
    plugins("unigpu_good", "good", GOOD + "    currency = 'USD'\n    _limit = 3\n")
    assert _registry.load("good").name == "good"


@pytest.mark.parametrize(
    ("code", "said"),
    [
        (
            GOOD.replace("CallDriver", "DeployDriver"),
            "lacks deployments, parts, read, resources, scale: a DeployDriver",
        ),
        (GOOD.replace("    async def submit", "    async def submits"), "lacks submit: a CallDriver needs them"),
        (
            GOOD.replace("Driver(CallDriver)", "Driver"),
            "derives from neither unigpu.driver.CallDriver nor DeployDriver",
        ),
    ],
)
def test_a_driver_that_is_not_whole_is_refused_with_what_it_lacks(plugins: Any, code: str, said: str) -> None:
    plugins("unigpu_good", "good", code)
    with pytest.raises(ConfigurationError) as caught:
        _registry.load("good")
    assert said in str(caught.value)
