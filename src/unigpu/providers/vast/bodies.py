"""From a spec to what Vast is sent. Pure. Each of Vast's quiet defaults is stated: those would rent up to 20 machines.

https://github.com/vast-ai/docs (``api-reference/openapi/yaml``), vastai 1.9.1 (``data/*.py``, ``api/*.py``).
"""

from __future__ import annotations

import math
import re
import shlex
from collections.abc import Mapping
from typing import Any, Final

from pydantic import SecretStr

from unigpu.driver import DEFAULT_PORT, DeploymentSpec, Identity, Scaling, Tags
from unigpu.errors import ConfigurationError

from .docker_flags import ENTRY, flags, fragile, parted, too_long
from .market import as_text, disk_of, of_spec
from .options import PYWORKER, TUNNEL, WORKER_PORT, SpecOptions
from .translate import tag_of
from .wire import PROVIDER

COST: Final = 100.0
"""Workload of one call: PyWorker's own default (vastai 1.9.1, ``serverless/server/worker.py``)."""
_TAG: Final = re.compile(r"^(.*?)(?::([\w][\w.-]{0,127}))?(@sha256:[0-9a-f]{64})?$")


def options_of(spec: DeploymentSpec) -> SpecOptions:
    """The checked ``provider_options["vast"]``."""
    return SpecOptions.model_validate(dict(spec.options(PROVIDER)))


def port_of(spec: DeploymentSpec) -> int:
    return spec.port or DEFAULT_PORT


def command_words(spec: DeploymentSpec) -> tuple[str, ...]:
    """What runs; nothing where the image's own command does."""
    if spec.handler is not None:
        return ("python", "-m", "unigpu.worker", spec.handler)
    return (*(PYWORKER if is_tunnelled(spec) else ()), *(spec.command or ()))


def is_tunnelled(spec: DeploymentSpec) -> bool:
    """Whether unigpu's PyWorker is started before the user's server."""
    options = options_of(spec)
    serves = spec.kind == "serverless" and spec.interface == "http" and bool(spec.command)
    return serves and options.pyworker == "unigpu" and options.onstart is None


def image_of(image: str) -> tuple[str, str]:
    """A template has image and tag apart; a digest stays with the image."""
    match = _TAG.fullmatch(image)
    if match is None or "/" in (match[2] or ""):
        return image, ""
    if match[3]:
        return image, ""
    return match[1], match[2] or "latest"


def env_of(spec: DeploymentSpec, identity: Identity) -> dict[str, str]:
    """The user's variables, secrets' values (the host can read them: the spec said so), our constants."""
    env = dict(spec.env)
    for name, value in spec.secrets.items():
        if isinstance(value, SecretStr):
            env[name] = value.get_secret_value()
    route = TUNNEL if is_tunnelled(spec) else None
    port = port_of(spec) if spec.kind == "pod" or spec.interface == "http" else None
    return {**env, **identity.constants, **Tags(max_price=spec.max_price, route=route, port=port).write()}


def registry_host(image: str) -> str:
    """The registry that an image's name begins with: docker's own where it names none."""
    first, slash, _ = image.partition("/")
    return first if slash and ("." in first or ":" in first or first == "localhost") else "docker.io"


def template_body(spec: DeploymentSpec, identity: Identity, *, engine: str) -> dict[str, Any]:
    """What the machines of a workergroup run. PyWorker's variables are stated: its port, whom it reports to, TLS."""
    options = options_of(spec)
    image, tag = image_of(spec.image or "")
    env = env_of(spec, identity) | {
        "WORKER_PORT": str(WORKER_PORT),
        "REPORT_ADDR": engine,
        "USE_SSL": "true" if options.tls else "false",
    }
    if spec.interface == "http":
        env["PORT"] = str(port_of(spec))
    elif spec.runs_our_worker(PROVIDER):
        env["UNIGPU_VAST"] = "serverless"  # our worker knows where it is, with or without a token of Vast's
    words = command_words(spec)
    body: dict[str, Any] = {
        "name": identity.provider_name,
        "image": image,
        "env": flags(env, (WORKER_PORT,)),
        "runtype": options.runtype,
        "recommended_disk_space": disk_of(spec),
        "private": True,
        "desc": f"unigpu: {identity.namespace}/{identity.name}",
        "docker_login_repo": "",
        "docker_login_user": "",
        "docker_login_pass": "",
    }
    if tag:
        body["tag"] = tag
    if options.runtype == "ssh":
        body |= {"use_ssh": True, "ssh_direct": True, "onstart": options.onstart or shlex.join(words)}
    elif words:
        body["args_str"] = " ".join(words)
    if spec.registry is not None:
        body |= {
            "docker_login_repo": registry_host(spec.image or ""),
            "docker_login_user": spec.registry.username,
            "docker_login_pass": spec.registry.password.get_secret_value(),
        }
    return body


def endpoint_body(spec: DeploymentSpec, identity: Identity) -> dict[str, Any]:
    """Cold: no load, and no machine kept, until `limits_body` says otherwise."""
    cold = {"min_load": 0.0, "min_cold_load": 0.0, "cold_workers": 0}
    return {"endpoint_name": tag_of(identity), **limits_body(spec), **cold}


def limits_body(spec: DeploymentSpec) -> dict[str, Any]:
    """Every limit of an endpoint, as the spec says."""
    options = options_of(spec)
    target, longest = options.target_queue_time, options.max_queue_time
    if spec.scaling is not None:
        target, longest = spec.scaling.target, max(spec.scaling.target, longest)
    return {
        **workers_body(spec.workers, min_load=options.min_load),
        "min_cold_load": options.min_cold_load,
        "target_util": options.target_util,
        "cold_mult": options.cold_mult,
        "cold_workers": options.cold_workers,
        "max_queue_time": longest,
        "target_queue_time": target,
        "inactivity_timeout": idle_seconds(spec.idle_timeout),
    }


def changed_body(
    spec: DeploymentSpec, identity: Identity, *, was: str | None, min_load: float | None
) -> dict[str, Any]:
    """What `update` changes of an endpoint: its plan; how many workers is `scale`'s. The least load is an option of
    the spec's, so it changes where the options do, and nowhere else: it may have been scaled down since.

    Args:
        was: The spec hash so far.
        min_load: As it is.
    """
    body = {name: value for name, value in limits_body(spec).items() if name not in ("min_load", "max_workers")}
    if _options_in(was) != _options_in(identity.spec_hash):
        asked = options_of(spec).min_load
        body["min_load"] = min(1.0, min_load or 0.0) if asked is None else asked
    return body


def _options_in(spec_hash: str | None) -> str | None:
    """A spec hash tells each stated field: ``1:…,gpu=344adc,provider_options=f2a3c4``."""
    found = re.search(r",provider_options=(\w+)", spec_hash or "")
    return None if found is None else found[1]


def must_be_sendable(spec: DeploymentSpec) -> None:
    """Values that are known as late as this.

    Raises:
        ConfigurationError: a template or an instance would take a secret for something else; nothing is sent.
    """
    values = {name: value.get_secret_value() for name, value in spec.secrets.items() if isinstance(value, SecretStr)}
    if spec.kind == "pod":
        bad, why = (
            too_long(values),
            f"a variable of an instance has {ENTRY} characters at most",
        )
        login = "" if spec.registry is None else spec.registry.username + spec.registry.password.get_secret_value()
        if re.search(r"[\s'\"\\]", login):
            raise _unsendable(spec, "registry", "an instance takes a login as one text, without blanks and quotes")
    else:
        bad = fragile(values)
        why = "a template of Vast's keeps variables as one text of docker flags, so a value has no blanks or quotes"
    if bad:
        raise _unsendable(spec, f"secrets: {', '.join(bad)}", why)


def _unsendable(spec: DeploymentSpec, what: str, why: str) -> ConfigurationError:
    return ConfigurationError(
        f"{what}: {why}.", provider=PROVIDER, deployment=spec.name, hint="Encode it (base64); the worker decodes it."
    )


def workers_body(workers: tuple[int, int], *, min_load: float | None = None) -> dict[str, Any]:
    """A least of one hot worker is a least load of 1: any load at all keeps one (docs, ``managing-scale``)."""
    floor = 1.0 if workers[0] else 0.0
    return {"min_load": float(floor if min_load is None else min_load), "max_workers": workers[1]}


def idle_seconds(seconds: float) -> int:
    return max(1, math.ceil(seconds))


def scale_body(
    now: Mapping[str, Any],
    workers: tuple[int, int] | None,
    idle_timeout: float | None,
    scaling: Scaling | None,
) -> dict[str, Any]:
    """What `scale` changes. *now*: ``min_load``, ``cold_workers`` and ``max_queue_time`` as they are: a load that
    a user set is kept while a worker is asked for, no more machines are kept than there may be, and the longest wait
    stays where the target is below it."""
    body: dict[str, Any] = {}
    if workers is not None:
        had = float(now.get("min_load") or 0)
        body |= workers_body(workers, min_load=max(1.0, had) if workers[0] else 0.0)
        kept = int(now.get("cold_workers") or 0)
        if kept > workers[1]:
            body["cold_workers"] = workers[1]
    if idle_timeout is not None:
        body["inactivity_timeout"] = idle_seconds(idle_timeout)
    if scaling is not None:
        longest = float(now.get("max_queue_time") or 30.0)
        body |= {"target_queue_time": scaling.target, "max_queue_time": max(scaling.target, longest)}
    return body


def group_body(spec: DeploymentSpec, *, endpoint: str, template: str, template_hash: str | None) -> dict[str, Any]:
    """What may be rented. Never without a price, and never more machines than the endpoint has.

    ``cold_workers`` and ``test_workers`` are sent although newer clients do not: a service that still reads them would
    rent three machines each (docs, ``create-workergroup``: the defaults).
    """
    options = options_of(spec)
    body: dict[str, Any] = {
        "endpoint_id": _number(endpoint),
        "template_id": _number(template),
        "search_params": as_text(of_spec(spec, options), options.search),
        "cold_workers": 0,
        "test_workers": 1,
        "max_workers": spec.workers[1],
    }
    if template_hash is not None:
        body["template_hash"] = template_hash
    return body


def _number(id: str) -> int | str:
    """Vast's ids are numbers; one that a plan only expects is a word."""
    return int(id) if id.isdecimal() else id


def instance_body(spec: DeploymentSpec, identity: Identity) -> dict[str, Any]:
    """A rental: on demand (no ``price``), or not at all (``cancel_unavail``)."""
    options, port = options_of(spec), port_of(spec)
    env: dict[str, str] = env_of(spec, identity)
    env = {name: text for name, text in env.items() if name not in identity.constants} | parted(identity.constants)
    env |= {"PORT": str(port), f"-p {port}:{port}": "1"}
    words = command_words(spec)
    body: dict[str, Any] = {
        "client_id": "me",
        "image": spec.image,
        "disk": disk_of(spec),
        "label": tag_of(identity),
        "env": env,
        "runtype": "args" if options.runtype == "args" else "ssh_direct",
        "target_state": "running",
        "cancel_unavail": True,
    }
    if options.runtype == "ssh":
        body["onstart"] = options.onstart or shlex.join(words)
    elif words:
        body["args"] = list(words)
    if spec.registry is not None:
        host, user = registry_host(spec.image or ""), spec.registry.username
        body["image_login"] = f"-u {user} -p {spec.registry.password.get_secret_value()} {host}"
    return body
