"""What people ask for, and whether they may: by command, reaction, page or call alike.

For a person the bot does only what the room's own rules would let that person do: the level for the act, and, to
act *against* somebody, a level above theirs. A co-host (``role: moderator`` without the level) may act on
listeners and speakers only, and removes nobody from the room.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from bridge.ids import UserId
from bridge.rules import content as c
from bridge.rules.authority import Permission
from bridge.rules.content import RoleContent, StageContent
from bridge.rules.effects import (
    Announce,
    Answer,
    Effect,
    Keep,
    KeepCut,
    KickMember,
    PostCard,
    Record,
    RevokeLinks,
    SendLink,
    Tell,
    WriteState,
)
from bridge.rules.inputs import ActName, Asked
from bridge.rules.state import Cut, CutKind, Hand, StageState, Write

Step = tuple[StageState, list[Effect]]

_AGAINST: frozenset[ActName] = frozenset({"to_audience", "mute", "kick"})
_ON_OTHERS: frozenset[ActName] = frozenset(
    {"bring_up", "invite", "to_audience", "mute", "unmute", "kick", "make_moderator", "not_now"}
)


def asked(state: StageState, ask: Asked, now: int) -> Step:
    """One request → what it does, and exactly one Answer where ``ref`` is set."""
    why_not = _why_not(state, ask)
    if why_not:
        reason, args = why_not
        return state, [Answer(ref=ask.ref, ok=False, text=reason, args=args)] if ask.ref else []
    state, effects = _DO[ask.act](state, ask, now)
    if ask.ref and not any(isinstance(effect, Answer | SendLink) for effect in effects):
        effects.append(Answer(ref=ask.ref, ok=True, text=f"done-{ask.act.replace('_', '-')}", args=_names(state, ask)))
    return state, effects


def _names(state: StageState, ask: Asked) -> dict[str, Any]:
    return {"name": state.name(ask.target)} if ask.target else {}


def next_id(state: StageState, now: int) -> tuple[StageState, str]:
    """A name for one write, unique over restarts."""
    return replace(state, seq=state.seq + 1), f"w{now:x}-{state.seq + 1}"


# -- may they? ----------------------------------------------------------------------------------

_Why = tuple[str, Mapping[str, Any]]


def _why_not(state: StageState, ask: Asked) -> _Why | None:
    """The key of the sentence that says why not; None: they may."""
    actor = ask.actor
    if not (state.room.may_be_here(actor) and state.feared.may_be_here(actor)):
        return "not-in-room", {}
    if ask.act in ("help", "status"):
        return None
    if ask.act == "start":
        return _why_no_start(state, actor)
    if state.room.stage is None or not state.live:
        return "no-stage", {}
    if state.room.stage.bot not in (None, state.bot):
        return "other-bot", {"bot": state.room.stage.bot}
    if ask.act == "raise":
        reason = why_no_hand(state, actor)
        return (reason, {}) if reason else None
    if ask.act == "link" and state.policy.permission(actor) < Permission.listen:
        return "not-permitted", {}
    if ask.act in ("end", "topic"):
        return None if _has_level_for(state, actor, c.STAGE) else ("not-moderator", {})
    if ask.act == "hands":
        return None if state.has_authority(actor) else ("not-moderator", {})
    return _why_not_on(state, ask) if ask.act in _ON_OTHERS else None


def _has_level_for(state: StageState, actor: UserId, kind: str) -> bool:
    views = (state.room, state.feared)
    return all(view.power.level(actor) >= view.power.for_state(kind) for view in views)


def _why_no_start(state: StageState, actor: UserId) -> _Why | None:
    power = state.room.power
    if state.live:
        return "already-live", {}
    if state.policy.permission(actor) < Permission.host:
        return "not-permitted", {}
    if state.room.encrypted:
        return "encrypted", {}
    if not _has_level_for(state, actor, c.STAGE) or not _has_level_for(state, actor, c.ROLE):
        return "not-moderator", {}
    if not power.roles_are_guarded or power.for_state(c.ROLE) < power.kick:
        return "roles-open", {"level": power.for_state(c.ROLE), "kick": power.kick}
    needed = max(power.for_state(c.STAGE), power.for_state(c.ROLE))
    if power.level(state.bot) < needed:
        return "bot-needs-power", {"bot": state.bot, "level": needed}
    return None


def _why_not_on(state: StageState, ask: Asked) -> _Why | None:
    actor, target, act = ask.actor, ask.target, ask.act
    if target is None:
        return "who", {}
    if act == "to_audience" and actor == target:
        return None  # anybody may step down
    if not state.has_authority(actor):
        return "not-moderator", {}
    if not state.room.may_be_here(target) and act != "kick":
        return "target-not-here", {"name": target}
    power = state.room.power
    by_level = _has_level_for(state, actor, c.ROLE)
    if act == "kick" and (not by_level or power.level(actor) < power.kick):
        return "not-moderator", {}
    if act == "make_moderator" and not by_level:
        return "not-moderator", {}
    if actor == target:
        return ("not-self", {}) if act == "kick" else None
    if by_level:
        too_high = act in _AGAINST and power.level(target) >= power.level(actor)
    else:
        too_high = state.has_authority(target) or state.shown_role(target) == "host"
    if too_high:
        return "target-higher", {"name": state.name(target)}
    if act in ("bring_up", "invite") and state.policy.permission(target) < Permission.speak:
        return "target-not-permitted", {"name": state.name(target)}
    if act in ("bring_up", "invite", "make_moderator") and _is_full(state, target):
        return "stage-full", {"limit": state.room.stage.speaker_limit if state.room.stage else 0}
    if act == "not_now" and state.hand_of(target) is None:
        return "no-hand", {"name": state.name(target)}
    return None


def _is_full(state: StageState, target: UserId) -> bool:
    on_stage = state.room.on_stage()
    return state.room.stage is not None and target not in on_stage and len(on_stage) >= state.room.stage.speaker_limit


def why_no_hand(state: StageState, user: UserId) -> str | None:
    stage = state.room.stage
    if stage is None or not state.live:
        return "no-stage"
    if not state.may_hear(user):
        return "not-in-room"
    if stage.hands == "off":
        return "hands-closed"
    if state.policy.permission(user) < Permission.speak:
        return "not-permitted"
    return "on-stage-already" if state.on_stage(user) else None


def hand_is_over(state: StageState, user: UserId) -> bool:
    """A hand ends with its person on stage, gone, or with the stage."""
    return not state.room.live or state.room.place(user) == "stage" or not state.room.may_be_here(user)


# -- hands --------------------------------------------------------------------------------------


def queue_changed(state: StageState) -> Step:
    """The queue as one state event, bot-written and coalesced on its way: a state event for each hand would cost every
    server of the room one for ever."""
    stage = state.room.stage
    state = replace(state, seq=state.seq + 1)
    if stage is None or not state.live:
        return state, [Keep()]
    hands = [(hand.user, hand.ts, hand.via, hand.note) for hand in state.hands]
    content = c.queue_content(stage.stage_id, state.seq, hands)
    return state, [Keep(), WriteState(f"queue-{state.seq}", c.QUEUE, "", content)]


def raise_hand(state: StageState, hand: Hand) -> Step:
    """One hand a person; raising again keeps the place and takes the new note."""
    old = state.hand_of(hand.user)
    if old is None:
        return queue_changed(replace(state, hands=(*state.hands, hand)))
    if hand.note in ("", old.note):
        return state, []
    hands = tuple(replace(h, note=hand.note) if h.user == hand.user else h for h in state.hands)
    return queue_changed(replace(state, hands=hands))


def lower_hand(state: StageState, user: UserId) -> Step:
    if state.hand_of(user) is None:
        return state, []
    return queue_changed(replace(state, hands=tuple(hand for hand in state.hands if hand.user != user)))


def _raise(state: StageState, ask: Asked, now: int) -> Step:
    note = c.clean_text(ask.text, c.NOTE_LENGTH)
    return raise_hand(state, Hand(ask.actor, now, ask.via, note, ask.event_id))


def _lower(state: StageState, ask: Asked, now: int) -> Step:
    return lower_hand(state, ask.actor)


def _not_now(state: StageState, ask: Asked, now: int) -> Step:
    """To the end of the queue; the person is told kindly."""
    hand = state.hand_of(ask.target) if ask.target else None
    if hand is None:
        return state, []
    others = tuple(h for h in state.hands if h.user != hand.user)
    state, effects = queue_changed(replace(state, hands=(*others, hand)))
    return state, [*effects, Tell(hand.user, "hand_not_now", ask.actor)]


# -- grants: through state first ----------------------------------------------------------------


def _write(state: StageState, ask: Asked, now: int, kind: str, key: str, content: dict[str, Any]) -> Step:
    state, write_id = next_id(state, now)
    write = Write(ask.actor, ask.via, ask.act, ask.target if kind == c.ROLE else None)
    return replace(state, writes={**state.writes, write_id: write}), [WriteState(write_id, kind, key, content)]


def _grant(state: StageState, ask: Asked, now: int, target: UserId, role: RoleContent) -> Step:
    """A grant voids what was cut from the same person: it is the newer word, though it acts only once it is state."""
    stage = state.room.stage
    voided = {i for i, cut in state.cuts.items() if cut.user == target and cut.failed and cut.kind != "kick"}
    state = replace(state, cuts={i: cut for i, cut in state.cuts.items() if i not in voided})
    state, effects = _write(state, ask, now, c.ROLE, f"_{target}", c.role_content(role))
    if stage is not None:
        effects.append(Record(stage.stage_id, ask.act, ask.actor, ask.via, target))
    return state, effects


def _role(state: StageState, ask: Asked, **changes: Any) -> RoleContent:
    """The role content for the target as it stands, changed."""
    target = ask.target or ask.actor
    grant = state.room.grant(target)
    on_stage = state.room.place(target) == "stage"
    old = grant.content if grant else RoleContent("speaker" if on_stage else "listener")
    stage_id = state.room.stage.stage_id if state.room.stage else None
    return replace(old, stage_id=stage_id, by=ask.actor, via=ask.via, reason=ask.text, **changes)


def _bring_up(state: StageState, ask: Asked, now: int) -> Step:
    target = ask.target or ask.actor
    if state.room.is_cohost(target):
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
        return _bring_up(state, ask, now)
    if state.room.place(target) == "stage":
        return state, []
    state = replace(state, invitations={**state.invitations, target: ask.actor})
    return state, [Keep(), Tell(target, "invited", ask.actor, by_chat=True)]


def _accept(state: StageState, ask: Asked, now: int) -> Step:
    """The inviter's authority is looked at again: it may be gone by now."""
    by = state.invitations.get(ask.actor)
    if by is None:
        return state, [Answer(ask.ref, ok=False, text="no-invitation")]
    state = replace(state, invitations={u: v for u, v in state.invitations.items() if u != ask.actor})
    invited = Asked(by, "bring_up", ask.via, target=ask.actor)
    why_not = _why_not(state, invited)
    if why_not:
        return state, [Keep(), Answer(ask.ref, ok=False, text=why_not[0], args=why_not[1])]
    state, effects = _bring_up(state, invited, now)
    return state, [Keep(), *effects]


def _decline(state: StageState, ask: Asked, now: int) -> Step:
    by = state.invitations.get(ask.actor)
    state = replace(state, invitations={u: v for u, v in state.invitations.items() if u != ask.actor})
    return state, [Keep(), Tell(by, "invite_declined", ask.actor)] if by else []


# -- cuts: gate, durable row, state -------------------------------------------------------------


def _cut(state: StageState, ask: Asked, now: int, kind: CutKind, target: UserId | None) -> Step:
    stage = state.room.stage
    if stage is None:
        return state, []
    state, cut_id = next_id(state, now)
    grant = state.room.roles.get(target) if target else None
    cut = Cut(
        cut_id, kind, target, ask.actor, ask.via, stage.stage_id, now, ask.text, seen=grant.event_id if grant else None
    )
    state = replace(state, cuts={**state.cuts, cut_id: cut})
    record = Record(stage.stage_id, ask.act, ask.actor, ask.via, target, ask.text)
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
    return WriteState(cut.cut_id, c.ROLE, f"_{target}", c.role_content(role), urgent=True)


def _mute(state: StageState, ask: Asked, now: int) -> Step:
    return _cut(state, ask, now, "mute", ask.target)


def _to_audience(state: StageState, ask: Asked, now: int) -> Step:
    return _cut(state, ask, now, "to_audience", ask.target)


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
    )
    state = replace(state, hands=(), invitations={}, card=None)
    state, effects = _write(state, ask, now, c.STAGE, "", c.stage_content(stage))
    return state, [*effects, Record(stage.stage_id, "start", ask.actor, ask.via), Keep(), PostCard()]


def _topic(state: StageState, ask: Asked, now: int) -> Step:
    if state.room.stage is None:
        return state, []
    stage = replace(state.room.stage, topic=c.clean_text(ask.text, c.TOPIC_LENGTH))
    return _write(state, ask, now, c.STAGE, "", c.stage_content(stage))


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
    return state, [SendLink(ask.actor, ask.ref)]


def _revoke_links(state: StageState, ask: Asked, now: int) -> Step:
    return state, [RevokeLinks(ask.actor)]


def _help(state: StageState, ask: Asked, now: int) -> Step:
    return state, [Answer(ask.ref, ok=True, text="help")]


_DO: Mapping[ActName, Callable[[StageState, Asked, int], Step]] = {
    "start": _start,
    "end": _end,
    "topic": _topic,
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
    "revoke_links": _revoke_links,
    "help": _help,
}
