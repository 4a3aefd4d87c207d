"""An upgraded room (client-server API, "Room Upgrades"): the stage goes on in its successor.

::

    tombstone ─▶ join ─▶ does the successor name this room? ─no─▶ leave it again
                              │ yes
                              ▼
              live here, not yet there, and power there? ─no─▶ say so; the stage goes on here
                              │ yes
                              ▼
        stage and roles written there ─▶ told in both rooms ─▶ ended here, and left

Each step can be repeated: after a crash the old room is read, its tombstone is found, and it begins again; a stage that
is live in the successor is not begun twice.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace

from bridge.errors import EyvanError, MatrixRefused, Unavailable
from bridge.ids import RoomId, UserId, new_stage_id, role_key
from bridge.live import card
from bridge.live.joining import join_by, servers_of_successor
from bridge.live.notices import World
from bridge.live.stage import LiveStage
from bridge.rules.content import CREATE, ROLE, STAGE, TOMBSTONE, RoleContent, StageContent, role_content, stage_content
from bridge.rules.may import author
from bridge.rules.state import StageState
from bridge.text import say

log = logging.getLogger(__name__)

_PATIENCE_S = 60.0


class Upgrade:
    """Used by `Rooms`, which owns the tasks that run it."""

    def __init__(
        self,
        bot: UserId,
        world: World,
        open_room: Callable[[RoomId], LiveStage],
        leave: Callable[[RoomId, str], Awaitable[None]],
    ) -> None:
        self._bot, self._world, self._open, self._leave = bot, world, open_room, leave

    async def follow(self, old: LiveStage, new: RoomId) -> None:
        """Raises EyvanError where the homeserver or the store fails; the old stage then goes on."""
        matrix = self._world.matrix
        try:
            await join_by(matrix, new, await self._servers(old))
        except MatrixRefused as refused:
            log.warning("room %s: its successor %s cannot be joined: %s", old.room, new, refused)
            await self._say(old.room, "moved-not", f"eyvan-not-moved-{old.room}", level=_needed(old.state))
            return
        create = await matrix.read_state(new, CREATE, "")
        content = create.get("content") if create else None
        predecessor = content.get("predecessor") if isinstance(content, Mapping) else None
        if not isinstance(predecessor, Mapping) or predecessor.get("room_id") != old.room:
            log.warning("%s claims %s as its successor, which does not name it", old.room, new)
            await matrix.leave(new)
            return
        successor = self._open(new)
        try:
            async with asyncio.timeout(_PATIENCE_S):
                await successor.loaded()
        except TimeoutError:
            raise Unavailable(f"the state of {new} is not to be had") from None
        await self._move(old, successor)

    async def _servers(self, old: LiveStage) -> list[str]:
        tombstone = await self._world.matrix.read_state(old.room, TOMBSTONE, "")
        sender = tombstone.get("sender") if tombstone else None
        return servers_of_successor(self._bot, sender if isinstance(sender, str) else "", old.state.room)

    async def _move(self, old: LiveStage, new: LiveStage) -> None:
        stage = old.state.stage
        if stage is not None and old.state.live and old.state.ours and not new.state.live:
            if not self._has_power(new.state):
                await self._say(new.room, "moved-not", f"eyvan-not-moved-{new.room}", level=_needed(new.state))
                return
            await self._write(old.state, stage, new.room)
            topic = stage.topic or old.state.room.name or say(self._world.lang, "card-untitled")
            await self._say(new.room, "moved-to", f"eyvan-moved-to-{new.room}", topic=topic)
            await self._say(old.room, "moved-from", f"eyvan-moved-from-{old.room}", to=new.room)
        if stage is not None and old.state.live and old.state.ours:
            ended = replace(stage, status="ended", ended_ts=self._world.clock.now_ms())
            await self._quietly(
                self._world.matrix.write_state(old.room, STAGE, "", stage_content(ended), urgent=True), old.room
            )
        await self._leave(old.room, "ended")
        log.info("room %s: followed to %s", old.room, new.room)

    def _has_power(self, state: StageState) -> bool:
        power = state.room.power
        return power.level(self._bot) >= _needed(state) and power.roles_are_guarded and not state.room.encrypted

    async def _write(self, old: StageState, stage: StageContent, new: RoomId) -> None:
        """Roles first: the stage is live with its last word, and nobody is heard there who was muted here."""
        matrix = self._world.matrix
        stage_id = new_stage_id()
        for user, grant in old.room.roles.items():
            role = old.room.grant(user)
            if role is None:
                continue
            muted = role.content.muted or old.muted(user)
            place = "listener" if old.is_cut(user, "to_audience") else role.content.role
            standing = role.content.stage_id is None
            by = author(grant, self._bot)
            moved = RoleContent(place, muted, None if standing else stage_id, grant.content.reason, by, "event")
            await matrix.write_state(new, ROLE, role_key(user), role_content(moved))
        content = stage_content(replace(stage, stage_id=stage_id, bot=self._bot))
        await matrix.write_state(new, STAGE, "", content)

    async def _say(self, room: RoomId, key: str, txn: str, **args: object) -> None:
        text = say(self._world.lang, key, prefix=self._world.prefix, **args)
        await self._quietly(
            self._world.matrix.send(room, card.plain_of(text), card.html_of(text), reply_to=None, txn=txn), room
        )

    async def _quietly(self, call: Awaitable[object], room: RoomId) -> None:
        """What the old room may not take any more, or what is only said, stops nothing."""
        try:
            await call
        except EyvanError as error:
            log.warning("room %s: %s", room, error)


def _needed(state: StageState) -> int:
    power = state.room.power
    return max(power.for_state(STAGE), power.for_state(ROLE))
