"""Every platform that a mock can serve: one application's life on each, with nothing but its name changed."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from unigpu import AsyncClient, Client, ConfigurationError, _registry
from unigpu.testing import unigpu_mock
from unigpu.testing._mock.platforms import _BUILT_IN, find

SERVED = [name for name in sorted(_BUILT_IN) if name == "reference" or name in _registry.installed()]


def short(input: dict[str, Any]) -> dict[str, Any]:
    return {"summary": input["text"][:3]}


@pytest.mark.parametrize("provider", SERVED)
def test_an_application_runs_on_it_without_an_account_or_a_wait(provider: str) -> None:
    async def later() -> Any:
        async with AsyncClient(provider) as client:
            return (await client.invoke("summarize", {"text": "xyz.."})).output

    with unigpu_mock(provider) as cloud:
        cloud.serve(f"summarize@{provider}", short, cold_start=300)
        with Client(provider) as client:
            began = cloud.clock.now()
            assert client.invoke("summarize", {"text": "abc.."}).output == {"summary": "abc"}
            assert cloud.clock.now() - began >= 290
            mapped = [
                one.output for one in client.map("summarize", [{"text": f"{n}--."} for n in (1, 2)], progress="off")
            ]
            assert mapped == [{"summary": "1--"}, {"summary": "2--"}]
        assert asyncio.run(later()) == {"summary": "xyz"}
        assert len(cloud.calls("summarize", "invoke")) >= 4  # where a platform takes no job while nothing runs: more
        assert cloud.calls("summarize", "deploy")
        assert cloud.billed()
        with Client(provider) as client:
            client.teardown("summarize")
        cloud.assert_nothing_billing(after=600)


def test_an_application_that_uses_them_side_by_side() -> None:
    with unigpu_mock(*SERVED) as cloud, Client() as client:
        for provider in SERVED:
            cloud.serve(f"who@{provider}", lambda _, name=provider: {"i": name})
        assert [client.invoke(f"who@{name}", {"n": 1}).output["i"] for name in SERVED] == SERVED
        assert {one.provider for one in client.deployments(provider=SERVED)} == set(SERVED)


MINE = """
from unigpu.emulator.contract import Reply
from unigpu.testing import MockPlatform
from unigpu.testing.reference import ReferenceEmulator

PLATFORM = MockPlatform(
    face=lambda engine: ReferenceEmulator(engine, key=None),
    adds_workers=("mine.endpoint.create",),
    no_capacity=Reply(status=409),
)
NONE = 3
"""


def test_a_drivers_package_brings_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mine_for_tests.py").write_text(MINE)
    info = tmp_path / "mine_for_tests-1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: mine-for-tests\nVersion: 1\n")
    text = "[unigpu.mocks]\nmine = mine_for_tests:PLATFORM\nwrong = mine_for_tests:NONE\n"
    (info / "entry_points.txt").write_text(text)
    monkeypatch.syspath_prepend(str(tmp_path))
    assert find("mine").adds_workers == ("mine.endpoint.create",)
    with pytest.raises(ConfigurationError, match="mine_for_tests:NONE"):
        find("wrong")
    with pytest.raises(ConfigurationError, match="did you mean 'mine'"):
        find("mien")
