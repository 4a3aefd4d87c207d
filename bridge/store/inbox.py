"""The inbox: a transaction's events are kept once, in order, and emptied when they have been applied: what stays for a
week is that they came, not what they say.

Each function is the inside of one transaction of ``Database``.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mautrix.util.async_db import Connection

from bridge.store.database import pack, pack_name

log = logging.getLogger(__name__)

KEEP_MS = 7 * 24 * 3600 * 1000
"""How long applied rows and the ids of transactions are kept."""
_ID_LENGTH = 255  # client-server API, "Size limits"


@dataclass(frozen=True, slots=True)
class Row:
    row: int
    event: Mapping[str, Any]
    received_ms: int


async def add(conn: Connection, txn_id: str, events: Sequence[Mapping[str, Any]], received_ms: int) -> Sequence[Row]:
    """The unique keys decide: of two that come at once, one gets the rows and the other (); an event that came in an
    earlier transaction gets no row."""
    key = pack_name(txn_id)
    new = await conn.fetchval(
        "INSERT INTO eyvan_transaction (txn_id, received_ms) VALUES ($1, $2) ON CONFLICT DO NOTHING RETURNING txn_id",
        key,
        received_ms,
    )
    if new is None or not events:
        return ()
    await conn.executemany(
        """INSERT INTO eyvan_inbox (txn_id, position, event, received_ms, event_id) VALUES ($1, $2, $3, $4, $5)
           ON CONFLICT (event_id) DO NOTHING""",
        [(key, position, pack(event), received_ms, _id_of(event)) for position, event in enumerate(events)],
    )
    kept = await conn.fetch("SELECT row_id, position FROM eyvan_inbox WHERE txn_id = $1 ORDER BY position", key)
    return [Row(each["row_id"], events[each["position"]], received_ms) for each in kept]


def _id_of(event: Mapping[str, Any]) -> str | None:
    """What an event is known by. One without a usable id is no repetition of anything; PostgreSQL's index takes 2.7 kB
    at most."""
    event_id = event.get("event_id") if isinstance(event, Mapping) else None
    return pack_name(event_id) if isinstance(event_id, str) and 0 < len(event_id) <= _ID_LENGTH else None


async def unapplied(conn: Connection) -> Sequence[Row]:
    """Oldest first. A row that cannot be read (a disk's fault) is logged and left where it is."""
    found = await conn.fetch(
        "SELECT row_id, event, received_ms FROM eyvan_inbox WHERE applied_ms IS NULL ORDER BY row_id"
    )
    rows = []
    for each in found:
        try:
            event = json.loads(each["event"])
        except ValueError as fault:
            log.error("inbox row %d is not JSON (%s): it is left out", each["row_id"], fault)
            continue
        rows.append(Row(each["row_id"], event, each["received_ms"]))
    return rows


async def mark(conn: Connection, rows: Sequence[int], now_ms: int) -> None:
    await conn.executemany(
        "UPDATE eyvan_inbox SET applied_ms = $1, event = '' WHERE row_id = $2 AND applied_ms IS NULL",
        [(now_ms, row) for row in rows],
    )


async def prune(conn: Connection, now_ms: int) -> None:
    """Forget rows applied more than a week ago, then transactions as old that have no row left."""
    before = now_ms - KEEP_MS
    await conn.execute("DELETE FROM eyvan_inbox WHERE applied_ms < $1", before)
    await conn.execute(
        """DELETE FROM eyvan_transaction WHERE received_ms < $1
           AND NOT EXISTS (SELECT 1 FROM eyvan_inbox WHERE eyvan_inbox.txn_id = eyvan_transaction.txn_id)""",
        before,
    )
