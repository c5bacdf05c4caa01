"""What a client was told, from all sources, and where each value came from."""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from pydantic import SecretStr

from ..errors import ConfigurationError
from ..models import nearest
from .files import FILE
from .state_dir import ended, longest_start, state_now, world
from .vendor_keys import vendor_key


class Default:
    """Stands for "not given" where ``None`` means something."""

    def __repr__(self) -> str:
        return "DEFAULT"


DEFAULT: Final = Default()


@dataclass(frozen=True, slots=True)
class Key:
    """An account's key, and where it came from, in words."""

    value: SecretStr = field(repr=False)
    source: str


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What a client was told, from all sources.

    Attributes:
        state_dir: Where it was told to keep intents and local deployments; ``None``: nowhere (nothing survives a
            crash). `state` says where they are kept now.
        file: The project's file.
        user_file: The user's own.
        defaults: Spec fields that hold for every deployment.
        deployments: Declared deployments, by name.
        driver_options: By provider.
        sources: Setting → where its value came from, in words. Dotted keys for what is in a table.
        given_keys: Keys that were given as an argument.
        file_keys: Keys of the user's file, with their place in it.
        this_machine_only: Nothing but this machine may be dialled (``UNIGPU_ISOLATED=network``).
        made_in: The mock in which it was read, by its state directory.
    """

    provider: str
    namespace: str
    state_dir: Path | None
    profile: str | None = None
    file: Path | None = None
    user_file: Path | None = None
    defaults: Mapping[str, Any] = field(default_factory=dict[str, Any], repr=False)
    deployments: Mapping[str, Mapping[str, Any]] = field(default_factory=dict[str, Mapping[str, Any]], repr=False)
    driver_options: Mapping[str, Mapping[str, Any]] = field(default_factory=dict[str, Mapping[str, Any]], repr=False)
    sources: Mapping[str, str] = field(default_factory=dict[str, str])
    given_keys: Mapping[str, SecretStr] = field(default_factory=dict[str, SecretStr], repr=False)
    file_keys: Mapping[str, Key] = field(default_factory=dict[str, Key], repr=False)
    this_machine_only: bool = False
    made_in: Path | None = field(default_factory=world, repr=False, compare=False)

    @property
    def state(self) -> Path | None:
        """Where state is kept now: while a mock runs, in its directory, also for a client that was made before it."""
        return None if self.state_dir is None else state_now(self.state_dir, self.made_in)

    @property
    def mocked_start(self) -> float | None:
        """Seconds of the longest start of a mock's worker; ``None``: no mock runs."""
        return longest_start()

    @property
    def ended(self) -> bool:
        """Whether the mock in which it was read is over: what it says would not do for anything real."""
        return ended(self.made_in)

    def api_key(self, provider: str, env_key: str | None) -> SecretStr | None:
        """The account's key; see `find_key`."""
        found = self.find_key(provider, env_key)
        return None if found is None else found.value

    def find_key(self, provider: str, env_key: str | None) -> Key | None:
        """The account's key: argument > ``UNIGPU_<PROVIDER>_API_KEY`` > the vendor's variable > the user's file > the
        vendor's own file. Looked for now, so that a key that was changed meanwhile is the new one.

        Raises:
            ConfigurationError: the vendor's own file holds a key, and others can read it.
        """
        if provider in self.given_keys:
            return Key(self.given_keys[provider], "argument")
        for variable in (key_variable(provider), env_key):
            if variable and (value := os.environ.get(variable)):
                return Key(SecretStr(value), f"environment ({variable})")
        if provider in self.file_keys:
            return self.file_keys[provider]
        found = vendor_key(provider)
        return None if found is None else Key(SecretStr(found[0]), f"the vendor's own file ({found[1]})")

    def declared(self, name: str, provider: str) -> Mapping[str, Any]:
        """The fields of a declared deployment as they hold on *provider*.

        Raises:
            ConfigurationError: it is not declared.
        """
        if name not in self.deployments:
            near = nearest(name, self.deployments)
            where = f"in {self.file}" if self.file else f"(there is no {FILE} here)"
            raise ConfigurationError(
                f"no deployment {name!r} is declared {where}" + (f"; did you mean {near!r}?" if near else "."),
                hint=f"Declare it in {FILE} as [deployments.{name}], or give its fields: deploy(name={name!r}, ...).",
            )
        fields = dict(self.deployments[name])
        on = fields.pop("on", {})
        return {"name": name, **fields, **on.get(provider, {})}

    def blame(self, exc: ConfigurationError, name: str | None, provider: str, given: Collection[str]) -> None:
        """Put file and key into the message of a spec that is wrong, for each field that a file said.

        Args:
            name: The declared deployment, where it is one.
            given: What the caller said itself: that is no file's fault.
        """
        places = {f: p for f, p in self.places(name, provider).items() if f not in given}
        exc.message = "; ".join(_placed(line, places) for line in exc.message.split("; "))
        exc.args = (exc.message,)

    def places(self, name: str | None, provider: str) -> Mapping[str, str]:
        """Spec field → file and key that say it, as in ``"unigpu.toml: deployments.summarize.workers"``."""
        places = {field: f"{self._at(f'defaults.{field}')}" for field in self.defaults}
        if name is not None and name in self.deployments:
            whole = self.deployments[name]
            file = self.sources.get(f"deployments.{name}", "")
            places.update({field: f"{file}: deployments.{name}.{field}" for field in whole if field != "on"})
            on = f"deployments.{name}.on.{provider}"
            places.update({field: f"{file}: {on}.{field}" for field in whole.get("on", {}).get(provider, {})})
        return places

    def _at(self, key: str) -> str:
        source = self.sources.get(key, "")
        file, opening, table = source.partition(" [")
        return f"{file}: {table.removesuffix(']')}.{key}" if opening else f"{file}: {key}"


def _placed(line: str, places: Mapping[str, str]) -> str:
    found = re.match(r"[a-z_]+", line)
    if found is None or found.group() not in places:
        return line
    return places[found.group()] + line[found.end() :]


def key_variable(provider: str) -> str:
    """The environment variable for a provider's key that is unigpu's own."""
    return f"UNIGPU_{re.sub('[^A-Z0-9]', '_', provider.upper())}_API_KEY"


def secret(name: str) -> SecretStr | None:
    """A secret from the environment, read now; ``None`` where the variable is not set."""
    value = os.environ.get(name)
    return None if value is None else SecretStr(value)
