"""The crash journal: what was about to be created, written before it is, and its id right after.

One small JSON file per create, and one lock per deployment name. Who holds the lock is alive; a pending intent whose
lock can be taken is a dead writer's, and the next deploy or teardown of that name settles it. An intent is a hint and a
crash log, never the truth: that is the platform, found by name. It holds no secret and no environment value.
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
LOOKS: Final = (15.0, 45.0, 120.0)
"""Seconds after a create on a platform of lists at which its name is looked at again."""

_LOCK_WAIT: Final = 0.05
_LOCK_WAIT_MOST: Final = 1.0
_TEXT: Final = ("state", "provider", "base", "namespace", "name", "provider_name", "attempt", "spec_hash")


@dataclass(frozen=True, kw_only=True)
class Intent:
    """One deployment that was being made, or was made, from this machine.

    Attributes:
        state: ``"failed"``: an undo did not finish, or what was kept is not whole.
        base: The provider's base URL.
        attempt: The create call's random id, which its resources carry.
        resources: ``(kind, id)`` of each that was made, in the order of creation.
        ending: What a teardown or an undo that did not finish was ending: a list may show it for a while, and a deploy
            that goes on builds on none of it.
        due: Epoch seconds of the looks that are still owed, for platforms that only list.
        expires_at: Epoch seconds of the deployment's end, where it was given one.
        extra: Fields that a later release wrote; kept as they are.
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
        """What names the deployment on this machine: the lock's and the files' common beginning."""
        return key_of(self.provider, self.base, self.provider_name)

    @property
    def file(self) -> str:
        return f"{self.key}.{self.attempt[:12]}.json"

    def still_due(self, wall: float) -> tuple[float, ...]:
        """The looks that are owed after this moment: one at this moment pays for all that were due before."""
        return tuple(at for at in self.due if wall < at <= wall + LOOKS[-1])

    def next_look(self, wall: float) -> float:
        """When the next look is due. One that is further off than any ever is was written under a clock that has been
        set back since: it is due now."""
        return min((at if at <= wall + LOOKS[-1] else wall for at in self.due), default=math.inf)

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
    """An intent from a file; ``None`` for one of another version, which is not ours to judge.

    Raises:
        ValueError: the file is corrupt.
    """
    raw: Any = json.loads(data)
    if not isinstance(raw, dict):
        raise ValueError("no object")
    fields: dict[str, Any] = {str(k): v for k, v in raw.items()}  # pyright: ignore[reportUnknownArgumentType, reportUnknownVariableType] - any JSON
    if fields.pop("version", None) != VERSION:
        return None
    known: dict[str, Any] = {}
    for name in _TEXT:
        value = fields.pop(name, None)
        if not isinstance(value, str):
            raise ValueError(f"{name} is no text")
        known[name] = value
    if known["state"] not in ("pending", "committed", "failed"):
        raise ValueError("an unknown state")
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
        state_dir: The client's state directory; intents are kept in ``intents/`` in it.
        hook: Called around every write, for tests that crash there.

    Raises:
        StateError: from any method, where the directory cannot be used; always before anything is created.
    """

    def __init__(self, state_dir: Path | str, *, hook: Hook | None = None) -> None:
        self._dir = Directory(Path(state_dir) / "intents", hook=hook)

    async def lock(self, io: Io, key: str, *, deadline: float, what: str) -> Lock:
        """Take the lock of a name; waits for a living holder.

        Raises:
            DeadlineExceeded: somebody else worked on this name all the time.
        """
        self._dir.prepare()
        wait = _LOCK_WAIT
        while (lock := self._dir.try_lock(f"{key}.lock")) is None:
            left = deadline - io.now()
            if left <= 0:
                raise errors.DeadlineExceeded(
                    f"{what}: another process on this machine is deploying or ending it, and did not finish in time",
                    maybe_executed=False,
                    stop_reason="deadline",
                )
            await io.sleep(min(wait, left))
            wait = min(wait * 1.5, _LOCK_WAIT_MOST)
        return lock

    def try_lock(self, key: str) -> Lock | None:
        """The lock of a name, or ``None`` where a living writer holds it."""
        self._dir.prepare()
        return self._dir.try_lock(f"{key}.lock")

    def is_locked(self, key: str) -> bool:
        """Whether a living writer works on this name."""
        return self._dir.is_locked(f"{key}.lock")

    def load(self, key: str = "") -> list[Intent]:
        """The intents of a name (or all), oldest first. Other versions are left alone, corrupt ones are told."""
        found: list[Intent] = []
        for name in self._dir.names(key):
            if not name.endswith(".json"):
                continue
            data = self._dir.read(name)
            try:
                intent = None if data is None else parse(data)
            except (ValueError, RecursionError) as exc:
                _log.warning("%s is not readable and is ignored: %s", self._dir.path / name, exc)
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
        """Remove what writers that died in the middle of a write left, of any name. The lock of *key* is held.

        Everybody writes with the lock of the name held, so a temporary file of a free name has no living writer.
        """
        for name in self._dir.names("."):
            owner, tmp, _ = name[1:].partition(".")
            if tmp and (owner == key or not self._dir.is_locked(f"{owner}.lock")):
                self._dir.remove(name)

    def sweep_locks(self) -> None:
        """Remove the lock files of names that have nothing else here: of writers that died before their first write."""
        names = self._dir.names("")
        kept = {name.partition(".")[0] for name in names if name.endswith(".json")}
        for name in names:
            key = name.removesuffix(".lock")
            if key != name and key not in kept and (lock := self._dir.try_lock(name)) is not None:
                lock.release()


class Journal:
    """The intent of one deploy while it runs; without a store it keeps nothing.

    Only made while the lock of the name is held: every other intent of the name is then a dead writer's.

    Args:
        owes: The platform only lists, so after each create later looks are owed.
    """

    def __init__(self, store: IntentStore | None, io: Io, intent: Intent, *, owes: bool = False) -> None:
        self._store = store
        self._io = io
        self._owes = owes
        self.intent = intent

    def begin(self) -> None:
        """Write the intent, before anything is created.

        Raises:
            StateError: it cannot be kept; nothing was created.
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
        """Keep the id of what was just created."""
        if (kind, id_) not in self.intent.resources:
            self._save(replace(self.intent, resources=(*self.intent.resources, (kind, id_)), due=self._due()))

    def mark(self, state: IntentState, *, owe: bool | None = None) -> None:
        """Keep what became of it. *owe*: all later looks anew, or none; ``None``: those that are owed already."""
        due = self.intent.due if owe is None else self._due() if owe else ()
        if (self.intent.state, self.intent.due) != (state, due):
            self._save(replace(self.intent, state=state, due=due))

    def note_ending(self, ids: Iterable[tuple[str, str]]) -> None:
        """These were to be ended, and not all of them are seen to be gone."""
        if new := tuple(one for one in ids if one not in self.intent.ending):
            self._save(replace(self.intent, ending=(*self.intent.ending, *new)))

    def ends_seen(self) -> None:
        """What was ending was looked at for long enough: what a list shows of it is there."""
        if self.intent.ending:
            self._save(replace(self.intent, ending=()))

    def rewrite(self, *, spec_hash: str) -> None:
        """It was changed in place."""
        if self.intent.spec_hash != spec_hash:
            self._save(replace(self.intent, spec_hash=spec_hash))

    def paid(self, wall: float) -> None:
        """Its name was looked at, at this moment."""
        if (due := self.intent.still_due(wall)) != self.intent.due:
            self._save(replace(self.intent, due=due))

    def drop(self) -> None:
        if self._store is not None:
            self._store.drop(self.intent)

    def _due(self) -> tuple[float, ...]:
        wall = self._io.wall()
        return tuple(wall + seconds for seconds in LOOKS) if self._owes else self.intent.due

    def _save(self, intent: Intent) -> None:
        intent = replace(intent, updated_at=self._io.wall())
        if self._store is not None:
            self._store.save(intent)
        self.intent = intent
