"""What is known of a platform beside the flags: the table ``more`` of its facts, and how to read the whole.

reading = "What "serverless" means there, in a few honest sentences."

[more.flashboot]
title = "FlashBoot is on unless it is switched off"
value = true
status = "contradicted"
...
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import Field

from ..errors import ConfigurationError
from .fact import Fact, ReadsText, completed, read_facts

Plain = bool | int | float | str | tuple[bool | int | float | str, ...]


class FurtherFact(Fact[Plain]):
    """A fact that is no flag.

    Attributes:
        title: What it is about, in a line.
        about: Which deployments, as in ``"function/serverless"`` or ``"*/pod"``; ``"*"``: all.
    """

    title: Annotated[str, Field(min_length=1)]
    about: str = "*"


def read_reading(provider: str, facts: Mapping[str, Any] | ReadsText | None = None) -> str | None:
    """What "serverless" means there, in the words of the facts; ``None``: they do not say."""
    found = read_facts(provider, facts).get("reading")
    return " ".join(found.split()) if isinstance(found, str) else None


def read_further(provider: str, facts: Mapping[str, Any] | ReadsText | None = None) -> Mapping[str, FurtherFact]:
    """The facts of the table ``more``, by name.

    Raises:
        ConfigurationError: one has a field or a value that cannot be, or no source or date.
    """
    whole = read_facts(provider, facts)
    table: Any = whole.get("more", {})
    if not isinstance(table, Mapping):
        raise ConfigurationError(f"facts of {provider}: 'more' is a table.", provider=provider)
    out: dict[str, FurtherFact] = {}
    for name, given in table.items():  # pyright: ignore[reportUnknownVariableType] - a TOML table of anything
        fact = completed(provider, "more", name, given, whole, fields=("title", "about"))  # pyright: ignore[reportUnknownArgumentType] - the same
        try:
            out[str(name)] = FurtherFact.model_validate(fact)  # pyright: ignore[reportUnknownArgumentType] - the same
        except ConfigurationError as exc:
            raise ConfigurationError(f"facts of {provider} (more.{name}): {exc.message}", provider=provider) from None
    return out
