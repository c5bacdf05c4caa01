"""What a client decides without any I/O: which provider, what a name means, and the one gate that says no."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Final, Literal, cast

from unigpu import _config, _registry
from unigpu._lifecycle import SharedStatus
from unigpu.driver import Driver, DriverConfig
from unigpu.elasticity import capabilities as _flags
from unigpu.elasticity.capabilities import Capabilities
from unigpu.elasticity.demands import Refused, check_workers, demands, notes, provider_options, ttl_enforcer
from unigpu.elasticity.demands import adapt as adapt_spec
from unigpu.elasticity.demands import error as refusal_error
from unigpu.errors import ClientClosed, ConfigurationError, NotFoundError, UniGPUError
from unigpu.models import (
    Adaptation,
    BearerToken,
    Change,
    DeploymentInfo,
    DeploymentSpec,
    Event,
    Interface,
    Kind,
    Rate,
    TtlEnforcer,
    nearest,
    provider_name,
    scale_range,
)

from . import arguments

OnUnsupported = Literal["raise", "adapt"]

DEPLOY_SECONDS: Final = 1800.0
TEARDOWN_SECONDS: Final = 600.0
GC_SECONDS: Final = 600.0
CLOSE_SECONDS: Final = 10.0
"""How long closing a client may be held up by the looks that are due."""
CONTROL_SECONDS: Final = 60.0
"""How long a call may take that only reads or changes a setting."""
_COLD_START_MOST: Final = 1800.0
_COLD_START_LOCAL: Final = 60.0
_MOCKED: Final = 60.0  # seconds beyond a mock's longest start
_CALLS: Final = frozenset({"invoke", "submit", "streaming", "request"})
"""Flags that one interface has, and the other has not."""
# Parameters of deploy, update and plan: what a mistyped keyword may have been meant to be.
_PARAMETERS: Final = (
    "spec", "provider", "wait", "timeout", "if_exists", "ephemeral", "on_unsupported", "on_failure", "settle",
    "progress",
)  # fmt: skip

_log: Final = logging.getLogger("unigpu.client")


@dataclass(slots=True)
class Seen:
    """What a handle holds: the deployment as last seen, and what the deploy that made the handle came to.

    Attributes:
        owned: That deploy created it, so leaving the ``with`` block ends it.
        gone: It was torn down through this client.
    """

    info: DeploymentInfo
    change: Change = "adopted"
    adaptations: tuple[Adaptation, ...] = ()
    spec: DeploymentSpec | None = None
    rate: Rate = field(default_factory=Rate)
    ttl_enforced_by: TtlEnforcer | None = None
    owned: bool = False
    gone: bool = False

    @property
    def label(self) -> str:
        return self.info.name or self.info.provider_name


@dataclass(slots=True)
class Flight:
    """One start of a deployment that several callers wait for."""

    state: Literal["flying", "landed", "lost"] = "flying"
    error: UniGPUError | None = None


class Home:
    """Settings, drivers and names of one client, shared with the engine of its `map`.

    Its parts are filled by single assignments that may safely happen twice, and guarded by no lock: a lock that
    another thread held at a fork would stay held in the child for ever.
    """

    def __init__(self, settings: _config.Settings, on_event: Callable[[Event], None] | None) -> None:
        if on_event is not None and not callable(on_event):  # pyright: ignore[reportUnnecessaryComparison] - users without a type checker
            raise ConfigurationError("on_event: give a function that takes an Event.")
        self._exists(settings.provider, settings.sources.get("provider", "argument"))
        for name in settings.given_keys:
            self._exists(name)
        self.settings = settings
        self.namespace = settings.namespace
        self.closed = False
        self.flights: dict[tuple[object, ...], Flight] = {}
        self.status: Final = SharedStatus()
        self._on_event = on_event
        self.event_failures = 0
        self._drivers: dict[tuple[str, str | None], Driver] = {}
        self._flags: dict[tuple[str, Interface, Kind], Capabilities] = {}
        self._names: dict[tuple[str, str], DeploymentInfo] = {}
        self._known: set[tuple[str, str]] = set()

    # -- which provider

    def open(self) -> None:
        """Raise `ClientClosed` unless the client may still be used."""
        if self.closed:
            raise ClientClosed("this client is closed.", hint="Make a new one; closing a client ends no deployment.")
        if self.settings.ended:
            raise ConfigurationError(
                "this client was made inside of unigpu_mock, which is over.",
                hint="Make it outside, or a new one: one that was made before a mock is served by it, too.",
            )

    def provider(self, given: object) -> str:
        if given is None:
            return self.settings.provider
        if not isinstance(given, str) or not given:
            raise ConfigurationError('provider: give a name, as in "runpod".')
        return given

    def providers(self, given: object) -> tuple[str, ...]:
        """The providers that a list covers: those asked for, else all that have a key (local needs none)."""
        if given is not None:
            try:
                asked = (given,) if isinstance(given, str) else tuple(cast("Iterable[object]", given))
            except TypeError:
                raise ConfigurationError("provider: give a name, or several.") from None
            names = tuple(dict.fromkeys(self.provider(one) for one in asked))
            for name in names:
                self._exists(name)  # a mistyped name is no account that could not be read
            return names
        return tuple(name for name in _registry.installed() if self._has_key(name))

    @staticmethod
    def _exists(name: str, source: str = "argument") -> None:
        """Raise `ConfigurationError`, with the nearest, unless there is such a provider. Nothing is imported."""
        if name in _registry.installed():
            return
        try:
            _registry.load(name)
        except ConfigurationError as exc:
            if source != "argument":
                exc.message = f"provider ({source}): {exc.message}"
            raise

    def _has_key(self, name: str) -> bool:
        try:
            env_key = _registry.load(name).env_key
            return env_key is None or self.settings.api_key(name, env_key) is not None
        except ConfigurationError:
            return True  # a broken plugin, or a key in a file that others can read: shown as unreadable, never left out

    def driver(self, name: str) -> Driver:
        """The driver of a provider, made when it is first used.

        Raises:
            ConfigurationError: no such provider, no key, or options that are none of its.
        """
        state = self.settings.state
        key = name, None if state is None else str(state)
        found = self._drivers.get(key)
        if found is None:
            found = self._drivers.setdefault(key, self._make(*key))
        return found

    @property
    def used(self) -> tuple[str, ...]:
        """The providers that were used so far."""
        return tuple(dict.fromkeys(name for name, _ in self._drivers))

    def _make(self, name: str, state: str | None) -> Driver:
        cls = _registry.load(name)
        key = self.settings.api_key(name, cls.env_key)
        if cls.env_key is None and name in self.settings.given_keys:
            raise ConfigurationError(f"api_key: the provider {name} has no key.", provider=name)
        if cls.env_key is not None and key is None:
            raise ConfigurationError(
                f"{name}: there is no API key.",
                provider=name,
                hint=f"Set {cls.env_key} (or {_config.key_variable(name)}), or give api_key= to the client.",
            )
        given = self.settings.driver_options.get(name, {})
        options = cls.Options.model_validate(given)
        config = DriverConfig(
            api_key=key,
            options=options.model_dump(exclude_unset=True),
            namespace=self.namespace,
            state_dir=state,
        )
        return cls(config)

    def base(self, name: str) -> str:
        """What an intent is bound to: the base URL where one is configured, else the provider itself."""
        return str(
            self.settings.driver_options.get(name, {}).get("base_url") or getattr(self.driver(name), "base", name)
        )

    # -- what a name means

    def key(self, provider: str, name: str) -> tuple[str, str]:
        return provider, provider_name(self.namespace, name)

    def remember(self, info: DeploymentInfo) -> None:
        self._names[info.provider, info.provider_name] = info
        self._known.add((info.provider, info.provider_name))

    def recall(self, provider: str, name: str) -> DeploymentInfo | None:
        return self._names.get(self.key(provider, name))

    def forget(self, provider: str, its_provider_name: str) -> None:
        self._names.pop((provider, its_provider_name), None)

    def knew(self, provider: str, name: str) -> bool:
        """Whether this client ever saw a deployment of that name."""
        return self.key(provider, name) in self._known

    def not_found(self, provider: str, name: str, there: Iterable[DeploymentInfo]) -> NotFoundError:
        names = [info.name for info in there if info.name]
        near = nearest(name, names)
        return NotFoundError(
            f"there is no deployment {name!r} on {provider} in the namespace {self.namespace!r}"
            + (f"; did you mean {near!r}?" if near else "."),
            provider=provider,
            deployment=name,
            hint=f"There are: {', '.join(sorted(names)[:10])}." if names else "There is none at all.",
        )

    # -- what is asked

    def spec(self, given: object, provider: object, fields: Mapping[str, Any]) -> tuple[DeploymentSpec, str, bool]:
        """The spec of a deploy, its provider, and whether the configuration says ``on_unsupported="adapt"``."""
        check_fields(fields)
        merged: dict[str, Any] = dict(self.settings.defaults)
        where = self.provider(provider)
        if isinstance(given, DeploymentSpec):
            merged.update({name: getattr(given, name) for name in given.model_fields_set})
        elif isinstance(given, str):
            name, at = arguments.address(given)
            where = self._one_provider(provider, at) or where
            merged.update(self.settings.declared(name, where))
        elif given is not None:
            raise ConfigurationError("spec: give a DeploymentSpec, the name of a declared deployment, or fields.")
        adapt = merged.pop("on_unsupported", "raise")
        arguments.choice(adapt, "on_unsupported (in the configuration)", ("raise", "adapt"))
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
            self.settings.blame(exc, merged["name"] if isinstance(given, str) else None, where, stated)
            raise

    def _one_provider(self, given: object, at: str | None) -> str | None:
        if at is not None and given is not None and given != at:
            raise ConfigurationError(f"provider={given!r}, and the address says {at!r}: which one?")
        return at

    def secrets(self, spec: DeploymentSpec) -> DeploymentSpec:
        """*spec* with the values of its secrets, read from the environment now, just before they are sent.

        Raises:
            ConfigurationError: a variable is not set; names all that are missing.
        """
        named = [name for name, value in spec.secrets.items() if value is None]
        read = {name: _config.secret(name) for name in named}
        missing = [name for name, value in read.items() if value is None]
        if missing:
            raise ConfigurationError(
                f"secrets: {', '.join(missing)} {'is' if len(missing) == 1 else 'are'} not set in this environment.",
                deployment=spec.name,
                hint="Set the variable, or give the value: secrets={name: SecretStr(...)}.",
            )
        if isinstance(spec.auth, BearerToken) and spec.auth.env not in (*spec.secrets, *spec.env):
            token = _config.secret(spec.auth.env)
            if token is None:
                raise ConfigurationError(
                    f"auth: the variable {spec.auth.env} is not set in this environment", deployment=spec.name
                )
            read[spec.auth.env] = token  # the worker must know the token that its callers send
        return spec.with_changes(secrets={**spec.secrets, **read}) if read else spec

    # -- the gate

    def capabilities(self, provider: str, interface: Interface, kind: Kind) -> Capabilities:
        """The flags of a provider. Nothing is asked, and no key is needed."""
        key = provider, interface, kind
        found = self._flags.get(key)
        if found is None:
            facts: Any = getattr(_registry.load(provider), "facts", None)
            found = self._flags[key] = _flags.load(provider, interface=interface, kind=kind, facts=facts)
        return found

    def of(self, info: DeploymentInfo) -> Capabilities:
        return self.capabilities(info.provider, info.interface, info.kind)

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

    def gate(
        self, spec: DeploymentSpec, provider: str, *, adapt: bool
    ) -> tuple[DeploymentSpec, tuple[Adaptation, ...], UniGPUError | None]:
        """The gate of a spec: what is stated and cannot be is refused, or replaced by the nearest thing.

        Returns:
            The spec, what was adapted, and the error for what must be said before something is created: what exists is
            adopted without it.

        Raises:
            UnsupportedError: something stated cannot be, with the fact; all of it in one message.
            ConfigurationError: an option is none of this provider's.
        """
        driver = self.driver(provider)
        caps = self.capabilities(provider, spec.interface, spec.kind)
        provider_options(spec, provider, driver.SpecOptions)
        checked = driver.check(spec)
        found: tuple[Refused, ...] = (*demands(spec, caps), *checked.refusals)
        unsaid = tuple(one for one in found if getattr(one, "must_say", False))
        refused = tuple(one for one in found if one not in unsaid)
        changed: tuple[Adaptation, ...] = ()
        if refused:
            spec, changed = self._settle(spec, refused, caps, adapt=adapt)
        missing = refusal_error(unsaid, caps) if unsaid else None
        if missing is not None:
            missing.deployment = spec.name
        return spec, (*changed, *checked.adaptations, *notes(spec, caps)), missing

    def gate_workers(
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

    def gate_zero(self, info: DeploymentInfo) -> Adaptation:
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
        said: Any = self.settings.defaults.get("on_unsupported", "raise")
        if info.name in self.settings.deployments:
            said = self.settings.declared(info.name or "", info.provider).get("on_unsupported", said)
        return bool(said == "adapt")

    def _settle(
        self, spec: DeploymentSpec, refused: Sequence[Refused], caps: Capabilities, *, adapt: bool
    ) -> tuple[DeploymentSpec, tuple[Adaptation, ...]]:
        if not adapt:
            exc = refusal_error(refused, caps)
            exc.deployment = spec.name
            raise exc
        return adapt_spec(spec, refused, caps)

    def ttl_enforcer(self, info: DeploymentInfo, spec: DeploymentSpec | None) -> TtlEnforcer:
        """Who ends it at its ttl, by the facts and by what runs in it."""
        caps = self.of(info)
        return caps.ttl_enforced_by.value if spec is None else ttl_enforcer(spec, caps)

    def start_timeout(self, given: float | None, caps: Capabilities) -> float:
        """Seconds a call waits for a first worker: the high end of the cold-start fact unless it is said."""
        if given is not None:
            return given
        cold = caps.cold_start.value
        usual = _COLD_START_MOST if isinstance(cold, str) else max(1.0, cold[1])
        if caps.provider == "local":
            usual = _COLD_START_LOCAL
        return max(usual, *(longest() + _MOCKED for longest in _cold_starts)) if _cold_starts else usual

    # -- telling

    def describe(self) -> str:
        closed = ", closed" if self.closed else ""
        return f"{self.settings.provider}, namespace {self.namespace!r}{closed}"

    def emit(self, event: Event) -> None:
        if self._on_event is None:
            return
        try:
            self._on_event(event)
        except Exception as exc:  # an observer's own fault must not undo a deploy
            self.event_failures += 1
            count = self.event_failures
            if count & (count - 1) == 0:  # the first, second, fourth … : an observer that always fails fills no disk
                _log.warning(
                    "on_event failed for %s (%d so far): %s", event.kind, count, type(exc).__name__, exc_info=count == 1
                )

    def flight_key(self, info: DeploymentInfo) -> tuple[object, ...]:
        return os.getpid(), info.provider, info.provider_name  # a child of a fork waits for no parent's flight


_cold_starts: Final[list[Callable[[], float]]] = []


@contextmanager
def cold_starts_of(longest: Callable[[], float]) -> Generator[None]:
    """While the block runs, calls that state no ``start_timeout`` wait for starts as long as these, and a minute more:
    a mock's workers take what its test said, whatever the facts say."""
    _cold_starts.append(longest)
    try:
        yield
    finally:
        _cold_starts.remove(longest)


def expected(caps: Capabilities) -> tuple[float, float] | None:
    """Seconds a cold start takes, by the facts."""
    cold = caps.cold_start.value
    return None if isinstance(cold, str) else cold


def check_fields(fields: Mapping[str, Any]) -> None:
    """Raise `ConfigurationError` for a keyword that is no spec field, with the nearest field or parameter."""
    for name in fields:
        if name not in DeploymentSpec.model_fields:
            raise arguments.unknown_field(name, DeploymentSpec.model_fields, _PARAMETERS)
