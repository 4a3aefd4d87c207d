"""Ids: each kind of id text is parsed and made in this file only.

Matrix ids follow the Matrix specification v1.15, appendix "Identifier Grammar": a user id is
``@localpart:server``, a room id ``!opaque[:server]`` (room version 12 has no server part,
MSC4291), an event id ``$opaque[:server]``. Ids of our own are random and URL-safe.
"""

from __future__ import annotations

import re
import secrets
from typing import NewType

from bridge.errors import BadInput

RoomId = NewType("RoomId", str)
UserId = NewType("UserId", str)
EventId = NewType("EventId", str)
ServerName = NewType("ServerName", str)
StageId = NewType("StageId", str)
"""128 random bits, 22 characters of base64url: a stage id cannot be guessed."""
SessionId = NewType("SessionId", str)
PeerId = NewType("PeerId", str)
"""One media connection; a person with two devices has two."""

_USER = re.compile(r"@[^:\x00\s]{1,230}:(?P<server>[0-9A-Za-z.\-\[\]:]{1,230})\Z")
_OWN = re.compile(r"[A-Za-z0-9_-]{16,43}\Z")
_MAX_ID = 255  # bytes; Matrix specification, appendix "Common Identifier Format"


def _size(text: str) -> int:
    """Bytes; a lone surrogate, which JSON can carry and UTF-8 cannot, makes a text too long for every id."""
    try:
        return len(text.encode())
    except UnicodeEncodeError:
        return _MAX_ID + 1


def parse_user(text: object, field: str = "user") -> UserId:
    """Return ``text`` as a user id. Raises BadInput naming ``field``."""
    if not isinstance(text, str) or _size(text) > _MAX_ID or not _USER.match(text):
        raise BadInput(field, text, "give a full Matrix user id such as @ava:example.org")
    return UserId(text)


def parse_room(text: object, field: str = "room_id") -> RoomId:
    """Return ``text`` as a room id. Raises BadInput naming ``field``."""
    if not isinstance(text, str) or not text.startswith("!") or not 2 <= _size(text) <= _MAX_ID:
        raise BadInput(field, text, "give a room id, which begins with '!'")
    return RoomId(text)


def parse_event(text: object, field: str = "event_id") -> EventId:
    """Return ``text`` as an event id. Raises BadInput naming ``field``."""
    if not isinstance(text, str) or not text.startswith("$") or not 2 <= _size(text) <= _MAX_ID:
        raise BadInput(field, text, "give an event id, which begins with '$'")
    return EventId(text)


def parse_stage(text: object, field: str = "stage_id") -> StageId:
    """Return ``text`` as a stage id. Raises BadInput naming ``field``."""
    if not isinstance(text, str) or not _OWN.match(text):
        raise BadInput(field, text, "use the stage id of a link that the bot made")
    return StageId(text)


def server_of(user: UserId) -> ServerName:
    """The server part of a user id, with its port if it has one."""
    return ServerName(user.split(":", 1)[1])


def localpart_of(user: UserId) -> str:
    """The part between ``@`` and the first ``:``."""
    return user[1:].split(":", 1)[0]


def role_key(user: UserId) -> str:
    """State key for a grant about ``user``: one that begins with ``@`` would be writable by that
    user alone (client-server API, "State event fields"), hence the underscore."""
    return f"_{user}"


def user_of_role_key(key: str) -> UserId:
    """The user whom the state key of a role event is about. Raises BadInput."""
    if not key.startswith("_@"):
        raise BadInput("state_key", key, "the state key of a role is '_' followed by the user id")
    return parse_user(key[1:], "state_key")


def new_stage_id() -> StageId:
    return StageId(secrets.token_urlsafe(16))


def new_session_id() -> SessionId:
    return SessionId(secrets.token_urlsafe(16))


def new_peer_id() -> PeerId:
    return PeerId(secrets.token_urlsafe(9))


def new_txn_id() -> str:
    """A transaction id for one write to the homeserver; stable over its retries."""
    return "eyvan-" + secrets.token_urlsafe(12)
