"""One 1:1 call, as its events make it. Pure: (call, event, time) → (call, what to do).

::

    their invite ──▶ UP ────────────────────────────────────────────▶ over
                     ▲  negotiate: offer ▶ answered (hold, ICE restart)
                     │  hangup of their party · answered by another device of ours · replaced by their next call
    our invite ──▶ RINGING ── answer: select_answer ──▶ UP
                     └── reject (declined) · hangup (busy, declined) · lifetime over (no answer) ──▶ over

An invite that is too old is rejected and so is one that cannot be read, never left without an answer. Who calls while
we ring them meets the rule for glare: of both calls the one with the lesser id stands (client-server API, "Glare").
We never offer in a call that is up: a client that renumbered its answer would lose its sound (design: clients.md A1).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from bridge.matrix import call_events as ev
from bridge.matrix.call_events import CallEvent, Head

Outcome = Literal["declined", "busy", "unanswered"]


@dataclass(frozen=True, slots=True)
class Call:
    """``ours``: our party id. ``theirs``: the party that we speak to; None in version 0, and while we ring."""

    head: Head
    ours: str
    phase: Literal["ringing", "up"]
    theirs: str | None = None
    until_ms: int = 0  # ringing: the invite's lifetime ends


@dataclass(frozen=True, slots=True)
class Send:
    kind: str
    content: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Connect:
    """Answer this offer from the stage; where that fails, `refused` says what to send."""

    sdp: str
    muted: bool


@dataclass(frozen=True, slots=True)
class Accept:
    """Our invite was answered."""

    sdp: str
    muted: bool


@dataclass(frozen=True, slots=True)
class Renew:
    """A further offer of the call that is up, to be answered."""

    sdp: str


@dataclass(frozen=True, slots=True)
class Microphone:
    """The person used their own client's button."""

    on: bool


@dataclass(frozen=True, slots=True)
class Leave:
    """The call that was up, or rang, is over: its seat is given up."""


@dataclass(frozen=True, slots=True)
class Rang:
    """What came of our ringing, where nobody came."""

    outcome: Outcome


Do = Send | Connect | Accept | Renew | Microphone | Leave | Rang
Step = tuple[Call | None, Sequence[Do]]


def take(call: Call | None, event: CallEvent, ours: str, now_ms: int, age_ms: int = 0) -> Step:
    """What an event of the person in the chat makes of the call there. ``ours``: a party id, should a call begin with
    it. ``age_ms``: of the event, by our homeserver's receipt."""
    if isinstance(event, ev.Invite):
        return _invited(call, event, ours, age_ms)
    if call is None or event.head.call_id != call.head.call_id:
        return call, _stray(event, ours)
    match event:
        case ev.Answer():
            return _answered(call, event)
        case ev.Selected(party=party):
            return (None, [Leave()]) if not _is_outgoing(call) and party != call.ours else (call, [])
        case ev.Ended():
            return _ended(call, event)
        case ev.Negotiate(kind="offer", sdp=sdp, muted=muted) if _is_partner(call, event.head):
            microphone = [] if muted is None else [Microphone(not muted)]
            return call, [Renew(sdp), *microphone]
        case ev.Muted(muted=bool(muted)) if _is_partner(call, event.head):
            return call, [Microphone(not muted)]
    return call, []


def ring(call_id: str, ours: str, now_ms: int) -> Call:
    """A call that we place; its invite is sent beside this."""
    return Call(Head(call_id, None, "1"), ours, "ringing", until_ms=now_ms + ev.LIFETIME_MS)


def expire(call: Call, now_ms: int) -> Step:
    """Time passed."""
    if call.phase != "ringing" or now_ms < call.until_ms:
        return call, []
    return None, [Send(*ev.hangup(call.head, call.ours, "invite_timeout")), Leave(), Rang("unanswered")]


def refused(head: Head, ours: str, reason: str) -> Send:
    """The answer to an invite that cannot be taken."""
    return Send(*ev.reject(head, ours, reason))


def hung_up(call: Call, reason: str) -> Send:
    """The end of a call by us."""
    return Send(*ev.hangup(call.head, call.ours, reason))


def _invited(call: Call | None, event: ev.Invite, ours: str, age_ms: int) -> Step:
    if call is not None and call.head.call_id == event.head.call_id:
        return call, []  # the same again
    if age_ms > event.lifetime_ms:
        return call, [refused(event.head, ours, "invite_timeout")]
    before: list[Do] = []
    if call is not None:
        if call.phase == "ringing" and call.head.call_id < event.head.call_id:
            return call, [refused(event.head, ours, "replaced")]  # their client answers ours
        before = [hung_up(call, "replaced"), Leave()]
    return Call(event.head, ours, "up", event.head.party), [*before, Connect(event.sdp, event.muted)]


def _stray(event: CallEvent, ours: str) -> list[Do]:
    """About a call we know nothing of, after a restart most likely: whoever waits for an answer is told it is over."""
    if isinstance(event, ev.Answer) or (isinstance(event, ev.Negotiate) and event.kind == "offer"):
        return [Send(*ev.hangup(event.head, ours, "unknown_error"))]
    return []


def _answered(call: Call, event: ev.Answer) -> Step:
    if call.phase != "ringing":
        return call, []  # of a second device; the first one's was taken
    up = replace(call, head=replace(call.head, version=event.head.version), phase="up", theirs=event.head.party)
    chosen = event.head.party
    selected = [Send(*ev.select(up.head, up.ours, chosen))] if chosen is not None else []
    return up, [*selected, Accept(event.sdp, event.muted)]


def _ended(call: Call, event: ev.Ended) -> Step:
    if call.phase == "up":
        return (None, [Leave()]) if _is_partner(call, event.head) else (call, [])
    outcome: Outcome = "busy" if event.reason == "user_busy" else "declined"
    others = [] if event.rejected else [hung_up(call, "user_hangup")]  # their other devices ring on otherwise
    return None, [*others, Leave(), Rang(outcome)]


def _is_outgoing(call: Call) -> bool:
    return call.until_ms > 0


def _is_partner(call: Call, head: Head) -> bool:
    return call.phase == "up" and (call.theirs is None or head.party == call.theirs)
