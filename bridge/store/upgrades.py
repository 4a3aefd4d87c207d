"""The schema, as numbered steps. A step that was released is never edited: the next one changes what it made.

JSON and names that come from outside are kept as ASCII text with JSON escapes (``database.pack``): PostgreSQL takes
no NUL character in ``text`` and no ``\\u0000`` in ``jsonb`` (its manual, §8.14), and event contents may hold both.
"""

from __future__ import annotations

from mautrix.util.async_db import Connection, Scheme, UpgradeTable

upgrades = UpgradeTable(version_table_name="eyvan_version", database_name="Eyvan's database")


async def first(conn: Connection, scheme: Scheme) -> None:
    row_id = "INTEGER PRIMARY KEY AUTOINCREMENT"
    if scheme == Scheme.POSTGRES:
        row_id = "BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY"
    for statement in (
        # A transaction is known by its id for a week, so that a repetition adds nothing.
        "CREATE TABLE eyvan_transaction (txn_id TEXT PRIMARY KEY, received_ms BIGINT NOT NULL)",
        f"""CREATE TABLE eyvan_inbox (
            row_id {row_id},
            txn_id TEXT NOT NULL REFERENCES eyvan_transaction (txn_id),
            position INTEGER NOT NULL,
            event TEXT NOT NULL,
            received_ms BIGINT NOT NULL,
            applied_ms BIGINT,
            UNIQUE (txn_id, position)
        )""",
        "CREATE INDEX eyvan_inbox_unapplied ON eyvan_inbox (row_id) WHERE applied_ms IS NULL",
        "CREATE INDEX eyvan_inbox_applied ON eyvan_inbox (applied_ms) WHERE applied_ms IS NOT NULL",
        "CREATE INDEX eyvan_transaction_received ON eyvan_transaction (received_ms)",
        "CREATE TABLE eyvan_stage (room TEXT PRIMARY KEY, saved TEXT NOT NULL)",
        f"CREATE TABLE eyvan_cut (row_id {row_id}, cut_id TEXT NOT NULL UNIQUE, room TEXT NOT NULL, cut TEXT NOT NULL)",
        f"""CREATE TABLE eyvan_record (
            row_id {row_id}, room TEXT NOT NULL, stage TEXT NOT NULL, at_ms BIGINT NOT NULL, record TEXT NOT NULL
        )""",
        "CREATE INDEX eyvan_record_room ON eyvan_record (room, row_id)",
        """CREATE TABLE eyvan_link_device (
            link_id TEXT NOT NULL,
            device_hash TEXT NOT NULL,
            expires_ms BIGINT NOT NULL,
            PRIMARY KEY (link_id, device_hash)
        )""",
        "CREATE INDEX eyvan_link_device_expires ON eyvan_link_device (expires_ms)",
        """CREATE TABLE eyvan_revocation (
            member TEXT NOT NULL, room TEXT NOT NULL, before_ms BIGINT NOT NULL, PRIMARY KEY (member, room)
        )""",
        "CREATE TABLE eyvan_value (name TEXT PRIMARY KEY, content TEXT NOT NULL)",
    ):
        await conn.execute(statement)


upgrades.register(first, description="inbox, stages, cuts, record, links, values")


async def second(conn: Connection, scheme: Scheme) -> None:
    """Rows of before have no event id (NULL is distinct from NULL): they are known by their transaction alone."""
    for statement in (
        "ALTER TABLE eyvan_inbox ADD COLUMN event_id TEXT",
        "CREATE UNIQUE INDEX eyvan_inbox_event ON eyvan_inbox (event_id)",
        # Personal links and what people said lay in them.
        "UPDATE eyvan_inbox SET event = '' WHERE applied_ms IS NOT NULL",
    ):
        await conn.execute(statement)


upgrades.register(second, description="an event is kept once; what was applied is emptied")
