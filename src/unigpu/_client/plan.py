"""What a deploy would do on each provider, and how a deploy is held to it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any, Final, cast
from urllib.parse import urlsplit

from pydantic import SecretStr

from unigpu import _config, _registry
from unigpu._io.dry_run import GuardedIo
from unigpu._io.redact import safe_url, scrub
from unigpu._lifecycle import IfExists, Scope, deploying
from unigpu._lifecycle.dry_run import DryRunResult, dry_run
from unigpu.driver import UNSET, DeploymentInfo, DeploymentSpec, Rate, Request, State
from unigpu.errors import ConfigurationError, NameConflict, PlanChanged, UnsupportedError
from unigpu.models import Adaptation
from unigpu.models.plan import Action, Plan, PlannedRequest, Plans

from . import arguments
from .arguments import OnUnsupported
from .context import Context
from .offers import with_offers
from .session import PLAN_SECONDS, Providers, Unreadable

_HIDDEN: Final = "***"
_SHOWN_HEADERS: Final = frozenset({"accept", "content-type", "if-match", "if-none-match"})
_SECRET_NAME: Final = re.compile(r"(?i)(?:api_?key|token|secret|password|authorization|signature)$")
_EXCLUDES: Final = (ConfigurationError, UnsupportedError, NameConflict)


async def plan(
    context: Context,
    given: DeploymentSpec | str | None,
    *,
    provider: Providers,
    if_exists: IfExists,
    on_unsupported: OnUnsupported,
    fields: Mapping[str, Any],
) -> Plans:
    """One plan for each provider that is covered. What cannot be had stays in, with the reason."""
    context.session.open()
    if_exists = arguments.choice(if_exists, "if_exists", arguments.IF_EXISTS)
    on_unsupported = arguments.choice(on_unsupported, "on_unsupported", arguments.ON_UNSUPPORTED)
    if isinstance(given, str):
        given, at = arguments.address(given)
        if at is not None and provider not in (None, at):
            raise ConfigurationError(f"provider={provider!r}, and the address says {at!r}: which one?")
        provider = at or provider
    plans: list[Plan] = []
    unreadable = Unreadable(provider)
    for name in context.session.providers(provider):
        asked, where, adapt = context.gate.spec(given, name, fields)
        adapting = adapt or on_unsupported == "adapt"
        with unreadable.unless_read(name):
            found, _ = await _planned(context, asked, where, if_exists=if_exists, adapt=adapting)
            plans.append(found)
    return Plans(plans, unreadable)


async def _planned(
    context: Context, asked: DeploymentSpec, where: str, *, if_exists: IfExists, adapt: bool
) -> tuple[Plan, DryRunResult | None]:
    common: dict[str, Any] = {
        "provider": where,
        "name": asked.name,
        "namespace": context.session.namespace,
        "if_exists": if_exists,
        "on_unsupported": "adapt" if adapt else "raise",
        "spec": asked,
    }
    deadline = context.deadline(PLAN_SECONDS)
    try:
        spec, adaptations, unsaid = context.gate.admit(asked, where, adapt=adapt)
        scope = replace(context.scope(where, spec.interface, spec.kind), unsaid=unsaid)
        done = await dry_run(scope, spec, if_exists=if_exists, deadline=deadline)
    except _EXCLUDES as exc:
        return Plan(action="excluded", reason=str(await with_offers(context, exc, asked, where)), **common), None
    hidden = tuple(_hidden(context, asked, where))
    info = done.deployed.info
    action = _action(done)
    existing = action in ("reuse", "scale")
    rate = (
        _rate_then(context.seen(info, spec).rate, info, spec)
        if existing
        else deploying(context.session.driver(where)).rate(spec)
    )
    made: tuple[Adaptation, ...] = (*adaptations, *done.deployed.adaptations)
    found = Plan(
        action=action,
        fields=done.fields,
        requests=tuple(planned_request(one, hidden) for one in done.requests),
        adaptations=made,
        rate=rate,
        warnings=done.deployed.warnings,
        existing=done.existing,
        spec_hash=done.spec_hash,
        **common,
    )
    return found, done


def _rate_then(rate: Rate, info: DeploymentInfo, spec: DeploymentSpec) -> Rate:
    """What exists, at its price now, with the workers it is to have: a stopped one is started."""
    least, most = spec.workers if "workers" in spec.stated else info.workers or (0, 0)
    changes = info.state is State.STOPPED or (least == most and info.workers != (least, most))
    if not changes or rate.max_per_hour is None or info.workers is None or info.workers[1] < 1:
        return rate
    one = rate.max_per_hour / info.workers[1]
    return rate.model_copy(update={"idle_per_hour": round(one * least, 6), "max_per_hour": round(one * most, 6)})


async def hold_to(context: Context, plan: Plan, scope: Scope) -> Scope:
    """*scope* in which nothing but the plan can be done.

    Raises:
        PlanChanged: made again now, it would be another plan. Nothing was done.
    """
    adapt = plan.on_unsupported == "adapt"
    now, done = await _planned(context, plan.spec, plan.provider, if_exists=plan.if_exists, adapt=adapt)
    different = plan.differences(now)
    if different or done is None:
        raise PlanChanged(
            f"the plan for {plan.name} on {plan.provider} does not hold any more: {'; '.join(different)}.",
            provider=plan.provider,
            deployment=plan.name,
            maybe_executed=False,
            hint="Nothing was done. Plan again.",
        )
    steps = [(one.method, one.operation) for one in done.requests]
    # A start that is shared with other callers would go out by their `Io`, unguarded and uncounted.
    return replace(scope, io=GuardedIo(scope.io, steps, done.waking), start=None)


def check_plan(plan: Plan, namespace: str, agrees: Mapping[str, bool], fields: Mapping[str, Any]) -> None:
    """What is given with a plan must not say otherwise.

    Args:
        agrees: Parameter → whether what was given is what the plan says.

    Raises:
        ConfigurationError: it does; or the plan is one that cannot be had, or of another namespace.
    """
    if not plan.ok:
        raise ConfigurationError(
            f"{plan.name} cannot be had on {plan.provider}: {plan.reason}", provider=plan.provider, deployment=plan.name
        )
    if plan.namespace != namespace:
        raise ConfigurationError(f"this plan is of the namespace {plan.namespace!r}, the client's is {namespace!r}.")
    wrong = [*fields, *(name for name, same in agrees.items() if not same)]
    if wrong:
        raise ConfigurationError(
            f"{', '.join(f'{one}=' for one in wrong)}: deploy(plan) does what the plan says, and nothing else.",
            hint="Make another plan.",
        )


def planned_request(request: Request, hidden: tuple[str, ...]) -> PlannedRequest:
    """A request as it may be shown."""
    body: Any = None
    if request.json is not UNSET:
        body = _shown(request.json, hidden)
    elif request.content is not None:
        body = f"({len(request.content)} bytes)"
    return PlannedRequest(
        operation=request.operation,
        method=request.method,
        url=safe_url(scrub(request.url, hidden)) if urlsplit(request.url).scheme else request.url,
        params={name: _text(name, value, hidden) for name, value in request.params},
        headers={
            name: scrub(value, hidden) if name.lower() in _SHOWN_HEADERS else _HIDDEN for name, value in request.headers
        },
        body=body,
    )


def _shown(value: object, hidden: tuple[str, ...], name: str = "") -> object:
    if isinstance(value, Mapping):
        return {str(k): _shown(v, hidden, str(k)) for k, v in cast("Mapping[object, object]", value).items()}
    if isinstance(value, list | tuple):
        return [_shown(one, hidden, name) for one in cast("list[object]", value)]
    return _text(name, value, hidden) if isinstance(value, str) else value


def _text(name: str, value: str, hidden: tuple[str, ...]) -> str:
    if _SECRET_NAME.search(name) and name != "UNIGPU_AUTH":  # that is the name of a variable
        return _HIDDEN
    for secret in hidden:  # short ones too: `scrub` leaves those, because they would be found everywhere
        if value == secret:
            return _HIDDEN
    return scrub(value, hidden)


def _hidden(context: Context, spec: DeploymentSpec, where: str) -> Iterator[str]:
    """Every secret that could be in a request."""
    settings = context.session.settings
    values: list[object] = [*spec.secrets.values(), *settings.driver_options.get(where, {}).values()]
    values.append(settings.api_key(where, _registry.load(where).env_key))
    if spec.registry is not None:
        values.append(spec.registry.password)
    if spec.auth is not None and not isinstance(spec.auth, str):
        values.append(_config.secret(spec.auth.env))
    values += [_config.secret(name) for name, value in spec.secrets.items() if value is None]
    for value in values:
        if isinstance(value, SecretStr) and value.get_secret_value():
            yield value.get_secret_value()
    for name, value in settings.driver_options.get(where, {}).items():
        if isinstance(value, str) and value and _SECRET_NAME.search(name):
            yield value


def _action(done: DryRunResult) -> Action:
    if done.replaced:
        return "recreate"
    words: dict[str, Action] = {"created": "create", "reused": "reuse", "scaled": "scale", "updated": "update"}
    found = words[done.deployed.change]
    return "update" if found == "reuse" and done.requests else found
