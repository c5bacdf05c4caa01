"""One deploy or update call: its identity, its intent, and what it created."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from dataclasses import replace

from unigpu.driver import Adaptation, Content, DeploymentInfo, DeploymentSpec, Found, Identity, Resource, provider_name
from unigpu.errors import DeadlineExceeded, StateError
from unigpu.models import Change

from .consistency.absence import any_listed
from .consistency.survey import Survey, id_of, ids_of, survey
from .create import CreatedResources
from .identity import identity_of, new_attempt, spec_hash
from .intents import Intent, IntentWriter, key_of
from .scope import Deployed, Scope


class Attempt:
    """One deploy or update call. Its caller holds the lock of the name.

    Attributes:
        hash: The hash of the spec and its content.
        identity: The deployment's identity, with this call's own random attempt.
        writer: Writes the intent, from the first change on.
        created: What this call created.
        info: The deployment as last seen.
        seen: What carried the name at the last survey.
    """

    def __init__(self, scope: Scope, spec: DeploymentSpec, *, deadline: float) -> None:
        self.scope = scope
        self.spec = spec
        self.deadline = deadline
        self.content: Content = scope.deployer.content(spec)
        self.hash = spec_hash(spec, self.content, provider=scope.provider)
        self.identity = self.identity_with(new_attempt(), self._expiry())
        self.key = key_of(scope.provider, scope.base, provider_name(scope.namespace, spec.name))
        self.writer: IntentWriter | None = None
        self.created = CreatedResources(scope, self.identity)
        self.info: DeploymentInfo | None = None
        self.seen = Survey()
        self.adaptations: list[Adaptation] = []
        self.warnings = list(self.content.notes)

    # -- the platform ---------------------------------------------------------------------------------------------

    @property
    def listed(self) -> bool:
        """Whether the platform only lists: then later checks are owed."""
        return any_listed(self.resources(self.spec))

    def resources(self, spec: DeploymentSpec) -> Sequence[Resource]:
        return self.scope.deployer.resources(spec, self.identity)

    async def survey(self) -> Survey:
        """What carries the name now. What this machine created counts even while a list does not show it yet."""
        made = (id_of(found) for _, found in self.created.made)
        self.seen = await survey(
            self.scope,
            self.resources(self.spec),
            deadline=self.deadline,
            known=(*ids_of(self.intents()), *made),
            mine=self.identity.attempt,
        )
        if self.created.is_empty:
            self.created.before = self.seen.ids
        return self.seen

    # -- before a change ------------------------------------------------------------------------------------------

    def filled(self) -> DeploymentSpec:
        """The spec with the values of its secrets. They are read this late, and never kept."""
        return self.spec if self.scope.secrets is None else self.scope.secrets(self.spec)

    def require_choices(self) -> None:
        """Call it before a create or a replacement.

        Raises:
            ConfigurationError: the spec leaves out a choice that has no safe default on this platform.
        """
        if self.scope.unsaid is not None:
            raise copy.copy(self.scope.unsaid)

    def check_time(self) -> None:
        if self.scope.io.now() >= self.deadline:
            raise DeadlineExceeded(
                f"deploying {self.spec.name} on {self.scope.provider} did not finish in time",
                provider=self.scope.provider,
                deployment=self.spec.name,
                stop_reason="deadline",
            )

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

    # -- the intent -----------------------------------------------------------------------------------------------

    def begin(self, main: Found | None) -> None:
        """Write the intent before the first change. Where *main* exists and has one, that intent goes on."""
        if self.writer is not None:
            return
        identity = self.identity
        attempt = main.attempt if main is not None and main.attempt is not None else identity.attempt
        earlier = next((i for i in self.intents() if main is not None and _made(i, main.attempt, main.id)), None)
        self.writer = IntentWriter(
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
            completes=main is not None,
        )
        self.writer.begin()
        self.created.writer = self.writer

    def intents(self) -> Sequence[Intent]:
        """This machine's intents of the name."""
        return [] if self.scope.store is None else self.scope.store.load(self.key)

    def unfinished(self) -> Sequence[Intent]:
        """Intents of processes that died: we hold the lock of the name, so no other process writes."""
        return [i for i in self.intents() if i.state != "committed" and i.attempt != self.identity.attempt]

    def known_hash(self, main: Found) -> str | None:
        """The spec hash of *main* in this machine's intents, for platforms that do not show a spec."""
        for intent in reversed(self.intents()):
            if id_of(main) in intent.resources and intent.attempt == (main.attempt or intent.attempt):
                return intent.spec_hash
        return None

    # -- the outcome ----------------------------------------------------------------------------------------------

    def deployed(self, info: DeploymentInfo, change: Change) -> Deployed:
        """The result so far."""
        if info.name is None:  # a platform that does not show it, or not yet: its list is late
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

    def commit(self, deployed: Deployed, *, left: set[str]) -> Deployed:
        """Record that the deployment stands. No other intent of the name is needed any more.

        Where that cannot be written, the intent is removed (which needs no space on the disk): a later deploy would
        delete what a pending intent names, as the leftover of a process that died.

        Args:
            left: Attempts of which something could not be deleted.
        """
        store, writer, info = self.scope.store, self.writer, deployed.info
        if store is None:
            return deployed
        if writer is not None and info.attempt not in (None, writer.intent.attempt):
            self._give_up(writer)  # another call was faster: nothing of this call stays
            writer = None
        try:
            if writer is not None:
                writer.mark("committed")
            for intent in store.load(self.key):
                if writer is not None and intent.file == writer.intent.file:
                    continue
                its = _made(intent, info.attempt, info.id)
                if writer is None and its and intent.state == "committed":
                    now = info.spec_hash or (self.hash if deployed.change == "updated" else intent.spec_hash)
                    IntentWriter(store, self.scope.io, intent).rewrite(spec_hash=now)
                elif writer is None and its:
                    IntentWriter(store, self.scope.io, intent).mark("committed")
                else:
                    self._retire(intent, left=intent.attempt in left)
            store.sweep_temporary(self.key)
        except StateError as exc:
            if writer is not None:
                writer.drop()
            warning = f"the deployment stands, but is not recorded on this machine: {exc.message}"
            return replace(deployed, warnings=(*deployed.warnings, warning))
        return deployed

    def step_down(self) -> None:
        """Another deployment of the name counts: nothing of this call stays."""
        self.created.release()
        if self.writer is not None:
            self._give_up(self.writer)
        self.writer = self.created.writer = None
        self.info, self.created.whole = None, False

    def _give_up(self, writer: IntentWriter) -> None:
        """What this call could not delete, or what may still appear of it, is left to later checks."""
        if self.created.sent:
            writer.mark("failed", owe=True)
        else:
            writer.drop()

    def _retire(self, intent: Intent, *, left: bool) -> None:
        """Close the intent of an earlier deploy: what may still appear of it, or was *left*, is for later checks."""
        store, wall = self.scope.store, self.scope.io.wall()
        if store is None:
            return
        if (due := intent.still_due(wall)) or left:
            later = IntentWriter(store, self.scope.io, intent, owes=left or bool(due))
            later.mark("failed", owe=True if left and not due else None)
        else:
            store.drop(intent)


def _made(intent: Intent, attempt: str | None, id_: str) -> bool:
    """Whether the create of *intent* made it: by its attempt, or, where the platform shows none, by its recorded id."""
    return intent.attempt == attempt if attempt is not None else any(id_ == made for _, made in intent.resources)
