"""The Store's contract, held on SQLite and on PostgreSQL."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import sqlite3
import stat
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from bridge.errors import ConfigError, Unavailable
from bridge.ids import RoomId, StageId, UserId
from bridge.live.ports import Store
from bridge.store import DatabaseStore, open_store
from bridge.store.inbox import KEEP_MS
from bridge.store.links import KEEP_REVOCATION_MS
from tests.helpers.postgres import Postgres, running_postgres

ROOM, OTHER = RoomId("!a:example.org"), RoomId("!without-server")
AVA = UserId("@ava:example.org")
STAGE = StageId("abcdefghijklmnopqrstuv")
DAY_MS = 24 * 3600 * 1000
HARD = [
    "\0 NUL, \ud800 lone surrogate, \u2028 line separator",
    "سلام، ایوان — 🖐🏽 ✋\ufe0f",
    "'; DROP TABLE eyvan_inbox; --",
    "$1 ?1 %s {x}",
    '"\\u0000"',
    "",
]


class HandClock:
    def __init__(self) -> None:
        self.ms = 1_800_000_000_000

    def __call__(self) -> int:
        return self.ms


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    with running_postgres() as server:
        yield server


@pytest.fixture(params=["sqlite", "postgres"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'a b%20c.db'}"
    server: Postgres = request.getfixturevalue("postgres")
    return server.new_database()


@pytest.fixture
def clock() -> HandClock:
    return HandClock()


@pytest.fixture
async def store(url: str, clock: HandClock) -> AsyncIterator[DatabaseStore]:
    opened = await open_store(url, clock)
    yield opened
    await opened.close()


async def raw(url: str, statement: str) -> list[tuple[Any, ...]]:
    """Ask the database behind the store's back."""
    if url.startswith("sqlite"):
        with sqlite3.connect(url.removeprefix("sqlite:///")) as conn:
            rows = conn.execute(statement).fetchall()
        conn.close()
        return rows
    pg = await asyncpg.connect(url)
    try:
        return [tuple(row) for row in await pg.fetch(statement)]
    finally:
        await pg.close()


def event(n: int, **content: Any) -> dict[str, Any]:
    return {"event_id": f"${n}", "room_id": ROOM, "type": "m.room.message", "content": content}


def test_it_is_the_port_that_live_names(store: DatabaseStore) -> None:
    port: Store = store  # checked by mypy
    assert port is store


# -- inbox


async def test_a_transaction_is_kept_in_order_until_it_is_applied(store: DatabaseStore) -> None:
    first = await store.add_transaction("t1", [event(1), event(2)], 1000)
    second = await store.add_transaction("t2", [event(3)], 2000)
    assert [row.event["event_id"] for row in [*first, *second]] == ["$1", "$2", "$3"]
    assert [row.received_ms for row in [*first, *second]] == [1000, 1000, 2000]
    assert list(await store.unapplied()) == [*first, *second]
    await store.mark_applied([first[1].row])
    await store.mark_applied([])
    await store.mark_applied([first[1].row, 999_999])
    assert list(await store.unapplied()) == [first[0], second[0]]


async def test_a_known_transaction_adds_nothing(store: DatabaseStore) -> None:
    await store.add_transaction("t1", [event(1)], 1000)
    assert await store.add_transaction("t1", [event(1), event(2)], 1001) == ()
    assert await store.add_transaction("empty", [], 1002) == ()
    assert len(await store.unapplied()) == 1


async def test_of_concurrent_duplicates_exactly_one_gets_the_rows(store: DatabaseStore) -> None:
    for round_ in range(10):
        got = await asyncio.gather(*(store.add_transaction(f"t{round_}", [event(round_)], 1) for _ in range(8)))
        assert sorted(len(rows) for rows in got) == [0] * 7 + [1]
    assert len(await store.unapplied()) == 10


async def test_of_duplicates_over_two_connections_exactly_one_gets_the_rows(store: DatabaseStore, url: str) -> None:
    """Two processes would be the same: each store has its own connections."""
    other = await open_store(url)
    try:
        for n in range(20):
            got = await asyncio.gather(
                store.add_transaction(f"t{n}", [event(n)], 1), other.add_transaction(f"t{n}", [event(n)], 1)
            )
            assert sorted(len(rows) for rows in got) == [0, 1]
    finally:
        await other.close()
    assert len(await store.unapplied()) == 20


async def test_rows_are_numbered_in_the_order_of_the_calls(store: DatabaseStore) -> None:
    calls = [store.add_transaction(f"t{n}", [event(3 * n + part) for part in range(3)], n) for n in range(50)]
    await asyncio.gather(*calls)
    rows = await store.unapplied()
    assert [row.event["event_id"] for row in rows] == [f"${n}" for n in range(150)]
    assert [row.row for row in rows] == sorted(row.row for row in rows)


@pytest.mark.parametrize("text", HARD)
async def test_any_text_comes_back_as_it_was(store: DatabaseStore, text: str) -> None:
    content = {"body": text, text: [text, None, True, 1.5, 2**60, {"deep": {"deeper": [text]}}]}
    await store.add_transaction(text, [event(1, **content)], 1)
    assert await store.add_transaction(text, [event(1)], 1) == ()
    (row,) = await store.unapplied()
    assert row.event["content"] == content
    room = RoomId(f"!{text}")
    await store.save_stage(room, content)
    assert await store.load_stages() == {room: content}
    await store.add_cut(room, text, content)
    assert list(await store.load_cuts()) == [(room, text, content)]
    await store.add_record(room, StageId(text), 1, content)
    assert list(await store.records(room, 5)) == [content]
    await store.set_value(text, text)
    assert await store.get_value(text) == text
    await store.revoke_links(UserId(text), room, 7)
    assert await store.links_revoked_before(UserId(text), room) == 7
    assert await store.open_link(text, text, 2**50, 1)


async def test_an_event_is_kept_once_by_whatever_transaction_it_comes(store: DatabaseStore) -> None:
    first = await store.add_transaction("t1", [event(1), event(1), event(2)], 1)
    assert [row.event["event_id"] for row in first] == ["$1", "$2"]
    await store.mark_applied([first[0].row])
    second = await store.add_transaction("t2", [event(3), event(2), event(4), event(1)], 2)
    assert [row.event["event_id"] for row in second] == ["$3", "$4"]
    assert list(await store.unapplied()) == [first[1], *second]
    assert not await store.add_transaction("t3", [event(4)], 3)


async def test_events_without_a_usable_id_are_all_kept(store: DatabaseStore) -> None:
    odd = [{"event_id": each} for each in (None, 7, "", "", "$" + "x" * 300_000, "$" + "x" * 300_000)] + [{}, {}]
    assert len(await store.add_transaction("t", odd, 1)) == len(odd)
    hard = [{"event_id": each} for each in HARD if each]
    assert [row.event for row in await store.add_transaction("hard", [*hard, *hard], 1)] == hard


async def test_what_was_applied_is_emptied(store: DatabaseStore, url: str) -> None:
    rows = await store.add_transaction("t", [event(1, body="link1.secret"), event(2, body="waits")], 1)
    await store.mark_applied([rows[0].row])
    kept = await raw(url, "SELECT event_id, event FROM eyvan_inbox ORDER BY row_id")
    assert kept[0] == ("$1", "")
    assert "waits" in kept[1][1]
    assert list(await store.unapplied()) == [rows[1]]
    assert await store.add_transaction("t", [event(1)], 2) == ()


async def test_an_older_database_is_brought_up_to_date_and_emptied(url: str) -> None:
    old = await open_store(url)
    rows = await old.add_transaction("t", [event(1), event(2)], 1)
    await old.mark_applied([rows[0].row])
    await old.close()
    for statement in (  # as version 1 left it
        "DROP INDEX eyvan_inbox_event",
        "ALTER TABLE eyvan_inbox DROP COLUMN event_id",
        'UPDATE eyvan_inbox SET event = \'{"body":"link1.x"}\' WHERE applied_ms IS NOT NULL',
        "UPDATE eyvan_version SET version = 1",
    ):
        await raw(url, statement)
    new = await open_store(url)
    try:
        assert [row.event["event_id"] for row in await new.unapplied()] == ["$2"]
        assert await raw(url, "SELECT event FROM eyvan_inbox WHERE applied_ms IS NOT NULL") == [("",)]
        assert len(await new.add_transaction("t2", [event(3), event(3)], 1)) == 1
    finally:
        await new.close()


async def test_nobody_else_on_the_machine_can_read_the_file(tmp_path: Path) -> None:
    path = tmp_path / "eyvan.db"
    before = os.umask(0)
    try:
        store = await open_store(f"sqlite:///{path}")
        await store.set_value("a", "b")
        modes = {each.name: stat.S_IMODE(each.stat().st_mode) for each in os.scandir(tmp_path)}
        await store.close()
    finally:
        os.umask(before)
    assert modes == {"eyvan.db": 0o600, "eyvan.db-wal": 0o600, "eyvan.db-shm": 0o600}


async def test_an_event_that_is_no_object_is_kept_as_it_is(store: DatabaseStore) -> None:
    """What a homeserver's defect sends is judged by the one who applies it, not lost here."""
    odd: Sequence[Any] = [None, [], "text", 7, event(1)]
    await store.add_transaction("t", odd, 1)
    assert [row.event for row in await store.unapplied()] == odd


async def test_a_spoilt_row_costs_only_itself(store: DatabaseStore, url: str, caplog: pytest.LogCaptureFixture) -> None:
    rows = await store.add_transaction("t", [event(1), event(2), event(3)], 1)
    await store.save_stage(ROOM, {"a": 1})
    await store.save_stage(OTHER, {"b": 1})
    returning = " RETURNING 1"
    await raw(url, f"UPDATE eyvan_inbox SET event = '{{\"cut' WHERE row_id = {rows[1].row}" + returning)
    await raw(url, f"UPDATE eyvan_stage SET saved = '' WHERE room = '{ROOM}'" + returning)
    assert [row.event["event_id"] for row in await store.unapplied()] == ["$1", "$3"]
    assert await store.load_stages() == {OTHER: {"b": 1}}
    assert f"inbox row {rows[1].row}" in caplog.text
    assert "a stage in the database" in caplog.text


async def test_ten_thousand_rows(store: DatabaseStore) -> None:
    for n in range(100):
        await store.add_transaction(f"t{n}", [event(n * 100 + part) for part in range(100)], n)
    rows = await store.unapplied()
    assert [row.event["event_id"] for row in rows] == [f"${n}" for n in range(10_000)]
    await store.mark_applied([row.row for row in rows[:9_999]])
    assert [row.event["event_id"] for row in await store.unapplied()] == ["$9999"]


async def test_what_was_applied_a_week_ago_is_forgotten_and_nothing_else(
    store: DatabaseStore, clock: HandClock, url: str
) -> None:
    old = await store.add_transaction("old", [event(1), event(2)], clock.ms)
    await store.add_transaction("waiting", [event(3)], clock.ms)
    await store.mark_applied([row.row for row in old])
    await store.open_link("link", "device", clock.ms + DAY_MS, 3)
    await store.revoke_links(AVA, ROOM, clock.ms)
    clock.ms += KEEP_MS - 1000
    young = await store.add_transaction("young", [event(4)], clock.ms)
    await store.mark_applied([young[0].row])
    assert await raw(url, "SELECT count(*) FROM eyvan_inbox") == [(4,)]
    clock.ms += 3600 * 1000
    await store.add_transaction("now", [], clock.ms)
    assert await raw(url, "SELECT txn_id FROM eyvan_transaction ORDER BY txn_id") == [
        ("now",),
        ("waiting",),
        ("young",),
    ]
    assert await raw(url, "SELECT count(*) FROM eyvan_inbox") == [(2,)]
    assert [row.event["event_id"] for row in await store.unapplied()] == ["$3"]
    assert await raw(url, "SELECT count(*) FROM eyvan_link_device") == [(0,)]
    assert await store.links_revoked_before(AVA, ROOM) > 0
    clock.ms += KEEP_REVOCATION_MS
    await store.add_transaction("later", [], clock.ms)
    assert await store.links_revoked_before(AVA, ROOM) == 0


# -- stages, cuts, record


async def test_a_stage_is_replaced_and_forgotten(store: DatabaseStore) -> None:
    await store.save_stage(ROOM, {"hands": [1]})
    await store.save_stage(OTHER, {"hands": []})
    await store.save_stage(ROOM, {"hands": [2, 3]})
    assert await store.load_stages() == {ROOM: {"hands": [2, 3]}, OTHER: {"hands": []}}
    await store.forget_stage(ROOM)
    await store.forget_stage(ROOM)
    assert await store.load_stages() == {OTHER: {"hands": []}}


async def test_cuts_come_back_in_their_order_until_dropped(store: DatabaseStore) -> None:
    for cut_id in ("z", "a", "m"):
        await store.add_cut(ROOM, cut_id, {"id": cut_id})
    await store.add_cut(ROOM, "z", {"id": "z", "again": True})
    assert [cut_id for _, cut_id, _ in await store.load_cuts()] == ["z", "a", "m"]
    await store.drop_cut("a")
    await store.drop_cut("a")
    assert list(await store.load_cuts()) == [(ROOM, "z", {"id": "z", "again": True}), (ROOM, "m", {"id": "m"})]


async def test_the_record_gives_the_newest_of_its_room(store: DatabaseStore) -> None:
    for n in range(5):
        await store.add_record(ROOM, STAGE, n, {"n": n})
    await store.add_record(OTHER, STAGE, 9, {"n": 9})
    assert list(await store.records(ROOM, 3)) == [{"n": 4}, {"n": 3}, {"n": 2}]
    assert list(await store.records(OTHER, 3)) == [{"n": 9}]


# -- links and values


async def test_a_link_opens_on_so_many_devices(store: DatabaseStore) -> None:
    opened = [await store.open_link("l", f"d{n}", 2**50, 3) for n in (1, 2, 3, 4, 1, 4, 3)]
    assert opened == [True, True, True, False, True, False, True]
    assert await store.open_link("other", "d4", 2**50, 3)


async def test_devices_that_come_at_once_do_not_pass_the_limit(store: DatabaseStore) -> None:
    opened = await asyncio.gather(*(store.open_link("l", f"d{n}", 2**50, 3) for n in range(12)))
    assert sum(opened) == 3


async def test_revocation_never_goes_back(store: DatabaseStore) -> None:
    assert await store.links_revoked_before(AVA, ROOM) == 0
    await store.revoke_links(AVA, ROOM, 2000)
    await store.revoke_links(AVA, ROOM, 1000)
    assert await store.links_revoked_before(AVA, ROOM) == 2000
    assert await store.links_revoked_before(AVA, OTHER) == 0


async def test_values_are_replaced(store: DatabaseStore) -> None:
    assert await store.get_value("k") is None
    await store.set_value("k", "1")
    await store.set_value("k", "2")
    assert await store.get_value("k") == "2"


# -- life


async def test_all_is_there_after_reopening(url: str) -> None:
    store = await open_store(url)
    await store.add_transaction("t", [event(1)], 5)
    await store.add_cut(ROOM, "c", {"x": 1})
    await store.close()
    await store.close()
    again = await open_store(url)
    try:
        assert await again.add_transaction("t", [event(1)], 5) == ()
        assert [row.event["event_id"] for row in await again.unapplied()] == ["$1"]
        assert list(await again.load_cuts()) == [(ROOM, "c", {"x": 1})]
    finally:
        await again.close()


async def test_closing_finishes_what_was_begun_and_refuses_more(url: str) -> None:
    store = await open_store(url)
    begun = [asyncio.ensure_future(store.add_transaction(f"t{n}", [event(n)], 1)) for n in range(20)]
    await asyncio.sleep(0)
    await store.close()
    assert [len(await each) for each in begun] == [1] * 20
    with pytest.raises(Unavailable, match="closed"):
        await store.get_value("k")
    again = await open_store(url)
    assert len(await again.unapplied()) == 20
    await again.close()


async def test_a_cancelled_caller_leaves_no_half_transaction(store: DatabaseStore) -> None:
    for n in range(20):
        task = asyncio.ensure_future(store.add_transaction(f"t{n}", [event(2 * n), event(2 * n + 1)], 1))
        for _ in range(n % 5):
            await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    await store.set_value("after", "yes")
    rows = [int(row.event["event_id"][1:]) // 2 for row in await store.unapplied()]
    assert all(rows.count(each) == 2 for each in rows)
    assert await store.get_value("after") == "yes"


async def test_a_failing_transaction_leaves_nothing(store: DatabaseStore, url: str) -> None:
    with pytest.raises(TypeError):
        await store.add_transaction("bad", [event(1), {"not json": object()}], 1)
    assert await store.unapplied() == []
    assert len(await store.add_transaction("bad", [event(1)], 1)) == 1


async def test_a_database_of_someone_else_is_refused(url: str) -> None:
    await (await open_store(url)).close()
    await raw(url, "UPDATE database_owner SET owner = 'other' RETURNING 1")
    with pytest.raises(ConfigError, match="database") as fault:
        await open_store(url)
    assert "secret" not in str(fault.value)


async def test_a_newer_schema_is_refused(url: str) -> None:
    await (await open_store(url)).close()
    await raw(url, "UPDATE eyvan_version SET version = 99 RETURNING 1")
    with pytest.raises(ConfigError, match="99"):
        await open_store(url)


@pytest.mark.parametrize(
    "bad",
    [
        "sqlite:///nowhere/at/all.db",
        "sqlite:////proc/eyvan.db",
        "sqlite:///",
        "postgres://eyvan:secret@127.0.0.1:9/none",
    ],
)
async def test_a_database_that_cannot_be_opened_is_one_line(bad: str) -> None:
    with pytest.raises(ConfigError) as fault:
        await open_store(bad)
    text = str(fault.value)
    assert text.startswith("database: ")
    assert "\n" not in text
    assert "secret" not in text


async def test_a_lost_server_is_unavailable_and_comes_back() -> None:
    with running_postgres() as server:
        store = await open_store(server.new_database())
        try:
            await store.set_value("k", "1")
            server.stop("immediate")
            with pytest.raises(Unavailable, match="database"):
                await store.set_value("k", "2")
            server.start()
            assert await _eventually(lambda: store.get_value("k")) == "1"
            await store.set_value("k", "3")
            assert await store.get_value("k") == "3"
        finally:
            await store.close()


async def _eventually(ask: Callable[[], Awaitable[Any]]) -> Any:
    """Ask until the pool has noticed that its old connections are gone."""
    for _ in range(20):
        try:
            return await ask()
        except Unavailable:
            continue
    return await ask()


# -- kill -9

_WRITER = """
import asyncio, sys
from bridge.store import open_store

def say(*words):
    sys.stdout.write(" ".join(map(str, words)) + "\\n")
    sys.stdout.flush()

async def main(url, start):
    store = await open_store(url)
    for row in await store.unapplied():  # as a bridge does at its start
        say("apply", row.event["event_id"])
        await store.mark_applied([row.row])
        say("marked", row.event["event_id"])
    for n in range(start, start + 100000):
        events = [{"event_id": f"${n}.{part}"} for part in range(3)]
        say("adding", n)
        rows = await store.add_transaction(f"t{n}", events, n)
        say("added", n)
        for row in rows:
            await store.add_cut("!r", row.event["event_id"], {"n": n})
            say("cut", row.event["event_id"])
            await store.mark_applied([row.row])
            say("marked", row.event["event_id"])

asyncio.run(main(sys.argv[1], int(sys.argv[2])))
"""


async def _write_until_killed(url: str, start: int, lines: int) -> list[list[str]]:
    """Run the writer, kill -9 after it has said ``lines`` lines; all that it said."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", _WRITER, url, str(start), stdout=subprocess.PIPE, cwd=Path(__file__).parents[2]
    )
    assert process.stdout
    said: list[list[str]] = []
    while len(said) < lines:
        line = await process.stdout.readline()
        assert line, "the writer died by itself"
        said.append(line.decode().split())
    os.kill(process.pid, signal.SIGKILL)
    # A kill can fall on any operation after the line that was read last; what was said meanwhile counts too.
    said += [
        line.decode().split() for line in (await process.stdout.read()).splitlines(keepends=True) if line[-1:] == b"\n"
    ]
    await process.wait()
    return said


async def test_kill_9_loses_nothing_committed_and_applies_nothing_twice(url: str) -> None:
    chance = random.Random(20240607)
    said: list[list[str]] = []
    start = 0
    for _ in range(5):
        said += await _write_until_killed(url, start, chance.randint(2, 40))
        start = max([int(line[1]) for line in said if line[0] == "adding"], default=-1) + 1
    added = {int(line[1]) for line in said if line[0] == "added"}
    marked = [line[1] for line in said if line[0] == "marked"]
    cut = {line[1] for line in said if line[0] == "cut"}
    assert added
    assert marked
    assert len(marked) == len(set(marked)), "applied twice"
    store = await open_store(url)
    try:
        waiting = [row.event["event_id"] for row in await store.unapplied()]
        assert not set(waiting) & set(marked), "marked, yet handed out again"
        kept = [row[0] for row in await raw(url, "SELECT event_id FROM eyvan_inbox ORDER BY row_id")]
        for n in added:
            for part in range(3):
                assert kept.count(f"${n}.{part}") == 1, "a committed row is lost or double"
            assert await store.add_transaction(f"t{n}", [{"event_id": "again"}], 1) == ()
        assert cut <= {cut_id for _, cut_id, _ in await store.load_cuts()}, "a committed cut is lost"
        whole = await raw(url, "SELECT count(*) FROM eyvan_inbox GROUP BY txn_id")
        assert set(whole) == {(3,)}, "half a transaction was kept"
    finally:
        await store.close()
