"""The three kinds of model: what users give, what we tell, and what platforms reply."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from contextvars import ContextVar
from functools import partial
from typing import Any

from pydantic import BaseModel, ConfigDict, GetCoreSchemaHandler, ValidationError
from pydantic_core import core_schema

from ..errors import ConfigurationError

_depth: ContextVar[int] = ContextVar("unigpu_model_depth", default=0)


class InputModel(BaseModel):
    """What a user wrote. Unknown fields are errors; an error names the field, never the value.

    Raises:
        ConfigurationError: instead of pydantic's own error, also when nested.
    """

    model_config = ConfigDict(
        frozen=True, extra="forbid", hide_input_in_errors=True, defer_build=True, arbitrary_types_allowed=False
    )

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> core_schema.CoreSchema:
        # Around everything, also the validators of subclasses: a wrap validator of this class would stand inside those.
        return core_schema.no_info_wrap_validator_function(partial(_one_error, cls), handler(source))


class Data(BaseModel):
    """What we tell a user: frozen, and without any I/O."""

    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)


class WireModel(BaseModel):
    """What a platform replied: unknown keys are ignored, unknown enum values are kept as text."""

    model_config = ConfigDict(frozen=True, extra="ignore", hide_input_in_errors=True, defer_build=True)


def _one_error(cls: type[BaseModel], value: Any, handler: core_schema.ValidatorFunctionWrapHandler) -> Any:
    token = _depth.set(_depth.get() + 1)
    try:
        return handler(value)
    except ValidationError as exc:
        if _depth.get() > 1:
            raise  # the outermost model knows the whole path
        raise ConfigurationError(_explain(cls, exc)) from None
    finally:
        _depth.reset(token)


def nearest(name: str, known: Iterable[str]) -> str | None:
    """The known name that *name* was probably meant to be."""
    found = difflib.get_close_matches(name, list(known), n=1, cutoff=0.6)
    return found[0] if found else None


def _explain(cls: type[BaseModel], exc: ValidationError) -> str:
    lines: list[str] = []
    for error in exc.errors(include_url=False, include_input=False, include_context=True):
        path = ".".join(str(part) for part in error["loc"] if not _is_union_tag(part))
        if error["type"] == "extra_forbidden":
            name = str(error["loc"][-1])
            near = nearest(name, _fields_at(cls, error["loc"][:-1]))
            lines.append(f"{path}: there is no such field" + (f"; did you mean {near!r}?" if near else ""))
        elif error["type"] == "default_factory_not_called":
            continue  # a default that depends on a field which is wrong: that one is told
        elif error["type"] == "missing":
            lines.append(f"{path}: this field is required")
        else:
            lines.append(": ".join(filter(None, (path, error["msg"].removeprefix("Value error, ")))))
    return "; ".join(dict.fromkeys(lines))


def _is_union_tag(part: object) -> bool:
    """Pydantic adds the tried branch of a union to a location; that is no field of the user's."""
    return isinstance(part, str) and (
        "[" in part or part in {"str", "int", "float", "bool", "tuple", "list", "dict", "is-instance", "nullable"}
    )


def _fields_at(cls: type[BaseModel], path: tuple[int | str, ...]) -> list[str]:
    model: Any = cls
    for part in path:
        field = getattr(model, "model_fields", {}).get(part)
        if field is None:
            break
        candidates = [field.annotation, *getattr(field.annotation, "__args__", ())]
        model = next((c for c in candidates if isinstance(c, type) and issubclass(c, BaseModel)), model)
    return list(getattr(model, "model_fields", {}))
