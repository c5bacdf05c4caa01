"""One request to Yotta's control plane: the key is put in, the envelope taken off, and its code becomes an error.

Success is ``code == 10000`` in the body; an error may come with HTTP 200. Codes:
https://docs.yottalabs.ai/api-and-sdk/api-guides (the table), and the official client's own tests
(https://github.com/yottalabsai/YottaML/tree/main/tests), from which 10004, 12000, 20001, 20002, 24002 and 25002 are
known. There is no documented code for "no such GPU now" or "no money": their words say so.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, cast

from pydantic import SecretStr

from unigpu.driver import UNSET, CallClass, DeploymentInfo, Io, Limit, Request, Response, Role, error_for
from unigpu.errors import (
    APIStatusError,
    AuthenticationError,
    ConflictError,
    DeploymentGone,
    InsufficientBalanceError,
    InvalidRequestError,
    InvalidResponseError,
    JobExpired,
    NoCapacityError,
    NotFoundError,
    PermissionDeniedError,
    ProviderUnavailableError,
    RateLimitError,
    UniGPUError,
)

PROVIDER: Final = "yotta"
ENDPOINT: Final = "endpoint"
POD: Final = "pod"
CREDENTIAL: Final = "credential"
PATHS: Final[Mapping[str, str]] = {
    ENDPOINT: "/v2/serverless",
    POD: "/v2/pods",
    CREDENTIAL: "/v2/container-registry-auths",
}
SUCCESS: Final = 10000
NOT_RUNNING: Final = frozenset({24000, 24002})
"""What a task or a change meets while nothing runs. That 24000 ("serverless unavailable") is said then is not
documented; both are taken for it."""
NO_TASK: Final = frozenset({24011, 40402})
NO_ROUTE: Final = 404
"""A plain HTTP 404: Yotta says "not found" by codes of its own, so that it is the call which is not there."""

KINDS: Final[Mapping[int, type[APIStatusError]]] = {
    10001: InvalidRequestError,  # invalid request parameters; also: no QUEUE endpoint
    10002: ProviderUnavailableError,  # system error
    10004: PermissionDeniedError,
    10007: NotFoundError,  # record not exist
    11000: NotFoundError,  # VM
    11001: ConflictError,  # VM status invalid
    11002: PermissionDeniedError,  # no terminate permissions
    12000: NotFoundError,  # pod (clients' tests)
    12001: ConflictError,  # resource status invalid
    13000: NotFoundError,  # pod
    14000: NotFoundError,  # endpoint
    20001: InvalidRequestError,  # creating failed
    20002: InvalidRequestError,  # updating failed
    24000: ProviderUnavailableError,  # serverless unavailable
    24001: NotFoundError,  # serverless does not exist
    24002: ConflictError,  # action not allowed (in this state)
    24011: NotFoundError,  # task
    25002: ConflictError,  # credential in use
    429: RateLimitError,
    40001: InvalidRequestError,  # a task's field
    40101: AuthenticationError,  # authentication context not found
    40402: NotFoundError,  # task (v1)
    44003: NotFoundError,  # cluster
    50001: ProviderUnavailableError,  # failed to create a task
}
_MAY_HAVE_ACTED: Final = frozenset({10002, 50001})
# An error that passes by waiting, told in an HTTP 200: the status by which its repetition is decided.
_AS_STATUS: Final[Mapping[int, int]] = {429: 429, 10002: 500, 50001: 500}
_NO_STOCK: Final = re.compile(
    r"\b(?:no|not enough|insufficient|out of|lack of)\b[^.]{0,40}\b(?:stock|capacity|gpus?|resources?|inventory)\b"
    r"|\bsold out\b",
    re.IGNORECASE,
)
_NO_MONEY: Final = re.compile(r"\b(?:balance|credits?|funds?|arrears|overdue)\b", re.IGNORECASE)
_REFUSALS: Final = frozenset({10001, 12001, 20001, 20002, 24000, 24002})

READ_TIMEOUT: Final = 30.0
PAGE: Final = 100
_MOST_PAGES: Final = 1000

SUBMIT_TASK: Final = "yotta.task.submit"
READ_TASK: Final = "yotta.task.read"
LIMITS: Final[Mapping[str, Limit]] = {
    SUBMIT_TASK: Limit(rate=35.0, burst=5.0),
    READ_TASK: Limit(rate=55.0, burst=5.0),
}
"""Tasks: 40 creates and 60 reads in any second, which is a burst and what is let through after it. Documented for one
endpoint, of the older API
(https://docs.yottalabs.ai/api-and-sdk/api-guides/serverless/queue-based-elastic-execution); here all endpoints of a
client share them, which keeps the account's limits (200 and 400) as well."""


@dataclass(frozen=True, slots=True, kw_only=True)
class YottaAPI:
    """Where the control plane is, and who we are there. It keeps no connection: that is the `Io`'s."""

    base: str
    key: SecretStr | None = field(repr=False)

    async def send(
        self,
        io: Io,
        method: str,
        path: str,
        operation: str,
        *,
        deadline: float,
        json: Any = UNSET,
        params: tuple[tuple[str, str], ...] = (),
        role: Role = "control",
        call: CallClass = CallClass.IDEMPOTENT,
        deployment: str | None = None,
        limit_key: str | None = None,
        hide: tuple[str, ...] = (),
    ) -> Any:
        """A request, and its envelope's ``data`` unless that is an error.

        Args:
            hide: Further values that no error may show, should the platform echo them.
        """
        secret = "" if self.key is None else self.key.get_secret_value()
        request = Request(
            method=method,
            url=f"{self.base}{path}",
            operation=f"{PROVIDER}.{operation}",
            headers=(("x-api-key", secret),),
            params=params,
            json=json,
            role=role,
            call=call,
            deadline=deadline,
            read_timeout=READ_TIMEOUT,
            limit_key=limit_key,
            deployment=deployment,
            status_of=status_of,
        )
        return data_of(await io.send(request), deployment=deployment, secrets=(secret, *hide))

    async def about(self, io: Io, method: str, info: DeploymentInfo, path: str, operation: str, **more: Any) -> Any:
        """A request about one endpoint or pod, where "not found" has a meaning.

        Raises:
            DeploymentGone: it does not exist.
            JobExpired: it does, and does not know the task.
        """
        try:
            where = f"{PATHS[kind_of(info)]}/{info.id}{path}"
            return await self.send(io, method, where, operation, deployment=info.name, **more)
        except NotFoundError as exc:
            about: dict[str, Any] = {"provider": PROVIDER, "operation": exc.operation, "deployment": info.name}
            if exc.status in NO_TASK:
                raise JobExpired(exc.message, **about) from exc
            raise DeploymentGone(f"{info.name or info.id} does not exist any more", status=exc.status, **about) from exc

    async def listed(self, io: Io, path: str, operation: str, *, deadline: float) -> Any:
        """A list's ``data``; that its route is not found says nothing of what exists.

        Raises:
            InvalidResponseError: the route is not there.
        """
        try:
            return await self.send(io, "GET", path, operation, deadline=deadline)
        except NotFoundError as exc:
            raise InvalidResponseError(exc.message, provider=PROVIDER, operation=exc.operation) from exc

    async def pages(
        self, io: Io, path: str, operation: str, params: tuple[tuple[str, str], ...] = (), *, deadline: float
    ) -> Sequence[Any]:
        """All rows of a list that is paged by ``page`` and ``size``, or an error."""
        found: list[Any] = []
        for number in range(1, _MOST_PAGES + 1):
            asked = (*params, ("page", str(number)), ("size", str(PAGE)))
            try:
                data = await self.send(io, "GET", path, operation, params=asked, deadline=deadline)
            except NotFoundError as exc:
                raise InvalidResponseError(exc.message, provider=PROVIDER, operation=exc.operation) from exc
            page = cast("Mapping[str, Any]", data) if isinstance(data, Mapping) else {"items": data}
            items = page.get("items")
            if not isinstance(items, list):
                break
            found += items
            if len(items) < PAGE or len(found) >= _total(page):  # pyright: ignore[reportUnknownArgumentType] - any JSON list
                return found
        raise InvalidResponseError(
            f"{operation}: the list cannot be read to its end", provider=PROVIDER, operation=f"{PROVIDER}.{operation}"
        )


def kind_of(info: DeploymentInfo) -> str:
    """Which kind of resource *info* is."""
    return POD if info.kind == "pod" else ENDPOINT


def _total(page: Mapping[str, Any]) -> float:
    """How many rows there are: beside the items (v2), or in a ``pagination`` of their own (v1)."""
    nested = page.get("pagination")
    told = page.get(
        "total", cast("Mapping[str, Any]", nested).get("totalCount") if isinstance(nested, Mapping) else None
    )
    return told if isinstance(told, int) else float("inf")


def code_of(response: Response) -> int | None:
    """The envelope's code; ``None``: there is no envelope."""
    try:
        body: object = response.json()
    except InvalidResponseError:
        return None
    code: object = cast("Mapping[str, object]", body).get("code") if isinstance(body, Mapping) else None
    if isinstance(code, bool):
        return None
    if isinstance(code, str) and code.strip().isdecimal() and len(code) < 12:
        return int(code)
    return code if isinstance(code, int) else None


def status_of(response: Response) -> int:
    """The HTTP status that the reply would have elsewhere: see `Request.status_of`."""
    if not 200 <= response.status < 300:
        return response.status
    return _AS_STATUS.get(code_of(response) or SUCCESS, response.status)


def data_of(response: Response, *, deployment: str | None = None, secrets: tuple[str, ...] = ()) -> Any:
    """The envelope's ``data``.

    Raises:
        APIStatusError: of the kind that the code means, else of the HTTP status.
        NoCapacityError: its words say that there is no such GPU.
        InvalidResponseError: no envelope, or a code that nobody knows.
    """
    code = code_of(response)
    if code == SUCCESS and 200 <= response.status < 300:
        return response.json().get("data")
    raise _error(response, code, deployment, secrets)


def _error(response: Response, code: int | None, deployment: str | None, secrets: tuple[str, ...]) -> UniGPUError:
    about: dict[str, Any] = {"deployment": deployment, "secrets": secrets}
    if code is None and not 200 <= response.status < 300:
        return error_for(response, PROVIDER, **about)
    if code not in KINDS and response.status >= 400:
        return error_for(response, PROVIDER, **about)
    if code is None or code not in KINDS:
        said = "no envelope with a code" if code is None else f"the code {code}, which is not documented"
        return InvalidResponseError(
            f"{response.operation or PROVIDER}: the reply has {said}",
            provider=PROVIDER,
            operation=response.operation or None,
            deployment=deployment,
            maybe_executed=True,
            attempts=response.attempts,
        )
    kind = KINDS[code]
    words = str(response.json().get("message") or "")[:300]
    if code in _REFUSALS and _NO_MONEY.search(words):
        kind = InsufficientBalanceError
    found = error_for(
        response,
        PROVIDER,
        kind=kind,
        message=f"code {code}: {words}" if words else f"code {code}",
        maybe_executed=code in _MAY_HAVE_ACTED,
        **about,
    )
    if isinstance(found, APIStatusError):
        found.status = code
    if code in _REFUSALS and kind is not InsufficientBalanceError and _NO_STOCK.search(words):
        return NoCapacityError(
            found.message,
            provider=PROVIDER,
            operation=found.operation,
            deployment=deployment,
            maybe_executed=False,
            hint="Accept more GPUs (gpu=[...]) or regions, or try later.",
        )
    return found
