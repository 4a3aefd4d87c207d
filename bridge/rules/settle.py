"""When a cut is over: what a reading of its place says about it."""

from __future__ import annotations

from dataclasses import replace

from bridge.ids import UserId
from bridge.rules.content import StateEvent
from bridge.rules.effects import DropCut, Effect
from bridge.rules.state import Cut, StageState

Place = tuple[str, str]


def settle_cuts(
    state: StageState, place: Place, event: StateEvent | None, heard: int
) -> tuple[StageState, list[Effect]]:
    """``event`` was read at ``place`` by a reading that began when ``heard`` things were heard."""
    here = [cut for cut in state.cuts.values() if cut.place == place]
    over = [cut for cut in here if _is_settled(cut, event, heard)]
    # what stood there while a cut is under way is not the newer word that ends it, should it fail
    found = event.event_id if event else None
    seen = {cut.cut_id: replace(cut, seen=found) for cut in here if not cut.failed and cut not in over}
    return drop(replace(state, cuts={**state.cuts, **seen}), over) if here else (state, [])


def _is_settled(cut: Cut, event: StateEvent | None, heard: int) -> bool:
    if cut.written:  # its event came back, or what came after it
        return heard >= cut.settles or (event is not None and event.event_id == cut.written)
    if not cut.failed or cut.kind not in ("mute", "to_audience") or event is None:
        return False
    return heard >= cut.settles and event.event_id != cut.seen  # somebody gave a newer role


def drop_void(state: StageState) -> tuple[StageState, list[Effect]]:
    """Cuts whose aim is reached or gone: the stage is over or another, the person left the room. Waits
    for a first whole reading."""
    if not state.loaded:
        return state, []
    return drop(state, [cut for cut in state.cuts.values() if _is_void(state, cut)])


def _is_void(state: StageState, cut: Cut) -> bool:
    if cut.kind == "kick":
        member = state.room.members.get(cut.user or UserId(""))
        return member is None or not member.joined
    return not state.room.live or not state.concerns(cut)


def drop(state: StageState, over: list[Cut]) -> tuple[StageState, list[Effect]]:
    gone = {cut.cut_id for cut in over}
    cuts = {cut_id: cut for cut_id, cut in state.cuts.items() if cut_id not in gone}
    return replace(state, cuts=cuts), [DropCut(cut.cut_id) for cut in over]
