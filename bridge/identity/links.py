"""Personal links and page sessions: signed, versioned texts that need no table to be checked.

::

    token   = kind "1." payload "." tag
    kind    = "link" | "session" | "whep" | "listen"
    payload = base64url(UTF-8 JSON array), without padding (RFC 4648 §5)
    tag     = base64url(HMAC-SHA256(key of kind, kind "1." payload)), without padding

The key of each kind is HMAC-SHA256(secret, "eyvan " kind " 1"), so a link is never good as a session. A later
version gets another number and may be read beside this one. A token stands in a URL's fragment: it is never sent to
a server by following the link. Tokens are bearer secrets: ``telemetry`` hides them by their form.

A link names a user, a room and a stage. Whether the user is in the room now, whether the link was revoked and how
many devices opened it is asked of the room and the store by the caller.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import re
import secrets
from dataclasses import dataclass
from typing import Any, Literal, get_args

from bridge.errors import BadToken, ConfigError
from bridge.ids import RoomId, SessionId, StageId, UserId, parse_room, parse_stage, parse_user

Kind = Literal["link", "session", "whep", "listen"]

MAX_TOKEN = 4608
"""Characters; two Matrix ids of 255 bytes stay below, even if JSON escapes every one of them."""

_HOUR_MS = 3_600_000
_FORM = re.compile(r"([a-z]+)1\.([A-Za-z0-9_-]+)\.([A-Za-z0-9_-]{43})\Z")
_ALTERED = "this link was altered or is not whole; ask for a new one"
_EXPIRED = "this link has expired; ask for a new one"


@dataclass(frozen=True, slots=True)
class Link:
    """What a personal link says. ``user`` None: a guest's."""

    id: str
    user: UserId | None
    room: RoomId
    stage: StageId
    issued_ms: int
    expires_ms: int


@dataclass(frozen=True, slots=True)
class Hearing:
    """What a token for one stream says: it lets ``user`` (None: a guest) listen to one stage, and nothing else. The
    stream begins before ``expires_ms`` and ends at ``until_ms``."""

    user: UserId | None
    room: RoomId
    stage: StageId
    issued_ms: int
    expires_ms: int
    until_ms: int


@dataclass(frozen=True, slots=True)
class SessionClaims:
    """What a page session says. ``link_id`` and ``device_hash``: by which link and device it came, if by one.
    ``openid``: by the word of the person's own homeserver, in a widget."""

    session_id: SessionId
    user: UserId | None
    room: RoomId
    stage: StageId
    link_id: str | None = None
    device_hash: str | None = None
    openid: bool = False


@dataclass(frozen=True, slots=True)
class Session:
    claims: SessionClaims
    issued_ms: int
    expires_ms: int


class LinkSigner:
    """Makes and checks links and sessions under one secret of at least 32 characters. No state, no I/O."""

    def __init__(self, secret: str) -> None:
        if len(secret) < 32:
            raise ConfigError("web.link_secret: (secret) cannot be used; give at least 32 random characters")
        self._keys = {
            kind: hmac.digest(secret.encode(), f"eyvan {kind} 1".encode(), "sha256") for kind in get_args(Kind)
        }

    def make(self, user: UserId | None, room: RoomId, stage: StageId, now_ms: int, hours: int) -> str:
        """A new link, good for ``hours`` from ``now_ms`` (ms since the epoch)."""
        fields = [secrets.token_urlsafe(12), user, room, stage, now_ms, now_ms + hours * _HOUR_MS]
        return self._sign("link", fields)

    def verify(self, token: object, now_ms: int) -> Link:
        """Raises BadToken: ``altered`` (also: of another secret or kind), ``expired``."""
        return self._link("link", token, now_ms)

    def make_whep(self, user: UserId, room: RoomId, stage: StageId, now_ms: int, hours: int) -> str:
        """A bearer token for players (WHEP and the Ogg stream): it lets that person listen, and nothing else."""
        fields = [secrets.token_urlsafe(12), user, room, stage, now_ms, now_ms + hours * _HOUR_MS]
        return self._sign("whep", fields)

    def verify_whep(self, token: object, now_ms: int) -> Link:
        """Raises as `verify`."""
        return self._link("whep", token, now_ms)

    def make_hearing(self, hearing: Hearing) -> str:
        h = hearing
        return self._sign("listen", [h.user, h.room, h.stage, h.issued_ms, h.expires_ms, h.until_ms])

    def verify_hearing(self, token: object, now_ms: int) -> Hearing:
        """Raises BadToken: ``altered``, ``expired``."""
        match self._open("listen", token):
            case [user, room, stage, int() as issued, int() as expires, int() as until]:
                hearing = Hearing(_user(user), parse_room(room), parse_stage(stage), issued, expires, until)
            case _:
                raise BadToken("altered", _ALTERED)
        _check_time(min(expires, until), now_ms)
        return hearing

    def _link(self, kind: Kind, token: object, now_ms: int) -> Link:
        match self._open(kind, token):
            case [str() as own, user, room, stage, int() as issued, int() as expires]:
                link = Link(own, _user(user), parse_room(room), parse_stage(stage), issued, expires)
            case _:
                raise BadToken("altered", _ALTERED)
        _check_time(link.expires_ms, now_ms)
        return link

    def make_session(self, claims: SessionClaims, now_ms: int, expires_ms: int) -> str:
        """``expires_ms``: ms since the epoch; a session from a link shall not outlive it."""
        c = claims
        fields = [c.session_id, c.user, c.room, c.stage, c.link_id, c.device_hash, now_ms, expires_ms, c.openid]
        return self._sign("session", fields)

    def verify_session(self, token: object, now_ms: int) -> Session:
        """Raises BadToken: ``altered``, ``expired``."""
        match self._open("session", token):
            case [str() as own, user, room, stage, link_id, device, int() as issued, int() as expires, *rest]:
                ids = (SessionId(own), _user(user), parse_room(room), parse_stage(stage), _text(link_id), _text(device))
                session = Session(SessionClaims(*ids, openid=rest == [True]), issued, expires)
            case _:
                raise BadToken("altered", _ALTERED)
        _check_time(session.expires_ms, now_ms)
        return session

    def _sign(self, kind: Kind, fields: list[Any]) -> str:
        payload = _encode(json.dumps(fields, ensure_ascii=False, separators=(",", ":")).encode())
        head = f"{kind}1.{payload}"
        return f"{head}.{_encode(self._tag(kind, head))}"

    def _tag(self, kind: Kind, head: str) -> bytes:
        return hmac.digest(self._keys[kind], head.encode(), "sha256")

    def _open(self, kind: Kind, token: object) -> Any:
        """The payload of an unaltered token. Nothing of it is read before the tag is found right."""
        parts = _FORM.match(token) if isinstance(token, str) and len(token) <= MAX_TOKEN else None
        if parts is None or parts[1] != kind:
            raise BadToken("altered", _ALTERED)
        head = f"{kind}1.{parts[2]}"
        # The text is compared, not what it decodes to: the last character of base64 has bits that decode to nothing.
        if not hmac.compare_digest(_encode(self._tag(kind, head)), parts[3]):
            raise BadToken("altered", _ALTERED)
        return json.loads(_decode(parts[2]))


def new_device() -> str:
    """A secret for one device, given to it once, at its first exchange of a link."""
    return secrets.token_urlsafe(24)


def device_hash(device: str) -> str:
    """What is kept of a device's secret: it has 192 random bits, so a plain hash does."""
    return hashlib.sha256(device.encode()).hexdigest()


def _user(value: object) -> UserId | None:
    return None if value is None else parse_user(value)


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None


def _check_time(expires_ms: int, now_ms: int) -> None:
    if now_ms >= expires_ms:
        raise BadToken("expired", _EXPIRED)


def _encode(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _decode(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
