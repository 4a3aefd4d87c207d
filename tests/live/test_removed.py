"""Who is removed, and comes back; and what else the room is told that nobody asked for."""

from __future__ import annotations

import pytest

from bridge.errors import Full
from bridge.ids import UserId
from bridge.live.stage import MAX_SEATS
from bridge.rules.content import ROLE
from tests.helpers.fakes import ADMIN, AVA, BEN, ROOM, House, until


async def left(house: House, user: str) -> None:
    await until(lambda: house.matrix.rooms[ROOM].membership(user) in ("leave", "ban"), "membership ends")
    await house.quiet()


async def back(house: House, user: UserId) -> None:
    """The room is public: they join again, and take a seat as soon as the stage knows."""
    house.matrix.member(user, user, "join")
    await until(lambda: house.stage().state.may_hear(user), "they are in the room again")
    await house.seat(user)
    await house.quiet()


@pytest.mark.parametrize("how", ["!stage kick", "kick", "ban"])
async def test_a_removed_speaker_who_comes_back_is_in_the_audience(house: House, how: str) -> None:
    await house.live()
    await house.on_air(AVA)
    if how.startswith("!"):
        house.matrix.message(ADMIN, f"{how} {AVA}")
    else:
        house.matrix.member(ADMIN, AVA, "leave" if how == "kick" else "ban")
    await left(house, AVA)
    if how == "ban":
        house.matrix.member(ADMIN, AVA, "leave")
        await house.quiet()
    await back(house, AVA)
    assert not house.media.heard(AVA), "heard again without anybody's word"
    role = house.matrix.rooms[ROOM].state[ROLE, f"_{AVA}"]["content"]
    assert (role["role"], role["by"]) == ("listener", ADMIN), "on record in the room"


async def test_who_leaves_of_oneself_keeps_the_role(house: House) -> None:
    await house.live()
    await house.on_air(AVA)
    house.matrix.member(AVA, AVA, "leave")
    await left(house, AVA)
    assert not house.media.heard(AVA)
    await back(house, AVA)
    await until(lambda: house.media.heard(AVA), "nobody took the role")


async def test_links_end_with_the_membership(house: House) -> None:
    await house.live()
    assert await house.store.links_revoked_before(AVA, ROOM) == 0
    house.matrix.member(AVA, AVA, "leave")
    await left(house, AVA)

    async def revoked() -> bool:
        return bool(await house.store.links_revoked_before(AVA, ROOM) == house.clock.now_ms())

    for _ in range(100):
        if await revoked():
            break
        await house.quiet()
    assert await revoked()
    assert await house.store.links_revoked_before(BEN, ROOM) == 0


async def test_a_kick_of_somebody_who_is_not_here_says_so(house: House) -> None:
    await house.live()
    house.matrix.message(ADMIN, "!stage kick @nobody:x.org")
    await until(lambda: any("not in this room" in said for said in house.matrix.said()), "an answer", house.matrix.said)
    assert not any("removed" in said for said in house.matrix.said())


async def test_a_live_room_that_turns_encrypted_is_told(house: House) -> None:
    await house.live()
    await until(lambda: any("Live" in said for said in house.matrix.said()), "the card")
    house.matrix.put(ADMIN, "m.room.encryption", "", {"algorithm": "m.megolm.v1.aes-sha2"})
    await until(lambda: any("end-to-end encrypted now" in said for said in house.matrix.said()), "the room is told")


async def test_one_person_cannot_take_every_place(house: House) -> None:
    await house.live()
    pages = [await house.seat(AVA) for _ in range(MAX_SEATS)]
    with pytest.raises(Full, match="many times"):
        await house.seat(AVA)
    await house.seat(BEN)
    assert len(pages) == MAX_SEATS
