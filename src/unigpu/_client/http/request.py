"""A request to the user's own server: what is asked, checked before anything is sent, and how it is opened."""

from __future__ import annotations

import json as _json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final, cast
from urllib.parse import quote, urlencode

from unigpu import _config, _lifecycle
from unigpu._io.http.prepare import encode_json
from unigpu._lifecycle import Asking, OpenReply
from unigpu.driver import Headers
from unigpu.elasticity.capabilities import Capabilities, refuse
from unigpu.errors import ConfigurationError, InvalidResponseError, PayloadTooLarge, UniGPUError, UnsupportedError
from unigpu.models import DeploymentInfo

from ..calls import CallArguments, Calls
from ..gate import Gate
from ..lookup import DeploymentLike

Param = str | int | float | bool
Params = Mapping[str, Param | Sequence[Param]]

_WORD: Final = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_VALUE: Final = re.compile(r"[\t\x20-\x7e]*")
# Of one connection, not of the message; or the length and form of the body, which only the sender knows.
CONNECTION: Final = frozenset(
    {
        "connection", "content-length", "expect", "host", "keep-alive", "proxy-authenticate", "proxy-authorization",
        "proxy-connection", "te", "trailer", "transfer-encoding", "upgrade",
    }
)  # fmt: skip
OURS: Final = "x-unigpu-"
"""Header fields that say how a request is held: never a caller's."""
# What a path may hold as it is: RFC 3986's own characters, and escapes that were made already.
_PATH_SAFE: Final = "/%:@!$&'()*+,;=~-._"
_CODINGS: Final = frozenset({"identity", "gzip", "x-gzip", "deflate"})


@dataclass(frozen=True, slots=True)
class HTTPReply:
    """A whole reply of the user's own server, whatever its status.

    Attributes:
        headers: Looked up without regard to case.
        content: The body, with its content coding undone.
    """

    status: int
    headers: Headers
    content: bytes = field(default=b"", repr=False)

    @property
    def ok(self) -> bool:
        """Whether the status is 2xx."""
        return 200 <= self.status < 300

    @property
    def text(self) -> str:
        """The body as text, by the charset that the server names, else UTF-8; what cannot be read is replaced."""
        found = re.search(r"charset\s*=\s*\"?([\w.:-]+)", self.headers.get("content-type", ""), re.IGNORECASE)
        try:
            return self.content.decode(found.group(1) if found else "utf-8", errors="replace")
        except LookupError:
            return self.content.decode("utf-8", errors="replace")

    def json(self) -> Any:
        """The body as JSON.

        Raises:
            InvalidResponseError: it is not JSON.
        """
        try:
            return _json.loads(self.content)
        except (ValueError, RecursionError) as exc:
            reason = type(exc).__name__
        raise InvalidResponseError(  # outside of the except block: the parser's error holds the whole body
            f"the server's reply (HTTP {self.status}) is not JSON: {reason}", maybe_executed=True
        )


def asking(
    method: str,
    path: str,
    *,
    json: Any = None,
    content: bytes | str | None = None,
    headers: Mapping[str, str] | None = None,
    params: Params | None = None,
) -> tuple[Asking, bool]:
    """What is asked, and whether it is the upgrade to a WebSocket.

    Raises:
        ConfigurationError: something given cannot be sent as it is.
        InvalidInput: *json* is not JSON.
    """
    method = _method(method)
    target, websocket = _target(path)
    query = _query(params)
    if query:
        target += ("&" if "?" in target else "?") + query
    fields = _headers(headers)
    websocket = websocket or any(n == "upgrade" and v.strip().lower() == "websocket" for n, v in fields)
    if not websocket:
        _refuse_fields(fields)
    body = _body(json, content)
    if json is not None and not any(name == "content-type" for name, _ in fields):
        fields.append(("content-type", "application/json"))
    return Asking(method=method, target=target, headers=tuple(fields), content=body), websocket


async def open_request(
    calls: Calls,
    deployment: DeploymentLike,
    asking: Asking,
    asked: CallArguments,
    *,
    verb: str = "request",
    websocket: bool = False,
    stream: bool = False,
) -> OpenReply:
    """Send it; returns when status and headers are there.

    Raises:
        UnsupportedError: it is a function deployment, or the platform cannot do that.
        PayloadTooLarge: the body is above what the platform takes.
        As `unigpu._lifecycle.request`.
    """
    calls.session.open()
    target = await calls.lookup.target(deployment, calls.context.soon())
    while True:
        try:
            info = target.info
            caps = _admit(calls.gate, info, asking, verb, websocket=websocket, stream=stream)
            options = asked.options(calls.gate, info, caps)
            reply = await _lifecycle.request(target.scope, info, _with_token(asking, info), options)
            calls.lookup.used(target)
            return reply
        except UniGPUError as exc:
            target = await calls.lookup.renewed(target, exc)


async def whole(reply: OpenReply) -> HTTPReply:
    """The reply read to its end."""
    content = await reply.read()
    return HTTPReply(reply.status, reply.headers, content)


def _admit(
    gate: Gate, info: DeploymentInfo, asking: Asking, verb: str, *, websocket: bool, stream: bool
) -> Capabilities:
    caps = gate.require("request", info, doing=f"{verb}()")
    if websocket:
        _no_websocket(caps, info)
    if stream:
        gate.require("streamed_replies", info, doing=f"{verb}(stream=True)")
    limit = caps.max_payload.value
    if asking.content is not None and not isinstance(limit, str) and len(asking.content) > limit:
        raise PayloadTooLarge(
            f"the body has {len(asking.content)} bytes; the platform takes {int(limit)}.",
            limit=int(limit),
            size=len(asking.content),
            hint="Put large data where the worker can fetch it, and send the address.",
        )
    return caps


def _no_websocket(caps: Capabilities, info: DeploymentInfo) -> None:
    if not caps.supports("websocket"):
        raise refuse(caps, "websocket", doing="A WebSocket", instead="Use request(..., stream=True) to get a stream.")
    raise UnsupportedError(
        f"request() speaks plain HTTP; a WebSocket of {info.name} is opened at its own address"
        + (f": {info.url}." if info.url else "."),
        provider=info.provider,
        deployment=info.name,
        capability="websocket",
    )


def _with_token(asking: Asking, info: DeploymentInfo) -> Asking:
    """With the deployment's own token, where its spec says ``auth=BearerToken(...)`` and the caller gives no other."""
    if info.auth_env is None or any(name == "authorization" for name, _ in asking.headers):
        return asking
    token = _config.secret(info.auth_env)
    if token is None:
        raise ConfigurationError(
            f"{info.name} asks for a token, and the variable {info.auth_env} is not set in this environment.",
            provider=info.provider,
            deployment=info.name,
        )
    fields = (*asking.headers, ("authorization", f"Bearer {token.get_secret_value()}"))
    return replace(asking, headers=fields)


def _method(method: object) -> str:
    if not isinstance(method, str) or not _WORD.fullmatch(method) or method.upper() in ("CONNECT", "TRACE"):
        raise ConfigurationError('method: give an HTTP method, as in "GET" or "POST".')
    return method.upper()


def _target(path: object) -> tuple[str, bool]:
    if not isinstance(path, str):
        raise ConfigurationError('path: give a text that begins with a slash, as in "/v1/models".')
    if path.lower().startswith(("ws://", "wss://")):
        return "/", True
    if not path.startswith("/") or path.startswith("//"):
        raise ConfigurationError(
            "path: give what follows the host, beginning with one slash; the deployment says which host."
        )
    if re.search(r"[\x00-\x1f\x7f\\#]", path):
        raise ConfigurationError("path: a control character, a backslash or a # cannot be sent.")
    plain, mark, query = path.partition("?")
    if any(re.sub("(?i)%2e", ".", part) in (".", "..") for part in re.split("(?i)/|%2f|%5c", plain)):
        raise ConfigurationError("path: . and .. would lead out of the deployment; give the whole path.")
    try:
        safe = _PATH_SAFE + "?"
        return quote(plain, safe=_PATH_SAFE) + mark + quote(query, safe=safe), False
    except UnicodeEncodeError:
        raise ConfigurationError("path: half of a surrogate pair is not Unicode.") from None


def _query(params: object) -> str:
    if params is None:
        return ""
    if not isinstance(params, Mapping):
        raise ConfigurationError("params: give a mapping of names to values.")
    pairs: list[tuple[str, str]] = []
    for name, value in cast("Mapping[object, object]", params).items():
        values = cast("Sequence[object]", value) if isinstance(value, list | tuple) else [value]
        for one in values:
            if not isinstance(name, str) or not isinstance(one, str | int | float):
                raise ConfigurationError(
                    "params: names are text; values are text, numbers, booleans, or lists of them."
                )
            pairs.append((name, str(one).lower() if isinstance(one, bool) else str(one)))
    try:
        return urlencode(pairs, quote_via=quote)
    except UnicodeEncodeError:
        raise ConfigurationError("params: half of a surrogate pair is not Unicode.") from None


def _headers(given: object) -> list[tuple[str, str]]:
    if given is None:
        return []
    if not isinstance(given, Mapping):
        raise ConfigurationError("headers: give a mapping of names to values.")
    fields: list[tuple[str, str]] = []
    for name, value in cast("Mapping[object, object]", given).items():
        if not isinstance(name, str) or not _WORD.fullmatch(name):
            raise ConfigurationError("headers: a name is not a word.")
        if not isinstance(value, str) or not _VALUE.fullmatch(value) or value != value.strip():
            raise ConfigurationError(
                f"headers: {name} has a value with a line break, a blank at an end, or no ASCII text."
            )
        fields.append((name.lower(), value))
    return fields


def _refuse_fields(fields: list[tuple[str, str]]) -> None:
    for name, value in fields:
        if name in CONNECTION:
            raise ConfigurationError(f"headers: {name} belongs to the connection, which is ours; leave it out.")
        if name.startswith(OURS):
            raise ConfigurationError(f"headers: {name} is unigpu's own; use start_timeout= and wake=.")
        if name == "accept-encoding":
            asked = {part.partition(";")[0].strip().lower() for part in value.split(",")}
            if not asked <= _CODINGS:
                raise ConfigurationError("headers: accept-encoding may ask for identity, gzip and deflate.")


def _body(json: object, content: object) -> bytes | None:
    if json is not None and content is not None:
        raise ConfigurationError("give json= or content=, not both.")
    if json is not None:
        return encode_json(json, operation="request")
    if content is None:
        return None
    if isinstance(content, str):
        return _encoded(content)
    if isinstance(content, bytes):
        return content
    raise ConfigurationError("content: give bytes, or a text (sent as UTF-8).")


def _encoded(text: str) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError:
        raise ConfigurationError("content: half of a surrogate pair is not Unicode.") from None


__all__ = ["CONNECTION", "OURS", "HTTPReply", "Param", "Params", "asking", "open_request", "whole"]
