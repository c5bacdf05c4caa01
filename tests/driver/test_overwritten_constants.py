"""A user may overwrite our constants in the platform's console with anything. `deployments` and `gc` still answer."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import pytest

from unigpu import Client
from unigpu.emulator.apis.runpod.emulator import RunPodEmulator
from unigpu.emulator.apis.vast.emulator import VastEmulator
from unigpu.emulator.apis.yotta.emulator import Quirks, YottaEmulator
from unigpu.models import Interface, Kind
from unigpu.testing import FaceBench
from unigpu.testing.reference import ReferenceDriver, ReferenceEmulator

ANY: Final[Mapping[str, Any]] = {"image": "ghcr.io/me/app:1", "gpu": "RTX 4090"}
NAMES: Final = tuple(
    f"UNIGPU_{name}"
    for name in (
        "PORT", "CONCURRENCY", "TIMEOUT", "EXPIRES", "INTERFACE", "IDEMPOTENT", "PRICE", "MAX_PRICE", "MAX_WORKERS"
    )
)  # fmt: skip
JUNK: Final = ("nan", "inf", "-1", "1e999", "junk", "")


def reference() -> FaceBench:
    return FaceBench(
        "reference", lambda engine, key: ReferenceEmulator(engine, key=key), list_operation="reference.endpoint.list",
        fields=ANY, driver=ReferenceDriver,
    )  # fmt: skip


def runpod() -> FaceBench:
    return FaceBench(
        "runpod", lambda engine, key: RunPodEmulator(engine, key=key), list_operation="runpod.endpoint.list", fields=ANY
    )


def vast() -> FaceBench:
    return FaceBench(
        "vast", lambda engine, key: VastEmulator(engine, token=key), list_operation="vast.endpoint.list",
        fields={**ANY, "max_price": 1.0},
    )  # fmt: skip


def yotta() -> FaceBench:
    shown = Quirks(shows_env="envVars", env_key="envVars", credential_key="credentialId", numeric_ids=True)
    return FaceBench(
        "yotta", lambda engine, key: YottaEmulator(engine, token=key, quirks=shown),
        list_operation="yotta.endpoint.list",
        fields={**ANY, "gpu": ["RTX 4090", "H100 SXM"], "workers": 1, "ttl": None, "auth": "none"},
    )  # fmt: skip


def overwritten(value: Any, junk: str) -> Any:
    """A reply with other constants, in every form in which a platform shows an environment."""
    if isinstance(value, str) and "UNIGPU_NAME=" in value:  # docker flags: the last one of a name counts
        return value + "".join(f" -e {name}={junk}" for name in NAMES)
    if isinstance(value, list):
        name = value[0] if len(value) == 2 and isinstance(value[0], str) else ""
        return [name, junk] if name in NAMES else [overwritten(one, junk) for one in value]
    if not isinstance(value, dict):
        return value
    if value.get("key") in NAMES:
        return {**value, "value": junk}
    added = NAMES if "UNIGPU_NAME" in value else ()  # also those that the deployment itself has no need of
    return {name: overwritten(one, junk) for name, one in value.items()} | dict.fromkeys(added, junk)


PLATFORMS: Final[Sequence[tuple[Callable[[], FaceBench], Kind]]] = (
    (reference, "serverless"),
    (runpod, "serverless"),
    (runpod, "pod"),
    (vast, "serverless"),
    (vast, "pod"),
    (yotta, "serverless"),
    (yotta, "pod"),
)


@pytest.mark.parametrize("junk", JUNK)
@pytest.mark.parametrize(("make", "kind"), PLATFORMS)
def test_one_odd_deployment_hides_no_other(make: Callable[[], FaceBench], kind: Kind, junk: str) -> None:
    with make() as bench, Client(**bench.options()) as client:
        interface: Interface = "http" if (bench.provider, kind) == ("vast", "pod") else "function"
        said = {"ttl": None, "auth": "none"} if kind == "pod" else {}
        app = client.deploy(name="chat", **{**bench.shape(interface, kind), **said})
        bench.change_json = lambda _, body: overwritten(body, junk)
        (shown,) = client.deployments()
        assert shown.name == "chat"
        assert client.gc().unreadable == {}
        assert shown.info.interface in ("function", "http")
        assert shown.info.concurrency >= 1
        bench.change_json = None
        app.teardown()
