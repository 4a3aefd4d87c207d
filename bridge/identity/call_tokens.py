"""Tokens with which a MatrixRTC client opens its call: LiveKit's JWT (RFC 7519, HS256), for at most a minute, once.

The token stands in a URL (LiveKit's clients know no other way), so it may be read in a proxy's log: by then it has
been used or has expired.
"""

from __future__ import annotations

import contextlib
import hmac
import secrets
from dataclasses import dataclass

import jwt
from jwt.types import Options

from bridge.errors import BadInput, BadToken
from bridge.ids import RoomId, StageId, UserId, parse_room, parse_stage, parse_user

LIFE_S = 60
_MAX_TOKEN = 4096  # characters
_ISSUER = "eyvan"


@dataclass(frozen=True, slots=True)
class Call:
    """Who calls with which device. ``identity``: the name under which LiveKit's clients know them."""

    identity: str
    user: UserId
    device: str
    room: RoomId
    stage: StageId


class CallTokens:
    """Makes, checks and spends call tokens. Bound: spent ones are kept until they expire, and each was issued here."""

    def __init__(self, secret: str) -> None:
        self._key = hmac.digest(secret.encode(), b"eyvan call 1", "sha256")
        self._spent: dict[str, int] = {}  # jti → exp, in order of spending

    def make(self, call: Call, now_ms: int, *, may_speak: bool) -> str:
        """``may_speak`` is for the client to read; the room's state decides."""
        now = now_ms // 1000
        claims = {
            "iss": _ISSUER,
            "sub": call.identity,
            "jti": secrets.token_urlsafe(12),
            "nbf": now - 5,
            "exp": now + LIFE_S,
            "video": {"room": call.room, "roomJoin": True, "canSubscribe": True, "canPublish": may_speak},
            "eyvan": [call.user, call.device, call.stage],
        }
        return jwt.encode(claims, self._key, algorithm="HS256")

    def verify(self, token: object, now_ms: int) -> Call:
        """Whose token it is, without spending it. Raises BadToken: ``altered``, ``expired``, ``used``."""
        return self._open(token, now_ms)[0]

    def spend(self, token: object, now_ms: int) -> Call:
        """Takes it: a second time it is BadToken ``used``."""
        call, number, expires = self._open(token, now_ms)
        self._spent[number] = expires
        now = now_ms // 1000
        for spent in [each for each, end in self._spent.items() if end <= now]:
            del self._spent[spent]
        return call

    def give_back(self, token: str, now_ms: int) -> None:
        """What was spent for nothing may be tried again."""
        with contextlib.suppress(BadToken):
            self._spent.pop(self._open(token, now_ms, spent=True)[1], None)

    def _open(self, token: object, now_ms: int, *, spent: bool = False) -> tuple[Call, str, int]:
        if not isinstance(token, str) or len(token) > _MAX_TOKEN:
            raise BadToken("altered", "this call token is not whole; ask for a new one")
        options: Options = {
            "verify_exp": False,
            "verify_nbf": False,
            "verify_iat": False,
            "require": ["exp", "sub", "jti"],
        }
        try:
            claims = jwt.decode(token, self._key, algorithms=["HS256"], issuer=_ISSUER, options=options)
            user, device, stage = claims["eyvan"]
            room = parse_room(claims["video"]["room"])
            call = Call(claims["sub"], parse_user(user), str(device), room, parse_stage(stage))
            number, expires = str(claims["jti"]), int(claims["exp"])
        except (jwt.InvalidTokenError, KeyError, TypeError, ValueError, BadInput):
            raise BadToken("altered", "this call token is not one of ours; ask for a new one") from None
        if expires <= now_ms // 1000:
            raise BadToken("expired", "this call token has expired; ask for a new one")
        if number in self._spent and not spent:
            raise BadToken("used", "this call token was used before; ask for a new one")
        return call, number, expires
