"""The bot as a member of the call in every room with a live stage (MSC4143, as ``org.matrix.msc3401.call.member``).

Element Call asks the service named in a member's state for sound, and plays only who is a member. So the state stands
while the stage is live, is written again before it expires, and is emptied when the stage is over.

What should stand is compared with what does, once a second; a write that fails is made again.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from bridge.errors import EyvanError, MatrixRefused
from bridge.ids import RoomId, UserId, new_txn_id
from bridge.live.card import html_of, plain_of
from bridge.live.ports import Clock, Matrix
from bridge.live.rooms import Rooms
from bridge.live.stage import LiveStage
from bridge.matrix.looking import Looking
from bridge.rules.inputs import Asked
from bridge.text import Lang, say

log = logging.getLogger(__name__)

KIND = "org.matrix.msc3401.call.member"
DEVICE = "STAGE"
EXPIRES_MS = 4 * 3_600_000
REFRESH_MS = EXPIRES_MS // 2
_AGAIN_MS = 30_000


def state_key(bot: str) -> str:
    return f"_{bot}_{DEVICE}_m.call"


def member_content(bot: str, service: str, room: str, created_ms: int, now_ms: int) -> dict[str, Any]:
    """The state of a membership that began at ``created_ms`` and is good for four hours from ``now_ms``."""
    return {
        "application": "m.call",
        "call_id": "",
        "scope": "m.room",
        "device_id": DEVICE,
        "membershipID": f"{bot}:{DEVICE}",
        "created_ts": created_ms,
        "expires": now_ms - created_ms + EXPIRES_MS,
        "m.call.intent": "audio",
        "focus_active": {"type": "livekit", "focus_selection": "multi_sfu"},
        "foci_preferred": [{"type": "livekit", "livekit_service_url": service, "livekit_alias": room}],
    }


async def tell_of_encryption(matrix: Matrix, lang: Lang, stage: LiveStage, user: UserId) -> None:
    """In their chat: why an encrypted room has no call, and the link to the page, which works there as everywhere."""
    text = say(lang, "call-encrypted")
    await matrix.tell(user, plain_of(text), html_of(text))
    await stage.ask(Asked(user, "link", "call", f"call link {new_txn_id()}"))


class _Standing:
    """What the bot's membership in one room is, as far as we know."""

    __slots__ = ("again_ms", "created_ms", "member", "stage", "written_ms")

    def __init__(self, member: bool) -> None:
        self.member = member
        self.stage: str | None = None  # for which it was written
        self.created_ms = self.written_ms = self.again_ms = 0


class CallMembership:
    """Owns one task, joined by ``close`` (harmless twice). Bound: one entry a room that the bot is in.

    A bridge that stops leaves its memberships: it is back in a moment, and they expire."""

    def __init__(self, bot: UserId, service: str, rooms: Rooms, matrix: Matrix, clock: Clock, lang: Lang) -> None:
        self._bot, self._service, self._rooms, self._matrix, self._clock = bot, service, rooms, matrix, clock
        self._lang = lang
        self._standing: dict[RoomId, _Standing] = {}
        self._looking = Looking(self.look, "call membership")

    def start(self) -> None:
        self._looking.start()

    async def close(self) -> None:
        await self._looking.close()

    async def look(self) -> None:
        """Make every room what it should be, once."""
        stages = {stage.room: stage for stage in self._rooms.all() if stage.state.loaded}
        for room in self._standing.keys() - stages.keys():
            del self._standing[room]
        for room, stage in stages.items():
            if room in self._standing and self._clock.now_ms() < self._standing[room].again_ms:
                continue
            try:
                await self._align(room, stage)
            except EyvanError as error:
                self._standing.setdefault(room, _Standing(True)).again_ms = self._clock.now_ms() + _AGAIN_MS
                level = logging.WARNING if isinstance(error, MatrixRefused) else logging.INFO
                log.log(level, "room %s: the bot's call membership is not as it should be: %s", room, error)

    async def _align(self, room: RoomId, stage: LiveStage) -> None:
        state, now = stage.state, self._clock.now_ms()
        wanted = stage.stage_id if state.live and not state.room.encrypted else None
        standing = self._standing.get(room)
        if standing is None:  # what an earlier run left is not known yet
            standing = self._standing[room] = _Standing(wanted is not None or await self._is_member(room))
        if wanted is None:
            if standing.member:
                await self._matrix.write_state(room, KIND, state_key(self._bot), {})
                standing.member, standing.stage = False, None
        elif standing.stage != wanted or now - standing.written_ms > REFRESH_MS:
            created = standing.created_ms if standing.stage == wanted else now
            content = member_content(self._bot, self._service, room, created, now)
            await self._matrix.write_state(room, KIND, state_key(self._bot), content)
            first = standing.stage != wanted
            standing.member, standing.stage = True, wanted
            standing.created_ms, standing.written_ms = created, now
            if first:
                await self._hint(room, stage)

    async def _is_member(self, room: RoomId) -> bool:
        event = await self._matrix.read_state(room, KIND, state_key(self._bot))
        content = event.get("content") if event else None
        return isinstance(content, Mapping) and bool(content)

    async def _hint(self, room: RoomId, stage: LiveStage) -> None:
        """Every caller writes a membership of their own: where the room's power levels do not let them, say so, once a
        stage (the transaction id is the stage's)."""
        power = stage.state.room.power
        if power.for_state(KIND) <= power.users_default:
            return
        text = say(self._lang, "call-needs-power")
        txn = f"eyvan-call-power-{stage.stage_id}"
        await self._matrix.send(room, plain_of(text), html_of(text), reply_to=None, txn=txn)


__all__ = ["KIND", "CallMembership", "member_content", "state_key", "tell_of_encryption"]
