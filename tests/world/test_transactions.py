"""The homeserver's way in: kept once, answered after the commit, handed on in order."""

from __future__ import annotations

import asyncio
import json
import logging
import signal
import sqlite3
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from bridge.ids import RoomId
from bridge.live.ports import InboxRow, JsonObject
from bridge.matrix.incoming import MAX_WAITING, Incoming
from bridge.matrix.outgoing import Outgoing
from bridge.store import DatabaseStore, open_store
from tests.helpers.ports import free_port
from tests.helpers.synapse import (
    HANG_S,
    Delivered,
    Homeserver,
    WallClock,
    listening,
    serving,
    until,
)

TOKEN = "s3cret token"
ROOM = "!room:a.test"


class SteeredStore(DatabaseStore):
    """The real store, with a gate before the commit and a fault to throw once."""

    def __init__(self, real: DatabaseStore) -> None:
        super().__init__(real._database, real._now_ms)
        self.gate = asyncio.Event()
        self.gate.set()
        self.asked = 0
        self.fault: Exception | None = None

    async def add_transaction(self, txn_id: str, events: Sequence[JsonObject], received_ms: int) -> Sequence[Any]:
        self.asked += 1
        await self.gate.wait()
        if self.fault:
            fault, self.fault = self.fault, None
            raise fault
        return await super().add_transaction(txn_id, events, received_ms)


@dataclass
class Bench:
    """Incoming over a real store and a real socket; ``put`` is the homeserver."""

    incoming: Incoming
    store: SteeredStore
    delivered: Delivered
    http: aiohttp.ClientSession
    url: str

    async def put(self, txn: str, body: Any, path: str = "/_matrix/app/v1/transactions/") -> tuple[int, Any]:
        return await self.ask("PUT", path + txn, body, {"Authorization": f"Bearer {TOKEN}"})

    async def ask(self, method: str, path: str, body: Any, headers: dict[str, str]) -> tuple[int, Any]:
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        async with self.http.request(method, self.url + path, headers=headers, data=BytesIO(data)) as response:
            return response.status, await response.json()

    async def unapplied(self) -> list[str]:
        return [row.event.get("event_id", "") for row in await self.store.unapplied()]


@asynccontextmanager
async def make_bench(database: Path, **options: Any) -> AsyncIterator[Bench]:
    store = SteeredStore(await open_store(f"sqlite:///{database}"))
    delivered = Delivered()
    incoming = Incoming(TOKEN, store, delivered, WallClock(), **options)
    async with aiohttp.ClientSession() as http, listening(incoming, free_port()) as url:
        try:
            yield Bench(incoming, store, delivered, http, url)
        finally:
            store.gate.set()  # a test that failed with the gate shut must not hang the others
    await store.close()


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    async with make_bench(tmp_path / "inbox.db") as made:
        yield made


def event(event_id: str, **changes: Any) -> dict[str, Any]:
    whole = {
        "room_id": ROOM,
        "event_id": event_id,
        "type": "m.room.message",
        "sender": "@ava:a.test",
        "origin_server_ts": 1,
        "content": {"body": event_id},
    }
    return {name: value for name, value in (whole | changes).items() if value is not ...}


def txn(*ids: str) -> dict[str, Any]:
    return {"events": [event(one) for one in ids]}


# Order and once


async def test_events_are_handed_on_in_order_within_and_across_transactions(bench: Bench) -> None:
    expected = []
    for number in range(5):
        ids = [f"${number}.{place}" for place in range(20)]
        assert await bench.put(f"t{number}", txn(*ids)) == (200, {})
        expected += ids
    assert bench.delivered.ids() == expected
    assert bench.delivered.rows[0][1].event == event("$0.0")
    assert await bench.unapplied() == expected, "marking is the stage's task, not ours"


async def test_a_repeated_transaction_is_answered_and_not_handed_on_again(bench: Bench) -> None:
    for _ in range(3):
        assert await bench.put("same", txn("$1", "$2")) == (200, {})
    assert bench.delivered.ids() == ["$1", "$2"]
    assert bench.incoming.duplicates == 2


async def test_concurrent_duplicates_are_handled_once_and_answered_after_the_commit(bench: Bench) -> None:
    bench.store.gate.clear()
    puts = [asyncio.create_task(bench.put("same", txn("$1"))) for _ in range(4)]
    await until(lambda: bench.store.asked >= 1 and len(bench.incoming._tasks) == 4)
    assert bench.store.asked == 1, "one at a time"
    assert not any(put.done() for put in puts)
    assert bench.delivered.ids() == [], "nothing is handed on before the commit"
    bench.store.gate.set()
    assert await asyncio.gather(*puts) == [(200, {})] * 4
    assert bench.delivered.ids() == ["$1"]


async def test_too_many_transactions_at_once_are_refused(bench: Bench) -> None:
    bench.store.gate.clear()
    puts = [asyncio.create_task(bench.put(f"t{n}", txn(f"${n}"))) for n in range(MAX_WAITING)]
    await until(lambda: len(bench.incoming._tasks) == MAX_WAITING)
    status, answer = await bench.put("one more", txn("$more"))
    assert (status, answer["errcode"]) == (503, "M_LIMIT_EXCEEDED")
    bench.store.gate.set()
    assert await asyncio.gather(*puts) == [(200, {})] * MAX_WAITING


async def test_what_nobody_wants_is_not_kept_and_what_is_malformed_is_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = tmp_path / "inbox.db"
    async with make_bench(file, wanted=lambda event: event["content"].get("body") != "a secret") as bench:
        secret = event("$2", content={"body": "a secret"})
        odd = event("$odd", sender="nobody", content={"body": "a secret"})
        body = {"events": [event("$1"), secret, odd, event("$3")]}
        assert await bench.put("t1", body) == (200, {})
        assert await bench.put("t2", {"events": [secret]}) == (200, {})
        assert await bench.put("t1", body) == (200, {})
        assert bench.delivered.ids() == ["$1", "$3"]
        assert await bench.unapplied() == ["$1", "$3"]
        counts = bench.incoming.transactions, bench.incoming.duplicates, bench.incoming.malformed
        assert counts == (3, 1, 1)
        assert "$odd" in caplog.text
        with sqlite3.connect(file) as conn:
            rows = str(conn.execute("SELECT * FROM eyvan_inbox").fetchall())
        conn.close()
        assert "a secret" not in rows
        assert "$3" in rows


# Failures


async def test_a_store_that_fails_delivers_nothing_and_the_retry_delivers_once(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    bench.store.fault = OSError("disk full")
    status, answer = await bench.put("t", txn("$1"))
    assert (status, answer["errcode"]) == (503, "M_UNAVAILABLE")
    assert "disk full" in caplog.text
    assert "disk full" not in answer["error"]
    assert bench.delivered.ids() == []
    assert bench.incoming.last_transaction_ms is None
    assert await bench.put("t", txn("$1")) == (200, {})
    assert bench.delivered.ids() == ["$1"]
    assert bench.incoming.last_transaction_ms is not None


async def test_a_homeserver_that_hangs_up_does_not_part_commit_from_delivery(bench: Bench) -> None:
    bench.store.gate.clear()
    put = asyncio.create_task(bench.put("t", txn("$1")))
    await until(lambda: bench.store.asked == 1)
    put.cancel()
    await asyncio.gather(put, return_exceptions=True)
    bench.store.gate.set()
    await bench.delivered.wait_for("$1")


async def test_a_receiver_that_raises_loses_only_that_event(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    def deliver(room: RoomId, row: InboxRow) -> None:
        if row.event["event_id"] == "$2":
            raise ZeroDivisionError("a defect")
        bench.delivered(room, row)

    bench.incoming._deliver = deliver
    assert await bench.put("t", txn("$1", "$2", "$3")) == (200, {})
    assert bench.delivered.ids() == ["$1", "$3"]
    assert await bench.unapplied() == ["$1", "$3"]
    assert "$2" in caplog.text
    assert "a defect" in caplog.text


_DIES_AFTER_THE_COMMIT = """
import asyncio, os, signal, sys
from bridge.matrix.incoming import Incoming
from bridge.store import open_store
from tests.helpers.synapse import WallClock, listening

class Store:
    def __init__(self, real):
        self.real = real
    async def add_transaction(self, *args):
        rows = await self.real.add_transaction(*args)
        os.kill(os.getpid(), signal.SIGKILL)
        return rows

async def main():
    store = Store(await open_store(sys.argv[1]))
    incoming = Incoming("s3cret token", store, lambda room, row: print("DELIVERED", flush=True), WallClock())
    async with listening(incoming, int(sys.argv[2])):
        print("listening", flush=True)
        await asyncio.Event().wait()

asyncio.run(main())
"""


async def test_what_a_kill_left_between_commit_and_apply_is_replayed_once(tmp_path: Path) -> None:
    database, port = tmp_path / "inbox.db", free_port()
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        _DIES_AFTER_THE_COMMIT,
        f"sqlite:///{database}",
        str(port),
        stdout=asyncio.subprocess.PIPE,
        cwd=Path(__file__).parents[2],
    )
    assert process.stdout
    assert await asyncio.wait_for(process.stdout.readline(), HANG_S) == b"listening\n"
    body = {"events": [event("$1"), event("$2", sender=7), event("$3")]}
    async with aiohttp.ClientSession() as http:
        with pytest.raises(aiohttp.ClientError):
            await http.put(
                f"http://127.0.0.1:{port}/_matrix/app/v1/transactions/t",
                json=body,
                headers={"Authorization": f"Bearer {TOKEN}"},
            )
    assert await process.stdout.read() == b""
    assert await process.wait() == -signal.SIGKILL

    async with make_bench(database) as bench:
        assert await bench.incoming.replay() == 2
        assert bench.delivered.ids() == ["$1", "$3"]
        assert await bench.put("t", body) == (200, {}), "the homeserver repeats what was not answered"
        assert bench.delivered.ids() == ["$1", "$3"]
        assert await bench.unapplied() == ["$1", "$3"]


# Malformed input


@pytest.mark.parametrize(
    ("bad", "field"),
    [
        (event("$bad", room_id=...), "room_id"),
        (event("$bad", room_id="#alias:a.test"), "room_id"),
        (event("$bad") | {"event_id": 12}, "event_id"),
        (event("$bad", sender=["@ava:a.test"]), "sender"),
        (event("$bad", sender="ava"), "sender"),
        (event("$bad", type=""), "type"),
        (event("$bad", content="text"), "content"),
        (event("$bad", state_key=None), "state_key"),
        (["a list"], "event"),
        (None, "event"),
        ("text \0 \ud800", "event"),
    ],
)
async def test_a_malformed_event_is_skipped_and_the_others_act(
    bench: Bench, caplog: pytest.LogCaptureFixture, bad: Any, field: str
) -> None:
    body = {"events": [event("$1"), bad, event("$2")]}
    with caplog.at_level(logging.WARNING):
        assert await bench.put("t", body) == (200, {})
    assert bench.delivered.ids() == ["$1", "$2"]
    assert bench.incoming.malformed == 1
    assert await bench.unapplied() == ["$1", "$2"], "the bad one is not looked at again"
    (line,) = [record.getMessage() for record in caplog.records if record.name == "bridge.matrix.incoming"]
    assert f"field {field}: " in line
    if isinstance(bad, dict):
        assert repr(bad["event_id"]) in line
        assert repr(bad.get("room_id")) in line


@pytest.mark.parametrize(
    ("body", "errcode", "said"),
    [
        (b"", "M_NOT_JSON", "JSON"),
        (b"{'events': []}", "M_NOT_JSON", "JSON"),
        (b"\xff\xfe", "M_NOT_JSON", "JSON"),
        (b"[" * 100_000, "M_NOT_JSON", "JSON"),
        (b'{"events": ' + b"9" * 10_000 + b"}", "M_NOT_JSON", "JSON"),
        (b"{}", "M_BAD_JSON", "events"),
        (b'{"events": {}}', "M_BAD_JSON", "events"),
        (b"[]", "M_BAD_JSON", "events"),
    ],
)
async def test_a_body_that_is_no_transaction_is_refused(bench: Bench, body: bytes, errcode: str, said: str) -> None:
    status, answer = await bench.put("t", body)
    assert (status, answer["errcode"]) == (400, errcode)
    assert said in answer["error"]
    assert await bench.put("t", txn("$1")) == (200, {}), "a refused id is not used up"
    assert bench.delivered.ids() == ["$1"]


async def test_a_body_beyond_the_limit_is_refused(tmp_path: Path) -> None:
    async with make_bench(tmp_path / "inbox.db", max_body=10_000) as bench:
        status, answer = await bench.put("t", {"events": [event("$1", content={"body": "x" * 10_000})]})
        assert (status, answer["errcode"]) == (413, "M_TOO_LARGE")
        assert await bench.put("t", txn("$1")) == (200, {})


async def test_more_than_aiohttps_own_limit_of_a_mebibyte_is_taken(bench: Bench) -> None:
    big = [event(f"${n}", content={"body": "x" * 60_000}) for n in range(100)]
    assert await bench.put("t", {"events": big}) == (200, {})
    assert len(bench.delivered.rows) == 100


# Tokens and paths

_PATHS = [
    ("PUT", "/_matrix/app/v1/transactions/t"),
    ("PUT", "/transactions/t"),
    ("POST", "/_matrix/app/v1/ping"),
    ("GET", "/_matrix/app/v1/users/@x:a.test"),
    ("GET", "/users/@x:a.test"),
    ("GET", "/_matrix/app/v1/rooms/%23x:a.test"),
    ("GET", "/rooms/%23x:a.test"),
]


@pytest.mark.parametrize(("method", "path"), _PATHS)
@pytest.mark.parametrize(
    ("headers", "query", "expected"),
    [
        ({}, "", (401, "M_MISSING_TOKEN")),
        ({"Authorization": "Basic dTpw"}, "", (401, "M_MISSING_TOKEN")),
        ({"Authorization": "Bearer wrong"}, "", (403, "M_FORBIDDEN")),
        ({"Authorization": "Bearer سلام"}, "", (403, "M_FORBIDDEN")),
        ({}, "?access_token=wrong", (403, "M_FORBIDDEN")),
        ({"Authorization": "Bearer wrong"}, "?access_token=s3cret%20token", (403, "M_FORBIDDEN")),
    ],
)
async def test_without_the_right_token_nothing_is_answered(
    bench: Bench, method: str, path: str, headers: dict[str, str], query: str, expected: tuple[int, str]
) -> None:
    status, answer = await bench.ask(method, path + query, txn("$1"), headers)
    assert (status, answer["errcode"]) == expected
    assert bench.delivered.ids() == []
    assert TOKEN not in answer["error"]


async def test_old_servers_send_the_token_in_the_query_and_use_the_old_path(bench: Bench) -> None:
    status, _ = await bench.ask("PUT", "/transactions/t?access_token=s3cret%20token", txn("$1"), {})
    assert status == 200
    assert await bench.put("t", txn("$1")) == (200, {}), "one transaction by either path"
    assert bench.delivered.ids() == ["$1"]


async def test_a_ping_is_answered_and_nobody_is_made_on_demand(bench: Bench) -> None:
    headers = {"Authorization": f"bearer {TOKEN}"}
    assert await bench.ask("POST", "/_matrix/app/v1/ping", {"transaction_id": "x"}, headers) == (200, {})
    assert bench.incoming.last_ping_ms is not None
    for method, path in _PATHS[3:]:
        status, answer = await bench.ask(method, path, None, headers)
        assert (status, answer["errcode"]) == (404, "M_NOT_FOUND")
    status, answer = await bench.ask("GET", "/_matrix/app/v2/anything", None, headers)
    assert (status, answer["errcode"]) == (404, "M_UNRECOGNIZED")


async def test_close_joins_what_is_in_hand_and_is_harmless_twice(bench: Bench) -> None:
    bench.store.gate.clear()
    put = asyncio.create_task(bench.put("t", txn("$1")))
    await until(lambda: bench.store.asked == 1)
    closing = asyncio.create_task(bench.incoming.close())
    bench.store.gate.set()
    await closing
    assert bench.delivered.ids() == ["$1"]
    assert await put == (200, {})
    await bench.incoming.close()


# With a real homeserver


async def test_a_rooms_events_come_in_the_order_of_the_room(homeserver: Homeserver, tmp_path: Path) -> None:
    store = await open_store(f"sqlite:///{tmp_path / 'inbox.db'}")
    delivered = Delivered()
    incoming = Incoming(homeserver.registration.hs_token, store, delivered, WallClock())
    ava, bob = await homeserver.person("ava"), await homeserver.person("bob")
    async with listening(incoming, homeserver.registration.port):
        bot = homeserver.bot_client()
        room = await ava.create_room("order", invite=[bob.user, homeserver.bot])
        await asyncio.gather(bob.join(room), bot.join(room))
        await asyncio.gather(
            *(client.send(room, f"{n}") for n in range(8) for client in (ava, bob)),
            *(ava.put_state(room, "im.eyvan.role", f"_@u{n}:a.test", {"role": "speaker"}) for n in range(8)),
        )
        last = await ava.send(room, "last")
        row = await delivered.wait_for(last)
        assert row.event["sender"] == ava.user
        seen = [event["event_id"] for event in await ava.get_messages(room)]
        ours = delivered.ids(room)
        start = seen.index(ours[0])
        assert ours == seen[start:], "as the room's timeline has them"
        assert len(ours) >= 25
        await bot.close()
    await store.close()


async def test_a_ping_wakes_a_homeserver_that_has_backed_off(homeserver: Homeserver, tmp_path: Path) -> None:
    """Synapse waits 2, 4, 8, 16 … s after failures: after four of them, at least 16 s pass before the next try."""
    ava = await homeserver.person("ava")
    port = homeserver.registration.port
    refused = 0

    async def refuse(request: web.Request) -> web.Response:
        nonlocal refused
        refused += 1
        return web.Response(status=503)

    down = web.Application()
    down.add_routes([web.route("*", "/{rest:.*}", refuse)])
    async with serving(down, port):
        room = await ava.create_room("back-off", invite=[homeserver.bot])
        await until(lambda: refused >= 4)

    store = await open_store(f"sqlite:///{tmp_path / 'inbox.db'}")
    delivered = Delivered()
    incoming = Incoming(homeserver.registration.hs_token, store, delivered, WallClock())
    outgoing = Outgoing(homeserver.url, homeserver.registration.as_token, homeserver.bot, "eyvan", store)
    async with listening(incoming, port):
        assert await outgoing.ping() >= 0
        assert incoming.last_ping_ms is not None
        await until(lambda: len(delivered.ids(room)) > 0, 8)
    await outgoing.close()
    await store.close()
