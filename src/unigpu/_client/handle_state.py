"""What a handle shows: the deployment as last seen. The verbs are in `sync_handles` and `async_handles`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Generic, NoReturn, TypeVar, overload

from unigpu._lifecycle import CallOptions
from unigpu.errors import UniGPUError
from unigpu.models import Adaptation, Change, DeploymentInfo, JobInfo, Rate, State, TtlEnforcer

from .known import Seen
from .session import Session

H = TypeVar("H")


@dataclass(frozen=True, slots=True)
class Submitted:
    """A job, with what is needed to ask for it."""

    info: DeploymentInfo
    job: JobInfo
    options: CallOptions


class Unpicklable:
    """A live object: it cannot be copied into another process."""

    def __reduce__(self) -> NoReturn:
        raise TypeError(
            f"a {type(self).__name__} cannot be pickled or copied: send the deployment's address, as in "
            '"summarize@local", and make a client there'
        )


class DeploymentView(Unpicklable):
    """The readable side of a deployment's handle."""

    def __init__(self, session: Session, seen: Seen) -> None:
        self._session = session
        self._seen = seen

    @property
    def name(self) -> str:
        """The logical name; the provider's own where no other is known."""
        return self._seen.label

    @property
    def provider(self) -> str:
        """The provider's name."""
        return self._seen.info.provider

    @property
    def address(self) -> str:
        """What another process or client calls it by: ``"summarize@local"``, or ``"id:4nz8u2rlh5ts1a@runpod"`` for one
        that unigpu did not create."""
        return self._seen.address

    @property
    def id(self) -> str:
        """The id of the resource that is called."""
        return self._seen.info.id

    @property
    def info(self) -> DeploymentInfo:
        """The deployment as last seen."""
        return self._seen.info

    @property
    def state(self) -> State:
        """Its state as last seen; `wait_ready` and ``get`` look again."""
        return self._seen.info.state

    @property
    def change(self) -> Change:
        """What the last deploy, scale or update through this handle did."""
        return self._seen.change

    @property
    def adaptations(self) -> tuple[Adaptation, ...]:
        """What is not as the spec said, and why."""
        return self._seen.adaptations

    @property
    def rate(self) -> Rate:
        """What it costs, as far as it is known."""
        return self._seen.rate

    @property
    def url(self) -> str | None:
        """Its address; ``None`` where there is none of its own, or each call is signed for another."""
        return self._seen.info.url

    @property
    def expires_at(self) -> float | None:
        """Epoch seconds of its end, where it was given one."""
        return self._seen.info.expires_at

    @property
    def ttl_enforced_by(self) -> TtlEnforcer | None:
        """Who ends it at that time; ``None`` where it was given no end."""
        return self._seen.ttl_enforced_by

    def __repr__(self) -> str:
        info = self._seen.info
        what = f"{self._seen.label!r} on {info.provider}, id={info.id}, {info.state.value}"
        return f"<{type(self).__name__} {what} as last seen>"


def inside(view: DeploymentView) -> tuple[Seen, Session]:
    """What a handle holds, and whose it is."""
    return view._seen, view._session  # noqa: SLF001  # pyright: ignore[reportPrivateUsage] - a handle's inside is its client's


class JobView(Unpicklable):
    """The readable side of a job's handle."""

    def __init__(self, submitted: Submitted) -> None:
        self._submitted = submitted

    @property
    def id(self) -> str:
        """The job's id on the platform."""
        return self._submitted.job.id

    @property
    def info(self) -> JobInfo:
        """The job as last seen."""
        return self._submitted.job

    def _saw(self, job: JobInfo) -> None:
        self._submitted = replace(self._submitted, job=job)

    def __repr__(self) -> str:
        at = self._submitted.info
        return (
            f"<{type(self).__name__} {self.id} of {at.name or at.provider_name}@{at.provider} "
            f"{self.info.status.value} (as last seen)>"
        )


class Deployments(Sequence[H], Generic[H]):
    """Handles of the deployments that were found.

    Attributes:
        unreadable: Provider → why it could not be read. What is there is not known, so it is never left out.
    """

    def __init__(self, found: Sequence[H], unreadable: Mapping[str, UniGPUError]) -> None:
        self._found = tuple(found)
        self.unreadable = dict(unreadable)

    @overload
    def __getitem__(self, index: int) -> H: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[H]: ...
    def __getitem__(self, index: int | slice) -> H | Sequence[H]:
        return self._found[index]

    def __len__(self) -> int:
        return len(self._found)

    def __iter__(self) -> Iterator[H]:
        return iter(self._found)

    def __repr__(self) -> str:
        lost = f", unreadable: {', '.join(sorted(self.unreadable))}" if self.unreadable else ""
        return f"<Deployments {list(self._found)!r}{lost}>"
