"""What may be printed. An allow-list first; a scrubber for known and well-known secrets as the second line."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from typing import Final
from urllib.parse import urlsplit

from unigpu.errors import ConfigurationError

__all__ = ["check_key", "excerpt", "fingerprint", "safe_url", "scrub", "terminal"]

EXCERPT: Final = 200
"""Characters of a foreign body that an error may show."""
_TERMINAL: Final = 2_000
_READ: Final = 8_192  # of a foreign body: patterns run over it, and it may be hostile
_HIDDEN: Final = "***"

# Shapes of secrets of this field: RunPod, Hugging Face, OpenAI and GitHub keys, JWTs, and whatever follows "Bearer".
_SHAPES: Final = re.compile(
    r"\b(?:rpa_|rps_|hf_|sk-|ghp_|gho_|github_pat_|glpat-|xox[abp]-)[A-Za-z0-9_\-]{6,}"
    r"|\beyJ[A-Za-z0-9_\-]{8,}\.[A-Za-z0-9_\-]+\.[A-Za-z0-9_\-]*"
    r"|(?<=[Bb]earer )[^\s\"',;}]+"
)
_NAMED: Final = re.compile(
    r"""((?:api[_\-]?key|secret|password|passwd|token|authorization|signature)[a-z0-9_\-]{0,40}["']?\s{0,4}[:=]\s{0,4})"""
    r"""(?:"[^"]*"|'[^']*'|[^\s,;&}"']+)""",
    re.IGNORECASE,
)
_CONTROL: Final = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]")
_ESCAPE: Final = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)?|[@-Z\\^_])")
_TAG: Final = re.compile(
    r"<(?:script|style)\b.{0,2000}?</(?:script|style)\s{0,9}>|<[^<>]{0,500}>", re.IGNORECASE | re.DOTALL
)


def safe_url(url: str) -> str:
    """*url* without user information, query and fragment: those may hold secrets."""
    try:
        parts = urlsplit(url)
        host = parts.hostname or ""
        host = f"[{host}]" if ":" in host else host
        port = f":{parts.port}" if parts.port is not None else ""
    except ValueError:
        return "(not a URL)"
    return terminal(f"{parts.scheme}://{host}{port}{parts.path}")


def terminal(text: str, *, limit: int = _TERMINAL) -> str:
    """*text* without control and direction characters, at most *limit* characters: safe to print."""
    text = _ESCAPE.sub("", text[: 4 * limit])
    text = _CONTROL.sub("\N{REPLACEMENT CHARACTER}", text)
    return text if len(text) <= limit else text[: limit - 1] + "…"


def scrub(text: str, secrets: Iterable[str] = ()) -> str:
    """*text* with *secrets*, and what looks like one, replaced by ``***``."""
    for secret in sorted({s for s in secrets if len(s) >= 4}, key=len, reverse=True):
        text = text.replace(secret, _HIDDEN)
    text = _SHAPES.sub(_HIDDEN, text)
    return _NAMED.sub(lambda match: match.group(1) + _HIDDEN, text)


def excerpt(body: bytes | str, *, secrets: Iterable[str] = (), limit: int = EXCERPT) -> str:
    """The start of a foreign body as one printable line: scrubbed, without tags, at most *limit* characters."""
    text = body[:_READ] if isinstance(body, str) else body[:_READ].decode("utf-8", "replace")
    text = scrub(text, secrets)  # first, while it is whole: a cut secret could not be found any more
    if "<" in text:
        text = _TAG.sub(" ", text)
    text = " ".join(terminal(text, limit=_READ).split())
    return text if len(text) <= limit else text[: limit - 1] + "…"


def fingerprint(secret: str) -> str:
    """Six hexadecimal digits that tell one key from another, and nothing more."""
    return hashlib.sha256(secret.encode("utf-8", "surrogatepass")).hexdigest()[:6]


def check_key(secret: str, *, name: str = "the API key") -> str:
    """*secret* itself, where it can be sent in a header.

    Raises:
        ConfigurationError: it is empty, or not printable ASCII without blanks. The text never quotes the key.
    """
    if not secret:
        raise ConfigurationError(f"{name} is empty")
    if secret != secret.strip():
        raise ConfigurationError(f"{name} begins or ends with a blank or a line break; it was probably pasted with one")
    if not all("!" <= char <= "~" for char in secret):
        raise ConfigurationError(f"{name} contains a blank, a line break, or a character that is not ASCII")
    return secret
