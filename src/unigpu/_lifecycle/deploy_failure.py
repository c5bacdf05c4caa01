"""What becomes of a deploy that fails: undone, kept because the deadline passed, or kept because the caller said so."""

from __future__ import annotations

import logging
from collections.abc import Iterable

from unigpu.driver import DeploymentInfo, DeploymentSpec
from unigpu.errors import (
    DeadlineExceeded,
    DeployOutcomeUnknown,
    PartialDeployError,
    StateError,
    TransportTimeout,
    UniGPUError,
)

from ._pace import shielded
from .create import Ledger, command
from .intents import IntentState, Journal
from .ready import bills
from .scope import UNDO_SECONDS, Scope

_log = logging.getLogger("unigpu.lifecycle")


async def on_error(
    scope: Scope,
    exc: BaseException,
    ledger: Ledger,
    journal: Journal | None,
    *,
    spec: DeploymentSpec,
    info: DeploymentInfo | None,
    whole: bool,
    keep: bool,
    deadline: float,
) -> None:
    """Undo what the call created, or keep it, and let the error say which. The caller raises *exc* again.

    Args:
        whole: The last create is done.

    Raises:
        PartialDeployError: instead of an error of ours, where something could not be taken back. Cancellation and
            interrupts stay what they are, and get a note.
    """
    if ledger.is_empty:
        if ledger.sent:
            _mark(journal, "failed", owe=True)  # what it made is deleted already; the looks are owed all the same
        elif journal is not None:
            _drop(journal)
        return
    late = whole and _is_late(exc, past=scope.io.now() >= deadline)
    if keep or late:
        _mark(journal, "committed" if whole else "failed", owe=None if whole else False)
        ledger.release()
        _say_kept(exc, spec, info, why="the start is paid for" if late else 'on_failure="keep"')
        return
    unknown = isinstance(exc, DeployOutcomeUnknown)
    made = tuple((part.kind, found.id) for part, found in ledger.made)
    leaked: tuple[tuple[str, str], ...] = made
    failed: UniGPUError | None = None

    async def undo_and_record() -> None:
        nonlocal leaked
        leaked = await ledger.undo()
        if not leaked and not ledger.sent and journal is not None:
            _drop(journal)  # within the span: whatever cancels us meanwhile, what is undone is not left as pending
        elif leaked or ledger.sent:
            _mark(journal, "failed", owe=True)
            _note_ending(journal, made)

    try:
        await shielded(scope.io, undo_and_record, seconds=UNDO_SECONDS + 10)
    except UniGPUError as error:
        failed = error
        leaked = leaked or (("deployment", spec.name),)
        _mark(journal, "failed", owe=True)
    if not leaked:
        if ledger.owed:
            _say_owed(exc, scope, spec)
        else:
            _say_undone(exc, spec)
        return
    left = tuple(f"{kind} {id_}" for kind, id_ in leaked)
    _log.error("%s on %s: not taken back, may still bill: %s", spec.name, scope.provider, "; ".join(left))
    if isinstance(exc, UniGPUError) and not unknown:
        raise PartialDeployError(
            f"deploying {spec.name} on {scope.provider} failed ({exc.message}), and not all of it could be taken back",
            provider=scope.provider,
            deployment=spec.name,
            leaked=leaked,
            may_bill=left,
            maybe_executed=True,
            hint=f"{command(scope)} --delete ends what is left; so does client.teardown({spec.name!r}). Deploying it "
            "again settles it too.",
        ) from (exc if failed is None else failed)
    exc.add_note(f"unigpu: not taken back, may still bill: {'; '.join(left)}")


def _is_late(exc: BaseException, *, past: bool) -> bool:
    return isinstance(exc, DeadlineExceeded) or (isinstance(exc, TransportTimeout) and past)


def _say_kept(exc: BaseException, spec: DeploymentSpec, info: DeploymentInfo | None, *, why: str) -> None:
    what = bills(info) if info is not None else spec.name
    if isinstance(exc, UniGPUError):
        if what not in exc.may_bill:
            exc.may_bill = (*exc.may_bill, what)
        exc.hint = (
            f"{spec.name} was kept ({why}): deploy it again to go on, or tear it down with "
            f"client.teardown({spec.name!r})."
        )
    else:
        exc.add_note(f"unigpu: {spec.name} was kept ({why}); it may still bill: {what}")


def _say_undone(exc: BaseException, spec: DeploymentSpec) -> None:
    text = f"What this deploy of {spec.name} created was torn down."
    if isinstance(exc, UniGPUError):
        exc.may_bill = ()
        exc.hint = f"{exc.hint} {text}" if exc.hint else text
    else:
        exc.add_note(f"unigpu: {text}")


def _say_owed(exc: BaseException, scope: Scope, spec: DeploymentSpec) -> None:
    """All that is to be seen was taken back; a create without an answer may still act."""
    text = (
        f"What this deploy of {spec.name} is seen to have created was torn down. A create without an answer may still "
        f"act: later calls of a client here look for it, and {command(scope)} --delete does."
    )
    if isinstance(exc, UniGPUError):
        exc.hint = f"{exc.hint} {text}" if exc.hint else text
    else:
        exc.add_note(f"unigpu: {text}")


def _mark(journal: Journal | None, state: IntentState, *, owe: bool | None = None) -> None:
    """As `Journal.mark`."""
    if journal is None:
        return
    try:
        journal.mark(state, owe=owe)
    except StateError as exc:  # the error under way matters more; a pending intent says enough
        _log.warning("%s", exc)


def _note_ending(journal: Journal | None, made: Iterable[tuple[str, str]]) -> None:
    """As `Journal.note_ending`."""
    if journal is None:
        return
    try:
        journal.note_ending(made)
    except StateError as exc:
        _log.warning("%s", exc)


def _drop(journal: Journal) -> None:
    try:
        journal.drop()
    except StateError as exc:
        _log.warning("%s", exc)
