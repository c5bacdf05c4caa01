"""Load a handler: a function (sync, async, or a generator), or a class that loads its model in ``__init__``."""

from __future__ import annotations

import functools
import importlib
import importlib.util
import inspect
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

Target = str | Callable[..., Any]


@dataclass(frozen=True, slots=True)
class Handler:
    """A loaded handler.

    Attributes:
        name: What was asked for, as in ``app:summarize``.
        call: Takes the input; gives a value, an iterator, or (when ``is_async``) an awaitable or async iterator.
        is_async: Whether ``call`` must run on an event loop.
    """

    name: str
    call: Callable[[dict[str, Any]], Any]
    is_async: bool

    @property
    def yields(self) -> bool:
        """Whether it yields, as far as that can be known before it is called (it may return an iterator, too)."""
        function: Any = self.call if inspect.isroutine(self.call) else type(self.call).__call__
        return any(
            inspect.isgeneratorfunction(one) or inspect.isasyncgenfunction(one)
            for one in (function, inspect.unwrap(function))
        )


class LoadError(Exception):
    """The handler cannot be loaded; the message is one line that names the cause."""


def target_name(target: Target) -> str:
    """How a target is called in logs."""
    if isinstance(target, str):
        return target
    module = getattr(target, "__module__", None) or type(target).__module__
    return f"{module}:{getattr(target, '__qualname__', None) or type(target).__qualname__}"


def load_handler(target: Target) -> Handler:
    """Import what ``target`` names, and make the instance when it is a class.

    Raises:
        LoadError: There is no such module or name, its code raised, or it cannot be called. The cause is chained.
    """
    name = target_name(target)
    found: Any = _find(target) if isinstance(target, str) else target
    if inspect.isclass(found):
        if "__call__" not in dir(found) or inspect.isabstract(found):
            raise LoadError(f"cannot load {name}: class {found.__name__} has no __call__ method")
        try:
            found = found()
        except BaseException as error:  # a model's loader may raise anything, SystemExit too; the caller logs it
            raise LoadError(f"cannot load {name}: {found.__name__}() raised {_brief(error)}") from error
    if not callable(found):
        raise LoadError(f"cannot load {name}: it is of type {type(found).__qualname__}, not a function or a class")
    _check_signature(name, found)
    return Handler(name=name, call=found, is_async=_is_async(found))


def _find(target: str) -> Any:
    place, colon, dotted = target.rpartition(":")
    if not colon or not place or not dotted:
        raise LoadError(f"cannot load {target}: a target is module:name or file.py:name")
    module = _import_file(target, place) if place.endswith(".py") else _import_module(target, place)
    found: Any = module
    for part in dotted.split("."):
        try:
            found = getattr(found, part)
        except AttributeError:
            near = _nearest(part, found)
            raise LoadError(f"cannot load {target}: no {part!r} in {place}{near}") from None
    return found


def _import_module(target: str, name: str) -> ModuleType:
    if "" not in sys.path and str(Path.cwd()) not in sys.path:
        sys.path.insert(0, str(Path.cwd()))
    try:
        return importlib.import_module(name)
    except BaseException as error:  # importing runs the user's code
        missing = error.name if isinstance(error, ModuleNotFoundError) else None
        if missing is not None and (name == missing or name.startswith(f"{missing}.")):
            raise LoadError(f"cannot load {target}: no module named {missing!r} (looked from {Path.cwd()})") from None
        raise _import_failed(target, error) from error


def _import_file(target: str, place: str) -> ModuleType:
    path = Path(place).resolve()
    if not path.is_file():
        raise LoadError(f"cannot load {target}: no file {path}")
    if str(path.parent) not in sys.path:
        sys.path.insert(0, str(path.parent))  # as `python file.py` does, so that its neighbours can be imported
    # The stem, so that pickles and spawned children find the module again; unless that name is taken.
    name = path.stem if path.stem not in sys.modules and path.stem.isidentifier() else f"_unigpu_handler_{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise LoadError(f"cannot load {target}: {path} is not Python source")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException as error:  # running the file runs the user's code
        del sys.modules[name]
        raise _import_failed(target, error) from error
    return module


def _import_failed(target: str, error: BaseException) -> LoadError:
    if isinstance(error, ModuleNotFoundError) and error.name:
        return LoadError(f"cannot load {target}: it imports {error.name!r}, which is not installed here")
    return LoadError(f"cannot load {target}: importing it raised {_brief(error)}")


def _is_async(call: Callable[..., Any]) -> bool:
    while isinstance(call, functools.partial):
        call = call.func  # pyright: ignore[reportUnknownMemberType] - a partial of unknown type is what we unwrap
    function: Any = call if inspect.isroutine(call) else type(call).__call__
    return any(
        inspect.iscoroutinefunction(f) or inspect.isasyncgenfunction(f) for f in (function, inspect.unwrap(function))
    )


def _check_signature(name: str, call: Callable[..., Any]) -> None:
    try:
        signature = inspect.signature(call, follow_wrapped=False)  # a wrapper may add arguments of its own
    except (TypeError, ValueError):  # some C functions have none to show
        return
    try:
        signature.bind({})
    except TypeError:
        raise LoadError(f"cannot load {name}: it must take exactly one input, not {signature}") from None


def _nearest(part: str, module: object) -> str:
    import difflib

    close = difflib.get_close_matches(part, [n for n in dir(module) if not n.startswith("_")], n=1)
    return f" (did you mean {close[0]!r}?)" if close else ""


def _brief(error: BaseException) -> str:
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text[:300]}" if text else type(error).__name__
