"""Stages, cuts that are not yet in room state, and the moderation record.

Each function is the inside of one transaction of ``Database``.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from mautrix.util.async_db import Connection

from bridge.ids import RoomId
from bridge.store.database import pack, pack_name, unpack_name

log = logging.getLogger(__name__)

Json = Mapping[str, Any]


async def save(conn: Connection, room: str, saved: Json) -> None:
    await conn.execute(
        "INSERT INTO eyvan_stage (room, saved) VALUES ($1, $2) ON CONFLICT (room) DO UPDATE SET saved = excluded.saved",
        pack_name(room),
        pack(saved),
    )


async def load(conn: Connection) -> Mapping[RoomId, Json]:
    rows = await conn.fetch("SELECT room, saved AS json FROM eyvan_stage ORDER BY room")
    return {RoomId(unpack_name(row["room"])): value for row, value in _read(rows, "stage")}


async def forget(conn: Connection, room: str) -> None:
    await conn.execute("DELETE FROM eyvan_stage WHERE room = $1", pack_name(room))


async def add_cut(conn: Connection, room: str, cut_id: str, cut: Json) -> None:
    await conn.execute(
        """INSERT INTO eyvan_cut (cut_id, room, cut) VALUES ($1, $2, $3)
           ON CONFLICT (cut_id) DO UPDATE SET room = excluded.room, cut = excluded.cut""",
        pack_name(cut_id),
        pack_name(room),
        pack(cut),
    )


async def drop_cut(conn: Connection, cut_id: str) -> None:
    await conn.execute("DELETE FROM eyvan_cut WHERE cut_id = $1", pack_name(cut_id))


async def load_cuts(conn: Connection) -> Sequence[tuple[RoomId, str, Json]]:
    """Oldest first."""
    rows = await conn.fetch("SELECT room, cut_id, cut AS json FROM eyvan_cut ORDER BY row_id")
    return [(RoomId(unpack_name(row["room"])), unpack_name(row["cut_id"]), cut) for row, cut in _read(rows, "cut")]


async def add_record(conn: Connection, room: str, stage: str, at_ms: int, record: Json) -> None:
    await conn.execute(
        "INSERT INTO eyvan_record (room, stage, at_ms, record) VALUES ($1, $2, $3, $4)",
        pack_name(room),
        pack_name(stage),
        at_ms,
        pack(record),
    )


async def records(conn: Connection, room: str, limit: int) -> Sequence[Json]:
    """The newest ``limit`` lines of a room, newest first."""
    rows = await conn.fetch(
        "SELECT record AS json FROM eyvan_record WHERE room = $1 ORDER BY row_id DESC LIMIT $2", pack_name(room), limit
    )
    return [record for _, record in _read(rows, "record")]


def _read(rows: Sequence[Any], what: str) -> Iterator[tuple[Any, Json]]:
    """Rows with their JSON; one that cannot be read (a disk's fault) is logged and left out."""
    for row in rows:
        try:
            yield row, json.loads(row["json"])
        except ValueError as fault:
            log.error("a %s in the database is not JSON (%s): it is left out", what, fault)
