"""What `import unigpu` gives, and what it costs."""

from __future__ import annotations

import subprocess
import sys

import pytest

import unigpu


def _run(code: str) -> str:
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_every_public_name_can_be_fetched_and_is_what_it_is_called() -> None:
    for name in unigpu.__all__:
        value = getattr(unigpu, name)
        assert name == "__version__" or value.__name__ == name


def test_all_is_sorted_and_complete() -> None:
    assert list(unigpu.__all__) == sorted(unigpu.__all__)
    assert dir(unigpu) == list(unigpu.__all__)
    from unigpu import errors

    assert set(errors.__all__) <= set(unigpu.__all__)


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="Clint"):
        unigpu.Clint  # noqa: B018 - the access is the test


def test_importing_it_loads_no_library_opens_nothing_and_starts_no_thread() -> None:
    code = """
import sys, threading
opened = []
before = set(sys.modules)
sys.addaudithook(lambda event, args: opened.append((event, args[:2])) if event in ("open", "socket.__new__") else None)
import unigpu
heavy = {"httpx", "httpcore", "pydantic", "anyio", "tenacity", "asyncio", "logging", "typing"}
heavy |= {"unigpu.errors", "unigpu._config", "unigpu._io"}
assert not heavy & (set(sys.modules) - before), heavy & set(sys.modules)
files = [a for e, a in opened if e == "open" and not str(a[0]).endswith((".py", ".pyc"))]
assert not files, files
assert not [e for e, a in opened if e != "open"]
assert threading.active_count() == 1
"""
    _run(code)


def test_the_library_logs_nothing_unless_the_application_asks() -> None:
    out = _run(
        "import logging, unigpu; unigpu.Client; log = logging.getLogger('unigpu'); log.warning('x');"
        "print([type(h).__name__ for h in log.handlers], log.level)"
    )
    assert out.strip() == "['NullHandler'] 0"


def test_a_client_can_be_made_without_the_http_library() -> None:
    _run("import unigpu, sys; unigpu.Client('local', state_dir=None); assert 'httpx' not in sys.modules")
