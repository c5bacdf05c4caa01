"""Whatever is given as a spec field: a spec, or a `ConfigurationError`. Nothing else escapes."""

from __future__ import annotations

import contextlib
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import SecretStr

from unigpu.errors import ConfigurationError
from unigpu.models import (
    BearerToken,
    DeploymentSpec,
    GPURequest,
    RegistryAuth,
    Scaling,
    SecretRef,
    Volume,
    json_path,
    scale_range,
)

scalars = st.one_of(
    st.none(), st.booleans(), st.integers(), st.integers(10**300, 10**310), st.floats(), st.text(max_size=20),
    st.binary(max_size=5), st.just(SecretStr("x")), st.just(object()), st.just(len), st.just(Exception),
    st.just(lambda: None), st.just("\ud800"),
    st.sampled_from(["24GB", "L40S:2", "A100", "app:f", "6h", "EU", "${volume.a}", "none", "${volume."]),
)  # fmt: skip
keys = st.one_of(
    st.text(max_size=8),
    st.sampled_from(["name", "size_gb", "env", "signal", "target", "count", "A"]),
    st.integers(),
    st.none(),
)
anything = st.recursive(
    scalars,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.lists(inner, max_size=3).map(tuple),
        st.dictionaries(keys, inner, max_size=3),
        st.frozensets(st.text(max_size=5), max_size=2),
    ),
    max_leaves=5,
)
plausible = {
    "name": st.sampled_from(["a", "summarize"]),
    "interface": st.sampled_from(["function", "http"]),
    "kind": st.sampled_from(["serverless", "pod"]),
    "handler": st.sampled_from(["app:f", None]),
    "command": st.sampled_from([["x"], "x y", None]),
    "workers": st.one_of(st.integers(1, 5), st.tuples(st.integers(0, 3), st.integers(1, 5))),
    "idle_timeout": st.one_of(st.integers(0, 9), st.just("5m")),
    "gpu": st.sampled_from(["L40S", ["RTX 4090", "H100 SXM:2"], "24GB", None]),
    "max_price": st.sampled_from([1.5, 2, None]),
    "ttl": st.sampled_from(["6h", 60, None]),
    "env": st.dictionaries(
        st.sampled_from(["A", "B"]), st.text(st.characters(exclude_characters="\0", codec="utf-8"), max_size=5)
    ),
    "secrets": st.sampled_from([["S"], {"S": "value"}]),
    "regions": st.sampled_from(["US", ["EU", "NA"], None]),
    "volumes": st.sampled_from([(), [{"name": "a", "size_gb": 3}]]),
}  # fmt: skip
fields = sorted(DeploymentSpec.model_fields)


@settings(max_examples=400)
@given(st.dictionaries(st.one_of(st.sampled_from(fields), st.text(max_size=8)), anything, max_size=5))
def test_any_values_make_a_spec_or_a_configuration_error(given_fields: dict[str, Any]) -> None:
    try:
        made = DeploymentSpec(**{"name": "a", **given_fields})
    except ConfigurationError:
        return
    assert made.with_changes() == made
    assert repr(made)


@settings(max_examples=200)
@given(st.fixed_dictionaries({"name": plausible["name"]}, optional={k: v for k, v in plausible.items() if k != "name"}))
def test_a_spec_made_again_from_what_was_stated_is_the_same(given_fields: dict[str, Any]) -> None:
    try:
        made = DeploymentSpec(**given_fields)
    except ConfigurationError:
        return
    again = made.with_changes()
    assert again == made
    assert again.stated == made.stated == set(given_fields)
    assert DeploymentSpec.model_validate({k: getattr(made, k) for k in made.stated}) == made


@given(st.sampled_from([DeploymentSpec, GPURequest, RegistryAuth, Scaling, SecretRef, Volume, BearerToken]), anything)
def test_any_value_makes_an_input_model_or_a_configuration_error(model: Any, value: Any) -> None:
    with contextlib.suppress(ConfigurationError):
        model.model_validate(value)


@given(anything)
def test_any_value_makes_a_range_of_workers_or_a_configuration_error(value: Any) -> None:
    try:
        least, most = scale_range(value)
    except ConfigurationError:
        return
    assert 0 <= least <= most <= 10_000


@given(anything)
def test_any_value_is_json_or_has_a_place_where_it_is_not(value: Any) -> None:
    where = json_path(value)
    assert where is None or where.startswith("$")
