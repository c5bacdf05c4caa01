"""The facts of every provider, and the pages made of them: complete, sourced, dated, loadable."""

from __future__ import annotations

import datetime
import re
import runpy
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from unigpu._client.compare import facts_of
from unigpu.elasticity.capabilities import FLAGS, VERBS, load, refuse
from unigpu.elasticity.fact import Fact, FurtherFact, read_facts, read_reading

PROVIDERS = ("local", "runpod", "vast", "yotta")
ROOT = Path(__file__).parents[3]
OURS = "https://github.com/unigpu/unigpu/blob/main/"
SHAPE = re.compile(r"\*|(function|http|\*)/(serverless|pod|\*)")
SENTENCE = re.compile(r"\.\s")


def every(provider: str) -> Iterator[tuple[str, Fact[Any]]]:
    shapes, further, _ = facts_of(provider)
    for caps in shapes:
        yield from caps.facts()
    yield from further.items()


@cache
def script() -> dict[str, Any]:
    return runpy.run_path(str(ROOT / "scripts" / "provider_pages.py"))


@cache
def page(name: str) -> str:
    return (ROOT / "docs" / "providers" / name).read_text(encoding="utf-8")


@pytest.mark.parametrize("provider", PROVIDERS)
def test_no_fact_is_without_a_source_and_a_day_that_has_been(provider: str) -> None:
    found = list(every(provider))
    assert len(found) >= len(FLAGS)
    for name, fact in found:
        assert re.fullmatch(r"https://\S+", fact.source), name
        assert datetime.date(2026, 1, 1) <= fact.retrieved <= datetime.date.today(), name


@pytest.mark.parametrize("provider", PROVIDERS)
def test_every_flag_of_every_kind_of_deployment_loads(provider: str) -> None:
    has: list[str] = read_facts(provider, None)["has"]
    shapes, _, _ = facts_of(provider)
    assert sorted(f"{one.interface}/{one.kind}" for one in shapes) == sorted(has)
    for caps in shapes:
        assert [name for name, _ in caps.facts()] == list(FLAGS)
        assert load(provider, interface=caps.interface, kind=caps.kind) == caps


@pytest.mark.parametrize("provider", PROVIDERS)
def test_a_contradiction_says_how_and_is_shown_on_both_pages(provider: str) -> None:
    for name, fact in every(provider):
        if fact.status == "contradicted":
            assert fact.note, name
            note = script()["safe"](fact.note)
            assert note in page("index.md"), name
            assert note in page(f"{provider}-facts.md"), name


@pytest.mark.parametrize("provider", PROVIDERS)
def test_what_is_no_flag_says_what_it_is_about(provider: str) -> None:
    _, further, _ = facts_of(provider)
    assert further
    has: list[str] = read_facts(provider, None)["has"]
    for name, fact in further.items():
        assert isinstance(fact, FurtherFact)
        assert name not in FLAGS, "the page has one anchor for each"
        assert SHAPE.fullmatch(fact.about), name
        interface, _, kind = fact.about.partition("/")
        held = [f"{i}/{k}" for i, k in (one.split("/") for one in has)]
        assert fact.about == "*" or any(
            interface in ("*", one.split("/")[0]) and kind in ("*", one.split("/")[1]) for one in held
        ), name


@pytest.mark.parametrize("provider", PROVIDERS)
def test_a_further_fact_that_cites_our_own_manual_cites_what_is_there(provider: str) -> None:
    for name, fact in every(provider):
        if fact.source.startswith(OURS):
            path, _, anchor = fact.source.removeprefix(OURS).partition("#")
            text = (ROOT / path).read_text(encoding="utf-8")
            heads = [line[3:].lower().replace(" ", "-") for line in text.splitlines() if line.startswith("## ")]
            assert not anchor or anchor in heads, name


@pytest.mark.parametrize("provider", PROVIDERS)
def test_a_reading_is_a_few_sentences(provider: str) -> None:
    reading = read_reading(provider)
    assert reading
    assert 2 <= len(SENTENCE.split(reading)) <= 6
    assert len(reading) < 900


@pytest.mark.parametrize(
    ("provider", "name", "words"),
    [
        ("runpod", "flashboot_default", "OFF"),
        ("runpod", "execution_timeout_default", "600 s"),
        ("runpod", "idle_timeout_default", "5 s"),
        ("runpod", "lifetime_flag", "never counts on it"),
        ("vast", "defaults", "20"),
        ("yotta", "queue_scaling", "two declared workers"),
        ("yotta", "elasticity_model", "no field"),
    ],
)
def test_words_that_contradict_an_api_are_kept_with_both_sides(provider: str, name: str, words: str) -> None:
    found = [fact for one, fact in every(provider) if one == name and fact.status == "contradicted"]
    assert found
    assert words in f"{found[0].shown} {found[0].note}"


def test_the_pages_are_what_the_facts_say() -> None:
    """``python scripts/provider_pages.py`` writes them."""
    made: dict[Path, str] = script()["pages"]()
    assert {path.name for path in made} == {"index.md", *(f"{name}-facts.md" for name in PROVIDERS)}
    stale = [path.name for path, text in made.items() if path.read_text(encoding="utf-8") != text]
    assert not stale, f"{stale}: python scripts/provider_pages.py"


def test_each_use_gets_an_answer_for_each_platform_with_its_cells() -> None:
    which = page("index.md").partition("## Which one for what")[2].partition("\n## ")[0]
    for title in ("Bursty inference", "Sustained training"):
        part = which.partition(f"### {title}")[2].partition("\n### ")[0]
        lines = [line for line in part.splitlines() if line.startswith("- **")]
        assert len(lines) == len(PROVIDERS)
        assert all(re.match(r"- \*\*[^*]+\*\*: \*\*(yes|no|perhaps|with care)\*\*", line) for line in lines)
        assert all(line.count("](https://") >= 3 for line in lines)


def test_every_cell_has_its_source_status_and_day() -> None:
    for line in page("index.md").splitlines():
        if line.startswith("| ") and "](" in line:
            for cell in line.strip("| ").split(" | ")[1:]:
                assert re.match(r'\[.+\]\(https://\S+ "(documented|observed|accepted|contradicted), \d{4}', cell), cell


def test_one_look_answers_the_four_questions_for_each_kind_of_deployment_with_the_source() -> None:
    look = page("index.md").partition("## In one look")[2].partition("\n## ")[0]
    lines = [line.strip("| ").split(" | ") for line in look.splitlines() if line.startswith("| **")]
    for provider in PROVIDERS:
        title = script()["TITLES"][provider]
        told = {
            of.strip(): answers
            for first, *answers in lines
            if title in first
            for of in first.split("** ")[1].split(",")
        }
        for caps in facts_of(provider)[0]:
            answers = told[script()["product"](provider, caps)]
            assert len(answers) == 4
            for answer, flag in zip(
                answers, ("elasticity_model", "cold_start", "billing_unit", "inventory"), strict=True
            ):
                assert answer.startswith(script()["link"](flag, caps.fact(flag)))


@pytest.mark.parametrize("provider", PROVIDERS)
def test_a_verb_that_is_refused_names_a_way_that_there_is(provider: str) -> None:
    for caps in facts_of(provider)[0]:
        for verb, flag in VERBS.items():
            if not caps.supports(flag):
                hint = refuse(caps, flag, doing=verb).hint or ""
                told = re.findall(r"\b(\w+)\(", hint.partition(" [")[0])
                assert told or verb in ("wake", "scale"), f"{verb}: {hint}"
                assert all(caps.supports(VERBS[one]) for one in told if one in VERBS), f"{verb}: {hint}"
