"""One client's settings and drivers, and what all of its calls share: what it knows, and who gets its events."""

from __future__ import annotations

import logging
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from typing import Final

from unigpu import _config, _registry
from unigpu._lifecycle import SharedStatus
from unigpu.driver import CallDriver, DriverConfig
from unigpu.errors import ClientClosed, ConfigurationError, UniGPUError
from unigpu.models import BearerToken, DeploymentSpec, Event

from . import arguments
from .known import KnownDeployments
from .single_flight import SingleFlight

DEPLOY_SECONDS: Final = 1800.0
TEARDOWN_SECONDS: Final = 600.0
GC_SECONDS: Final = 600.0
CLOSE_SECONDS: Final = 10.0
"""How long closing a client may be held up by the checks that are due."""
CONTROL_SECONDS: Final = 60.0
"""How long a call may take that only reads or changes a setting."""
PLAN_SECONDS: Final = 150.0
"""How long one plan may take: a platform that counts requests by the minute makes it wait for the next one."""

_log: Final = logging.getLogger("unigpu.client")

Providers = str | Sequence[str] | None
"""One provider, several, or all that have a key."""


class Unreadable(dict[str, UniGPUError]):
    """Provider → why it could not be read. The error of the only one that was asked for is raised.

    Args:
        given: What the caller gave as ``provider=``.
    """

    def __init__(self, given: Providers) -> None:
        super().__init__()
        self._raises = isinstance(given, str)

    @contextmanager
    def unless_read(self, provider: str) -> Generator[None]:
        """Note what reading this provider raises."""
        try:
            yield
        except UniGPUError as exc:
            if self._raises:
                raise
            self[provider] = exc


class Session:
    """What one client is, whatever its flavor; its `map` shares it.

    Its parts are filled by single assignments that may safely happen twice, and guarded by no lock: a lock that another
    thread held at a fork would stay held in the child for ever.

    Attributes:
        known: The deployments that the client has seen.
        starts: The starts that are under way.
        status: What its calls have just seen, shared.
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
        self.known = KnownDeployments(settings.namespace)
        self.starts = SingleFlight()
        self.status = SharedStatus()
        self._on_event = on_event
        self.event_failures = 0
        self._drivers: dict[tuple[str, str | None], CallDriver] = {}

    def open(self) -> None:
        """Raise `ClientClosed` unless the client may still be used."""
        if self.closed:
            raise ClientClosed("this client is closed.", hint="Make a new one; closing a client ends no deployment.")
        if self.settings.ended:
            raise ConfigurationError(
                "this client was made inside of unigpu_mock, which is over.",
                hint="Make it outside, or a new one: one that was made before a mock is served by it, too.",
            )

    # -- which provider

    def provider(self, given: str | None) -> str:
        """The provider that is meant: the given one, else the client's."""
        return self.settings.provider if given is None else arguments.provider_name(given)

    def providers(self, given: Providers) -> tuple[str, ...]:
        """The providers that a list covers: those asked for, else all that have a key (local needs none)."""
        if given is not None:
            names = arguments.provider_names(given)
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

    def driver(self, name: str) -> CallDriver:
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

    def _make(self, name: str, state: str | None) -> CallDriver:
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
        return str(self.settings.driver_options.get(name, {}).get("base_url") or self.driver(name).base or name)

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

    # -- what the client shows of itself

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
