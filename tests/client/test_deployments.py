"""Deploy, look, change and end: on every flavour."""

from __future__ import annotations

import logging
import pickle
from typing import Any

import pytest
from pydantic import SecretStr

from unigpu import (
    AsyncClient,
    Client,
    ClientClosed,
    ConfigurationError,
    DeadlineExceeded,
    NameConflict,
    NotFoundError,
    ProviderUnavailableError,
    SecretRef,
    State,
    TeardownIncomplete,
    UnsupportedError,
    _registry,
)

pytestmark = pytest.mark.usefixtures("instant")

HELLO: dict[str, Any] = {"name": "hello", "handler": "app:hello"}


def test_the_four_verbs_do_the_main_job(flavour: Any, cloud: Any) -> None:
    async def work(client: Any) -> None:
        app = await client.deploy(**HELLO, workers=(0, 2))
        assert (app.change, app.name, app.provider, app.address) == ("created", "hello", "fake", "hello@fake")
        assert str(app.rate) == "idle $0.00/h, at most $4.00/h"
        assert (await app.invoke({"a": 1})).output == {"a": 1}
        assert (await app.scale(workers=(1, 3))).change == "scaled"
        assert app.info.workers == (1, 3)
        await app.teardown()
        assert (app.state, cloud.rows) == (State.GONE, {})

    flavour.run(work, "fake")


def test_a_deployment_is_called_by_name_and_by_address_from_another_client(flavour: Any, cloud: Any) -> None:
    with Client("fake") as other:
        other.deploy(**HELLO)

    async def work(client: Any) -> None:
        assert (await client.invoke("hello@fake", {"a": 1})).output == {"a": 1}
        assert (await client.get("hello@fake")).change == "reused"

    flavour.run(work, "local")
    flavour.run(lambda client: client.invoke("hello", {}), "fake")


def test_names_are_resolved_by_one_list_call_and_again_once_when_it_is_gone(flavour: Any, cloud: Any) -> None:
    async def work(client: Any) -> None:
        await client.deploy(**HELLO)
        for _ in range(3):
            await client.invoke("hello", {})
        assert cloud.count("list") == 0, "a deploy of this client is remembered"
        cloud.rows.clear()
        with pytest.raises(NotFoundError):
            await client.invoke("hello", {})
        assert cloud.count("list") == 1, "looked up once more, and not again and again"

    flavour.run(work, "fake")


def test_an_unknown_name_names_the_nearest_and_what_there_is(flavour: Any, cloud: Any) -> None:
    async def work(client: Any) -> None:
        await client.deploy(name="summarize", handler="app:f")
        for verb in (client.get, client.workers, client.wake, client.teardown):
            with pytest.raises(NotFoundError, match="did you mean 'summarize'") as caught:
                await verb("sumarize")
            assert caught.value.hint == "There are: summarize."

    flavour.run(work, "fake")


def test_a_with_block_ends_what_its_deploy_created(flavour: Any, cloud: Any) -> None:
    async def work(client: Any) -> None:
        async with await client.deploy(**HELLO) as app:
            assert cloud.rows
        assert (cloud.rows, app.state) == ({}, State.GONE)

    flavour.run(work, "fake")


def test_a_with_block_leaves_what_was_reused_and_says_so(
    flavour: Any, cloud: Any, caplog: pytest.LogCaptureFixture
) -> None:
    async def work(client: Any) -> None:
        await client.deploy(**HELLO)
        with caplog.at_level(logging.INFO, "unigpu"):
            async with await client.deploy(**HELLO) as app:
                assert app.change == "reused"
        assert "left running: hello (reused, not created here)" in caplog.text
        assert cloud.rows

    flavour.run(work, "fake")


def test_the_bodys_error_is_raised_and_a_failed_teardown_is_a_note_on_it(flavour: Any, cloud: Any) -> None:
    async def work(client: Any) -> None:
        with pytest.raises(ZeroDivisionError) as caught:  # noqa: PT012 - the block is the test
            async with await client.deploy(**HELLO):
                cloud.fail_deletes = ProviderUnavailableError("no deletes today")
                raise ZeroDivisionError
        assert "tearing down hello on fake failed" in "".join(caught.value.__notes__)
        cloud.fail_deletes = None
        await client.teardown("hello")

    flavour.run(work, "fake")


def test_a_failed_teardown_at_exit_is_raised_when_the_body_was_fine(flavour: Any, cloud: Any) -> None:
    async def work(client: Any) -> None:
        with pytest.raises(TeardownIncomplete):
            async with await client.deploy(**HELLO):
                cloud.fail_deletes = ProviderUnavailableError("no deletes today")

    flavour.run(work, "fake")


def test_ephemeral_is_a_new_name_with_an_end(flavour: Any, cloud: Any) -> None:
    async def work(client: Any) -> None:
        async with (
            await client.deploy(**HELLO, ephemeral=True) as one,
            await client.deploy(**HELLO, ephemeral=True) as two,
        ):
            assert one.name.startswith("hello-")
            assert one.name != two.name
            assert (one.ttl_enforced_by, one.expires_at is not None) == ("platform", True)
        assert cloud.rows == {}
        with pytest.raises(ConfigurationError, match="if_exists"):
            await client.deploy(**HELLO, ephemeral=True, if_exists="replace")

    flavour.run(work, "fake")


def test_teardown_of_what_is_gone_is_success_for_a_handle_and_for_a_name_that_was_known(
    flavour: Any, cloud: Any
) -> None:
    async def work(client: Any) -> None:
        app = await client.deploy(**HELLO)
        await app.teardown()
        await app.teardown()
        await client.teardown("hello")
        for gone in (app, "hello"):
            with pytest.raises(NotFoundError):
                await client.teardown(gone, missing_ok=False)

    flavour.run(work, "fake")


def test_update_changes_single_fields_of_a_handle_and_of_a_name(flavour: Any, cloud: Any) -> None:
    async def work(client: Any) -> None:
        app = await client.deploy(**HELLO, env={"A": "1"})
        assert (await app.update(env={"A": "2"})).change == "updated"
        assert next(iter(cloud.rows.values())).spec.env == {"A": "2"}
        with pytest.raises(ConfigurationError, match="keeps its name"):
            await app.update(name="other")

    flavour.run(work, "fake")

    async def from_elsewhere(client: Any) -> None:
        assert (await client.update("hello", env={"A": "3"})).change == "updated"
        assert next(iter(cloud.rows.values())).spec.handler == "app:hello"
        await client.teardown("hello")

    flavour.run(from_elsewhere, "fake")


def test_updating_a_reused_deployment_keeps_what_others_had_stated(flavour: Any, cloud: Any) -> None:
    with Client("fake") as other:
        other.deploy(**HELLO, env={"A": "1"}, workers=(0, 3), secrets={"T": SecretStr("hunter2")})

    async def work(client: Any) -> None:
        app = await client.deploy(**HELLO)
        assert str(app.rate) == "idle $0.00/h, at most $6.00/h", "what it costs is what it is, not what was asked"
        with pytest.raises(ConfigurationError, match="T is not set"):
            await app.update(concurrency=2)
        await app.update(concurrency=2, secrets={"T": SecretStr("hunter3")})
        (row,) = cloud.rows.values()
        assert (row.spec.concurrency, row.spec.env, row.spec.workers) == (2, {"A": "1"}, (0, 3))
        assert (await app.update(concurrency=3)).info.concurrency == 3, "values that this handle was given are kept"

    flavour.run(work, "fake")


def test_a_with_block_whose_client_was_closed_says_what_is_left(flavour: Any, cloud: Any) -> None:
    async def work(client: Any) -> None:
        with pytest.raises(ClientClosed) as caught:
            async with await client.deploy(**HELLO):
                await client.aclose()
        assert caught.value.may_bill == ("hello on fake",)

    flavour.run(work, "fake")


def test_update_needs_the_whole_spec_where_the_platform_does_not_tell_it(flavour: Any, cloud: Any) -> None:
    with Client("fake") as client:
        client.deploy(**HELLO)
    hidden = type("Hidden", (_registry.load("fake"),), {"info": _without_spec(_registry.load("fake"))})

    async def work(client: Any) -> None:
        with pytest.raises(ConfigurationError, match="does not tell the whole spec") as caught:
            await client.update("hello", env={"A": "1"})
        assert 'if_exists="replace"' in str(caught.value)

    with _registry.using("fake", hidden):
        flavour.run(work, "fake")


def _without_spec(cls: Any) -> Any:
    def info(self: Any, io: Any, row: Any) -> Any:
        return cls.info(self, io, row).model_copy(update={"details": {}})

    return info


def test_another_spec_of_the_same_name_is_a_conflict_unless_it_may_replace(flavour: Any, cloud: Any) -> None:
    async def work(client: Any) -> None:
        await client.deploy(**HELLO, env={"A": "1"})
        with pytest.raises(NameConflict) as caught:
            await client.deploy(**HELLO, env={"A": "2"})
        assert caught.value.fields == ("env",)
        assert (await client.deploy(**HELLO, env={"A": "2"}, if_exists="replace")).change == "updated"

    flavour.run(work, "fake")


def test_stop_and_start_pause_and_resume(flavour: Any, cloud: Any) -> None:
    async def work(client: Any) -> None:
        app = await client.deploy(**HELLO)
        assert (await app.stop()).state is State.STOPPED
        assert (await app.start()).state is State.COLD
        assert (await app.wake()).state is State.READY
        assert (await app.wait_ready()).state is State.READY
        assert [w.id for w in await app.workers()] == ["w1"]
        await app.stop()
        assert (await app.wake()).state is State.READY, "one worker, also where a start alone brings none"

    flavour.run(work, "fake")


def test_the_last_lines_of_a_log_can_be_read(flavour: Any, cloud: Any) -> None:
    async def work(client: Any) -> None:
        app = await client.deploy(**HELLO)
        assert [line.text async for line in app.logs(tail=2)] == ["line 0", "line 1"]
        assert [line.worker_id async for line in client.logs("hello", worker="w9", tail=1)] == ["w9"]
        with pytest.raises(ConfigurationError, match="tail"):
            app.logs(tail=-1)

    flavour.run(work, "fake")


def test_a_provider_that_cannot_be_read_is_shown_and_never_left_out(flavour: Any, cloud: Any) -> None:
    async def work(client: Any) -> None:
        await client.deploy(**HELLO)
        found = await client.deployments(provider=["fake", "runpod"])  # which has no key here
        assert [d.name for d in found] == ["hello"]
        assert list(found.unreadable) == ["runpod"]
        cloud.fail_lists = ProviderUnavailableError("no lists today")
        assert list((await client.deployments(provider=["fake"])).unreadable) == ["fake"]
        with pytest.raises(ProviderUnavailableError):
            await client.deployments(provider="fake")

    flavour.run(work, "fake")


def test_without_a_provider_all_that_have_a_key_are_listed(flavour: Any, cloud: Any) -> None:
    keyed = type("Keyed", (_registry.load("fake"),), {"name": "keyed", "env_key": "KEYED_API_KEY"})

    async def work(client: Any) -> None:
        assert "keyed" not in client_providers(client)

    async def with_key(client: Any) -> None:
        assert "keyed" in client_providers(client)

    def client_providers(client: Any) -> tuple[str, ...]:
        found: tuple[str, ...] = getattr(client, "_thing", client)._context.session.providers(None)
        return found

    with _registry.using("keyed", keyed):
        flavour.run(work, "fake")
        flavour.run(with_key, "fake", api_key={"keyed": "k"})


def test_a_handle_of_another_client_is_refused_with_its_address(flavour: Any, cloud: Any) -> None:
    with Client("fake") as other:
        foreign = other.deploy(**HELLO)

        async def work(client: Any) -> None:
            with pytest.raises(ConfigurationError, match="another client") as caught:
                await client.workers(foreign)
            assert "hello@fake" in str(caught.value)

        flavour.run(work, "fake")


def test_a_closed_client_says_so(flavour: Any, cloud: Any) -> None:
    async def work(client: Any) -> None:
        app = await client.deploy(**HELLO)
        await client.aclose()
        with pytest.raises(ClientClosed):
            await app.invoke({})
        for call in (lambda: app.map([{}]), lambda: app.stream({}), lambda: app.logs()):
            with pytest.raises(ClientClosed):
                call()
        assert cloud.rows, "closing a client ends no deployment"

    flavour.run(work, "fake")


@pytest.mark.parametrize("cls", [Client, AsyncClient])
def test_clients_and_handles_cannot_be_pickled(cls: Any, cloud: Any) -> None:
    with pytest.raises(TypeError, match="cannot be pickled"):
        pickle.dumps(cls("fake"))
    with Client("fake") as client, pytest.raises(TypeError, match="address"):
        pickle.dumps(client.deploy(**HELLO))


def test_a_mistyped_keyword_names_the_nearest_field_or_parameter(flavour: Any, cloud: Any) -> None:
    async def work(client: Any) -> None:
        for wrong, right in (
            ("worker", "workers"),
            ("handlr", "handler"),
            ("if_exist", "if_exists"),
            ("time", "timeout"),
        ):
            with pytest.raises(ConfigurationError, match=f"did you mean {right}="):
                await client.deploy(name="x", **{wrong: 1})
        with pytest.raises(ConfigurationError, match="needs a name"):
            await client.deploy(handler="app:f")

    flavour.run(work, "fake")


def test_a_function_is_a_handler_and_one_of_main_is_told_to_move(flavour: Any, cloud: Any) -> None:
    def local() -> None: ...

    local.__module__, local.__qualname__ = "__main__", "summarize"

    async def work(client: Any) -> None:
        await client.deploy(name="j", handler=pickle.dumps)
        assert next(iter(cloud.rows.values())).spec.handler == "_pickle:dumps"
        with pytest.raises(ConfigurationError, match="move it into a file"):
            await client.deploy(name="k", handler=local)

    flavour.run(work, "fake")


def test_secrets_are_read_when_they_are_sent_and_missing_ones_are_named(
    flavour: Any, cloud: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def work(client: Any) -> None:
        monkeypatch.delenv("HF_TOKEN", raising=False)
        with pytest.raises(ConfigurationError, match="HF_TOKEN is not set"):
            await client.deploy(**HELLO, secrets=["HF_TOKEN"])
        assert cloud.rows == {}
        monkeypatch.setenv("HF_TOKEN", "hunter2")
        app = await client.deploy(**HELLO, secrets=["HF_TOKEN"])
        (row,) = cloud.rows.values()
        assert row.spec.secrets["HF_TOKEN"].get_secret_value() == "hunter2"
        assert "hunter2" not in repr(app) + repr(app.info) + repr(row.spec) + str(app.adaptations)
        monkeypatch.delenv("HF_TOKEN")
        assert (await client.deploy(**HELLO, secrets=["HF_TOKEN"])).change == "reused", "reusing needs names only"
        await app.teardown()

    flavour.run(work, "fake")


def test_what_is_stated_and_cannot_be_is_refused_before_anything_is_sent_or_adapted(flavour: Any, cloud: Any) -> None:
    async def work(client: Any) -> None:
        reference = {"secrets": {"T": SecretRef(name="stored")}}
        with pytest.raises(UnsupportedError, match="SecretRef") as caught:
            await client.deploy(**HELLO, **reference)
        assert caught.value.capability == "secret_store"
        assert caught.value.source is not None
        assert cloud.log == []

    flavour.run(work, "fake")


def test_adapting_takes_the_nearest_thing_and_lists_it(flavour: Any, cloud: Any) -> None:
    class Three(_registry.load("fake")):  # type: ignore[misc]  # a driver with other facts
        facts = _with(_registry.load("fake").facts, max_workers=3)

    async def work(client: Any) -> None:
        with pytest.raises(UnsupportedError, match="the most on fake is 3"):
            await client.deploy(**HELLO, workers=(0, 9))
        app = await client.deploy(**HELLO, workers=(0, 9), on_unsupported="adapt")
        assert app.info.workers == (0, 3)
        assert [(a.field, a.got) for a in app.adaptations] == [("workers", "0–3")]
        with pytest.raises(UnsupportedError):
            await app.scale(9)
        assert (await app.scale(9, on_unsupported="adapt")).info.workers == (3, 3)

    with _registry.using("fake", Three):
        flavour.run(work, "fake")


def _with(facts: Any, **values: object) -> dict[str, Any]:
    changed = {name: {**facts["*"][name], "value": value} for name, value in values.items()}
    return {**facts, "*": {**facts["*"], **changed}}


def test_an_unknown_option_of_the_chosen_provider_is_an_error_and_others_are_ignored(flavour: Any, cloud: Any) -> None:
    async def work(client: Any) -> None:
        with pytest.raises(ConfigurationError, match="did you mean 'tier'"):
            await client.deploy(**HELLO, provider_options={"fake": {"teir": "x"}})
        await client.deploy(**HELLO, provider_options={"fake": {"tier": "x"}, "other": {"anything": 1}})

    flavour.run(work, "fake")


def test_progress_goes_to_a_function_or_to_the_log_once_a_phase(
    flavour: Any, cloud: Any, caplog: pytest.LogCaptureFixture
) -> None:
    seen: list[Any] = []

    async def work(client: Any) -> None:
        with caplog.at_level(logging.INFO, "unigpu.client"):
            await client.deploy(**HELLO, wait="worker", progress=seen.append)
            assert [p.phase for p in seen][-1] == "ready"
            caplog.clear()
            await client.wait_ready("hello")
            await client.wait_ready("hello", progress="off")
        assert [r.message for r in caplog.records if "ready, 0 s" in r.message] == [
            "hello on fake: ready, 0 s (usually 0–60 s)"
        ]

    flavour.run(work, "fake")


def test_deploy_ends_with_one_line_that_is_a_warning_when_idle_costs_money(
    flavour: Any, cloud: Any, caplog: pytest.LogCaptureFixture
) -> None:
    async def work(client: Any) -> None:
        with caplog.at_level(logging.INFO, "unigpu.client"):
            await client.deploy(**HELLO, workers=(1, 3))
        (record,) = (r for r in caplog.records if "at most" in r.message)
        assert record.message == "hello on fake: 1–3 workers, idle $2.00/h, at most $6.00/h (fake), no ttl"
        assert record.levelno == logging.WARNING

    flavour.run(work, "fake")


def test_events_reach_the_observer_and_its_fault_breaks_nothing(
    flavour: Any, cloud: Any, caplog: pytest.LogCaptureFixture
) -> None:
    kinds: list[str] = []

    def observe(event: Any) -> None:
        kinds.append(event.kind)
        raise RuntimeError("the observer is broken")

    async def work(client: Any) -> None:
        async with await client.deploy(**HELLO):
            pass

    flavour.run(work, "fake", on_event=observe)
    assert kinds == ["deploy.created", "teardown.done"]
    assert "on_event failed" in caplog.text


def test_a_deadline_keeps_what_exists_and_says_what_it_may_cost(flavour: Any, cloud: Any) -> None:
    cloud.cold_start = 3600.0

    async def work(client: Any) -> None:
        with pytest.raises(DeadlineExceeded) as caught:
            await client.deploy(**HELLO, workers=(1, 1), timeout=0.2)
        assert caught.value.may_bill
        assert cloud.rows
        await client.teardown("hello")

    flavour.run(work, "fake")


def test_capabilities_are_there_without_any_call_or_key(flavour: Any, cloud: Any) -> None:
    async def work(client: Any) -> None:
        caps = client.capabilities()
        caps = getattr(caps, "_value", caps)
        assert caps.supports("submit")
        assert cloud.log == []

    flavour.run(work, "fake")


def test_another_namespace_does_not_see_it(flavour: Any, cloud: Any) -> None:
    with Client("fake", namespace="team") as other:
        other.deploy(**HELLO)

    async def work(client: Any) -> None:
        assert len(await client.deployments(provider="fake")) == 0
        with pytest.raises(NotFoundError, match="namespace 'default'"):
            await client.get("hello")
        assert (await client.deploy(**HELLO)).change == "created"

    flavour.run(work, "fake")


def test_two_addresses_of_one_call_are_a_mistake(flavour: Any, cloud: Any) -> None:
    async def work(client: Any) -> None:
        with pytest.raises(ConfigurationError, match="which one"):
            await client.get("hello@fake", provider="other")
        with pytest.raises(ConfigurationError, match="which one"):
            await client.deploy("hello@fake", provider="other")
        for wrong in ("Hello", "hello@", "@fake", "", "x" * 64, "a b"):
            with pytest.raises(ConfigurationError, match="is no deployment"):
                await client.get(wrong)

    flavour.run(work, "fake")


def test_what_a_platform_cannot_tell_may_be_declared_and_nothing_else(flavour: Any, cloud: Any) -> None:
    with Client("fake") as other:
        other.deploy(**HELLO)

    class Mute(_registry.load("fake")):  # type: ignore[misc]  # a platform whose environment cannot be read back
        def info(self, io: Any, row: Any) -> Any:
            found = super().info(io, row)
            return found.model_copy(update={"name": None, "namespace": None, "assumed": ("interface", "port")})

    async def declared(client: Any) -> None:
        app = await client.get("hello", interface="http", port=9000)
        assert (app.name, app.info.interface, app.info.port) == ("hello", "http", 9000)

    async def told(client: Any) -> None:
        with pytest.raises(ConfigurationError, match="says 'function'"):
            await client.get("hello", interface="http")
        assert (await client.get("hello", interface="function")).name == "hello"

    with _registry.using("fake", Mute):
        flavour.run(declared, "fake")
    flavour.run(told, "fake")
