"""Who one deploy call is, and what it keeps of itself: its identity, its intent, what it made, and its outcome."""

from __future__ import annotations

import copy
import logging
import math
from collections.abc import Sequence
from dataclasses import replace

from unigpu.driver import Adaptation, Content, DeploymentInfo, DeploymentSpec, Found, Identity, Resource, provider_name
from unigpu.errors import DeadlineExceeded, StateError, UniGPUError
from unigpu.models import Change

from .consistency.duplicates import ids_of
from .consistency.survey import Id, Survey, any_listed, survey
from .create import Ledger
from .deploy_failure import on_error
from .identity import identity_of, new_attempt, spec_hash
from .intents import Intent, Journal, key_of
from .scope import Deployed, Scope

_log = logging.getLogger("unigpu.lifecycle")


class Attempt:
    """One deploy or update call. The name's lock is held by the caller.

    Attributes:
        hash: The hash of the spec and its content.
        identity: With this call's own random attempt.
        journal: Its intent, from the first change on.
        ledger: What it created.
        info: The deployment as last seen.
        whole: The last create is done.
        removed: What existed before was torn down by this call.
        left: Attempts of which something should be gone and could not be deleted.
    """

    def __init__(self, scope: Scope, spec: DeploymentSpec, *, deadline: float) -> None:
        self.scope = scope
        self.spec = spec
        self.deadline = deadline
        self.content: Content = scope.driver.content(spec)
        self.hash = spec_hash(spec, self.content, provider=scope.provider)
        self.identity = self.identity_with(new_attempt(), self._expiry())
        self.key = key_of(scope.provider, scope.base, provider_name(scope.namespace, spec.name))
        self.journal: Journal | None = None
        self.ledger = Ledger(scope, self.identity)
        self.info: DeploymentInfo | None = None
        self.whole = False
        self.inherited = False
        self.removed = False
        self.left: set[str] = set()
        self.adaptations: list[Adaptation] = []
        self.warnings = list(self.content.notes)

    def begin(self, main: Found | None) -> None:
        """Write the intent before the first change; what a dead deploy left goes on under its own intent."""
        if self.journal is not None:
            return
        identity = self.identity
        attempt = main.attempt if main is not None and main.attempt is not None else identity.attempt
        earlier = next((i for i in self.intents() if main is not None and _made(i, main.attempt, main.id)), None)
        self.inherited = main is not None
        self.journal = Journal(
            self.scope.store,
            self.scope.io,
            earlier
            or Intent(
                state="pending",
                provider=self.scope.provider,
                base=self.scope.base,
                namespace=self.scope.namespace,
                name=self.spec.name,
                provider_name=identity.provider_name,
                attempt=attempt,
                spec_hash=self.hash,
                expires_at=identity.expires_at if main is None else main.expires_at,
            ),
            owes=self.listed,
        )
        self.journal.begin()
        self.ledger.journal = self.journal

    @property
    def listed(self) -> bool:
        """Whether the platform only lists: then later looks are owed."""
        return any_listed(self.resources(self.spec))

    def commit(self, deployed: Deployed) -> Deployed:
        """It stands: its intent says so, and no other intent of the name is needed.

        Where that cannot be written the intent is removed (which needs no room on the disk): a pending one would let a
        later deploy take what stands for debris.
        """
        store, journal, info = self.scope.store, self.journal, deployed.info
        if store is None:
            return deployed
        if journal is not None and info.attempt not in (None, journal.intent.attempt):
            self.give_up(journal)  # another call was faster: this one made nothing that stays
            journal = None
        try:
            if journal is not None:
                journal.mark("committed")
            for intent in store.load(self.key):
                if journal is not None and intent.file == journal.intent.file:
                    continue
                its = _made(intent, info.attempt, info.id)
                if journal is None and its and intent.state == "committed":
                    now = info.spec_hash or (self.hash if deployed.change == "updated" else intent.spec_hash)
                    Journal(store, self.scope.io, intent).rewrite(spec_hash=now)
                elif journal is None and its:
                    Journal(store, self.scope.io, intent).mark("committed")
                else:
                    self._retire(intent)
            store.sweep_temporary(self.key)
        except StateError as exc:
            if journal is not None:
                journal.drop()
            return replace(deployed, warnings=(*deployed.warnings, f"it stands, but is not recorded: {exc.message}"))
        return deployed

    def give_up(self, journal: Journal) -> None:
        """Nothing of this call stays; what it could not delete, or may still get, is for later looks."""
        if self.ledger.sent:
            journal.mark("failed", owe=True)
        else:
            journal.drop()

    def _retire(self, intent: Intent) -> None:
        """Of an earlier deploy: what may still appear of it, or could not be deleted, is for later looks."""
        store, wall = self.scope.store, self.scope.io.wall()
        if store is None:
            return
        left = intent.attempt in self.left
        if (due := intent.still_due(wall)) or left:
            later = Journal(store, self.scope.io, intent, owes=left or bool(due))
            later.mark("failed", owe=True if left and not due else None)
        else:
            store.drop(intent)

    async def failed(self, exc: BaseException, *, keep: bool) -> None:
        """Undo or keep what this call made; the caller raises *exc* again."""
        if self.removed and isinstance(exc, UniGPUError):
            exc.hint = f"{exc.hint or ''} The one that existed before was already torn down.".strip()
        await on_error(
            self.scope,
            exc,
            self.ledger,
            None if self.inherited and self.ledger.is_empty else self.journal,
            spec=self.spec,
            info=self.info,
            whole=self.whole,
            keep=keep,
            deadline=self.deadline,
        )

    def intents(self) -> Sequence[Intent]:
        return [] if self.scope.store is None else self.scope.store.load(self.key)

    def unfinished(self) -> Sequence[Intent]:
        """Intents of dead writers: the lock of the name is ours, so nobody else is writing."""
        return [i for i in self.intents() if i.state != "committed" and i.attempt != self.identity.attempt]

    def known_hash(self, main: Found) -> str | None:
        """What this machine's intent keeps of it, for platforms that do not show a spec."""
        for intent in reversed(self.intents()):
            if (main.kind, main.id) in intent.resources and intent.attempt == (main.attempt or intent.attempt):
                return intent.spec_hash
        return None

    async def survey(self, spec: DeploymentSpec) -> Survey:
        """What carries the name now. What this machine made counts also while a list does not show it yet."""
        known: Sequence[Id] = ids_of(self.intents())
        seen = await survey(
            self.scope,
            self.resources(spec),
            deadline=self.deadline,
            known=(*known, *((found.kind, found.id) for _, found in self.ledger.made)),
            mine=self.identity.attempt,
        )
        if self.ledger.is_empty:
            self.ledger.before = seen.ids
        return seen

    def resources(self, spec: DeploymentSpec) -> Sequence[Resource]:
        return self.scope.driver.resources(spec, self.identity)

    def filled(self) -> DeploymentSpec:
        """The spec with its secrets' values: read as late as this, and kept nowhere."""
        return self.spec if self.scope.secrets is None else self.scope.secrets(self.spec)

    def must_be_said(self) -> None:
        """Before something is created or replaced.

        Raises:
            ConfigurationError: no default of what was left out is safe on this platform.
        """
        if self.scope.unsaid is not None:
            raise copy.copy(self.scope.unsaid)

    def identity_with(self, attempt: str, expires_at: float | None) -> Identity:
        return identity_of(
            self.spec,
            provider=self.scope.provider,
            namespace=self.scope.namespace,
            spec_hash=self.hash,
            attempt=attempt,
            expires_at=expires_at,
        )

    def _expiry(self) -> float | None:
        ttl = self.spec.ttl
        return None if ttl is None else float(math.ceil(self.scope.io.wall() + ttl))

    def check_time(self) -> None:
        if self.scope.io.now() >= self.deadline:
            raise DeadlineExceeded(
                f"deploying {self.spec.name} on {self.scope.provider} did not end in time",
                provider=self.scope.provider,
                deployment=self.spec.name,
                stop_reason="deadline",
            )

    def deployed(self, info: DeploymentInfo, change: Change) -> Deployed:
        if info.name is None:  # a platform that cannot tell it, or not yet: its list is late
            named = {"name": self.identity.name, "namespace": self.identity.namespace}
            info = info.model_copy(update=named)
        self.info = info
        return Deployed(
            info=info,
            change=change,
            adaptations=tuple(self.adaptations),
            spec=self.spec,
            warnings=tuple(dict.fromkeys(self.warnings)),
        )


def _made(intent: Intent, attempt: str | None, id_: str) -> bool:
    """Whether the create of *intent* made it: it carries its attempt, or, where none can be read, its recorded id."""
    return intent.attempt == attempt if attempt is not None else any(id_ == made for _, made in intent.resources)
