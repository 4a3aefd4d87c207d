"""The Store of ``bridge.live.ports``, on SQLite and PostgreSQL. Every method returns after the commit.

Every method raises Unavailable where the database does not answer.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from mautrix.util.async_db import Connection

from bridge.ids import RoomId, StageId, UserId
from bridge.store import inbox, links, stages
from bridge.store.database import Database, open_database

Json = Mapping[str, Any]

_PRUNE_EVERY_MS = 3600 * 1000


def _wall_clock() -> int:
    return time.time_ns() // 1_000_000


async def open_store(url: str, now_ms: Callable[[], int] = _wall_clock) -> DatabaseStore:
    """Open ``sqlite:///…`` or ``postgres://…`` and bring its schema up to date. Raises ConfigError.

    The caller closes it.
    """
    return DatabaseStore(await open_database(url), now_ms)


class DatabaseStore:
    """Owns its database. Call it from any task of the loop that opened it; writes happen in the order of the calls."""

    def __init__(self, database: Database, now_ms: Callable[[], int]) -> None:
        self._database, self._now_ms = database, now_ms
        self._pruned_ms = 0

    async def close(self) -> None:
        """Finish what is being written, then close. Harmless twice."""
        await self._database.close()

    # -- inbox

    async def add_transaction(self, txn_id: str, events: Sequence[Json], received_ms: int) -> Sequence[inbox.Row]:
        """Keep a transaction once, and each event once; of several calls with one id, exactly one gets the rows that
        are new, the others ().

        Once an hour, what is older than a week and applied is forgotten in the same transaction.
        """

        async def work(conn: Connection) -> Sequence[inbox.Row]:
            rows = await inbox.add(conn, txn_id, events, received_ms)
            now = self._now_ms()
            if now - self._pruned_ms >= _PRUNE_EVERY_MS:
                await inbox.prune(conn, now)
                await links.prune(conn, now)
                self._pruned_ms = now
            return rows

        return await self._database.write(work)

    async def unapplied(self) -> Sequence[inbox.Row]:
        return await self._database.read(inbox.unapplied)

    async def mark_applied(self, rows: Sequence[int]) -> None:
        if rows:
            await self._database.write(lambda conn: inbox.mark(conn, rows, self._now_ms()))

    # -- stages, cuts, record

    async def save_stage(self, room: RoomId, saved: Json) -> None:
        await self._database.write(lambda conn: stages.save(conn, room, saved))

    async def load_stages(self) -> Mapping[RoomId, Json]:
        return await self._database.read(stages.load)

    async def forget_stage(self, room: RoomId) -> None:
        await self._database.write(lambda conn: stages.forget(conn, room))

    async def add_cut(self, room: RoomId, cut_id: str, cut: Json) -> None:
        await self._database.write(lambda conn: stages.add_cut(conn, room, cut_id, cut))

    async def drop_cut(self, cut_id: str) -> None:
        await self._database.write(lambda conn: stages.drop_cut(conn, cut_id))

    async def load_cuts(self) -> Sequence[tuple[RoomId, str, Json]]:
        return await self._database.read(stages.load_cuts)

    async def add_record(self, room: RoomId, stage: StageId, at_ms: int, record: Json) -> None:
        await self._database.write(lambda conn: stages.add_record(conn, room, stage, at_ms, record))

    async def records(self, room: RoomId, limit: int) -> Sequence[Json]:
        """The newest ``limit`` lines of the moderation record, newest first."""
        return await self._database.read(lambda conn: stages.records(conn, room, limit))

    # -- links, values

    async def open_link(self, link_id: str, device_hash: str, expires_ms: int, max_devices: int) -> bool:
        return await self._database.write(
            lambda conn: links.bind_device(conn, link_id, device_hash, expires_ms, max_devices)
        )

    async def revoke_links(self, user: UserId, room: RoomId, now_ms: int) -> None:
        await self._database.write(lambda conn: links.revoke(conn, user, room, now_ms))

    async def links_revoked_before(self, user: UserId, room: RoomId) -> int:
        return await self._database.read(lambda conn: links.revoked_before(conn, user, room))

    async def get_value(self, key: str) -> str | None:
        return await self._database.read(lambda conn: links.get_value(conn, key))

    async def set_value(self, key: str, value: str) -> None:
        await self._database.write(lambda conn: links.set_value(conn, key, value))
