"""Finding and reading configuration files, and what is said when one is wrong."""

from __future__ import annotations

import os
import stat
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final, Literal, cast

from ..errors import ConfigurationError
from ..models import nearest

FILE: Final = "unigpu.toml"
_MOST: Final = 1_000_000  # bytes; a configuration file is a page, and reading must not fill the memory


def project_file(config: object) -> tuple[Path | None, Mapping[str, Any]]:
    """The file that was named, else the nearest from the working directory upwards; ``None``: there is none.

    Raises:
        ConfigurationError: it cannot be read, or is not TOML.
    """
    if config is not None:
        file = path_of(config, "config")
    elif from_env := os.environ.get("UNIGPU_CONFIG"):
        file = path_of(from_env, "UNIGPU_CONFIG")
    else:
        return _search()
    content = parse(file)
    return file, _tool(content, file) or {} if file.name == "pyproject.toml" else content


def user_file() -> tuple[Path | None, Mapping[str, Any]]:
    """The user's own file, where there is one.

    Raises:
        ConfigurationError: it cannot be read, or is not TOML.
    """
    folder = None if isolation() else config_home()
    file = None if folder is None else folder / "unigpu" / "config.toml"
    return (file, parse(file)) if file is not None and _exists(file) else (None, {})


def isolation() -> Literal["", "files", "network"]:
    """How far this process is kept apart, by ``UNIGPU_ISOLATED``: ``"files"``: no file of the user's is read, neither
    unigpu's nor a vendor's. ``"network"``: that, and clients that are made then dial this machine only.

    Raises:
        ConfigurationError: another value.
    """
    match os.environ.get("UNIGPU_ISOLATED", ""):
        case "" | "files" | "network" as said:
            return said
        case said:
            raise ConfigurationError(f'UNIGPU_ISOLATED: say "files" or "network", not {said!r}.')


def config_home() -> Path | None:
    """Where this user's configuration lies; ``None``: the user has no home directory."""
    if xdg := os.environ.get("XDG_CONFIG_HOME"):
        return Path(xdg)
    found = home()
    return None if found is None else found / ".config"


def home() -> Path | None:
    try:
        return Path.home()
    except RuntimeError:
        return None


def parse(file: Path) -> Mapping[str, Any]:
    """A TOML file.

    Raises:
        ConfigurationError: it cannot be read, or is not TOML; names the file, and where in it.
    """
    try:
        return tomllib.loads(read(file))
    except tomllib.TOMLDecodeError as exc:
        raise ConfigurationError(f"{file} is not valid TOML: {exc}.") from None
    except RecursionError:
        raise ConfigurationError(f"{file} is not valid TOML: it is nested too deeply.") from None


def read(file: Path) -> str:
    """A file's text.

    Raises:
        ConfigurationError: it cannot be read, is no text, or is far too long.
    """
    try:
        with file.open("rb") as stream:
            content = stream.read(_MOST + 1)
        if len(content) > _MOST:
            raise ConfigurationError(f"{file} is longer than {_MOST} bytes: that is no configuration file.")
        return content.decode("utf-8")
    except OSError as exc:
        raise ConfigurationError(f"{file} cannot be read: {exc.strerror or exc}.") from None
    except UnicodeDecodeError as exc:
        raise ConfigurationError(f"{file} is not valid TOML: it is not UTF-8 (byte {exc.start}).") from None


def check_private(file: Path) -> None:
    """Refuse a file with a key in it that others can read.

    Raises:
        ConfigurationError: its group or everybody may read it, or it is another user's; says how to repair that.
    """
    try:
        status = file.stat()
    except OSError as exc:
        raise ConfigurationError(f"{file} cannot be read: {exc.strerror or exc}.") from None
    if os.name != "posix":  # there the bits mean nothing
        return
    if status.st_uid not in (os.geteuid(), 0):
        raise ConfigurationError(f"{file} holds a key and belongs to another user.", hint="Use a file of your own.")
    if status.st_mode & (stat.S_IRWXG | stat.S_IRWXO):
        raise ConfigurationError(
            f"{file} holds a key, and others can read it (mode {stat.S_IMODE(status.st_mode):04o}).",
            hint=f"Run: chmod 600 {file}. If this machine has other users, make a new key as well.",
        )


def check_known(table: Mapping[str, Any], known: Iterable[str], prefix: str, file: Path | None) -> None:
    """Raise `ConfigurationError` for a key that there is not, with the file, the key and the nearest right one."""
    names = tuple(known)
    for key in table:
        if key not in names:
            near = nearest(key, names)
            raise ConfigurationError(
                f"{file}: {prefix}{key}: there is no such setting" + (f"; did you mean {near!r}?" if near else "."),
                hint=f"There are: {', '.join(names)}." if near is None else None,
            )


def sub_table(content: Mapping[str, Any], key: str, file: Path | None, prefix: str = "") -> Mapping[str, Any]:
    return table_of(content.get(key, {}), prefix + key, file)


def table_of(value: object, where: str, file: Path | None) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise ConfigurationError(f"{file}: {where} is a table, not {toml_type(value)}.")
    return cast("Mapping[str, Any]", value)


def toml_type(value: object) -> str:
    """What TOML calls it: for users, who do not think in Python's types there."""
    names: dict[object, str] = {
        str: "a text",
        bool: "true or false",
        int: "a number",
        float: "a number",
        list: "a list",
        dict: "a table",
    }
    return names.get(type(value), type(value).__name__)


def path_of(given: object, name: str) -> Path:
    """A path as users give it, ``~`` included.

    Raises:
        ConfigurationError: it cannot be one.
    """
    try:
        text = os.fspath(cast("os.PathLike[Any]", given))  # bytes too are a path to the system, but not to `Path`
        if isinstance(text, str) and text and "\0" not in text:
            return Path(text).expanduser()
    except (TypeError, RuntimeError):  # no path at all, or the home of a user that does not exist
        pass
    raise ConfigurationError(f"{name}: give a path as text, without NUL characters.")


def _exists(file: Path) -> bool:
    try:
        return file.is_file()
    except OSError:  # a folder on the way that we may not enter: then the file is not ours to read
        return False


def _search() -> tuple[Path | None, Mapping[str, Any]]:
    """The nearest file from the working directory upwards; the repository's root is the last place."""
    try:
        here = Path.cwd()
    except OSError:  # the working directory was deleted: then there is no project
        return None, {}
    for folder in (here, *here.parents):
        own, project = folder / FILE, folder / "pyproject.toml"
        if own.is_file():
            return own, parse(own)
        if project.is_file() and (found := _tool(parse(project), project)) is not None:
            return project, found
        if (folder / ".git").exists():
            break
    return None, {}


def _tool(content: Mapping[str, Any], file: Path) -> Mapping[str, Any] | None:
    tool = content.get("tool")
    found = cast("Mapping[str, Any]", tool).get("unigpu") if isinstance(tool, Mapping) else None
    return None if found is None else table_of(found, "tool.unigpu", file)
