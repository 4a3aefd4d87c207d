"""The inbox: a transaction's events are kept once, in order, and marked when they have been applied.

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


@dataclass(frozen=True, slots=True)
class Row:
    row: int
    event: Mapping[str, Any]
    received_ms: int


async def add(conn: Connection, txn_id: str, events: Sequence[Mapping[str, Any]], received_ms: int) -> Sequence[Row]:
    """The unique key decides: of two that come at once, one gets the rows and the other ()."""
    key = pack_name(txn_id)
    new = await conn.fetchval(
        "INSERT INTO eyvan_transaction (txn_id, received_ms) VALUES ($1, $2) ON CONFLICT DO NOTHING RETURNING txn_id",
        key,
        received_ms,
    )
    if new is None or not events:
        return ()
    await conn.executemany(
        "INSERT INTO eyvan_inbox (txn_id, position, event, received_ms) VALUES ($1, $2, $3, $4)",
        [(key, position, pack(event), received_ms) for position, event in enumerate(events)],
    )
    ids = await conn.fetch("SELECT row_id FROM eyvan_inbox WHERE txn_id = $1 ORDER BY position", key)
    return [Row(each["row_id"], event, received_ms) for each, event in zip(ids, events, strict=True)]


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
        "UPDATE eyvan_inbox SET applied_ms = $1 WHERE row_id = $2 AND applied_ms IS NULL",
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
