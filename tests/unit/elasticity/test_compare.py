"""`unigpu.compare` and ``python -m unigpu facts``: the four questions, from the facts, without a key."""

from __future__ import annotations

import json
from typing import Any

import pytest

import unigpu
from unigpu import _registry, cli
from unigpu.elasticity.capabilities import FLAGS
from unigpu.elasticity.fact import read_further, read_reading
from unigpu.elasticity.questions import QUESTIONS
from unigpu.errors import ConfigurationError
from unigpu.testing.reference import ReferenceDriver


@pytest.fixture(autouse=True)
def _two_platforms() -> Any:
    with _registry.using("reference", ReferenceDriver):
        yield


def test_every_flag_of_a_question_is_a_flag() -> None:
    assert {flag for flags in QUESTIONS.values() for flag in flags} <= set(FLAGS)
    assert len(QUESTIONS) == 4


def test_two_providers_stand_side_by_side() -> None:
    both = unigpu.compare("local", "reference")
    assert both.providers == ("local", "reference")
    assert [one.provider for one in both] == ["local", "reference"]
    rows = dict(both.rows())
    assert list(rows) == list(FLAGS)
    assert rows["inventory"][0].value == "this_machine"
    assert "inventory" in both.differences()
    text = str(both)
    for question in QUESTIONS:
        assert question in text
    assert all(len(line) < 120 for line in text.splitlines())


def test_a_provider_without_such_deployments_is_shown_with_the_reason() -> None:
    both = unigpu.compare("local", "reference", interface="http")
    assert both.providers == ("local",)
    assert "reference has no http deployments" in both.absent["reference"]
    assert "reference has no http deployments" in str(both)


def test_an_unknown_provider_is_an_error_with_the_nearest() -> None:
    with pytest.raises(ConfigurationError, match="did you mean 'local'"):
        unigpu.compare("locl")


@pytest.mark.parametrize(
    ("asked", "told"),
    [({"kind": "pods"}, "did you mean 'pod'"), ({"interface": "grpc"}, "give one of 'function', 'http'")],
)
def test_an_unknown_kind_or_interface_is_an_error_and_no_empty_table(asked: dict[str, Any], told: str) -> None:
    with pytest.raises(ConfigurationError, match=told):
        unigpu.compare("local", **asked)


def test_a_list_of_providers_is_told_how_to_be_given() -> None:
    with pytest.raises(ConfigurationError, match=r'compare\("runpod", "vast"\)'):
        unigpu.compare(["local", "reference"])  # type: ignore[arg-type]  # what users try


def test_where_nobody_has_such_deployments_the_reasons_are_all_that_is_shown(
    capsys: pytest.CaptureFixture[str],
) -> None:
    why = "reference has no http deployments of the kind 'pod'; it has: function/serverless."
    assert str(unigpu.compare("reference", interface="http", kind="pod")) == f"http, pod\n\n{why}"
    assert cli.main(["facts", "reference", "--interface", "http", "--kind", "pod"]) == 0
    assert why in capsys.readouterr().out


def test_the_table_says_where_the_four_answers_are_written_and_what_they_mean() -> None:
    both = unigpu.compare("runpod", "vast")
    text = str(both)
    for flag in ("elasticity_model", "cold_start", "billing_unit", "inventory"):
        assert all(one.fact(flag).source in text for one in both), flag
    assert "storage only" in text
    assert "partners' data centres" in text


def test_the_command_prints_the_same_facts_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["facts", "local", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)["local"]
    assert set(told) >= {"function/serverless", "http/pod"}
    for flag in FLAGS:
        fact = told["function/serverless"][flag]
        assert fact["source"].startswith("https://")
        assert fact["retrieved"]


def test_the_command_shows_one_provider_whole_and_several_side_by_side(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["facts", "local"]) == 0
    one = capsys.readouterr().out
    assert "documented" in one
    assert "wakes_on_request" in one
    assert cli.main(["facts", "local", "reference"]) == 0
    assert "Whose machines are they?" in capsys.readouterr().out


def test_the_command_lists_what_was_read_long_ago(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["facts", "local", "--older", "36500"]) == 0
    assert capsys.readouterr().out == "0 facts were read more than 36500 days ago.\n"
    assert cli.main(["facts", "local", "--older", "-36500", "--json"]) == 0
    old = json.loads(capsys.readouterr().out)
    assert {row["fact"] for row in old} >= set(FLAGS)


def test_what_is_no_flag_has_a_title_a_source_and_a_date_too() -> None:
    facts = {
        "has": ["function/serverless"],
        "retrieved": "2026-11-24",
        "sources": {"manual": "https://example.org/manual"},
        "reading": "It is called\nserverless.",
        "more": {"boot": {"title": "It boots fast", "value": True, "status": "contradicted", "source": "manual#boot"}},
    }
    boot = read_further("x", facts)["boot"]
    assert (boot.title, boot.source, boot.about) == ("It boots fast", "https://example.org/manual#boot", "*")
    assert read_reading("x", facts) == "It is called serverless."
    facts["more"]["boot"].pop("source")  # type: ignore[index, attr-defined]  # a plain dict of the test
    with pytest.raises(ConfigurationError, match=r"more\.boot"):
        read_further("x", facts)
