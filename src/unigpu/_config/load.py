"""Reading all sources, and laying them over each other."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, cast

from pydantic import SecretStr

from ..errors import ConfigurationError
from ..models import DeploymentSpec, nearest
from ..models.identity import NAMESPACE_PATTERN
from .files import (
    FILE,
    check_known,
    check_private,
    isolation,
    path_of,
    project_file,
    sub_table,
    table_of,
    toml_type,
    user_file,
)
from .settings import DEFAULT, Default, Key, Settings

DEFAULT_PROVIDER: Final = "local"
TOP: Final = ("provider", "namespace", "defaults", "deployments", "driver_options", "profiles")
PROFILE: Final = ("provider", "namespace", "defaults", "driver_options")
SPEC: Final = (*DeploymentSpec.model_fields, "on_unsupported")
_KEYS: Final = "api_keys"
SECRET_NAME: Final = re.compile(r"(?i)(?:^|_)(?:api_?key|token|secret|password)$")


@dataclass(frozen=True, slots=True)
class Layer:
    """One file, or one profile of one: later ones lie over earlier ones.

    Attributes:
        source: What `Settings.sources` says of its values.
    """

    source: str
    content: Mapping[str, Any]


def load(
    *,
    provider: str | None = None,
    api_key: SecretStr | str | Mapping[str, SecretStr | str] | None = None,
    profile: str | None = None,
    namespace: str | None = None,
    driver_options: Mapping[str, Mapping[str, object]] | None = None,
    config: str | os.PathLike[str] | None = None,
    state_dir: str | os.PathLike[str] | Default | None = DEFAULT,
) -> Settings:
    """Read all sources.

    Raises:
        ConfigurationError: a file cannot be read, or a value is of the wrong kind; it names the file and the key.
    """
    file, project = project_file(config)
    own_file, own = user_file()
    _check(project, file)
    _check(own, own_file, private=True)
    files = [(own_file, own), (file, project)]
    sources: dict[str, str] = {}
    picked = _pick("profile", profile, "UNIGPU_PROFILE", [], sources)
    layers = [Layer(str(name), content) for name, content in files if name is not None]
    if picked is not None:
        layers += _profiles(picked, files)
    chosen = _pick("provider", provider, "UNIGPU_PROVIDER", layers, sources) or DEFAULT_PROVIDER
    space = _pick("namespace", namespace, "UNIGPU_NAMESPACE", layers, sources) or "default"
    if not re.fullmatch(NAMESPACE_PATTERN, space):
        raise ConfigurationError(
            f"namespace ({sources.get('namespace', 'default')}): {space!r} is not {NAMESPACE_PATTERN}: lower-case "
            "letters, digits, and . _ - inside, at most 63."
        )
    sources.setdefault("provider", "default")
    sources.setdefault("namespace", "default")
    defaults: dict[str, Any] = {}
    deployments: dict[str, Mapping[str, Any]] = {}
    options: dict[str, dict[str, Any]] = {}
    keys: dict[str, Key] = {}
    for layer in layers:
        for name, value in layer.content.get("defaults", {}).items():
            defaults[name], sources[f"defaults.{name}"] = value, layer.source
        for name, value in layer.content.get("deployments", {}).items():
            deployments[name], sources[f"deployments.{name}"] = value, layer.source
        for name, table in layer.content.get("driver_options", {}).items():
            options.setdefault(name, {}).update(table)
            sources.update({f"driver_options.{name}.{option}": layer.source for option in table})
        for name, value in layer.content.get(_KEYS, {}).items():
            keys[name] = Key(SecretStr(value), f"{layer.source}: {_KEYS}.{name}")
    for name, given in _pairs(driver_options, "driver_options").items():
        found = _pairs(given, f"driver_options[{name!r}]")
        options[name] = {**options.get(name, {}), **found}
        sources.update({f"driver_options.{name}.{option}": "argument" for option in found})
    return Settings(
        provider=chosen,
        namespace=space,
        state_dir=_state_dir(state_dir, sources),
        this_machine_only=isolation() == "network",
        profile=picked,
        file=file,
        user_file=own_file,
        defaults=defaults,
        deployments=deployments,
        driver_options=options,
        sources=sources,
        given_keys=_given_keys(api_key, chosen),
        file_keys=keys,
    )


def _pick(name: str, argument: object, variable: str, layers: list[Layer], sources: dict[str, str]) -> str | None:
    if argument is not None:
        value, source = argument, "argument"
    elif from_env := os.environ.get(variable):
        value, source = from_env, f"environment ({variable})"
    else:
        layer = next((one for one in reversed(layers) if name in one.content), None)
        if layer is None:
            return None
        value, source = layer.content[name], layer.source
    if not isinstance(value, str) or not value:
        what = "an empty one" if value == "" else toml_type(value)
        raise ConfigurationError(f"{name} ({source}): give a text, not {what}.")
    sources[name] = source
    return value


def _check(content: Mapping[str, Any], file: Path | None, *, private: bool = False) -> None:
    """Every key of a file, and the shape of its tables. Values are checked where they are used."""
    if _KEYS in content and not private:
        raise ConfigurationError(
            f"{file}: {_KEYS}: a key does not belong in a project's file, which is committed and shared.",
            hint="Put it into the environment, or into [api_keys] of ~/.config/unigpu/config.toml. If this file was "
            "ever shared, make a new key.",
        )
    check_known(content, (*TOP, _KEYS) if private else TOP, "", file)
    _check_tables(content, file, "", private)
    for name, value in sub_table(content, "deployments", file).items():
        where = f"deployments.{name}"
        found = table_of(value, where, file)
        check_known(found, (*SPEC, "on"), f"{where}.", file)
        for provider, differing in table_of(found.get("on", {}), f"{where}.on", file).items():
            check_known(table_of(differing, f"{where}.on.{provider}", file), SPEC, f"{where}.on.{provider}.", file)
    for name, value in sub_table(content, "profiles", file).items():
        found = table_of(value, f"profiles.{name}", file)
        check_known(found, (*PROFILE, _KEYS) if private else PROFILE, f"profiles.{name}.", file)
        _check_tables(found, file, f"profiles.{name}.", private)
    if private and file is not None and _holds_secret(content):
        check_private(file)


def _check_tables(content: Mapping[str, Any], file: Path | None, prefix: str, private: bool) -> None:
    check_known(sub_table(content, "defaults", file, prefix), SPEC, f"{prefix}defaults.", file)
    for name, value in sub_table(content, "driver_options", file, prefix).items():
        table_of(value, f"{prefix}driver_options.{name}", file)
    for name, value in sub_table(content, _KEYS, file, prefix).items() if private else ():
        if not isinstance(value, str) or not value:
            raise ConfigurationError(f"{file}: {prefix}{_KEYS}.{name}: give the key as a text that is not empty.")


def _holds_secret(content: object, name: str = "") -> bool:
    if isinstance(content, Mapping):
        table = cast("Mapping[str, object]", content)
        return any(key == _KEYS or _holds_secret(value, key) for key, value in table.items())
    return isinstance(content, str) and SECRET_NAME.search(name) is not None


def _profiles(name: str, files: list[tuple[Path | None, Mapping[str, Any]]]) -> list[Layer]:
    """The profile of each file that has it. One that was asked for lies over the rest of every file."""
    found = [
        Layer(f"{file} [profiles.{name}]", content["profiles"][name])
        for file, content in files
        if name in content.get("profiles", {})
    ]
    if not found:
        near = nearest(name, {one for _, content in files for one in content.get("profiles", {})})
        there = " or ".join(str(file) for file, _ in reversed(files) if file is not None)
        raise ConfigurationError(
            f"there is no profile {name!r} in {there or 'any file here'}"
            + (f"; did you mean {near!r}?" if near else "."),
            hint=f"Write [profiles.{name}] into {FILE}.",
        )
    return found


def _given_keys(given: object, provider: str) -> Mapping[str, SecretStr]:
    if given is None:
        return {}
    if not isinstance(given, Mapping):
        if provider == DEFAULT_PROVIDER:
            raise ConfigurationError(
                "api_key= belongs to the client's default provider, which is local, and local has no key.",
                hint='Say Client("runpod", api_key=...), or api_key={"runpod": ...} to keep local as the default.',
            )
        return {provider: _secret_text(given, "api_key")}
    return {str(k): _secret_text(v, f"api_key[{k!r}]") for k, v in cast("Mapping[object, object]", given).items()}


def _secret_text(value: object, where: str) -> SecretStr:
    if isinstance(value, str) and value:
        return SecretStr(value)
    if isinstance(value, SecretStr) and value.get_secret_value():
        return value
    raise ConfigurationError(f"{where}: give a text that is not empty, or a SecretStr.")


def _state_dir(given: object, sources: dict[str, str]) -> Path | None:
    sources["state_dir"] = "argument"
    if given is None:
        return None
    if not isinstance(given, Default):
        return path_of(given, "state_dir").absolute()
    if own := os.environ.get("UNIGPU_STATE_DIR"):
        sources["state_dir"] = "environment (UNIGPU_STATE_DIR)"
        return path_of(own, "UNIGPU_STATE_DIR").absolute()
    if xdg := os.environ.get("XDG_STATE_HOME"):
        sources["state_dir"] = "environment (XDG_STATE_HOME)"
        return Path(xdg).absolute() / "unigpu"
    sources["state_dir"] = "default"
    try:
        return Path.home() / ".local" / "state" / "unigpu"
    except RuntimeError:
        raise ConfigurationError(
            "this user has no home directory to keep the state in.", hint="Set UNIGPU_STATE_DIR, or give state_dir=."
        ) from None


def _pairs(value: object, where: str) -> Mapping[str, Any]:
    if value is None:
        return {}
    if not isinstance(value, Mapping) or not all(isinstance(k, str) for k in cast("Mapping[object, object]", value)):
        raise ConfigurationError(f"{where}: give a mapping with names as keys.")
    return cast("Mapping[str, Any]", value)
