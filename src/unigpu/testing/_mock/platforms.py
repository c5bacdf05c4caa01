"""Which platforms a mock can serve. A further one is an entry in the table, or of the group ``unigpu.mocks``."""

from __future__ import annotations

import importlib
import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from importlib import metadata
from typing import Any, Final

from unigpu.emulator.contract import EmulatedAPI, HttpCall, Reply
from unigpu.emulator.engine import Engine
from unigpu.errors import ConfigurationError
from unigpu.models import nearest

__all__ = ["GROUP", "MockPlatform", "find"]

GROUP: Final = "unigpu.mocks"
_BUILT_IN: Final[Mapping[str, str]] = {
    "local": "unigpu.testing._mock.platforms:LOCAL",
    "reference": "unigpu.testing._mock.platforms:REFERENCE",
    "runpod": "unigpu.testing._mock.runpod:RUNPOD",
    "vast": "unigpu.testing._mock.vast:VAST",
    "yotta": "unigpu.testing._mock.yotta:YOTTA",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class MockPlatform:
    """What a mock must know of a platform. A driver's package registers one in the group ``unigpu.mocks``.

    The entry point and the emulator have the provider's name, and what the emulator calls its routes and deployments'
    platforms begins with it.

    Attributes:
        face: Makes the platform's protocol over an engine; it must take any key that is not empty.
        keys: Environment variables that get a dummy key.
        served: Spec fields with which `UnigpuMock.serve` deploys.
        adds_workers: Operations that ask for workers, which `MockedProvider.no_capacity` refuses.
        no_capacity: What the platform answers then.
        around: Entered while the mock serves it, with the base URL of this mock's own; most platforms need nothing.
        gpus: The GPUs that a request would take any of, by the names that unigpu has for them; what is no such request
            has none. ``None``: the platform places no GPUs.
        verbs: Verb of a client → the ends of names of its routes, where they are other than those of most platforms
            (`UnigpuMock.calls`).
        own_address: The mock gives it a loopback port of its own, instead of the emulator's hosts.
    """

    face: Callable[[Engine], EmulatedAPI]
    keys: tuple[str, ...] = ()
    served: Mapping[str, Any] = field(default_factory=dict[str, Any])
    adds_workers: tuple[str, ...]
    no_capacity: Reply
    around: Callable[[str], AbstractContextManager[object]] = nullcontext
    verbs: Mapping[str, tuple[str, ...]] = field(default_factory=dict[str, tuple[str, ...]])
    gpus: Callable[[HttpCall, Engine, float], Sequence[str]] | None = None
    own_address: bool = False


def find(name: str) -> MockPlatform:
    """The platform of this name.

    Raises:
        ConfigurationError: there is none.
    """
    if name in _BUILT_IN:
        module, _, attribute = _BUILT_IN[name].partition(":")
        built_in: MockPlatform = getattr(importlib.import_module(module), attribute)
        return built_in
    points = {point.name: point for point in metadata.entry_points(group=GROUP)}
    found: object = points[name].load() if name in points else None
    if isinstance(found, MockPlatform):
        return found
    if name in points:
        raise ConfigurationError(f"the entry point {points[name].value} (of {GROUP}) is no MockPlatform.")
    known = sorted({*_BUILT_IN, *points})
    near = nearest(name, known)
    raise ConfigurationError(
        f"no mock serves {name!r}" + (f"; did you mean {near!r}?" if near else "."),
        hint=f"There are: {', '.join(known)}. A driver's package registers its own in the entry points {GROUP!r}.",
    )


def _local_face(engine: Engine) -> EmulatedAPI:
    from unigpu.emulator.apis.local.emulator import LocalEmulator

    return LocalEmulator(engine)


def _local_around(base: str) -> AbstractContextManager[object]:
    from unigpu import _registry
    from unigpu.driver import DriverConfig
    from unigpu.providers.local import LocalDriver

    class MockedLocalDriver(LocalDriver):
        """Calls the mock as a server that runs already, unless its user names another one."""

        def __init__(self, config: DriverConfig) -> None:
            super().__init__(replace(config, options={"base_url": base, **config.options}))

    return _registry.using("local", MockedLocalDriver)


def _reference_face(engine: Engine) -> EmulatedAPI:
    from unigpu.testing.reference import ReferenceEmulator

    return ReferenceEmulator(engine, key=None)


def _reference_gpus(call: HttpCall, engine: Engine, now: float) -> Sequence[str]:
    """The first GPU of a create; later that of the endpoint."""
    parts = call.path.strip("/").split("/")
    if len(parts) > 2:
        for id in engine.deployment_ids():
            if id == parts[2]:
                return (str(engine.deployments.get(id, now).terms.data["gpu"]),)
        return ()
    try:
        return tuple(json.loads(call.body)["gpus"][:1])
    except (ValueError, LookupError, TypeError):
        return ()


def _reference_around(_: str) -> AbstractContextManager[object]:
    from unigpu import _registry
    from unigpu.testing.reference import ReferenceDriver

    return _registry.using("reference", ReferenceDriver)  # a platform of tests is no entry point


LOCAL: Final = MockPlatform(
    face=_local_face,
    adds_workers=("local.deployment.put", "local.deployment.patch", "local.deployment.wake"),
    no_capacity=Reply.json({"error": {"type": "no_capacity", "message": "no worker can be had"}}, status=409),
    around=_local_around,
    own_address=True,
)
REFERENCE: Final = MockPlatform(
    face=_reference_face,
    keys=("REFERENCE_API_KEY",),
    served={"image": "registry.test/served:1", "gpu": "RTX 4090"},
    adds_workers=("reference.endpoint.create", "reference.endpoint.patch", "reference.endpoint.wake"),
    no_capacity=Reply.json({"error": {"code": "no_capacity", "message": "no such GPU is free"}}, status=409),
    around=_reference_around,
    gpus=_reference_gpus,
)
