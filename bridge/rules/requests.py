"""What people ask for, by command, reaction, page or call alike, and what it does.

Whether they may is in `bridge.rules.may`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from bridge.ids import UserId, role_key
from bridge.rules import content as c
from bridge.rules.content import RoleContent, StageContent
from bridge.rules.effects import (
    Announce,
    Answer,
    AwaitCall,
    Effect,
    Keep,
    KeepCut,
    KickMember,
    Record,
    RevokeLinks,
    Ring,
    SendLink,
    Tell,
    WriteState,
)
from bridge.rules.hands import Step, lower_hand, queue_changed, raise_hand, why_no_hand
from bridge.rules.inputs import ActName, Asked
from bridge.rules.may import why_not
from bridge.rules.state import Cut, CutKind, Hand, StageState, Write

__all__ = ["Step", "asked", "end_stage", "next_id", "why_no_hand", "write", "write_of_cut"]


def asked(state: StageState, ask: Asked, now: int) -> Step:
    """One request → what it does, and exactly one Answer where ``ref`` is set."""
    refusal = why_not(state, ask)
    if refusal:
        reason, args = refusal
        return state, [Answer(ref=ask.ref, ok=False, text=reason, args=args)] if ask.ref else []
    state, effects = _DO[ask.act](state, ask, now)
    if not ask.ref:
        return state, [effect for effect in effects if not isinstance(effect, Answer)]
    if not any(isinstance(effect, Answer | SendLink | AwaitCall) for effect in effects):
        effects.append(Answer(ref=ask.ref, ok=True, text=f"done-{ask.act.replace('_', '-')}", args=_names(state, ask)))
    return state, effects


def _names(state: StageState, ask: Asked) -> dict[str, Any]:
    return {"name": state.name(ask.target)} if ask.target else {}


def next_id(state: StageState, now: int) -> tuple[StageState, str]:
    """A name for one write, unique over restarts."""
    return replace(state, seq=state.seq + 1), f"w{now:x}-{state.seq + 1}"


# -- hands --------------------------------------------------------------------------------------


def _raise(state: StageState, ask: Asked, now: int) -> Step:
    note = c.clean_text(ask.text, c.NOTE_LENGTH)
    return raise_hand(state, Hand(ask.actor, now, ask.via, note, ask.event_id))


def _lower(state: StageState, ask: Asked, now: int) -> Step:
    return lower_hand(state, ask.actor)


def _not_now(state: StageState, ask: Asked, now: int) -> Step:
    """To the end of the queue; the person is told kindly."""
    hand = next(h for h in state.hands if h.user == ask.target)
    others = tuple(h for h in state.hands if h.user != hand.user)
    state, effects = queue_changed(replace(state, hands=(*others, hand)))
    return state, [*effects, Tell(hand.user, "hand_not_now", ask.actor)]


def _stage(state: StageState) -> StageContent:
    """The stage, which `why_not` has found to be live."""
    assert state.room.stage is not None
    return state.room.stage


# -- grants: through state first ----------------------------------------------------------------


def write(state: StageState, ask: Asked, now: int, kind: str, key: str, content: dict[str, Any]) -> Step:
    """A write that is not a cut; it is remembered until it was answered."""
    state, write_id = next_id(state, now)
    record = Write(ask.actor, ask.via, ask.act, ask.target if kind == c.ROLE else None)
    return replace(state, writes={**state.writes, write_id: record}), [WriteState(write_id, kind, key, content)]


def _grant(state: StageState, ask: Asked, now: int, target: UserId, role: RoleContent) -> Step:
    state, effects = write(state, ask, now, c.ROLE, role_key(target), c.role_content(role))
    return state, [*effects, Record(_stage(state).stage_id, ask.act, ask.actor, ask.via, target)]


def _role(state: StageState, ask: Asked, **changes: Any) -> RoleContent:
    """The role content for the target as it stands, changed. A cut to the audience that is not in state yet stands."""
    target = ask.target or ask.actor
    grant = state.room.grant(target)
    on_stage = state.room.place(target) == "stage"
    old = grant.content if grant else RoleContent("speaker" if on_stage else "listener")
    if state.is_cut(target, "to_audience"):
        old = replace(old, role="listener")
    stage_id = state.room.stage.stage_id if state.room.stage else None
    reason = c.clean_text(ask.text, c.TOPIC_LENGTH)
    return replace(old, stage_id=stage_id, by=ask.actor, via=ask.via, reason=reason, **changes)


def _bring_up(state: StageState, ask: Asked, now: int) -> Step:
    target = ask.target or ask.actor
    if state.room.is_cohost(target) and not state.is_cut(target, "to_audience"):
        return _grant(state, ask, now, target, _role(state, ask, muted=False))
    return _grant(state, ask, now, target, _role(state, ask, role="speaker", muted=False))


def _make_moderator(state: StageState, ask: Asked, now: int) -> Step:
    return _grant(state, ask, now, ask.target or ask.actor, _role(state, ask, role="moderator", muted=False))


def _unmute(state: StageState, ask: Asked, now: int) -> Step:
    return _grant(state, ask, now, ask.target or ask.actor, _role(state, ask, muted=False))


def _invite(state: StageState, ask: Asked, now: int) -> Step:
    """A listener who did not raise a hand is asked, and comes up only by accepting."""
    target = ask.target or ask.actor
    if state.hand_of(target):
        state, effects = _bring_up(state, ask, now)
        return state, [*effects, Answer(ask.ref, ok=True, text="done-bring-up", args=_names(state, ask))]
    if state.stays_up(target):
        return state, []
    state = replace(state, invitations={**state.invitations, target: ask.actor})
    return state, [Keep(), Tell(target, "invited", ask.actor, by_chat=True)]


def _ring(state: StageState, ask: Asked, now: int) -> Step:
    """An invitation that goes by telephone: whoever answers has accepted."""
    target = ask.target or ask.actor
    if state.room.place(target) == "stage":
        return state, []
    state = replace(state, invitations={**state.invitations, target: ask.actor})
    return state, [Keep(), Tell(target, "invited", ask.actor), Ring(target, ask.actor, ask.ref)]


def _accept(state: StageState, ask: Asked, now: int) -> Step:
    """The inviter's authority is looked at again: it may be gone by now."""
    by = state.invitations.get(ask.actor)
    if by is None:
        return state, [Answer(ask.ref, ok=False, text="no-invitation")]
    state = replace(state, invitations={u: v for u, v in state.invitations.items() if u != ask.actor})
    invited = Asked(by, "bring_up", ask.via, target=ask.actor)
    refusal = why_not(state, invited)
    if refusal:
        return state, [Keep(), Answer(ask.ref, ok=False, text=refusal[0], args=refusal[1])]
    state, effects = _bring_up(state, invited, now)
    return state, [Keep(), *effects]


def _decline(state: StageState, ask: Asked, now: int) -> Step:
    by = state.invitations.get(ask.actor)
    state = replace(state, invitations={u: v for u, v in state.invitations.items() if u != ask.actor})
    return state, [Keep(), Tell(by, "invite_declined", ask.actor)] if by else []


# -- cuts: gate, durable row, state -------------------------------------------------------------


def _cut(state: StageState, ask: Asked, now: int, kind: CutKind, target: UserId | None) -> Step:
    stage = _stage(state)
    state, cut_id = next_id(state, now)
    grant = state.room.roles.get(target) if target else None
    reason = c.clean_text(ask.text, c.TOPIC_LENGTH)
    seen = grant.event_id if grant else None
    cut = Cut(cut_id, kind, target, ask.actor, ask.via, stage.stage_id, now, reason, seen=seen)
    state = replace(state, cuts={**state.cuts, cut_id: cut})
    record = Record(stage.stage_id, ask.act, ask.actor, ask.via, target, reason)
    return state, [KeepCut(cut), write_of_cut(state, cut), record]


def write_of_cut(state: StageState, cut: Cut) -> Effect:
    """The write that puts a cut into room state."""
    if cut.kind == "kick" and cut.user:
        return KickMember(cut.cut_id, cut.user, cut.reason)
    if cut.kind == "end":
        stage = state.room.stage or StageContent("live", cut.stage_id)
        ended = replace(stage, status="ended", ended_ts=cut.at_ms)
        return WriteState(cut.cut_id, c.STAGE, "", c.stage_content(ended), urgent=True)
    target = cut.user or cut.by
    ask = Asked(cut.by, cut.kind, cut.via, target=target, text=cut.reason)  # type: ignore[arg-type]
    changes = {"role": "listener", "muted": False} if cut.kind == "to_audience" else {"muted": True}
    role = replace(_role(state, ask, **changes), stage_id=cut.stage_id)
    return WriteState(cut.cut_id, c.ROLE, role_key(target), c.role_content(role), urgent=True)


def _mute(state: StageState, ask: Asked, now: int) -> Step:
    return _cut(state, ask, now, "mute", ask.target)


def _to_audience(state: StageState, ask: Asked, now: int) -> Step:
    """Stepping down from where one is not would let anybody write state through us, for ever in the room."""
    target = ask.target
    there = target and all(view.place(target) == "audience" for view in state.views(target))
    if there and target == ask.actor and not any(write.target == target for write in state.writes.values()):
        return state, []
    state = replace(state, invitations={u: by for u, by in state.invitations.items() if u != target})
    return _cut(state, ask, now, "to_audience", ask.target)


def to_audience(state: StageState, user: UserId, by: UserId, now: int) -> Step:
    """Take the place on the stage from somebody whom ``by`` removed from the room."""
    return _cut(state, Asked(by, "to_audience", "event"), now, "to_audience", user)


def _kick(state: StageState, ask: Asked, now: int) -> Step:
    return _cut(state, ask, now, "kick", ask.target)


def end_stage(state: StageState, by: UserId, via: c.Via, now: int) -> Step:
    state, effects = _cut(state, Asked(by, "end", via), now, "end", None)
    return state, [*effects, Announce("stage-ended")]


def _end(state: StageState, ask: Asked, now: int) -> Step:
    return end_stage(state, ask.actor, ask.via, now)


# -- the stage itself ---------------------------------------------------------------------------


def _start(state: StageState, ask: Asked, now: int) -> Step:
    if ask.new_stage is None:
        return state, []
    policy = state.policy
    stage = StageContent(
        status="live",
        stage_id=ask.new_stage,
        host=ask.actor,
        topic=c.clean_text(ask.text, c.TOPIC_LENGTH),
        started_ts=now,
        hands=policy.hands,  # type: ignore[arg-type]
        speaker_limit=policy.speaker_limit,
        guests=policy.guests or state.room.public,
        bot=state.bot,
        language="fa" if ask.in_persian else state.room.stage.language if state.room.stage else None,
    )
    state, effects = write(state, ask, now, c.STAGE, "", c.stage_content(stage))
    return state, [*effects, Record(stage.stage_id, "start", ask.actor, ask.via)]


def _topic(state: StageState, ask: Asked, now: int) -> Step:
    stage = replace(_stage(state), topic=c.clean_text(ask.text, c.TOPIC_LENGTH))
    return write(state, ask, now, c.STAGE, "", c.stage_content(stage))


def _sound(state: StageState, ask: Asked, now: int) -> Step:
    """The relay follows when the event was read back."""
    sound = next((each for each in c.SOUNDS if each == ask.text), None)
    if sound is None:
        return state, [Answer(ask.ref, ok=False, text="which-sound")]
    done = Answer(ask.ref, ok=True, text="done-sound", args={"sound": sound})
    if sound == _stage(state).sound:
        return state, [done]
    stage = replace(_stage(state), sound=sound)
    state, effects = write(state, ask, now, c.STAGE, "", c.stage_content(stage))
    return state, [*effects, Record(stage.stage_id, f"sound-{sound}", ask.actor, ask.via), done]


def _language(state: StageState, ask: Asked, now: int) -> Step:
    """What the bot says in this room from now on, and to its people about it."""
    language = next((each for each in c.LANGUAGES if each == ask.text), None)
    if language is None:
        return state, [Answer(ask.ref, ok=False, text="which-language")]
    stage = replace(_stage(state), language=language)
    state, effects = write(state, ask, now, c.STAGE, "", c.stage_content(stage))
    done = Answer(ask.ref, ok=True, text="done-language", args={"language": language})
    return state, [*effects, Record(stage.stage_id, f"language-{language}", ask.actor, ask.via), done]


def _status(state: StageState, ask: Asked, now: int) -> Step:
    stage = state.room.stage
    if stage is None or not state.live:
        return state, [Answer(ask.ref, ok=True, text="status-none")]
    args = {
        "topic": stage.topic,
        "speakers": ", ".join(state.name(user) for user in state.speakers()) or "–",
        "hands": len(state.hands),
        "listeners": len([u for u in state.present if not state.on_stage(u)]),
    }
    return state, [Answer(ask.ref, ok=True, text="status-live", args=args)]


def _hands(state: StageState, ask: Asked, now: int) -> Step:
    lines = [
        f"{place}. {state.name(hand.user)} ({hand.user})" + (f": {hand.note}" if hand.note else "")
        for place, hand in enumerate(state.hands[:20], 1)
    ]
    text = "hands-none" if not lines else "hands-list"
    return state, [Answer(ask.ref, ok=True, text=text, args={"count": len(state.hands), "list": "\n".join(lines)})]


def _link(state: StageState, ask: Asked, now: int) -> Step:
    return state, [SendLink(ask.actor, ask.ref, player=ask.act == "link_player")]


def _call(state: StageState, ask: Asked, now: int) -> Step:
    return state, [AwaitCall(ask.actor, ask.ref)]


def _revoke_links(state: StageState, ask: Asked, now: int) -> Step:
    return state, [RevokeLinks(ask.actor)]


def _help(state: StageState, ask: Asked, now: int) -> Step:
    return state, [Answer(ask.ref, ok=True, text="help")]


_DO: Mapping[ActName, Callable[[StageState, Asked, int], Step]] = {
    "start": _start,
    "end": _end,
    "topic": _topic,
    "sound": _sound,
    "language": _language,
    "bring_up": _bring_up,
    "invite": _invite,
    "to_audience": _to_audience,
    "mute": _mute,
    "unmute": _unmute,
    "kick": _kick,
    "make_moderator": _make_moderator,
    "raise": _raise,
    "lower": _lower,
    "not_now": _not_now,
    "accept": _accept,
    "decline": _decline,
    "status": _status,
    "hands": _hands,
    "link": _link,
    "link_player": _link,
    "revoke_links": _revoke_links,
    "call": _call,
    "ring": _ring,
    "help": _help,
}
