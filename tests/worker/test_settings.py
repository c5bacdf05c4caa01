"""What the environment may say, and what is refused before anything is served."""

from __future__ import annotations

import pytest

from unigpu.errors import ConfigurationError
from unigpu.worker._settings import Settings, read_settings


def test_an_empty_environment_gives_the_defaults() -> None:
    assert read_settings({}) == Settings(port=8000, host="0.0.0.0", concurrency=1, timeout=600, drain=30)


def test_argument_then_our_variable_then_the_platforms() -> None:
    environ = {"PORT": "1", "UNIGPU_PORT": "2", "UNIGPU_HOST": "127.0.0.1"}
    assert read_settings(environ, port=3).port == 3
    assert read_settings(environ).port == 2
    assert read_settings({"PORT": "1", "UNIGPU_PORT": ""}).port == 1
    assert read_settings(environ).host == "127.0.0.1"
    assert read_settings(environ, host="::1").host == "::1"


def test_every_variable_is_read() -> None:
    environ = {
        "UNIGPU_CONCURRENCY": "4",
        "UNIGPU_TIMEOUT": "1.5",
        "UNIGPU_DRAIN": "0",
        "UNIGPU_GRACE": "2",
        "UNIGPU_EXPIRES": "1795500000",
        "UNIGPU_WORKER_EXIT": "ends_billing",
        "UNIGPU_TRACEBACK": "1",
        "UNIGPU_AUTH": "MY_TOKEN",
        "MY_TOKEN": "t",
    }
    assert read_settings(environ) == Settings(
        concurrency=4,
        timeout=1.5,
        drain=0,
        grace=2,
        expires=1795500000,
        exit_ends_billing=True,
        traceback=True,
        token="t",
    )


@pytest.mark.parametrize("port", [-1, 65536])
def test_a_port_that_cannot_be_is_refused(port: int) -> None:
    with pytest.raises(ConfigurationError, match="65535"):
        read_settings({}, port=port)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("UNIGPU_PORT", "http"),
        ("UNIGPU_PORT", "70000"),
        ("PORT", "-1"),
        ("UNIGPU_CONCURRENCY", "0"),
        ("UNIGPU_CONCURRENCY", "1.5"),
        ("UNIGPU_TIMEOUT", "0"),
        ("UNIGPU_TIMEOUT", "nan"),
        ("UNIGPU_TIMEOUT", "10m"),
        ("UNIGPU_DRAIN", "-1"),
        ("UNIGPU_GRACE", "inf"),
        ("UNIGPU_EXPIRES", "tomorrow"),
        ("UNIGPU_AUTH", "NOT_SET"),
    ],
)
def test_a_wrong_variable_is_named(name: str, text: str) -> None:
    with pytest.raises(ConfigurationError, match=name):
        read_settings({name: text})
