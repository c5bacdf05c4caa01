"""One request to Yotta's control plane: the key is put in, the envelope taken off, and its code becomes an error.

Success is ``code == 10000`` in the body; an error may come with HTTP 200. Codes:
https://docs.yottalabs.ai/api-and-sdk/api-guides (the table), and the official client's own tests
(https://github.com/yottalabsai/YottaML/tree/main/tests), from which 10004, 12000, 20001, 20002, 24002 and 25002 are
known. There is no documented code for "no such GPU now" or "no money": their words say so.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import quote

from pydantic import SecretStr

from unigpu.driver import (
    API,
    DeploymentInfo,
    Limit,
    Params,
    Response,
    as_kind,
    error_for,
    gone,
    json_object,
)
from unigpu.errors import (
    APIStatusError,
    AuthenticationError,
    ConflictError,
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

from .options import Options

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
"""The codes of a task or a change while nothing runs. Yotta does not document that 24000 ("serverless unavailable")
means this; both are taken for it."""
NO_TASK: Final = frozenset({24011, 40402})
NO_ROUTE: Final = 404
"""A plain HTTP 404. Yotta says "not found" by codes of its own, so here the route is missing."""

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
# An error that passes by waiting, in an HTTP 200: the status by which the retry policy decides.
_AS_STATUS: Final[Mapping[int, int]] = {429: 429, 10002: 500, 50001: 500}
_NO_STOCK: Final = re.compile(
    r"\b(?:no|not enough|insufficient|out of|lack of)\b[^.]{0,40}\b(?:stock|capacity|gpus?|resources?|inventory)\b"
    r"|\bsold out\b",
    re.IGNORECASE,
)
_NO_MONEY: Final = re.compile(r"\b(?:balance|credits?|funds?|arrears|overdue)\b", re.IGNORECASE)
_REFUSALS: Final = frozenset({10001, 12001, 20001, 20002, 24000, 24002})

LIMITS: Final[Mapping[str, Limit]] = {
    "yotta.task.submit": Limit(rate=35.0, burst=5.0),
    "yotta.task.get": Limit(rate=55.0, burst=5.0),
}
"""Tasks: 40 creates and 60 reads in any second, which is a burst and what is let through after it. Documented for one
endpoint, of the older API
(https://docs.yottalabs.ai/api-and-sdk/api-guides/serverless/queue-based-elastic-execution); here all endpoints of a
client share them, which keeps the account's limits (200 and 400) as well."""


@dataclass(frozen=True, kw_only=True)
class YottaAPI(API):
    """Yotta's control plane.

    Attributes:
        options: The driver's own settings.
    """

    provider = PROVIDER
    limits = LIMITS

    options: Options = field(default_factory=Options)

    def headers(self, key: SecretStr | None) -> Params:
        return (("x-api-key", "" if key is None else key.get_secret_value()),)

    def path_of(self, info: DeploymentInfo) -> str:
        return f"{PATHS[kind_of(info)]}/{quote(info.id, safe='')}"

    def body_of(self, response: Response) -> Any:
        """The envelope's ``data``."""
        return response.json().get("data")

    def status_of(self, response: Response) -> int:
        if not 200 <= response.status < 300:
            return response.status
        return _AS_STATUS.get(code_of(response) or SUCCESS, response.status)

    def error_of(
        self, response: Response, *, deployment: str | None = None, hide: tuple[str, ...] = ()
    ) -> UniGPUError | None:
        """The error of the kind that the code means, else that of the HTTP status."""
        code = code_of(response)
        ok = 200 <= response.status < 300
        if ok and code == SUCCESS:
            return None
        about: dict[str, Any] = {"deployment": deployment, "secrets": (*self.secrets, *hide)}
        if code is not None and code in KINDS:
            return _by_code(code, response, about)
        if not ok:
            return error_for(response, PROVIDER, **about)
        said = "no envelope with a code" if code is None else f"the code {code}, which is not documented"
        return InvalidResponseError(
            f"{response.operation or PROVIDER}: the reply has {said}",
            provider=PROVIDER,
            operation=response.operation or None,
            deployment=deployment,
            maybe_executed=True,
            attempts=response.attempts,
        )

    def absent(self, info: DeploymentInfo, error: NotFoundError) -> UniGPUError:
        """Its endpoint or pod is gone, or (`JobExpired`) it is there and does not have the task."""
        if error.status not in NO_TASK:
            return gone(info, error)
        return JobExpired(error.message, provider=PROVIDER, operation=error.operation, deployment=info.name)


def kind_of(info: DeploymentInfo) -> str:
    """Which kind of resource *info* is."""
    return POD if info.kind == "pod" else ENDPOINT


def code_of(response: Response) -> int | None:
    """The envelope's code; ``None``: there is no envelope."""
    code = json_object(response.content).get("code")
    if isinstance(code, bool):
        return None
    if isinstance(code, str) and code.strip().isdecimal() and len(code) < 12:
        return int(code)
    return code if isinstance(code, int) else None


def _by_code(code: int, response: Response, about: Mapping[str, Any]) -> UniGPUError:
    kind = KINDS[code]
    words = str(json_object(response.content).get("message") or "")[:300]
    if code in _REFUSALS and _NO_MONEY.search(words):
        kind = InsufficientBalanceError
    error = error_for(
        response,
        PROVIDER,
        kind=kind,
        message=f"code {code}: {words}" if words else f"code {code}",
        maybe_executed=code in _MAY_HAVE_ACTED,
        **about,
    )
    if not isinstance(error, APIStatusError):
        return error
    error.status = code
    if code in _REFUSALS and kind is not InsufficientBalanceError and _NO_STOCK.search(words):
        hint = "Accept more GPUs (gpu=[...]) or regions, or try later."
        return as_kind(NoCapacityError, error, hint=hint)
    return error
