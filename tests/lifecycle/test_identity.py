"""The hash of a spec is stable across releases, names what differs, and holds no secret."""

from __future__ import annotations

import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from lifecycle_fakes import spec

from unigpu._lifecycle.identity import compared, differing, identity_of, spec_hash
from unigpu.driver import Content, DeploymentSpec

FORM = re.compile(r"^1:[0-9a-f]{16}(,[a-z_]+=[0-9a-f]{6})*$")


def hash_of(wanted: DeploymentSpec, *, provider: str = "fake", **items: str) -> str:
    return spec_hash(wanted, Content(items=items), provider=provider)


def diff(old: DeploymentSpec, new: DeploymentSpec, *, provider: str = "fake", **items: str) -> tuple[str, ...] | None:
    stated = compared(new, Content(items=items), provider=provider)
    return differing(hash_of(old, provider=provider), hash_of(new, provider=provider, **items), stated)


# These are kept on platforms: a release that changes one of them makes every deployment there "another spec".
GOLDEN: list[tuple[dict[str, Any], dict[str, str], str]] = [
    ({}, {}, "1:e3b0c44298fc1c14"),
    ({"handler": "app:f"}, {"code": "c0de"}, "1:c2e58044a0aec40d,code=8af541,handler=7ad826"),
    (
        {"image": "ghcr.io/me/x:1.2", "env": {"B": "2", "A": "1"}, "concurrency": 4, "execution_timeout": "90s"},
        {},
        "1:548c1bde55d4d131,concurrency=4b2277,env=3eda2f,execution_timeout=17e70b,image=dad2ed",
    ),
    (
        {"image": "x", "gpu": ["RTX 4090", "L40S"], "max_price": 1.2, "regions": ["US", "EU"], "disk": 50},
        {},
        "1:6d5d39e9115bc110,disk=1a6562,gpu=c217fc,image=ba2df4,max_price=77ac31,regions=42e58d",
    ),
    (
        {"image": "x", "interface": "http", "port": 9000, "auth": {"env": "T"}, "secrets": ["T", "HF_TOKEN"]},
        {},
        "1:38e43ab75b227ccd,auth=21fc42,image=ba2df4,interface=a321f7,port=c4fe6b,secrets=082c29",
    ),
    (
        {
            "image": "x",
            "command": "serve --fast",
            "volumes": [{"name": "models", "size_gb": 100}],
            "kind": "pod",
            "idempotent": True,
        },
        {},
        "1:85102014f281ec25,command=25b122,idempotent=b5bea4,image=ba2df4,kind=058595,volumes=d7379e",
    ),
    (
        {
            "image": "x",
            "provider_options": {"fake": {"route": "/r", "n": 1}},
            "registry": {"username": "u", "password": "p"},
        },
        {},
        "1:90c013cb1ab0d61e,image=ba2df4,provider_options=074361,registry=c3a1f9",
    ),
]


@pytest.mark.parametrize(("fields", "items", "wanted"), GOLDEN)
def test_hashes_are_the_same_in_every_release(fields: dict[str, Any], items: dict[str, str], wanted: str) -> None:
    assert hash_of(DeploymentSpec.model_validate({"name": "x", **fields}), **items) == wanted


FIELDS = st.fixed_dictionaries(
    {},
    optional={
        "image": st.sampled_from(["a:1", "b:2"]),
        "env": st.dictionaries(st.sampled_from(["A", "B"]), st.text(max_size=3).filter(lambda t: "\0" not in t)),
        "concurrency": st.integers(1, 3),
        "execution_timeout": st.sampled_from([600, 601.5, "10m"]),
        "disk": st.integers(1, 3),
        "port": st.integers(1, 3),
        "idempotent": st.booleans(),
        "max_price": st.sampled_from([1, 1.5]),
        "provider_options": st.sampled_from([{"fake": {"a": 1}}, {"other": {"b": 2}}]),
        "workers": st.sampled_from([1, (0, 2)]),
        "idle_timeout": st.integers(1, 3),
        "ttl": st.sampled_from([None, 60]),
        "accept": st.sampled_from([[], ["secrets_on_shared_hosts"]]),
    },
)


@given(fields=FIELDS)
def test_the_form_has_no_space_or_quote(fields: dict[str, Any]) -> None:
    assert FORM.match(hash_of(spec(**fields), code="…"))


@given(old=FIELDS, new=FIELDS)
def test_exactly_the_stated_fields_that_differ_are_named(old: dict[str, Any], new: dict[str, Any]) -> None:
    before, after = spec(**old), spec(**new)
    left_out = {"workers", "idle_timeout", "scaling", "ttl", "accept", "name"}
    expected = []
    for field in set(new) - left_out:
        one, two = getattr(before, field), getattr(after, field)
        if field == "provider_options":
            if "fake" not in two:
                continue
            one, two = before.options("fake"), after.options("fake")
        if one != two:
            expected.append(field)
    assert diff(before, after) == tuple(sorted(expected))


@given(fields=FIELDS)
def test_what_scale_changes_the_ttl_and_the_permission_are_left_out(fields: dict[str, Any]) -> None:
    kept = {k: v for k, v in fields.items() if k not in ("workers", "idle_timeout", "ttl", "accept")}
    assert hash_of(spec(**fields)) == hash_of(spec(**kept))


@given(fields=FIELDS)
def test_stating_a_default_changes_no_hash(fields: dict[str, Any]) -> None:
    more = {"concurrency": 1, "interface": "function", "execution_timeout": 600.0, "env": {}, **fields}
    assert hash_of(spec(**more)) == hash_of(spec(**fields))


def test_a_stated_default_is_compared_all_the_same() -> None:
    assert diff(spec(concurrency=4), spec(concurrency=1)) == ("concurrency",)
    assert diff(spec(concurrency=4), spec()) == ()


def test_content_is_compared_and_named() -> None:
    assert diff(spec(), spec(), code="v1") == ("code",)
    one, two = hash_of(spec(), code="v1"), hash_of(spec(), code="v2")
    assert differing(one, two, frozenset({"code"})) == ("code",)


def test_content_that_only_one_side_has_is_a_difference_where_what_runs_is_stated() -> None:
    old = hash_of(spec(handler=None, command=["serve"]), code="outdated")
    command, nothing = spec(handler=None, command=["serve"]), DeploymentSpec(name="summarize")
    assert differing(old, hash_of(command), compared(command, Content(), provider="fake")) == ("code",)
    assert differing(old, hash_of(nothing), compared(nothing, Content(), provider="fake")) == ()


def test_secrets_enter_by_name_only_and_passwords_never() -> None:
    by_name = spec(secrets=["TOKEN"])
    with_value = spec(secrets={"TOKEN": "hunter2"})
    assert hash_of(by_name) == hash_of(with_value)
    assert hash_of(spec(secrets=["OTHER"])) != hash_of(by_name)
    one = spec(image="x", registry={"username": "u", "password": "one"})
    two = spec(image="x", registry={"username": "u", "password": "two"})
    assert hash_of(one) == hash_of(two)


def test_the_order_of_acceptable_gpus_is_no_difference() -> None:
    assert hash_of(spec(gpu=["L40S", "RTX 4090"])) == hash_of(spec(gpu=["RTX 4090", "L40S"]))


def test_the_provider_is_no_part_of_the_hash() -> None:
    wanted = spec(image="x", env={"A": "1"})
    assert hash_of(wanted, provider="one") == hash_of(wanted, provider="two")


@pytest.mark.parametrize("text", [None, "", "2:abc", "1:abc,oops", "garbage"])
def test_a_hash_of_another_form_is_not_compared(text: str | None) -> None:
    assert differing(text, hash_of(spec()), frozenset({"image"})) is None


def test_a_collision_of_short_digests_is_still_a_difference() -> None:
    new = hash_of(spec(image="a"))
    old = "1:0000000000000000" + new[18:]
    assert differing(old, new, frozenset({"image"}))


def test_constants_say_what_another_process_needs_and_no_secret() -> None:
    wanted = spec(
        image="x",
        concurrency=4,
        execution_timeout="90s",
        port=9000,
        auth={"env": "API_TOKEN"},
        secrets={"API_TOKEN": "hunter2"},
        env={"VISIBLE": "value"},
        provider_options={"fake": {"route": "/v1/run"}},
    )
    made = identity_of(
        wanted, provider="fake", namespace="ns", spec_hash="1:x", attempt="a1", expires_at=1_900_000_000.0
    )
    assert dict(made.constants) == {
        "UNIGPU_NAME": "summarize",
        "UNIGPU_NAMESPACE": "ns",
        "UNIGPU_SPEC": "1:x",
        "UNIGPU_ATTEMPT": "a1",
        "UNIGPU_TIMEOUT": "90",
        "UNIGPU_CONCURRENCY": "4",
        "UNIGPU_INTERFACE": "function",
        "UNIGPU_WORKER": "1",
        "UNIGPU_IDEMPOTENT": "0",
        "UNIGPU_ROUTE": "/v1/run",
        "UNIGPU_AUTH": "API_TOKEN",
        "UNIGPU_PORT": "9000",
        "UNIGPU_EXPIRES": "1900000000",
    }


@pytest.mark.parametrize(
    ("fields", "worker"),
    [
        ({"handler": "app:f"}, "1"),
        ({"handler": None, "image": "x"}, "1"),
        ({"handler": None, "image": "x", "command": ["serve"]}, "foreign"),
        ({"handler": None, "image": "x", "interface": "http"}, "foreign"),
        ({"handler": None, "image": "x", "provider_options": {"fake": {"route": "/x"}}}, "foreign"),
    ],
)
def test_a_foreign_worker_is_called_foreign(fields: dict[str, Any], worker: str) -> None:
    made = identity_of(spec(**fields), provider="fake", namespace="ns", spec_hash="1:x", attempt="a", expires_at=None)
    assert made.constants["UNIGPU_WORKER"] == worker
