"""Who asks for a stage's sound beside the page: a session, a player's token, a stream's token, or a guest.

==============================  ===========================================================================
``Authorization: Bearer`` …     a page session (``session1.``) or what ``!link whep`` gives (``whep1.``)
``?t=`` …                       a stream's token (``listen1.``): for players that send no headers; listens, no more
nothing                         a guest, where the stage has guests
==============================  ===========================================================================
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from aiohttp import web

from bridge.errors import BadToken, NotFound, Refused, Unavailable
from bridge.identity.links import Hearing, LinkSigner
from bridge.ids import RoomId, StageId, UserId, parse_stage
from bridge.live.ports import Clock, Store
from bridge.live.rooms import Rooms
from bridge.live.stage import LiveStage
from bridge.web.sources import Sources

BEGIN_MS = 15 * 60_000  # a stream's token begins a stream for so long
GUEST_MS = 12 * 3_600_000


@dataclass(frozen=True, slots=True)
class Access:
    """Somebody who may ask. ``until_ms``: then what was opened ends."""

    user: UserId | None
    room: RoomId
    stage: StageId
    issued_ms: int
    until_ms: int


class Gatekeeper:
    """Finds out who asks. Whether that person may hear the stage is the live stage's to say (`LiveStage.sit`)."""

    def __init__(self, rooms: Rooms, store: Store, signer: LinkSigner, clock: Clock, sources: Sources) -> None:
        self._rooms, self._store, self._signer, self._clock = rooms, store, signer, clock
        self._sources = sources

    def now_ms(self) -> int:
        return self._clock.now_ms()

    def has_guests(self, stage_id: str) -> bool:
        """Whether anybody may hear that stage just now."""
        stage = self._rooms.of_stage(stage_id)
        return stage is not None and stage.state.live and stage.state.may_hear(None)

    async def admit(self, request: web.Request, *, by_query: bool = False) -> tuple[Access, LiveStage]:
        """Raises BadToken, NotFound, Refused, Full (guests of one source), Unavailable."""
        stage_id = parse_stage(request.match_info["stage"])
        token = bearer(request) or (request.query.get("t") if by_query else None)
        if token is None:
            self._sources.take(self._sources.of(request), asyncio.get_running_loop().time())
            return self._guest(stage_id)
        access = self.read(token, by_query=by_query)
        if access.stage != stage_id:
            raise BadToken("unknown", "this token is for another stage")
        stage = self._rooms.of_room(access.room)
        if stage is None:
            raise Refused("not-in-room")
        if not stage.state.loaded:
            raise Unavailable("this room is not ready")
        return access, stage

    def _guest(self, stage_id: StageId) -> tuple[Access, LiveStage]:
        stage = self._rooms.of_stage(stage_id)
        if stage is None or not stage.state.live:
            raise NotFound("there is no such stage, or it is over")
        if not stage.state.may_hear(None):
            raise Refused("guests-closed")
        now = self._clock.now_ms()
        return Access(None, stage.room, stage_id, now, now + GUEST_MS), stage

    def read(self, token: str, *, by_query: bool = False) -> Access:
        """A token of ours. Raises BadToken."""
        now = self._clock.now_ms()
        if token.startswith("session1."):
            session = self._signer.verify_session(token, now)
            claims = session.claims
            return Access(claims.user, claims.room, claims.stage, session.issued_ms, session.expires_ms)
        if by_query and token.startswith("listen1."):
            hearing = self._signer.verify_hearing(token, now)
            return Access(hearing.user, hearing.room, hearing.stage, hearing.issued_ms, hearing.until_ms)
        link = self._signer.verify_whep(token, now)
        return Access(link.user, link.room, link.stage, link.issued_ms, link.expires_ms)

    async def check_revoked(self, access: Access) -> None:
        """To be asked after somebody sat down: one revoked before is seen here, after it is sent away. Raises
        BadToken."""
        if access.user is None:
            return
        if access.issued_ms <= await self._store.links_revoked_before(access.user, access.room):
            raise BadToken("revoked", "this link was revoked; ask the bot for a new one")

    def hearing(self, access: Access) -> tuple[str, int]:
        """(a token that begins a stream within BEGIN_MS, until when)."""
        now = self._clock.now_ms()
        begin = min(now + BEGIN_MS, access.until_ms)
        hearing = Hearing(access.user, access.room, access.stage, access.issued_ms, begin, access.until_ms)
        return self._signer.make_hearing(hearing), begin


def bearer(request: web.Request) -> str | None:
    """The token of the Authorization header (RFC 6750 §2.1); None where there is none."""
    kind, _, token = request.headers.get("Authorization", "").partition(" ")
    return token.strip() if kind.lower() == "bearer" and token.strip() else None
