"""Intents: what a deploy is about to create, written before the create, and its id right after.

There is one small JSON file per create, and one lock per deployment name. The holder of the lock is alive. A pending
intent whose lock is free belongs to a process that died, and the next deploy or teardown of that name settles it. An
intent is a crash log, never the truth: the truth is the platform, searched by name. An intent holds no secret and no
environment value.
"""

from __future__ import annotations

import hashlib
import json
import logging
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final, Literal

from unigpu import errors
from unigpu.driver import Io

from .durable_files import Directory, Hook, Lock

_log = logging.getLogger("unigpu.intent")

VERSION: Final = 1
IntentState = Literal["pending", "committed", "failed"]
CHECKS_AFTER: Final = (15.0, 45.0, 120.0)
"""Seconds after a create at which its name is checked again, on a platform that only lists."""

_LOCK_WAIT: Final = 0.05
_LOCK_WAIT_MOST: Final = 1.0
_TEXT: Final = ("state", "provider", "base", "namespace", "name", "provider_name", "attempt", "spec_hash")


@dataclass(frozen=True, kw_only=True)
class Intent:
    """One deployment that this machine created, or was about to create.

    Attributes:
        state: ``"failed"``: an undo did not finish, or the deployment that was kept is not complete.
        base: The provider's base URL.
        attempt: The create call's random id, which its resources carry.
        resources: ``(kind, id)`` of each resource that was created, in order.
        ending: What an unfinished teardown or undo was deleting. A list may show it for a while, and a later deploy
            must not reuse it.
        due: Epoch seconds of the checks that are still owed, for platforms that only list.
        expires_at: Epoch seconds at which the deployment expires; ``None``: never.
        extra: Fields that a later release wrote; they are kept as they are.
    """

    state: IntentState
    provider: str
    base: str
    namespace: str
    name: str
    provider_name: str
    attempt: str
    spec_hash: str
    resources: tuple[tuple[str, str], ...] = ()
    ending: tuple[tuple[str, str], ...] = ()
    due: tuple[float, ...] = ()
    created_at: float = 0.0
    updated_at: float = 0.0
    expires_at: float | None = None
    extra: Mapping[str, Any] = field(default_factory=dict[str, Any], repr=False)

    @property
    def key(self) -> str:
        """The deployment's key on this machine: its lock file and its intent files begin with it."""
        return key_of(self.provider, self.base, self.provider_name)

    @property
    def file(self) -> str:
        return f"{self.key}.{self.attempt[:12]}.json"

    def still_due(self, wall: float) -> tuple[float, ...]:
        """The checks that are owed after *wall*: one check at *wall* counts for all that were due before."""
        return tuple(at for at in self.due if wall < at <= wall + CHECKS_AFTER[-1])

    def next_check(self, wall: float) -> float:
        """When the next check is due. One that is too far off was written before the clock was set back: it is due
        now."""
        return min((at if at <= wall + CHECKS_AFTER[-1] else wall for at in self.due), default=math.inf)

    def to_json(self) -> bytes:
        known = {
            **{name: getattr(self, name) for name in _TEXT},
            "resources": [list(pair) for pair in self.resources],
            "ending": [list(pair) for pair in self.ending],
            "due": list(self.due),
            "created_at": self.created_at,
            "updated_at": self.updated_at,
            "expires_at": self.expires_at,
        }
        return json.dumps({**self.extra, "version": VERSION, **known}, indent=1, sort_keys=True).encode()


def key_of(provider: str, base: str, provider_name: str) -> str:
    place = hashlib.sha256(base.encode()).hexdigest()[:8]
    safe = "".join(c if c.isalnum() or c in "-_" else "_" for c in provider)
    return f"{safe}-{place}-{provider_name}"


def parse(data: bytes) -> Intent | None:
    """An intent from a file; ``None`` for one of another version, which this release leaves alone.

    Raises:
        ValueError: the file is corrupt.
    """
    raw: Any = json.loads(data)
    if not isinstance(raw, dict):
        raise ValueError("not a JSON object")
    fields: dict[str, Any] = {str(k): v for k, v in raw.items()}  # pyright: ignore[reportUnknownArgumentType, reportUnknownVariableType] - any JSON
    if fields.pop("version", None) != VERSION:
        return None
    known: dict[str, Any] = {}
    for name in _TEXT:
        value = fields.pop(name, None)
        if not isinstance(value, str):
            raise ValueError(f"{name} is not a string")
        known[name] = value
    if known["state"] not in ("pending", "committed", "failed"):
        raise ValueError("unknown state")
    try:
        known["resources"] = tuple((str(kind), str(id_)) for kind, id_ in fields.pop("resources", ()))
        known["ending"] = tuple((str(kind), str(id_)) for kind, id_ in fields.pop("ending", ()))
        known["due"] = tuple(float(at) for at in fields.pop("due", ()))
        known["created_at"] = float(fields.pop("created_at", 0.0))
        known["updated_at"] = float(fields.pop("updated_at", 0.0))
        end = fields.pop("expires_at", None)
        known["expires_at"] = None if end is None else float(end)
    except (TypeError, ValueError) as exc:
        raise ValueError(str(exc)) from None
    return Intent(**known, extra=fields)


class IntentStore:
    """The intents of one state directory.

    Args:
        state_dir: The client's state directory. Intents are kept in its folder ``intents/``.
        hook: Called around every write, for tests that crash there.

    Raises:
        StateError: any method raises it where the directory cannot be used, always before anything is created.
    """

    def __init__(self, state_dir: Path | str, *, hook: Hook | None = None) -> None:
        self._dir = Directory(Path(state_dir) / "intents", hook=hook)

    async def lock(self, io: Io, key: str, *, deadline: float, what: str) -> Lock:
        """Take the lock of a name, and wait while another process holds it.

        Raises:
            DeadlineExceeded: another process worked on this name all the time.
        """
        self._dir.prepare()
        wait = _LOCK_WAIT
        while (lock := self._dir.try_lock(f"{key}.lock")) is None:
            left = deadline - io.now()
            if left <= 0:
                raise errors.DeadlineExceeded(
                    f"{what}: another process on this machine is deploying or deleting it, and did not finish in time",
                    maybe_executed=False,
                    stop_reason="deadline",
                )
            await io.sleep(min(wait, left))
            wait = min(wait * 1.5, _LOCK_WAIT_MOST)
        return lock

    def try_lock(self, key: str) -> Lock | None:
        """The lock of a name, or ``None`` where a living process holds it."""
        self._dir.prepare()
        return self._dir.try_lock(f"{key}.lock")

    def is_locked(self, key: str) -> bool:
        """Whether a living process works on this name."""
        return self._dir.is_locked(f"{key}.lock")

    def load(self, key: str = "") -> list[Intent]:
        """The intents of a name (or all), oldest first. Other versions are left alone; corrupt files are logged."""
        found: list[Intent] = []
        for name in self._dir.names(key):
            if not name.endswith(".json"):
                continue
            data = self._dir.read(name)
            try:
                intent = None if data is None else parse(data)
            except (ValueError, RecursionError) as exc:
                _log.warning("%s is corrupt and is ignored: %s", self._dir.path / name, exc)
                continue
            if intent is not None and intent.file == name and (not key or intent.key == key):
                found.append(intent)
        return sorted(found, key=lambda i: (i.created_at, i.attempt))

    def save(self, intent: Intent) -> None:
        self._dir.prepare()
        self._dir.write(intent.file, intent.to_json())

    def drop(self, intent: Intent) -> None:
        self._dir.remove(intent.file)

    def sweep_temporary(self, key: str) -> None:
        """Remove the temporary files of processes that died during a write, of any name. The lock of *key* is held.

        Every process writes with the lock of the name held, so a temporary file of a free name has no living writer.
        """
        for name in self._dir.names("."):
            owner, tmp, _ = name[1:].partition(".")
            if tmp and (owner == key or not self._dir.is_locked(f"{owner}.lock")):
                self._dir.remove(name)

    def sweep_locks(self) -> None:
        """Remove lock files of names without an intent: their processes died before the first write."""
        names = self._dir.names("")
        kept = {name.partition(".")[0] for name in names if name.endswith(".json")}
        for name in names:
            key = name.removesuffix(".lock")
            if key != name and key not in kept and (lock := self._dir.try_lock(name)) is not None:
                lock.release()


class IntentWriter:
    """Keeps the intent of one deploy up to date while it runs. Without a store it writes nothing.

    Create one only while the lock of the name is held: every other intent of the name then has no living writer.

    Attributes:
        intent: As last written.
        completes: The deploy completes a deployment that existed before: a failure must not drop the intent.

    Args:
        owes: The platform only lists, so each create owes later checks.
    """

    def __init__(
        self, store: IntentStore | None, io: Io, intent: Intent, *, owes: bool = False, completes: bool = False
    ) -> None:
        self._store = store
        self._io = io
        self._owes = owes
        self.intent = intent
        self.completes = completes

    def begin(self) -> None:
        """Write the intent, before anything is created.

        Raises:
            StateError: it cannot be written; nothing was created.
        """
        now = self._io.wall()
        self._save(
            replace(
                self.intent,
                created_at=self.intent.created_at or now,
                due=self._due(),
                updated_at=now,
            )
        )

    def record(self, kind: str, id_: str) -> None:
        """Write the id of a resource that was just created."""
        if (kind, id_) not in self.intent.resources:
            self._save(replace(self.intent, resources=(*self.intent.resources, (kind, id_)), due=self._due()))

    def mark(self, state: IntentState, *, owe: bool | None = None) -> None:
        """Write the outcome. *owe*: all later checks again, or none; ``None``: those that are owed already."""
        due = self.intent.due if owe is None else self._due() if owe else ()
        if (self.intent.state, self.intent.due) != (state, due):
            self._save(replace(self.intent, state=state, due=due))

    def note_ending(self, ids: Iterable[tuple[str, str]]) -> None:
        """Write what is being deleted, where not all of it is seen to be gone."""
        if new := tuple(one for one in ids if one not in self.intent.ending):
            self._save(replace(self.intent, ending=(*self.intent.ending, *new)))

    def clear_ending(self) -> None:
        """What was being deleted was checked for long enough: what a list still shows of it really exists."""
        if self.intent.ending:
            self._save(replace(self.intent, ending=()))

    def rewrite(self, *, spec_hash: str) -> None:
        """Write the new hash after a change in place."""
        if self.intent.spec_hash != spec_hash:
            self._save(replace(self.intent, spec_hash=spec_hash))

    def checked(self, wall: float) -> None:
        """Write that the name was checked at *wall*."""
        if (due := self.intent.still_due(wall)) != self.intent.due:
            self._save(replace(self.intent, due=due))

    def drop(self) -> None:
        if self._store is not None:
            self._store.drop(self.intent)

    def _due(self) -> tuple[float, ...]:
        wall = self._io.wall()
        return tuple(wall + seconds for seconds in CHECKS_AFTER) if self._owes else self.intent.due

    def _save(self, intent: Intent) -> None:
        intent = replace(intent, updated_at=self._io.wall())
        if self._store is not None:
            self._store.save(intent)
        self.intent = intent
