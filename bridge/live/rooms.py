"""room → LiveStage: start-up, invitations, replay of the inbox, upgrades, ticking, shutdown."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Coroutine, Mapping, Sequence
from typing import Any

from bridge.errors import EyvanError, MatrixRefused, Unavailable
from bridge.ids import PeerId, RoomId, StageId, UserId
from bridge.live import card
from bridge.live.joining import join_by, may_pass, servers_of_invitation
from bridge.live.ports import InboxRow, JsonObject
from bridge.live.reply import Reply
from bridge.live.stage import LiveStage, World
from bridge.live.upgrade import Upgrade
from bridge.rules.authority import Permission, Policy
from bridge.rules.content import ROLE, STAGE
from bridge.rules.inputs import Input, Tick
from bridge.text import say

log = logging.getLogger(__name__)

_AT_ONCE = 8  # rooms read at the same time on start-up
_PATIENCE_S = 30.0
PING_EVERY_MS = 10_000
TICK_S = 1.0
FOLLOW_AGAIN_S = 5.0


class Rooms:
    """Owns the LiveStages and the tasks that start, follow and forget them. ``start`` reads every room, ``close`` ends
    all and joins all. Bound: a stage a joined room; one task an invitation, upgrade or departure."""

    def __init__(self, bot: UserId, policy: Policy, world: World) -> None:
        self._bot, self._policy, self._world = bot, policy, world
        self._stages: dict[RoomId, LiveStage] = {}
        self._upgrade = Upgrade(bot, world, self._open, self.leave)
        self._following: set[RoomId] = set()
        self._working: set[asyncio.Task[None]] = set()  # cancelled by `close`
        self._finishing: set[asyncio.Task[None]] = set()  # waited for by `close`
        self._pinging: asyncio.Task[None] | None = None
        self._pinged_ms = 0
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
                try:
                    await asyncio.wait_for(stage.loaded(), _PATIENCE_S)
                except TimeoutError:
                    log.error("room %s: its state is not to be had; its gates stay shut until it is", room)

        await asyncio.gather(*(begin(room) for room in joined))
        self._own(self._tick(), self._working)

    async def close(self) -> None:
        """Harmless twice."""
        for task in list(self._working):
            task.cancel()
        await asyncio.gather(*self._working, return_exceptions=True)
        await asyncio.gather(*self._finishing, return_exceptions=True)
        stages = list(self._stages.values())
        self._stages.clear()
        await asyncio.gather(*(stage.close() for stage in stages))

    def _own(self, work: Coroutine[Any, Any, None], where: set[asyncio.Task[None]]) -> asyncio.Task[None]:
        async def logged() -> None:
            try:
                await work
            except EyvanError as error:
                log.warning("%s", error)
            except Exception:
                log.exception("a task of the rooms failed")

        task = asyncio.create_task(logged())
        where.add(task)
        task.add_done_callback(where.discard)
        return task

    def _open(
        self, room: RoomId, kept: JsonObject | None = None, cuts: Sequence[tuple[str, JsonObject]] = ()
    ) -> LiveStage:
        if room in self._stages:
            return self._stages[room]
        stage = LiveStage(room, self._bot, self._policy, self._world, self._gone, self._follow)
        self._stages[room] = stage
        stage.start(kept, list(cuts))
        return stage

    async def leave(self, room: RoomId, reason: str) -> None:
        """The bot leaves; pages are told ``reason``."""
        stage = self._stages.pop(room, None)
        if stage is not None:
            await stage.close(reason)
        await self._world.matrix.leave(room)
        await self._forget(room)

    def _gone(self, room: RoomId) -> None:
        """The bot is not in that room any more: its sound ends and it is forgotten."""
        stage = self._stages.pop(room, None)
        if stage is not None:
            self._own(self._end(room, stage), self._finishing)

    async def _end(self, room: RoomId, stage: LiveStage) -> None:
        await stage.close("removed")
        await self._forget(room)

    async def _forget(self, room: RoomId) -> None:
        await self._world.store.forget_stage(room)
        for cut_room, cut_id, _ in await self._world.store.load_cuts():
            if cut_room == room:
                await self._world.store.drop_cut(cut_id)
        log.info("room %s: left and forgotten", room)

    async def _tick(self) -> None:
        """Once a second; and, while a stage is live and the homeserver is silent, a ping every 10 s: a homeserver that
        could not reach us backs off up to 512 s, a ping brings it back."""
        while True:
            await asyncio.sleep(TICK_S)
            live = [stage for stage in self._stages.values() if stage.state.stage is not None]
            for stage in live:
                stage.happened(Tick())
            self._ping_if_silent(any(stage.state.live for stage in live))

    def _ping_if_silent(self, live: bool) -> None:
        """Beside the ticks: a ping may take a minute."""
        now = self._world.clock.now_ms()
        silent = now - max(self._pinged_ms, self.last_transaction_ms()) >= PING_EVERY_MS
        if live and silent and (self._pinging is None or self._pinging.done()):
            self._pinged_ms = now
            self._pinging = self._own(self._ping(), self._working)

    async def _ping(self) -> None:
        try:
            await self._world.matrix.ping()
        except EyvanError as error:
            log.warning("the homeserver does not reach us: %s", error)

    # -- finding -------------------------------------------------------------------------------

    def counts(self) -> tuple[int, int]:
        """(live stages, people connected to them)."""
        live = [stage for stage in self._stages.values() if stage.state.live]
        return len(live), sum(stage.seated for stage in live)

    def of_room(self, room: RoomId) -> LiveStage | None:
        return self._stages.get(room)

    def all(self) -> list[LiveStage]:
        """Of every room that the bot is in."""
        return list(self._stages.values())

    def of_stage(self, stage_id: str) -> LiveStage | None:
        return next((stage for stage in self._stages.values() if stage.stage_id == stage_id), None)

    # -- events, in the order of the transactions ----------------------------------------------

    def deliver(self, room: RoomId, row: InboxRow, happened: Sequence[Input | Reply]) -> None:
        """Hand an event's inputs to its room, in order. Never raises."""
        invited = False
        if row.event.get("type") == "m.room.member" and row.event.get("state_key") == self._bot:
            invited = self._own_membership(room, row)
        stage = self._stages.get(room)
        if invited:  # marked when it was answered: a crash before that asks again
            return
        if stage is None:
            self._own(self._mark(row), self._finishing)
        elif not happened:
            stage.rows_done(row.row)
        else:
            for number, what in enumerate(happened, 1):
                last = row.row if number == len(happened) else None
                if isinstance(what, Reply):
                    stage.say(what, last)
                else:
                    stage.happened(what, last)

    async def _mark(self, row: InboxRow) -> None:
        await self._world.store.mark_applied([row.row])

    def _own_membership(self, room: RoomId, row: InboxRow) -> bool:
        """True where the row is marked later."""
        content = row.event.get("content")
        membership = content.get("membership") if isinstance(content, Mapping) else None
        if membership == "invite":
            self._own(self._invited(room, UserId(row.event["sender"]), row), self._working)
            return True
        if membership == "join" and room not in self._stages:
            self._open(room)
        elif membership in ("leave", "ban") and room in self._stages:
            self._own(self._check_gone(room), self._working)
        return False

    async def _check_gone(self, room: RoomId) -> None:
        """The bot was kicked, or an event says so: the homeserver knows."""
        if room not in await self._world.matrix.joined_rooms():
            self._gone(room)

    async def _invited(self, room: RoomId, by: UserId, row: InboxRow) -> None:
        """Join where the operator lets this person host; else decline."""
        try:
            if room in self._stages:  # put out a moment ago, most likely
                await self._check_gone(room)
            if room in self._stages:
                log.info("invitation to %s by %s: the bot is there", room, by)
            elif self._policy.permission(by) < Permission.host:
                log.info("invitation to %s by %s declined: not permitted", room, by)
                await self._world.matrix.leave(room)
            else:
                await self._join(room, by)
                await self._greet(room, row)
        except Unavailable:  # it is looked at again after a restart
            raise
        except EyvanError as error:
            log.warning("invitation to %s by %s: %s", room, by, error)
        await self._mark(row)

    async def _join(self, room: RoomId, by: UserId) -> None:
        """Raises MatrixRefused, after it was told; Unavailable where our own homeserver is away."""
        matrix = self._world.matrix
        try:
            await join_by(matrix, room, servers_of_invitation(self._bot, by, room))
        except (MatrixRefused, Unavailable) as error:
            if may_pass(error):  # it was tried for long
                text = say(self._world.lang, "join-failed", to=room)
                try:
                    await matrix.tell(by, card.plain_of(text), card.html_of(text))
                finally:
                    await matrix.leave(room)  # clients invite nobody who is invited already
            raise MatrixRefused("M_UNKNOWN", 502, str(error)) from error

    async def _greet(self, room: RoomId, row: InboxRow) -> None:
        stage = self._open(room)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(stage.loaded(), 2 * _PATIENCE_S)
        older = next((s for s in self._stages.values() if s.state.room.successor == room), None)
        if older is not None:
            self._follow(older.room, room)
            return
        text = say(self._world.lang, self._greeting(stage), prefix=self._world.prefix, bot=self._bot)
        txn = f"eyvan-hello-{row.event['event_id']}"  # each invitation is greeted, one that is replayed not again
        await self._world.matrix.send(room, card.plain_of(text), card.html_of(text), reply_to=None, txn=txn)

    def _greeting(self, stage: LiveStage) -> str:
        room = stage.state.room
        if room.encrypted:
            return "hello-encrypted"
        needed = max(room.power.for_state(STAGE), room.power.for_state(ROLE))
        return "hello" if room.power.level(self._bot) >= needed else "hello-needs-power"

    # -- upgrades ------------------------------------------------------------------------------

    def _follow(self, old: RoomId, new: RoomId) -> None:
        stage = self._stages.get(old)
        if stage is not None and old not in self._following:
            self._following.add(old)
            self._own(self._following_to(stage, new), self._working)

    async def _following_to(self, stage: LiveStage, new: RoomId) -> None:
        """A homeserver that does not answer now will: until then the old stage goes on."""
        try:
            while self._stages.get(stage.room) is stage:
                try:
                    await self._upgrade.follow(stage, new)
                    return
                except Unavailable as error:
                    log.warning("room %s: its successor is not followed yet: %s", stage.room, error)
                    await asyncio.sleep(FOLLOW_AGAIN_S)
        finally:
            self._following.discard(stage.room)

    # -- what the relay tells ------------------------------------------------------------------

    def peer_connected(self, peer: PeerId) -> None:
        """Nothing waits for it: the gate is confirmed by the answer to the offer."""

    def peer_gone(self, peer: PeerId, reason: str) -> None:
        log.info("peer %s gone: %s", peer, reason)
        for stage in self._stages.values():
            if stage.has_peer(peer):
                stage.peer_gone(peer)

    def peer_pressed(self, peer: PeerId, key: str) -> None:
        for stage in self._stages.values():
            if stage.has_peer(peer):
                stage.pressed(peer, key)

    def levels(self, stage_id: StageId, levels: Mapping[int, int]) -> None:
        stage = self.of_stage(stage_id)
        if stage is not None:
            stage.levels(levels)
