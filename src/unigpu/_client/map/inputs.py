"""The inputs of a `map`, pulled one by one, and its results, put into the order that was asked for."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from unigpu._io.contract import EncodedJSON
from unigpu.errors import ConfigurationError, InvalidInput
from unigpu.models import Result

from .. import arguments
from .checkpoint import Checkpoint, CheckpointEntry, digest

Order = Literal["input", "done"]


@dataclass(frozen=True, slots=True)
class Item:
    """One input.

    Attributes:
        input: Encoded; ``None`` where there is an `outcome` already.
        entry: What the checkpoint knows of it.
        outcome: Its result, without a call: from the checkpoint, or because the input cannot be sent.
    """

    index: int
    key: str
    input: EncodedJSON | None
    entry: CheckpointEntry | None = None
    outcome: Result | None = None


class Intake:
    """Pulls the inputs. What an input iterator or a key function raises passes through: it is the user's own."""

    def __init__(
        self, inputs: Iterable[Mapping[str, Any]], key: Callable[[Any], str] | None, checkpoint: Checkpoint | None
    ) -> None:
        try:
            self._inputs = iter(inputs)
        except TypeError:
            raise ConfigurationError(
                f"inputs: give an iterable of JSON objects, not {type(inputs).__name__}."
            ) from None
        if isinstance(inputs, dict | str | bytes):
            raise ConfigurationError("inputs: give an iterable of JSON objects; for a single one use invoke().")
        if key is not None and not callable(key):  # pyright: ignore[reportUnnecessaryComparison] - users without a type checker
            raise ConfigurationError("key: give a function that takes an input and returns a text.")
        self._key = key
        self._checkpoint = checkpoint
        self._index = 0
        self._seen: set[str] = set()

    def next(self) -> Item | None:
        """The next input that is not taken already; ``None`` at the end."""
        for value in self._inputs:  # an iterator: it goes on where the last call left it
            index = self._index
            self._index += 1
            item = self._item(index, value)
            if item.entry is None or item.entry.state != "taken":
                return item
        return None

    def _item(self, index: int, value: Mapping[str, Any]) -> Item:
        try:
            key = str(index) if self._key is None else self._key(value)
        except (StopIteration, StopAsyncIteration) as exc:  # it would end the map as if there were no more inputs
            raise RuntimeError(f"the key function raised {type(exc).__name__} for input {index}") from exc
        if not isinstance(key, str):  # pyright: ignore[reportUnnecessaryIsInstance] - users without a type checker
            raise ConfigurationError(f"key: it returned {type(key).__name__} for input {index}; a key is a text.")
        try:
            plain = arguments.job_input(value)
        except InvalidInput as exc:
            return Item(index, key, None, outcome=Result(error=exc, key=key))
        if self._checkpoint is None:
            return Item(index, key, plain)
        if key in self._seen:
            raise ConfigurationError(f"key: two inputs have the key {key!r}; with a checkpoint each needs its own.")
        self._seen.add(key)
        entry = self._checkpoint.entry(key, digest(plain))
        if entry.state == "done":
            return Item(index, key, None, entry, replaced_key(self._checkpoint.output(key), key))
        return Item(index, key, plain, entry)


class Arrivals:
    """Results on their way to the consumer, in the order that was asked for."""

    def __init__(self, order: Order) -> None:
        self._in_order = order == "input"
        self._expected: deque[int] = deque()
        self._arrived: dict[int, Result] = {}
        self._queue: deque[Result] = deque()
        self._open = 0

    def expect(self, index: int) -> None:
        self._open += 1
        if self._in_order:
            self._expected.append(index)

    def put(self, index: int, result: Result) -> None:
        if self._in_order:
            self._arrived[index] = result
        else:
            self._queue.append(result)

    def next(self) -> Result | None:
        """The next result that may be given; ``None``: it has not arrived."""
        if self._in_order:
            if not self._expected or self._expected[0] not in self._arrived:
                return None
            self._open -= 1
            return self._arrived.pop(self._expected.popleft())
        if not self._queue:
            return None
        self._open -= 1
        return self._queue.popleft()

    @property
    def ready(self) -> bool:
        """Whether `next` has one."""
        return bool(self._queue) or (bool(self._expected) and self._expected[0] in self._arrived)

    @property
    def outstanding(self) -> int:
        """Inputs that were pulled and whose result was not given yet."""
        return self._open


def replaced_key(result: Result, key: str) -> Result:
    return result if result.key == key else result.model_copy(update={"key": key})
