"""The way to the outside. Everything above talks to `contract.Io`; nothing above imports an HTTP library.

* the port: `contract` (requests, replies, `Io`), `bridge` (run a coroutine without a loop), `clock`, `shield`
* over HTTP, in `http`: `client` ← `prepare` → `transport`: `pool`, `core_request`, `network`, `dns`, `proxy`, or
  `user_transport` → `reply`, `content_encoding`, or `exceptions`
* whether and when to send again, in `resilience`: `retry`, `rate_limit`; what one client remembers of its providers:
  `protection`, which holds `retry_budget`, `breaker` and the rates of `rate_limit`
* around an `Io`: `middleware`, `request_defaults`, `dry_run`; instead of one: `in_memory` (no sockets at all)
* beside it: `status` (reply → error), `poll` (the waiting loop), `redact` (what may be printed)
"""

from __future__ import annotations

import logging as _logging

# A library says nothing by itself: the application decides where records go. Here, because every room of the library
# that logs loads this one, and `import unigpu` alone shall not load `logging`.
_logging.getLogger("unigpu").addHandler(_logging.NullHandler())
