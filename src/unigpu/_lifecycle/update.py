"""Change an existing deployment to a new spec: in place where the platform can, else by deleting and creating it."""

from __future__ import annotations

from unigpu.driver import DeploymentInfo, DeploymentSpec
from unigpu.errors import ConflictError, UnsupportedError

from .consistency.absence import gone
from .decide import limits_to_change
from .deploy import DeployRun
from .identity import CODE, compared, differing
from .in_place import can_update, downtime
from .scope import Deployed, Scope, Wait


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
        changed: The fields that the caller named. They are sent even where nothing seems to differ (secrets).

    Raises:
        DeploymentGone: it does not exist any more.
        As `deploy`.
    """
    async with DeployRun(scope, spec, deadline=deadline, doing="updating") as run:
        deployed = await _update(run, info, changed)
        deployed = run.commit(await run.finish(deployed, wait))
        await scope.io.sleep(0)  # a cancellation after the last request is raised here, where the run still undoes
    scope.event(f"deploy.{deployed.change}", deployment=spec.name, id=deployed.info.id)
    return deployed


async def _update(run: DeployRun, info: DeploymentInfo, changed: frozenset[str]) -> Deployed:
    scope, attempt, spec = run.scope, run.attempt, run.attempt.spec
    if "ttl" in changed:
        raise UnsupportedError(
            f"the ttl of {spec.name} was fixed when it was created",
            provider=scope.provider,
            deployment=spec.name,
            capability="ttl_change",
            hint="Tear it down and deploy it again with another ttl.",
        )
    seen = await attempt.survey()
    main, now = seen.main, seen.info
    if main is None or now is None or (None not in (info.attempt, main.attempt) and info.attempt != main.attempt):
        raise gone(scope, info)
    attempt.info = now
    stated = compared(spec, attempt.content, provider=scope.provider)
    differs = set(differing(main.spec_hash or attempt.known_hash(main), attempt.hash, stated) or ())
    fields = frozenset((changed & stated) | (differs & {CODE}))
    limits = limits_to_change(now, spec)
    if not fields:
        if limits:
            return attempt.deployed(await run.in_place.scale(now, limits), "scaled")
        return attempt.deployed(now, "reused")
    if can_update(scope.driver, now, fields):
        now = await run.in_place.update(main, now)
        if limits:
            now = await run.in_place.scale(now, limits)
        return attempt.deployed(now, "updated")
    attempt.adaptations.append(downtime(spec, tuple(sorted(fields))))
    seen = await run.replacement.remove(seen)
    try:
        return run.created(await run.complete(seen))
    except ConflictError:  # another call took the name while it was free
        return await run.deploy("replace")
