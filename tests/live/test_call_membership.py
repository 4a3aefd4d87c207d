"""The bot's call membership follows the stage: written, renewed before it expires, emptied, also over a restart."""

from __future__ import annotations

from typing import Any

import pytest

from bridge.errors import MatrixRefused
from bridge.matrix.matrixrtc import EXPIRES_MS, KIND, REFRESH_MS, CallMembership, state_key
from tests.helpers.fakes import ADMIN, BOT, ROOM, FakeMatrix, HandClock, House, levels, until

SERVICE = "https://stage.a.org/livekit"


def membership(house: House) -> CallMembership:
    return CallMembership(BOT, SERVICE, house.rooms, house.matrix, house.clock, "en")


def stands(matrix: FakeMatrix) -> dict[str, Any]:
    return dict(matrix.rooms[ROOM].content(KIND, state_key(BOT)))


def good_until(matrix: FakeMatrix) -> int:
    content = stands(matrix)
    return int(content["created_ts"] + content["expires"])


async def test_follows_the_stage(house: House, matrix: FakeMatrix, clock: HandClock) -> None:
    call = membership(house)
    await call.look()
    assert not stands(matrix)
    stage_id = await house.live()
    await call.look()
    focus = stands(matrix)["foci_preferred"][0]
    assert focus == {"type": "livekit", "livekit_service_url": SERVICE, "livekit_alias": ROOM}
    assert good_until(matrix) == clock.now_ms() + EXPIRES_MS
    writes = len([each for each in matrix.calls if each[0] == "write_state" and each[1][1] == KIND])
    await call.look()
    assert len([each for each in matrix.calls if each[0] == "write_state" and each[1][1] == KIND]) == writes
    created = stands(matrix)["created_ts"]
    clock.advance(REFRESH_MS / 1000 + 1)
    await call.look()
    assert good_until(matrix) == clock.now_ms() + EXPIRES_MS
    assert stands(matrix)["created_ts"] == created, "renewed, not begun anew"
    matrix.message(ADMIN, "!stage end")
    await until(lambda: not house.stage().state.live, "the end")
    await call.look()
    assert not stands(matrix)
    assert await house.live() != stage_id
    await call.look()
    assert stands(matrix)


async def test_what_an_earlier_run_left_is_emptied(house: House, matrix: FakeMatrix) -> None:
    matrix.put(BOT, KIND, state_key(BOT), {"application": "m.call"})
    await membership(house).look()
    assert not stands(matrix)


async def test_no_call_in_an_encrypted_room(house: House, matrix: FakeMatrix) -> None:
    await house.live()
    call = membership(house)
    await call.look()
    assert stands(matrix)
    matrix.put(ADMIN, "m.room.encryption", "", {"algorithm": "m.megolm.v1.aes-sha2"})
    await until(lambda: house.stage().state.room.encrypted, "encryption")
    await call.look()
    assert not stands(matrix)


async def test_a_write_that_fails_is_made_again(house: House, matrix: FakeMatrix, clock: HandClock) -> None:
    async def refuse(_: str, args: tuple[Any, ...]) -> None:
        if args[1] == KIND:
            raise MatrixRefused("M_FORBIDDEN", 403, "no")

    await house.live()
    matrix.before["write_state"] = refuse
    call = membership(house)
    await call.look()
    assert not stands(matrix)
    del matrix.before["write_state"]
    await call.look()
    assert not stands(matrix), "not at once"
    clock.advance(31)
    await call.look()
    assert stands(matrix)


@pytest.mark.parametrize(("level", "said"), [(50, 1), (0, 0)])
async def test_the_admin_is_told_what_to_do_once(house: House, matrix: FakeMatrix, level: int, said: int) -> None:
    matrix.put(ADMIN, "m.room.power_levels", "", levels(events={KIND: level}))
    await house.live()
    await until(lambda: house.stage().state.room.power.for_state(KIND) == level, "power levels")
    for _ in range(2):  # the second is another run
        await membership(house).look()
    assert len([text for text in matrix.said() if KIND in text]) == said


async def test_runs_until_closed(house: House, matrix: FakeMatrix) -> None:
    call = membership(house)
    call.start()
    await house.live()
    await until(lambda: stands(matrix), "the membership")
    await call.close()
    await call.close()
    assert stands(matrix), "a bridge that stops is back in a moment"
