"""The port that everything above talks to. Imports nothing but the standard library.

A driver builds a `Request`, hands it to an `Io`, and gets a `Response`. It never waits but by
`Io.sleep`, so that one source serves asyncio, trio and plain threads: the synchronous `Io` never
suspends, and `unigpu._io.bridge.run_sync` finishes a coroutine over it with one ``send(None)``.
"""

from __future__ import annotations

import enum
import json as _json
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import Any, Final, Literal, Protocol, TypeVar, cast

T = TypeVar("T")

Role = Literal["control", "create", "jobs", "worker"]


class _Unset(enum.Enum):
    UNSET = "UNSET"

    def __repr__(self) -> str:
        return "UNSET"


UNSET: Final = _Unset.UNSET


class CallClass(enum.Enum):
    """What repeating a call may do; decided per call, never by the HTTP verb."""

    IDEMPOTENT = "idempotent"
    """Repeating it is harmless."""
    RECONCILE = "reconcile"
    """It creates something paid: after an unclear answer look first, never repeat blindly."""
    USER_DECIDES = "user_decides"
    """It runs the user's code: repeated only where the user said ``idempotent=True``."""


class Outcome(enum.Enum):
    """What is known of a call after it ended. There is no fifth."""

    NEVER_SENT = "never_sent"
    REJECTED = "rejected"
    AMBIGUOUS = "ambiguous"
    DONE = "done"


@dataclass(frozen=True, slots=True, kw_only=True)
class Trust:
    """A platform's own root, by which alone its workers are known: for requests of role ``worker``.

    Attributes:
        roots: Certificates as PEM text. The usual roots are not trusted beside them.
        strict: Whether a root must be marked as one that may sign (RFC 5280); some platforms' is not.
    """

    roots: str = field(repr=False)
    strict: bool = True


class Headers(Mapping[str, str]):
    """Header fields, looked up without regard to case. A repeated field is joined by ``", "``."""

    __slots__ = ("_items",)

    def __init__(self, items: Iterable[tuple[str, str]] | Mapping[str, str] = ()) -> None:
        pairs: Iterable[tuple[str, str]]
        pairs = cast("Mapping[str, str]", items).items() if isinstance(items, Mapping) else items
        self._items: tuple[tuple[str, str], ...] = tuple((k.lower(), v) for k, v in pairs)

    def __getitem__(self, name: str) -> str:
        found = self.getall(name)
        if not found:
            raise KeyError(name)
        return ", ".join(found)

    def getall(self, name: str) -> list[str]:
        """Every value of a field, in order."""
        low = name.lower()
        return [v for k, v in self._items if k == low]

    def __iter__(self) -> Iterator[str]:
        return iter(dict.fromkeys(k for k, _ in self._items))

    def __len__(self) -> int:
        return len({k for k, _ in self._items})

    def __repr__(self) -> str:  # names only: a value may be a secret
        return f"Headers({', '.join(self)})"


class EncodedJSON(Mapping[str, Any]):
    """A JSON object that is encoded already: as `Request.json`, or as a part of it, its bytes are sent as they are.

    A call's input is encoded once, where it is checked: the size check, every envelope and every repetition use the
    same bytes. It reads like the object that it stands for; the first read decodes it.
    """

    __slots__ = ("_decoded", "data")

    def __init__(self, data: bytes) -> None:
        self.data = data
        self._decoded: dict[str, Any] | None = None

    def __getitem__(self, key: str) -> Any:
        return self._value()[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._value())

    def __len__(self) -> int:
        return len(self._value())

    def __bool__(self) -> bool:
        return self.data != b"{}"

    def __repr__(self) -> str:  # no value: an input is the user's
        return f"EncodedJSON({len(self.data)} bytes)"

    def _value(self) -> dict[str, Any]:
        decoded = self._decoded
        if decoded is None:
            decoded = self._decoded = cast("dict[str, Any]", _json.loads(self.data))
        return decoded


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One HTTP request, as data.

    Attributes:
        operation: A dotted name, as in ``"runpod.endpoint.create"``: used in logs, limits and faults.
        role: Which connections carry it (CONTRACTS: control, create, jobs, worker).
        call: What repeating it may do.
        deadline: On `Io.now`'s clock; the whole call, retries included, ends by then.
        read_timeout: Seconds without a byte before the attempt is given up; ``None``: the deadline alone.
        limit_key: The client-side rate bucket, where the platform has one.
        cleanup: Cleaning up passes breaker and retry tokens by (never the deadline).
        deployment: The deployment's logical name, where the call is about one: for logs, and for role ``worker``.
        reroutes: Without a connection the driver turns to another address: such a failure says nothing about the
            provider, so it costs no retry token and the breaker does not count it. A worker (role ``worker``) is not
            dialled again then.
        foreign: The reply is the user's own server's, so it is data: whatever its status, it is an answer. Redirects
            and errors are handed on as they are, nothing is repeated for their sake, and no rate is learnt from them.
        trust: Role ``worker``: whose certificates count for this request; ``None``: the usual roots.
        status_of: The status that a whole reply means, where the platform says in the body what others say by the
            status ("too many requests" in an HTTP 200): what is repeated goes by it.
    """

    method: str
    url: str
    operation: str
    headers: tuple[tuple[str, str], ...] = field(default=(), repr=False)
    params: tuple[tuple[str, str], ...] = field(default=(), repr=False)
    content: bytes | None = field(default=None, repr=False)
    json: Any = field(default=UNSET, repr=False)
    role: Role
    call: CallClass
    deadline: float
    read_timeout: float | None = None
    limit_key: str | None = None
    cleanup: bool = False
    deployment: str | None = None
    reroutes: bool = False
    foreign: bool = False
    trust: Trust | None = None
    status_of: Callable[[Response], int] | None = field(default=None, repr=False, compare=False)

    def __repr__(self) -> str:  # no query, no user, no header, no body: each may hold a secret
        scheme, _, rest = self.url.partition("?")[0].partition("//")
        shown = f"{scheme}//{rest.rpartition('@')[2]}"
        return f"Request({self.method} {shown}, {self.operation}, {self.role}, {self.call.value})"


@dataclass(frozen=True, slots=True, kw_only=True)
class Response:
    """One whole reply. `json` raises `unigpu.errors.InvalidResponseError` where the body is not JSON.

    Attributes:
        attempts: How many times the request was sent.
        stop_reason: Why it was not sent again, where this reply is an error that was retried or could have been.
    """

    status: int
    headers: Headers
    content: bytes = field(default=b"", repr=False)
    operation: str = ""
    attempts: int = 1
    stop_reason: str | None = None

    def json(self) -> Any:
        from unigpu.errors import InvalidResponseError  # here: the contract itself stays standard library only

        try:
            return _json.loads(self.content.decode("utf-8"), parse_constant=_no_constant)
        except (ValueError, RecursionError) as exc:
            reason = type(exc).__name__
        raise InvalidResponseError(  # outside of the except block: the parser's error holds the whole body
            f"{self.operation or 'the call'}: the reply (HTTP {self.status}) is not JSON: {reason}",
            operation=self.operation or None,
            maybe_executed=True,
            retryable=True,  # a cut body, or a page of something in between: the same call may succeed later
        )


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


class StreamResponse(Protocol):
    """A reply whose body is still on its way."""

    @property
    def status(self) -> int: ...
    @property
    def headers(self) -> Headers: ...
    def chunks(self) -> AsyncIterator[bytes]: ...
    async def read(self) -> bytes: ...


class Shield(Protocol):
    """What `Io.shield` does."""

    async def __call__(self, work: Callable[[], Awaitable[T]], *, seconds: float) -> T:
        """Run *work* to its end, at most *seconds*, whatever cancels the caller meanwhile.

        The cancellation, or the interrupt, is raised when *work* has ended.
        """
        ...


class Io(Protocol):
    """What code above may do to the world: send, stream, wait, read clocks, and protect a cleanup."""

    async def send(self, request: Request) -> Response: ...

    def stream(self, request: Request) -> AbstractAsyncContextManager[StreamResponse]:
        """Open a reply as a stream: status and headers are there before the first byte."""
        ...

    async def sleep(self, seconds: float) -> None: ...

    def now(self) -> float:
        """Monotonic seconds: for deadlines."""
        ...

    def wall(self) -> float:
        """Seconds since the epoch: for records and HTTP dates, never for waiting."""
        ...

    def random(self) -> float:
        """A number in [0, 1), for jitter."""
        ...

    @property
    def shield(self) -> Shield: ...
