"""A platform's API client: what is sent, what an answer means, and lists that are whole."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import pytest
from driver_kit import INFO, World, reply
from pydantic import SecretStr

from unigpu._io.bridge import run_sync
from unigpu._io.in_memory import MemoryIo
from unigpu.driver import (
    API,
    UNSET,
    CallClass,
    DeploymentInfo,
    Headers,
    Limit,
    Meaning,
    Numbers,
    Pages,
    Request,
    Response,
    Tokens,
    WireModel,
    as_kind,
    bearer,
    gone,
)
from unigpu.errors import (
    AuthenticationError,
    ConflictError,
    DeploymentGone,
    InvalidResponseError,
    JobExpired,
    NoCapacityError,
    NotFoundError,
    PermissionDeniedError,
    RateLimitError,
    UniGPUError,
)

KEY = "a-key-that-nobody-may-see"
HIDDEN = "-".join(("hidden", "word"))  # no source line shows it


@dataclass(frozen=True, kw_only=True)
class AcmeAPI(API):
    provider = "acme"
    limits = {"acme.job.submit": Limit(rate=1.0)}  # noqa: RUF012 - as a provider writes it
    meanings = (
        Meaning((409,), words=("no_stock",), kind=NoCapacityError, hint="Accept more GPUs."),
        Meaning((403,), hint="Use a key that may write."),
        Meaning((400, 404), words=("no such key",), kind=AuthenticationError),
    )
    none_words = ("you have none",)
    jobs: str = "https://jobs.acme.test"

    def path_of(self, info: DeploymentInfo) -> str:
        return f"/endpoints/{info.id}"

    def absent(self, info: DeploymentInfo, error: NotFoundError) -> UniGPUError:
        if "job_" in (error.body or ""):
            return JobExpired(error.message, provider="acme")
        return super().absent(info, error)


ACME = AcmeAPI(base="https://acme.test", key=SecretStr(KEY))


def send(world: World, *given: Any, api: API = ACME, **more: Any) -> Response:
    return run_sync(api.send(world.io, *given, deadline=1e12, **more))


def rows(world: World, pages: Pages | None = None, **more: Any) -> list[Mapping[str, Any]]:
    given: dict[str, Any] = {"under": "items", **more}
    return run_sync(ACME.rows(world.io, "/endpoints", "endpoint.list", pages=pages, deadline=1e12, **given))


def test_a_request_says_who_we_are_and_what_may_be_repeated() -> None:
    world = World((200, {}), (200, {}))
    send(world, "GET", "/gpus", "gpu.list")
    send(
        world, "POST", "/run", "job.submit", json={"a": 1}, params=(("x", "1"),), headers=(("accept", "text/plain"),),
        base=ACME.jobs, key=SecretStr("another"), role="jobs", call=CallClass.USER_DECIDES, read_timeout=5.0, info=INFO,
    )  # fmt: skip
    plain, whole = world.requests
    assert (plain.url, plain.operation, plain.json) == ("https://acme.test/gpus", "acme.gpu.list", UNSET)
    assert plain.headers == (("authorization", f"Bearer {KEY}"), ("accept", "application/json"))
    assert (plain.role, plain.call, plain.read_timeout, plain.limit_key) == (
        "control",
        CallClass.IDEMPOTENT,
        30.0,
        None,
    )
    assert (whole.url, whole.json, whole.params) == ("https://jobs.acme.test/run", {"a": 1}, (("x", "1"),))
    assert whole.headers == (("authorization", "Bearer another"), ("accept", "text/plain"))
    assert (whole.role, whole.call, whole.read_timeout) == ("jobs", CallClass.USER_DECIDES, 5.0)
    assert (whole.limit_key, whole.deployment) == ("acme.job.submit", "chat")


def test_without_a_key_no_header_is_sent() -> None:
    world = World((200, {}))
    send(world, "GET", "/", "x.get", api=AcmeAPI(base="https://acme.test"))
    assert world.requests[0].headers == (("accept", "application/json"),)
    assert bearer(None) == ()


def test_the_key_is_in_no_repr_and_no_error() -> None:
    world = World((500, {"error": f"you sent {KEY} and {HIDDEN}"}))
    with pytest.raises(UniGPUError) as caught:
        send(world, "GET", "/", "x.get", hide=(HIDDEN,))
    shown = "".join(traceback.format_exception(caught.value)) + repr(ACME) + repr(world.requests)
    assert KEY not in shown
    assert HIDDEN not in shown


@pytest.mark.parametrize(
    ("status", "body", "kind", "hint"),
    [
        (409, {"error": {"code": "no_stock"}}, NoCapacityError, "Accept more GPUs."),
        (409, {"error": "busy"}, ConflictError, None),
        (403, {"error": "read only"}, PermissionDeniedError, "Use a key that may write."),
        (404, {"error": "No such key"}, AuthenticationError, None),
        (404, {"error": "nothing"}, NotFoundError, None),
        (429, {}, RateLimitError, None),
    ],
)
def test_a_status_and_words_mean_an_error(status: int, body: Any, kind: type[UniGPUError], hint: str | None) -> None:
    with pytest.raises(UniGPUError) as caught:
        send(World((status, body)), "POST", "/endpoints", "endpoint.create", deployment="chat")
    error = caught.value
    assert type(error) is kind
    assert error.hint == hint
    assert (error.provider, error.operation, error.deployment) == ("acme", "acme.endpoint.create", "chat")
    assert error.maybe_executed is False
    assert error.__context__ is None


def test_not_found_is_about_the_deployment_where_the_request_is() -> None:
    async def about(answer: tuple[int, Any]) -> Response:
        world = World(answer)
        found = await ACME.about(world.io, "GET", INFO, "/workers", "worker.list", deadline=1e12)
        assert world.requests[0].url == "https://acme.test/endpoints/e/1/workers"
        return found

    assert run_sync(about((200, {}))).status == 200
    with pytest.raises(DeploymentGone) as caught:
        run_sync(about((404, {"error": "nothing"})))
    assert isinstance(caught.value.__cause__, NotFoundError)
    assert (caught.value.status, caught.value.deployment, caught.value.maybe_executed) == (404, "chat", False)
    with pytest.raises(JobExpired):
        run_sync(about((404, {"error": "job_7 is unknown"})))
    with pytest.raises(NotFoundError) as plain:
        send(World((404, {})), "GET", "/endpoints/x", "endpoint.get", deployment="chat")
    assert type(plain.value) is NotFoundError
    assert gone(INFO, operation="acme.job.get").operation == "acme.job.get"


def test_what_need_not_exist_is_none_where_it_does_not() -> None:
    optional = ACME.optional(World((404, {})).io, "/x", "x.get", deadline=1e12)
    assert run_sync(optional) is None
    with pytest.raises(PermissionDeniedError):
        run_sync(ACME.optional(World((403, {})).io, "/x", "x.get", deadline=1e12))


PAGED: list[tuple[Pages | None, list[Any], list[str]]] = [
    (None, [{"items": [{"n": 1}, {"n": 2}, {"n": 3}]}], [""]),
    (Tokens(), [{"items": [{"n": 1}], "next": "t"}, {"items": [{"n": 2}, {"n": 3}], "next": None}], ["", "after=t"]),
    (
        Tokens("page.next", "cursor", more="page.has", first=(("limit", "1"),)),
        [
            {"items": [{"n": 1}], "page": {"has": True, "next": "t"}},
            {"items": [], "page": {"has": True, "next": "u"}},  # a page may be empty, and not the last
            {"items": [{"n": 2}, {"n": 3}], "page": {"has": False, "next": "stale"}},
        ],
        ["limit=1", "limit=1&cursor=t", "limit=1&cursor=u"],
    ),
    (
        Numbers(size=2),
        [{"items": [{"n": 1}, {"n": 2}], "total": 3}, {"items": [{"n": 3}], "total": 3}],
        ["page=1&size=2", "page=2&size=2"],
    ),
    (Numbers(size=3), [{"items": [{"n": 1}, {"n": 2}, {"n": 3}], "pagination": {"totalCount": 3}}], ["page=1&size=3"]),
]  # fmt: skip


@pytest.mark.parametrize(("pages", "bodies", "queries"), PAGED)
def test_a_list_is_read_to_its_end(pages: Pages | None, bodies: list[Any], queries: list[str]) -> None:
    world = World(*((200, body) for body in bodies))
    assert rows(world, pages, params=(("kind", "x"),)) == [{"n": 1}, {"n": 2}, {"n": 3}]
    asked = ["&".join(f"{name}={value}" for name, value in request.params) for request in world.requests]
    assert asked == [f"kind=x&{query}".rstrip("&") for query in queries]


@pytest.mark.parametrize(
    ("answer", "pages"),
    [
        ((404, {"error": "no such route"}), None),
        ((200, {"other": []}), None),
        ((200, {"items": {"a": 1}}), None),
        ((200, {"items": [1]}), None),
        ((200, {"items": [], "has": True}), Tokens(more="has")),
    ],
)
def test_a_list_that_cannot_be_read_whole_is_an_error(answer: Any, pages: Pages | None) -> None:
    with pytest.raises(InvalidResponseError) as caught:
        rows(World(answer), pages)
    assert (caught.value.provider, caught.value.operation) == ("acme", "acme.endpoint.list")


def test_a_list_that_does_not_end_is_an_error() -> None:
    def endless(request: Request) -> Response:
        return Response(
            status=200, headers=Headers(), content=b'{"items": [], "next": "t"}', operation=request.operation
        )

    with pytest.raises(InvalidResponseError, match="to its end"):
        run_sync(ACME.rows(MemoryIo(endless, sync=True), "/x", "x.list", under="items", pages=Tokens(), deadline=1e12))


def test_each_row_of_a_list_has_the_same_shape_and_the_platforms_pages() -> None:
    class Row(WireModel):
        n: int

    @dataclass(frozen=True, kw_only=True)
    class PagedAPI(AcmeAPI):
        pages = Tokens()

    world = World((200, {"items": [{"n": 1}], "next": "t"}), (200, {"items": [{"n": 2}]}))
    api = PagedAPI(base="https://acme.test")
    listed = api.listed(world.io, Row, "/x", "x.list", under="items", deadline=1e12)
    assert run_sync(listed) == [Row(n=1), Row(n=2)]
    assert api.parse(Row, reply(200, {"n": 3})) == Row(n=3)
    with pytest.raises(InvalidResponseError, match=r"acme\.x\.list: .*\(n\)"):
        run_sync(api.listed(World((200, {"items": [{}]})).io, Row, "/x", "x.list", under="items", deadline=1e12))


def test_an_error_that_says_there_is_nothing_is_an_empty_list() -> None:
    assert rows(World((400, {"error": "You have none yet"}))) == []
    for other in ((400, {"error": "wrong"}), (500, {"error": "you have none"}), (403, {"error": "you have none"})):
        with pytest.raises(UniGPUError):
            rows(World(other))


def test_an_error_becomes_another_kind_with_all_that_it_knows() -> None:
    error = ConflictError("m", status=409, body="b", provider="p", operation="o", hint="h", retry_after=1.0, attempts=2)
    other: Any = as_kind(RateLimitError, error, retry_after=9.0)
    assert (other.status, other.body, other.retry_after, other.hint, other.attempts) == (409, "b", 9.0, "h", 2)
    assert other.retryable
    assert as_kind(NoCapacityError, error, hint="new").hint == "new"


def test_a_call_passes_one_frame_on_its_way_to_the_io() -> None:
    depths: list[int] = []

    def counting(request: Request) -> Response:
        frames = traceback.extract_stack()
        depths.append(sum(frame.filename.endswith("driver/api.py") for frame in frames))
        return Response(status=200, headers=Headers(), operation=request.operation)

    async def through(call: Callable[[], Any]) -> None:
        await call()

    io = MemoryIo(counting, sync=True)
    run_sync(through(lambda: ACME.about(io, "GET", INFO, "", "endpoint.get", deadline=1e12)))
    assert depths == [1]
