"""Our constants: what is written is read again, and what a user made of them never raises."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unigpu._lifecycle.identity import identity_of
from unigpu.driver import DeploymentInfo, DeploymentSpec, Found, Tags, found_of
from unigpu.models import BearerToken

WHOLE = Tags(
    name="chat", namespace="team", spec_hash="1:abc,gpu=12", attempt="a1", execution_timeout=12.5, concurrency=4,
    interface="http", worker_protocol="foreign", idempotent=False, route="/run", auth_env="CHAT_TOKEN", port=8000,
    expires_at=1_800_000_000.0, price=0.69, max_price=2.0, max_workers=3,
)  # fmt: skip


def test_what_is_written_is_read_again() -> None:
    env = WHOLE.write()
    assert env == {
        "UNIGPU_NAME": "chat", "UNIGPU_NAMESPACE": "team", "UNIGPU_SPEC": "1:abc,gpu=12", "UNIGPU_ATTEMPT": "a1",
        "UNIGPU_TIMEOUT": "12.5", "UNIGPU_CONCURRENCY": "4", "UNIGPU_INTERFACE": "http", "UNIGPU_WORKER": "foreign",
        "UNIGPU_IDEMPOTENT": "0", "UNIGPU_ROUTE": "/run", "UNIGPU_AUTH": "CHAT_TOKEN", "UNIGPU_PORT": "8000",
        "UNIGPU_EXPIRES": "1800000000", "UNIGPU_PRICE": "0.69", "UNIGPU_MAX_PRICE": "2", "UNIGPU_MAX_WORKERS": "3",
    }  # fmt: skip
    assert Tags.read({**env, "PATH": "/bin", "UNIGPU_VAST": "serverless"}) == WHOLE
    assert Tags().write() == {}


def test_a_deployment_says_its_constants_by_the_same_writer() -> None:
    spec = DeploymentSpec(name="chat", image="i", command=("serve",), interface="http", auth=BearerToken(env="TOKEN"))
    identity = identity_of(spec, provider="x", namespace="n", spec_hash="1:0", attempt="a", expires_at=None)
    tags = Tags.read(identity.constants)
    assert (tags.name, tags.namespace, tags.interface, tags.auth_env) == ("chat", "n", "http", "TOKEN")
    assert (tags.worker_protocol, tags.execution_timeout, tags.expires_at) == ("foreign", spec.execution_timeout, None)
    assert tags.write() == identity.constants


@pytest.mark.parametrize(
    "junk", ["nan", "inf", "-inf", "-1", "0", "1e999", "1e300", "", "junk", "\u0663", "0x10", "1_000"]
)
def test_a_value_that_cannot_be_read_counts_as_absent(junk: str) -> None:
    tags = Tags.read(dict.fromkeys(WHOLE.write(), junk))
    assert (tags.port, tags.interface) in ((None, None), (3, None), (1000, None))
    info = DeploymentInfo(provider="x", provider_name="y", id="z", **tags.info())
    assert info.concurrency >= 1
    assert 0 < info.execution_timeout < float("inf")


@given(st.dictionaries(st.sampled_from(sorted(WHOLE.write())), st.text(max_size=12)))
def test_no_text_breaks_the_reader(env: dict[str, str]) -> None:
    DeploymentInfo(provider="x", provider_name="y", id="z", **Tags.read(env).info())


def test_what_the_platform_shows_wins_over_a_constant_unless_it_shows_nothing() -> None:
    assert WHOLE.info(port=9000, execution_timeout=None)["port"] == 9000
    assert WHOLE.info(port=9000, execution_timeout=None)["execution_timeout"] == 12.5
    assert Tags(name="chat").info(port=1, assumed=("route",)) == {"name": "chat", "port": 1, "assumed": ("route",)}
    assert "price" not in WHOLE.info()
    assert WHOLE.found(created_at=1.0, origin=None) == {
        "attempt": "a1", "spec_hash": "1:abc,gpu=12", "expires_at": 1_800_000_000.0, "created_at": 1.0
    }  # fmt: skip


def test_a_deployment_without_our_constants_shows_none() -> None:
    assert Tags.read({"PATH": "/bin"}) == Tags()
    assert (Tags().shown, WHOLE.shown) == (False, True)


def test_an_info_gives_the_tags_that_belong_to_any_create_call() -> None:
    info = DeploymentInfo(provider="x", provider_name="y", id="z", **WHOLE.info())
    of: Any = Tags.of(info)
    assert (of.attempt, of.spec_hash, of.expires_at) == (None, None, None)
    assert (of.name, of.port, of.idempotent, of.price) == ("chat", 8000, False, None)


def test_the_resource_that_is_called_shows_its_deployment() -> None:
    info = DeploymentInfo(provider="x", provider_name="y", id="z", created_at=1.0, **WHOLE.info())
    assert found_of("endpoint", info) == Found(
        kind="endpoint", id="z", name="y", attempt="a1", spec_hash="1:abc,gpu=12", created_at=1.0,
        expires_at=1_800_000_000.0, info=info,
    )  # fmt: skip
    assert found_of("endpoint", info, spec_hash=None).spec_hash is None
