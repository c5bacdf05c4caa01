"""`compare`: the four questions, asked of several providers at once. Nothing is sent, and no key is needed."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, overload

from .. import _registry
from ..elasticity.capabilities import FLAGS, Capabilities, load
from ..elasticity.fact import Fact, FurtherFact, read_further, read_reading
from ..elasticity.questions import IN_SHORT, QUESTIONS, in_words
from ..errors import ConfigurationError, UnsupportedError
from ..models import Interface, Kind
from . import arguments

__all__ = ["Comparison", "compare", "facts_of"]

_WIDTH = 34


class Comparison(Sequence[Capabilities]):
    """Several providers side by side, for one kind of deployment. Printing it shows the four questions as a table.

    Attributes:
        interface, kind: Which deployments are compared.
        absent: Providers that have no such deployments, and why.
    """

    def __init__(
        self, found: Sequence[Capabilities], interface: Interface, kind: Kind, absent: Mapping[str, str]
    ) -> None:
        self._found = tuple(found)
        self.interface = interface
        self.kind = kind
        self.absent = absent

    @overload
    def __getitem__(self, index: int) -> Capabilities: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Capabilities]: ...
    def __getitem__(self, index: int | slice) -> Capabilities | Sequence[Capabilities]:
        return self._found[index]

    def __len__(self) -> int:
        return len(self._found)

    @property
    def providers(self) -> tuple[str, ...]:
        """The providers that are compared, in the order of the columns."""
        return tuple(one.provider for one in self._found)

    def rows(self) -> Iterator[tuple[str, tuple[Fact[Any], ...]]]:
        """Every flag, with the fact of each provider."""
        return ((flag, tuple(one.fact(flag) for one in self._found)) for flag in FLAGS)

    def differences(self) -> tuple[str, ...]:
        """The flags in which they differ."""
        return tuple(flag for flag, facts in self.rows() if len({str(one.value) for one in facts}) > 1)

    def __str__(self) -> str:
        lines = [f"{self.interface}, {self.kind}"]
        if not self._found:
            return "\n".join([*lines, "", *self.absent.values()])
        for question, flags in QUESTIONS.items():
            lines += ["", question, _line("", self.providers)]
            for flag in flags:
                cells = [textwrap.wrap(_shown(flag, one.fact(flag)), _WIDTH - 2) or [""] for one in self._found]
                for at in range(max(map(len, cells), default=0)):
                    texts = [cell[at] if at < len(cell) else "" for cell in cells]
                    lines.append(_line(flag if at == 0 else "", texts))
        lines += ["", "Where it is written"]
        for (_, flag), *_ in IN_SHORT:
            lines += [f"{flag:20}  {one.provider:10}  {one.fact(flag).source}" for one in self._found]
        lines += ["", *self.absent.values()]
        lines.append("* documented nowhere, or in doubt. Each cell's status, source, day and note: capabilities(...)")
        return "\n".join(lines)

    __repr__ = __str__


def compare(*providers: str, interface: Interface = "function", kind: Kind = "serverless") -> Comparison:
    """What several providers can do, side by side. Nothing is sent, and no key is needed.

    Args:
        providers: Their names; none: all that are installed.

    Raises:
        ConfigurationError: there is no such provider, interface or kind.
    """
    interface = arguments.choice(interface, "interface", arguments.INTERFACES)
    kind = arguments.choice(kind, "kind", arguments.KINDS)
    if not all(isinstance(name, str) for name in providers):  # pyright: ignore[reportUnnecessaryIsInstance] - users give lists
        raise ConfigurationError('compare: give names, as in compare("runpod", "vast").')
    found: list[Capabilities] = []
    absent: dict[str, str] = {}
    for name in dict.fromkeys(providers or _registry.installed()):
        facts = _registry.load(name).facts
        try:
            found.append(load(name, interface=interface, kind=kind, facts=facts))
        except UnsupportedError as exc:
            absent[name] = exc.message
    return Comparison(found, interface, kind, absent)


def facts_of(provider: str) -> tuple[tuple[Capabilities, ...], Mapping[str, FurtherFact], str | None]:
    """All facts of one provider: its kinds of deployments, what is no flag, and how to read it.

    Raises:
        ConfigurationError: there is no such provider, or its facts cannot be read.
    """
    facts = _registry.load(provider).facts
    found: list[Capabilities] = []
    for kind in arguments.KINDS:
        for interface in arguments.INTERFACES:
            try:
                found.append(load(provider, interface=interface, kind=kind, facts=facts))
            except UnsupportedError:
                continue
    return tuple(found), read_further(provider, facts), read_reading(provider, facts)


def _shown(flag: str, fact: Fact[Any]) -> str:
    doubt = fact.status in ("contradicted", "accepted") or fact.value == "unknown"
    return f"{in_words(flag, fact)}{'*' if doubt else ''}"


def _line(first: str, cells: Sequence[str]) -> str:
    return "  ".join((first.ljust(20), *(cell.ljust(_WIDTH) for cell in cells))).rstrip()
