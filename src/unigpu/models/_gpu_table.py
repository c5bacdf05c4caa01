"""The table of GPUs, read once, when it is first asked for. Its facts and their sources are in ``_gpus.toml``."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib import resources
from typing import Any, Final

PROVIDERS: Final = ("runpod", "vast", "yotta")

# Words that tell nothing: "NVIDIA GeForce RTX 4090" is "RTX 4090".
_NOISE: Final = frozenset({"nvidia", "geforce", "tesla", "amd", "instinct", "generation", "edition", "gpu"})
_WORD: Final = re.compile(r"[a-z0-9]+")
_SIZE: Final = re.compile(r"(?<![a-z0-9])(\d+)\s*g(?:i?b)?(?![a-z0-9])")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class GPU:
    """One GPU.

    Attributes:
        name: The name in unigpu.
        memory_gb: Gigabytes of memory that it has at least.
        form: ``PCIe``, ``SXM``, ``NVL``, ``OAM``, ...
        compute: NVIDIA's compute capability; ``None`` for others.
        spellings: Provider → what it is called there; several where the provider uses several.
        pool: The RunPod serverless pool that holds it; ``None`` where there is none, or none is known.
        note: What is uncertain.
    """

    name: str
    memory_gb: int
    form: str
    architecture: str
    compute: str | None = None
    aliases: tuple[str, ...] = ()
    spellings: Mapping[str, tuple[str, ...]] = field(default_factory=dict[str, tuple[str, ...]])
    pool: str | None = None
    note: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class GPUSet:
    """Several GPUs under one name.

    Attributes:
        ambiguous: The name under which they are an error: too different to be asked for by it.
        spellings: What a platform calls it that does not say which member it is.
    """

    name: str
    members: tuple[GPU, ...]
    ambiguous: str | None = None
    aliases: tuple[str, ...] = ()
    spellings: Mapping[str, tuple[str, ...]] = field(default_factory=dict[str, tuple[str, ...]])


class Table:
    """All GPUs and sets, and the ways to find one."""

    def __init__(self, raw: Mapping[str, Any]) -> None:
        self.gpus: dict[str, GPU] = {
            row["name"]: GPU(
                name=row["name"],
                memory_gb=row["memory_gb"],
                form=row["form"],
                architecture=row["architecture"],
                compute=row.get("compute"),
                aliases=tuple(row.get("aliases", ())),
                spellings=_spellings(row),
                pool=row.get("pool"),
                note=row.get("note"),
            )
            for row in raw["rows"]["gpu"]
        }
        self.sets: dict[str, GPUSet] = {
            row["name"]: GPUSet(
                name=row["name"],
                members=tuple(self.gpus[name] for name in row["members"]),
                ambiguous=row.get("ambiguous"),
                aliases=tuple(row.get("aliases", ())),
                spellings=_spellings(row),
            )
            for row in raw["set"]
        }
        self.shared: dict[str, frozenset[str]] = {p: frozenset(raw["shared"].get(p, ())) for p in PROVIDERS}
        self.families: dict[str, GPUSet] = {key(s.ambiguous): s for s in self.sets.values() if s.ambiguous}
        named: list[GPU | GPUSet] = [*self.sets.values(), *self.gpus.values()]
        self.spelled: dict[str, str] = {}
        self.keys: dict[str, str] = {}
        for item in named:
            self.keys[key(item.name)] = item.name
        for item in named:
            for alias in item.aliases:
                self.keys.setdefault(key(alias), item.name)
        for item in named:
            for provider, spellings in item.spellings.items():
                for spelling in spellings:
                    if spelling not in self.shared[provider]:
                        self.spelled.setdefault(spelling, item.name)
                        self.keys.setdefault(key(spelling), item.name)

    def members(self, name: str) -> tuple[GPU, ...]:
        """The GPUs that a name stands for; none for an unknown one."""
        if name in self.sets:
            return self.sets[name].members
        return (self.gpus[name],) if name in self.gpus else ()


@cache
def table() -> Table:
    text = resources.files("unigpu.models").joinpath("_gpus.toml").read_text(encoding="utf-8")
    return Table(tomllib.loads(text))


def key(text: str) -> str:
    """*text* without what does not tell GPUs apart: case, spaces, marks, the maker, the two ways to write gigabytes."""
    sized = _SIZE.sub(r"\1gb ", text.lower().replace("_", " "))
    return "".join(word for word in _WORD.findall(sized) if word not in _NOISE)


def size(text: str) -> tuple[str, int | None]:
    """*text* without its size, and the size in gigabytes, as in ``"A100 80GB"``."""
    lower = text.lower().replace("_", " ")
    found = _SIZE.search(lower)
    return (_SIZE.sub(" ", lower), int(found.group(1))) if found else (lower, None)


def _spellings(row: Mapping[str, Any]) -> dict[str, tuple[str, ...]]:
    return {provider: tuple(row[provider]) for provider in PROVIDERS if provider in row}
