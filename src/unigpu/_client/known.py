"""What one client knows of deployments: what each was when it was last seen, and by which name it is found again."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from unigpu.errors import NotFoundError
from unigpu.models import (
    Adaptation,
    Change,
    DeploymentInfo,
    DeploymentSpec,
    Rate,
    TtlEnforcer,
    nearest,
    provider_name,
)


@dataclass(slots=True)
class Seen:
    """What a handle holds: the deployment as last seen, and what the deploy that made the handle came to.

    Attributes:
        owned: That deploy created it, so leaving the ``with`` block ends it.
        gone: It was torn down through this client.
        foreign: unigpu did not create it: it is called, and not changed, until `adopted`.
        adopted: The user allowed changes of this handle's deployment.
    """

    info: DeploymentInfo
    change: Change = "reused"
    adaptations: tuple[Adaptation, ...] = ()
    spec: DeploymentSpec | None = None
    rate: Rate = field(default_factory=Rate)
    ttl_enforced_by: TtlEnforcer | None = None
    owned: bool = False
    gone: bool = False
    foreign: bool = False
    adopted: bool = False

    @property
    def label(self) -> str:
        return self.info.name or self.info.provider_name

    @property
    def address(self) -> str:
        """What another client calls it by."""
        name = f"id:{self.info.id}" if self.foreign or self.adopted else self.label
        return f"{name}@{self.info.provider}"


class KnownDeployments:
    """The deployments that one client has seen, by provider and name.

    It is filled by single assignments that may safely happen twice, and guarded by no lock: a lock that another thread
    held at a fork would stay held in the child for ever.
    """

    def __init__(self, namespace: str) -> None:
        self._namespace = namespace
        self._now: dict[tuple[str, str], DeploymentInfo] = {}
        self._ever: set[tuple[str, str]] = set()
        self._by_id: dict[tuple[str, str], DeploymentInfo] = {}

    def remember(self, info: DeploymentInfo) -> None:
        self._now[info.provider, info.provider_name] = info
        self._ever.add((info.provider, info.provider_name))

    def remember_id(self, id_: str, info: DeploymentInfo) -> None:
        self._by_id[info.provider, id_] = info

    def recall_id(self, provider: str, id_: str) -> DeploymentInfo | None:
        return self._by_id.get((provider, id_))

    def recall(self, provider: str, name: str) -> DeploymentInfo | None:
        return self._now.get((provider, provider_name(self._namespace, name)))

    def forget(self, info: DeploymentInfo) -> None:
        self._now.pop((info.provider, info.provider_name), None)

    def forget_name(self, provider: str, name: str) -> None:
        self._now.pop((provider, provider_name(self._namespace, name)), None)

    def knew(self, provider: str, name: str) -> bool:
        """Whether this client ever saw a deployment of that name."""
        return (provider, provider_name(self._namespace, name)) in self._ever

    def not_found(self, provider: str, name: str, there: Iterable[DeploymentInfo]) -> NotFoundError:
        """The error for a name that is none of those that are *there*."""
        names = [info.name for info in there if info.name]
        near = nearest(name, names)
        return NotFoundError(
            f"there is no deployment {name!r} on {provider} in the namespace {self._namespace!r}"
            + (f"; did you mean {near!r}?" if near else "."),
            provider=provider,
            deployment=name,
            hint=f"There are: {', '.join(sorted(names)[:10])}." if names else "There is none at all.",
        )
