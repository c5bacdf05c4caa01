"""Deploy and update, for every provider: find, decide, record the intent, create cold, warm, wait, commit, or undo.

The truth is the platform, found by name; the intent is only a crash log. One deploy of a name runs at a time on one
machine (the name's lock); between machines the platform's create decides, and the loser looks again.
"""

from __future__ import annotations

import secrets
from typing import Final

from unigpu.driver import DeploymentInfo, DeploymentSpec
from unigpu.errors import ConfigurationError

from .deploy import Run
from .scope import Deployed, IfExists, OnFailure, Scope, Wait

EPHEMERAL_TTL: Final = 3600.0
_SUFFIX: Final = 8


async def deploy(
    scope: Scope,
    spec: DeploymentSpec,
    *,
    if_exists: IfExists,
    wait: Wait,
    deadline: float,
    on_failure: OnFailure,
    settle: bool,
    ephemeral: bool = False,
) -> Deployed:
    """Make a deployment of this name and spec be there, once, whatever happens on the way.

    Args:
        ephemeral: Add a random suffix to the name, never adopt, and end after an hour unless a ttl is stated.
        settle: Pay every look that is owed before returning; an atomic platform owes none.

    Raises:
        NameConflict: the name is taken by something else.
        StateError: the intent cannot be kept; nothing was created.
        WorkerFailed: a worker cannot start; what this call created was torn down (``on_failure="keep"``: left).
        DeadlineExceeded: past the last create what exists is kept, before it everything is undone.
        PartialDeployError: it failed, and undoing failed too: what is left, and how to end it.
    """
    if ephemeral:
        spec, if_exists = ephemeral_spec(spec), "error"
    run = Run(scope, spec, deadline=deadline)
    lock = None
    if scope.store is not None:
        lock = await scope.store.lock(scope.io, run.key, deadline=deadline, what=f"deploying {spec.name}")
    try:
        try:
            deployed = await run.deploy(if_exists)
            deployed = run.commit(await run.finish(deployed, wait, if_exists))
            if settle:
                deployed = await run.settle(deployed, wait, if_exists)
            await scope.io.sleep(0)  # a cancellation that came after the last call still finds somebody to undo
        except GeneratorExit:
            raise  # nothing can be awaited any more; the intent stays, and the next deploy of the name settles it
        except BaseException as exc:
            await run.failed(exc, keep=on_failure == "keep")
            raise
    finally:
        if lock is not None:
            lock.release()
    scope.event(f"deploy.{deployed.change}", deployment=spec.name, id=deployed.info.id)
    return deployed


async def update(
    scope: Scope,
    info: DeploymentInfo,
    spec: DeploymentSpec,
    *,
    changed: frozenset[str],
    wait: Wait,
    deadline: float,
) -> Deployed:
    """Change an existing deployment to *spec*: ``replace`` on a handle.

    Args:
        changed: The fields that the caller named; they are sent even where nothing seems to differ (secrets).

    Raises:
        DeploymentGone: it does not exist any more.
        As `deploy`.
    """
    run = Run(scope, spec, deadline=deadline)
    lock = None
    if scope.store is not None:
        lock = await scope.store.lock(scope.io, run.key, deadline=deadline, what=f"updating {spec.name}")
    try:
        try:
            deployed = await run.update(info, changed)
            deployed = run.commit(await run.finish(deployed, wait))
            await scope.io.sleep(0)  # a cancellation that came after the last call still finds somebody to undo
        except GeneratorExit:
            raise
        except BaseException as exc:
            await run.failed(exc, keep=False)
            raise
    finally:
        if lock is not None:
            lock.release()
    scope.event(f"deploy.{deployed.change}", deployment=spec.name, id=deployed.info.id)
    return deployed


def ephemeral_spec(spec: DeploymentSpec) -> DeploymentSpec:
    """*spec* under a name of its own, with an end.

    Raises:
        ConfigurationError: the base name is too long.
    """
    room = 63 - _SUFFIX - 1
    if len(spec.name) > room:
        raise ConfigurationError(
            f"name: with ephemeral=True a name has at most {room} characters ({_SUFFIX} random ones are added)"
        )
    ttl = spec.ttl if "ttl" in spec.stated else EPHEMERAL_TTL
    return spec.with_changes(name=f"{spec.name}-{secrets.token_hex(_SUFFIX // 2)}", ttl=ttl)
