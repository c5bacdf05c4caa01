"""Why a worker cannot start: reported before the deadline, with the log lines that existed at that time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from unigpu.driver import DeploymentInfo, Logs, State, Worker, WorkerState
from unigpu.errors import UniGPUError, WorkerFailed
from unigpu.models.job import StartFailure

from .scope import Scope

REASONS: Final = ("image_pull", "crash_loop", "probe", "out_of_memory", "host_lost")

NEXT_STEP: Final = {
    "image_pull": "Check the image's name and tag, and registry= if it is private.",
    "crash_loop": "The program ends by itself: read its log; try the same command on this machine first.",
    "probe": "The program runs but does not answer: it must listen on $PORT; a slow load belongs behind /ping.",
    "out_of_memory": "It needs more memory: choose a larger GPU or machine, or load less.",
    "host_lost": "The machine went away: deploy again; another one will be used.",
    "unknown": "Read the worker's log: client.logs(deployment).",
}

_LOST_POD: Final = (
    "A pod stays on its machine, and that machine went away: tear it down, then deploy it again on another one."
)

# The platforms' own words, where a driver passes them on.
_WORDS: Final = {
    "image_pull": ("image_pull", "imagepull", "pull", "manifest", "registry", "no such image"),
    "out_of_memory": ("out_of_memory", "out of memory", "oom"),
    "probe": ("probe", "not listening", "did not answer", "not ready in time", "start limit", "health"),
    "host_lost": ("host_lost", "host", "preempt", "evict", "node", "machine"),
    "crash_loop": ("crash_loop", "crash", "exit", "exited", "killed", "signal"),
}
FAILED_STARTS: Final = 3
"""When this many workers have failed one after another, with none ready, no worker will start."""
_TAIL: Final = 20


class Diagnosis:
    """Observes one wait: which workers failed, and the last lines of their logs."""

    def __init__(self, scope: Scope, info: DeploymentInfo) -> None:
        self._scope = scope
        self._failed: dict[str, Worker] = {}
        self._before: set[str] | None = None
        self._logs: tuple[str, ...] = ()
        self._failed_checks = 0

    async def observe(self, info: DeploymentInfo, workers: Sequence[Worker], *, served: bool = False) -> None:
        """Take in the state of the deployment and its workers.

        Args:
            served: A worker was ready during this wait, so the program can run. The platform replaces a worker that
                dies, and only a deployment that stays failed counts.

        Raises:
            WorkerFailed: no worker will become ready by itself.
        """
        failed = {w.id: w for w in workers if w.state is WorkerState.FAILED}
        if self._before is None:
            self._before = set(failed)  # what failed before this wait began does not count
        fresh = [w for id_, w in failed.items() if id_ not in self._failed and id_ not in self._before]
        self._failed.update({w.id: w for w in fresh})
        self._failed_checks = self._failed_checks + 1 if info.state is State.FAILED else 0
        if self._failed_checks >= (FAILED_STARTS if served else 1):
            last = fresh[-1] if fresh else next(reversed(failed.values()), None)
            await self._collect(info, last)
            raise self._error(info, last)
        for worker in fresh:
            await self._collect(info, worker)
        if any(w.state.is_ready for w in workers):
            self._failed.clear()
        elif len(self._failed) >= FAILED_STARTS:
            raise self._error(info, next(reversed(self._failed.values())))

    async def _collect(self, info: DeploymentInfo, worker: Worker | None) -> None:
        """Read the log now: the platform may not keep it once it removes the worker."""
        driver = self._scope.driver
        if not isinstance(driver, Logs):
            return
        try:
            log = driver.logs(
                self._scope.io, info, worker=None if worker is None else worker.id, follow=False, tail=_TAIL
            )
            lines = [line.text async for line in log]
        except UniGPUError:
            return  # the failure itself matters more than its log
        if lines:
            self._logs = tuple(lines[-_TAIL:])

    def _error(self, info: DeploymentInfo, worker: Worker | None) -> WorkerFailed:
        said = (worker.reason if worker is not None else None) or info.reason or ""
        reason = classify(info.reason, worker.reason if worker is not None else None)
        name = info.name or info.provider_name
        return WorkerFailed(
            f"a worker of {name} on {self._scope.provider} cannot start: {said or 'the platform gives no reason'}"
            + ("" if said.endswith(".") else "."),
            provider=self._scope.provider,
            deployment=info.name,
            reason=reason,
            logs=self._logs,
            next_step=next_step(reason, info),
            maybe_executed=True,
        )


def cannot_start(failure: StartFailure, *, provider: str, deployment: str | None) -> WorkerFailed:
    """The error of a call for which the platform could start no worker."""
    reason = classify(failure.reason, failure.message)
    return WorkerFailed(
        f"no worker of {deployment} on {provider} can start: {failure.message.rstrip('.')}.",
        provider=provider,
        deployment=deployment,
        reason=reason,
        logs=failure.logs[-_TAIL:],
        next_step=NEXT_STEP[reason],
        retryable=True,
        maybe_executed=False,
    )


def next_step(reason: str, info: DeploymentInfo) -> str:
    """What to do about *reason*. A deploy of a pod's name would reuse the pod, and the machine that went away."""
    return _LOST_POD if info.kind == "pod" and reason == "host_lost" else NEXT_STEP[reason]


def classify(*said: str | None) -> str:
    """`WorkerFailed.reason` from the words of a platform or driver: our own word first, else theirs."""
    texts = [text.lower() for text in said if text]
    for text in texts:
        head = text.split(":", 1)[0].strip()
        if head in REASONS:
            return head
    for text in texts:
        for reason, words in _WORDS.items():
            if any(word in text for word in words):
                return reason
    return "unknown"
