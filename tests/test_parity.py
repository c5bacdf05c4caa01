"""`Client` and `AsyncClient`, and their handles, are one surface: names, parameters, defaults, docstrings."""

from __future__ import annotations

import inspect
import re
from typing import Any

import pytest

from unigpu import (
    AsyncClient,
    AsyncDeployment,
    AsyncHTTPStream,
    AsyncJob,
    AsyncStream,
    Client,
    Deployment,
    HTTPStream,
    Job,
    Stream,
)
from unigpu._client import AsyncResults, Results

PAIRS = [
    (Client, AsyncClient),
    (Deployment, AsyncDeployment),
    (Job, AsyncJob),
    (Stream, AsyncStream),
    (Results, AsyncResults),
    (HTTPStream, AsyncHTTPStream),
]
RENAMED = {"close": "aclose", "__enter__": "__aenter__", "__exit__": "__aexit__", "__iter__": "__aiter__"}
RENAMED |= {"__next__": "__anext__"}
# No I/O happens where these are called.
NEVER_AWAITED = {
    "adopt",  # it sends nothing
    "__init__",
    "__iter__",
    "stream",
    "map",
    "logs",
    "capabilities",
    "openai",
    "events",
    "__repr__",
    "__del__",
}
VERBS = {
    "deploy", "invoke", "scale", "teardown", "submit", "stream", "map", "get", "deployments", "workers", "logs",
    "wait_ready", "wake", "stop", "start", "update", "capabilities", "close", "gc", "inventory",
    "plan", "offers", "explain", "request", "openai", "adopt",
}  # fmt: skip


def methods(cls: type) -> dict[str, Any]:
    """The public functions of a class, its own and its bases' of ours."""
    special = {*RENAMED, *RENAMED.values(), "__init__"}
    return {n: f for n, f in inspect.getmembers(cls, inspect.isfunction) if not n.startswith("_") or n in special}


def same_words(text: object) -> str:
    """An annotation or docstring without what makes it async."""
    text = re.sub(r"An? (?=Async|async)", "A ", str(text)) if text else "None"
    text = re.sub(r"\bAsync(?=Client|Deployment|Job|Stream|Results|Iterator|HTTPStream|OpenAI)", "", text)
    return text.replace("``async with``", "``with``").replace("aclose", "close")


@pytest.mark.parametrize(("plain", "twin"), PAIRS, ids=lambda c: c.__name__)
def test_both_flavours_have_the_same_methods(plain: type, twin: type) -> None:
    assert {RENAMED.get(name, name) for name in methods(plain)} == set(methods(twin))


@pytest.mark.parametrize(("plain", "twin"), PAIRS, ids=lambda c: c.__name__)
def test_signatures_defaults_annotations_and_docstrings_are_equal(plain: type, twin: type) -> None:
    others = methods(twin)
    for name, function in methods(plain).items():
        other = others[RENAMED.get(name, name)]
        mine, theirs = inspect.signature(function), inspect.signature(other)
        assert list(mine.parameters) == list(theirs.parameters), name
        for parameter in mine.parameters.values():
            twin_parameter = theirs.parameters[parameter.name]
            assert parameter.kind == twin_parameter.kind, (name, parameter)
            assert parameter.default == twin_parameter.default, (name, parameter)
            if plain not in (Deployment, Job, Stream, Results) or name != "__init__":
                words = same_words(parameter.annotation), same_words(twin_parameter.annotation)
                assert words[0] == words[1], (name, parameter)
        assert same_words(mine.return_annotation) == same_words(theirs.return_annotation), name
        assert same_words(function.__doc__) == same_words(other.__doc__), name


@pytest.mark.parametrize(("plain", "twin"), PAIRS, ids=lambda c: c.__name__)
def test_what_does_io_is_awaited_and_the_rest_is_not(plain: type, twin: type) -> None:
    others = methods(twin)
    for name in methods(plain):
        other = others[RENAMED.get(name, name)]
        # A job's or client's stream() gives an iterator; all other verbs wait.
        assert inspect.iscoroutinefunction(other) is (name not in NEVER_AWAITED), name


def test_the_verbs_are_these() -> None:
    assert {n for n in methods(Client) if not n.startswith("_")} == VERBS


def test_a_deployment_has_the_verbs_that_concern_it() -> None:
    mine = {n for n in methods(Deployment) if not n.startswith("_")}
    assert mine == VERBS - {
        "adopt",
        "deploy",
        "get",
        "deployments",
        "capabilities",
        "close",
        "gc",
        "inventory",
        "plan",
        "offers",
    }
    for name in mine:
        bound = [p for p in inspect.signature(getattr(Client, name)).parameters.values() if p.name != "deployment"]
        own = list(inspect.signature(getattr(Deployment, name)).parameters.values())
        assert [(p.name, p.kind, p.default) for p in own] == [(p.name, p.kind, p.default) for p in bound], name


@pytest.mark.parametrize("cls", [c for pair in PAIRS for c in pair], ids=lambda c: c.__name__)
def test_everything_public_says_what_it_does(cls: type) -> None:
    assert cls.__doc__
    for name, function in methods(cls).items():
        if not name.startswith("_"):
            assert function.__doc__, f"{cls.__name__}.{name}"
