"""A user may overwrite our constants in the platform's console with anything. `deployments` and `gc` still answer."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import pytest

from unigpu import Client
from unigpu.cloud.faces.runpod import RunPodFace
from unigpu.cloud.faces.vast import VastFace
from unigpu.cloud.faces.yotta import Quirks, YottaFace
from unigpu.testing import FaceBench
from unigpu.testing.reference import ReferenceDriver, ReferenceFace

ANY: Final[Mapping[str, Any]] = {"image": "ghcr.io/me/app:1", "gpu": "RTX 4090"}
SAID: Final[Mapping[str, Any]] = {**ANY, "ttl": None, "auth": "none"}
YOTTA: Final[Mapping[str, Any]] = {**SAID, "gpu": ["RTX 4090", "H100 SXM"], "workers": 1}
SHOWN: Final = Quirks(shows_env="envVars", env_key="envVars", credential_key="credentialId", numeric_ids=True)
JUNK: Final = ("nan", "inf", "-1", "1e999", "junk", "")


def reference() -> FaceBench:
    return FaceBench(
        "reference", lambda engine, key: ReferenceFace(engine, key=key), list_operation="reference.endpoint.list",
        fields=ANY, driver=ReferenceDriver,
    )  # fmt: skip


def runpod() -> FaceBench:
    return FaceBench(
        "runpod", lambda engine, key: RunPodFace(engine, key=key), list_operation="runpod.endpoint.list", fields=ANY
    )


def vast() -> FaceBench:
    return FaceBench(
        "vast", lambda engine, key: VastFace(engine, token=key), list_operation="vast.endpoint.list",
        fields={**ANY, "max_price": 1.0},
    )  # fmt: skip


def yotta() -> FaceBench:
    return FaceBench(
        "yotta", lambda engine, key: YottaFace(engine, token=key, quirks=SHOWN), list_operation="yotta.endpoint.list",
        fields=YOTTA,
    )  # fmt: skip


def overwritten(value: Any, junk: Mapping[str, str]) -> Any:
    """A reply with other constants, in every form in which a platform shows an environment."""
    if isinstance(value, str):
        return re.sub(
            r"(UNIGPU_[A-Z]+)=\S*", lambda found: f"{found[1]}={junk.get(found[1], found[0].partition('=')[2])}", value
        )
    if isinstance(value, list):
        name = value[0] if len(value) == 2 and isinstance(value[0], str) else ""
        return [name, junk[name]] if name in junk else [overwritten(one, junk) for one in value]
    if not isinstance(value, dict):
        return value
    if isinstance(value.get("key"), str) and value["key"] in junk:
        return {**value, "value": junk[value["key"]]}
    changed = {name: junk[name] if name in junk else overwritten(one, junk) for name, one in value.items()}
    if "UNIGPU_NAME" in value:  # also those that the deployment itself has no need of
        changed |= junk
    return changed


@pytest.fixture(params=[reference, vast], ids=lambda make: make.__name__)
def bench(request: pytest.FixtureRequest) -> Iterator[FaceBench]:
    with request.param() as made:
        yield made


@pytest.mark.parametrize("junk", JUNK)
@pytest.mark.parametrize("kind", ["serverless", "pod"])
def test_one_odd_deployment_hides_no_other(bench: FaceBench, kind: Any, junk: str, tmp_path: Path) -> None:
    if bench.provider == "reference" and kind == "pod":
        pytest.skip("the reference platform has no pods")
    said = {"ttl": None, "auth": "none"} if kind == "pod" else {}
    names = (
        "PORT",
        "CONCURRENCY",
        "TIMEOUT",
        "EXPIRES",
        "INTERFACE",
        "IDEMPOTENT",
        "PRICE",
        "MAX_PRICE",
        "MAX_WORKERS",
    )
    with Client(**bench.options()) as client:
        interface: Any = "http" if (bench.provider, kind) == ("vast", "pod") else "function"
        app = client.deploy(name="chat", **{**bench.shape(interface, kind), **said})
        bench.change_json = lambda _, body: overwritten(body, {f"UNIGPU_{name}": junk for name in names})
        (shown,) = client.deployments()
        assert shown.name == "chat"
        assert client.gc().unreadable == {}
        assert shown.info.interface in ("function", "http")
        assert shown.info.concurrency >= 1
        bench.change_json = None
        app.teardown()
