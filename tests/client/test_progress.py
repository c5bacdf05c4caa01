"""What a person sees while a wait lasts."""

from __future__ import annotations

import io
import logging
import sys
from typing import Any

import pytest

from unigpu import Client, ConfigurationError
from unigpu._client.progress import Reporter, describe
from unigpu.models import Progress

HELLO: dict[str, Any] = {"name": "hello", "handler": "app:hello"}


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def step(phase: str, elapsed: float = 1.0, **more: Any) -> Progress:
    return Progress(deployment="hello", provider="fake", phase=phase, elapsed=elapsed, **more)


def test_a_line_has_time_expectation_rate_and_dollars() -> None:
    line = describe(step("starting", 12.3, expected=(5.0, 60.0), rate=1.2, spent=0.041, message="pulling layers"))
    assert line == "hello on fake: starting, 12 s (usually 5–60 s), $1.20/h, $0.04 so far: pulling layers"


def test_on_a_terminal_one_line_is_rewritten_and_then_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = Terminal()
    monkeypatch.setattr(sys, "stderr", screen)
    reporter = Reporter("auto")
    reporter(step("starting", message="a long message"))
    reporter(step("ready"))
    reporter.say("the end")
    reporter.close()
    first, second = screen.getvalue().removeprefix("\r").split("\r")
    assert first == "hello on fake: starting, 1 s: a long message"
    assert second.splitlines() == ["hello on fake: ready, 1 s".ljust(len(first)), "the end"]


def test_a_deploy_on_a_terminal_ends_with_its_line_on_stderr_and_logs_nothing(
    monkeypatch: pytest.MonkeyPatch, cloud: Any, caplog: pytest.LogCaptureFixture
) -> None:
    screen = Terminal()
    monkeypatch.setattr(sys, "stderr", screen)
    with caplog.at_level(logging.INFO, "unigpu.client"), Client("fake") as client:
        client.deploy(**HELLO)
    assert screen.getvalue().splitlines()[-1].startswith("hello on fake: 0–1 workers, idle $0.00/h")
    assert [r for r in caplog.records if r.name == "unigpu.client"] == []


def test_off_is_silent_on_the_terminal_and_in_stdout(
    monkeypatch: pytest.MonkeyPatch, cloud: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    screen = Terminal()
    monkeypatch.setattr(sys, "stderr", screen)
    with Client("fake") as client:
        list(client.deploy(**HELLO, progress="off").map([{}], progress="off"))
    assert screen.getvalue() == ""
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("stream", [None, "closed"])
def test_a_program_without_stderr_deploys_all_the_same(
    monkeypatch: pytest.MonkeyPatch, cloud: Any, stream: str | None
) -> None:
    closed = Terminal()
    closed.close()
    monkeypatch.setattr(sys, "stderr", closed if stream else None)
    with Client("fake") as client:
        client.deploy(**HELLO)


def test_a_progress_function_that_fails_is_logged_once_and_breaks_nothing(
    cloud: Any, caplog: pytest.LogCaptureFixture
) -> None:
    with Client("fake") as client:
        app = client.deploy(**HELLO, progress=lambda progress: 1 / 0)  # type: ignore[arg-type, return-value]
        assert len(list(app.map([{}, {}], progress=lambda progress: 1 / 0))) == 2  # type: ignore[arg-type, return-value]
    assert caplog.text.count("the progress function failed") == 2


def test_a_mode_that_is_none_is_refused() -> None:
    with Client("local") as client, pytest.raises(ConfigurationError, match="progress"):
        client.wait_ready("hello", progress="on")  # type: ignore[arg-type]
