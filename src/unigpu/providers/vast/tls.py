"""By which certificates Vast's workers are known: Vast's own root, shipped here, and no other.

Vast signs each instance's certificate with a root of its own (``https://console.vast.ai/static/jvastai_root.cer``; the
name in it is the machine's address). It is the same in three independent public copies, and never fetched at run time:
an attacker who can change that answer can change the worker, too. The root does not say that it may sign, so OpenSSL's
strict check (RFC 5280) is off in this one context (vastai 1.9.1, ``serverless/client/client.py``, does the same).
"""

from __future__ import annotations

import functools
from importlib import resources
from typing import Final

from unigpu.driver import Trust

ROOT: Final = "root-ca.pem"
FINGERPRINT: Final = "A1:A7:8F:9E:1A:80:6C:74:DA:D0:8B:8F:01:F5:F0:8C:73:9F:B7:0A:5B:FB:B5:2D:28:92:37:51:C2:23:45:1D"
"""SHA-256 of the certificate in `ROOT`; valid until 2051-03-03."""


@functools.cache
def shipped() -> str:
    """The root as PEM text."""
    return resources.files(__package__ or "").joinpath(ROOT).read_text(encoding="ascii")


def trust_of(worker_ca: str | None) -> Trust:
    """What workers must be certified by: *worker_ca* as PEM text, else Vast's root."""
    return Trust(roots=worker_ca or shipped(), strict=False)
