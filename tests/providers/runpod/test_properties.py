"""What must hold whatever the catalogue or the service says."""

from __future__ import annotations

from typing import Any

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from runpod_script import KEY

from unigpu import Client
from unigpu._io.clock import InstantClock, use_clock
from unigpu.driver import DeploymentSpec, EventParser, ServerSentEvent
from unigpu.errors import NoCapacityError, UniGPUError
from unigpu.providers.runpod import calls, gpus
from unigpu.providers.runpod.wire import GpuTypeWire, JobWire, PriceWire

TYPES = {
    "NVIDIA GeForce RTX 4090": ("ADA_24", 24), "NVIDIA L4": ("AMPERE_24", 24), "NVIDIA RTX A5000": ("AMPERE_24", 24),
    "NVIDIA GeForce RTX 3090": ("AMPERE_24", 24), "NVIDIA L40": ("ADA_48_PRO", 48), "NVIDIA L40S": ("ADA_48_PRO", 48),
    "NVIDIA RTX 6000 Ada Generation": ("ADA_48_PRO", 48), "NVIDIA H100 NVL": ("ADA_80_PRO", 94),
    "NVIDIA H100 80GB HBM3": ("ADA_80_PRO", 80), "NVIDIA A30": (None, 24), "NVIDIA Next 9000": ("NEXT_64", 64),
}  # fmt: skip
ASKED = ["RTX 4090", "L4", "RTX A5000", "L40", "L40S", "any H100", "A30", "24GB", "48GB", "80GB"]


@st.composite
def catalogues(draw: st.DrawFn) -> list[GpuTypeWire]:
    rows: list[GpuTypeWire] = []
    for id in draw(st.lists(st.sampled_from(sorted(TYPES)), unique=True)):
        pool, memory = TYPES[id]
        price = draw(st.none() | st.floats(0.1, 9))
        rows.append(GpuTypeWire(id=id, name=id, pool=pool, memory=memory, price=PriceWire(serverless=price)))
    return rows


@given(catalogues(), st.lists(st.sampled_from(ASKED), min_size=1, max_size=3, unique=True), st.floats(0.2, 9))
def test_an_endpoint_may_run_on_exactly_what_is_acceptable_and_cheap_enough(
    catalogue: list[GpuTypeWire], asked: list[str], cap: float
) -> None:
    spec = DeploymentSpec(name="a", handler="app:f", image="i:1", gpu=asked, max_price=cap)  # type: ignore[arg-type]  # texts are GPUs
    fine = {
        one.id
        for one in catalogue
        if one.pool is not None
        and any(gpus.is_wanted(one, request) for request in spec.gpu or ())
        and (price := gpus.serverless_price(one, 1)) is not None
        and price <= cap
    }
    try:
        choice = gpus.choose(spec, catalogue)
    except NoCapacityError:
        assert not fine
        return
    eligible = {one.id for one in catalogue if one.pool in choice.pools} - set(choice.excluded)
    assert eligible == fine
    assert fine
    in_pools = {one.id for one in catalogue if one.pool in choice.pools}
    assert set(choice.excluded) <= in_pools  # RunPod refuses an exclusion of what is in none of the pools
    assert choice.price is not None
    assert choice.price <= cap


JSON: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(
        st.sampled_from(["id", "name", "status", "endpoints", "pods", "workers", "gpus", "stream", "error", "output"])
        | st.text(max_size=4),
        inner,
        max_size=4,
    ),
    max_leaves=8,
)  # fmt: skip


class Anything(httpx.BaseTransport):
    def __init__(self, status: int, body: Any) -> None:
        self.status, self.body = status, body

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        request.read()
        return httpx.Response(self.status, json=self.body, request=request)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(status=st.sampled_from([200, 200, 201, 202, 204, 302, 400, 401, 404, 409, 422, 429, 500, 502]), body=JSON)
def test_whatever_the_service_answers_only_errors_of_ours_come_out(
    tmp_path_factory: pytest.TempPathFactory, status: int, body: Any
) -> None:
    path = tmp_path_factory.mktemp("state")
    (path / "unigpu.toml").write_text("")
    with use_clock(InstantClock()):
        client = Client(
            "runpod", api_key=KEY, state_dir=path, config=path / "unigpu.toml", transport=Anything(status, body)
        )
        calls = [
            lambda: client.deployments(provider="runpod"),
            lambda: client.deploy(
                name="a", handler="app:f", image="i:1", gpu="L4", progress="off", timeout=30, secrets={}
            ),
            lambda: client.deploy(
                name="b", kind="pod", handler="app:f", image="i:1", gpu="L4", ttl=None, auth="none", timeout=30,
                progress="off",
            ),
            lambda: client.offers(provider="runpod"),
            lambda: client.inventory(provider="runpod"),
            lambda: client.gc(provider="runpod"),
            lambda: client.teardown("a"),
        ]  # fmt: skip
        told: list[str] = []
        for call in calls:
            try:
                call()
            except UniGPUError as exc:
                told += [repr(exc), str(exc)]
        assert not [text for text in told if KEY in text]


@given(JSON)
def test_any_error_of_a_worker_is_read(said: Any) -> None:
    job = calls.job_of(JobWire(id="j", status="FAILED", error=said))
    assert job.error is not None
    assert job.error.type


@given(st.lists(st.text(alphabet=st.characters(blacklist_categories=["Cs", "Cc", "Zl", "Zp"]), max_size=20)), st.data())
def test_log_events_are_the_same_however_their_bytes_are_cut(lines: list[str], data: st.DataObject) -> None:
    whole = "".join(f"id: {n}\ndata: {line}\n\n" for n, line in enumerate(lines)).encode()
    cuts = sorted(data.draw(st.lists(st.integers(0, len(whole)), max_size=6)))
    events, out = EventParser(), list[ServerSentEvent]()
    for start, end in zip([0, *cuts], [*cuts, len(whole)], strict=True):
        out += events.feed(whole[start:end])
    assert [event.data for event in out] == lines
    assert [event.id for event in out] == [str(n) for n in range(len(lines))]
