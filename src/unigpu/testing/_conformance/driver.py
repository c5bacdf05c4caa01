"""What every driver must do, whatever the platform: a class that a driver's test inherits.

The test gives a fixture ``bench``: how a client reaches the platform, and what to deploy there (`FaceBench`,
`LiveBench`, or a `Bench` of its own). Each test method runs one workflow on every flavour, against a real platform or
one in memory. `WireConformance` (beside this file) adds what needs a platform that can be made to fail.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, ClassVar

from unigpu import _registry
from unigpu.driver import Cancels, Logs, Pauses, Requests, State, Streams, StreamsJobs, Updates, Wakes
from unigpu.elasticity.capabilities import VERBS, Capabilities
from unigpu.errors import (
    AuthenticationError,
    ConfigurationError,
    DeadlineExceeded,
    DeploymentGone,
    JobCancelled,
    JobFailed,
    NameConflict,
    NotFoundError,
    UniGPUError,
    UnsupportedError,
)
from unigpu.models import JobStatus, Kind, LogLine

from .bench import APP as APP
from .bench import SHAPES, Bench, calls, capabilities, caught, first, has, has_status, listed
from .declared import DeclaredConformance
from .flavors import NAMES, Flavour, Name


class DriverConformance(DeclaredConformance):
    """Inherit, and give a fixture ``bench``.

    Attributes:
        flavours: On which flavours each workflow runs.
    """

    flavours: ClassVar[Sequence[Name]] = NAMES

    # -- flags and methods

    def test_a_flag_is_true_exactly_where_the_driver_has_the_method(self, bench: Bench) -> None:
        """Of some interface and kind: a method may serve one of them only. What the facts leave out is not compared."""
        cls = _registry.load(bench.provider)
        shapes = [caps for shape in SHAPES if (caps := capabilities(bench.provider, *shape)) is not None]
        assert shapes

        def some(flag: str, *values: str) -> bool:
            return any(c.fact(flag).value in values if values else c.supports(flag) for c in shapes)

        def agree(flag: str, there: bool, *values: str) -> bool:
            return all(c.fact(flag).value == "unknown" for c in shapes) or some(flag, *values) == there

        assert agree("submit", has_status(cls))
        assert agree("invoke", True)
        assert agree("request", has(cls, Requests))
        assert agree("streaming", has(cls, StreamsJobs) or has(cls, Streams))
        assert agree("wake", has(cls, Wakes))
        assert agree("stop", has(cls, Pauses))
        assert agree("logs", has(cls, Logs))
        assert agree("update", has(cls, Updates), "in_place")
        assert not some("cancel", "queued", "running") or has(cls, Cancels)

    def test_a_verb_without_its_flag_is_refused_with_the_fact(self, bench: Bench, flavour: Flavour) -> None:
        for interface, kind in SHAPES:
            caps = capabilities(bench.provider, interface, kind)
            if caps is None:
                continue

            async def workflow(client: Any, caps: Capabilities = caps) -> None:
                name = f"{caps.interface}-{caps.kind}"
                fields = bench.shape(caps.interface, caps.kind)
                deployed = await client.deploy(name=name, wait=False, progress="off", **fields)
                for verb, call in calls(client, deployed).items():
                    if not caps.supports(VERBS[verb]):
                        error = await caught(UnsupportedError, call)
                        assert error.capability == VERBS[verb], (verb, error)
                        assert error.fact
                        assert error.source
                await client.teardown(deployed)

            flavour.run(workflow, **bench.options())

    # -- life

    def test_a_deployment_lives_from_nothing_to_nothing(self, bench: Bench, flavour: Flavour) -> None:
        caps = capabilities(bench.provider, "function", "serverless")
        autoscaled = caps is not None and caps.elasticity_model.value == "autoscaled"

        async def workflow(client: Any) -> None:
            await caught(NotFoundError, lambda: client.get("life"))
            fields = {**bench.fields("echo"), "workers": (0, 1)}
            first = await client.deploy(name="life", progress="off", **fields)
            assert first.change == "created"
            assert first.state in (State.COLD, State.READY)
            again = await client.deploy(name="life", progress="off", **fields)
            assert (again.change, again.id) == ("reused", first.id)
            result = await client.invoke(first, {"n": 1, "text": "süß \U0001f600"})
            assert result.ok
            assert result.output == {"got": {"n": 1, "text": "süß \U0001f600"}}
            assert result.job_id or not self.has_jobs(bench)
            limits = (1, 2) if autoscaled else (2, 2)
            assert (await client.scale(first, limits)).info.workers == limits
            ready = await client.wait_ready(first)
            assert ready.state in (State.READY, State.STARTING)
            assert len(await client.workers(first)) >= 1
            assert await listed(client, bench) == ["life"]
            await client.teardown(first)
            await client.teardown(first)  # already so is success
            await caught(NotFoundError, lambda: client.get("life"))
            await caught((DeploymentGone, NotFoundError), lambda: client.invoke(first, {"n": 1}))
            assert await listed(client, bench) == []

        flavour.run(workflow, **bench.options())

    def test_another_client_calls_it_by_name_and_ends_it(self, bench: Bench, flavour: Flavour) -> None:
        """With an empty state directory: all it needs is written on the platform."""

        async def deploy(client: Any) -> str:
            deployed = await client.deploy(name="shared", progress="off", **bench.fields("echo"))
            return str(deployed.id)

        async def use(client: Any) -> None:
            result = await client.invoke("shared", {"by": "name"})
            assert result.output == {"got": {"by": "name"}}
            seen = await client.get("shared")
            assert seen.id == id_
            assert seen.info.name == "shared"
            reused = await client.deploy(name="shared", progress="off", **bench.fields("echo"))
            assert (reused.change, reused.id) == ("reused", id_)
            await client.teardown("shared")
            await caught(NotFoundError, lambda: client.teardown("never-was"))

        id_ = flavour.run(deploy, **bench.options())
        flavour.run(use, **bench.options(elsewhere=True))

    def test_what_differs_is_a_conflict_and_replaced_on_demand(self, bench: Bench, flavour: Flavour) -> None:
        async def workflow(client: Any) -> None:
            fields = bench.fields("echo")
            first = await client.deploy(name="changed", progress="off", **fields)
            other = {**fields, "env": {"MODE": "other"}}
            error = await caught(NameConflict, lambda: client.deploy(name="changed", progress="off", **other))
            assert "env" in error.fields
            await caught(
                NameConflict, lambda: client.deploy(name="changed", progress="off", if_exists="error", **fields)
            )
            replaced = await client.deploy(name="changed", progress="off", if_exists="replace", **other)
            assert replaced.change in ("updated", "created")
            result = await client.invoke("changed", {"after": "replace"})
            assert result.output == {"got": {"after": "replace"}}
            if replaced.change == "updated":
                assert replaced.id == first.id
            await client.teardown("changed")

        flavour.run(workflow, **bench.options())

    def test_it_is_woken_stopped_and_started(self, bench: Bench, flavour: Flavour) -> None:
        caps = capabilities(bench.provider, "function", "serverless")
        assert caps is not None

        async def workflow(client: Any) -> None:
            one = await client.deploy(name="pausing", progress="off", **{**bench.fields("echo"), "workers": (0, 1)})
            if caps.supports("wake"):
                await client.wake(one)
                assert (await client.wait_ready(one, wake=True)).state is State.READY
            if caps.supports("stop"):
                for _ in range(2):  # already so is success
                    assert (await client.stop(one)).state is State.STOPPED
                await caught(UniGPUError, lambda: client.invoke(one, {"n": 1}, wake=False))
                for _ in range(2):
                    await client.start(one)
                assert (await client.invoke(one, {"n": 2})).output == {"got": {"n": 2}}
            await client.teardown(one)

        flavour.run(workflow, **bench.options())

    def test_the_logs_of_its_workers_can_be_read(self, bench: Bench, flavour: Flavour) -> None:
        caps = capabilities(bench.provider, "function", "serverless")
        if caps is None or not caps.supports("logs"):
            return

        async def workflow(client: Any) -> None:
            one = await client.deploy(name="logging", progress="off", **bench.fields("echo"))
            await client.invoke(one, {"n": 1})
            lines = [line async for line in client.logs(one, tail=5)]
            assert all(isinstance(line, LogLine) for line in lines)
            assert len(lines) <= 5
            await client.teardown(one)
            await caught((DeploymentGone, NotFoundError), lambda: first(client.logs(one)))

        flavour.run(workflow, **bench.options())

    # -- calls

    def test_a_failing_handler_is_an_error_of_its_job(self, bench: Bench, flavour: Flavour) -> None:
        async def workflow(client: Any) -> None:
            one = await client.deploy(name="failing", progress="off", **bench.fields("fail"))
            error = await caught(JobFailed, lambda: client.invoke(one, {"n": 1}))
            assert "no such page" in str(error)
            assert error.error_type == "ValueError"
            assert error.provider == bench.provider
            inputs = [{"n": 1}, {"n": 2}]
            results = [result async for result in client.map(one, inputs, on_error="return", progress="off")]
            assert [type(result.error) for result in results] == [JobFailed, JobFailed]
            await client.teardown(one)

        flavour.run(workflow, **bench.options())

    def test_a_map_keeps_the_order_of_its_inputs(self, bench: Bench, flavour: Flavour) -> None:
        async def workflow(client: Any) -> None:
            one = await client.deploy(name="mapping", progress="off", **bench.fields("echo"))
            inputs = [{"n": n} for n in range(12)]
            results = [result async for result in client.map(one, inputs, concurrency=4, progress="off")]
            assert [result.output for result in results] == [{"got": one} for one in inputs]
            await client.teardown(one)

        flavour.run(workflow, **bench.options())

    def test_a_stream_gives_each_chunk_in_order(self, bench: Bench, flavour: Flavour) -> None:
        caps = capabilities(bench.provider, "function", "serverless")
        if caps is None or not caps.supports("streaming"):
            return

        async def workflow(client: Any) -> None:
            one = await client.deploy(name="streaming", progress="off", **bench.fields("count"))
            async with client.stream(one, {"n": 5}) as stream:
                assert [chunk async for chunk in stream] == [{"i": i} for i in range(5)]
                assert stream.result.ok
            async with client.stream(one, {"n": 0}) as stream:
                assert [chunk async for chunk in stream] == []
            await client.teardown(one)

        flavour.run(workflow, **bench.options())

    def test_a_job_is_looked_at_waited_for_and_cancelled(self, bench: Bench, flavour: Flavour) -> None:
        caps = capabilities(bench.provider, "function", "serverless")
        if caps is None or not caps.supports("submit"):
            return

        async def workflow(client: Any) -> None:
            one = await client.deploy(name="jobs", progress="off", **{**bench.fields("slow"), "workers": (0, 1)})
            job = await client.submit(one, {"s": 0.01})
            assert (await job.result()).output == {"slept": 0.01}
            assert await job.status() is JobStatus.DONE
            late = await client.submit(one, {"s": 500})
            assert await late.status() in (JobStatus.QUEUED, JobStatus.RUNNING)
            if caps.supports("cancel"):
                assert await late.cancel() is JobStatus.CANCELLED
                await caught(JobCancelled, late.result)
                assert await late.cancel() is JobStatus.CANCELLED  # already so is success
                error = await caught(DeadlineExceeded, lambda: client.invoke(one, {"s": 500}, timeout=1.5))
                assert error.job_id
            await client.teardown(one)

        flavour.run(workflow, **bench.options())

    def test_a_server_is_sent_requests_and_no_inputs(self, bench: Bench, flavour: Flavour) -> None:
        """Where the platform takes requests; its workers run ``python -m unigpu.testing.handlers``, or answer so."""
        for interface, kind in SHAPES:
            caps = capabilities(bench.provider, interface, kind)
            if interface != "http" or caps is None or not caps.supports("request"):
                continue

            async def workflow(client: Any, kind: Kind = kind) -> None:
                fields = bench.shape("http", kind)
                one = await client.deploy(name=f"server-{kind}", wait=False, progress="off", **fields)
                reply = await client.request(one, "POST", "/v1/echo", json={"a": [1, "ü"]})
                said = reply.json()
                assert (reply.status, said["method"], said["path"]) == (200, "POST", "/v1/echo")
                assert json.loads(said["body"]) == {"a": [1, "ü"]}
                try:
                    seen = (await client.request(one, "GET", "/")).json()["method"]
                except UnsupportedError:
                    seen = "GET"  # a platform that passes POST only says so, and sends nothing
                assert seen == "GET"
                await caught(UnsupportedError, lambda: client.invoke(one, {"n": 1}))
                await client.teardown(one)

            flavour.run(workflow, **bench.options())

    # -- errors

    def test_what_is_wrong_before_anything_is_sent_says_so(self, bench: Bench, flavour: Flavour) -> None:
        async def workflow(client: Any) -> None:
            await caught(ConfigurationError, lambda: client.deploy(name="Not A Name", **bench.fields("echo")))
            await caught(ConfigurationError, lambda: client.deploy(name="typo", wokers=3, **bench.fields("echo")))
            options = {bench.provider: {"no_such_option": 1}}
            await caught(
                ConfigurationError,
                lambda: client.deploy(name="options", provider_options=options, **bench.fields("echo")),
            )
            await caught(NotFoundError, lambda: client.invoke("never-was", {"n": 1}))

        flavour.run(workflow, **bench.options())

    def test_a_wrong_key_is_an_authentication_error(self, bench: Bench, flavour: Flavour) -> None:
        options = bench.without_permission()
        if options is None:
            return

        async def workflow(client: Any) -> None:
            error = await caught(AuthenticationError, lambda: client.deployments(provider=bench.provider))
            assert error.provider == bench.provider
            await caught(AuthenticationError, lambda: client.deploy(name="never", **bench.fields("echo")))

        flavour.run(workflow, **options)

    def has_jobs(self, bench: Bench) -> bool:
        """Whether the platform has jobs at all."""
        return has_status(_registry.load(bench.provider))
