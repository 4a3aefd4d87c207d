"""What lies in the database after people have talked and asked for links: no link, no word of what they said."""

from __future__ import annotations

import asyncio
import os
import secrets
import sqlite3
import stat
from collections.abc import Mapping
from pathlib import Path

from tests.helpers.world import World

HANG_S = 60


def rows_of(file: Path) -> list[tuple[object, ...]]:
    """Every row of every table."""
    conn = sqlite3.connect(f"file:{file}?mode=ro", uri=True)
    try:
        tables = [name for (name,) in conn.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        return [row for table in tables for row in conn.execute(f'SELECT * FROM "{table}"')]
    finally:
        conn.close()


def files_of(file: Path) -> Mapping[str, tuple[int, bytes]]:
    """Mode and bytes of the database, its log and its index."""
    found = [Path(each.path) for each in os.scandir(file.parent) if each.name.startswith(file.name)]
    return {each.name: (stat.S_IMODE(each.stat().st_mode), each.read_bytes()) for each in found}


def waiting(file: Path) -> int:
    conn = sqlite3.connect(f"file:{file}?mode=ro", uri=True)
    try:
        (count,) = conn.execute("SELECT count(*) FROM eyvan_inbox WHERE applied_ms IS NULL").fetchone()
        return int(count)
    finally:
        conn.close()


async def test_no_link_and_no_word_stays_in_the_database(world: World) -> None:
    file = world.site.directory / "eyvan.db"
    stage = await world.new_stage(topic="Kept")
    secret = secrets.token_hex(16)
    await world.users["ava"].send(stage.room_id, f"between us: {secret}")
    link = await world.link("ben", stage)  # comes after it, in the same order
    token = link.partition("#l=")[2]
    assert token.startswith("link1.")
    async with asyncio.timeout(HANG_S):
        while await asyncio.to_thread(waiting, file):  # noqa: ASYNC110
            await asyncio.sleep(0.05)
    rows = await asyncio.to_thread(rows_of, file)
    assert any(stage.room_id in str(row) for row in rows), "the right database"
    assert not [row for row in rows if "link1." in str(row)]
    files = await asyncio.to_thread(files_of, file)
    assert {name for name, (mode, _) in files.items() if mode != 0o600} == set()
    for name, (_, content) in files.items():
        assert secret.encode() not in content, name
        assert b"link1." not in content, name
