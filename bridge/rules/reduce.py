"""(state, input, now) → (state, effects): the whole etiquette of a stage. Pure and total.

The life of a stage::

               start (level for im.eyvan.stage)
      none ───────────────────────────────────────▶ live ──── end · nobody left to host ────▶ ended
       ▲                                              ▲                                          │
       └── the bot is kicked or leaves ── (any)       └────────────── start (new stage_id) ──────┘

The life of a grant and of a cut (decisions: a hint can only take away)::

      grant:  ask ─▶ write ─▶ [hint] ─▶ read back ─▶ gate opens
      cut:    ask ─▶ gate shuts ─▶ durable ─▶ write ─▶ accepted ─▶ read back ─▶ forgotten, state says it now
      state from any other client:   hint ─▶ (gate shuts if it takes away) ─▶ read back ─▶ gate as state says

What stands in room state is the truth, whoever wrote it and whenever: state has no age.
"""

from __future__ import annotations

from dataclasses import replace
from typing import assert_never

from bridge.errors import BadInput
from bridge.ids import EventId, UserId
from bridge.rules import content as c
from bridge.rules import requests
from bridge.rules import view as views
from bridge.rules.content import StateEvent
from bridge.rules.effects import (
    BadEvent,
    CloseStage,
    DropCut,
    Effect,
    Follow,
    Keep,
    ReadState,
    Tell,
    WriteState,
)
from bridge.rules.inputs import (
    Asked,
    CardPosted,
    Input,
    NotWritten,
    Present,
    Reacted,
    Redacted,
    Restored,
    RoomRead,
    StateHint,
    StateRead,
    Tick,
    Written,
)
from bridge.rules.requests import Step, queue_changed, raise_hand
from bridge.rules.state import WATCHED_BY_CUT, Cut, Hand, StageState


def reduce(state: StageState, happened: Input, now: int) -> Step:
    """What ``happened`` makes of ``state``. ``now``: ms since the epoch. Never raises."""
    match happened:
        case StateHint(event):
            return _hint(state, event)
        case StateRead(kind, key, event):
            return _read(state, kind, key, event, now)
        case RoomRead(events):
            return _room_read(state, events, now)
        case Restored():
            return _restored(state, happened)
        case Redacted():
            return _redacted(state, happened, now)
        case Reacted(target, sender, event_id):
            if target != state.card:
                return state, []
            ask = Asked(sender, "raise", "reaction", event_id=event_id)
            return requests.asked(state, ask, now)
        case Asked():
            return requests.asked(state, happened, now)
        case Written(write_id, event_id):
            return _written(state, write_id, event_id)
        case NotWritten(write_id, why):
            return _not_written(state, write_id, why)
        case Present(user, change):
            count = state.present.get(user, 0) + change
            present = {u: n for u, n in state.present.items() if u != user} | ({user: count} if count > 0 else {})
            return replace(state, present=present), []
        case CardPosted(event_id):
            return replace(state, card=event_id), [Keep()]
        case Tick():
            return _tick(state, now)
        case _:
            assert_never(happened)


# -- hints and truth ----------------------------------------------------------------------------


def _hint(state: StageState, event: StateEvent) -> Step:
    if event.kind not in c.WATCHED:
        return state, []
    if event.kind == c.HAND and event.key != event.sender:
        return state, []  # anybody may be able to write such a key; only the person's own counts
    place = (event.kind, event.key)
    before = state.hints.get(place)
    if before is not None and event.kind == c.ROLE and _takes_more(before, event):
        event = before
    state = _with_feared(replace(state, hints={**state.hints, place: event}))
    return state, [ReadState(event.kind, event.key)]


def _takes_more(a: StateEvent, b: StateEvent) -> bool:
    """Of two hints about one key, not yet read back, the one that takes away more stays."""

    def openness(event: StateEvent) -> int:
        try:
            role = c.parse_role_content(event.content)
        except BadInput:
            role = None
        return 0 if role is None or role.role == "listener" else 1 if role.muted else 2

    return openness(a) < openness(b)


def _with_feared(state: StageState) -> StageState:
    feared = state.room
    for (kind, key), event in state.hints.items():
        feared, _ = views.apply(feared, kind, key, event)
    return replace(state, feared=feared)


def _read(state: StageState, kind: str, key: str, event: StateEvent | None, now: int) -> Step:
    before = state
    room, bad = views.apply(state.room, kind, key, event)
    hints = {place: hint for place, hint in state.hints.items() if place != (kind, key)}
    state = _with_feared(replace(state, room=room, hints=hints))
    effects: list[Effect] = list(bad)
    state, dropped = _settle_cuts(state, kind, key, event)
    effects += dropped
    if kind == c.HAND:
        state, more = _hand_state(state, event, now)
        effects += more
    state, more = _follow_up(before, state, now)
    return state, effects + more


def _room_read(state: StageState, events: tuple[StateEvent, ...], now: int) -> Step:
    before = state
    room, bad = views.room_from(event for event in events if event.kind != c.HAND)
    state = replace(state, room=room, feared=room, hints={}, loaded=True)
    effects: list[Effect] = list(bad)
    for cut in list(state.cuts.values()):
        kind, key = _place_of(cut)
        standing = next((e for e in events if e.kind == kind and e.key == key), None)
        state, dropped = _settle_cuts(state, kind, key, standing)
        effects += dropped
    for event in sorted(events, key=lambda e: (e.ts, e.event_id)):
        if event.kind == c.HAND and event.key == event.sender:
            state, more = _hand_state(state, event, now)
            effects += more
    state, more = _follow_up(before, state, now)
    return state, effects + more


def _place_of(cut: Cut) -> tuple[str, str]:
    kind = WATCHED_BY_CUT[cut.kind]
    key = "" if cut.kind == "end" else str(cut.user) if cut.kind == "kick" else f"_{cut.user}"
    return kind, key


def _settle_cuts(state: StageState, kind: str, key: str, event: StateEvent | None) -> Step:
    """A cut whose write was accepted is over once its place was read back after that: state says it now.
    One that could not be written gives way only to a newer event than the one it was aimed at."""
    here = [cut for cut in state.cuts.values() if _place_of(cut) == (kind, key)]
    found = event.event_id if event else None
    over = {cut.cut_id for cut in here if cut.written or (cut.failed and found is not None and found != cut.seen)}
    if not over:
        return state, []
    cuts = {cut_id: cut for cut_id, cut in state.cuts.items() if cut_id not in over}
    return replace(state, cuts=cuts), [DropCut(cut_id) for cut_id in sorted(over)]


def _hand_state(state: StageState, event: StateEvent | None, now: int) -> Step:
    """A person's own ``im.eyvan.hand`` state event, where the room's power levels allow it."""
    if event is None or event.key != event.sender:
        return state, []
    user = UserId(event.sender)
    if state.hand_events.get(user) == event.event_id:
        return state, []
    try:
        raised, note = c.parse_hand(event.content)
    except BadInput as bad:
        return state, [BadEvent(event.event_id, event.kind, str(bad))]
    state = replace(state, hand_events={**state.hand_events, user: event.event_id})
    if raised and not requests.why_no_hand(state, user):
        return raise_hand(state, Hand(user, now, "event", note, event.event_id))
    if not raised and state.hand_of(user):
        return requests.lower_hand(state, user)
    return state, [Keep()]


def _follow_up(before: StageState, state: StageState, now: int) -> Step:
    """What a change of the room's truth brings with it, whoever made it."""
    effects: list[Effect] = []
    room, old = state.room, before.room
    if old.live and old.stage and (not room.live or room.stage is None or room.stage.stage_id != old.stage.stage_id):
        effects.append(CloseStage(old.stage.stage_id))
        state = replace(state, hands=(), invitations={}, hand_events={}, card=None, empty_since=None)
        state, dropped = _drop_stage_cuts(state, old.stage.stage_id)
        effects += [*dropped, Keep()]
    gone = [hand.user for hand in state.hands if requests.hand_is_over(state, hand.user)]
    if gone:
        state = replace(state, hands=tuple(hand for hand in state.hands if hand.user not in gone))
        state, more = queue_changed(state)
        effects += more
    stale = {u for u in state.invitations if state.room.place(u) == "stage" or not state.room.may_be_here(u)}
    if stale:
        kept = {u: by for u, by in state.invitations.items() if u not in stale}
        state = replace(state, invitations=kept)
        effects.append(Keep())
    effects += _told(before, state)
    if room.successor and room.successor != old.successor:
        effects.append(Follow(room.successor))
    state, more = _host(state, now)
    return state, effects + more


def _drop_stage_cuts(state: StageState, stage_id: str) -> Step:
    over = [cut.cut_id for cut in state.cuts.values() if cut.stage_id == stage_id and (cut.written or cut.failed)]
    cuts = {cut_id: cut for cut_id, cut in state.cuts.items() if cut_id not in over}
    return replace(state, cuts=cuts), [DropCut(cut_id) for cut_id in over]


def _told(before: StageState, state: StageState) -> list[Effect]:
    """Each person whose place or voice changed is told, by whoever the event says did it."""
    if not (before.loaded and before.room.live and state.room.live) or before.room.roles is state.room.roles:
        return []
    told: list[Effect] = []
    for user in set(before.room.roles) | set(state.room.roles):
        grant = state.room.roles.get(user)
        if grant == before.room.roles.get(user):
            continue
        by = state.bot
        if grant is not None:  # ``by`` is believed from the bot alone
            by = (grant.content.by or state.bot) if grant.sender == state.bot else UserId(grant.sender)
        was, now_on = before.room.place(user), state.room.place(user)
        if was != now_on:
            told.append(Tell(user, "to_stage" if now_on == "stage" else "to_audience", by))
        elif before.room.muted(user) != state.room.muted(user) and now_on == "stage":
            told.append(Tell(user, "muted" if state.room.muted(user) else "unmuted", by))
    return told


def _host(state: StageState, now: int) -> Step:
    """The host leaving does not end the stage: the moderator longest on stage is host, else a stage with nobody
    left to host it ends after a grace."""
    stage = state.room.stage
    if not state.live or stage is None or stage.bot not in (None, state.bot):
        return replace(state, empty_since=None) if state.empty_since is not None else state, []
    if stage.host and state.room.may_be_here(stage.host):
        return replace(state, empty_since=None) if state.empty_since is not None else state, []
    heirs = [u for u in state.speakers() if u != stage.host]
    heir = next((u for u in heirs if state.has_authority(u)), heirs[0] if heirs else None)
    if heir is None:
        return replace(state, empty_since=state.empty_since or now), []
    state, write_id = requests.next_id(state, now)
    content = c.stage_content(replace(stage, host=heir))
    return replace(state, empty_since=None), [WriteState(write_id, c.STAGE, "", content)]


def _tick(state: StageState, now: int) -> Step:
    stage = state.room.stage
    over = state.empty_since is not None and now - state.empty_since >= state.policy.empty_grace_ms
    if not over or stage is None or not state.live:
        return state, []
    return requests.end_stage(replace(state, empty_since=None), state.bot, "event", now)


# -- after a crash; writes ----------------------------------------------------------------------


def _restored(state: StageState, kept: Restored) -> Step:
    """Cuts that were durable and may not be in state act from the first moment, and are written (again)."""
    cuts = {cut.cut_id: replace(cut, written=None, failed=False) for cut in kept.cuts}
    state = replace(
        state,
        hands=kept.hands,
        invitations=dict(kept.invitations or {}),
        hand_events=dict(kept.hand_events or {}),
        card=kept.card,
        seq=max(state.seq, kept.seq),
        cuts={**state.cuts, **cuts},
    )
    return state, []


def rewrite_cuts(state: StageState) -> list[Effect]:
    """Effects that write down every cut that state may not hold; for after start-up, when the room was read."""
    return [requests.write_of_cut(state, cut) for cut in state.cuts.values() if cut.written is None]


def _written(state: StageState, write_id: str, event_id: EventId | None) -> Step:
    cut = state.cuts.get(write_id)
    if cut is None:
        write = state.writes.get(write_id)
        state = replace(state, writes={w: v for w, v in state.writes.items() if w != write_id})
        again: list[Effect] = []
        if write and write.act in _READ_AFTER:
            again = [ReadState(c.STAGE, "")] if write.target is None else [ReadState(c.ROLE, f"_{write.target}")]
        return state, again
    done = replace(cut, written=event_id or EventId("$kick"), failed=False)
    kind, key = _place_of(cut)
    return replace(state, cuts={**state.cuts, write_id: done}), [ReadState(kind, key)]


_READ_AFTER = {"start", "topic", "bring_up", "accept", "make_moderator", "unmute"}
"""Read back as soon as the write returned: sooner than the homeserver's transaction, and no loss where none comes."""


def _not_written(state: StageState, write_id: str, why: str) -> Step:
    cut = state.cuts.get(write_id)
    if cut is not None:
        failed = replace(cut, failed=True)
        told = Tell(cut.by, "cut_not_written", state.bot, by_chat=True)
        return replace(state, cuts={**state.cuts, write_id: failed}), [told]
    write = state.writes.get(write_id)
    if write is None:
        return state, [BadEvent("", write_id, f"could not be written: {why}")]
    state = replace(state, writes={w: v for w, v in state.writes.items() if w != write_id})
    return state, [Tell(write.by, "not_written", state.bot, by_chat=True)]


def _redacted(state: StageState, gone: Redacted, now: int) -> Step:
    """A reaction taken away lowers the hand it raised. A redacted state event counts as ``{}``: read it again."""
    hand = next((h for h in state.hands if h.event_id == gone.event_id), None)
    if hand is not None:
        return requests.lower_hand(state, hand.user)
    for user, grant in state.room.roles.items():
        if grant.event_id == gone.event_id:
            return state, [ReadState(c.ROLE, f"_{user}")]
    if gone.event_id == state.room.stage_event:
        return state, [ReadState(c.STAGE, "")]
    return state, []
