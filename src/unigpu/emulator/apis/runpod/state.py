"""What the parts of the RunPod emulator share: its errors, the account, and reading requests.

Facts and spellings are of RunPod's OpenAPI file (https://docs.runpod.io/api-reference-v2/openapi.json) and of its
documentation pages; what they leave open is marked unverified where it is decided.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import random
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final, Literal, cast

from unigpu.emulator.contract import JSON, Answer, HttpCall, Launch, Reply
from unigpu.emulator.engine import DeploymentTerms, Engine, EngineDeployment, EngineRefused

from .quirks import Quirks

ENDPOINT: Final = "runpod.endpoint"
POD: Final = "runpod.pod"
PROBLEM: Final = "application/problem+json"
_TITLES: Final[Mapping[int, str]] = {
    400: "Bad Request",
    401: "Unauthorized",
    402: "Payment Required",
    403: "Forbidden",
    404: "Not Found",
    405: "Method Not Allowed",
    409: "Conflict",
    410: "Gone",
    413: "Content Too Large",
    422: "Unprocessable Entity",
    429: "Too Many Requests",
}
_MOST_DRAINED: Final = 20_000
_ID_LETTERS: Final = "abcdefghijklmnopqrstuvwxyz0123456789"


class RunPodProblem(Exception):
    """An answer of the control plane that is no success."""

    def __init__(self, status: int, detail: str, *errors: str, headers: tuple[tuple[str, str], ...] = ()) -> None:
        super().__init__(detail)
        self.status, self.detail, self.errors, self.headers = status, detail, errors, headers

    def reply(self) -> Reply:
        return problem(self.status, self.detail, *self.errors, headers=self.headers)


def problem(status: int, detail: str, *errors: str, headers: tuple[tuple[str, str], ...] = ()) -> Reply:
    """RFC 9457, as REST v2 writes it."""
    body: dict[str, JSON] = {"title": _TITLES.get(status, "Error"), "status": status, "detail": detail}
    if errors:
        body["errors"] = list(errors)
    return Reply(status=status, headers=(("content-type", PROBLEM), *headers), body=json.dumps(body).encode())


Handler = Callable[["RunPodAccount", HttpCall, tuple[str, ...], float], Answer]
Plane = Literal["control", "jobs", "balancer", "proxy", "worker", "graphql"]


@dataclass(frozen=True, slots=True)
class Route:
    """One route. *path* is a regular expression whose groups are the ids."""

    method: str
    path: str
    operation: str
    handler: Handler


class RunPodAccount:
    """One RunPod account: what the routes work on.

    Attributes:
        processes: Workers are real processes that come and take their jobs, as RunPod's own worker program does; else
            they are simulated ones that get them pushed.
        scarce: GPU types and pools that cannot be had now. A create of a pod is refused; an endpoint gets no workers.
        page: Rows that one page of a list has at most.
    """

    def __init__(
        self, engine: Engine, *, key: str | None, seed: int, page: int, quirks: Quirks, processes: bool, name: str
    ) -> None:
        self.engine = engine
        self.key = key
        self.page = page
        self.quirks = quirks
        self.processes = processes
        self.name = name
        self.scarce: set[str] = set()
        self.random = random.Random(seed)
        self.drained: dict[str, int] = {}
        self.last_request: dict[str, float] = {}
        self.counts: dict[tuple[str, str, int], int] = {}
        self._secret = secrets.token_bytes(16)

    def new_id(self, length: int = 14) -> str:
        return "".join(self.random.choice(_ID_LETTERS) for _ in range(length))

    def new_uuid(self) -> str:
        text = f"{self.random.getrandbits(128):032x}"
        return "-".join((text[:8], text[8:12], text[12:16], text[16:20], text[20:]))

    def worker_key(self, endpoint: str) -> str:
        """What the workers of an endpoint authorise themselves with; it opens nothing else."""
        return hmac.new(self._secret, endpoint.encode(), hashlib.sha256).hexdigest()[:32]

    def drain(self, job: str, read: int) -> None:
        """So many chunks of a job's stream were read. Of old jobs it is forgotten."""
        self.drained[job] = read
        if len(self.drained) > _MOST_DRAINED:
            del self.drained[next(iter(self.drained))]

    def keep(
        self, kind: str, data: Mapping[str, JSON], now: float, *, id: str, terms: DeploymentTerms | None = None
    ) -> EngineDeployment:
        """Something of the account, kept by the engine; without *terms* it never has a worker."""

        made = terms or DeploymentTerms(launch=Launch(), max_workers=0, data=data)
        return self.engine.deployments.create(id, kind, made, now)

    def find(self, kind: str, id: str, now: float, detail: str = "resource not found") -> EngineDeployment:
        """It, or a 404: also what another account has is not found."""
        try:
            found = self.engine.deployments.get(id, now)
        except EngineRefused:
            raise RunPodProblem(404, detail) from None
        if found.platform != kind or (found.deleting and not self.engine.settings.read_lag):
            raise RunPodProblem(404, detail)
        return found

    def all(self, kind: str, now: float) -> list[EngineDeployment]:
        """What a list shows, newest first. What is being deleted is gone at once, unless lists lag."""
        lag = bool(self.engine.settings.list_lag)
        rows = [one for one in self.engine.deployments.list(now, platform=kind) if lag or not one.deleting]
        return sorted(rows, key=lambda one: (-one.created_at, one.id))

    def listed(
        self,
        call: HttpCall,
        name: str,
        rows: list[EngineDeployment],
        shown: Callable[[EngineDeployment], JSON],
        *,
        empty: bool = False,
    ) -> Reply:
        """A page of a list. The cursor fits this operation and these parameters only, else 422."""
        limit = int_of(call.query.get("limit", "1000"), "limit", 1, 1000)
        others = sorted((k, v) for k, v in call.query.items() if k not in ("cursor", "limit"))
        mark = hashlib.sha256(json.dumps([name, others]).encode()).hexdigest()[:8]
        cursor = call.query.get("cursor", "")
        after: tuple[float, str] | None = None
        if cursor:
            given, _, rest = cursor.partition(".")
            at, _, id = rest.partition(".")
            try:
                after = (float.fromhex(at.replace("_", ".")), id)
            except ValueError:
                given = ""
            if given != mark:
                raise RunPodProblem(422, "request validation failed", "$.cursor: it is not a cursor of this list")
        left = [one for one in rows if after is None or (-one.created_at, one.id) > (-after[0], after[1])]
        size = min(limit, self.page)
        page, more = left[:size], len(left) > size
        last = page[-1] if page else None
        next_cursor = f"{mark}.{last.created_at.hex().replace('.', '_')}.{last.id}" if more and last else None
        if empty and not cursor and left:
            # RunPod drops members of clusters after it cut the page, so a page may be empty and another follow.
            page, more, next_cursor = [], True, f"{mark}.{float(2**60).hex().replace('.', '_')}.0"
        body = {name: [shown(one) for one in page], "pagination": {"nextCursor": next_cursor, "hasNextPage": more}}
        return Reply.json(body)

    def when(self, at: float | None) -> str | None:
        """A time of the engine as RFC 3339."""
        if at is None:
            return None
        text = datetime.fromtimestamp(self.engine.wall(at), UTC).isoformat(timespec="seconds")
        return text.replace("+00:00", "Z")

    def base(self, call: HttpCall) -> str | None:
        """Where this emulator is served by HTTP of this machine; ``None``: under RunPod's own host names."""
        if call.host in ("127.0.0.1", "localhost", "::1"):
            return f"{call.scheme}://{call.headers.get('host') or call.host}/{self.name}"
        return None


# Reading requests.


def object_of(call: HttpCall) -> dict[str, Any]:
    """The body, a JSON object."""
    try:
        found: object = json.loads(call.body)
    except (ValueError, RecursionError):
        raise RunPodProblem(400, "invalid JSON body") from None
    if not isinstance(found, dict):
        raise RunPodProblem(422, "request validation failed", "$: an object is needed")
    return cast("dict[str, Any]", found)


def int_of(text: str, name: str, low: int, high: int) -> int:
    """A whole number of the query."""
    try:
        value = int(text)
    except ValueError:
        value = low - 1
    if not low <= value <= high:
        raise RunPodProblem(
            422, "request validation failed", f"$.{name}: a whole number from {low} to {high} is needed"
        )
    return value
