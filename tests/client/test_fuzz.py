"""Whatever is given to the public surface, no foreign exception comes out."""

from __future__ import annotations

import asyncio
import datetime
import inspect
import itertools
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from unigpu import AsyncClient, Client, DeploymentSpec, UniGPUError, _registry
from unigpu._io.clock import InstantClock, use_clock

HELLO: dict[str, Any] = {"name": "hello", "handler": "app:hello", "progress": "off"}

odd = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=12),
    st.binary(max_size=4),
    st.sampled_from(
        [object(), int, Decimal(1), datetime.date(2026, 1, 1), Path("x"), 1j, range(3), frozenset({1}), len, ...]
    ),
)
odder = st.recursive(
    odd, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5) | odd, inner, max_size=3)
)
# What gets further than the first check.
near: dict[str, Any] = {
    "deployment": st.sampled_from(["hello", "hello@fake", "helo", "hello@", "@fake", "hello@nowhere", "HELLO"]),
    "name": st.sampled_from(["hello", "hello@fake", "other", "Wrong", "x" * 64]),
    "input": st.dictionaries(st.text(max_size=3), odd, max_size=2) | st.sampled_from([{"chunks": 2}, {"fail": "x"}]),
    "inputs": st.lists(st.sampled_from([{"a": 1}, {"fail": "x"}, {}, 5, None]), max_size=4),
    "workers": st.sampled_from([0, 1, (0, 1), (2, 1), [0, 2], "1", (1, 2, 3), (None, 1)]),
    "timeout": st.sampled_from([0, 0.1, 5, 1e308, -1, 10**400]),
    "provider": st.sampled_from(["fake", "nowhere", "", ["fake", "fake"], ["fake", 5]]),
    "spec": st.sampled_from([None, DeploymentSpec(name="hello"), "hello", "hello@fake", DeploymentSpec]),
    "handler": st.sampled_from(["app:hello", "no", len, pytest, "x.py:y"]),
    "progress": st.sampled_from(["auto", "off", print.__class__, lambda progress: 1 / 0]),
    "checkpoint": st.sampled_from([None, "", "/", "/proc/x", "a\0b", b"x", 7]),
    "wait": st.sampled_from([True, False, "worker", "ready"]),
    "fields": st.dictionaries(
        st.sampled_from([*DeploymentSpec.model_fields, "nonsense", "workres"]), odder, max_size=3
    ),
}


def arguments(function: Any) -> st.SearchStrategy[tuple[tuple[Any, ...], dict[str, Any]]]:
    """Arguments that Python itself accepts for *function*, with any value."""
    required: list[Any] = []
    optional: dict[str, Any] = {}
    extra: Any = st.just({})
    for parameter in itertools.islice(inspect.signature(function).parameters.values(), 1, None):
        value = near.get(parameter.name, odd) | odder
        if parameter.kind is parameter.VAR_KEYWORD:
            extra = near["fields"]
        elif parameter.default is parameter.empty:
            required.append(value)
        else:
            optional[parameter.name] = value
    keywords = st.fixed_dictionaries({}, optional=optional)
    both = st.tuples(keywords, extra).map(lambda two: {**two[1], **two[0]})
    return st.tuples(st.tuples(*required), both)


def say(exc: UniGPUError) -> None:
    """Every error says something."""
    assert str(exc)


VERBS = [n for n, f in vars(Client).items() if inspect.isfunction(f) and not n.startswith("_") and n != "close"]


@pytest.mark.parametrize("verb", VERBS)
def test_no_foreign_exception_comes_out_of_a_client(verb: str, cloud: Any, tmp_path: Path) -> None:
    with use_clock(InstantClock()), Client("fake", state_dir=None) as client:

        @settings(max_examples=60)
        @given(call=arguments(getattr(Client, verb)))
        def any_call(call: Any) -> None:
            client.deploy(**HELLO, if_exists="replace")
            positional, keywords = call
            try:
                got = getattr(client, verb)(*positional, **keywords)
                if hasattr(got, "__next__"):
                    list(itertools.islice(got, 5))
            except UniGPUError as exc:
                say(exc)

        any_call()


@pytest.mark.parametrize("verb", VERBS)
def test_no_foreign_exception_comes_out_of_an_async_client(verb: str, cloud: Any) -> None:
    async def one(call: Any) -> None:
        positional, keywords = call
        async with AsyncClient("fake", state_dir=None) as client:
            await client.deploy(**HELLO, if_exists="replace")
            try:
                got = getattr(client, verb)(*positional, **keywords)
                if inspect.isawaitable(got):
                    got = await got
                if hasattr(got, "__anext__"):
                    async for _ in got:
                        pass
            except UniGPUError as exc:
                say(exc)

    with use_clock(InstantClock()):

        @settings(max_examples=15)
        @given(call=arguments(getattr(AsyncClient, verb)))
        def any_call(call: Any) -> None:
            asyncio.run(one(call))

        any_call()


@pytest.mark.parametrize("cls", [Client, AsyncClient])
@settings(max_examples=150)
@given(data=st.data())
def test_no_foreign_exception_comes_out_of_the_constructor(cls: Any, data: st.DataObject) -> None:
    (positional, keywords) = data.draw(arguments(cls.__init__))
    try:
        made = cls(*positional, **keywords)
    except UniGPUError as exc:
        say(exc)
    else:
        repr(made)


def test_no_foreign_exception_comes_out_of_a_handle(cloud: Any) -> None:
    with use_clock(InstantClock()), Client("fake", state_dir=None) as client:
        app = client.deploy(**HELLO)
        job = app.submit({"sleep": 1})

        @settings(max_examples=100)
        @given(data=st.data())
        def any_call(data: st.DataObject) -> None:
            thing = data.draw(st.sampled_from([app, job]))
            verbs = [n for n, f in inspect.getmembers(type(thing), inspect.isfunction) if not n.startswith("_")]
            verb = data.draw(st.sampled_from(verbs))
            positional, keywords = data.draw(arguments(getattr(type(thing), verb)))
            try:
                got = getattr(thing, verb)(*positional, **keywords)
                if hasattr(got, "__next__"):
                    list(itertools.islice(got, 5))
            except UniGPUError as exc:
                say(exc)

        any_call()


def test_a_wrong_python_call_stays_a_type_error(cloud: Any) -> None:
    with Client("fake") as client:
        for call in (
            lambda: client.invoke(),  # type: ignore[call-arg]
            lambda: client.invoke("hello", {}, nonsense=1),  # type: ignore[call-arg]
            lambda: client.get("a", "b"),  # type: ignore[misc]
        ):
            with pytest.raises(TypeError):
                call()


def test_a_mistake_in_a_driver_is_not_hidden(cloud: Any) -> None:
    class Broken(_registry.load("fake")):  # type: ignore[misc]  # a driver with a fault
        async def workers(self, io: Any, info: Any, *, deadline: float) -> Any:
            assert False, "a fault of the driver"  # noqa: B011, PT015 - respx's "not mocked" is one

    with _registry.using("fake", Broken), Client("fake", state_dir=None) as client:
        app = client.deploy(**HELLO)
        with pytest.raises(AssertionError):
            app.workers()
