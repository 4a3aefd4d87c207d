"""Whether a person may ask for something.

For a person the bot does only what the room's own rules would let that person do: the level for the act, and, to
act *against* somebody, a level above theirs. A co-host (``role: moderator`` without the level) may act on
listeners and speakers only, and removes nobody from the room. Every view of the room must agree.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from bridge.ids import UserId
from bridge.rules import content as c
from bridge.rules.authority import Permission
from bridge.rules.hands import why_no_hand
from bridge.rules.inputs import ActName, Asked
from bridge.rules.state import Grant, StageState

_AGAINST: frozenset[ActName] = frozenset({"to_audience", "mute", "kick"})
_ON_OTHERS: frozenset[ActName] = frozenset(
    {"bring_up", "invite", "to_audience", "mute", "unmute", "kick", "make_moderator", "not_now", "ring"}
)

Why = tuple[str, Mapping[str, Any]]


def why_not(state: StageState, ask: Asked) -> Why | None:
    """The key of the sentence that says why not; None: they may."""
    actor = ask.actor
    if not all(view.may_be_here(actor) for view in state.views(actor)):
        return "not-in-room", {}
    if state.policy.permission(actor) < Permission.listen:
        return "not-permitted", {}
    if ask.act in ("help", "status", "revoke_links"):
        return None
    if ask.act == "start":
        return _why_no_start(state, actor)
    if state.room.stage is None or not state.live:
        return "no-stage", {}
    if not state.ours:
        return "other-bot", {"bot": state.room.stage.bot}
    if ask.act == "raise":
        reason = why_no_hand(state, actor)
        return (reason, {}) if reason else None
    if ask.act in ("end", "topic", "sound", "language"):
        return None if _has_level_for(state, actor, c.STAGE) else ("not-moderator", {})
    if ask.act == "hands":
        return None if state.has_authority(actor) else ("not-moderator", {})
    return _why_not_on(state, ask) if ask.act in _ON_OTHERS else None


def _has_level_for(state: StageState, actor: UserId, kind: str) -> bool:
    return all(view.power.level(actor) >= view.power.for_state(kind) for view in state.views(actor))


def _why_no_start(state: StageState, actor: UserId) -> Why | None:
    power = state.room.power
    if state.live or any(write.act == "start" for write in state.writes.values()):
        return "already-live", {}
    if state.policy.permission(actor) < Permission.host:
        return "not-permitted", {}
    if state.room.encrypted or state.feared.encrypted:
        return "encrypted", {}
    if not _has_level_for(state, actor, c.STAGE) or not _has_level_for(state, actor, c.ROLE):
        return "not-moderator", {}
    if not power.roles_are_guarded or power.for_state(c.ROLE) < power.kick:
        return "roles-open", {"level": power.for_state(c.ROLE), "kick": power.kick}
    needed = max(power.for_state(c.STAGE), power.for_state(c.ROLE))
    if power.level(state.bot) < needed:
        return "bot-needs-power", {"bot": state.bot, "level": needed}
    return None


def _why_not_on(state: StageState, ask: Asked) -> Why | None:
    actor, target, act = ask.actor, ask.target, ask.act
    if target is None:
        return "who", {}
    if act == "to_audience" and actor == target:
        return None  # anybody may step down
    if not state.has_authority(actor):
        return "not-moderator", {}
    if not state.room.may_be_here(target) and act != "kick":
        return "target-not-here", {"name": target}
    by_level = _has_level_for(state, actor, c.ROLE)
    if act == "kick" and not (by_level and all(v.power.level(actor) >= v.power.kick for v in state.views(actor))):
        return "not-moderator", {}
    if act == "kick" and not _is_known(state, target):
        return "target-not-here", {"name": target}
    if act == "make_moderator" and not by_level:
        return "not-moderator", {}
    if actor == target:
        if act == "kick":
            return "not-self", {}
        if not by_level and act in ("unmute", "bring_up") and _muted_by_another(state, actor):
            return "not-moderator", {}  # else the bot's power would undo what a moderator did
    elif _is_too_high(state, ask, target, by_level):
        return "target-higher", {"name": state.name(target)}
    if act in ("bring_up", "invite", "ring") and state.policy.permission(target) < Permission.speak:
        return "target-not-permitted", {"name": state.name(target)}
    if act in ("bring_up", "invite", "ring", "make_moderator") and _is_full(state, target):
        return "stage-full", {"limit": state.room.stage.speaker_limit if state.room.stage else 0}
    if act == "not_now" and state.hand_of(target) is None:
        return "no-hand", {"name": state.name(target)}
    return None


def _is_known(state: StageState, target: UserId) -> bool:
    """In the room or on the way in: somebody whom a kick can remove."""
    member = state.room.members.get(target)
    return member is not None and member.membership in ("join", "invite", "knock")


def _is_too_high(state: StageState, ask: Asked, target: UserId, by_level: bool) -> bool:
    if by_level:
        powers = [view.power for view in state.views(target)]
        return ask.act in _AGAINST and any(power.level(target) >= power.level(ask.actor) for power in powers)
    # a co-host acts on listeners and speakers only: whoever has authority in any view is neither
    return state.shown_role(target) == "host" or any(
        view.has_level(target) or view.is_cohost(target) for view in state.views(target)
    )


def _muted_by_another(state: StageState, user: UserId) -> bool:
    if any(cut.kind == "mute" and cut.user == user and cut.by != user for cut in state.cuts.values()):
        return True
    return any(
        view.muted(user) and author(grant, state.bot) != user
        for view in state.views(user)
        if (grant := view.grant(user))
    )


def author(grant: Grant, bot: UserId) -> UserId:
    """Who gave a role. ``by`` is believed from the bot alone."""
    return (grant.content.by or bot) if grant.sender == bot else UserId(grant.sender)


def _is_full(state: StageState, target: UserId) -> bool:
    """Grants under way have their seats already."""
    stage = state.room.stage
    coming = {w.target for w in state.writes.values() if w.act in _BRINGS_UP and w.target}
    seats = set(state.room.on_stage()) | coming
    return stage is not None and target not in seats and len(seats) >= stage.speaker_limit


_BRINGS_UP = ("bring_up", "invite", "accept", "make_moderator")
