"""What happens when a deploy fails: its resources are deleted, or kept for a later deploy, and the error says which."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Generator
from functools import partial

from unigpu.driver import DeploymentSpec
from unigpu.errors import (
    DeadlineExceeded,
    DeployOutcomeUnknown,
    PartialDeployError,
    StateError,
    TransportTimeout,
    UniGPUError,
)

from .attempt import Attempt
from .consistency.survey import Id, id_of
from .create import gc_command
from .ready import bills
from .scope import UNDO_SECONDS, Scope
from .undo import Undone, undo

_log = logging.getLogger("unigpu.lifecycle")


async def handle_failure(attempt: Attempt, exc: BaseException, *, keep: bool) -> None:
    """Delete what the call created, or keep it, and let the error say which. The caller raises *exc* again.

    Raises:
        PartialDeployError: instead of a `UniGPUError`, where something could not be deleted. A cancellation or an
            interrupt stays what it is, and gets a note.
    """
    created = attempt.created
    late = created.whole and _is_late(exc, past=attempt.scope.io.now() >= attempt.deadline)
    if created.is_empty:
        _close_empty(attempt)
    elif late:
        _keep(attempt, exc, why="the start is paid for")
    elif keep:
        _keep(attempt, exc, why='on_failure="keep"')
    else:
        await _undo(attempt, exc)


def _close_empty(attempt: Attempt) -> None:
    """Nothing of the call exists: its intent goes, unless a platform that only lists may still show more of it."""
    writer = attempt.writer
    if writer is not None and not writer.completes:
        with _logged():
            writer.mark("failed", owe=True) if attempt.created.sent else writer.drop()


def _keep(attempt: Attempt, exc: BaseException, *, why: str) -> None:
    """Leave what the call created to a later deploy, and say so."""
    whole, spec, info = attempt.created.whole, attempt.spec, attempt.info
    with _logged():
        if attempt.writer is not None:
            attempt.writer.mark("committed" if whole else "failed", owe=None if whole else False)
    attempt.created.release()
    what = bills(info) if info is not None else spec.name
    if isinstance(exc, UniGPUError):
        if what not in exc.may_bill:
            exc.may_bill = (*exc.may_bill, what)
        exc.hint = (
            f"{spec.name} was kept ({why}): deploy it again to continue, or tear it down with "
            f"client.teardown({spec.name!r})."
        )
    else:
        exc.add_note(f"unigpu: {spec.name} was kept ({why}); it may still bill: {what}")


async def _undo(attempt: Attempt, exc: BaseException) -> None:
    """Delete what the call created, and say what became of it."""
    scope, spec = attempt.scope, attempt.spec
    made = tuple(id_of(found) for _, found in attempt.created.made)
    failed: UniGPUError | None = None
    try:
        undone = await scope.io.shield(partial(_undo_and_record, attempt, made), seconds=UNDO_SECONDS + 10)
    except UniGPUError as error:
        failed, undone = error, Undone(leaked=made or (("deployment", spec.name),))
        with _logged():
            if attempt.writer is not None:
                attempt.writer.mark("failed", owe=True)
    if undone.leaked:
        _say_leaked(exc, scope, spec, undone.leaked, failed)
    elif undone.may_appear:
        _add_hint(
            exc,
            f"Everything that this deploy of {spec.name} is known to have created was deleted. A create without an "
            f"answer may still act: later calls of a client on this machine search for it, and so does "
            f"{gc_command(scope)} --delete.",
        )
    else:
        if isinstance(exc, UniGPUError):
            exc.may_bill = ()
        _add_hint(exc, f"What this deploy of {spec.name} created was torn down.")


async def _undo_and_record(attempt: Attempt, made: tuple[Id, ...]) -> Undone:
    """Undo, and record it in the same span: a cancellation must not leave as pending what is deleted."""
    undone, writer = await undo(attempt.created), attempt.writer
    if writer is not None:
        with _logged():
            if undone.leaked or attempt.created.sent:
                writer.mark("failed", owe=True)
            else:
                writer.drop()
        if undone.leaked or attempt.created.sent:
            with _logged():
                writer.note_ending(made)
    return undone


@contextlib.contextmanager
def _logged() -> Generator[None, None, None]:
    """Log a `StateError`: the error that the deploy fails with matters more, and a pending intent says enough."""
    try:
        yield
    except StateError as exc:
        _log.warning("%s", exc)


def _is_late(exc: BaseException, *, past: bool) -> bool:
    return isinstance(exc, DeadlineExceeded) or (isinstance(exc, TransportTimeout) and past)


def _say_leaked(
    exc: BaseException, scope: Scope, spec: DeploymentSpec, leaked: tuple[Id, ...], failed: UniGPUError | None
) -> None:
    """Raise, or note, what still exists.

    Raises:
        PartialDeployError: unless *exc* is no `UniGPUError`, or a create of unknown outcome.
    """
    left = tuple(f"{kind} {id_}" for kind, id_ in leaked)
    _log.error("%s on %s: not deleted, may still bill: %s", spec.name, scope.provider, "; ".join(left))
    if isinstance(exc, UniGPUError) and not isinstance(exc, DeployOutcomeUnknown):
        raise PartialDeployError(
            f"deploying {spec.name} on {scope.provider} failed ({exc.message}), and not everything could be deleted",
            provider=scope.provider,
            deployment=spec.name,
            leaked=leaked,
            may_bill=left,
            maybe_executed=True,
            hint=f"{gc_command(scope)} --delete deletes the rest; so does client.teardown({spec.name!r}). Another "
            "deploy of the name settles it, too.",
        ) from (exc if failed is None else failed)
    exc.add_note(f"unigpu: not deleted, may still bill: {'; '.join(left)}")


def _add_hint(exc: BaseException, text: str) -> None:
    if isinstance(exc, UniGPUError):
        exc.hint = f"{exc.hint} {text}" if exc.hint else text
    else:
        exc.add_note(f"unigpu: {text}")
