"""The way to the outside. Everything above talks to `contract.Io`; nothing above imports an HTTP library.

* the port: `contract` (requests, replies, `Io`), `bridge` (run a coroutine without a loop), `clock`, `shield`
* over HTTP: `http` ← `prepare` → `wire`: `pool`, `net`, `resolve`, `proxy` → `reply`, `decode`, or `failures`
* around an `Io`: `retry` (send again?), `limits` (when?), `memory` (no sockets at all)
* beside it: `status` (reply → error), `poll` (the waiting loop), `redact` (what may be printed)
"""
