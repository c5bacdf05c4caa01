"""What RunPod cannot do that no flag says: of values, and of fields together. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterator

from unigpu.driver import Adaptation, BearerToken, Checked, DeploymentSpec, Refusal

from .bodies import (
    LEAST_DELAY,
    LONGEST_IDLE,
    LONGEST_RUN,
    MOUNT,
    SHORTEST_IDLE,
    SHORTEST_RUN,
    has_idle_timeout,
    options_of,
    scaling_body,
    secret_names,
    type_of,
)
from .translate import volume_month

_LONGEST_NAME = 191 - 55
"""An account secret's name has at most 191 characters, of which our tag takes its share."""
_VOLUME_GB = (10, 4096)


def check(spec: DeploymentSpec) -> Checked:
    """All of it."""
    return Checked(adaptations=tuple(_notes(spec)), refusals=tuple(_refusals(spec)))


def _refusals(spec: DeploymentSpec) -> Iterator[Refusal]:
    yield from _content(spec)
    if spec.kind == "serverless":
        yield from _limits(spec)
    yield from _volumes(spec)


def _content(spec: DeploymentSpec) -> Iterator[Refusal]:
    options = options_of(spec)
    counts = sorted({one.count for one in spec.gpu or ()})
    if len(counts) > 1:
        text = f"gpu: RunPod takes one number of GPUs a worker for all that are acceptable, not {counts}."
        yield Refusal(field="gpu", capability="gpu", message=text)
    if spec.interface == "function" and options.endpoint_type == "LOAD_BALANCER":
        text = 'endpoint_type: a function is a QUEUE on RunPod; for a server of your own use interface="http".'
        yield Refusal(field="provider_options", capability="request", message=text)
    if spec.kind == "serverless" and options.route is not None:
        text = "route: RunPod hands a job to the worker's own loop, not to a route; leave it out."
        yield Refusal(field="provider_options", capability="request", message=text)
    if (
        spec.kind == "pod"
        and "COMMUNITY" in options.cloud
        and spec.secrets
        and "secrets_on_shared_hosts" not in spec.accept
    ):
        text = (
            "secrets: a pod of the COMMUNITY cloud runs on a stranger's machine, whose host can read its disk and "
            'environment. To send them all the same: accept=["secrets_on_shared_hosts"]. Or take COMMUNITY out of '
            "provider_options."
        )
        yield Refusal(field="secrets", capability="host_trust", message=text)
    braces = sorted(name for name, text in spec.env.items() if "{{" in text)
    if braces:
        text = (
            f"env: RunPod replaces {{{{ … }}}} in {', '.join(braces)} by itself. A secret that is stored there belongs "
            'in secrets={"NAME": SecretRef("its name")}.'
        )
        yield Refusal(field="env", capability="secret_store", message=text)
    long = sorted(name for name in secret_names(spec) if len(name) > _LONGEST_NAME)
    if long:
        text = f"secrets: {long[0]} is too long for RunPod: {_LONGEST_NAME} characters at most."
        yield Refusal(field="secrets", capability="secret_store", message=text)
    if spec.kind == "serverless" and isinstance(spec.auth, BearerToken):
        text = (
            "auth: RunPod itself asks callers of an endpoint for the account's key, in the header that a token would "
            "be in. Leave auth out."
        )
        yield Refusal(
            field="auth", capability="public_endpoint", message=text, nearest={"auth": None}, got="the account's key"
        )
    if spec.kind == "pod" and (spec.volumes or options.network_volumes) and "COMMUNITY" in options.cloud:
        # https://docs.runpod.io/storage/network-volumes, "Network volumes for Pods".
        text = 'cloud: network volumes are in RunPod\'s SECURE cloud only; leave "COMMUNITY" out.'
        yield Refusal(field="provider_options", capability="volumes", message=text)
    if spec.kind == "pod" and spec.regions is not None and spec.volumes:
        text = "regions: a pod goes where its volume is; name the data centre in provider_options."
        yield Refusal(field="regions", capability="regions", message=text)


def _limits(spec: DeploymentSpec) -> Iterator[Refusal]:
    kind, scaling = type_of(spec), spec.scaling
    idle = spec.idle_timeout
    whole = float(min(LONGEST_IDLE, max(SHORTEST_IDLE, math.ceil(idle))))
    if kind == "LOAD_BALANCER" and scaling is not None and scaling.signal == "queue_delay":
        text = 'scaling: a load balancer of RunPod has no queue; it is scaled by "requests".'
        yield Refusal(
            field="scaling", capability="autoscaling_signals", message=text, nearest={"scaling": None}, got="requests"
        )
        return
    if not has_idle_timeout(kind, scaling_body(kind, scaling)):
        if "idle_timeout" in spec.stated:
            text = "idle_timeout: RunPod refuses it on a queue that is scaled by requests; leave it out."
            nearest = {"idle_timeout": DeploymentSpec.model_fields["idle_timeout"].default}
            yield Refusal(
                field="idle_timeout", capability="idle_timeout", message=text, nearest=nearest, got="RunPod's own"
            )
    elif whole != idle:
        text = f"idle_timeout: RunPod takes whole seconds from {SHORTEST_IDLE:g} to {LONGEST_IDLE:g}."
        yield Refusal(
            field="idle_timeout",
            capability="idle_timeout",
            message=text,
            nearest={"idle_timeout": whole},
            got=f"{whole:g} s",
        )
    if scaling is None:
        return
    if scaling.signal == "queue_delay" and scaling.target < LEAST_DELAY:
        text = f"scaling: RunPod's queue delay is {LEAST_DELAY:g} s or more."
        nearest_delay = {"scaling": {"signal": "queue_delay", "target": LEAST_DELAY}}
        yield Refusal(
            field="scaling", capability="autoscaling_signals", message=text, nearest=nearest_delay, got="0.5 s"
        )
    if scaling.signal == "requests" and not (scaling.target.is_integer() and scaling.target >= 1):
        up = float(max(1, math.ceil(scaling.target)))
        text = "scaling: RunPod counts whole requests a worker, 1 or more."
        nearest_count = {"scaling": {"signal": "requests", "target": up}}
        yield Refusal(
            field="scaling", capability="autoscaling_signals", message=text, nearest=nearest_count, got=f"{up:g}"
        )


def _volumes(spec: DeploymentSpec) -> Iterator[Refusal]:
    if not spec.volumes:
        return
    volume = next(iter(spec.volumes))
    if len(spec.volumes) > 1 or (spec.kind == "pod" and options_of(spec).network_volumes):
        text = (
            "volumes: a deployment has one on RunPod: several would each be in a data centre of its own, with nothing "
            "copied between them."
        )
        yield Refusal(field="volumes", capability="volumes", message=text)
    low, high = _VOLUME_GB
    if not low <= volume.size_gb <= high:
        text = f"volumes: {volume.name} has {volume.size_gb} GB; RunPod's have {low} to {high}."
        yield Refusal(field="volumes", capability="volumes", message=text)
    if spec.kind == "serverless" and volume.path not in (None, MOUNT):
        text = f"volumes: RunPod mounts a volume of an endpoint at {MOUNT}; leave path out, and say ${{volume.NAME}}."
        yield Refusal(field="volumes", capability="volumes", message=text)


def _notes(spec: DeploymentSpec) -> Iterator[Adaptation]:
    """What is not quite as asked, and no reason to refuse."""
    for volume in spec.volumes[:1]:
        yield Adaptation(
            field="volumes",
            asked=f"{volume.name}, {volume.size_gb} GB",
            got=f"one data centre for the volume and all workers, ${volume_month(volume.size_gb):.2f} a month",
            reason="RunPod: a network volume is in one data centre, and its workers run nowhere else",
            source="https://docs.runpod.io/storage/network-volumes",
        )
    held = min(LONGEST_RUN, max(SHORTEST_RUN, spec.execution_timeout))
    if spec.interface == "function" and spec.kind == "serverless" and held != spec.execution_timeout:
        yield Adaptation(
            field="execution_timeout",
            asked=f"{spec.execution_timeout:g} s",
            got=f"{held:g} s",
            reason=f"RunPod: an execution timeout is {SHORTEST_RUN:g} s to 7 days",
            source="https://docs.runpod.io/serverless/endpoints/endpoint-configurations",
        )
