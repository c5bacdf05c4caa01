"""Tokens, breaker and rates together, around one `Io` on virtual time."""

from __future__ import annotations

import itertools
import logging
import random
import threading
from collections.abc import Callable
from typing import Any

import pytest

from unigpu import errors
from unigpu._io.bridge import run_sync
from unigpu._io.clock import VirtualClock
from unigpu._io.contract import CallClass, Headers, Request, Response
from unigpu._io.in_memory import MemoryIo
from unigpu._io.poll import poll
from unigpu._io.request_defaults import for_cleanup, within
from unigpu._io.resilience.breaker import IN_A_ROW, JITTER, OPEN_SECONDS, Breaker
from unigpu._io.resilience.protection import WARNING_PAUSE, Protection
from unigpu._io.resilience.rate_limit import LimitedIo, Limiter
from unigpu._io.resilience.retry import RetryingIo, RetryPolicy
from unigpu._io.resilience.retry_budget import CAPACITY, FIRST_SUCCESS, THROTTLE_COST, TRANSIENT_COST, RetryTokens
from unigpu._io.resilience.telemetry import path_template
from unigpu._io.status import check, error_for

FIELDS = (
    "provider", "operation", "attempt", "max_attempts", "outcome_class", "status", "reason", "sleep_s",
    "retry_after_s", "deadline_left_s", "tokens_left", "breaker", "request_id", "deployment",
)  # fmt: skip

Answer = int | Exception


def never() -> errors.TransportError:
    return errors.TransportError("no connection", never_sent=True)


def lost() -> errors.TransportError:
    return errors.TransportError("broke")


class World:
    """A provider that answers as it is told, and a client's way to it."""

    def __init__(
        self, *answers: Answer, then: Answer = 200, protection: Protection | None = None, **policy: Any
    ) -> None:
        self.clock, self.answers, self.then = VirtualClock(), list(answers), then
        self.dice = random.Random(4)
        self.sent: list[float] = []
        self.events: list[tuple[str, dict[str, Any]]] = []
        self.protection = protection or Protection.usual()
        self.headers: dict[str, str] = {}
        self.took = 0.0
        memory = MemoryIo(self._handle, self.clock, sync=True, random=self.dice.random)
        self.io = RetryingIo(
            LimitedIo(memory, self.protection.limiter),
            RetryPolicy(**policy) if policy else None,
            protection=self.protection,
            tell=lambda kind, _, fields: self.events.append((kind, dict(fields))),
        )

    def _handle(self, _: Request) -> Response:
        self.sent.append(self.clock.now())
        self.clock.advance(self.took)
        answer = self.answers.pop(0) if self.answers else self.then
        if isinstance(answer, Exception):
            raise answer
        return Response(status=answer, headers=Headers(self.headers))

    def request(self, **fields: Any) -> Request:
        usual: dict[str, Any] = {
            "method": "GET", "url": "https://api.example/v2/things", "operation": "x.thing.get", "role": "control",
            "call": CallClass.IDEMPOTENT, "deadline": self.clock.now() + 600.0,
        }  # fmt: skip
        return Request(**{**usual, **fields})

    def send(self, io: Any = None, **fields: Any) -> Response:
        return run_sync((io or self.io).send(self.request(**fields)))

    def stop_reason(self, **fields: Any) -> str | None:
        try:
            return self.send(**fields).stop_reason
        except errors.UniGPUError as exc:
            return exc.stop_reason

    def tokens(self) -> float:
        assert self.protection.tokens is not None
        return self.protection.tokens.left("x control", self.clock.now())

    def state(self) -> str:
        assert self.protection.breaker is not None
        return self.protection.breaker.state("x control", self.clock.now())

    def break_it(self) -> None:
        self.then = 503
        while self.state() != "open":
            self.stop_reason()
        self.sent.clear()


# Tokens


def test_a_repetition_costs_what_its_kind_costs_and_its_success_gives_it_back() -> None:
    world = World(503, 429, protection=Protection(tokens=RetryTokens(refill=0.0)))
    assert world.send().attempts == 3
    assert world.tokens() == CAPACITY - TRANSIENT_COST  # the last cost, of the 429, came back
    world.send()
    assert world.tokens() == CAPACITY - TRANSIENT_COST + FIRST_SUCCESS
    world.answers[:] = [429] * 4
    assert world.stop_reason() == "attempts"
    assert world.tokens() == CAPACITY - TRANSIENT_COST + FIRST_SUCCESS - 3 * THROTTLE_COST


def test_without_tokens_each_call_is_sent_once_and_the_error_says_why() -> None:
    world = World(then=503, protection=Protection(tokens=RetryTokens(refill=0.0)))
    reasons = [world.stop_reason() for _ in range(6)]
    assert reasons == ["attempts"] * 3 + ["tokens"] * 3
    assert len(world.sent) == 3 * 4 + 2 + 1 + 1
    world.then = lost()
    with pytest.raises(errors.TransportError) as caught:
        world.send()
    assert (caught.value.stop_reason, caught.value.attempts) == ("tokens", 1)
    error = error_for(Response(status=503, headers=Headers(), stop_reason="tokens"), "x")
    assert error.stop_reason == "tokens"


def test_tokens_are_asked_last_so_that_nothing_is_paid_for_a_call_that_ends_anyway() -> None:
    for fields, reason in (({"deadline": 0.05}, "deadline"), ({"call": CallClass.USER_DECIDES}, "class")):
        world = World(then=lost())
        assert world.stop_reason(**fields) == reason
        assert world.tokens() == CAPACITY
    world = World(then=429)
    world.headers["retry-after"] = "61"
    assert world.stop_reason() == "retry_after"
    assert (world.tokens(), world.clock.now()) == (CAPACITY, 0.0)


# The breaker


def test_the_fifth_failure_ends_a_call_and_the_next_one_is_refused_with_the_time() -> None:
    world = World(then=lost())
    assert [world.stop_reason() for _ in range(2)] == ["attempts", "breaker"]
    assert len(world.sent) == IN_A_ROW
    with pytest.raises(errors.CircuitOpen) as caught:
        world.send()
    error = caught.value
    assert (error.attempts, error.stop_reason, error.never_sent, error.maybe_executed) == (0, "breaker", True, False)
    assert error.retry_after is not None
    assert OPEN_SECONDS * (1 - JITTER) <= error.retry_after <= OPEN_SECONDS * (1 + JITTER)
    assert len(world.sent) == IN_A_ROW
    world.then = 200
    world.clock.sleep(error.retry_after)
    assert world.send().status == 200
    assert world.state() == "closed"


@pytest.mark.parametrize("status", [400, 401, 403, 404, 409, 422, 429])
def test_an_answer_never_opens_it_and_a_probe_that_is_answered_closes_it(status: int) -> None:
    world = World(then=status)
    for _ in range(30):
        world.stop_reason()
    assert world.state() == "closed"
    world.break_it()
    world.then = status
    world.clock.sleep(OPEN_SECONDS * (1 + JITTER))
    world.stop_reason()
    assert world.state() == "closed"


def test_a_missing_connection_that_leads_to_another_address_counts_for_nothing_and_costs_nothing() -> None:
    world = World(then=never())
    for _ in range(10):
        assert world.stop_reason(reroutes=True) == "attempts"
    assert (world.state(), world.tokens()) == ("closed", CAPACITY)
    world.then = lost()
    world.stop_reason(reroutes=True)
    world.stop_reason(reroutes=True)
    assert world.state() == "open"


def test_a_worker_that_cannot_be_reached_is_not_dialled_again_where_there_are_others() -> None:
    world = World(then=never())
    assert world.stop_reason(reroutes=True, role="worker") is None
    assert len(world.sent) == 1
    assert world.stop_reason(role="worker") == "attempts"


def test_a_callers_own_short_deadline_says_nothing_about_the_provider() -> None:
    def late() -> errors.TransportTimeout:
        return errors.TransportTimeout("late", stop_reason="deadline")

    def after(took: float, role: str) -> str:
        world = World(then=late())
        world.took = took
        for _ in range(30):
            assert world.stop_reason(role=role) in ("deadline", "breaker")
        assert world.protection.breaker is not None
        plane = f"x {'jobs' if role == 'jobs' else 'control'}"
        return world.protection.breaker.state(plane, world.clock.now())

    assert after(0.1, "control") == "closed"
    assert after(600.0, "jobs") == "closed"  # a long call, whose caller gave up
    assert after(6.0, "control") != "closed"


def test_what_breaks_on_this_side_frees_the_probe() -> None:
    world = World()
    world.break_it()
    world.clock.sleep(OPEN_SECONDS * (1 + JITTER))
    for error in (errors.ClientClosed("closed"), errors.ConfigurationError("no"), AssertionError("not mocked")):
        world.then = error
        with pytest.raises(type(error)):
            world.send()
    world.then = 200
    assert world.send().status == 200


def test_a_redirect_is_no_answer() -> None:
    world = World(then=errors.InvalidResponseError("a redirect"))
    for _ in range(IN_A_ROW):
        with pytest.raises(errors.InvalidResponseError):
            world.send()
    assert world.state() == "open"


def test_each_deployments_workers_have_a_breaker_of_their_own() -> None:
    world = World(then=lost())
    worker = {"role": "worker", "call": CallClass.USER_DECIDES}
    for _ in range(IN_A_ROW):
        world.stop_reason(**worker, deployment="a")
    assert world.stop_reason(**worker, deployment="a") == "breaker"
    world.then = 200
    assert world.stop_reason(**worker, deployment="b") is None
    assert world.stop_reason(**worker, url="https://203.0.113.9:4000/secret") is None
    assert world.stop_reason() is None


def test_waiting_for_something_outlives_an_open_breaker() -> None:
    world = World()
    world.break_it()
    world.then = 200

    async def look() -> str:
        check(await world.io.send(world.request()), "x")
        return "there"

    assert run_sync(poll(world.io, look, deadline=world.clock.now() + 300)) == "there"
    assert len(world.sent) == 1  # not a knock a second


# Cleaning up


def test_cleaning_up_passes_tokens_and_breaker_by_and_never_the_deadline() -> None:
    world = World()
    world.break_it()
    before = world.tokens()
    with pytest.raises(errors.CircuitOpen):
        world.send()
    reply = world.send(for_cleanup(world.io))
    assert (reply.attempts, reply.stop_reason) == (4, "attempts")
    assert world.tokens() == pytest.approx(before, abs=5)  # time gives some back
    assert world.send(for_cleanup(world.io), deadline=world.clock.now() + 0.01).stop_reason == "deadline"
    world.then = 200
    assert world.send(for_cleanup(world.io)).status == 200
    assert world.send().status == 200  # its answer showed that the provider is there


def test_stamps_add_up_and_of_nested_deadlines_the_earliest_counts() -> None:
    seen: list[Request] = []

    def handle(request: Request) -> Response:
        seen.append(request)
        return Response(status=200, headers=Headers())

    world = World()
    io = MemoryIo(handle, world.clock, sync=True)
    for way in (within(within(io, 100.0), 50.0), within(within(io, 50.0), 100.0), for_cleanup(within(io, 50.0))):
        world.send(way)
        world.send(way, deadline=20.0)
    assert [request.deadline for request in seen] == [50.0, 20.0] * 3
    assert [request.cleanup for request in seen] == [False] * 4 + [True] * 2
    assert for_cleanup(for_cleanup(io)) is not io
    plain = world.request()
    run_sync(within(io, 1e9).send(plain))
    assert seen[-1] is plain


# Goal: a provider that is down is not stormed


@pytest.mark.parametrize("made", [never, lost, lambda: 500])
def test_ten_thousand_calls_to_a_provider_that_is_down(made: Callable[[], Answer]) -> None:
    world = World(then=made())
    opened = 0
    counted: list[tuple[float, int]] = []
    for _ in range(10_000):
        before = len(world.sent)
        world.stop_reason()
        counted.append((world.clock.now(), len(world.sent) - before))
        opened = opened or (len(world.sent) if world.state() == "open" else 0)
        world.clock.sleep(0.1)
    assert opened == IN_A_ROW
    later = [attempts for at, attempts in counted if at > 1.0]
    assert sum(later) / len(later) <= 1.01
    seconds = world.clock.now()
    probes = world.sent[IN_A_ROW:]
    gaps = [b - a for a, b in itertools.pairwise(world.sent[IN_A_ROW - 1 :])]
    assert min(gaps) >= OPEN_SECONDS * (1 - JITTER)
    assert len(probes) <= seconds / OPEN_SECONDS * 1.05 + 1  # one in 30 s, give or take the jitter


def test_tokens_alone_already_bound_the_storm() -> None:
    world = World(then=503, protection=Protection(tokens=RetryTokens()))
    counted: list[int] = []
    for _ in range(2_000):
        before = len(world.sent)
        world.stop_reason()
        counted.append(len(world.sent) - before)
        world.clock.sleep(0.1)
    assert sum(counted[20:]) / len(counted[20:]) <= 1.02  # time gives back one repetition in 100 s


# What is told


def test_records_and_events_have_the_same_fields_and_levels(caplog: pytest.LogCaptureFixture) -> None:
    world = World(503, never(), 200)
    world.headers["x-request-id"] = "r1"
    with caplog.at_level(logging.DEBUG, "unigpu"):
        world.send(deployment="app")
        world.then = 503
        for _ in range(4):
            world.stop_reason(deployment="app")
    retry = [r for r in caplog.records if r.name == "unigpu.retry"]
    assert all(tuple(r.unigpu) == FIELDS for r in retry)  # type: ignore[attr-defined]  # our extra field
    assert [dict(r.unigpu) for r in retry] == [fields for _, fields in world.events]  # type: ignore[attr-defined]  # the same
    kinds = [kind for kind, _ in world.events]
    assert kinds == ["retry"] * 2 + ["retry"] * 3 + ["gave_up", "breaker.opened"] + ["gave_up"] * 3
    assert [r.levelname for r in retry] == ["INFO"] * 5 + ["WARNING"] + ["INFO"] * 2 + ["DEBUG"] * 2
    first = world.events[0][1]
    assert (first["provider"], first["operation"], first["deployment"]) == ("x", "x.thing.get", "app")
    assert (first["attempt"], first["max_attempts"], first["outcome_class"], first["status"]) == (
        1,
        4,
        "ambiguous",
        503,
    )
    assert (first["request_id"], first["breaker"], first["reason"]) == ("r1", "closed", "HTTP 503")
    assert world.events[1][1]["reason"] == "TransportError"
    assert [fields["reason"] for kind, fields in world.events if kind == "gave_up"] == [
        "attempts", "breaker", "breaker", "breaker",
    ]  # fmt: skip
    http = [r for r in caplog.records if r.name == "unigpu.http"]
    assert len(http) == len(world.sent)
    assert {r.levelname for r in http} == {"DEBUG"}
    assert set(http[0].unigpu) == {  # type: ignore[attr-defined]  # our extra field
        "provider", "operation", "deployment", "attempt", "method", "host", "path", "status", "error", "bytes", "ms",
    }  # fmt: skip


def test_one_warning_in_thirty_seconds_about_one_plane(caplog: pytest.LogCaptureFixture) -> None:
    world = World(then=lost())
    warned: list[float] = []
    with caplog.at_level(logging.WARNING, "unigpu.retry"):
        for number in range(3_000):
            caplog.clear()
            world.stop_reason()
            warned += [world.clock.now()] * len(caplog.records)
            world.clock.sleep(0.1)
            if number == 1_500:
                world.protection.breaker = Breaker()
    assert all(b - a >= WARNING_PAUSE for a, b in itertools.pairwise(warned))
    assert len(warned) >= world.clock.now() / (2 * WARNING_PAUSE)  # and it does not fall silent
    world.then = lost()
    caplog.clear()
    with caplog.at_level(logging.WARNING, "unigpu.retry"):
        world.stop_reason(role="jobs")
    assert len(caplog.records) == 1


@pytest.mark.parametrize(
    ("url", "path"),
    [
        ("https://h/v2/serverless/ab12cd/run?key=s", "/v2/serverless/{}/run"),
        ("https://h/api/v0/endptjobs/4711/", "/api/v0/endptjobs/{}/"),
        ("https://u:p@h/Summarize/..%2f/x", "/{}/{}/x"),
        ("https://h", ""),
        ("https://[/", "?"),
    ],
)
def test_a_logged_path_keeps_plain_words_only(url: str, path: str) -> None:
    assert path_template(url) == path


def test_one_protection_serves_threads_side_by_side() -> None:
    """Each thread has a clock and a way of its own, as a client's loops have; what is remembered is one."""
    shared = Protection(tokens=RetryTokens(refill=0.0), limiter=Limiter())
    counted, lock = list[int](), threading.Lock()

    def work(seed: int) -> None:
        world = World(then=503, protection=shared)
        world.dice.seed(seed)
        for _ in range(50):
            world.stop_reason()
        with lock:
            counted.append(len(world.sent))

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(counted) == 8 * 50 + CAPACITY / TRANSIENT_COST
