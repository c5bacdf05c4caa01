"""From a `Request` to plain text and bytes that can be sent, or a clear refusal before anything is.

Nothing is dropped or repaired in silence: what cannot be sent as it stands is an error that names the part, and never
quotes a value that may be a secret.
"""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, cast
from urllib.parse import quote, urlsplit

from unigpu.errors import ConfigurationError, InvalidInput

from ..contract import UNSET, EncodedJSON, Request

__all__ = ["Prepared", "encode_json", "prepare", "secrets_of"]

_NAME: Final = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_VALUE: Final = re.compile(r"[\t\x20-\x7e]*")
_URL: Final = re.compile(r"[!-~]+")
_PLACE: Final = f'"{secrets.token_hex(16)}"'.encode()
"""Where an `EncodedJSON` goes in a body. It is random, so that no value of a body is taken for it."""
_SECRET_NAMES: Final = re.compile(r"auth|key|token|secret|cookie|signature|password", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Prepared:
    """What goes over the wire. The representation shows no header and no body."""

    method: str
    url: str = field(repr=False)
    headers: list[tuple[str, str]] = field(repr=False)
    content: bytes | None = field(repr=False)
    host: str


def prepare(request: Request, defaults: tuple[tuple[str, str], ...] = ()) -> Prepared:
    """*request*, checked and encoded; *defaults* are header fields that it may override.

    Raises:
        ConfigurationError: the URL, a header or the method cannot be sent as it is.
        InvalidInput: `Request.json` is not JSON.
    """
    if not _NAME.fullmatch(request.method):
        raise _wrong(request, "the method is not a word")
    url, host = _url(request)
    for name, value in request.headers:
        if not _NAME.fullmatch(name):
            raise _wrong(request, "a header has a name that is not a word")
        if not _VALUE.fullmatch(value) or value != value.strip():
            raise _wrong(request, f"header {name!r} has a value with a line break, a blank at an end, or no ASCII")
    given = {name.lower() for name, _ in request.headers}
    headers = [pair for pair in defaults if pair[0] not in given]
    headers.extend(request.headers)
    content = request.content
    if request.json is not UNSET:
        if content is not None:
            raise _wrong(request, "both content and json are given")
        content = encode_json(request.json, operation=request.operation)
        if "content-type" not in given:
            headers.append(("content-type", "application/json"))
    return Prepared(request.method.upper(), url, headers, content, host)


def encode_json(value: Any, *, operation: str | None = None) -> bytes:
    """*value* as compact UTF-8 JSON, without NaN and infinities. An `EncodedJSON` in it is put in as it is.

    Raises:
        InvalidInput: it is not JSON.
    """
    if isinstance(value, EncodedJSON):
        return value.data
    parts: list[bytes] = []

    def default(part: object) -> object:
        if isinstance(part, EncodedJSON):
            parts.append(part.data)
            return _PLACE[1:-1].decode()
        if isinstance(part, Mapping):
            return dict(cast("Mapping[object, object]", part))
        raise TypeError(f"{type(part).__name__} is not JSON")

    try:
        text = json.dumps(value, separators=(",", ":"), ensure_ascii=False, allow_nan=False, default=default)
        data = text.encode("utf-8")
    except (TypeError, ValueError, RecursionError) as exc:  # UnicodeEncodeError is a ValueError
        kind = type(exc).__name__
    else:
        return data if not parts else _filled(data, parts)
    raise InvalidInput(f"the body cannot be written as JSON ({kind})", operation=operation)


def _filled(data: bytes, parts: list[bytes]) -> bytes:
    first, *rest = data.split(_PLACE)
    return b"".join([first, *(piece for pair in zip(parts, rest, strict=True) for piece in pair)])


def secrets_of(headers: list[tuple[str, str]]) -> list[str]:
    """The values among *headers* that must never be shown, with and without their scheme ("Bearer")."""
    found: list[str] = []
    for name, value in headers:
        if _SECRET_NAMES.search(name):
            found.extend({value, value.rpartition(" ")[2]})
    return found


def _url(request: Request) -> tuple[str, str]:
    url = request.url
    if not _URL.fullmatch(url) or "\\" in url:
        raise _wrong(request, "the URL has a blank, a control character, a backslash, or no ASCII")
    try:
        parts = urlsplit(url)
        port = parts.port
        host = parts.hostname
    except ValueError:
        raise _wrong(request, "the URL cannot be read") from None
    if parts.scheme not in ("http", "https") or not host:
        raise _wrong(request, "the URL is not http://host or https://host")
    if "@" in parts.netloc:
        raise _wrong(request, "the URL holds a user name or password")
    if port == 0:
        raise _wrong(request, "the URL has port 0")
    if "#" in url:
        raise _wrong(request, "the URL has a fragment, which is never sent")
    if request.params:
        pairs = (f"{_quoted(request, name)}={_quoted(request, value)}" for name, value in request.params)
        joint = "" if url.endswith(("?", "&")) else "&" if "?" in url else "?"
        url = url + joint + "&".join(pairs)
    return url, host


def _quoted(request: Request, text: str) -> str:
    try:
        return quote(text, safe="")
    except UnicodeEncodeError:
        raise _wrong(request, "a parameter holds text that is not Unicode") from None


def _wrong(request: Request, what: str) -> ConfigurationError:
    return ConfigurationError(f"{request.operation}: {what}", operation=request.operation, maybe_executed=False)
