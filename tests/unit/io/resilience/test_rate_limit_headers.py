from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unigpu import errors
from unigpu._io.bridge import run_sync
from unigpu._io.clock import VirtualClock
from unigpu._io.contract import CallClass, Headers, Request, Response
from unigpu._io.in_memory import MemoryIo
from unigpu._io.resilience.rate_limit import Limit, LimitedIo, Limiter
from unigpu._io.resilience.rate_limit_headers import closed_for

WALL = 1_800_000_000.0

OPEN = '"minute";r=58;t=12, "hour";r=2800;t=1812, "day";r=49500;t=45012'
POLICY = '"minute";q=60;w=60, "hour";q=3000;w=3600, "day";q=50000;w=86400'

TABLE: list[tuple[dict[str, str], float]] = [
    ({}, 0),
    ({"RateLimit": OPEN, "RateLimit-Policy": POLICY}, 0),
    ({"RateLimit": '"minute";r=0;t=12, "hour";r=2800;t=1812'}, 12),
    ({"RateLimit": '"minute";r=0;t=12, "hour";r=0;t=1812'}, 1812),
    ({"RateLimit": "minute;t=12;r=0"}, 12),  # bare, and the other way round
    ({"RateLimit": ' "minute" ; r = 0 ; t = 12 '}, 12),
    ({"RateLimit": '"a,b;c";r=0;t=12'}, 12),  # separators in a name
    ({"RateLimit": '"minute";r="0";t="12";x'}, 12),
    ({"RateLimit": '"minute";r=0', "RateLimit-Policy": POLICY}, 60),  # not said when: a whole window
    ({"RateLimit": '"minute";r=0'}, 0),
    ({"RateLimit": '"minute";t=12'}, 0),
    ({"RateLimit": '"minute";r=-0;t=12'}, 0),
    ({"RateLimit": '"minute";r=0;t=-12'}, 0),
    ({"RateLimit": '"minute";r=0;t=nan'}, 0),
    ({"RateLimit": '"minute";r=0;t=inf'}, 0),
    ({"RateLimit": '"minute";r=0;t=1e3'}, 0),
    ({"RateLimit": '"minute";r=0;t=999999999'}, 0),  # longer than a day is a mistake, not a rate
    ({"RateLimit": '"minute;r=0;t=12'}, 0),  # the quote never ends
    ({"RateLimit": ";;;,,,=,"}, 0),
    ({"RateLimit": ""}, 0),
    ({"RateLimit": "limit=100, remaining=0, reset=12"}, 12),
    ({"RateLimit": "limit=100, remaining=1, reset=12"}, 0),
    ({"RateLimit-Limit": "60", "RateLimit-Remaining": "0", "RateLimit-Reset": "12"}, 12),
    ({"RateLimit-Remaining": "1", "RateLimit-Reset": "12"}, 0),
    ({"X-RateLimit-Remaining": "0", "X-RateLimit-Reset": str(int(WALL) + 30)}, 30),  # a moment
    ({"X-RateLimit-Remaining": "0", "X-RateLimit-Reset": str(int(WALL) - 30)}, 0),
    ({"X-RateLimit-Remaining": "0"}, 0),
]


@pytest.mark.parametrize(("headers", "seconds"), TABLE)
def test_a_window_that_is_used_up_is_read_in_every_dialect(headers: dict[str, str], seconds: float) -> None:
    assert closed_for(Headers(headers), wall=WALL) == seconds


def test_repeated_header_fields_are_one_list() -> None:
    headers = Headers([("RateLimit", '"minute";r=3;t=1'), ("ratelimit", '"hour";r=0;t=7')])
    assert closed_for(headers, wall=WALL) == 7


@given(st.text(max_size=200), st.text(max_size=60))
def test_no_text_raises_or_waits_longer_than_a_day(text: str, policy: str) -> None:
    for name in ("ratelimit", "ratelimit-remaining", "x-ratelimit-remaining"):
        headers = Headers({name: text, "ratelimit-policy": policy, "ratelimit-reset": policy})
        assert 0 <= closed_for(headers, wall=WALL) <= 86_400


# What a client does with it


class Cloud:
    """Says in each reply what is left; its calls are counted."""

    def __init__(self, *headers: dict[str, str]) -> None:
        self.headers, self.at, self.clock = list(headers), list[float](), VirtualClock()
        self.limiter = Limiter({"k": Limit.every(2.0)})

    def __call__(self, _: Request) -> Response:
        self.at.append(self.clock.now())
        said = self.headers.pop(0) if self.headers else {}
        return Response(status=200, headers=Headers(said))

    def send(
        self, *, deadline: float = 1e9, cleanup: bool = False, role: str = "control", key: str | None = None
    ) -> None:
        io = LimitedIo(MemoryIo(self, self.clock, sync=True), self.limiter)
        request = Request(
            method="GET", url="https://x.example/", operation="x.y", role=role, call=CallClass.IDEMPOTENT,  # type: ignore[arg-type]  # a role
            deadline=deadline, cleanup=cleanup, limit_key=key,
        )  # fmt: skip
        run_sync(io.send(request))


def test_a_used_up_window_is_waited_for_before_the_next_call_is_sent() -> None:
    cloud = Cloud({"RateLimit": '"minute";r=0;t=12'})
    cloud.send()
    cloud.send(role="jobs")  # another plane has windows of its own
    cloud.send(role="create")
    cloud.send()
    assert cloud.at == [0, 0, 12, 12]


def test_a_window_that_opens_after_the_deadline_is_refused_without_sending_or_sleeping() -> None:
    cloud = Cloud({"RateLimit": '"minute";r=0;t=12'})
    cloud.send()
    with pytest.raises(errors.RateLimitError) as caught:
        cloud.send(deadline=10)
    assert (caught.value.retry_after, caught.value.stop_reason, caught.value.maybe_executed) == (12, "deadline", False)
    assert (cloud.at, cloud.clock.now()) == ([0], 0)


def test_a_window_that_stays_closed_for_long_is_refused_with_the_time_and_cleaning_up_is_sent_all_the_same() -> None:
    cloud = Cloud({"RateLimit": '"hour";r=0;t=1812'})
    cloud.send()
    with pytest.raises(errors.RateLimitError) as caught:
        cloud.send()
    assert (caught.value.retry_after, caught.value.stop_reason) == (1812, "retry_after")
    cloud.send(cleanup=True)
    assert (cloud.at, cloud.clock.now()) == ([0, 0], 0)
    cloud.clock.sleep(1812)
    cloud.send()
    assert cloud.at[-1] == 1812


def test_an_older_reply_that_comes_late_does_not_open_what_a_newer_one_closed() -> None:
    limiter = Limiter()
    limiter.observe("w", Headers({"RateLimit": '"m";r=0;t=12'}), now=0, wall=WALL)
    limiter.observe("w", Headers({"RateLimit": '"m";r=1;t=12'}), now=1, wall=WALL)
    limiter.observe("w", Headers({"RateLimit": '"m";r=0;t=3'}), now=1, wall=WALL)
    assert limiter.closed("w", 2) == 10
    assert limiter.closed("w", 12) == 0


def test_a_table_may_name_a_minimum_interval_and_grow_while_it_is_used() -> None:
    cloud = Cloud()
    for _ in range(3):
        cloud.send(key="k")
    cloud.limiter.add({"k": Limit.every(2.0), "other": Limit(rate=1)})
    cloud.send(key="k")
    assert cloud.at == [0, 2, 4, 6]
