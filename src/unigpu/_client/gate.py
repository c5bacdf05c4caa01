"""What a platform can do for a spec or a deployment, before anything is sent: the one place that says no."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from unigpu import _registry
from unigpu._lifecycle import deploying
from unigpu.elasticity import capabilities as _flags
from unigpu.elasticity.capabilities import Capabilities
from unigpu.elasticity.compatibility import (
    AnyRefusal,
    Unmet,
    check_workers,
    demands,
    known_ttl_enforcer,
    notes,
    provider_options,
    ttl_enforcer,
)
from unigpu.elasticity.compatibility import adapt as adapt_spec
from unigpu.elasticity.compatibility import error as refusal_error
from unigpu.errors import ConfigurationError, UniGPUError
from unigpu.models import Adaptation, DeploymentInfo, DeploymentSpec, Interface, Kind, TtlEnforcer, scale_range

from . import arguments
from .session import Session

_COLD_START_MOST: Final = 1800.0
_COLD_START_LOCAL: Final = 60.0
_MOCKED: Final = 60.0  # seconds beyond a mock's longest start
_CALLS: Final = frozenset({"invoke", "submit", "streaming", "request"})
"""Flags that one interface has, and the other has not."""


class Gate:
    """The capabilities of every provider, and what they allow. It keeps no state but what it has read."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._flags: dict[tuple[str, Interface, Kind], Capabilities] = {}

    def capabilities(self, provider: str, interface: Interface, kind: Kind) -> Capabilities:
        """The flags of a provider. Nothing is sent, and no key is needed."""
        key = provider, interface, kind
        found = self._flags.get(key)
        if found is None:
            facts = _registry.load(provider).facts
            found = self._flags[key] = _flags.load(provider, interface=interface, kind=kind, facts=facts)
        return found

    def of(self, info: DeploymentInfo) -> Capabilities:
        return self.capabilities(info.provider, info.interface, info.kind)

    # -- a spec

    def spec(
        self, given: DeploymentSpec | str | None, provider: str | None, fields: Mapping[str, Any]
    ) -> tuple[DeploymentSpec, str, bool]:
        """The spec of a deploy, its provider, and whether the configuration says ``on_unsupported="adapt"``."""
        arguments.check_fields(fields)
        settings = self._session.settings
        merged: dict[str, Any] = dict(settings.defaults)
        where = self._session.provider(provider)
        if isinstance(given, DeploymentSpec):
            merged.update({name: getattr(given, name) for name in given.model_fields_set})
        elif isinstance(given, str):
            name, at = arguments.address(given, provider)
            where = at or where
            merged.update(settings.declared(name, where))
        elif given is not None:  # pyright: ignore[reportUnnecessaryComparison] - users without a type checker
            raise ConfigurationError("spec: give a DeploymentSpec, the name of a declared deployment, or fields.")
        adapt = arguments.choice(
            merged.pop("on_unsupported", "raise"), "on_unsupported (in the configuration)", arguments.ON_UNSUPPORTED
        )
        merged.update(fields)
        if "name" not in merged:
            raise ConfigurationError(
                'a deployment needs a name: deploy(name="summarize", ...), or deploy("summarize") for a declared one.'
            )
        try:
            return DeploymentSpec.model_validate(merged), where, adapt == "adapt"
        except ConfigurationError as exc:
            stated = (
                {**fields, **dict.fromkeys(given.model_fields_set)} if isinstance(given, DeploymentSpec) else fields
            )
            settings.blame(exc, merged["name"] if isinstance(given, str) else None, where, stated)
            raise

    def admit(
        self, spec: DeploymentSpec, provider: str, *, adapt: bool
    ) -> tuple[DeploymentSpec, tuple[Adaptation, ...], UniGPUError | None]:
        """The gate of a spec: what is stated and cannot be is refused, or replaced by the nearest thing.

        Returns:
            The spec, what was adapted, and the error for what must be said before something is created: what exists is
            reused without it.

        Raises:
            UnsupportedError: something stated cannot be, with the fact; all of it in one message.
            ConfigurationError: an option is none of this provider's.
        """
        driver = deploying(self._session.driver(provider))
        caps = self.capabilities(provider, spec.interface, spec.kind)
        provider_options(spec, provider, driver.SpecOptions)
        checked = driver.check(spec)
        found: tuple[AnyRefusal, ...] = (*demands(spec, caps), *checked.refusals)
        unsaid = tuple(one for one in found if isinstance(one, Unmet) and one.must_say)
        refused = tuple(one for one in found if one not in unsaid)
        changed: tuple[Adaptation, ...] = ()
        if refused:
            spec, changed = self._settle(spec, refused, caps, adapt=adapt)
        missing = refusal_error(unsaid, caps) if unsaid else None
        if missing is not None:
            missing.deployment = spec.name
        return spec, (*changed, *checked.adaptations, *notes(spec, caps)), missing

    def _settle(
        self, spec: DeploymentSpec, refused: Sequence[AnyRefusal], caps: Capabilities, *, adapt: bool
    ) -> tuple[DeploymentSpec, tuple[Adaptation, ...]]:
        if not adapt:
            exc = refusal_error(refused, caps)
            exc.deployment = spec.name
            raise exc
        return adapt_spec(spec, refused, caps)

    # -- a deployment

    def require(self, flag: str, info: DeploymentInfo, *, doing: str, instead: str | None = None) -> Capabilities:
        """The gate of a verb: pass, or say no with the fact.

        Raises:
            UnsupportedError: the platform cannot do that for this deployment.
        """
        caps = self.of(info)
        if "interface" in info.assumed and flag in _CALLS:
            other = "function" if info.interface == "http" else "http"
            instead = (
                f"{info.provider} does not tell what {info.name} is, so it was taken for one of interface "
                f'{info.interface!r}; get({info.name!r}, interface="{other}") says otherwise.'
            )
        _flags.require(caps, flag, doing=doing, instead=instead)
        return caps

    def admit_workers(
        self, info: DeploymentInfo, workers: tuple[int, int], *, adapt: bool
    ) -> tuple[tuple[int, int], tuple[Adaptation, ...]]:
        """The gate of ``scale``.

        Raises:
            UnsupportedError: the platform cannot hold such limits.
        """
        caps = self.require("scale", info, doing="scale()")
        refused = check_workers(workers, caps)
        if refused is None:
            return workers, ()
        asked = DeploymentSpec(name=info.name or "unnamed", workers=workers)
        got, changed = self._settle(asked, (refused,), caps, adapt=adapt)
        return got.workers, changed

    def admit_zero(self, info: DeploymentInfo) -> Adaptation:
        """The gate of ``scale(0)``: where workers are declared and a deployment can be stopped, that is what it means.

        Raises:
            ConfigurationError: a deployment without any worker cannot answer.
        """
        caps = self.require("scale", info, doing="scale()")
        if caps.scale_to_zero.value != "manual" or not caps.supports("stop"):
            scale_range(0)
        return Adaptation(
            field="workers",
            asked="0",
            got="stopped",
            reason=f"{caps.provider}: no worker is a stopped deployment ({caps.stop.note or 'start() starts it'})",
            source=caps.stop.source,
        )

    def adapts(self, info: DeploymentInfo) -> bool:
        """Whether the configuration says ``on_unsupported="adapt"`` for it."""
        settings = self._session.settings
        said: Any = settings.defaults.get("on_unsupported", "raise")
        if info.name in settings.deployments:
            said = settings.declared(info.name or "", info.provider).get("on_unsupported", said)
        return bool(said == "adapt")

    # -- times

    def ttl_enforcer(self, info: DeploymentInfo, spec: DeploymentSpec | None) -> TtlEnforcer:
        """Who ends it at its ttl, by the facts and by what runs in it."""
        caps = self.of(info)
        return known_ttl_enforcer(caps) if spec is None else ttl_enforcer(spec, caps)

    def start_timeout(self, given: float | None, caps: Capabilities) -> float:
        """Seconds a call waits for a first worker: the high end of the cold-start fact unless it is said.

        A mock's workers take what its test said, whatever the facts say.
        """
        if given is not None:
            return given
        cold = caps.cold_start.value
        usual = _COLD_START_MOST if isinstance(cold, str) else max(1.0, cold[1])
        if caps.provider == "local":
            usual = _COLD_START_LOCAL
        mocked = self._session.settings.mocked_start
        return usual if mocked is None else max(usual, mocked + _MOCKED)


def cold_start(caps: Capabilities) -> tuple[float, float] | None:
    """Seconds a cold start takes, by the facts."""
    cold = caps.cold_start.value
    return None if isinstance(cold, str) else cold
