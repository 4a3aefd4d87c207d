"""What a page shows of a stage: one view for all, and what concerns the person who looks.

Built from the rules' state and from what merely happens (who is connected, whose microphone is on).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from bridge.ids import UserId
from bridge.rules import requests
from bridge.rules.authority import Permission
from bridge.rules.content import ROLE, STAGE
from bridge.rules.state import StageState

Place = Literal["stage", "audience"]
Role = Literal["host", "moderator", "speaker", "listener"]
Mic = Literal["on", "off", "muted"]
Status = Literal["none", "scheduled", "live", "ended"]
Act = Literal[
    "invite",  # offer a place on stage; the person must accept
    "bring_up",  # accept a raised hand: role speaker
    "not_now",  # the hand goes to the end of the queue, the person is told
    "to_audience",
    "mute",
    "unmute",
    "kick",
    "make_moderator",
    "end",
    "topic",
    "sound",
]

FACES = 60


@dataclass(frozen=True, slots=True)
class StageInfo:
    id: str
    status: Status
    topic: str
    room_name: str
    room_id: str
    host: str | None
    started_ts: int | None  # ms since the epoch
    ended_ts: int | None
    hands: Literal["everyone", "members", "off"]
    sound: Literal["voice", "music", "low"]
    server_ts: int  # our clock when this was made, so that a page with a wrong clock counts right


@dataclass(frozen=True, slots=True)
class Person:
    user: str
    name: str
    role: Role
    mic: Mic  # "muted": by a moderator
    csrc: list[int]  # under which this person's voice stands in CSRC lists and levels; empty when not connected
    connected: bool
    since: int  # ms: on the stage since; gives the order, which never jumps
    coming: bool  # the room's state gives the place, and the relay has not yet let one of their pages be heard


@dataclass(frozen=True, slots=True)
class Face:
    user: str
    name: str
    hand: bool


@dataclass(frozen=True, slots=True)
class Audience:
    count: int  # listeners connected now, guests included
    hands: int
    faces: list[Face]  # at most 60


@dataclass(frozen=True, slots=True)
class Hand:
    user: str
    name: str
    ts: int
    note: str
    via: Literal["reaction", "command", "web", "event", "call"]


@dataclass(frozen=True, slots=True)
class MyHand:
    position: int  # 1 = next


@dataclass(frozen=True, slots=True)
class Invitation:
    by: str
    by_name: str


@dataclass(frozen=True, slots=True)
class Me:
    user: str | None  # None: a guest
    name: str
    role: Role
    place: Place
    muted: bool  # by a moderator
    can_speak: bool  # the relay has confirmed that this page is heard when its microphone is on
    can_hear: bool
    hand: MyHand | None
    invited: Invitation | None
    can: list[Act]  # what this person may do to at least somebody
    may_raise: bool
    left_out: list[str]  # people whom this page does not hear, by its own wish


@dataclass(frozen=True, slots=True)
class Gate:
    """What the relay lets a peer do."""

    hear: bool
    speak: bool


SHUT = Gate(hear=False, speak=False)
_GATES = {(hear, speak): Gate(hear=hear, speak=speak) for hear in (True, False) for speak in (True, False)}


def gate_of(*, hear: bool, speak: bool) -> Gate:
    """There are four, each one object."""
    return _GATES[hear, speak]


@dataclass(frozen=True, slots=True)
class Voice:
    """What happens with one connected page or call."""

    user: UserId | None
    csrc: int | None
    mic_on: bool
    gate: Gate  # as the relay last confirmed it
    awaited: bool = False  # its gate is to open, and the relay has not confirmed that yet


@dataclass(frozen=True, slots=True)
class View:
    """The same for everybody; ``queue`` is shown to moderators only. A part that did not change is the same object as
    before, so ``stage.server_ts`` is that of its last change; ``now`` is when the view was made."""

    stage: StageInfo
    speakers: list[Person]
    audience: Audience
    queue: list[Hand]
    now: int = 0


def gate_for(state: StageState, user: UserId | None) -> Gate:
    return gate_of(hear=state.may_hear(user), speak=state.may_speak(user))


def is_over(state: StageState) -> bool:
    """The stage ended, as the room or our own cut says. What is only feared shuts gates and sends nobody away."""
    ended = any(cut.kind == "end" for cut in state.cuts.values())
    return ended or not state.loaded or not state.room.runs(state.bot)


def may_sit(state: StageState, user: UserId | None) -> bool:
    """Whether a page of this person has a place here, as far as the room is read."""
    if is_over(state) or state.room.stage is None:
        return False
    if user is None:
        return state.room.stage.guests
    if state.is_cut(user, "kick") or state.policy.permission(user) < Permission.listen:
        return False
    return state.room.may_be_here(user)


def build(state: StageState, voices: Iterable[Voice], now: int) -> View:
    """The view for all. O(people on stage + connected pages)."""
    by_user: dict[UserId, list[Voice]] = {}
    guests = 0
    for voice in voices:
        if voice.user is None:
            guests += 1
        else:
            by_user.setdefault(voice.user, []).append(voice)
    speakers = [_person(state, user, by_user.get(user, [])) for user in state.speakers()]
    on_stage = {person.user for person in speakers}
    listeners = [user for user in by_user if user not in on_stage]
    raised = {hand.user for hand in state.hands}
    listeners.sort(key=lambda user: user not in raised)
    faces = [Face(user, state.name(user), user in raised) for user in listeners[:FACES]]
    queue = [Hand(h.user, state.name(h.user), h.ts, h.note, h.via) for h in state.hands[:100]]
    audience = Audience(len(listeners) + guests, len(state.hands), faces)
    return View(_stage_info(state, now), speakers, audience, queue, now)


def _stage_info(state: StageState, now: int) -> StageInfo:
    stage = state.stage
    status: Status = "none" if stage is None else "ended" if stage.status == "live" and is_over(state) else stage.status
    return StageInfo(
        id=stage.stage_id if stage else "",
        status=status,
        topic=stage.topic if stage else "",
        room_name=state.room.name,
        room_id=state.room_id,
        host=stage.host if stage else None,
        started_ts=stage.started_ts if stage else None,
        ended_ts=stage.ended_ts if stage else None,
        hands=stage.hands if stage else "off",
        sound=stage.sound if stage else "voice",
        server_ts=now,
    )


def _is_coming(voices: Iterable[Voice]) -> bool:
    """Wish and fact look different to everybody. Whoever is muted, away or only listens waits for no gate."""
    return any(voice.awaited for voice in voices) and not any(voice.gate.speak for voice in voices)


def _person(state: StageState, user: UserId, voices: list[Voice]) -> Person:
    on = any(voice.mic_on and voice.gate.speak for voice in voices)
    return Person(
        user=user,
        name=state.name(user),
        role=state.shown_role(user),
        mic="muted" if state.muted(user) else "on" if on else "off",
        csrc=[voice.csrc for voice in voices if voice.csrc is not None],
        connected=bool(voices),
        since=state.room.since(user),
        coming=_is_coming(voices),
    )


def guest_me(state: StageState, gate: Gate) -> Me:
    return Me(None, "", "listener", "audience", False, False, gate.hear, None, None, [], False, [])


def me(state: StageState, user: UserId | None, gate: Gate) -> Me:
    """What concerns the person who looks. Wish and fact look different: a place on stage shows only when the relay
    has opened the gate (or a moderator keeps it shut)."""
    if user is None:
        return guest_me(state, gate)
    on_stage = state.on_stage(user)
    muted = on_stage and state.muted(user)
    by = state.invitations.get(user)
    place = next((i for i, hand in enumerate(state.hands, 1) if hand.user == user), None)
    return Me(
        user=user,
        name=state.name(user),
        role=state.shown_role(user),
        place="stage" if on_stage and (gate.speak or muted) else "audience",
        muted=muted,
        can_speak=gate.speak,
        can_hear=gate.hear,
        hand=MyHand(place) if place else None,
        invited=Invitation(by, state.name(by)) if by else None,
        can=acts_of(state, user),
        may_raise=requests.why_no_hand(state, user) is None,
        left_out=[],
    )


def acts_of(state: StageState, user: UserId) -> list[Act]:
    """What the page offers; each request is judged again by the rules, for the person it is about."""
    if not state.live:
        return []
    acts: list[Act] = []
    if state.has_authority(user):
        acts += ["invite", "bring_up", "not_now", "to_audience", "mute", "unmute"]
    level = state.room.power.level(user)
    if state.has_authority(user) and level >= state.room.power.for_state(ROLE):
        acts.append("make_moderator")
        if level >= state.room.power.kick:
            acts.append("kick")
    if level >= state.room.power.for_state(STAGE) and state.room.may_be_here(user):
        acts += ["end", "topic", "sound"]
    return acts


def without_names(view: View) -> View:
    """For guests: speakers are public, listeners have no names."""
    return View(view.stage, view.speakers, Audience(view.audience.count, view.audience.hands, []), [], view.now)
