"""Loading: every form of handler, and one line that names the cause when it fails."""

from __future__ import annotations

import functools
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from unigpu.worker._handler import LoadError, load_handler


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Writes a module of a fresh name in the working directory."""
    before = set(sys.modules)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))

    def write(code: str, name: str | None = None) -> str:
        name = name or f"app_{uuid.uuid4().hex}"
        path = tmp_path / f"{name}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(code)
        return name

    yield write
    for name in set(sys.modules) - before:
        if name.startswith(("app_", "near_", "_unigpu_handler_")):
            del sys.modules[name]


def test_a_module_in_the_working_directory_is_found(module: Any) -> None:
    name = module("def f(input): return 1")
    assert load_handler(f"{name}:f").call({}) == 1


def test_a_file_is_loaded_with_its_neighbours(module: Any, tmp_path: Path) -> None:
    near = f"near_{uuid.uuid4().hex}"
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / f"{near}.py").write_text("X = 5")
    name = module(f"from {near} import X\ndef f(input): return X", name=f"sub/app_{uuid.uuid4().hex}")
    assert load_handler(f"{name}.py:f").call({}) == 5


def test_a_file_named_like_a_loaded_module_does_not_replace_it(module: Any) -> None:
    module("def f(input): return 'mine'", name="json")
    before = sys.modules["json"]
    assert load_handler("json.py:f").call({}) == "mine"
    assert sys.modules["json"] is before


def test_names_may_be_dotted(module: Any) -> None:
    name = module("class A:\n    @staticmethod\n    def f(input): return 2")
    assert load_handler(f"{name}:A.f").call({}) == 2


@pytest.mark.parametrize(
    ("code", "target", "cause"),
    [
        ("def summarize(input): ...", "{m}:summarise", r"no 'summarise' in app_\w+ \(did you mean 'summarize'\?\)"),
        ("", "no_such_module_here:f", r"no module named 'no_such_module_here' \(looked from /"),
        ("", "no_such_package.inner:f", r"no module named 'no_such_package'"),
        ("", "no_such_file.py:f", r"no file /.*no_such_file\.py"),
        ("import no_such_dependency", "{m}:f", r"it imports 'no_such_dependency', which is not installed here"),
        ("import no_such_dependency", "{m}.py:f", r"it imports 'no_such_dependency', which is not installed here"),
        ("1/0", "{m}:f", r"importing it raised ZeroDivisionError: division by zero"),
        ("def f(:", "{m}.py:f", r"importing it raised SyntaxError"),
        ("import sys; sys.exit(4)", "{m}:f", r"importing it raised SystemExit: 4"),
        ("f = 7", "{m}:f", r"it is of type int, not a function or a class"),
        ("class C: ...", "{m}:C", r"class C has no __call__ method"),
        ("class C:\n    def __init__(self): raise OSError('no weights')\n    def __call__(self, i): ...", "{m}:C",
         r"C\(\) raised OSError: no weights"),
        ("def f(): ...", "{m}:f", r"it must take exactly one input, not \(\)"),
        ("def f(a, b): ...", "{m}:f", r"it must take exactly one input, not \(a, b\)"),
        ("", "{m}", r"a target is module:name or file\.py:name"),
        ("", ":f", r"a target is module:name or file\.py:name"),
        ("", "{m}:", r"a target is module:name or file\.py:name"),
    ],
)  # fmt: skip
def test_what_cannot_be_loaded_is_explained_in_one_line(code: str, target: str, cause: str, module: Any) -> None:
    target = target.format(m=module(code))
    with pytest.raises(LoadError, match=cause) as caught:
        load_handler(target)
    assert str(caught.value).startswith(f"cannot load {target}: ")
    assert "\n" not in str(caught.value)


def test_a_module_that_failed_is_not_left_half_loaded(module: Any) -> None:
    name = module("1/0")
    with pytest.raises(LoadError):
        load_handler(f"{name}.py:f")
    assert name not in sys.modules


def test_async_is_seen_through_partials_and_wrappers() -> None:
    async def handler(extra: int, input: Any) -> None: ...

    def wrapped(function: Any) -> Any:
        @functools.wraps(function)
        def inner(input: Any) -> Any:
            return function(1, input)

        return inner

    assert load_handler(functools.partial(handler, 1)).is_async
    assert load_handler(wrapped(handler)).is_async
    assert not load_handler(lambda input: None).is_async
