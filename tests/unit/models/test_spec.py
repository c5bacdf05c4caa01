"""The deployment spec: each rule that can be decided without a platform, and what its error says."""

from __future__ import annotations

import inspect
import pickle
from collections.abc import Callable, Mapping
from typing import Any, get_type_hints

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr, ValidationError

from unigpu.errors import ConfigurationError
from unigpu.models import BearerToken, DeploymentSpec, RegistryAuth, Scaling, SecretRef, SpecFields, Volume, scale_range
from unigpu.models.spec import DEMANDS

# The parameters of deploy, update and plan beside the spec's fields: docs/design.md, "The public surface".
PARAMETERS = {
    "spec", "deployment", "provider", "wait", "timeout", "if_exists", "ephemeral", "on_unsupported", "on_failure",
    "settle", "progress",
}  # fmt: skip


def spec(**fields: Any) -> DeploymentSpec:
    return DeploymentSpec.model_validate({"name": "summarize", **fields})


def handler_of_the_tests(input: Mapping[str, Any]) -> Mapping[str, Any]:
    return input


def refused(fields: Mapping[str, Any], *, match: str) -> str:
    with pytest.raises(ConfigurationError, match=match) as caught:
        spec(**fields)
    return str(caught.value)


def test_keyword_types_are_the_fields_of_the_spec() -> None:
    assert set(get_type_hints(SpecFields)) == set(DeploymentSpec.model_fields)


def test_no_field_is_named_like_a_parameter_of_deploy() -> None:
    assert not PARAMETERS & set(DeploymentSpec.model_fields)


def test_only_what_was_stated_is_a_demand() -> None:
    made = spec(workers=2, gpu="L40S")
    assert made.stated == {"name", "workers", "gpu"}
    assert made.stated & DEMANDS == {"name", "workers"}
    assert spec(workers=(0, 1)).stated == {"name", "workers"}, "stated, also where it is the default"


def test_the_defaults_cost_nothing_by_themselves() -> None:
    made = spec()
    assert (made.workers, made.idle_timeout, made.execution_timeout, made.concurrency) == ((0, 1), 60.0, 600.0, 1)
    assert (made.ttl, made.max_price, made.gpu, made.auth, made.idempotent) == (None, None, None, None, False)
    assert spec(kind="pod").workers == (1, 1)
    assert "workers" not in spec(kind="pod").stated


@pytest.mark.parametrize(
    ("given_value", "seconds"),
    [(90, 90.0), (1.5, 1.5), ("90", 90.0), ("90s", 90.0), ("15m", 900.0), ("15 min", 900.0), ("6h", 21600.0),
     ("2d", 172800.0), ("500ms", 0.5), ("1.5h", 5400.0)],
)  # fmt: skip
def test_durations_are_seconds_or_a_text(given_value: Any, seconds: float) -> None:
    made = spec(ttl=given_value, idle_timeout=given_value, execution_timeout=given_value)
    assert made.ttl == made.idle_timeout == made.execution_timeout == seconds


@pytest.mark.parametrize(
    "wrong", ["6 hours", "h", "-5s", "", "1e3", True, float("nan"), float("inf"), 10**400, "9" * 400, [], -1]
)
def test_a_duration_that_cannot_be_is_refused(wrong: Any) -> None:
    for field in ("ttl", "idle_timeout", "execution_timeout"):
        refused({field: wrong}, match=f"^{field}: ")


def test_a_ttl_of_none_can_be_stated() -> None:
    assert spec(ttl=None).ttl is None
    assert "ttl" in spec(ttl=None).stated
    assert "ttl" not in spec().stated


def test_ttl_and_execution_timeout_are_above_zero_and_idle_timeout_may_be_zero() -> None:
    refused({"ttl": 0}, match="ttl: .*greater than 0")
    refused({"execution_timeout": 0}, match="execution_timeout: .*greater than 0")
    assert spec(idle_timeout=0).idle_timeout == 0


@given(st.integers(0, 10_000), st.integers(1, 10_000))
def test_a_range_of_workers_is_kept_or_refused_by_its_order(least: int, most: int) -> None:
    if least <= most:
        assert spec(workers=(least, most)).workers == spec(workers=[least, most]).workers == (least, most)
    else:
        refused({"workers": (least, most)}, match=r"the least is more than the most; it is \(least, most\)")


@given(st.integers(1, 10_000))
def test_one_number_of_workers_is_least_and_most(n: int) -> None:
    assert spec(workers=n).workers == scale_range(n) == (n, n)


@pytest.mark.parametrize(
    "wrong", [0, (0, 0), -1, (-1, 2), (1, 2, 3), (), "3", 2.0, True, (0, True), None, (0, 10_001), 10**30]
)
def test_workers_that_cannot_be_are_refused(wrong: Any) -> None:
    refused({"workers": wrong}, match=r"^workers: ")
    with pytest.raises(ConfigurationError, match=r"^workers: "):
        scale_range(wrong)


def test_no_worker_at_all_is_told_about_stop() -> None:
    refused({"workers": 0}, match=r"without any worker cannot answer; stop\(\) pauses one")


def test_a_pod_is_exactly_one_worker() -> None:
    assert spec(kind="pod", workers=1).workers == (1, 1)
    for wrong in (2, (0, 1), (1, 2)):
        refused({"kind": "pod", "workers": wrong}, match='kind="pod" is exactly one worker')


@pytest.mark.parametrize("name", ["a", "a" * 63, "a-1", "abc-def"])
def test_names_that_can_be(name: str) -> None:
    assert DeploymentSpec(name=name).name == name


@pytest.mark.parametrize("name", ["", "A", "1a", "-a", "a_b", "a" * 64, "a\n", "a b", "ä", None, 5])
def test_names_that_cannot_be(name: Any) -> None:
    with pytest.raises(ConfigurationError, match=r"^name: "):
        DeploymentSpec(name=name)


def test_a_missing_name_is_told_alone() -> None:
    with pytest.raises(ConfigurationError) as caught:
        DeploymentSpec()  # type: ignore[call-arg]  # that it is missing is the point
    assert str(caught.value) == "name: this field is required"


def test_an_unknown_field_gets_the_nearest() -> None:
    refused({"worker": 1}, match="worker: there is no such field; did you mean 'workers'\\?")
    refused({"scaling": {"signal": "requests", "targe": 1}}, match="scaling.targe: .*did you mean 'target'")
    refused({"volumes": [{"name": "a", "size": 1}]}, match=r"volumes\.0\.size: .*did you mean 'size_gb'")


def test_a_handler_is_a_module_a_file_or_a_function() -> None:
    assert spec(handler="app:summarize").handler == "app:summarize"
    assert spec(handler="pkg.mod:Model").handler == "pkg.mod:Model"
    assert spec(handler="./src/my app.py:summarize").handler == "./src/my app.py:summarize"
    assert spec(handler=inspect.cleandoc).handler == "inspect:cleandoc"
    assert spec(handler=pickle.Pickler).handler == "_pickle:Pickler"


@pytest.mark.parametrize(
    "wrong", ["app", "app:", ":f", "app:1f", "app:f.g", "a-b:f", "app.py", "a\0.py:f", 5, [], SecretStr("x")]
)
def test_a_handler_that_cannot_be_imported_is_refused(wrong: Any) -> None:
    refused({"handler": wrong}, match="^handler: ")


def test_a_function_of_main_is_told_to_move() -> None:
    def summarize(input: Any) -> Any:
        return input

    summarize.__module__, summarize.__qualname__ = "__main__", "summarize"
    refused({"handler": summarize}, match=r'defined in __main__.*move it into a file.*handler="app.py:summarize"')


def test_a_function_inside_another_cannot_be_imported() -> None:
    def inner(input: Any) -> Any:
        return input

    functions: list[Callable[[Any], Any]] = [inner, lambda input: input]
    for function in functions:
        refused({"handler": function}, match="not at the top of its module")


def test_a_deployment_has_a_handler_or_a_command_and_an_http_one_no_handler() -> None:
    refused({"handler": "a:b", "command": ["x"]}, match="give handler= or command=, not both")
    refused({"handler": "a:b", "interface": "http"}, match=r'interface="http" serves your own program: give command=')
    assert spec(command="python -m http.server '$PORT'").command == ("python", "-m", "http.server", "$PORT")


@pytest.mark.parametrize("wrong", ["", [], "a 'b", ["a\0"], ["a", 1], 5])
def test_a_command_that_cannot_run_is_refused(wrong: Any) -> None:
    refused({"command": wrong}, match="^command")


@pytest.mark.parametrize("wrong", ["", "a b", "a\n", "x" * 501, "ä", 5])
def test_an_image_that_cannot_be_is_refused(wrong: Any) -> None:
    refused({"image": wrong}, match="^image: ")


def test_a_size_of_memory_needs_a_price_cap() -> None:
    refused({"gpu": "24GB"}, match=r'gpu: a size such as "24GB" accepts every GPU.*give max_price=')
    refused({"gpu": ["L40S", "24GB"]}, match="max_price")
    assert spec(gpu="24GB", max_price=1.2).max_price == 1.2


@pytest.mark.parametrize("wrong", [0, -1, "1.2", True, float("nan"), float("inf")])
def test_a_price_cap_is_a_number_above_zero(wrong: Any) -> None:
    refused({"max_price": wrong}, match="^max_price: ")


@pytest.mark.parametrize("field", ["concurrency", "disk", "port"])
@pytest.mark.parametrize("wrong", [0, True, "8", 1.5, 10**30])
def test_whole_numbers_are_whole_numbers(field: str, wrong: Any) -> None:
    refused({field: wrong}, match=f"^{field}: ")


@pytest.mark.parametrize("field", ["idempotent"])
def test_yes_and_no_are_true_and_false(field: str) -> None:
    refused({field: "yes"}, match=f"^{field}: ")


def test_regions_are_countries_and_areas_in_any_case_and_once() -> None:
    assert spec(regions="de").regions == ("DE",)
    assert spec(regions=["us", "EU", "US", "apac"]).regions == ("US", "EU", "APAC")
    refused({"regions": ["US", "us-east-1"]}, match="regions: item 2 is no ISO country code.*provider_options")
    refused({"regions": "UK"}, match='did you mean "GB"')
    refused({"regions": "XX"}, match="no ISO country code")
    refused({"regions": []}, match="the list of regions is empty; leave it out")


def test_env_is_text_and_reserved_names_are_ours() -> None:
    assert spec(env={"A": "b", "N": 3, "F": 1.5, "T": True}).env == {"A": "b", "N": "3", "F": "1.5", "T": "true"}
    refused({"env": {"UNIGPU_NAME": "x"}}, match="UNIGPU_NAME: names that begin with UNIGPU_ are unigpu's own")
    refused({"secrets": {"UNIGPU_X": "x"}}, match="unigpu's own")
    refused({"env": {"A B": "x"}}, match="is not a name of an environment variable")
    refused({"env": {"A": SecretStr("x")}}, match="A: a secret belongs in secrets=, not in env=")
    refused({"env": {"A": None}}, match="A: the value is text")
    refused({"env": {"A": "x\0"}}, match="A: the value has a NUL character")
    refused({"env": {"A": 10**5000}}, match="thousands of digits")


def test_a_variable_is_visible_or_secret_and_a_token_is_not_visible() -> None:
    refused({"env": {"T": "x"}, "secrets": ["T"]}, match="T: in env and in secrets; a variable is one of the two")
    refused({"env": {"T": "x"}, "auth": BearerToken(env="T")}, match="auth: T is in env too")
    assert spec(secrets=["T"], auth={"env": "T"}).auth == BearerToken(env="T")
    assert spec(auth="none").auth == "none"


def test_secrets_are_names_or_values_or_references() -> None:
    assert spec(secrets=["A", "B"]).secrets == {"A": None, "B": None}
    made = spec(secrets={"A": "value", "B": SecretStr("value"), "C": SecretRef(name="mine")}).secrets
    assert made == {"A": SecretStr("value"), "B": SecretStr("value"), "C": SecretRef(name="mine")}
    refused({"secrets": "A"}, match="give a list of names")
    refused({"secrets": {"A": ""}}, match="A: the value is empty")


def test_volumes_have_names_of_their_own_and_can_be_named_where_they_are_used() -> None:
    made = spec(
        volumes=[Volume(name="cache", size_gb=10)],
        env={"HF_HOME": "${volume.cache}/hf"},
        command=["x", "${volume.cache}"],
    )
    assert made.volumes[0].path is None
    refused({"volumes": [{"name": "a", "size_gb": 1}] * 2}, match="two volumes have the same name")
    refused({"env": {"HF_HOME": "${volume.cach}"}}, match=r"env.HF_HOME: .*names no volume of this spec; it has none")
    wrong = {"volumes": [{"name": "a", "size_gb": 1}], "command": ["${volume.b}"]}
    refused(wrong, match="command: .*names no volume of this spec; it has: a")
    refused(
        {"volumes": [{"name": "a", "size_gb": 1, "path": "../x"}]}, match=r"volumes\.0\.path: a mount path is absolute"
    )


def test_provider_options_are_plain_json_by_provider() -> None:
    made = spec(provider_options={"vast": {"cold_workers": 1}, "runpod": {}})
    assert made.options("vast") == {"cold_workers": 1}
    assert made.options("local") == {}
    refused(
        {"provider_options": {"vast": {"a": {"b": [object()]}}}},
        match=r"provider_options\.vast\.a\.b\[0\]: object is not JSON",
    )
    loop: dict[str, Any] = {}
    loop["loop"] = loop
    refused({"provider_options": {"vast": loop}}, match="or holding itself")
    refused({"provider_options": {"vast": 1}}, match=r"provider_options\.vast: ")
    refused({"provider_options": []}, match="provider_options: ")


def test_scaling_has_a_signal_and_a_target() -> None:
    assert spec(scaling={"signal": "requests", "target": 2}).scaling == Scaling(signal="requests", target=2)
    refused({"scaling": {"signal": "load", "target": 1}}, match="scaling.signal: .*'queue_delay' or 'requests'")
    refused({"scaling": {"signal": "requests", "target": 0}}, match="scaling.target: ")


CANARY = "hunter2-canary-value"


def with_secrets() -> DeploymentSpec:
    return spec(
        secrets={"TOKEN": CANARY, "OTHER": SecretStr(CANARY)},
        registry=RegistryAuth(username="me", password=SecretStr(CANARY)),
    )


def test_a_secret_is_in_no_text_that_a_spec_makes() -> None:
    made = with_secrets()
    for text in (
        repr(made),
        str(made),
        f"{made.secrets}",
        repr(made.model_dump()),
        made.model_dump_json(),
        str(made.registry),
    ):
        assert CANARY not in text
    secret = made.secrets["TOKEN"]
    assert isinstance(secret, SecretStr)
    assert secret.get_secret_value() == CANARY


@pytest.mark.parametrize(
    "wrong",
    [
        {"secrets": {"A B": CANARY}},
        {"secrets": {CANARY: "x"}},
        {"secrets": [CANARY]},
        {"secrets": ["OK", CANARY]},
        {"secrets": CANARY},
        {"secrets": {"A": [CANARY]}},
        {"secrets": {"A": CANARY + "\0"}},
        {"registry": {"username": "me", "password": [CANARY]}},
        {"registry": {"username": "me", "password": CANARY, "other": CANARY}},
        {"registry": CANARY},
        {"auth": CANARY},
        {"auth": {"env": CANARY}},
        {"env": {"A": CANARY + "\0"}},
        {"env": {"A": [CANARY]}},
        {"env": {"A": "${volume." + CANARY + "}"}},
        {"ttl": CANARY},
        {"regions": [CANARY]},
        {"gpu": [CANARY]},
        {"gpu": CANARY},
        {"handler": CANARY},
        {"image": CANARY + " "},
        {"name": CANARY + "_"},
        {"port": CANARY},
        {"interface": CANARY},
        {"volumes": [{"name": CANARY + "_", "size_gb": 1}]},
        {"scaling": {"signal": CANARY, "target": CANARY}},
        {"provider_options": {"vast": CANARY}},
    ],
)
def test_an_error_names_the_field_and_never_the_value(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError) as caught:
        spec(**wrong)
    seen: BaseException | None = caught.value
    while seen is not None:
        assert CANARY not in repr(seen)
        assert CANARY not in str(seen)
        seen = seen.__cause__
    assert caught.value.__suppress_context__


def test_a_spec_is_frozen() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        spec().workers = (1, 1)  # type: ignore[misc]  # that it cannot be set is the point


def test_changes_are_checked_and_keep_what_was_stated() -> None:
    made = spec(workers=2, env={"A": "1"}, gpu="L40S")
    changed = made.with_changes(workers=(0, 3), ttl="6h")
    assert changed.stated == {"name", "workers", "env", "gpu", "ttl"}
    assert (changed.workers, changed.ttl, changed.env, changed.gpu) == ((0, 3), 21600.0, {"A": "1"}, made.gpu)
    assert made.with_changes() == made
    assert made.with_changes().stated == made.stated
    assert changed.without("ttl", "gpu").stated == {"name", "workers", "env"}
    with pytest.raises(ConfigurationError, match="workers: "):
        made.with_changes(workers=0)
    with pytest.raises(ConfigurationError, match="did you mean 'workers'"):
        made.with_changes(worker=1)


def test_a_secret_survives_a_change() -> None:
    again = with_secrets().with_changes(workers=1)
    assert again.secrets == with_secrets().secrets
    assert again.registry == with_secrets().registry


def test_whose_worker_runs_is_told_by_the_spec() -> None:
    assert spec(handler="app:f").runs_our_worker("vast")
    assert spec(image="me/app").runs_our_worker("vast")
    assert not spec(image="me/app", command=["serve"]).runs_our_worker("vast")
    assert not spec(image="vllm/vllm", interface="http").runs_our_worker("vast")
    routed = spec(image="vllm/vllm", provider_options={"vast": {"route": "/v1/completions"}})
    assert not routed.runs_our_worker("vast")
    assert routed.runs_our_worker("runpod")


def test_a_risk_is_accepted_by_its_name_and_a_mistyped_one_is_named() -> None:
    assert DeploymentSpec.model_validate({"name": "a", "accept": "secrets_on_shared_hosts"}).accept == (
        "secrets_on_shared_hosts",
    )
    with pytest.raises(ConfigurationError, match="did you mean 'secrets_on_shared_hosts'"):
        DeploymentSpec.model_validate({"name": "a", "accept": ["secret_on_shared_hosts"]})
