"""The pytest plugin, in runs of pytest of their own: what an application's suite gets by having unigpu installed."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest

APP = """
import unigpu
from unigpu import _registry
from unigpu.testing.reference import ReferenceDriver

_registry._given["reference"] = ReferenceDriver  # as if its package were installed
client = unigpu.Client()                          # made when the module is imported, as applications do


def label(text):
    return client.invoke("label", {"text": text}).output["label"]


def labels(input):
    return {"label": input["text"].upper()}
"""
CONFTEST = """
import app                                        # before any test, before any plugin of the suite's own
"""
SUITE = """
import os
import unittest
from pathlib import Path

import pytest

import app
import unigpu
from unigpu.testing import unigpu_mock

seen = []


def test_a_client_of_the_application_is_served(unigpu_cloud):
    unigpu_cloud.serve("label", app.labels, cold_start=300, workers=(0, 1))
    assert app.label("cat") == "CAT"
    unigpu_cloud.assert_nothing_billing(after=600)


def test_it_is_served_again_by_the_next_mock(unigpu_cloud):
    unigpu_cloud.serve("label", lambda _: {"label": "other"})
    assert app.label("cat") == "other"


@pytest.mark.unigpu_mock("reference", clock="virtual")
def test_the_marker_says_what_is_served(unigpu_cloud):
    unigpu_cloud.serve("label@reference", app.labels)
    assert unigpu.Client("reference").invoke("label", {"text": "a"}).output == {"label": "A"}


def test_a_real_platform_is_refused_before_anything_is_sent():
    with unigpu.Client("reference", api_key="k") as client:
        with pytest.raises(unigpu.ConfigurationError, match="api.reference.test is a real address"):
            client.deployments(provider="reference")


def test_no_key_is_there_and_no_file_of_the_users_is_read():
    assert not [name for name in os.environ if name.endswith("_API_KEY")]
    assert unigpu.Client()._context.session.settings.find_key("vast", "VAST_API_KEY") is None
    assert unigpu.Client()._context.session.namespace == "default"


@pytest.mark.parametrize("turn", [1, 2])
def test_each_test_has_a_state_directory_of_its_own(turn):
    seen.append(os.environ["UNIGPU_STATE_DIR"])
    assert len(set(seen)) == len(seen)
    assert not Path(seen[-1]).exists()


def test_a_variable_that_a_test_leaves_behind(monkeypatch):
    os.environ["RUNPOD_API_KEY"] = "set by a test that does not tidy up"


def test_is_not_there_for_the_next():
    assert "RUNPOD_API_KEY" not in os.environ


@pytest.mark.unigpu_real_state
def test_who_means_the_real_account_says_so():
    assert os.environ["RUNPOD_API_KEY"] == "real"
    assert "UNIGPU_ISOLATED" not in os.environ
    assert unigpu.Client()._context.session.settings.find_key("vast", "VAST_API_KEY").source.endswith(".vast_api_key)")


class OfUnittest(unittest.TestCase):
    def setUp(self):
        self.cloud = self.enterContext(unigpu_mock("local"))
        self.cloud.serve("label", app.labels)

    def test_it_works_there_too(self):
        self.assertEqual(app.label("dog"), "DOG")
        self.assertEqual(len(self.cloud.calls("label", "invoke")), 1)
"""


def run(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """pytest on an application, on a machine whose user has keys."""
    home = folder / "home"
    home.mkdir(exist_ok=True)
    (home / ".vast_api_key").write_text("a-real-one")
    (home / ".vast_api_key").chmod(0o600)
    (home / ".config" / "unigpu").mkdir(parents=True, exist_ok=True)
    (home / ".config" / "unigpu" / "config.toml").write_text('namespace = "of-the-user"\n')
    keep = ("PATH", "LANG", "COVERAGE_PROCESS_START", "COVERAGE_PROCESS_CONFIG")
    environment = {name: os.environ[name] for name in keep if name in os.environ}
    environment |= {"HOME": str(home), "RUNPOD_API_KEY": "real", "TMPDIR": str(folder / "tmp")}
    (folder / "tmp").mkdir(exist_ok=True)
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-W", "error", *arguments]
    return subprocess.run(command, cwd=folder / "project", env=environment, capture_output=True, text=True, check=False)


@pytest.fixture
def project(tmp_path: Path) -> Path:
    folder = tmp_path / "project"
    folder.mkdir()
    (folder / "pytest.ini").write_text("[pytest]\naddopts = --strict-markers\n")
    (folder / "app.py").write_text(APP)
    (folder / "conftest.py").write_text(CONFTEST)
    (folder / "test_app.py").write_text(SUITE)
    return tmp_path


def test_it_is_there_where_unigpu_is_installed() -> None:
    (point,) = metadata.entry_points(group="pytest11", name="unigpu")
    assert point.value == "unigpu.testing._plugin"


@pytest.mark.parametrize("arguments", [("-p", "no:randomly", "-p", "no:xdist"), ("-n", "2")], ids=["serial", "xdist"])
def test_every_test_of_an_application_is_kept_from_real_accounts(project: Path, arguments: Any) -> None:
    ended = run(project, *arguments)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert "11 passed" in ended.stdout
    assert not list((project / "tmp").glob("unigpu-*"))
    assert not (project / "home" / ".local").exists()


def test_it_can_be_turned_off(project: Path) -> None:
    (project / "project" / "test_app.py").write_text(
        'import os\ndef test_all_of_it():\n    assert os.environ["RUNPOD_API_KEY"] == "real"\n'
    )
    ended = run(project, "-p", "no:unigpu", "-p", "no:xdist")
    assert ended.returncode == 0, ended.stdout + ended.stderr


@pytest.mark.processes
def test_what_a_test_leaves_running_on_this_machine_is_ended_with_the_run(project: Path) -> None:
    (project / "project" / "handlers.py").write_text("def echo(input):\n    return input\n")
    (project / "project" / "test_app.py").write_text(
        "import os, unigpu\n"
        "def test_it():\n"
        '    with unigpu.Client(namespace="of-a-test") as client:\n'
        '        client.deploy(name="left", handler="handlers.py:echo", progress="off")\n'
        '        assert client.invoke("left", {"a": 1}).output == {"a": 1}\n'
        '    print("state", os.environ["UNIGPU_STATE_DIR"])\n'
    )
    ended = run(project, "-s", "-p", "no:xdist")
    assert ended.returncode == 0, ended.stdout + ended.stderr
    (state,) = [line.split()[-1] for line in ended.stdout.splitlines() if "state " in line]
    running = subprocess.run(["ps", "-eww", "-o", "args"], capture_output=True, text=True, check=True).stdout
    assert state not in running
    assert not Path(state).exists()


def test_importing_it_costs_an_applications_suite_next_to_nothing() -> None:
    code = "import sys, unigpu.testing._plugin; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert {"unigpu", "pytest"} <= set(loaded)
    assert not {"pydantic", "httpx", "respx", "anyio", "unigpu._client", "unigpu.driver", "unigpu.errors"} & set(loaded)
