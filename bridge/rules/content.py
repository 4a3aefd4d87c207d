"""Contents of Eyvan's own events ↔ types. The only file with their names.

=====================  =============  =======================================================
type                   state key      content
=====================  =============  =======================================================
``im.eyvan.stage``     ``""``         `StageContent`
``im.eyvan.role``      ``_@user:hs``  `RoleContent`; ``{}`` takes the role back
``im.eyvan.queue``     ``""``         ``{stage_id, total, hands: [{user, ts, via, note?} … 100], seq}``, bot only
``im.eyvan.hand``      message        ``{raised: bool, note?}``, or state under the person's own id
=====================  =============  =======================================================

Parsers raise BadInput naming the field; they take what other writers plausibly send and nothing else.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeGuard

from bridge.errors import BadInput
from bridge.ids import EventId, StageId, UserId, parse_stage, parse_user

NAMESPACE = "im.eyvan."
STAGE = NAMESPACE + "stage"
ROLE = NAMESPACE + "role"
QUEUE = NAMESPACE + "queue"
HAND = NAMESPACE + "hand"

MEMBER = "m.room.member"
POWER_LEVELS = "m.room.power_levels"
CREATE = "m.room.create"
SERVER_ACL = "m.room.server_acl"
JOIN_RULES = "m.room.join_rules"
NAME = "m.room.name"
ENCRYPTION = "m.room.encryption"
TOMBSTONE = "m.room.tombstone"

WATCHED = frozenset(
    {STAGE, ROLE, HAND, MEMBER, POWER_LEVELS, CREATE, SERVER_ACL, JOIN_RULES, NAME, ENCRYPTION, TOMBSTONE}
)
"""State types that say something about a stage; all others are passed over."""

NOTE_LENGTH = 140  # characters
TOPIC_LENGTH = 250
NAME_LENGTH = 100
QUEUE_SHOWN = 100

RoleName = Literal["moderator", "speaker", "listener"]
Status = Literal["scheduled", "live", "ended"]
HandsPolicy = Literal["everyone", "members", "off"]
Sound = Literal["voice", "music", "low"]
SOUNDS: tuple[Sound, ...] = ("voice", "music", "low")
Language = Literal["en", "fa"]
LANGUAGES: tuple[Language, ...] = ("en", "fa")
Via = Literal["reaction", "command", "web", "event", "call"]


@dataclass(frozen=True, slots=True)
class StateEvent:
    """A state event, checked for shape only. ``ts``: ms, the sender's claim."""

    kind: str
    key: str
    sender: str
    content: Mapping[str, Any]
    event_id: EventId
    ts: int = 0


@dataclass(frozen=True, slots=True)
class StageContent:
    status: Status
    stage_id: StageId
    host: UserId | None = None
    topic: str = ""
    started_ts: int | None = None  # ms since the epoch
    ended_ts: int | None = None
    hands: HandsPolicy = "everyone"
    speaker_limit: int = 20
    guests: bool = False
    bot: UserId | None = None
    sound: Sound = "voice"
    """In the event: ``music: true`` (stereo, 128 kbit/s, not evened), ``low: true`` (24 kbit/s), or neither."""
    language: Language | None = None
    """Of what the bot says in the room and about it; None: as the bot is set."""


@dataclass(frozen=True, slots=True)
class RoleContent:
    role: RoleName
    muted: bool = False
    stage_id: StageId | None = None
    """None: a standing role, good for every stage of the room."""
    reason: str = ""
    by: UserId | None = None
    via: str = ""


def state_event(raw: Mapping[str, Any]) -> StateEvent:
    """A raw state event. Raises BadInput naming the field."""
    for name in ("type", "sender", "event_id"):
        if not isinstance(raw.get(name), str):
            raise BadInput(name, raw.get(name), "every event has this as text")
    key, content, ts = raw.get("state_key"), raw.get("content"), raw.get("origin_server_ts")
    if not isinstance(key, str) or not is_encodable(key):
        raise BadInput("state_key", key, "a state event has a state key")
    if not isinstance(content, Mapping):
        raise BadInput("content", content, "send an object")
    return StateEvent(raw["type"], key, raw["sender"], content, EventId(raw["event_id"]), ts if _is_ms(ts) else 0)


def parse_stage_content(content: Mapping[str, Any]) -> StageContent | None:
    """None for ``{}``. Raises BadInput."""
    if not content:
        return None
    status = _one_of(content, "status", ("scheduled", "live", "ended"), None)
    host, bot = content.get("host"), content.get("bot")
    limit = content.get("speaker_limit", 20)
    if not isinstance(limit, int) or isinstance(limit, bool) or not 1 <= limit <= 1000:
        raise BadInput("speaker_limit", limit, "give a whole number from 1 to 1000")
    return StageContent(
        status=status,
        stage_id=parse_stage(content.get("stage_id")),
        host=None if host is None else _user(host, "host"),
        topic=_text(content, "topic", TOPIC_LENGTH),
        started_ts=_ms(content, "started_ts"),
        ended_ts=_ms(content, "ended_ts"),
        hands=_one_of(content, "hands", ("everyone", "members", "off"), "everyone"),
        speaker_limit=limit,
        guests=_flag(content, "guests"),
        bot=None if bot is None else _user(bot, "bot"),
        sound=_sound(content),
        language=next((each for each in LANGUAGES if each == content.get("language")), None),
    )


def _sound(content: Mapping[str, Any]) -> Sound:
    music, low = _flag(content, "music"), _flag(content, "low")
    if music and low:
        raise BadInput("low", low, "a stage is for music or low, not both")
    return "music" if music else "low" if low else "voice"


def stage_content(stage: StageContent) -> dict[str, Any]:
    content: dict[str, Any] = {
        "status": stage.status,
        "stage_id": stage.stage_id,
        "topic": stage.topic,
        "hands": stage.hands,
        "speaker_limit": stage.speaker_limit,
        "guests": stage.guests,
    }
    if stage.sound != "voice":
        content[stage.sound] = True
    optional = {
        "host": stage.host,
        "bot": stage.bot,
        "started_ts": stage.started_ts,
        "ended_ts": stage.ended_ts,
        "language": stage.language,
    }
    return content | {name: value for name, value in optional.items() if value is not None}


def parse_role_content(content: Mapping[str, Any]) -> RoleContent | None:
    """None for ``{}``: back to the default. Raises BadInput."""
    if not content:
        return None
    stage, by = content.get("stage_id"), content.get("by")
    return RoleContent(
        role=_one_of(content, "role", ("moderator", "speaker", "listener"), None),
        muted=_flag(content, "muted"),
        stage_id=None if stage is None else parse_stage(stage),
        reason=_text(content, "reason", TOPIC_LENGTH),
        by=None if by is None else _user(by, "by"),
        via=_text(content, "via", 20),
    )


def role_content(role: RoleContent) -> dict[str, Any]:
    content: dict[str, Any] = {"role": role.role, "muted": role.muted}
    optional = {"stage_id": role.stage_id, "by": role.by, "via": role.via, "reason": role.reason}
    return content | {name: value for name, value in optional.items() if value}


def queue_content(stage_id: StageId, seq: int, hands: Sequence[tuple[UserId, int, Via, str]]) -> dict[str, Any]:
    """``hands``: (user, ts in ms, via, note), next to speak first."""
    return {
        "stage_id": stage_id,
        "seq": seq,
        "total": len(hands),
        "hands": [
            {"user": user, "ts": ts, "via": via} | ({"note": note} if note else {})
            for user, ts, via, note in hands[:QUEUE_SHOWN]
        ],
    }


def parse_hand(content: Mapping[str, Any]) -> tuple[bool, str]:
    """(raised, note) of an ``im.eyvan.hand``; ``{}`` is lowered. Raises BadInput."""
    return _flag(content, "raised"), clean_text(_text(content, "note", 10 * NOTE_LENGTH), NOTE_LENGTH)


def is_hand_emoji(key: object) -> bool:
    """Whether a reaction's key raises a hand: ✋ 🖐 🤚 🙋 with any variation selector, skin tone or gender."""
    return _bare_emoji(key) in {"✋", "🖐", "🤚", "🙋"}


def is_call_emoji(key: object) -> bool:
    """Whether a reaction's key asks for a call: 📞 ☎ 📱."""
    return _bare_emoji(key) in {"📞", "☎", "📱"}


def is_yes_emoji(key: object) -> bool:
    """Whether a reaction's key says yes: 👍 ✅ ✔, in any skin tone."""
    return _bare_emoji(key) in {"👍", "✅", "✔"}


def _bare_emoji(key: object) -> str:
    if not isinstance(key, str) or len(key) > 12:
        return ""
    return "".join(c for c in key if c not in "\ufe0f\ufe0e\u200d♀♂" and not "\U0001f3fb" <= c <= "\U0001f3ff")


def clean_text(text: str, limit: int) -> str:
    """One line of at most ``limit`` characters, without control characters and bidirectional overrides.

    Zero-width joiners stay, as Persian needs them, but not where there is nothing to join."""
    kept = "".join(
        " " if c.isspace() else c
        for c in text
        if c.isspace() or c in _JOINERS or unicodedata.category(c) not in _UNSEEN
    )
    line = " ".join(kept.split())[:limit].strip()
    return line if line.strip(_JOINERS + " ") else ""


_JOINERS = "\u200c\u200d"


_UNSEEN = {"Cc", "Cf", "Cs", "Co", "Cn"}


def _user(value: object, name: str) -> UserId:
    """JSON can hold half a surrogate pair, which no UTF-8 can."""
    if isinstance(value, str) and not is_encodable(value):
        raise BadInput(name, value, "give a full Matrix user id such as @ava:example.org")
    return parse_user(value, name)


def is_encodable(text: str) -> bool:
    return not any("\ud800" <= c <= "\udfff" for c in text)


def _is_ms(value: object) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**53


def _ms(content: Mapping[str, Any], name: str) -> int | None:
    value = content.get(name)
    if value is not None and not _is_ms(value):
        raise BadInput(name, value, "give milliseconds since the epoch as a whole number")
    return value


def _flag(content: Mapping[str, Any], name: str) -> bool:
    value = content.get(name, False)
    if not isinstance(value, bool):
        raise BadInput(name, value, "give true or false")
    return value


def _text(content: Mapping[str, Any], name: str, limit: int) -> str:
    value = content.get(name, "")
    if not isinstance(value, str):
        raise BadInput(name, value, "give text")
    return clean_text(value, limit)


def _one_of(content: Mapping[str, Any], name: str, choices: tuple[str, ...], default: str | None) -> Any:
    value = content.get(name, default)
    if value not in choices:
        raise BadInput(name, value, "use one of " + ", ".join(choices))
    return value
