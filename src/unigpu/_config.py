"""Configuration: the only reader of ``os.environ`` and of configuration files.

Order: argument > environment > the project's file (``unigpu.toml``, or ``[tool.unigpu]`` in ``pyproject.toml``) >
default. `Settings.sources` says where each value came from. Secrets are not kept here: `Settings.api_key` and `secret`
read them when they are about to be used.

The file::

    provider = "local"              # the default provider
    namespace = "team"              # committed, so that CI, backend and colleagues mean the same deployments
    [defaults]                      # spec fields for every deployment; also on_unsupported
    ttl = "8h"
    [deployments.summarize]         # a declared deployment: client.deploy("summarize")
    handler = "app.py:summarize"
    [deployments.summarize.on.local]   # what differs there
    workers = [0, 2]
    [driver_options.local]
    [profiles.ci]                   # provider and namespace under another name
"""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, cast

from pydantic import SecretStr

from .errors import ConfigurationError
from .models import DeploymentSpec, nearest
from .models.identity import NAMESPACE_PATTERN

__all__ = ["DEFAULT", "Default", "Settings", "key_variable", "load", "secret"]

FILE: Final = "unigpu.toml"
DEFAULT_PROVIDER: Final = "local"
_TOP: Final = ("provider", "namespace", "defaults", "deployments", "driver_options", "profiles")
_SPEC: Final = (*DeploymentSpec.model_fields, "on_unsupported")
_PROFILE: Final = ("provider", "namespace")


class Default:
    """Stands for "not given" where ``None`` means something."""

    def __repr__(self) -> str:
        return "DEFAULT"


DEFAULT: Final = Default()


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What a client was told, from all sources.

    Attributes:
        state_dir: Where intents and local deployments are kept; ``None``: nowhere (nothing survives a crash).
        defaults: Spec fields that hold for every deployment.
        deployments: Declared deployments, by name.
        driver_options: By provider.
        sources: Setting → where its value came from, in words.
    """

    provider: str
    namespace: str
    state_dir: Path | None
    profile: str | None = None
    file: Path | None = None
    defaults: Mapping[str, Any] = field(default_factory=dict[str, Any], repr=False)
    deployments: Mapping[str, Mapping[str, Any]] = field(default_factory=dict[str, Mapping[str, Any]], repr=False)
    driver_options: Mapping[str, Mapping[str, Any]] = field(default_factory=dict[str, Mapping[str, Any]], repr=False)
    sources: Mapping[str, str] = field(default_factory=dict[str, str])
    given_keys: Mapping[str, SecretStr] = field(default_factory=dict[str, SecretStr], repr=False)

    def api_key(self, provider: str, env_key: str | None) -> SecretStr | None:
        """The account's key: argument > ``UNIGPU_<PROVIDER>_API_KEY`` > the vendor's own variable. Read now."""
        if provider in self.given_keys:
            return self.given_keys[provider]
        for variable in (key_variable(provider), env_key):
            if variable and (value := os.environ.get(variable)):
                return SecretStr(value)
        return None

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
    file, content = _read(config)
    origin = str(file) if file else ""
    sources: dict[str, str] = {}
    picked = _pick("profile", profile, "UNIGPU_PROFILE", {}, origin, sources)
    top: dict[str, Any] = {k: content[k] for k in _PROFILE if k in content}
    if picked is not None:
        top.update(_profile(picked, content, file))
    chosen = _pick("provider", provider, "UNIGPU_PROVIDER", top, origin, sources) or DEFAULT_PROVIDER
    space = _pick("namespace", namespace, "UNIGPU_NAMESPACE", top, origin, sources) or "default"
    if not re.fullmatch(NAMESPACE_PATTERN, space):
        raise ConfigurationError(
            f"namespace ({sources.get('namespace', 'default')}): {space!r} is not {NAMESPACE_PATTERN}: lower-case "
            "letters, digits, and . _ - inside, at most 63."
        )
    sources.setdefault("provider", "default")
    sources.setdefault("namespace", "default")
    options = {
        k: dict(_table(v, f"driver_options.{k}", file)) for k, v in _sub(content, "driver_options", file).items()
    }
    for name, given in _pairs(driver_options, "driver_options").items():
        options[name] = {**options.get(name, {}), **_pairs(given, f"driver_options[{name!r}]")}
    defaults = _sub(content, "defaults", file)
    _known(defaults, _SPEC, "defaults.", file)
    return Settings(
        provider=chosen,
        namespace=space,
        state_dir=_state_dir(state_dir, sources),
        profile=picked,
        file=file,
        defaults=defaults,
        deployments={k: _deployment(k, v, file) for k, v in _sub(content, "deployments", file).items()},
        driver_options=options,
        sources=sources,
        given_keys=_keys(api_key, chosen),
    )


def key_variable(provider: str) -> str:
    """The environment variable for a provider's key that is unigpu's own."""
    return f"UNIGPU_{re.sub('[^A-Z0-9]', '_', provider.upper())}_API_KEY"


def secret(name: str) -> SecretStr | None:
    """A secret from the environment, read now; ``None`` where the variable is not set."""
    value = os.environ.get(name)
    return None if value is None else SecretStr(value)


def _pick(
    name: str, argument: object, variable: str, table: Mapping[str, Any], origin: str, sources: dict[str, str]
) -> str | None:
    if argument is not None:
        value, source = argument, "argument"
    elif from_env := os.environ.get(variable):
        value, source = from_env, f"environment ({variable})"
    elif name in table:
        value, source = table[name], origin
    else:
        return None
    if not isinstance(value, str) or not value:
        raise ConfigurationError(f"{name} ({source}): give a text, not {type(value).__name__}.")
    sources[name] = source
    return value


def _profile(name: str, content: Mapping[str, Any], file: Path | None) -> Mapping[str, Any]:
    profiles = _sub(content, "profiles", file)
    if name not in profiles:
        near = nearest(name, profiles)
        raise ConfigurationError(
            f"there is no profile {name!r} in {file or 'any file here'}"
            + (f"; did you mean {near!r}?" if near else "."),
            hint=f"Write [profiles.{name}] into {FILE}.",
        )
    found = _table(profiles[name], f"profiles.{name}", file)
    _known(found, _PROFILE, f"profiles.{name}.", file)
    return found


def _deployment(name: str, value: object, file: Path | None) -> Mapping[str, Any]:
    """One declared deployment, its field names checked; their values are checked when it is deployed."""
    where = f"deployments.{name}"
    found = _table(value, where, file)
    _known(found, (*_SPEC, "on"), f"{where}.", file)
    for provider, differing in _table(found.get("on", {}), f"{where}.on", file).items():
        _known(_table(differing, f"{where}.on.{provider}", file), _SPEC, f"{where}.on.{provider}.", file)
    return found


def _keys(given: object, provider: str) -> Mapping[str, SecretStr]:
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
        return _path(given, "state_dir").absolute()
    if own := os.environ.get("UNIGPU_STATE_DIR"):
        sources["state_dir"] = "environment (UNIGPU_STATE_DIR)"
        return _path(own, "UNIGPU_STATE_DIR").absolute()
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


def _path(given: object, name: str) -> Path:
    try:
        text = os.fspath(cast("os.PathLike[Any]", given))  # bytes too are a path to the system, but not to `Path`
        if isinstance(text, str) and text and "\0" not in text:
            return Path(text).expanduser()
    except (TypeError, RuntimeError):  # no path at all, or the home of a user that does not exist
        pass
    raise ConfigurationError(f"{name}: give a path as text, without NUL characters.")


def _read(config: str | os.PathLike[str] | None) -> tuple[Path | None, Mapping[str, Any]]:
    if config is not None:
        file = _path(config, "config")
    elif from_env := os.environ.get("UNIGPU_CONFIG"):
        file = _path(from_env, "UNIGPU_CONFIG")
    else:
        return _search()
    content = _parse(file)
    return file, _checked(_tool(content, file) or {} if file.name == "pyproject.toml" else content, file)


def _search() -> tuple[Path | None, Mapping[str, Any]]:
    """The nearest file from the working directory upwards; the repository's root is the last place."""
    try:
        here = Path.cwd()
    except OSError:  # the working directory was deleted: then there is no project
        return None, {}
    for folder in (here, *here.parents):
        own, project = folder / FILE, folder / "pyproject.toml"
        if own.is_file():
            return own, _checked(_parse(own), own)
        if project.is_file() and (found := _tool(_parse(project), project)) is not None:
            return project, _checked(found, project)
        if (folder / ".git").exists():
            break
    return None, {}


def _parse(file: Path) -> Mapping[str, Any]:
    try:
        with file.open("rb") as stream:
            return tomllib.load(stream)
    except OSError as exc:
        raise ConfigurationError(f"{file} cannot be read: {exc.strerror or exc}.") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as exc:
        raise ConfigurationError(f"{file} is not valid TOML: {exc}.") from None


def _tool(content: Mapping[str, Any], file: Path) -> Mapping[str, Any] | None:
    tool = content.get("tool")
    found = cast("Mapping[str, Any]", tool).get("unigpu") if isinstance(tool, Mapping) else None
    return None if found is None else _table(found, "tool.unigpu", file)


def _checked(content: Mapping[str, Any], file: Path) -> Mapping[str, Any]:
    _known(content, _TOP, "", file)
    return content


def _known(table: Mapping[str, Any], known: tuple[str, ...], prefix: str, file: Path | None) -> None:
    for key in table:
        if key not in known:
            near = nearest(key, known)
            raise ConfigurationError(
                f"{file}: {prefix}{key}: there is no such setting" + (f"; did you mean {near!r}?" if near else "."),
                hint=f"There are: {', '.join(known)}." if near is None else None,
            )


def _sub(content: Mapping[str, Any], key: str, file: Path | None) -> Mapping[str, Any]:
    return _table(content.get(key, {}), key, file)


def _table(value: object, where: str, file: Path | None) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise ConfigurationError(f"{file}: {where} is a table, not {type(value).__name__}.")
    return cast("Mapping[str, Any]", value)


def _pairs(value: object, where: str) -> Mapping[str, Any]:
    if value is None:
        return {}
    if not isinstance(value, Mapping) or not all(isinstance(k, str) for k in cast("Mapping[object, object]", value)):
        raise ConfigurationError(f"{where}: give a mapping with names as keys.")
    return cast("Mapping[str, Any]", value)
