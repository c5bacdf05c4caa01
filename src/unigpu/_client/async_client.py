"""`AsyncClient`: every verb as a coroutine, on asyncio and trio. A thin shell, the twin of `sync_client`."""

from __future__ import annotations

import contextlib
import os
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable, Mapping, Sequence
from types import TracebackType
from typing import Any, Literal, Self, Unpack

from pydantic import SecretStr

from unigpu import _config
from unigpu._config import DEFAULT, Default
from unigpu.elasticity.capabilities import Capabilities
from unigpu.models import (
    DeploymentSpec,
    Event,
    Explanation,
    GcReport,
    GPURequest,
    Interface,
    Inventory,
    Kind,
    LogLine,
    Offers,
    Plan,
    Plans,
    Result,
    SpecFields,
    Worker,
)

from .account import Account
from .arguments import OnUnsupported
from .async_handles import AsyncDeployment, AsyncJob, AsyncStream
from .calls import CallArguments, Calls
from .context import Context
from .explain import explain
from .gate import Gate
from .handle_state import Deployments, Submitted, Unpicklable
from .http_verbs import AsyncHTTPVerbs
from .known import Seen
from .lookup import Lookup
from .map.item import plan_map
from .map.results import AsyncResults
from .offers import offers
from .plan import plan
from .progress import ProgressMode
from .session import Session
from .transports import Transport, async_transports, http_config
from .verbs import Verbs


class AsyncClient(AsyncHTTPVerbs, Unpicklable):
    """One client for every provider, on asyncio and trio; a context manager that closes its connections.

    It belongs to no loop until it is used, and works under a second ``asyncio.run``.

    Args:
        provider: The default provider; another one is reached by ``provider=`` or by an address, ``"summarize@vast"``.
        api_key: The default provider's key, or a mapping of keys by provider. Usually the environment's.
        profile: A table ``[profiles.NAME]`` of the configuration file.
        namespace: Names are unique in it. Default: ``UNIGPU_NAMESPACE``, the file's, ``"default"``.
        driver_options: A provider's own settings, keyed by provider.
        config: The configuration file; default: the nearest ``unigpu.toml`` or ``[tool.unigpu]``.
        state_dir: Where what must survive a crash is kept; ``None``: nowhere.
        transport: An httpx transport of your own, instead of our connections.
        on_event: Gets every event, for metrics. It must not block.

    Raises:
        ConfigurationError: something given, or in the file, is wrong.
    """

    def __init__(
        self,
        provider: str | None = None,
        *,
        api_key: SecretStr | str | Mapping[str, SecretStr | str] | None = None,
        profile: str | None = None,
        namespace: str | None = None,
        driver_options: Mapping[str, Mapping[str, object]] | None = None,
        config: str | os.PathLike[str] | None = None,
        state_dir: str | os.PathLike[str] | Default | None = DEFAULT,
        transport: Transport | None = None,
        on_event: Callable[[Event], None] | None = None,
    ) -> None:
        settings = _config.load(
            provider=provider,
            api_key=api_key,
            profile=profile,
            namespace=namespace,
            driver_options=driver_options,
            config=config,
            state_dir=state_dir,
        )
        session = Session(settings, on_event)
        http = http_config(transport, here_only=settings.this_machine_only)
        self._context = Context(session, Gate(session), async_transports(http, session.emit))
        self._lookup = Lookup(self._context)
        self._verbs = Verbs(self._context, self._lookup)
        self._account = Account(self._context, self._lookup)
        self._calls = Calls(self._context, self._lookup, self._job)

    async def deploy(
        self,
        spec: DeploymentSpec | str | Plan | None = None,
        *,
        provider: str | None = None,
        wait: bool | Literal["worker"] = True,
        timeout: float = 1800,
        if_exists: Literal["reuse", "error", "replace"] = "reuse",
        ephemeral: bool = False,
        on_unsupported: OnUnsupported = "raise",
        on_failure: Literal["teardown", "keep"] = "teardown",
        settle: bool = False,
        progress: ProgressMode = "auto",
        **fields: Unpack[SpecFields],
    ) -> AsyncDeployment:
        """Make a deployment be there: create it, reuse one of the same name and spec, or change it.

        Args:
            spec: A spec, or the name of a declared deployment; *fields* override it, or are all of it. Or a plan:
                then exactly that is done.
            provider: Where; default: the client's.
            wait: ``True``: until it is ready, or cold where it may have no worker; ``"worker"``: wake one and wait for
                it; ``False``: return once it exists.
            timeout: Seconds for the whole.
            if_exists: What becomes of one that differs: ``"reuse"`` and ``"error"`` raise, ``"replace"`` changes it.
            ephemeral: A random suffix to the name, never reused, and a ttl of an hour unless one is stated.
            on_unsupported: ``"adapt"`` takes the nearest thing for what the platform cannot do, and lists it.
            on_failure: Whether what this call created is undone when it fails.
            settle: Return after every follow-up check that is due on a platform whose lists are late.
            progress: ``"auto"``: a line on a terminal, else a log record a phase; ``"off"``; or a function.

        Raises:
            ConfigurationError: a field is wrong or missing.
            UnsupportedError: the platform cannot do what is stated.
            NameConflict: the name is taken by something else.
            PlanChanged: it would not be what the plan says.
            WorkerFailed: a worker cannot start.
            DeadlineExceeded: not ready in time; what exists is kept, and may bill.
        """
        seen = self._verbs.deploy(
            spec,
            provider=provider,
            wait=wait,
            timeout=timeout,
            if_exists=if_exists,
            ephemeral=ephemeral,
            on_unsupported=on_unsupported,
            on_failure=on_failure,
            settle=settle,
            progress=progress,
            fields=fields,
        )
        return AsyncDeployment(self, self._verbs, await seen)

    async def invoke(
        self,
        deployment: AsyncDeployment | str,
        input: Mapping[str, Any],
        *,
        start_timeout: float | None = None,
        timeout: float | None = None,
        on_timeout: Literal["cancel", "keep"] = "cancel",
        idempotent: bool | None = None,
        wake: bool = True,
    ) -> Result:
        """Call the handler once, and wait for its output.

        Args:
            deployment: A handle, a name, or an address such as ``"summarize@vast"``.
            input: A JSON object.
            start_timeout: Seconds it may wait while no worker is ready; default: the high end of a cold start here.
            timeout: Seconds in all; default: that and the execution timeout together.
            on_timeout: Whether a job we stop waiting for is cancelled or left in the queue.
            idempotent: It may run twice; default: what the deployment says.
            wake: Whether it may start a worker.

        Raises:
            InvalidInput: the input is not JSON.
            NoWorkerReady: no worker was ready in time.
            DeadlineExceeded: it took longer than *timeout*.
            JobFailed: the handler raised; WorkerLost: its worker died.
            WorkerFailed: no worker can start; carries its last log lines.
            ResultUnknown: it may have run, and its result is lost.
        """
        asked = CallArguments.checked(start_timeout, timeout, on_timeout=on_timeout, idempotent=idempotent, wake=wake)
        return await self._calls.invoke(deployment, input, asked)

    async def scale(
        self,
        deployment: AsyncDeployment | str,
        workers: int | tuple[int, int],
        *,
        on_unsupported: OnUnsupported = "raise",
    ) -> AsyncDeployment:
        """Set how many workers it has: ``n``, or ``(least, most)``.

        Raises:
            UnsupportedError: the platform cannot hold such limits.
        """
        return self._handle(deployment, await self._verbs.scale(deployment, workers, on_unsupported=on_unsupported))

    async def teardown(
        self, deployment: AsyncDeployment | str, *, timeout: float = 600, missing_ok: bool = True, volumes: bool = False
    ) -> None:
        """Destroy it, and verify that it is gone.

        Args:
            missing_ok: One that is gone already is success: for a handle, and for a name that was known here.
            volumes: Also delete its volumes.

        Raises:
            NotFoundError: there is no such name, and there never was one here; names the nearest.
            TeardownIncomplete: something is still there.
        """
        await self._verbs.teardown(deployment, timeout=timeout, missing_ok=missing_ok, volumes=volumes)

    async def submit(
        self,
        deployment: AsyncDeployment | str,
        input: Mapping[str, Any],
        *,
        start_timeout: float | None = None,
        timeout: float | None = None,
        wake: bool = True,
    ) -> AsyncJob:
        """Put a call into the queue, and return at once.

        Args:
            start_timeout: Seconds that the job's ``result`` waits while no worker is ready, as in `invoke`.
            timeout: Seconds that the job's ``result`` waits in all, unless ``result`` gets another timeout.

        Raises:
            UnsupportedError: the platform has no jobs.
        """
        asked = CallArguments.checked(start_timeout, timeout, on_timeout="keep", wake=wake)
        return self._job(await self._calls.submit(deployment, input, asked))

    def stream(
        self,
        deployment: AsyncDeployment | str,
        input: Mapping[str, Any],
        *,
        start_timeout: float | None = None,
        timeout: float | None = None,
        wake: bool = True,
    ) -> AsyncStream:
        """Call the handler, and get its chunks as they come. It is sent when the first one is asked for.

        Args:
            start_timeout: Seconds it may wait while no worker is ready, as in `invoke`.
            timeout: Seconds for the whole, to the last chunk.

        Raises:
            UnsupportedError: the platform does not stream.
            StreamInterrupted: it broke; carries what had arrived.
        """
        return AsyncStream(
            self._calls.stream(deployment, input, CallArguments.checked(start_timeout, timeout, wake=wake))
        )

    def map(
        self,
        deployment: AsyncDeployment | str,
        inputs: Iterable[Mapping[str, Any]],
        *,
        concurrency: int | None = None,
        order: Literal["input", "done"] = "input",
        on_error: Literal["raise", "return"] = "raise",
        start_timeout: float | None = None,
        timeout: float | None = None,
        idempotent: bool | None = None,
        key: Callable[[Any], str] | None = None,
        checkpoint: str | os.PathLike[str] | None = None,
        progress: ProgressMode = "auto",
    ) -> AsyncResults:
        """Call the handler for each input, many at a time; gives results as an iterator.

        Args:
            concurrency: Calls at a time; default: as many as its workers take.
            order: AsyncResults in the order of the inputs, or as they are done.
            on_error: The first failure is raised, or each comes as a result with ``.error``.
            start_timeout: Per input, as in ``invoke``.
            timeout: Per input, in seconds from the moment a worker is ready.
            key: Names an input in results and in the checkpoint; default: its position.
            checkpoint: A file; a map that ended early goes on from it. One file belongs to one deployment.
            progress: As in ``deploy``.

        Raises:
            CheckpointMismatch: the file belongs to another deployment or to other inputs.
        """
        plan = plan_map(
            self._calls,
            self._map_calls,
            deployment,
            inputs,
            concurrency=concurrency,
            order=order,
            on_error=on_error,
            start_timeout=start_timeout,
            timeout=timeout,
            idempotent=idempotent,
            key=key,
            checkpoint=checkpoint,
            progress=progress,
        )
        return AsyncResults(plan)

    async def get(
        self,
        name: str | None = None,
        *,
        id: str | None = None,
        provider: str | None = None,
        interface: Interface | None = None,
        port: int | None = None,
        route: str | None = None,
        idempotent: bool = False,
    ) -> AsyncDeployment:
        """The deployment of that name or address, or any endpoint of the account by its id, looked up now.

        An endpoint that unigpu did not create is called with every promise about calls. Nothing is written there:
        ``scale``, ``update``, ``stop``, ``start`` and ``teardown`` are refused until `adopt`.

        Args:
            name: The name, or an address such as ``"summarize@vast"`` or ``"id:4nz8u2rlh5ts1a@runpod"``. Give exactly
                one of *name* and *id*.
            id: The endpoint's id, or its name, on the platform.
            interface: What it is, where the platform cannot be asked (``.info.assumed`` says so).
            port: The port of its own server, where the platform cannot be asked.
            route: Where calls are posted, on platforms where an endpoint has several routes.
            idempotent: The handler may safely run twice for one input.

        Raises:
            NotFoundError: there is none; names what exists under a like name or id.
            ConfigurationError: the platform does not show something that is needed; names the argument.
        """
        seen = self._verbs.get(
            name, id=id, provider=provider, interface=interface, port=port, route=route, idempotent=idempotent
        )
        return AsyncDeployment(self, self._verbs, await seen)

    def adopt(self, deployment: AsyncDeployment) -> AsyncDeployment:
        """Allow changes of an endpoint that unigpu did not create, for this handle only. Nothing is sent.

        ``gc`` never touches it, and a ``with`` block leaves it running.

        Returns:
            The same handle.
        """
        self._verbs.adopt(deployment)
        return deployment

    async def deployments(self, *, provider: str | Sequence[str] | None = None) -> Deployments[AsyncDeployment]:
        """The deployments of this namespace, on every provider that has a key, or on those that are named.

        A provider that could not be read is in ``.unreadable``; where only one was named, its error is raised.
        """
        found, unreadable = await self._account.deployments(provider)
        return Deployments([AsyncDeployment(self, self._verbs, seen) for seen in found], unreadable)

    async def inventory(self, *, provider: str | Sequence[str] | None = None) -> Inventory:
        """Everything that costs money now, on every account with a key or on those named; others' resources, too.

        A provider that could not be read is in ``.unreadable``; where only one was named, its error is raised.
        """
        return await self._account.inventory(provider)

    async def gc(
        self,
        *,
        provider: str | Sequence[str] | None = None,
        delete: bool = False,
        all_namespaces: bool = False,
    ) -> GcReport:
        """What deploys of this namespace left behind. With *delete* it is deleted, and verified gone.

        Only these are deleted: what a deploy of this machine gave up, or left when it was killed; of several of one
        name all but the oldest; and what has expired. What this machine has no record of is shown as ``unclaimed``,
        and is only deleted by its name. Where a list could not be read, nothing is deleted.

        Args:
            all_namespaces: Show those of other namespaces, too.
        """
        return await self._account.gc(provider, delete=delete, all_namespaces=all_namespaces)

    async def plan(
        self,
        spec: DeploymentSpec | str | None = None,
        *,
        provider: str | Sequence[str] | None = None,
        if_exists: Literal["reuse", "error", "replace"] = "reuse",
        on_unsupported: OnUnsupported = "raise",
        **fields: Unpack[SpecFields],
    ) -> Plans:
        """What ``deploy`` would do and cost, on every provider that has a key, or on those that are named.

        Reads, and changes nothing. What cannot be had stays in, with the reason; each plan has the requests that would
        be sent, without keys. ``deploy(plan)`` does exactly that.

        Raises:
            ConfigurationError: a field is wrong.
            UniGPUError: the one provider that was named could not be read; of several it is in ``.unreadable``.
        """
        found = plan(
            self._context,
            spec,
            provider=provider,
            if_exists=if_exists,
            on_unsupported=on_unsupported,
            fields=fields,
        )
        return await found

    async def offers(
        self,
        *,
        provider: str | Sequence[str] | None = None,
        gpu: str | GPURequest | Sequence[str] | Sequence[GPURequest] | None = None,
        max_price: float | None = None,
        regions: str | Sequence[str] | None = None,
        kind: Kind = "serverless",
    ) -> Offers:
        """What GPUs could be had now, the cheapest first, on every provider that has a key, or on those named.

        Args:
            gpu: Acceptable GPUs, as in a spec.
            max_price: USD per worker-hour. Offers of unknown price are left out then.
            regions: Countries or areas, as in a spec. Offers of unknown place are left out then.

        A provider that could not be read, or lists none, is in ``.unreadable``; where only one was named, its error is
        raised.
        """
        found = offers(self._context, provider=provider, gpu=gpu, max_price=max_price, regions=regions, kind=kind)
        return await found

    async def explain(self, deployment: AsyncDeployment | str) -> Explanation:
        """Why it is not ready: what was seen, the last words of a worker that failed, and the next step.

        Raises:
            DeploymentGone: it does not exist any more.
        """
        return await explain(self._context, self._lookup, deployment)

    async def workers(self, deployment: AsyncDeployment | str) -> tuple[Worker, ...]:
        """Its workers now, also those that failed lately."""
        return await self._verbs.workers(deployment)

    def logs(
        self, deployment: AsyncDeployment | str, *, worker: str | None = None, follow: bool = False, tail: int = 200
    ) -> AsyncIterator[LogLine]:
        """The last *tail* lines of one worker's log or of all, and with *follow* what comes after."""
        return self._verbs.logs(deployment, worker=worker, follow=follow, tail=tail)

    async def wait_ready(
        self,
        deployment: AsyncDeployment | str,
        *,
        wake: bool = False,
        timeout: float = 1800,
        progress: ProgressMode = "auto",
    ) -> AsyncDeployment:
        """Wait until it is ready, or cold where it may have no worker; with *wake*, until a worker is ready.

        Raises:
            WorkerFailed: a worker cannot start.
            DeadlineExceeded: not ready in time.
        """
        seen = self._verbs.wait_ready(deployment, wake=wake, timeout=timeout, progress=progress)
        return self._handle(deployment, await seen)

    async def wake(self, deployment: AsyncDeployment | str) -> AsyncDeployment:
        """Start one worker, and return at once. One that has a worker is left as it is."""
        return self._handle(deployment, await self._verbs.wake(deployment))

    async def stop(self, deployment: AsyncDeployment | str, *, timeout: float = 600) -> AsyncDeployment:
        """Pause it: no worker runs, and it stays. ``.info.bills`` says what it still costs.

        Args:
            timeout: Seconds until it must be stopped.

        Raises:
            UnsupportedError: the platform cannot.
            DeadlineExceeded: it was not stopped in time; says what may still bill.
        """
        return self._handle(deployment, await self._verbs.stop(deployment, timeout=timeout))

    async def start(
        self, deployment: AsyncDeployment | str, *, wait: bool = True, timeout: float = 1800
    ) -> AsyncDeployment:
        """Start a stopped one again.

        Args:
            wait: Until it is ready; else it returns as soon as the platform took the start.
            timeout: Seconds for all of it.

        Raises:
            NoCapacityError: its GPU is gone.
            DeadlineExceeded: it was not ready in time; it is left as it is, and may bill.
        """
        return self._handle(deployment, await self._verbs.start(deployment, wait=wait, timeout=timeout))

    async def update(
        self,
        deployment: AsyncDeployment | str,
        *,
        wait: bool | Literal["worker"] = True,
        timeout: float = 1800,
        on_unsupported: OnUnsupported = "raise",
        progress: ProgressMode = "auto",
        **changes: Unpack[SpecFields],
    ) -> AsyncDeployment:
        """Change fields of its spec: in place where the platform can, else it is torn down and made anew.

        Raises:
            ConfigurationError: the platform does not tell the spec of what runs, so single fields cannot be changed.
            DeploymentGone: it does not exist any more.
        """
        seen = self._verbs.update(
            deployment, wait=wait, timeout=timeout, on_unsupported=on_unsupported, progress=progress, changes=changes
        )
        return self._handle(deployment, await seen)

    def capabilities(
        self, provider: str | None = None, *, interface: Interface = "function", kind: Kind = "serverless"
    ) -> Capabilities:
        """What a provider can do, each flag with its fact and source. Nothing is sent.

        Raises:
            UnsupportedError: it has no such deployments.
        """
        return self._verbs.capabilities(provider, interface, kind)

    async def aclose(self) -> None:
        """Close the connections. Deployments stay as they are; any later use raises `ClientClosed`."""
        await self._account.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self._context.session.describe()}>"

    def _job(self, submitted: Submitted) -> AsyncJob:
        return AsyncJob(self._calls, submitted)

    def _handle(self, deployment: AsyncDeployment | str, seen: Seen) -> AsyncDeployment:
        return deployment if isinstance(deployment, AsyncDeployment) else AsyncDeployment(self, self._verbs, seen)

    @contextlib.asynccontextmanager
    async def _map_calls(self) -> AsyncGenerator[Calls]:
        """The calls of `map`: these."""
        yield self._calls
