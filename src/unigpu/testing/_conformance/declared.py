"""Flags and behaviour held together, both ways: what a platform's facts rule out is refused, what they allow is taken.

Part of `DriverConformance`. `PROBES` are demands that each stand on one flag: planning sends nothing that changes or
costs anything, so each is asked of every kind of deployment, also of a live account.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Final

from unigpu._registry import load
from unigpu.elasticity.capabilities import Capabilities
from unigpu.errors import ConfigurationError, PayloadTooLarge, UnsupportedError
from unigpu.models import Interface, Kind, Scaling, SecretRef, Volume

from .bench import SHAPES, Bench, capabilities, caught, has_status
from .flavors import NAMES, Flavour, Name


@dataclass(frozen=True, slots=True, kw_only=True)
class Probe:
    """A demand, and when the flag allows it.

    Attributes:
        change: Spec fields over a bench's own.
        drop: Fields of the bench's that are left out.
        asked: Of which kinds of deployments; the others have another reason to refuse.
        said: It is something that must be said first: a `ConfigurationError`, where the flag wants it.
    """

    flag: str
    allowed: Callable[[Capabilities], bool]
    change: Mapping[str, Any] = field(default_factory=dict[str, Any])
    drop: tuple[str, ...] = ()
    asked: Callable[[Capabilities], bool] = lambda _: True
    said: bool = False


def _ends_by_itself(caps: Capabilities) -> bool:
    return not caps.bills.value or _ends_itself(caps)


def _ends_itself(caps: Capabilities) -> bool:
    return caps.scale_to_zero.value == "automatic"


def _serverless(caps: Capabilities) -> bool:
    return caps.kind == "serverless"


PROBES: Final[tuple[Probe, ...]] = (
    Probe(flag="images", drop=("image",), allowed=lambda c: c.images.value == "ignored", said=True),
    Probe(flag="gpu", drop=("gpu",), allowed=lambda c: c.gpu.value == "ignored", said=True),
    Probe(flag="max_price_required", drop=("max_price",), allowed=lambda c: not c.max_price_required.value, said=True),
    Probe(flag="public_endpoint", drop=("auth",), allowed=lambda c: not c.public_endpoint.value, said=True),
    Probe(flag="scale_to_zero", drop=("ttl",), allowed=_ends_by_itself, said=True),
    Probe(flag="max_price", change={"max_price": 99.0}, allowed=lambda c: c.max_price.value != "none"),
    Probe(
        flag="elasticity_model",
        change={"workers": (1, 2)},
        asked=_serverless,
        allowed=lambda c: c.elasticity_model.value == "autoscaled",
    ),
    Probe(
        flag="min_workers",
        change={"workers": (0, 1)},
        asked=_serverless,
        allowed=lambda c: c.min_workers.value == 0,
    ),
    Probe(
        flag="exact_replicas",
        change={"workers": (2, 2)},
        asked=_serverless,
        allowed=lambda c: c.supports("exact_replicas"),
    ),
    Probe(flag="idle_timeout", change={"idle_timeout": 30.0}, allowed=lambda c: c.supports("idle_timeout")),
    Probe(
        flag="autoscaling_signals",
        change={"scaling": Scaling(signal="requests", target=2)},
        drop=("idle_timeout",),
        allowed=lambda c: "requests" in c.autoscaling_signals.value,
    ),
    Probe(
        flag="autoscaling_signals",
        change={"scaling": Scaling(signal="queue_delay", target=4)},
        allowed=lambda c: "queue_delay" in c.autoscaling_signals.value,
    ),
    Probe(flag="concurrency", change={"concurrency": 2}, allowed=lambda c: c.concurrency.value != "none"),
    Probe(
        flag="volumes",
        change={"volumes": [Volume(name="cache", size_gb=10)]},
        allowed=lambda c: c.volumes.value == "shared",
    ),
    Probe(flag="regions", change={"regions": ["US"]}, allowed=lambda c: c.regions.value in ("met", "countries")),
    Probe(
        flag="host_trust",
        change={"secrets": {"TOKEN": "a"}},
        drop=("accept",),
        allowed=lambda c: c.host_trust.value != "host",
    ),
    Probe(
        flag="secret_store",
        change={"secrets": {"TOKEN": SecretRef(name="token")}, "accept": ["secrets_on_shared_hosts"]},
        allowed=lambda c: c.supports("secret_store"),
    ),
    Probe(
        flag="max_execution_timeout",
        change={"execution_timeout": 10**9},
        allowed=lambda c: not isinstance(c.max_execution_timeout.value, float),
    ),
)


@dataclass(frozen=True, slots=True)
class Agree:
    """Two things that the flags say, of which one does not stand alone."""

    said: str
    one: Callable[[Capabilities], bool]
    other: Callable[[Capabilities], bool]


def _free(caps: Capabilities) -> bool:
    told = (caps.billing_unit, caps.bills_loading, caps.bills_idle, caps.bills_stopped)
    return all(fact.value == "nothing" for fact in told)


AGREE: Final[tuple[Agree, ...]] = (
    Agree("a function is invoked", lambda c: c.interface == "function", lambda c: c.supports("invoke")),
    Agree("a server is asked", lambda c: c.interface == "http", lambda c: c.supports("request")),
    Agree("a pod is fixed", lambda c: c.kind == "pod", lambda c: c.elasticity_model.value == "fixed"),
    Agree("a pod is one", lambda c: c.kind == "pod", lambda c: (c.min_workers.value, c.max_workers.value) == (1, 1)),
    Agree(
        "what adds workers has a signal",
        lambda c: c.elasticity_model.value == "autoscaled",
        lambda c: bool(c.autoscaling_signals.value),
    ),
    Agree(
        "zero can be asked for where it is reached without a stop",
        lambda c: c.min_workers.value == 0,
        lambda c: c.scale_to_zero.value == "automatic",
    ),
    Agree("what bills bills for something", lambda c: c.supports("bills"), lambda c: not _free(c)),
    Agree("jobs have results that are kept", lambda c: c.supports("submit"), lambda c: c.result_retention.value != 0),
    Agree("jobs are kept somewhere", lambda c: c.supports("submit"), lambda c: c.job_persistence.value != "none"),
)
"""Pairs of which both or neither must be so."""

NEEDS: Final[tuple[Agree, ...]] = (
    Agree("webhooks tell of jobs", lambda c: c.supports("webhooks"), lambda c: c.supports("submit")),
    Agree("there is one machine to hold calls to", lambda c: c.kind == "pod", lambda c: c.supports("sessions")),
    Agree("replies are of requests", lambda c: c.supports("streamed_replies"), lambda c: c.supports("request")),
    Agree("sockets are of requests", lambda c: c.supports("websocket"), lambda c: c.supports("request")),
    Agree("chunks are of calls", lambda c: c.supports("streaming"), lambda c: c.supports("invoke")),
    Agree(
        "a call wakes what goes to zero",
        _ends_itself,
        lambda c: c.supports("wakes_on_request") and c.supports("idle_timeout"),
    ),
    Agree(
        "a cap that must be given is held",
        lambda c: c.supports("max_price_required"),
        lambda c: c.supports("max_price"),
    ),
    Agree(
        "whose images run runs images", lambda c: c.supports("foreign_images"), lambda c: c.images.value == "required"
    ),
    Agree(
        "a worker ends what its exit ends",
        lambda c: c.ttl_enforced_by.value == "worker",
        lambda c: c.worker_exit.value == "ends_billing",
    ),
)
"""Pairs of which the first needs the second."""


class DeclaredConformance:
    """Flags ⇔ behaviour, beside those that the workflows of `DriverConformance` hold."""

    flavours: ClassVar[Sequence[Name]] = NAMES

    def pytest_generate_tests(self, metafunc: Any) -> None:
        """Run what asks for a ``flavour`` once on each, and what asks for a ``shape`` for each kind of deployment."""
        if "flavour" in metafunc.fixturenames:
            made = [Flavour(name) for name in self.flavours]
            metafunc.parametrize("flavour", made, ids=self.flavours)
        if "shape" in metafunc.fixturenames:
            metafunc.parametrize("shape", SHAPES, ids=["-".join(shape) for shape in SHAPES])

    def test_no_flag_contradicts_another(self, bench: Bench, shape: tuple[Interface, Kind]) -> None:
        caps = capabilities(bench.provider, *shape)
        if caps is None:
            return
        wrong = [one.said for one in AGREE if one.one(caps) != one.other(caps)]
        wrong += [one.said for one in NEEDS if one.one(caps) and not one.other(caps)]
        low, high = caps.cold_start.value if isinstance(caps.cold_start.value, tuple) else (0, 0)
        assert low <= high
        assert not wrong, f"{'-'.join(shape)}: {wrong}"

    def test_what_the_flags_rule_out_is_refused_and_what_they_allow_is_planned(
        self, bench: Bench, shape: tuple[Interface, Kind]
    ) -> None:
        caps = capabilities(bench.provider, *shape)
        if caps is None:
            return
        wrong: list[str] = []

        async def workflow(client: Any) -> None:
            base = {**bench.shape(*shape)}
            (plan,) = await client.plan(name="planned", provider=bench.provider, **base)
            assert plan.action == "create", plan.reason
            for probe in PROBES:
                if probe.asked(caps):
                    fields = {name: value for name, value in base.items() if name not in probe.drop}
                    wrong.append(await _wrong(client, probe, caps, {**fields, **probe.change}) or "")

        Flavour(self.flavours[0]).run(workflow, **bench.options())
        assert wrong
        assert not any(wrong), "\n".join(filter(None, wrong))

    def test_a_changed_spec_keeps_its_id_exactly_where_updates_are_in_place(self, bench: Bench) -> None:
        caps = capabilities(bench.provider, "function", "serverless")
        assert caps is not None

        async def workflow(client: Any) -> None:
            fields = bench.fields("echo")
            before = await client.deploy(name="in-place", wait=False, progress="off", **fields)
            changed = {**fields, "env": {"MODE": "other"}}
            after = await client.deploy(name="in-place", wait=False, progress="off", if_exists="replace", **changed)
            in_place = caps.update.value == "in_place"
            assert (after.change == "updated", after.id == before.id) == (in_place, in_place)
            await client.teardown(after)

        Flavour(self.flavours[0]).run(workflow, **bench.options())

    def test_an_empty_input_and_one_above_the_limit_are_refused_before_they_are_sent(self, bench: Bench) -> None:
        caps = capabilities(bench.provider, "function", "serverless")
        assert caps is not None

        async def workflow(client: Any) -> None:
            one = await client.deploy(name="inputs", progress="off", **bench.fields("echo"))
            if caps.empty_input.value:
                assert (await client.invoke(one, {})).output == {"got": {}}
            else:
                error = await caught(UnsupportedError, lambda: client.invoke(one, {}))
                assert (error.capability, bool(error.source)) == ("empty_input", True)
            limit = caps.max_payload.value
            if isinstance(limit, int | float):
                large = {"text": "x" * (int(limit) + 1)}
                large_error = await caught(PayloadTooLarge, lambda: client.invoke(one, large))
                assert large_error.maybe_executed is not True
            await client.teardown(one)

        Flavour(self.flavours[0]).run(workflow, **bench.options())

    def test_a_job_that_cannot_be_cancelled_says_so_with_the_fact(self, bench: Bench) -> None:
        caps = capabilities(bench.provider, "function", "serverless")
        if caps is None or not has_status(load(bench.provider)) or not caps.supports("submit"):
            return

        async def workflow(client: Any) -> None:
            one = await client.deploy(name="cancelling", progress="off", **bench.fields("slow"))
            job = await client.submit(one, {"s": 0.01})
            if not caps.supports("cancel"):
                error = await caught(UnsupportedError, job.cancel)
                assert (error.capability, bool(error.fact), bool(error.source)) == ("cancel", True, True)
            await job.result()
            await client.teardown(one)

        Flavour(self.flavours[0]).run(workflow, **bench.options())


async def _wrong(client: Any, probe: Probe, caps: Capabilities, fields: Mapping[str, Any]) -> str | None:
    """What becomes of such a spec that is not what the flag says; ``None``: it is as the flag says."""
    flag = f"{probe.flag} = {caps.fact(probe.flag).shown}"
    (plan,) = await client.plan(name="planned", provider=caps.provider, **fields)
    adapted = [one for one in plan.adaptations if one.field in probe.change]
    if probe.allowed(caps):
        return None if plan.action == "create" else f"{flag}, but it is refused: {plan.reason}"
    if plan.action == "create":
        # Where a bench's configuration adapts, what is given instead is told: as the demand it was, with its source.
        told = any(one.source and one.reason.startswith(f"{one.field}:") for one in adapted)
        return None if told else f"{flag}, but {dict(probe.change) or probe.drop} was planned"
    try:
        await client.deploy(name="planned", wait=False, progress="off", **fields)
    except ConfigurationError as exc:
        return None if probe.said else f"{flag}, but it was refused without the fact: {exc}"
    except UnsupportedError as exc:
        named = exc.capability == probe.flag and exc.fact and exc.source
        return None if named and not probe.said else f"{flag}, but {exc.capability} was named: {exc}"
    return f"{flag}: a plan was excluded, and deployed: {plan.reason}"
