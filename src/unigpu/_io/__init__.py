"""The way to the outside. Everything above talks to `contract.Io`; nothing above imports an HTTP library.

* the port: `contract` (requests, replies, `Io`), `bridge` (run a coroutine without a loop), `clock`, `shield`
* over HTTP: `http` ← `prepare` → `wire`: `pool`, `core_request`, `net`, `resolve`, `proxy`, or `user_transport` →
  `reply`, `decode`, or `failures`
* around an `Io`: `retry` (send again?), `limits` (when?), `stamp` (why?), `memory` (no sockets at all)
* what one client remembers of its providers: `protection`: `tokens`, `breaker`, and the rates of `limits`
* beside it: `status` (reply → error), `poll` (the waiting loop), `redact` (what may be printed)
"""

from __future__ import annotations

import logging as _logging

# A library says nothing by itself: the application decides where records go. Here, because every room of the library
# that logs loads this one, and `import unigpu` alone shall not load `logging`.
_logging.getLogger("unigpu").addHandler(_logging.NullHandler())
