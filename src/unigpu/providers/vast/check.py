"""What Vast cannot do that no flag says: of values, and of fields together. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from unigpu.driver import Adaptation, BearerToken, Checked, DeploymentSpec, Refusal, spelling

from .bodies import command_words, options_of, port_of
from .docker_flags import ENTRY, PLAIN, TOTAL, fragile, too_long
from .market import memory_of
from .options import WORKER_PORT, Options
from .wire import PROVIDER

LEAST_IDLE: Final = 1.0
"""Seconds: 0 turns the gate off, and a negative one means never (docs, ``managing-scale``)."""
_SCALE: Final = "https://docs.vast.ai/guides/serverless/managing-scale"


def check(spec: DeploymentSpec, options: Options) -> Checked:
    """All of it."""
    return Checked(adaptations=tuple(_notes(spec)), refusals=tuple(_refusals(spec, options)))


def _refusals(spec: DeploymentSpec, options: Options) -> Iterator[Refusal]:
    yield from _gpus(spec)
    if spec.kind == "serverless":
        yield from _limits(spec)
        yield from _template(spec)
        if not options_of(spec).tls and not options.http_workers:
            text = 'tls: plain http workers must be allowed: driver_options={"vast": {"http_workers": True}}.'
            yield Refusal(field="provider_options", capability="public_endpoint", message=text)
    else:
        yield from _instance(spec)


def _gpus(spec: DeploymentSpec) -> Iterator[Refusal]:
    asked = spec.gpu or ()
    counts = sorted({one.count for one in asked})
    if len(counts) > 1:
        text = f"gpu: one search of Vast's has one number of GPUs a worker, not {counts}."
        yield Refusal(field="gpu", capability="gpu", message=text)
    by_size = [one for one in asked if one.name is None]
    if by_size and len(by_size) != len(asked):
        text = "gpu: a search of Vast's goes by names or by memory; ask for the one or the other."
        yield Refusal(field="gpu", capability="gpu", message=text)
    absent = [str(one) for one in asked if one.name is not None and not spelling(one, PROVIDER)]
    if absent:
        text = f"gpu: Vast has no {', '.join(absent)}; leave it out."
        yield Refusal(field="gpu", capability="gpu", message=text)
    elif len(asked) > 1 and not by_size and memory_of(asked) != (None, None):
        text = (
            "gpu: one of these shares its name on Vast with a GPU of other memory, so the memory must be asked for, "
            "and that would leave the others out. Ask for it alone."
        )
        yield Refusal(field="gpu", capability="gpu", message=text)


def _limits(spec: DeploymentSpec) -> Iterator[Refusal]:
    least, most = spec.workers
    if least > 1:
        text = (
            f"workers: Vast holds load, not a number of hot workers: {least} cannot be promised. One is (1, {most}); "
            'for more say the load that they take: provider_options={"vast": {"min_load": ...}} with '
            f"workers=(1, {most})."
        )
        yield Refusal(
            field="workers",
            capability="exact_replicas",
            message=text,
            nearest={"workers": (1, most)},
            got=f"one hot worker always, up to {most}",
        )
    if options_of(spec).cold_workers > most:
        text = f"cold_workers: more than the {most} workers that there may be."
        yield Refusal(field="provider_options", capability="max_workers", message=text)
    if spec.idle_timeout < LEAST_IDLE:
        text = "idle_timeout: 0 means to Vast that it never scales to zero; 1 s is the least."
        yield Refusal(
            field="idle_timeout",
            capability="idle_timeout",
            message=text,
            nearest={"idle_timeout": LEAST_IDLE},
            got="1 s",
        )


def _template(spec: DeploymentSpec) -> Iterator[Refusal]:
    bad = fragile(spec.env)
    if bad:
        text = (
            f"env: {', '.join(bad)}: a template of Vast's keeps variables as one text of docker flags, so a value has "
            "no blanks, quotes or other marks of a shell. Encode it (base64), or put it into the image."
        )
        yield Refusal(field="env", capability="images", message=text)
    words = [word for word in command_words(spec) if not PLAIN.fullmatch(word) or not word]
    if words and options_of(spec).runtype == "args":
        text = (
            "command: a template of Vast's keeps it as one text, so its words have no blanks or quotes. Put it into a "
            'script in the image; or use provider_options={"vast": {"runtype": "ssh"}}, where it is a shell script.'
        )
        yield Refusal(field="command", capability="images", message=text)
    if spec.interface == "http" and spec.port == WORKER_PORT:
        text = f"port: {WORKER_PORT} is PyWorker's; the server behind it listens on another one."
        yield Refusal(field="port", capability="request", message=text)
    if isinstance(spec.auth, BearerToken):
        text = "auth: PyWorker checks Vast's signature on every call, and passes no header on. Leave auth out."
        yield Refusal(
            field="auth", capability="public_endpoint", message=text, nearest={"auth": None}, got="Vast's signature"
        )


def _instance(spec: DeploymentSpec) -> Iterator[Refusal]:
    long = too_long(spec.env)
    if long or sum(len(k) + len(v) + 1 for k, v in spec.env.items()) > TOTAL - 4096:
        text = f"env: a variable of an instance has {ENTRY} characters at most, all together {TOTAL}."
        yield Refusal(
            field="env", capability="images", message=f"{text} Too long: {', '.join(long) or 'all together'}."
        )
    if sum(len(word) + 1 for word in command_words(spec)) > 4096:
        text = "command: it has 4096 characters at most on Vast."
        yield Refusal(field="command", capability="images", message=text)
    if port_of(spec) == 22:
        yield Refusal(field="port", capability="request", message="port: 22 is Vast's own shell.")


def _notes(spec: DeploymentSpec) -> Iterator[Adaptation]:
    kept = options_of(spec).cold_workers if spec.kind == "serverless" else 0
    if kept:
        yield Adaptation(
            field="provider_options",
            asked=f"cold_workers {kept}",
            got=f"{kept} machines kept, stopped when there is no work: their storage is billed all the time",
            reason="Vast: a stopped worker keeps its disk, and may find its GPU taken when it is needed",
            source=_SCALE,
        )
    if spec.kind == "serverless" and spec.workers[0] == spec.workers[1] == 1:
        yield Adaptation(
            field="workers",
            asked="exactly 1",
            got="one hot worker, as min_load 1 of at most one machine",
            reason="Vast: it holds load, not a number of workers",
            source=_SCALE,
        )
