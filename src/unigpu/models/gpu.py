"""GPUs as users ask for them, and as every platform spells them."""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence
from typing import Annotated, Any, Final

from pydantic import Field, field_validator, model_validator

from ._gpu_table import GPU, Table, key, size, table
from ._model_kinds import InputModel

_MEMORY: Final = re.compile(r"^\s*(\d{1,6})\s*g(?:i?b)?\s*$", re.IGNORECASE)
_COUNT: Final = re.compile(r"^(.*?)\s*:\s*(\d{1,6})\s*$", re.DOTALL)
_FORMS: Final = {"SXM": re.compile(r"\bsxm\d?\b"), "PCIe": re.compile(r"\bpcie\b"), "NVL": re.compile(r"\bnvl\b")}


class GPURequest(InputModel):
    """One acceptable GPU: by name, or by the least memory.

    A text will do where one is asked for: ``"RTX 4090"``, ``"rtx4090"``, ``"H100 SXM:2"``, ``"A100 80GB"`` (of either
    form), ``"any H100"``, ``"24GB"``.

    Attributes:
        name: The canonical name of a GPU or of a set of them, as in ``"RTX 4090"``; ``None`` where memory decides.
        memory_gb: The least memory of one GPU in gigabytes, for a request such as ``"24GB"``.
        count: GPUs in one worker.

    Raises:
        ConfigurationError: the name is unknown (names the nearest), or stands for quite different GPUs (lists them).
    """

    name: str | None = None
    memory_gb: Annotated[int | None, Field(ge=1, strict=True)] = None
    count: Annotated[int, Field(ge=1, le=16, strict=True)] = 1

    @model_validator(mode="before")
    @classmethod
    def _from_text(cls, value: Any) -> Any:
        if not isinstance(value, str):
            return value
        fields: dict[str, Any] = {}
        counted = _COUNT.match(value)
        if counted:
            value, fields["count"] = counted.group(1), int(counted.group(2))
        memory = _MEMORY.match(value)
        return {**fields, "memory_gb": int(memory.group(1))} if memory else {**fields, "name": value}

    @field_validator("name")
    @classmethod
    def _known(cls, value: str | None) -> str | None:
        return None if value is None else _resolve(value)

    @model_validator(mode="after")
    def _one_of_two(self) -> GPURequest:
        if (self.name is None) == (self.memory_gb is None):
            raise ValueError("give the name of a GPU, or the least memory, and not both")
        if self.memory_gb is not None:
            most = max(table().gpus.values(), key=lambda gpu: gpu.memory_gb)
            if self.memory_gb > most.memory_gb:
                raise ValueError(f"no GPU has that much memory; {most.name} has the most, {most.memory_gb}GB")
        return self

    def __str__(self) -> str:
        text = self.name if self.name is not None else f"{self.memory_gb}GB"
        return f"{text}:{self.count}" if self.count != 1 else text


def gpu_requests(value: Any) -> Any:
    """A set of acceptable GPUs from ``"RTX 4090"``, ``["L40S", "H100 SXM:2"]`` or ``"24GB"``: one each, in order."""
    if isinstance(value, str | GPURequest | dict):
        return (value,)
    if isinstance(value, list | tuple):
        items: list[Any] = list(value)  # pyright: ignore[reportUnknownArgumentType] - anything; pydantic checks the items
        if not items:
            raise ValueError("the set of acceptable GPUs is empty; leave it out to say nothing")
        return items
    if value is not None:
        raise ValueError('give the names of GPUs, or the least memory, as in "RTX 4090" or "24GB"')
    return value


def distinct(requests: tuple[GPURequest, ...] | None) -> tuple[GPURequest, ...] | None:
    """*requests* without repetitions, in order."""
    return None if requests is None else tuple(dict.fromkeys(requests))


def gpu(name: str) -> GPU | None:
    """The GPU of this canonical name; ``None`` for an unknown one, and for a set."""
    return table().gpus.get(name)


def members(request: GPURequest | str) -> tuple[GPU, ...]:
    """All GPUs that satisfy a request, best first where it asks for memory: the smallest that is enough.

    Raises:
        ConfigurationError: as `GPURequest`.
    """
    asked = _request(request)
    if asked.name is not None:
        return table().members(asked.name)
    enough = [one for one in table().gpus.values() if one.memory_gb >= (asked.memory_gb or 0)]
    return tuple(sorted(enough, key=lambda one: one.memory_gb))


def spelling(request: GPURequest | str, provider: str) -> tuple[str, ...]:
    """What *provider* calls the GPUs that satisfy *request*. Empty: it has none, or is not in the table.

    Some names are shared by GPUs of different memory (`is_shared`): there the memory must be asked for beside the name.

    Raises:
        ConfigurationError: as `GPURequest`.
    """
    asked = _request(request)
    names: list[str] = []
    if asked.name is not None and asked.name in table().sets:
        names += table().sets[asked.name].spellings.get(provider, ())
    for one in members(asked):
        names += one.spellings.get(provider, ())
    return tuple(dict.fromkeys(names))


def pools(request: GPURequest | str) -> tuple[str, ...]:
    """The RunPod serverless pools that hold GPUs satisfying *request*; a pool may hold others too.

    Raises:
        ConfigurationError: as `GPURequest`.
    """
    return tuple(dict.fromkeys(one.pool for one in members(request) if one.pool is not None))


def is_shared(provider: str, spelling: str) -> bool:
    """Whether *provider* uses this name for GPUs that differ in memory or form."""
    return spelling in table().shared.get(provider, ())


def canonical(provider: str, spelling: str, *, memory_gb: float | None = None) -> str | None:
    """The canonical name of what *provider* calls *spelling*; ``None`` for one that we do not know.

    Args:
        memory_gb: The memory that the platform shows beside it, which tells GPUs of one spelling apart.
    """
    known = table()
    text = " ".join(spelling.split())
    if provider == "vast":
        text = text.replace("_", " ")
    for group in known.sets.values():
        if text in group.spellings.get(provider, ()):
            return group.name
    found = [one for one in known.gpus.values() if text in one.spellings.get(provider, ())]
    if len(found) > 1 and memory_gb is not None:
        off = min(abs(one.memory_gb - memory_gb) for one in found)
        found = [one for one in found if abs(one.memory_gb - memory_gb) == off]
    return _one_name(known, found)


def matches(name: str, request: GPURequest | str) -> bool:
    """Whether the GPU (or every one of the set) of this canonical name satisfies *request*.

    Raises:
        ConfigurationError: as `GPURequest`, for the request.
    """
    these = table().members(name)
    wanted = {one.name for one in members(request)}
    return bool(these) and all(one.name in wanted for one in these)


def _request(request: GPURequest | str) -> GPURequest:
    return request if isinstance(request, GPURequest) else GPURequest.model_validate(request)


def _resolve(text: str) -> str:
    """The canonical name of what a user wrote. The errors name our words, never the user's."""
    known = table()
    spelled = known.spelled.get(text) or known.keys.get(key(text))
    if spelled is not None:
        return spelled
    rest, memory = size(text)
    plain = known.keys.get(key(rest)) if memory is not None else None
    if plain is not None:
        sized = [one for one in known.members(plain) if one.memory_gb == memory]
        name = _one_name(known, sized)
        if name is None:
            sizes = sorted({one.memory_gb for one in known.members(plain)})
            raise ValueError(f"{plain} has {' or '.join(map(str, sizes))} GB of memory, not that")
        return name
    family, form = _family(known, rest)
    if form is not None:
        family = [one for one in family if one.form == form]
    if memory is not None:
        family = [one for one in family if one.memory_gb == memory]
    if not family:
        raise ValueError(f"there is no GPU of that name; near it: {_near(known, text)}")
    name = _one_name(known, family) if form is not None or memory is not None else None
    if name is not None:
        return name
    wider = [group.name for group in known.sets.values() if set(group.members) <= set(family)]
    raise ValueError(
        "that name stands for quite different GPUs; say which: "
        + ", ".join(f'"{name}"' for name in [*(one.name for one in family), *wider])
    )


def _one_name(known: Table, gpus: Sequence[GPU]) -> str | None:
    """The name of exactly these: of the one, or of the set that is asked for by name."""
    if len(gpus) == 1:
        return gpus[0].name
    return next((group.name for group in known.sets.values() if gpus and set(group.members) == set(gpus)), None)


def _family(known: Table, text: str) -> tuple[list[GPU], str | None]:
    """The GPUs of the family that *text* names, and the form it names."""
    form = next((name for name, pattern in _FORMS.items() if pattern.search(text)), None)
    bare = _FORMS[form].sub(" ", text) if form else text
    family = known.families.get(key(bare))
    return (list(family.members) if family else []), form


def _near(known: Table, text: str) -> str:
    wanted = key(text)
    found = difflib.get_close_matches(wanted, list(known.keys), n=12, cutoff=0.4)
    found += [k for k in known.keys if len(wanted) > 2 and wanted in k]
    names = list(dict.fromkeys(known.keys[k] for k in found))[:4] or ["RTX 4090", "L40S", "H100 SXM"]
    return ", ".join(f'"{name}"' for name in names)
