"""What a Yotta reply means. Success is ``code == 10000`` in the body; an error may come with HTTP 200.

Codes: https://docs.yottalabs.ai/api-and-sdk/api-guides (the table), and the official client's own tests
(https://github.com/yottalabsai/YottaML/tree/main/tests), from which 10004, 12000, 20001, 20002, 24002 and 25002 are
known. There is no documented code for "no such GPU now" or "no money": those are told by their words.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final, cast

from unigpu.driver import Response, error_for
from unigpu.errors import (
    APIStatusError,
    AuthenticationError,
    ConflictError,
    InsufficientBalanceError,
    InvalidRequestError,
    InvalidResponseError,
    NoCapacityError,
    NotFoundError,
    PermissionDeniedError,
    ProviderUnavailableError,
    RateLimitError,
    UniGPUError,
)

PROVIDER: Final = "yotta"
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
