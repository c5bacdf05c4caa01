"""No key in an error, a log line, or a representation; whatever goes wrong."""

from __future__ import annotations

import base64
import logging
import pickle
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

import httpx
import pytest
import respx

from unigpu import errors
from unigpu._io.contract import CallClass
from unigpu._io.resilience.retry import RetryingIo, RetryPolicy
from unigpu._io.status import check

CANARY = "canary/4711+SECRET=="
FORMS = [CANARY, base64.b64encode(CANARY.encode()).decode().rstrip("="), quote(CANARY, safe=""), CANARY[:8]]


def hidden(text: str) -> bool:
    return not any(form in text for form in FORMS)


def walk(exc: BaseException | None, seen: set[int]) -> Iterator[str]:
    """All that an error, and what hangs on it, shows."""
    if exc is None or id(exc) in seen:
        return
    seen.add(id(exc))
    yield str(exc)
    yield repr(exc)
    yield repr(exc.args)
    yield repr(exc.__dict__)
    yield repr(getattr(exc, "__notes__", None))
    yield from walk(exc.__cause__, seen)
    yield from walk(exc.__context__, seen)


def headers() -> tuple[tuple[str, str], ...]:
    return (("Authorization", f"Bearer {CANARY}"), ("X-API-Key", CANARY))


def refuse(conn: Any) -> None:
    """A platform that echoes the key in its error, in body and headers."""
    while (got := conn.request()) is not None:
        echoed = f'{{"error": "bad key {got[1]["x-api-key"]}", "headers": "{got[1]["authorization"]}"}}'
        conn.answer(echoed.encode(), "401 Unauthorized", f"X-Echo: {CANARY}")


def cut(conn: Any) -> None:
    conn.request()
    conn.answer(CANARY.encode(), length=1000)


def echo_garbage(conn: Any) -> None:
    conn.request()
    conn.sock.sendall(f"{CANARY} not http\r\n\r\n".encode())


def redirect(conn: Any) -> None:
    while conn.request():
        conn.answer(CANARY.encode(), "307 Moved", f"Location: https://other.example/?key={quote(CANARY, safe='')}")


def silent(conn: Any) -> None:
    conn.request()
    conn.server.stopping.wait(60)


@pytest.mark.parametrize("script", [refuse, cut, echo_garbage, redirect, silent])
def test_no_form_of_a_key_is_in_errors_or_logs(
    flavour: Any, ask: Any, serve: Any, caplog: pytest.LogCaptureFixture, script: Any
) -> None:
    server = serve(script)

    async def work(io: Any) -> None:
        retrying = RetryingIo(io, RetryPolicy(attempts=2, base=0.001))
        request = ask(
            io,
            f"{server.url}/x?api_key={quote(CANARY, safe='')}",
            seconds=5,
            read_timeout=0.1,
            headers=headers(),
            params=(("key", CANARY),),
            json={"key": CANARY},
            method="POST",
        )
        assert hidden(repr(request))

        async def call() -> None:
            reply = await retrying.send(request)
            assert hidden(repr(reply))
            check(reply, "runpod")

        with pytest.raises(errors.UniGPUError) as caught:
            await call()
        shown = list(walk(caught.value, set()))
        assert all(hidden(text) for text in shown), [text for text in shown if not hidden(text)]
        assert hidden(repr(pickle.dumps(caught.value)))

    # h11 and httpcore log at DEBUG: what they say of a *reply's* headers is the server's word, so it is not looked at
    with caplog.at_level(logging.DEBUG):
        flavour.with_io(work)
    ours = [record for record in caplog.records if record.name.startswith("unigpu")]
    lines = [record.getMessage() + repr(record.__dict__) for record in ours]
    assert all(hidden(line) for line in lines)
    assert all(hidden(r.getMessage()) for r in caplog.records if "receive_response" not in r.getMessage())
    assert "HTTP Request:" not in caplog.text  # httpx's own line, which shows whole URLs


def test_a_failure_text_that_holds_a_header_goes_nowhere(flavour: Any, ask: Any) -> None:
    async def work(io: Any) -> None:
        for error in (httpx.LocalProtocolError, httpx.ReadError, ValueError, RuntimeError):
            with respx.mock:
                respx.get("https://api.example/").mock(side_effect=error(f"Illegal header value {CANARY!r}"))
                with pytest.raises(errors.TransportError) as caught:
                    await io.send(ask(io, "https://api.example/", headers=headers(), call=CallClass.RECONCILE))
            assert all(hidden(text) for text in walk(caught.value, set()))

    flavour.with_io(work)


def test_nothing_that_is_kept_shows_a_key(flavour: Any, ask: Any, serve: Any) -> None:
    async def work(io: Any) -> None:
        await io.send(ask(io, serve().url, headers=headers()))
        assert hidden(repr(io) + repr(vars(io)))

    flavour.with_io(work)
