"""room → LiveStage: start-up, invitations, replay of the inbox, ticking, shutdown."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Coroutine, Mapping, Sequence
from typing import Any

from bridge.errors import EyvanError
from bridge.ids import PeerId, RoomId, StageId, UserId
from bridge.live import card
from bridge.live.ports import InboxRow, JsonObject
from bridge.live.stage import LiveStage, World
from bridge.rules.authority import Permission, Policy
from bridge.rules.inputs import Input, Tick
from bridge.text import say

log = logging.getLogger(__name__)

_AT_ONCE = 8  # rooms read at the same time on start-up
PING_EVERY_MS = 10_000


class Rooms:
    """Owns the LiveStages and one task that ticks. ``start`` reads every room, ``close`` ends all."""

    def __init__(self, bot: UserId, policy: Policy, world: World) -> None:
        self._bot, self._policy, self._world = bot, policy, world
        self._stages: dict[RoomId, LiveStage] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self.last_transaction_ms: Callable[[], int] = lambda: 0
        """Set by the composition root: when the homeserver last came to us."""

    # -- life ----------------------------------------------------------------------------------

    async def start(self) -> None:
        """State first, gates second: every joined room is read before anything opens."""
        joined = await self._world.matrix.joined_rooms()
        kept = await self._world.store.load_stages()
        cuts: dict[RoomId, list[tuple[str, JsonObject]]] = {}
        for room, cut_id, cut in await self._world.store.load_cuts():
            cuts.setdefault(room, []).append((cut_id, cut))
        slots = asyncio.Semaphore(_AT_ONCE)

        async def begin(room: RoomId) -> None:
            async with slots:
                stage = self._open(room, kept.get(room), cuts.get(room, []))
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(stage.loaded(), 30)

        await asyncio.gather(*(begin(room) for room in joined))
        self._own(self._tick())

    async def close(self) -> None:
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        stages = list(self._stages.values())
        self._stages.clear()
        await asyncio.gather(*(stage.close() for stage in stages))

    def _own(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _open(
        self, room: RoomId, kept: JsonObject | None = None, cuts: Sequence[tuple[str, JsonObject]] = ()
    ) -> LiveStage:
        if room in self._stages:
            return self._stages[room]
        stage = LiveStage(room, self._bot, self._policy, self._world, self._gone)
        self._stages[room] = stage
        stage.start(kept, list(cuts))
        return stage

    def _gone(self, room: RoomId) -> None:
        """The bot is not in that room any more: its sound ends and it is forgotten."""
        stage = self._stages.pop(room, None)
        if stage is not None:
            self._own(self._forget(room, stage))

    async def _forget(self, room: RoomId, stage: LiveStage) -> None:
        await stage.close("removed")
        await self._world.store.forget_stage(room)
        for cut_room, cut_id, _ in await self._world.store.load_cuts():
            if cut_room == room:
                await self._world.store.drop_cut(cut_id)
        log.info("room %s: left and forgotten", room)

    async def _tick(self) -> None:
        """Once a second; and, while a stage is live and the homeserver is silent, a ping every 10 s: a homeserver that
        could not reach us backs off up to 512 s, a ping brings it back."""
        pinged = 0
        while True:
            await asyncio.sleep(1)
            live = [stage for stage in self._stages.values() if stage.state.live]
            for stage in live:
                stage.happened(Tick())
            now = self._world.clock.now_ms()
            silent = now - max(pinged, self.last_transaction_ms()) >= PING_EVERY_MS
            if live and silent:
                pinged = now
                try:
                    await self._world.matrix.ping()
                except EyvanError as error:
                    log.warning("the homeserver does not reach us: %s", error)

    # -- finding -------------------------------------------------------------------------------

    def of_room(self, room: RoomId) -> LiveStage | None:
        return self._stages.get(room)

    def of_stage(self, stage_id: str) -> LiveStage | None:
        return next((stage for stage in self._stages.values() if stage.stage_id == stage_id), None)

    # -- events, in the order of the transactions ----------------------------------------------

    def deliver(self, room: RoomId, row: InboxRow, happened: Sequence[Input]) -> None:
        """Hand an event's inputs to its room, in order. Never raises."""
        event = row.event
        if event.get("type") == "m.room.member" and event.get("state_key") == self._bot:
            self._own_membership(room, row)
        stage = self._stages.get(room)
        if stage is None:
            self._own(self._mark(row))
            return
        if not happened:
            stage.rows_done(row.row)
            return
        for what in happened[:-1]:
            stage.happened(what)
        stage.happened(happened[-1], row.row)

    async def _mark(self, row: InboxRow) -> None:
        await self._world.store.mark_applied([row.row])

    def _own_membership(self, room: RoomId, row: InboxRow) -> None:
        content = row.event.get("content")
        membership = content.get("membership") if isinstance(content, Mapping) else None
        if membership == "invite":
            self._own(self._invited(room, UserId(row.event["sender"])))
        elif membership == "join" and room not in self._stages:
            self._open(room)
        elif membership in ("leave", "ban") and room in self._stages:
            self._own(self._check_gone(room))

    async def _check_gone(self, room: RoomId) -> None:
        """The bot was kicked, or an event says so: the homeserver knows."""
        try:
            if room not in await self._world.matrix.joined_rooms():
                self._gone(room)
        except EyvanError as error:
            log.warning("room %s: %s", room, error)

    async def _invited(self, room: RoomId, by: UserId) -> None:
        """Join where the operator lets this person host; else decline."""
        try:
            if self._policy.permission(by) < Permission.host:
                log.info("invitation to %s by %s declined: not permitted", room, by)
                await self._world.matrix.leave(room)
                return
            await self._world.matrix.join(room)
            stage = self._open(room)
            await asyncio.wait_for(stage.loaded(), 60)
            text = say(self._world.lang, self._greeting(stage), prefix=self._world.prefix, bot=self._bot)
            await self._world.matrix.send(room, text, card.html_of(text), reply_to=None, txn=f"eyvan-hello-{room}")
        except (EyvanError, TimeoutError) as error:
            log.warning("invitation to %s by %s: %s", room, by, error)

    def _greeting(self, stage: LiveStage) -> str:
        room = stage.state.room
        if room.encrypted:
            return "hello-encrypted"
        needed = max(room.power.for_state("im.eyvan.stage"), room.power.for_state("im.eyvan.role"))
        return "hello" if room.power.level(self._bot) >= needed else "hello-needs-power"

    # -- what the relay tells ------------------------------------------------------------------

    def peer_connected(self, peer: PeerId) -> None:
        """Nothing waits for it: the gate is confirmed by the answer to the offer."""

    def peer_gone(self, peer: PeerId, reason: str) -> None:
        log.info("peer %s gone: %s", peer, reason)
        for stage in self._stages.values():
            stage.peer_gone(peer)

    def levels(self, stage_id: StageId, levels: Mapping[int, int]) -> None:
        stage = self.of_stage(stage_id)
        if stage is not None:
            stage.levels(levels)
