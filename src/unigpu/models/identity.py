"""Names and tags: how a deployment is told from all others, on every platform.

A provider's name has at most 20 characters (Yotta's limit), starts with a letter, and carries our tag: the namespace
and the logical name can be recognised from it on a platform that shows nothing else.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

NAME_PATTERN: Final = r"^[a-z][a-z0-9-]{0,62}$"
NAMESPACE_PATTERN: Final = r"^[a-z0-9][a-z0-9._-]{0,62}$"
_PROVIDER_NAME = re.compile(r"^([a-z][a-z0-9-]{0,4})-ug([a-z2-7]{4})([a-z2-7]{8})$")


def provider_name(namespace: str, name: str) -> str:
    """The name a deployment carries on a platform: ``slug[:5]-ug`` + 4 (namespace) + 8 (name) letters."""
    return f"{name[:5]}-ug{_b32(namespace, 4)}{_b32(chr(0).join((namespace, name)), 8)}"


def is_ours(text: str) -> bool:
    """Whether a name on a platform has the form of ours, in any namespace."""
    return _PROVIDER_NAME.match(text) is not None


def is_in_namespace(text: str, namespace: str) -> bool:
    """Whether a name on a platform is ours, and of this namespace."""
    found = _PROVIDER_NAME.match(text)
    return found is not None and found.group(2) == _b32(namespace, 4)


def _b32(text: str, length: int) -> str:
    return base64.b32encode(hashlib.sha256(text.encode()).digest()).decode().lower()[:length]


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """Who a deployment is, for one deploy call.

    Attributes:
        attempt: A random id of this call, so that a create whose answer was lost can be recognised.
        spec_hash: The hash of the spec and its content.
        constants: ``UNIGPU_*`` variables to be written on the platform, so that another process can use it.
        expires_at: Epoch seconds of its end, where a ttl was stated.
    """

    name: str
    namespace: str
    attempt: str
    spec_hash: str
    constants: Mapping[str, str] = field(default_factory=dict[str, str])
    expires_at: float | None = None

    @property
    def provider_name(self) -> str:
        return provider_name(self.namespace, self.name)
