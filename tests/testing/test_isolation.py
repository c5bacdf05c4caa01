"""`isolated`: what a process that is kept apart reads, and whom it can reach."""

from __future__ import annotations

import asyncio
import http.server
import json
import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import respx
import trio

from unigpu import AsyncClient, Client, ConfigurationError, _registry
from unigpu.testing import isolated
from unigpu.testing.reference import ReferenceDriver


@pytest.fixture
def reference() -> Iterator[None]:
    with _registry.using("reference", ReferenceDriver):
        yield


async def asynchronous() -> None:
    async with AsyncClient("reference", api_key="k") as client:
        await client.deployments(provider="reference")


def synchronous() -> None:
    with Client("reference", api_key="k") as client:
        client.deployments(provider="reference")


def mapping() -> None:
    with Client("reference", api_key="k") as client:
        list(client.map("chat", [{"n": 1}], progress="off"))


@pytest.mark.parametrize("proxy", [None, "http://127.0.0.1:9"], ids=["direct", "proxy"])
@pytest.mark.parametrize(
    "call",
    [synchronous, mapping, lambda: asyncio.run(asynchronous()), lambda: trio.run(asynchronous)],
    ids=["sync", "map", "asyncio", "trio"],
)
def test_a_real_platform_is_refused_before_its_name_is_looked_up(
    reference: None, call: Callable[[], None], proxy: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    if proxy is not None:
        monkeypatch.setenv("HTTPS_PROXY", proxy)
    with isolated(), pytest.raises(ConfigurationError, match=r"api\.reference\.test is a real address.*unigpu_mock"):
        call()


def test_a_plain_respx_mock_is_served(reference: None) -> None:
    with isolated(), respx.mock:
        respx.get(host="api.reference.test").respond(json={"items": [], "next": None})
        synchronous()


class _Nothing(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        body = json.dumps({"deployments": []}).encode()
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing to tell."""


def test_this_machine_is_reached() -> None:
    with http.server.HTTPServer(("127.0.0.1", 0), _Nothing) as server, isolated():
        thread = threading.Thread(target=server.handle_request)
        thread.start()
        options = {"local": {"base_url": f"http://127.0.0.1:{server.server_port}", "token": "t"}}
        with Client("local", driver_options=options) as client:
            assert list(client.deployments(provider="local")) == []
        thread.join()


def test_the_environment_is_as_before_and_what_others_changed_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RUNPOD_API_KEY", "real")
    monkeypatch.setenv("UNIGPU_NAMESPACE", "team")
    monkeypatch.delenv("OTHER", raising=False)
    before = dict(os.environ)
    with isolated({"VAST_API_KEY": "dummy"}) as state:
        assert not {"RUNPOD_API_KEY", "UNIGPU_NAMESPACE"} & set(os.environ)
        assert os.environ["VAST_API_KEY"] == "dummy"
        assert not state.exists()  # it is made when something is kept there
        with Client() as client:
            assert client._context.session.settings.state_dir == state
        monkeypatch.setenv("OTHER", "kept")
    assert dict(os.environ) == {**before, "OTHER": "kept"}


def test_a_projects_own_file_can_be_read(tmp_path: Path) -> None:
    file = tmp_path / "unigpu.toml"
    file.write_text('namespace = "team"\n')
    with isolated(), Client() as client:
        assert client._context.session.namespace == "default"
    with isolated(config=file), Client() as client:
        assert client._context.session.namespace == "team"
