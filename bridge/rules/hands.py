"""The queue of raised hands: who may be in it, in what order, when a hand is over."""

from __future__ import annotations

from dataclasses import replace

from bridge.ids import UserId
from bridge.rules import content as c
from bridge.rules.authority import Permission
from bridge.rules.content import StateEvent
from bridge.rules.effects import Effect, Keep, WriteState
from bridge.rules.state import Hand, StageState

Step = tuple[StageState, list[Effect]]


def why_no_hand(state: StageState, user: UserId) -> str | None:
    """The key of the sentence that says why ``user`` may not raise a hand; None: they may."""
    stage = state.room.stage
    if stage is None or not state.live:
        return "no-stage"
    if not state.ours:
        return "other-bot"
    if not state.may_hear(user):
        return "not-in-room"
    if stage.hands == "off":
        return "hands-closed"
    if state.policy.permission(user) < Permission.speak:
        return "not-permitted"
    return "on-stage-already" if state.room.place(user) == "stage" else None


def hand_is_over(state: StageState, user: UserId) -> bool:
    """A hand ends with its person on stage, gone, or with the stage."""
    return not state.room.live or state.room.place(user) == "stage" or not state.room.may_be_here(user)


def queue_changed(state: StageState) -> Step:
    """The queue as one state event, bot-written and coalesced on its way: a state event for each hand would cost every
    server of the room one for ever."""
    stage = state.room.stage
    state = replace(state, seq=state.seq + 1)
    if stage is None or not state.live or not state.ours:
        return state, [Keep()]
    hands = [(hand.user, hand.ts, hand.via, hand.note) for hand in state.hands]
    content = c.queue_content(stage.stage_id, state.seq, hands)
    return state, [Keep(), WriteState(f"queue-{state.seq}", c.QUEUE, "", content)]


def queue_as_read(state: StageState, event: StateEvent | None) -> Step:
    """``event`` stands in the room, read as a whole. Written again where it is not our queue: a crash may have come
    between keeping a hand and writing it."""
    stage = state.room.stage
    if stage is None or not state.live or not state.ours:
        return state, []
    stands = event.content if event else {}
    if not state.hands and stands.get("stage_id") != stage.stage_id:
        return state, []  # nobody has raised a hand on this stage
    wanted = c.queue_content(stage.stage_id, state.seq, [(h.user, h.ts, h.via, h.note) for h in state.hands])
    if all(stands.get(name) == wanted[name] for name in ("stage_id", "total", "hands")):
        return state, []
    return queue_changed(state)


def raise_hand(state: StageState, hand: Hand) -> Step:
    """One hand a person; raising again keeps the place and takes the new note. A hand that came without an event takes
    the event, so that taking back the reaction lowers it."""
    old = state.hand_of(hand.user)
    if old is None:
        return queue_changed(replace(state, hands=(*state.hands, hand)))
    new = replace(old, note=hand.note or old.note, event_id=old.event_id or hand.event_id)
    if new == old:
        return state, []
    return queue_changed(replace(state, hands=tuple(new if h is old else h for h in state.hands)))


def lower_hand(state: StageState, user: UserId) -> Step:
    if state.hand_of(user) is None:
        return state, []
    return queue_changed(replace(state, hands=tuple(hand for hand in state.hands if hand.user != user)))
