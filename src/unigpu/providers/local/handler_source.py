"""What the code of a deployment is, found without running any of it.

The handler's file is found as the worker will find it: from the working directory first, then where this program's
imports come from. The code is every ``.py`` file under the root it is imported from (its top-level package, or its
directory), so that an edit anywhere beside it is a change.
"""

from __future__ import annotations

import ast
import contextlib
import hashlib
import importlib.machinery
import importlib.util
import sys
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from unigpu.driver import Content, DeploymentSpec, nearest
from unigpu.errors import ConfigurationError

FILE_LIMIT: Final = 2_000
SIZE_LIMIT: Final = 2_000_000
"""Bytes of one file; a larger one is known by its size and time of change."""
_INSTALLED: Final = ("site-packages", "dist-packages")
_SKIPPED: Final = frozenset({"__pycache__", "node_modules", *_INSTALLED})


@dataclass(frozen=True, slots=True)
class Source:
    """Where code comes from.

    Attributes:
        file: The file that holds the handler, absolute.
        root: What is read for the fingerprint: a package's directory, the file's directory, or the file alone.
        import_from: The directory that must be on the worker's path; ``None``: it is there already.
    """

    file: Path
    root: Path
    import_from: Path | None = None


def content_of(spec: DeploymentSpec, *, cwd: str) -> Content:
    """The content of *spec* as it is now.

    Raises:
        ConfigurationError: the handler's file, module or name is not there; the nearest one is named.
    """
    with _readable(spec):
        return _content_of(spec, Path(cwd))


def place_of(spec: DeploymentSpec, *, cwd: str) -> tuple[str, str | None]:
    """The folder that *spec*'s code comes from, and what must be on its worker's path (``None``: nothing more).

    Raises:
        ConfigurationError: as `content_of`.
    """
    if spec.handler is None:
        return cwd, None
    with _readable(spec):
        source = find_handler(spec.handler, cwd=Path(cwd))
    return str(source.file.parent), None if source.import_from is None else str(source.import_from)


@contextlib.contextmanager
def _readable(spec: DeploymentSpec) -> Generator[None]:
    try:
        yield
    except (OSError, RuntimeError) as exc:  # a name too long, a loop of links, a folder that may not be read
        words = getattr(exc, "strerror", None) or str(exc)
        raise ConfigurationError(f"the code of {spec.name} cannot be read: {words}", provider="local") from None


def _content_of(spec: DeploymentSpec, here: Path) -> Content:
    if spec.handler is not None:
        source = find_handler(spec.handler, cwd=here)
        code, notes = fingerprint(source.root)
        name = spec.handler.rpartition(":")[2]
        items = {"handler": f"{source.file}:{name}", "code": code}  # "app:f" and "app.py:f" are one
        return Content(items=items, origin=str(source.file.parent), notes=notes)
    files = [path for word in spec.command or () if word.endswith(".py") and (path := here / word).is_file()]
    digests: list[str] = []
    notes = ()
    for folder in dict.fromkeys(path.resolve().parent for path in files):
        code, found = fingerprint(folder)
        digests.append(code)
        notes += found
    return Content(items={"cwd": str(here), "code": ",".join(digests)}, origin=str(here), notes=notes)


def find_handler(target: str, *, cwd: Path) -> Source:
    """The source of ``"module:name"`` or ``"file.py:name"``, with the name checked.

    Raises:
        ConfigurationError: there is no such file, module or name, or the file is not Python.
    """
    where, _, name = target.rpartition(":")
    source = _file(where, cwd) if where.endswith(".py") else _module(where, cwd)
    if source.file.suffix == ".py":
        _check_name(source.file, name, target)
    return source


def _file(where: str, cwd: Path) -> Source:
    path = (cwd / where).resolve()
    if path.is_file():
        return Source(path, path.parent)
    folder = path.parent
    others = sorted(p.name for p in folder.glob("*.py")) if folder.is_dir() else []
    close = nearest(path.name, others)
    raise ConfigurationError(
        f"handler: there is no file {path}" + (f"; did you mean {close}?" if close else ""), provider="local"
    )


def _module(where: str, cwd: Path) -> Source:
    top, *rest = where.split(".")
    paths: Sequence[str] | None = [str(cwd), *(entry for entry in sys.path if entry)]
    found = importlib.machinery.PathFinder.find_spec(top, paths) or _by_any_finder(top)
    for at, part in enumerate(rest, 1):
        if found is None or found.submodule_search_locations is None:
            break
        paths = list(found.submodule_search_locations)
        found = importlib.machinery.PathFinder.find_spec(".".join((top, *rest[:at])), paths)
        if found is None:
            raise _no_module(where, part, [Path(p) for p in paths])
    if found is None or (rest and found.name != where):
        raise _no_module(where, top, [cwd])
    if found.origin is None or not found.has_location:
        raise ConfigurationError(f"handler: {where} is no module with a file of its own", provider="local")
    file = Path(found.origin).resolve()
    package_depth = len(rest) + (1 if file.name == "__init__.py" else 0)
    package = file.parents[package_depth - 1] if package_depth else None
    base = package.parent if package is not None else file.parent
    alone = base.name in _INSTALLED  # an installed module: its neighbours are other people's packages
    root = package or (file if alone else base)
    return Source(file, root, None if base == cwd.resolve() or alone else base)


def _by_any_finder(top: str) -> importlib.machinery.ModuleSpec | None:
    """Finders that are not about paths: editable installs have them."""
    try:
        return importlib.util.find_spec(top)
    except (ImportError, ValueError):  # ValueError: it is loaded, and says nothing of where from
        return None


def _no_module(where: str, part: str, folders: Sequence[Path]) -> ConfigurationError:
    names: set[str] = set()
    for folder in folders:
        if folder.is_dir():
            names |= {p.stem for p in folder.glob("*.py")} | {p.parent.name for p in folder.glob("*/__init__.py")}
    close = nearest(part, sorted(names))
    searched = ", ".join(map(str, folders))
    return ConfigurationError(
        f"handler: there is no module {where!r} (searched: {searched})"
        + (f"; did you mean {close!r}?" if close and close != part else ""),
        provider="local",
        hint='Name a file as "path/to/file.py:name" where it is not importable from here.',
    )


def _check_name(file: Path, name: str, target: str) -> None:
    try:
        tree = ast.parse(file.read_bytes(), filename=str(file))
    except SyntaxError as exc:
        raise ConfigurationError(
            f"handler: {file}, line {exc.lineno}: {exc.msg}: not Python this interpreter can run", provider="local"
        ) from None
    except (OSError, ValueError) as exc:
        raise ConfigurationError(f"handler: {file} cannot be read: {exc}", provider="local") from None
    names = set(_names(tree.body))
    if name in names or "*" in names or "__getattr__" in names:
        return
    close = nearest(name, sorted(names))
    raise ConfigurationError(
        f"handler: {file} has no {name!r} at its top" + (f"; did you mean {close!r}?" if close else ""),
        provider="local",
        hint=f"{target} names a function or class of that file.",
    )


def _names(body: Sequence[ast.stmt]) -> Iterator[str]:
    """What a module's statements bind; ``*`` where a star import may bind anything."""
    for node in body:
        match node:
            case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.ClassDef():
                yield node.name
            case ast.Import() | ast.ImportFrom():
                yield from (alias.asname or alias.name.partition(".")[0] for alias in node.names)
            case ast.Assign() | ast.AnnAssign():
                yield from (p.id for p in ast.walk(node) if isinstance(p, ast.Name) and isinstance(p.ctx, ast.Store))
            case ast.If() | ast.For() | ast.While():
                yield from _names([*node.body, *node.orelse])
            case ast.With():
                yield from _names(node.body)
            case ast.Try():
                handlers = [child for handler in node.handlers for child in handler.body]
                yield from _names([*node.body, *handlers, *node.orelse, *node.finalbody])
            case _:
                pass


def fingerprint(root: Path) -> tuple[str, tuple[str, ...]]:
    """The digest of all Python code under *root*, and what was left out."""
    digest = hashlib.sha256()
    notes: list[str] = []
    for count, path in enumerate([root] if root.is_file() else _python_files(root)):
        if count == FILE_LIMIT:
            notes.append(f"{root}: only the first {FILE_LIMIT} Python files are watched for changes")
            break
        name = path.name if path == root else path.relative_to(root).as_posix()
        digest.update(name.encode("utf-8", "surrogateescape") + b"\0")
        try:
            stat = path.stat()
            if stat.st_size > SIZE_LIMIT:
                digest.update(f"{stat.st_size} {stat.st_mtime_ns}".encode())
                notes.append(f"{path}: too large to be read; its size and time are watched")
            else:
                digest.update(path.read_bytes())
        except OSError:
            notes.append(f"{path}: cannot be read, and is not watched for changes")
        digest.update(b"\0")
    return digest.hexdigest(), tuple(notes)


def _python_files(folder: Path) -> Iterator[Path]:
    """Sorted; without hidden folders, virtual environments, and what links elsewhere (which might never end)."""
    try:
        entries = sorted(folder.iterdir())
    except OSError:
        return
    for entry in entries:
        if entry.suffix == ".py" and entry.is_file():
            yield entry
    for entry in entries:
        hidden = entry.name.startswith(".") or entry.name in _SKIPPED
        if not hidden and entry.is_dir() and not entry.is_symlink() and not (entry / "pyvenv.cfg").exists():
            yield from _python_files(entry)
