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
from bridge.ids import EventId, StageId, UserId, role_key
from bridge.rules import content as c
from bridge.rules import hands, hints, requests, settle
from bridge.rules.content import StateEvent
from bridge.rules.effects import (
    Announce,
    BadEvent,
    CloseStage,
    Effect,
    Follow,
    Keep,
    PostCard,
    ReadState,
    RevokeLinks,
    Tell,
)
from bridge.rules.hands import Step
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
from bridge.rules.may import author
from bridge.rules.state import Hand, StageState

__all__ = ["reduce", "rewrite_cuts"]


def reduce(state: StageState, happened: Input, now: int) -> Step:
    """What ``happened`` makes of ``state``. ``now``: ms since the epoch. Never raises."""
    match happened:
        case StateHint(event):
            return hints.take(state, event)
        case StateRead():
            return _read(state, happened, now)
        case RoomRead():
            return _room_read(state, happened, now)
        case Restored():
            return _restored(state, happened)
        case Redacted():
            return _redacted(state, happened)
        case Reacted(target, sender, event_id, act):
            if target != state.card:
                return state, []
            ask = Asked(sender, act, "reaction", event_id=event_id)
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
        case _:  # pragma: no cover: mypy proves that there is none
            assert_never(happened)


# -- hints and truth ----------------------------------------------------------------------------


def _read(state: StageState, read: StateRead, now: int) -> Step:
    before, place = state, (read.kind, read.key)
    heard = state.heard if read.heard is None else read.heard
    state, effects = hints.settle(state, place, read.event, heard)
    if state is before:
        return state, []  # a newer answer came before this one
    state, dropped = settle.settle_cuts(state, place, read.event, heard)
    effects += dropped
    if read.kind == c.HAND:
        state, more = _hand_state(state, read.event, now)
        effects += more
    state, more = _follow_up(before, state, now)
    return state, effects + more


def _room_read(state: StageState, read: RoomRead, now: int) -> Step:
    before = state
    heard = state.heard if read.heard is None else read.heard
    state, effects = hints.settle_all(state, read.events, heard)
    if state is before:
        return state, effects
    standing = {(event.kind, event.key): event for event in read.events}
    for place in sorted({cut.place for cut in state.cuts.values()} - state.recent.keys()):
        # what was read by itself since has settled what it could
        state, dropped = settle.settle_cuts(state, place, standing.get(place), heard)
        effects += dropped
    for event in sorted(read.events, key=lambda e: (e.ts, e.event_id)):
        if event.kind == c.HAND and (event.kind, event.key) not in state.recent:
            state, more = _hand_state(state, event, now)
            effects += more
    state, more = _follow_up(before, state, now)
    state, queue = hands.queue_as_read(state, standing.get((c.QUEUE, "")))
    return state, effects + more + queue


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
    if raised and not hands.why_no_hand(state, user):
        return hands.raise_hand(state, Hand(user, now, "event", note, event.event_id))
    if not raised and state.hand_of(user):
        return hands.lower_hand(state, user)
    return state, [Keep()]


def _follow_up(before: StageState, state: StageState, now: int) -> Step:
    """What a change of the room's truth brings with it, whoever made it."""
    state, effects = _turn_over(before, state)
    state, dropped = settle.drop_void(state)
    effects += dropped
    over = [hand.user for hand in state.hands if hands.hand_is_over(state, hand.user)]
    if over:
        state = replace(state, hands=tuple(hand for hand in state.hands if hand.user not in over))
        state, more = hands.queue_changed(state)
        effects += more
    stale = {u for u in state.invitations if state.stays_up(u) or not state.room.may_be_here(u)}
    if stale:
        state = replace(state, invitations={u: by for u, by in state.invitations.items() if u not in stale})
        effects.append(Keep())
    effects += _told(before, state)
    state, more = _left(before, state, now)
    effects += more
    if state.room.encrypted and not before.room.encrypted and before.loaded and state.live:
        effects.append(Announce("encrypted-now"))
    if state.room.successor and state.room.successor != before.room.successor:
        effects.append(Follow(state.room.successor))
    state, more = _host(state, now)
    return state, effects + more


def _left(before: StageState, state: StageState, now: int) -> Step:
    """Membership that ends takes links and sessions with it. Whoever was removed by somebody else has lost the place on
    the stage too: they may come back to the room, as a listener."""
    if before.room.members is state.room.members and before.room.roles is state.room.roles:
        return state, []
    members = state.room.members
    effects: list[Effect] = []
    if before.loaded and before.room.members is not members:
        ended = [u for u, m in before.room.members.items() if m.joined and not (u in members and members[u].joined)]
        effects += [RevokeLinks(user) for user in ended]
    for user in list(state.room.roles):
        member = members.get(user)
        if member is not None and member.membership in ("leave", "ban") and member.by != user:
            asked = (cut.by for cut in before.cuts.values() if cut.user == user and cut.kind == "kick")
            state, more = _removed(state, user, next(asked, UserId(member.by)), now)
            effects += more
    return state, effects


def _removed(state: StageState, user: UserId, by: UserId, now: int) -> Step:
    """The role of somebody who was removed is taken back in state, as a cut: they may return before it is written."""
    known = any(cut.user == user and cut.kind == "to_audience" for cut in state.cuts.values())
    if known or not state.live or not state.ours or state.room.place(user) != "stage":
        return state, []
    return requests.to_audience(state, user, by, now)


def _turn_over(before: StageState, state: StageState) -> Step:
    """A stage that is over or another takes its hands, invitations and card with it, also where that happened while we
    were away. Hand events acted on stay known, else a hand of the last stage would go up again in the next."""
    if not state.loaded:
        return state, []
    effects: list[Effect] = []
    old, new = _running(before), _running(state)
    if old is not None and old != new:
        effects.append(CloseStage(old))
    kept = bool(state.hands or state.card or state.invitations)
    # what a version kept that did not say for which stage is taken to be for the one we find
    adopted = kept and state.kept_for is None and old is None and new is not None
    if not adopted and (new != state.kept_for or (new is None and kept)):
        state = replace(state, hands=(), invitations={}, card=None, empty_since=None, kept_for=None)
        effects.append(Keep())
    if new is not None and state.card is None and new != state.kept_for and state.ours:
        effects.append(PostCard())
    return replace(state, kept_for=new), effects


def _running(state: StageState) -> StageId | None:
    """The stage that is live in confirmed state."""
    stage = state.room.stage
    return stage.stage_id if state.loaded and stage is not None and state.room.runs(state.bot) else None


def _told(before: StageState, state: StageState) -> list[Effect]:
    """Each person whose place or voice changed is told, by whoever the event says did it."""
    if not (before.loaded and before.room.live and state.room.live) or before.room.roles is state.room.roles:
        return []
    told: list[Effect] = []
    for user in sorted({*before.room.roles, *state.room.roles}):
        grant = state.room.roles.get(user)
        if grant == before.room.roles.get(user):
            continue
        by = state.bot if grant is None else author(grant, state.bot)
        was, now_on = before.room.place(user), state.room.place(user)
        if was != now_on:
            told.append(Tell(user, "to_stage" if now_on == "stage" else "to_audience", by))
        elif before.room.muted(user) != state.room.muted(user) and now_on == "stage":
            told.append(Tell(user, "muted" if state.room.muted(user) else "unmuted", by))
    return told


def _host(state: StageState, now: int) -> Step:
    """The host leaving does not end the stage: the moderator longest on stage is host, else the speaker longest there;
    a stage with nobody left to host it ends after a grace."""
    stage = state.room.stage
    if not state.live or stage is None or not state.ours or (stage.host and state.room.may_be_here(stage.host)):
        return replace(state, empty_since=None), []
    if any(write.by == state.bot for write in state.writes.values()):
        return state, []  # an heir was named already and is not read back yet
    heirs = [u for u in state.speakers() if u != stage.host]
    heir = next((u for u in heirs if state.has_authority(u)), heirs[0] if heirs else None)
    if heir is None:
        return replace(state, empty_since=now if state.empty_since is None else state.empty_since), []
    ask = Asked(state.bot, "topic", "event")
    return requests.write(
        replace(state, empty_since=None), ask, now, c.STAGE, "", c.stage_content(replace(stage, host=heir))
    )


def _tick(state: StageState, now: int) -> Step:
    over = state.empty_since is not None and now - state.empty_since >= state.policy.empty_grace_ms
    if not over or not state.live:
        return state, []
    return requests.end_stage(replace(state, empty_since=None), state.bot, "event", now)


# -- after a crash; writes ----------------------------------------------------------------------


def _restored(state: StageState, kept: Restored) -> Step:
    """Cuts that were durable and may not be in state act from the first moment, and are written (again)."""
    cuts = {cut.cut_id: replace(cut, written=None, failed=False, settles=0) for cut in kept.cuts}
    state = replace(
        state,
        hands=kept.hands,
        invitations=dict(kept.invitations or {}),
        hand_events=dict(kept.hand_events or {}),
        card=kept.card,
        kept_for=kept.stage_id,
        seq=max(state.seq, kept.seq),
        cuts={**state.cuts, **cuts},
    )
    return state, []


def rewrite_cuts(state: StageState) -> list[Effect]:
    """Effects that write down every cut that state may not hold; for after start-up, when the room was read."""
    return [requests.write_of_cut(state, cut) for cut in state.cuts.values() if cut.written is None]


def _written(state: StageState, write_id: str, event_id: EventId | None) -> Step:
    state = replace(state, heard=state.heard + 1)
    cut = state.cuts.get(write_id)
    if cut is not None:
        done = replace(cut, written=event_id or EventId("$kick"), failed=False, settles=state.heard)
        return replace(state, cuts={**state.cuts, write_id: done}), [ReadState(*cut.place)]
    write = state.writes.get(write_id)
    if write is None:
        return state, []
    state = replace(state, writes={w: v for w, v in state.writes.items() if w != write_id})
    if write.target is None:
        return state, [ReadState(c.STAGE, "")]
    # A cut that could not be written gives way to what was given later, even where the homeserver answers with the
    # event that stood already, as Synapse does for the same content.
    given = {
        i: replace(cut, written=event_id or EventId("$grant"), failed=False, settles=state.heard)
        for i, cut in state.cuts.items()
        if cut.failed and cut.user == write.target and cut.kind in ("mute", "to_audience")
    }
    return replace(state, cuts={**state.cuts, **given}), [ReadState(c.ROLE, role_key(write.target))]


def _not_written(state: StageState, write_id: str, why: str) -> Step:
    cut = state.cuts.get(write_id)
    if cut is not None:
        state = replace(state, heard=state.heard + 1)
        failed = replace(cut, failed=True, settles=state.heard)
        state = replace(state, cuts={**state.cuts, write_id: failed})
        return state, _say(state, cut.by, "cut_not_written", write_id, why)
    write = state.writes.get(write_id)
    if write is None:
        return state, [BadEvent("", write_id, f"could not be written: {why}")]
    state = replace(state, writes={w: v for w, v in state.writes.items() if w != write_id})
    return state, _say(state, write.by, "not_written", write_id, why)


def _say(state: StageState, by: UserId, key: str, write_id: str, why: str) -> list[Effect]:
    if by == state.bot:
        return [BadEvent("", write_id, f"could not be written: {why}")]
    return [Tell(by, key, state.bot, by_chat=True)]


def _may_redact(state: StageState, sender: UserId, author: str) -> bool:
    """The homeserver's own rule for a redaction (authorization rules, room version 3, and event format)."""
    same_server = sender.partition(":")[2] == author.partition(":")[2]
    return same_server or state.room.power.level(sender) >= state.room.power.redact


def _redacted(state: StageState, gone: Redacted) -> Step:
    """A reaction taken away lowers the hand it raised. A redacted state event counts as ``{}``: a hint that it is."""
    hand = next((h for h in state.hands if h.event_id == gone.event_id), None)
    if hand is not None:
        may = _may_redact(state, gone.sender, hand.user)
        return hands.lower_hand(state, hand.user) if may else (state, [])
    for user, grant in state.room.roles.items():
        if grant.event_id == gone.event_id:
            if not _may_redact(state, gone.sender, grant.sender):
                return state, []
            emptied = StateEvent(c.ROLE, role_key(user), gone.sender, {}, gone.event_id)
            state, effects = hints.take(state, emptied)
            if grant.content.muted or grant.content.role == "listener":  # on record, as it may let somebody be heard
                words = f"a cut of {user} was redacted by {gone.sender}"
                effects.append(BadEvent(gone.event_id, c.ROLE, words))
            return state, effects
    if gone.event_id == state.room.stage_event and _may_redact(state, gone.sender, state.room.stage_sender):
        return hints.take(state, StateEvent(c.STAGE, "", gone.sender, {}, gone.event_id))
    return state, []
