"""What a stage stores, and what it still owes the store.

A store that does not answer stops nothing: what it owes is tried again at each tick. Durable before written is asked of
cuts alone (gate → row → state), so only they are waited for one by one; all else goes once for a batch of inputs.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any

from bridge.errors import EyvanError
from bridge.ids import RoomId, StageId, UserId
from bridge.live import saved
from bridge.live.ports import JsonObject, Store
from bridge.rules.state import Cut, StageState
from bridge.telemetry import metrics

log = logging.getLogger(__name__)

LOST = metrics.counter("eyvan_rows_lost_total", "Rows that a failing database was not given, beyond what may wait")

MAX_OWED = 10_000  # lines of the record or marks of the inbox; the oldest is let go, and counted


class Keeping:
    """Owned by a LiveStage and used from its task alone. No task of its own."""

    def __init__(self, room: RoomId, store: Store) -> None:
        self._room, self._store = room, store
        self._cuts: dict[str, Cut] = {}  # act already, and are not durable
        self._drops: dict[str, None] = {}  # over, and may still be durable
        self._rows: list[int] = []
        self._revoked: dict[UserId, int] = {}
        self._records: list[tuple[StageId, int, JsonObject]] = []
        self._busy = False
        self.changed = False
        """Hands, invitations or card are not kept yet."""
        self.lost = 0

    async def cut(self, cut: Cut) -> bool:
        """Make it durable now. False where that failed; it is tried again until the cut is over."""
        kept = False
        try:
            kept = await self._try("a cut", self._store.add_cut(self._room, cut.cut_id, saved.cut_json(cut)))
        finally:
            if not kept:
                self._cuts[cut.cut_id] = cut
        return kept

    async def _keep_cuts(self) -> bool:
        for cut in list(self._cuts.values()):
            if cut.cut_id not in self._cuts:
                continue  # over meanwhile
            if not await self._try("a cut", self._store.add_cut(self._room, cut.cut_id, saved.cut_json(cut))):
                return False
            self._cuts.pop(cut.cut_id, None)
        return True

    def drop(self, cut_id: str) -> None:
        self._cuts.pop(cut_id, None)
        self._drops[cut_id] = None

    def revoke(self, user: UserId, now_ms: int) -> None:
        self._revoked[user] = now_ms

    def record(self, stage: StageId, at_ms: int, line: Mapping[str, Any]) -> None:
        self._owe(self._records, (stage, at_ms, line))

    def applied(self, rows: Iterable[int]) -> None:
        """Inbox rows that were worked on; they are marked after what they changed was kept."""
        for row in rows:
            self._owe(self._rows, row)

    def _owe(self, owed: list[Any], what: Any) -> None:
        owed.append(what)
        if len(owed) > MAX_OWED:
            del owed[0]
            self.lost += 1
            LOST.inc()

    @property
    def owes(self) -> bool:
        return bool(
            self._busy or self.changed or self._rows or self._records or self._drops or self._cuts or self._revoked
        )

    async def flush(self, state: Callable[[], StageState]) -> None:
        """Store what is owed, as far as the store does. Rows come last, and only those whose changes were kept with
        them: a crash before them repeats, and loses nothing."""
        rows, self._rows = self._rows, []
        self._busy, done = True, False
        try:
            done = await self._flush(state)
            if done and rows:
                done = await self._try("marks of the inbox", self._store.mark_applied(rows))
        finally:
            self._busy = False
            if not done:
                self._rows = [*rows, *self._rows]

    async def _flush(self, state: Callable[[], StageState]) -> bool:
        if self.changed:
            self.changed = False
            if not await self._try("the stage", self._store.save_stage(self._room, saved.dump(state()))):
                self.changed = True
                return False
        if not await self._keep_cuts():
            return False
        for cut_id in list(self._drops):
            if not await self._try("the end of a cut", self._store.drop_cut(cut_id)):
                return False
            self._drops.pop(cut_id, None)
        for user, at_ms in list(self._revoked.items()):
            if not await self._try("a revocation", self._store.revoke_links(user, self._room, at_ms)):
                return False
            self._revoked.pop(user, None)
        while self._records:
            if not await self._try("the record", self._store.add_record(self._room, *self._records[0])):
                return False
            self._records.pop(0)
        return True

    async def _try(self, what: str, call: Awaitable[None]) -> bool:
        try:
            await call
        except EyvanError as error:
            log.error("room %s: %s could not be kept, and will be tried again: %s", self._room, what, error)
            return False
        except Exception:
            log.exception("room %s: %s could not be kept, and will be tried again", self._room, what)
            return False
        return True
