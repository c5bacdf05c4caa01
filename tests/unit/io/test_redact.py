from __future__ import annotations

import string

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from unigpu import errors
from unigpu._io.redact import check_key, excerpt, fingerprint, safe_url, scrub, terminal

SECRETS = st.text(st.sampled_from(string.ascii_letters + string.digits + "-_."), min_size=8, max_size=40)


@given(SECRETS, st.text(max_size=300), st.text(max_size=300))
def test_a_known_secret_never_comes_out_wherever_it_stands(secret: str, before: str, after: str) -> None:
    assume(secret not in before + after)
    for text in (scrub(before + secret + after, [secret]), excerpt(before + secret + after, secrets=[secret])):
        assert secret not in text


@pytest.mark.parametrize(
    "text",
    [
        "Authorization: Bearer canary0123456789",
        '{"api_key": "canary0123456789"}',
        "https://x/?api_key=canary0123456789&y=1",
        "token=canary0123456789",
        "HF_TOKEN: canary0123456789",
        "password='canary0123456789 with blanks'",
    ],
)
def test_what_is_named_like_a_secret_is_hidden_without_being_known(text: str) -> None:
    assert "canary" not in scrub(text)


def test_a_secret_that_the_cut_would_halve_is_still_hidden() -> None:
    body = "x" * 195 + "canary-0123456789"
    assert "canary" not in excerpt(body, secrets=["canary-0123456789"])


@given(st.text(max_size=500))
def test_terminal_text_has_no_control_characters(text: str) -> None:
    shown = terminal(text)
    assert not any(ord(c) < 32 and c not in "\t\n" for c in shown)
    assert not any(0x7F <= ord(c) <= 0x9F or ord(c) in range(0x202A, 0x202F) for c in shown)


@given(st.binary(max_size=3000))
def test_an_excerpt_is_one_line_of_at_most_200_characters(body: bytes) -> None:
    shown = excerpt(body)
    assert len(shown) <= 200
    assert "\n" not in shown


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("https://user:pw@host.example:8443/a/b?key=1#x", "https://host.example:8443/a/b"),
        ("http://[::1]:80/x", "http://[::1]:80/x"),
        ("https://host:99999/", "(not a URL)"),
        ("https://[bad/", "(not a URL)"),
    ],
)
def test_a_url_is_shown_without_user_query_and_fragment(url: str, shown: str) -> None:
    assert safe_url(url) == shown


@pytest.mark.parametrize("key", ["", " key", "key\n", "ke y", "ke\ty", "schlüssel", "key\x00", "\u200bkey"])
def test_a_key_that_cannot_be_sent_is_refused_without_being_quoted(key: str) -> None:
    with pytest.raises(errors.ConfigurationError) as caught:
        check_key(key, name="RUNPOD_API_KEY")
    assert "RUNPOD_API_KEY" in str(caught.value)
    assert not key.strip() or key.strip() not in str(caught.value).replace("RUNPOD_API_KEY", "").replace("key", "")


@given(st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=1))
def test_a_printable_key_passes_and_its_fingerprint_tells_little(key: str) -> None:
    assert check_key(key) == key
    assert len(fingerprint(key)) == 6
    assert fingerprint(key) == fingerprint(key)
