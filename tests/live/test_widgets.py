"""The widget follows the stage, and is written no more often than it changes: each event asks viewers for consent."""

from __future__ import annotations

from typing import Any

import pytest

from bridge.errors import MatrixRefused
from bridge.matrix.widgets import KIND, LAYOUT, WIDGET, StageWidgets, can_be_shown, with_place
from bridge.rules.content import STAGE
from tests.helpers.fakes import ADMIN, BOT, MOD, ROOM, FakeMatrix, HandClock, House, levels, until

URL = "https://stage.a.org/live"


def widgets(house: House, **more: Any) -> StageWidgets:
    return StageWidgets(BOT, URL, house.rooms, house.matrix, house.clock, "en", **more)


def stands(matrix: FakeMatrix) -> dict[str, Any]:
    return dict(matrix.rooms[ROOM].content(KIND, WIDGET))


def writes(matrix: FakeMatrix, kind: str = KIND) -> int:
    return len([each for each in matrix.calls if each[0] == "write_state" and each[1][1] == kind])


async def end(house: House) -> None:
    house.matrix.message(ADMIN, "!stage end")
    await until(lambda: not house.stage().state.live, "the end")


async def test_follows_the_stage(house: House, matrix: FakeMatrix) -> None:
    made = widgets(house)
    await made.look()
    assert not matrix.calls or not writes(matrix)
    await house.live()
    await made.look()
    await made.look()
    content = stands(matrix)
    assert (content["id"], content["type"], content["creatorUserId"]) == (WIDGET, "m.custom", BOT)
    assert content["url"].startswith(
        f"{URL}/s/widget#room=$matrix_room_id&theme=$org.matrix.msc2873.client_theme&lang="
    )
    assert content["waitForIframeLoad"] is False
    assert matrix.rooms[ROOM].content(LAYOUT)["widgets"][WIDGET]["container"] == "top"
    assert (writes(matrix), writes(matrix, LAYOUT)) == (1, 1)
    await widgets(house).look()  # a bridge that was killed finds it in place
    assert writes(matrix) == 1
    await end(house)
    await made.look()
    await made.look()
    assert not stands(matrix)
    assert writes(matrix) == 2
    await house.live()
    await made.look()
    assert stands(matrix) == content
    assert writes(matrix, LAYOUT) == 1, "how people arranged the room is left alone"
    await end(house)
    await widgets(house).look()  # one that was left by a bridge that was killed
    assert not stands(matrix)


async def test_it_has_the_language_of_its_stage(house: House, matrix: FakeMatrix) -> None:
    stage_id = await house.live()
    stage = {**matrix.rooms[ROOM].content(STAGE), "language": "fa"}
    matrix.put(ADMIN, STAGE, "", stage)
    await until(lambda: (s := house.stage().state.stage) is not None and s.language == "fa", "the language")
    made = widgets(house)
    await made.look()
    assert stands(matrix)["name"] == "نشست زنده"
    matrix.put(ADMIN, STAGE, "", {**stage, "language": "en"})
    await until(lambda: (s := house.stage().state.stage) is not None and s.language == "en", "another")
    await made.look()
    assert (writes(matrix), house.stage().stage_id) == (1, stage_id), "nobody is asked for consent again for its name"


async def test_a_moderator_who_takes_it_away_is_heeded(house: House, matrix: FakeMatrix) -> None:
    made = widgets(house)
    await house.live()
    await made.look()
    matrix.put(MOD, KIND, WIDGET, {})
    await made.look()
    await widgets(house).look()  # nor after a restart
    assert not stands(matrix)
    await end(house)
    await made.look()
    await house.live()
    await made.look()
    assert stands(matrix), "the next stage has one"


@pytest.mark.parametrize("kind", [KIND, LAYOUT])
async def test_a_bot_without_the_power_for_it_writes_nothing(house: House, matrix: FakeMatrix, kind: str) -> None:
    matrix.put(ADMIN, "m.room.power_levels", "", levels(events={kind: 51}))
    await house.live()
    said = len(matrix.said(ROOM))
    await widgets(house).look()
    assert writes(matrix, kind) == 0
    assert bool(stands(matrix)) == (kind == LAYOUT)
    assert len(matrix.said(ROOM)) == said


async def test_a_refusal_is_not_repeated_at_once(house: House, matrix: FakeMatrix, clock: HandClock) -> None:
    async def refuses(_: str, args: tuple[Any, ...]) -> None:
        if args[1] == KIND:
            raise MatrixRefused("M_FORBIDDEN", 403, "no")

    await house.live()
    matrix.before["write_state"] = refuses
    made = widgets(house)
    await made.look()
    await made.look()
    assert writes(matrix) == 1
    matrix.before.clear()
    clock.advance(31)
    await made.look()
    assert stands(matrix)


def test_a_place_beside_others() -> None:
    other = {"container": "top", "index": 0, "width": 60, "height": 30}
    assert with_place({}) == {"widgets": {WIDGET: {"container": "top", "index": 0, "width": 100, "height": 45}}}
    both = with_place({"widgets": {"jitsi": other}, "more": 1})
    assert both == {"widgets": {"jitsi": other, WIDGET: {"container": "top", "index": 1, "height": 45}}, "more": 1}
    assert with_place(both) is None
    assert with_place({"widgets": {str(n): other for n in range(3)}}) is None
    assert with_place({"widgets": {"big": {"container": "center"}}}) is None
    assert with_place({"widgets": {WIDGET: {"container": "right"}}}) is None, "somebody moved it"
    for junk in ({"widgets": 7}, {"widgets": {"x": None}}, {"widgets": [1]}):
        assert with_place(junk) is not None


def test_where_clients_could_show_it() -> None:
    for good in (
        "https://a.example",
        "http://localhost:8480",
        "http://127.0.0.1:1",
        "http://[::1]:1",
        "https://10.0.0.1",
    ):
        assert can_be_shown(good), good
    for bad in ("http://a.example", "http://192.0.2.2:8480", "http://10.0.0.1"):
        assert not can_be_shown(bad), bad
