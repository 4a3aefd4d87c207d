"""Devices that opened a personal link, links revoked, and the few values of the installation.

Each function is the inside of one transaction of ``Database``.
"""

from __future__ import annotations

import json
from typing import cast

from mautrix.util.async_db import Connection

from bridge.store.database import pack, pack_name

KEEP_REVOCATION_MS = 31 * 24 * 3600 * 1000
"""Longer than any link lives (``web.link_hours`` is at most 720): then nothing is left to revoke."""


async def bind_device(conn: Connection, link_id: str, device_hash: str, expires_ms: int, max_devices: int) -> bool:
    """Bind a device to a link, unless as many others are bound. A device that is bound already stays so."""
    link, device = pack_name(link_id), pack_name(device_hash)
    # Written first: in SQLite this takes the write lock before anything is read.
    new = await conn.fetchval(
        """INSERT INTO eyvan_link_device (link_id, device_hash, expires_ms) VALUES ($1, $2, $3)
           ON CONFLICT (link_id, device_hash) DO NOTHING RETURNING 1""",
        link,
        device,
        expires_ms,
    )
    if new is None:
        return True
    devices = await conn.fetchval("SELECT COUNT(*) FROM eyvan_link_device WHERE link_id = $1", link)
    if devices <= max_devices:
        return True
    await conn.execute("DELETE FROM eyvan_link_device WHERE link_id = $1 AND device_hash = $2", link, device)
    return False


async def revoke(conn: Connection, user: str, room: str, now_ms: int) -> None:
    await conn.execute(
        """INSERT INTO eyvan_revocation (member, room, before_ms) VALUES ($1, $2, $3)
           ON CONFLICT (member, room) DO UPDATE SET before_ms = excluded.before_ms
           WHERE eyvan_revocation.before_ms < excluded.before_ms""",
        pack_name(user),
        pack_name(room),
        now_ms,
    )


async def revoked_before(conn: Connection, user: str, room: str) -> int:
    found = await conn.fetchval(
        "SELECT before_ms FROM eyvan_revocation WHERE member = $1 AND room = $2", pack_name(user), pack_name(room)
    )
    return int(found or 0)


async def prune(conn: Connection, now_ms: int) -> None:
    await conn.execute("DELETE FROM eyvan_link_device WHERE expires_ms < $1", now_ms)
    await conn.execute("DELETE FROM eyvan_revocation WHERE before_ms < $1", now_ms - KEEP_REVOCATION_MS)


async def get_value(conn: Connection, key: str) -> str | None:
    found = await conn.fetchval("SELECT content FROM eyvan_value WHERE name = $1", pack_name(key))
    return None if found is None else cast(str, json.loads(found))


async def set_value(conn: Connection, key: str, value: str) -> None:
    await conn.execute(
        """INSERT INTO eyvan_value (name, content) VALUES ($1, $2)
           ON CONFLICT (name) DO UPDATE SET content = excluded.content""",
        pack_name(key),
        pack(value),
    )
