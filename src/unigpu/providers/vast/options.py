"""What can be set for Vast only: where its services are, which machines may be rented, and how it plans."""

from __future__ import annotations

import re
from typing import Annotated, Final, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, StrictBool, model_validator

from unigpu.driver import InputModel

CONSOLE_URL: Final = "https://console.vast.ai"
ENGINE_URL: Final = "https://run.vast.ai"
WORKER_PORT: Final = 3000
"""PyWorker's port by convention: https://github.com/vast-ai/pyworker."""
TUNNEL: Final = "/unigpu/http"
"""Where unigpu's PyWorker takes any request for the server behind it (``unigpu/worker/pyworker.py``)."""
PYWORKER: Final = ("/opt/pyworker/bin/python", "-I", "-m", "unigpu.worker.pyworker")
"""What starts it, with the server's command after it, in an image of the recipe."""

_CONTROL: Final = re.compile(r"[\x00-\x20\x7f\\?#]")


def _address(text: str) -> str:
    try:
        parts = urlsplit(text)
        port_is_good = parts.port is None or parts.port > 0
    except ValueError:
        raise ValueError("give an http or https address") from None
    if parts.scheme not in ("http", "https") or not parts.hostname or not port_is_good:
        raise ValueError("give an http or https address")
    if parts.username is not None or parts.password is not None or _CONTROL.search(text):
        raise ValueError("an address here has no user, no query and no spaces")
    if parts.scheme == "http" and parts.hostname not in ("localhost", "127.0.0.1", "::1"):
        raise ValueError("the key goes there, so it is https (http only on this machine)")
    return text.rstrip("/")


def _pem(text: str) -> str:
    if "-----BEGIN CERTIFICATE-----" not in text:
        raise ValueError("give the certificate itself, as PEM text")
    return text


Address = Annotated[str, AfterValidator(_address)]
Share = Annotated[float, Field(gt=0, le=1, allow_inf_nan=False)]
Amount = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class Options(InputModel):
    """``driver_options["vast"]``: where Vast's services are.

    Attributes:
        console_url: The console's API: endpoints, workergroups, templates, offers, instances.
        engine_url: The serverless engine: ``/route/``, worker lists, logs.
        engine_key: Which key the engine is asked with. ``"account"``: the account's, as Vast's guides have it; where it
            refuses that, the endpoint's own, which the console shows. ``"endpoint"``: that one from the start, as
            Vast's own client does. Which of them a live engine takes is unverified.
        worker_ca: Another root than Vast's for workers, as PEM text.
        http_workers: Call workers that report a plain ``http`` address. What you send, and what they answer, can then
            be read and changed on the way; so it is off.
    """

    console_url: Address = CONSOLE_URL
    engine_url: Address = ENGINE_URL
    engine_key: Literal["account", "endpoint"] = "account"
    worker_ca: Annotated[str, AfterValidator(_pem)] | None = None
    http_workers: StrictBool = False


class SpecOptions(InputModel):
    """``provider_options["vast"]``.

    Attributes:
        route: A function image that is not unigpu's: the path at which its PyWorker takes calls (``"/generate"``). The
            input is then the payload, and the model server's JSON is the output.
        verified: Only machines that Vast has verified.
        datacenter: Only machines in data centres ("Secure Cloud").
        reliability: The least reliability score of a machine, 0 to 1 (a new one has 0.6).
        min_inet_down: The least download speed in Mb/s: images and models come over it, and the GPU is billed while
            they do.
        max_inet_cost: The most that a GB of traffic may cost, in USD, each way.
        min_cuda: The least CUDA version of the host's driver, as in ``"12.4"``.
        search: More conditions in Vast's query language, as in ``"cpu_ram>=32 static_ip=true"``. Serverless only.
        cold_workers: Machines that are kept, stopped, when there is no work. 0: none, so that nothing is billed and the
            next call rents a machine, pulls the image and loads the model. 1 or more: storage is billed all the time.
        min_load: Load (Vast's workload a second) for which there are always hot workers. Left out: 1 where the least
            number of workers is 1, else 0.
        min_cold_load: The same for hot and stopped ones together.
        target_util: How busy workers shall be; the rest is spare.
        cold_mult: All workers, hot and stopped, for a multiple of the hot load. 1: no spare machines.
        max_queue_time: Seconds of expected waiting above which a worker gets no more calls.
        target_queue_time: Seconds of waiting above which workers are added; ``scaling=`` says the same.
        runtype: How Vast starts the container. ``"args"``: the image's own entry point, with the command as its
            arguments. ``"ssh"``: Vast's entry point (a shell over the net), then ``onstart`` or the command.
        onstart: A shell script, for ``"ssh"``.
        pyworker: http with a ``command``, on an endpoint. ``"unigpu"``: the server is started behind unigpu's PyWorker,
            which the image holds (``python -m unigpu image dockerfile --command``). ``"image"``: it starts one itself.
        tls: The workers serve TLS with a certificate that Vast signs. ``False`` needs ``driver_options`` to allow it.
        tries: Pods: how many offers are tried, the cheapest first.
    """

    route: Annotated[str, Field(pattern=r"^/[A-Za-z0-9/._~-]+$")] | None = None
    verified: StrictBool = True
    datacenter: StrictBool = False
    reliability: Share | None = 0.95
    min_inet_down: Amount | None = None
    max_inet_cost: Amount | None = None
    min_cuda: Annotated[str, Field(pattern=r"^\d+\.\d+$")] | None = None
    search: Annotated[str, Field(pattern=r"^[ -~]*$", max_length=1000)] | None = None
    cold_workers: Annotated[int, Field(ge=0, le=1000, strict=True)] = 0
    min_load: Amount | None = None
    min_cold_load: Amount = 0.0
    target_util: Share = 0.9
    cold_mult: Annotated[float, Field(ge=1, allow_inf_nan=False)] = 1.0
    max_queue_time: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 30.0
    target_queue_time: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 10.0
    runtype: Literal["args", "ssh"] = "args"
    onstart: Annotated[str, Field(min_length=1, max_length=4096)] | None = None
    pyworker: Literal["unigpu", "image"] = "unigpu"
    tls: StrictBool = True
    tries: Annotated[int, Field(ge=1, le=64, strict=True)] = 10

    @model_validator(mode="after")
    def _together(self) -> SpecOptions:
        if self.target_queue_time > self.max_queue_time:
            raise ValueError("target_queue_time must not be above max_queue_time")
        if self.onstart is not None and self.runtype == "args":
            raise ValueError('onstart runs with runtype="ssh" only: with "args" the image\'s own program runs')
        if self.search is not None and "dph" in self.search:
            raise ValueError("search: a price belongs in max_price")
        return self
