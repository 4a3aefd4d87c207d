"""Hints and truth: what was heard, what was read back, and which reading settles which hint."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from bridge.rules import content as c
from bridge.rules import view as views
from bridge.rules.content import StateEvent
from bridge.rules.effects import Effect, ReadRoom, ReadState
from bridge.rules.hands import Step
from bridge.rules.room import Room
from bridge.rules.state import Heard, StageState

MAX_HINTS = 8
"""Unread hints kept for one place. The next ones are replaced by one that takes away all (see ``_SHUT``)."""

MAX_RECENT = 1024
"""Readings kept of single places, to be laid over a reading of the whole room that began earlier; the oldest go first,
and a whole reading older than one of them is asked for again."""

_SHUT: Mapping[str, Mapping[str, Any]] = {
    c.ROLE: {"role": "listener", "muted": True},
    c.POWER_LEVELS: {"users_default": 100},
    c.SERVER_ACL: {"deny": ["*"]},
}
"""Contents that take away all that their type can; for the others it is ``{}``."""

_FOR_EVERYBODY = (c.STAGE, c.POWER_LEVELS, c.CREATE, c.SERVER_ACL)


def take(state: StageState, event: StateEvent) -> Step:
    """A transaction holds ``event``. It acts where it takes away, and is read back."""
    if event.kind not in c.WATCHED:
        return state, []
    if event.kind == c.HAND and event.key != event.sender:
        return state, []  # anybody may be able to write such a key; only the person's own counts
    place = (event.kind, event.key)
    heard = state.heard + 1
    unread = (*state.hints.get(place, ()), Heard(heard, event))
    if len(unread) > MAX_HINTS:
        shut = replace(event, content=_SHUT.get(event.kind, {}))
        unread = (*unread[: MAX_HINTS - 1], Heard(heard, shut))
    feared, _ = views.apply(state.feared, *place, unread[-1].event)
    state = replace(state, heard=heard, hints={**state.hints, place: unread}, feared=feared)
    return _with_doubts(state), [ReadState(*place)]


def settle(state: StageState, place: tuple[str, str], event: StateEvent | None, heard: int) -> Step:
    """``event`` stood at ``place`` when ``heard`` things were heard. Returns ``state`` itself where a newer reading is
    known. Hints heard later stay, and are read once more."""
    known = state.recent.get(place)
    if known is not None and known.number > heard:
        return state, []
    room, bad = views.apply(state.room, *place, event)
    unread = tuple(hint for hint in state.hints.get(place, ()) if hint.number > heard)
    feared, _ = views.apply(state.feared, *place, unread[-1].event if unread else event)
    others = {p: each for p, each in state.hints.items() if p != place}
    state = replace(state, room=room, feared=feared, hints={**others, place: unread} if unread else others)
    state = _with_doubts(_remember(state, place, Heard(heard, event)))
    again: list[Effect] = [ReadState(*place)] if unread else []
    return state, [*bad, *again]


def _remember(state: StageState, place: tuple[str, str], read: Heard) -> StageState:
    recent = {p: each for p, each in state.recent.items() if p != place} | {place: read}
    forgotten = state.forgotten
    while len(recent) > MAX_RECENT:
        forgotten = max(forgotten, recent.pop(next(iter(recent))).number)
    return replace(state, recent=recent, forgotten=forgotten)


def settle_all(state: StageState, events: tuple[StateEvent, ...], heard: int) -> Step:
    """All ``events`` stood when ``heard`` things were heard. Returns ``state`` itself where too much was read since."""
    if heard < state.forgotten:
        return state, [ReadRoom()]
    room, bad = views.room_from(event for event in events if event.kind != c.HAND)
    newer = {place: read for place, read in state.recent.items() if read.number > heard}
    for place, read in newer.items():
        room, _ = views.apply(room, *place, read.event)
    kept = {place: tuple(h for h in unread if h.number > heard) for place, unread in state.hints.items()}
    kept = {place: unread for place, unread in kept.items() if unread}
    feared: Room = room
    for place, unread in kept.items():
        feared, _ = views.apply(feared, *place, unread[-1].event)
    state = replace(state, room=room, feared=feared, hints=kept, recent=newer, loaded=True)
    return _with_doubts(state), [*bad, *(ReadState(*place) for place in kept)]


def _with_doubts(state: StageState) -> StageState:
    doubts = tuple(
        views.apply(state.room, *place, hint.event)[0]
        for place in _FOR_EVERYBODY_PLACES
        for hint in state.hints.get(place, ())
    )
    return replace(state, doubts=doubts) if doubts or state.doubts else state


_FOR_EVERYBODY_PLACES = tuple((kind, "") for kind in _FOR_EVERYBODY)
