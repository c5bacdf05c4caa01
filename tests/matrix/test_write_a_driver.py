"""The worked example in the docs is the code that the tests run, to the last line."""

from __future__ import annotations

import json
import os
import re
import sys
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

import unigpu
import unigpu.testing.reference as reference
from unigpu import _registry

PAGE = Path(__file__).parents[2] / "docs" / "write-a-driver.md"
CODE = Path(reference.__file__).parent


def blocks(language: str, name: str) -> list[str]:
    return re.findall(
        rf"^```{language} title=\"{re.escape(name)}\"\n(.*?)^```$", PAGE.read_text(), flags=re.DOTALL | re.MULTILINE
    )


def lines(text: str) -> list[str]:
    return [line for line in text.splitlines() if line.strip()]


@pytest.mark.parametrize("name", ["driver.py", "api.py", "wire.py", "translate.py"])
def test_the_page_holds_the_whole_file(name: str) -> None:
    shown = lines("\n".join(blocks("python", name)))
    real = lines((CODE / name).read_text())
    assert shown == real, f"docs/write-a-driver.md shows another {name} than the one that runs"


def test_the_page_shows_the_facts_as_they_are() -> None:
    (shown,) = blocks("toml", "facts.toml")
    assert shown in (CODE / "facts.toml").read_text()


def test_the_page_leaves_no_file_of_the_driver_out() -> None:
    needed = {path.name for path in CODE.iterdir() if path.suffix in (".py", ".toml")} - {"__init__.py", "emulator.py"}
    assert {name for name in needed if f"`{name}`" in PAGE.read_text()} == needed


def test_the_driver_is_short() -> None:
    assert len((CODE / "driver.py").read_text().splitlines()) < 300


@pytest.fixture
def acme() -> Iterator[None]:
    """The page's first driver, registered."""
    (code,) = blocks("python", "acme.py")
    assert len(code.splitlines()) <= 60
    module = types.ModuleType("acme")
    sys.modules["acme"] = module
    exec(compile(code, "acme.py", "exec"), module.__dict__)
    with _registry.using("acme", _registry.check_class(module.AcmeDriver, "the driver 'acme'")):
        yield
    del sys.modules["acme"]


@pytest.mark.usefixtures("acme")
def test_the_first_driver_of_the_page_calls_what_exists(tmp_path: Path) -> None:
    asked: list[httpx.Request] = []
    failing = [True]

    def platform(request: httpx.Request) -> httpx.Response:
        asked.append(request)
        assert request.headers["authorization"] == "Bearer acme-key"
        if request.url.path == "/v1/functions/fn-1":
            return httpx.Response(200, json={"name": "upper", "enabled": True})
        if request.url.path == "/v1/functions/fn-1/call":
            if failing and failing.pop():
                return httpx.Response(503)  # it passes, and the handler may run twice
            return httpx.Response(200, json={"output": json.loads(request.content)["input"]["text"].upper()})
        return httpx.Response(404)

    options: dict[str, Any] = {"api_key": {"acme": "acme-key"}, "state_dir": tmp_path, "config": os.devnull}
    with unigpu.Client("acme", transport=httpx.MockTransport(platform), **options) as client:
        app = client.get(id="fn-1", idempotent=True)
        assert (app.state, app.address) == ("READY", "id:fn-1@acme")
        assert app.invoke({"text": "a"}).output == "A"
        found = client.map("id:fn-1", [{"text": "b"}, {"text": "c"}], progress="off")
        assert [one.output for one in found] == ["B", "C"]
        assert client.capabilities("acme").billing_unit.value == "unknown"
        refused: list[Callable[[], object]] = [
            lambda: client.submit(app, {"text": "a"}),
            lambda: next(iter(client.stream(app, {"text": "a"}))),
            lambda: client.deploy(name="mine", handler="app:main"),
            lambda: app.scale(1),
        ]
        for call in refused:
            sent = len(asked)
            with pytest.raises(unigpu.UnsupportedError):
                call()
            assert len(asked) == sent
        with pytest.raises(unigpu.NotFoundError):
            client.get(id="fn-2")
