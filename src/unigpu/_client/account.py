"""The verbs of a whole account, and the end of a client."""

from __future__ import annotations

from unigpu import _lifecycle
from unigpu._lifecycle import Group, Scope
from unigpu.errors import UniGPUError
from unigpu.models import GcReport, GcRow, Inventory, InventoryItem

from . import arguments
from .context import Context
from .known import Seen
from .lookup import Lookup
from .session import CLOSE_SECONDS, GC_SECONDS, Providers, Unreadable


class Account:
    """One client's verbs that ask whole accounts, provider by provider."""

    def __init__(self, context: Context, lookup: Lookup) -> None:
        self._context = context
        self._lookup = lookup
        self._session = context.session

    async def deployments(self, provider: Providers) -> tuple[list[Seen], Unreadable]:
        self._session.open()
        found: list[Seen] = []
        unreadable = Unreadable(provider)
        for name in self._session.providers(provider):
            with unreadable.unless_read(name):
                listed = await self._lookup.listing(name, self._context.soon())
                found += [self._context.seen(info, None) for info in listed]
        return found, unreadable

    async def inventory(self, provider: Providers) -> Inventory:
        self._session.open()
        found: list[InventoryItem] = []
        unreadable = Unreadable(provider)
        for name in self._session.providers(provider):
            with unreadable.unless_read(name):
                found += await _lifecycle.inventory(self._context.scope(name), deadline=self._context.soon())
        return Inventory(found, unreadable)

    async def gc(self, provider: Providers, *, delete: bool, all_namespaces: bool) -> GcReport:
        self._session.open()
        delete = arguments.flag(delete, "delete")
        everywhere = arguments.flag(all_namespaces, "all_namespaces")
        found: list[tuple[Scope, list[Group]]] = []
        unreadable = Unreadable(provider)
        for name in self._session.providers(provider):
            deadline = self._context.deadline(GC_SECONDS)
            with unreadable.unless_read(name):
                scope = self._context.scope(name)
                found.append((scope, await _lifecycle.inspect(scope, all_namespaces=everywhere, deadline=deadline)))
        rows: list[GcRow] = []
        for scope, groups in found:
            if delete and not unreadable:
                deadline = self._context.deadline(GC_SECONDS)
                rows += await _lifecycle.collect(scope, groups, deadline=deadline)
                await _lifecycle.pay_quietly(scope, deadline=deadline)
            else:
                rows += [row for group in groups for _, _, row in group.judged]
        return GcReport(rows, unreadable, deleting=delete)

    async def close(self) -> None:
        """Make the checks that are due, and close the connections. Deployments stay as they are."""
        try:
            if not self._session.closed:
                for name in self._session.used:
                    await self._pay_at_the_end(name)
        finally:
            self._session.closed = True
            await self._context.transports.close()

    async def _pay_at_the_end(self, provider: str) -> None:
        try:
            scope = self._context.scope(provider)
        except UniGPUError:
            return
        await _lifecycle.pay_quietly(scope, deadline=self._context.deadline(CLOSE_SECONDS))
