"""What of a spec is not so on Yotta, beyond what its facts say. Pure."""

from __future__ import annotations

from urllib.parse import urlsplit

from unigpu.driver import Adaptation, BearerToken, Checked, DeploymentSpec, Refusal, spelling
from unigpu.errors import ConfigurationError

from . import bodies, gpus
from .api import PROVIDER
from .options import LEAST_DISK, Options, SpecOptions

_GUIDE = "https://docs.yottalabs.ai/api-and-sdk/api-guides"


def base_url(given: str) -> str:
    """The control plane's address, without a slash at its end.

    Raises:
        ConfigurationError: it is none, or not encrypted (but for one on this machine).
    """
    text = given.rstrip("/")
    try:
        parts = urlsplit(text)
        local = parts.hostname in ("127.0.0.1", "localhost", "::1")
        wrong = parts.scheme not in ("https", "http") or not parts.hostname or "@" in parts.netloc or parts.port == 0
    except ValueError:
        wrong, local, parts = True, False, urlsplit("")
    if wrong or parts.query or parts.fragment or (parts.scheme == "http" and not local):
        raise ConfigurationError(
            'driver_options.yotta.base_url: give an address such as "https://api.yottalabs.ai"; '
            "http is for this machine only.",
            provider=PROVIDER,
        )
    return text


def check(spec: DeploymentSpec, options: Options) -> Checked:
    refusals: list[Refusal] = []
    adaptations: list[Adaptation] = []
    own = SpecOptions.model_validate(dict(spec.options(PROVIDER)))
    if spec.gpu is not None:
        refusals += _gpus(spec, options)
    if spec.disk is not None and spec.disk < LEAST_DISK:
        adaptations.append(
            Adaptation(
                field="disk",
                asked=f"{spec.disk} GB",
                got=f"{LEAST_DISK} GB",
                reason=f"yotta: a worker has at least {LEAST_DISK} GB",
                source=_GUIDE,
            )
        )
    mode = bodies.mode_of(spec.interface, own)
    if spec.kind == "serverless" and isinstance(spec.auth, BearerToken) and mode == "ALB":
        text = (
            "auth: the gateway of an ALB endpoint asks for the account's key in the header that the token would stand "
            "in; leave auth out."
        )
        refusals.append(
            Refusal(field="auth", capability="public_endpoint", message=text, nearest={"auth": None}, got="none")
        )
    if spec.kind == "serverless" and spec.interface == "http" and mode == "QUEUE":
        text = "provider_options.yotta.service_mode: QUEUE has no address for requests; use ALB."
        refusals.append(Refusal(field="provider_options", capability="request", message=text))
    refusals += _without_meaning(spec, own)
    if spec.registry is not None and own.credential_id is not None:
        text = "registry: provider_options.yotta.credential_id names a stored login already; give one of the two."
        refusals.append(Refusal(field="registry", capability="images", message=text))
    return Checked(adaptations=tuple(adaptations), refusals=tuple(refusals))


def _without_meaning(spec: DeploymentSpec, own: SpecOptions) -> list[Refusal]:
    """Options that would be sent nowhere: who gives one expects something of it."""
    pod, http = spec.kind == "pod", spec.interface == "http"
    wrong = (
        ("service_mode", own.service_mode, pod, "stop", "a pod has no service mode"),
        ("webhook", own.webhook, pod, "webhooks", "a pod sends no notices"),
        ("shm_gb", own.shm_gb, not pod, "volumes", "an endpoint's shared memory cannot be set; a pod's can"),
        ("volumes", own.volumes, not pod, "volumes", "an endpoint cannot have any; a pod can"),
        ("route", own.route, http, "invoke", "an http deployment is called by request(), which names its path"),
    )
    return [
        Refusal(field="provider_options", capability=flag, message=f"provider_options.yotta.{name}: {why}.")
        for name, given, meaningless, flag, why in wrong
        if given is not None and meaningless
    ]


def _gpus(spec: DeploymentSpec, options: Options) -> list[Refusal]:
    out: list[Refusal] = []
    asked = spec.gpu or ()
    if not any(spelling(request, PROVIDER) for request in asked):
        text = f"gpu: Yotta has none of {', '.join(map(str, asked))}. Its codes: {_GUIDE}"
        out.append(Refusal(field="gpu", capability="gpu", message=text))
    elif not gpus.gpu_codes(spec, options.prices):
        text = "gpu: by your own price table none of these is at or below max_price."
        out.append(Refusal(field="gpu", capability="max_price", message=text))
    counts = sorted({request.count for request in asked})
    if len(counts) > 1:
        text = "gpu: all acceptable GPUs of a deployment must have the same number a worker on Yotta."
        out.append(Refusal(field="gpu", capability="gpu", message=text))
    if any(count & (count - 1) for count in counts):
        text = "gpu: the number of GPUs a worker is a power of two on Yotta (1, 2, 4, 8)."
        out.append(Refusal(field="gpu", capability="gpu", message=text))
    return out
