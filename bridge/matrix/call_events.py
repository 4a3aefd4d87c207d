"""Contents of ``m.call.*`` events ↔ types (Matrix specification v1.15, client-server API, "Voice over IP").

=========================  =====================================================================================
``m.call.invite``          `Invite`: an SDP offer, good for ``lifetime`` ms
``m.call.answer``          `Answer`: of one of the called person's devices, its ``party_id``
``m.call.select_answer``   `Selected`: which device's answer the caller took (version 1)
``m.call.negotiate``       `Negotiate`: a further offer or answer of a call that is up (version 1): hold, ICE restart
``m.call.reject``          `Ended`, before an answer (version 1; in version 0 a hangup is one)
``m.call.hangup``          `Ended`
``m.call.sdp_stream_…``    `Muted`: what the client's own microphone button says (MSC3077, MSC3291)
``m.call.candidates``      passed over: an ICE-lite answerer learns addresses from checks (RFC 8445 §7.3.1.3)
=========================  =====================================================================================

Version 0 is the number 0 and names no parties; version 1 is the text "1".
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from bridge.errors import BadInput
from bridge.ids import UserId
from bridge.rules.content import is_encodable

INVITE, ANSWER, NEGOTIATE = "m.call.invite", "m.call.answer", "m.call.negotiate"
SELECT, REJECT, HANGUP, CANDIDATES = "m.call.select_answer", "m.call.reject", "m.call.hangup", "m.call.candidates"
_MUTED = ("m.call.sdp_stream_metadata_changed", "org.matrix.call.sdp_stream_metadata_changed")
KINDS = frozenset({INVITE, ANSWER, NEGOTIATE, SELECT, REJECT, HANGUP, CANDIDATES, *_MUTED})

LIFETIME_MS = 60_000
"""Of the invites we send, and of those that do not say."""
_LONGEST_MS = 300_000  # a lifetime beyond it counts as this
_MAX_TEXT = 255
_MAX_SDP = 64 * 1024
_METADATA = ("sdp_stream_metadata", "org.matrix.msc3077.sdp_stream_metadata")
STREAM = "eyvan"
"""The id of our media stream, as our SDP has it (RFC 8830)."""

Version = Literal[0, "1"]


@dataclass(frozen=True, slots=True)
class Head:
    """What each event of a call has. ``party``: the sender's device; None in version 0."""

    call_id: str
    party: str | None
    version: Version


@dataclass(frozen=True, slots=True)
class Invite:
    head: Head
    sdp: str
    lifetime_ms: int = LIFETIME_MS
    invitee: UserId | None = None
    muted: bool = False


@dataclass(frozen=True, slots=True)
class Answer:
    head: Head
    sdp: str
    muted: bool = False


@dataclass(frozen=True, slots=True)
class Selected:
    head: Head
    party: str


@dataclass(frozen=True, slots=True)
class Negotiate:
    head: Head
    kind: Literal["offer", "answer"]
    sdp: str
    muted: bool | None = None


@dataclass(frozen=True, slots=True)
class Muted:
    head: Head
    muted: bool | None


@dataclass(frozen=True, slots=True)
class Ended:
    """``rejected``: by m.call.reject, which holds for all devices of who sends it."""

    head: Head
    reason: str
    rejected: bool = False


CallEvent = Invite | Answer | Selected | Negotiate | Muted | Ended


# -- in -----------------------------------------------------------------------------------------


def parse_head(content: Mapping[str, Any]) -> Head:
    """Raises BadInput naming the field: without a call id there is no call to answer."""
    version = content.get("version", 0)
    is_old = version in (0, "0") and not isinstance(version, bool)  # later ones are to be read as the newest one known
    party = content.get("party_id")
    known = None if is_old or party is None else _text(party, "party_id")
    return Head(_text(content.get("call_id"), "call_id"), known, 0 if is_old else "1")


def parse(kind: str, head: Head, content: Mapping[str, Any]) -> CallEvent | None:
    """The event; None for one that asks for nothing. Raises BadInput naming the field."""
    muted = _is_muted(content)
    match kind:
        case "m.call.invite":
            invitee = content.get("invitee")
            named = UserId(_text(invitee, "invitee")) if invitee is not None else None
            return Invite(head, _sdp(content, "offer"), _lifetime(content.get("lifetime")), named, bool(muted))
        case "m.call.answer":
            return Answer(head, _sdp(content, "answer"), bool(muted))
        case "m.call.select_answer":
            return Selected(head, _text(content.get("selected_party_id"), "selected_party_id"))
        case "m.call.negotiate":
            described = content.get("description")
            said = described.get("type") if isinstance(described, Mapping) else None
            if said not in ("offer", "answer"):
                raise BadInput("description.type", said, "give offer or answer")
            return Negotiate(head, said, _sdp(content, "description"), muted)
        case "m.call.reject" | "m.call.hangup":
            reason = content.get("reason")
            text = reason if isinstance(reason, str) and len(reason) <= _MAX_TEXT else "user_hangup"
            return Ended(head, text, kind == REJECT)
        case "m.call.candidates":
            return None
    return Muted(head, muted) if kind in _MUTED else None


def _text(value: object, field: str) -> str:
    if not isinstance(value, str) or not 1 <= len(value) <= _MAX_TEXT or not is_encodable(value):
        raise BadInput(field, value, f"give a text of 1 to {_MAX_TEXT} characters")
    return value


def _sdp(content: Mapping[str, Any], field: str) -> str:
    described = content.get(field)
    sdp = described.get("sdp") if isinstance(described, Mapping) else None
    if not isinstance(sdp, str) or not 1 <= len(sdp) <= _MAX_SDP or not is_encodable(sdp):
        raise BadInput(f"{field}.sdp", sdp, "give a session description of at most 64 KiB")
    return sdp


def _lifetime(value: object) -> int:
    if value is None:
        return LIFETIME_MS
    if not isinstance(value, int) or isinstance(value, bool) or value <= 0:
        raise BadInput("lifetime", value, "give milliseconds, more than none")
    return min(value, _LONGEST_MS)


def _is_muted(content: Mapping[str, Any]) -> bool | None:
    """Whether the microphone of their user media is off; None where nothing is said."""
    for name in _METADATA:
        streams = content.get(name)
        for each in streams.values() if isinstance(streams, Mapping) else ():
            if isinstance(each, Mapping) and isinstance(each.get("audio_muted"), bool):
                return bool(each["audio_muted"])
    return None


# -- out ----------------------------------------------------------------------------------------


def _content(head: Head, ours: str, **more: Any) -> dict[str, Any]:
    base: dict[str, Any] = {"call_id": head.call_id, "version": head.version}
    return base | ({} if head.version == 0 else {"party_id": ours}) | more


def _sound() -> dict[str, Any]:
    stream = {"purpose": "m.usermedia", "audio_muted": False, "video_muted": True}
    abilities = {"m.call.transferee": False, "m.call.dtmf": True}
    return {"capabilities": abilities, **{name: {STREAM: stream} for name in _METADATA}}


def invite(head: Head, ours: str, sdp: str, invitee: UserId) -> tuple[str, dict[str, Any]]:
    offer = {"type": "offer", "sdp": sdp}
    return INVITE, _content(head, ours, lifetime=LIFETIME_MS, offer=offer, invitee=invitee, **_sound())


def answer(head: Head, ours: str, sdp: str) -> tuple[str, dict[str, Any]]:
    return ANSWER, _content(head, ours, answer={"type": "answer", "sdp": sdp}, **_sound())


def negotiate(head: Head, ours: str, sdp: str) -> tuple[str, dict[str, Any]]:
    described = {"type": "answer", "sdp": sdp}
    return NEGOTIATE, _content(head, ours, lifetime=LIFETIME_MS, description=described, **_sound())


def select(head: Head, ours: str, party: str) -> tuple[str, dict[str, Any]]:
    return SELECT, _content(head, ours, selected_party_id=party)


def hangup(head: Head, ours: str, reason: str) -> tuple[str, dict[str, Any]]:
    return HANGUP, _content(head, ours, reason=reason)


def reject(head: Head, ours: str, reason: str) -> tuple[str, dict[str, Any]]:
    """To an invite that is not answered. Version 0 knows no reject; a caller of version 1 looks at no hangup before an
    answer."""
    kind = HANGUP if head.version == 0 else REJECT
    return kind, _content(head, ours, reason=reason)
