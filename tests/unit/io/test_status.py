from __future__ import annotations

import json
import time
from datetime import UTC, datetime
from email.utils import format_datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unigpu import errors
from unigpu._io.contract import Headers, Outcome, Response
from unigpu._io.status import TRANSIENT, check, error_for, outcome, request_id, retry_after

WALL = 1_800_000_000.0


def reply(status: int, body: bytes = b"", **headers: str) -> Response:
    fields = {name.replace("_", "-"): value for name, value in headers.items()}
    return Response(status=status, headers=Headers(fields), content=body, operation="runpod.endpoint.create")


@pytest.mark.parametrize(
    ("status", "kind", "known"),
    [
        (400, errors.InvalidRequestError, Outcome.REJECTED),
        (401, errors.AuthenticationError, Outcome.REJECTED),
        (402, errors.InsufficientBalanceError, Outcome.REJECTED),
        (403, errors.PermissionDeniedError, Outcome.REJECTED),
        (404, errors.NotFoundError, Outcome.REJECTED),
        (405, errors.InvalidRequestError, Outcome.REJECTED),
        (408, errors.ProviderUnavailableError, Outcome.AMBIGUOUS),
        (409, errors.ConflictError, Outcome.REJECTED),
        (410, errors.NotFoundError, Outcome.REJECTED),
        (413, errors.InvalidRequestError, Outcome.REJECTED),
        (422, errors.InvalidRequestError, Outcome.REJECTED),
        (423, errors.ConflictError, Outcome.REJECTED),
        (429, errors.RateLimitError, Outcome.REJECTED),
        (500, errors.ProviderUnavailableError, Outcome.AMBIGUOUS),
        (501, errors.ProviderUnavailableError, Outcome.AMBIGUOUS),
        (502, errors.ProviderUnavailableError, Outcome.AMBIGUOUS),
        (503, errors.ProviderUnavailableError, Outcome.AMBIGUOUS),
        (504, errors.ProviderUnavailableError, Outcome.AMBIGUOUS),
        *((status, errors.ProviderUnavailableError, Outcome.AMBIGUOUS) for status in (*range(520, 528), 530)),
        (302, errors.InvalidResponseError, Outcome.AMBIGUOUS),
        (101, errors.InvalidResponseError, Outcome.AMBIGUOUS),
    ],
)
def test_each_status_has_one_error_and_one_outcome(status: int, kind: type[errors.UniGPUError], known: Outcome) -> None:
    assert outcome(reply(status)) is known
    with pytest.raises(kind) as caught:
        check(reply(status), "runpod")
    error = caught.value
    assert type(error) is kind
    assert error.provider == "runpod"
    assert error.operation == "runpod.endpoint.create"
    assert error.maybe_executed is (known is Outcome.AMBIGUOUS)
    assert outcome(error) is known


@pytest.mark.parametrize("status", range(200, 300, 33))
def test_a_good_reply_passes_through(status: int) -> None:
    good = reply(status)
    assert check(good, "vast") is good
    assert outcome(good) is Outcome.DONE


@pytest.mark.parametrize("status", [*sorted(TRANSIENT), 429])
def test_what_passes_by_waiting_is_retryable(status: int) -> None:
    assert error_for(reply(status), "vast").retryable is True


@pytest.mark.parametrize("status", [400, 401, 404, 409, 422, 501, 505])
def test_what_does_not_pass_by_waiting_is_not_retryable(status: int) -> None:
    assert error_for(reply(status), "vast").retryable is False


def test_outcomes_of_errors() -> None:
    assert outcome(errors.TransportError("x", never_sent=True)) is Outcome.NEVER_SENT
    assert outcome(errors.TransportTimeout("x")) is Outcome.AMBIGUOUS
    assert outcome(errors.ConfigurationError("x")) is Outcome.NEVER_SENT
    assert outcome(errors.ClientClosed("x")) is Outcome.NEVER_SENT
    assert outcome(errors.InvalidResponseError("x")) is Outcome.AMBIGUOUS
    assert outcome(RuntimeError("nobody knows")) is Outcome.AMBIGUOUS


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({"error": "no such template"}, "no such template"),
        ({"title": "Bad Request", "detail": "name is taken"}, "name is taken: Bad Request"),
        ({"success": False, "msg": "too slow"}, "too slow"),
        ({"errors": [{"message": "one"}, {"message": "two"}]}, "one; two"),
        ({"message": "Invalid", "code": 10001}, "Invalid"),
        ({"code": 3}, ""),
        ([{"detail": "inner"}], "inner"),
    ],
)
def test_the_providers_own_words_are_in_the_message(body: object, words: str) -> None:
    text = str(error_for(reply(400, json.dumps(body).encode()), "vast"))
    assert text == "runpod.endpoint.create failed: HTTP 400" + (f": {words}" if words else "")


def test_an_html_page_is_one_short_line_without_tags() -> None:
    page = b"<html><head><style>p{}</style></head><body><h1>Bad\n gateway</h1>" + b"<p>x</p>" * 500
    error = error_for(reply(502, page), "runpod")
    assert isinstance(error, errors.APIStatusError)
    assert error.body is not None
    assert error.body.startswith("Bad gateway x x")
    assert len(error.body) <= 200
    assert "<" not in str(error)


def test_what_the_platform_echoes_of_a_secret_is_not_shown() -> None:
    body = json.dumps({"error": "env HF=canary-4711 key rpa_ABCDEF0123456789 bad"}).encode()
    error = error_for(reply(422, body), "runpod", secrets=["canary-4711"])
    assert "canary-4711" not in repr(error.__dict__) + str(error)
    assert "rpa_" not in repr(error.__dict__) + str(error)


def test_hostile_control_characters_do_not_reach_the_terminal() -> None:
    error = error_for(reply(400, b'{"error": "\\u001b]8;;http://evil\\u0007click\\u001b[31m"}'), "vast")
    assert "\x1b" not in str(error)
    assert "click" in str(error)


@pytest.mark.parametrize("content", [b"[" * 200_000, b"\xff\xfe\x00", b"", b"9" * 5000, b'{"error": ' + b"[" * 9000])
def test_no_body_breaks_the_making_of_an_error(content: bytes) -> None:
    assert isinstance(error_for(reply(500, content), "vast"), errors.ProviderUnavailableError)


# WALL + 60 in the three forms of an HTTP date (RFC 9110, 5.6.7).
_SOON = datetime.fromtimestamp(WALL + 60, UTC)

RETRY_AFTER: list[tuple[list[tuple[str, str]], float | None]] = [
    ([], None),
    # seconds
    ([("Retry-After", "3")], 3.0),
    ([("retry-after", " 3 ")], 3.0),
    ([("Retry-After", "0.5")], 0.5),
    ([("Retry-After", "0")], None),
    ([("Retry-After", "-4")], None),
    ([("Retry-After", "-0.0")], None),
    ([("Retry-After", "nan")], None),
    ([("Retry-After", "inf")], None),
    ([("Retry-After", "-inf")], None),
    ([("Retry-After", "1e999")], None),
    ([("Retry-After", "1_000")], None),
    ([("Retry-After", "\uff13")], None),  # a digit, but not of ASCII
    ([("Retry-After", "")], None),
    ([("Retry-After", "soon")], None),
    ([("Retry-After", "3 s")], None),
    # milliseconds come first
    ([("retry-after-ms", "250")], 0.25),
    ([("retry-after-ms", "250"), ("Retry-After", "3")], 0.25),
    ([("retry-after-ms", "junk"), ("Retry-After", "3")], 3.0),
    ([("retry-after-ms", "-5"), ("Retry-After", "3")], 3.0),
    ([("retry-after-ms", "inf"), ("Retry-After", "3")], 3.0),
    # dates
    ([("Retry-After", _SOON.strftime("%a, %d %b %Y %H:%M:%S GMT"))], 60.0),
    ([("Retry-After", _SOON.strftime("%A, %d-%b-%y %H:%M:%S GMT"))], 60.0),
    ([("Retry-After", _SOON.strftime("%a %b %d %H:%M:%S %Y"))], 60.0),  # GMT, although it does not say so
    ([("Retry-After", "Sun, 06 Nov 1994 08:49:37 GMT")], None),  # past
    ([("Retry-After", "Fri, 31 Dec 99999 23:59:59 GMT")], None),
    ([("Retry-After", "Sat, 01 Jan 100000 00:00:00 GMT")], None),
    ([("Retry-After", "Mon, 99 Foo 2026 99:99:99 GMT")], None),
    # two of them: the longest pause
    ([("Retry-After", "3"), ("Retry-After", "5")], 5.0),
    ([("Retry-After", "junk"), ("Retry-After", "5")], 5.0),
]


@pytest.mark.parametrize("zone", ["UTC", "America/New_York"])
@pytest.mark.parametrize(("headers", "seconds"), RETRY_AFTER)
def test_retry_after_is_read_in_every_form_and_junk_is_no_hint(
    headers: list[tuple[str, str]], seconds: float | None, zone: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setenv("TZ", zone)
        time.tzset()
        assert retry_after(Headers(headers), wall=WALL) == seconds
    time.tzset()


@given(st.integers(min_value=-100_000, max_value=100_000))
def test_a_retry_after_date_is_seconds_from_now_and_a_past_one_is_none(delta: int) -> None:
    date = format_datetime(datetime.fromtimestamp(WALL + delta, UTC), usegmt=True)
    assert retry_after(Headers({"Retry-After": date}), wall=WALL) == (delta if delta > 0 else None)


@given(st.text(max_size=60))
def test_no_retry_after_text_raises(text: str) -> None:
    seconds = retry_after(Headers({"retry-after": text}), wall=WALL)
    assert seconds is None or seconds > 0


def test_the_request_id_is_found_and_printable() -> None:
    assert request_id(Headers({"X-Request-Id": "abc\x1b[1m"})) == "abc"
    assert request_id(Headers({"cf-ray": "8f"})) == "8f"
    assert request_id(Headers()) is None


NAMES = st.text(st.sampled_from("abcXYZ-"), min_size=1, max_size=6)


@given(st.lists(st.tuples(NAMES, st.text(max_size=5)), max_size=12))
def test_headers_ignore_case_keep_order_and_join_repeats(pairs: list[tuple[str, str]]) -> None:
    headers = Headers(pairs)
    for name, _ in pairs:
        values = [v for k, v in pairs if k.lower() == name.lower()]
        assert headers.getall(name.upper()) == values
        assert headers[name.swapcase()] == ", ".join(values)
    assert len(headers) == len(set(headers)) == len({k.lower() for k, _ in pairs})
    assert "definitely-not-there" not in headers
    for _, value in pairs:
        assert len(value) < 4 or value not in repr(headers)
