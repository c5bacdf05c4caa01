"""Each setting, its value and where it came from; secrets are never shown, only whether there is one and from where."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import SecretStr

from .._io.redact import fingerprint
from ..errors import ConfigurationError
from ..models import DeploymentSpec
from .load import SECRET_NAME
from .settings import Settings, key_variable


@dataclass(frozen=True, slots=True)
class SettingRow:
    """One setting."""

    setting: str
    value: str
    source: str


def rows(settings: Settings, env_keys: Mapping[str, str | None]) -> list[SettingRow]:
    """What holds now.

    Args:
        env_keys: Provider → the vendor's variable for its key; ``None``: it needs none.
    """
    said = settings.sources
    found = [
        SettingRow("provider", settings.provider, said["provider"]),
        SettingRow("namespace", settings.namespace, said["namespace"]),
        SettingRow("profile", settings.profile or "–", said.get("profile", "default")),
        SettingRow("state_dir", str(settings.state_dir or "none: nothing survives a crash"), said["state_dir"]),
        SettingRow(
            "project file", str(settings.file or "–"), "the nearest one upwards" if settings.file else "there is none"
        ),
        SettingRow(
            "user file", str(settings.user_file or "–"), "this user's" if settings.user_file else "there is none"
        ),
    ]
    found += [
        SettingRow(f"defaults.{k}", _shown(k, v), said.get(f"defaults.{k}", "")) for k, v in settings.defaults.items()
    ]
    for name, options in settings.driver_options.items():
        keys = ((f"driver_options.{name}.{k}", _shown(k, v)) for k, v in options.items())
        found += [SettingRow(key, value, said.get(key, "")) for key, value in keys]
    for name, fields in settings.deployments.items():
        source = said.get(f"deployments.{name}", "")
        found += [SettingRow(f"deployments.{name}.{k}", _shown(k, v), source) for k, v in fields.items()]
    found += [_key(settings, name, variable) for name, variable in env_keys.items()]
    return found


def problems(settings: Settings) -> list[str]:
    """What would be said of each declared deployment, where it is deployed as it stands: a sentence each."""
    found: list[str] = []
    for name, fields in settings.deployments.items():
        for provider in dict.fromkeys((settings.provider, *fields.get("on", {}))):
            merged: dict[str, Any] = {**settings.defaults, **settings.declared(name, provider)}
            merged.pop("on_unsupported", None)
            try:
                DeploymentSpec.model_validate(merged)
            except ConfigurationError as exc:
                settings.blame(exc, name, provider, ())
                found.append(str(exc))
    return list(dict.fromkeys(found))


def _key(settings: Settings, provider: str, variable: str | None) -> SettingRow:
    setting = f"api key of {provider}"
    if variable is None:
        return SettingRow(setting, "–", "it needs none")
    try:
        key = settings.find_key(provider, variable)
    except ConfigurationError as exc:
        return SettingRow(setting, "refused", str(exc))
    if key is None:
        return SettingRow(setting, "none", f"set {variable} or {key_variable(provider)}")
    return SettingRow(setting, f"set (fingerprint {fingerprint(key.value.get_secret_value())})", key.source)


def _shown(name: str, value: object) -> str:
    return json.dumps(_hidden(name, value), ensure_ascii=False, default=str)


def _hidden(name: str, value: object) -> object:
    if isinstance(value, Mapping):
        return {str(k): _hidden(str(k), v) for k, v in value.items()}  # pyright: ignore[reportUnknownVariableType, reportUnknownArgumentType] - anything TOML holds
    if isinstance(value, SecretStr) or (isinstance(value, str) and SECRET_NAME.search(name)):
        return "***"
    return value
