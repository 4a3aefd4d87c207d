"""Hands that are raised in Element Call: a 🖐️ on one's own call membership, taken back by a redaction.

::

    reaction ─▶ `take` ─▶ is its target the sender's membership? ─▶ the stage's queue
    hand over (brought up, lowered by page or moderator, hands closed) ─▶ the bot redacts the reaction

So Element Call shows a hand exactly as long as the stage has it, where the bot may redact: level 50 by default, which
it has. A reaction is looked at only from people who are connected, as the target costs one request.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from bridge.errors import EyvanError, MatrixRefused
from bridge.ids import EventId, RoomId, UserId, new_txn_id
from bridge.live.ports import JsonObject
from bridge.live.rooms import Rooms
from bridge.matrix.commands import MAX_AGE_MS
from bridge.matrix.matrixrtc import KIND
from bridge.rules.content import is_hand_emoji
from bridge.rules.inputs import ActName, Asked
from bridge.telemetry import metrics

log = logging.getLogger(__name__)

MEMBERSHIPS = (KIND, "org.matrix.msc4143.rtc.member", "m.rtc.member")
MAX_WAITING = 500
MAX_UP = 10_000  # hands that stand in Element Call; the oldest is forgotten, and so stays there
_LOOK_S = 1.0

DROPPED = metrics.counter("eyvan_call_hands_dropped_total", "Hands raised in Element Call that came too fast")


class HandMatrix(Protocol):
    """What these hands need of the homeserver. Raises MatrixRefused and Unavailable."""

    async def read_event(self, room: RoomId, event: EventId) -> JsonObject | None: ...

    async def redact(self, room: RoomId, event: EventId, txn: str) -> None: ...


@dataclass(frozen=True, slots=True)
class _Raised:
    room: RoomId
    user: UserId
    event: EventId
    target: EventId


@dataclass(frozen=True, slots=True)
class _TakenBack:
    event: EventId


class CallHands:
    """Owns one task, joined by ``close`` (harmless twice). Bounds: `MAX_WAITING` events, the next is dropped and
    counted; `MAX_UP` hands."""

    def __init__(self, bot: UserId, rooms: Rooms, matrix: HandMatrix) -> None:
        self._bot, self._rooms, self._matrix = bot, rooms, matrix
        self._waiting: asyncio.Queue[_Raised | _TakenBack] = asyncio.Queue(MAX_WAITING)
        self._up: OrderedDict[EventId, tuple[RoomId, UserId]] = OrderedDict()  # reaction → whose hand
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._task = asyncio.create_task(self._run(), name="hands in calls")

    async def close(self) -> None:
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    def take(self, room: RoomId, event: Mapping[str, Any], age_ms: int) -> None:
        """An event of a transaction, in order. Returns at once, never raises."""
        found = self._parse(room, event, age_ms)
        if found is None:
            return
        try:
            self._waiting.put_nowait(found)
        except asyncio.QueueFull:
            DROPPED.inc()

    def _parse(self, room: RoomId, event: Mapping[str, Any], age_ms: int) -> _Raised | _TakenBack | None:
        content = event.get("content")
        if not isinstance(content, Mapping):
            return None
        if event.get("type") == "m.room.redaction":
            target = event.get("redacts", content.get("redacts"))  # in the content from room version 11 on
            return _TakenBack(EventId(target)) if isinstance(target, str) else None
        relates = content.get("m.relates_to")
        stage = self._rooms.of_room(room)
        if (
            event.get("type") != "m.reaction"
            or not isinstance(relates, Mapping)
            or stage is None
            or age_ms > MAX_AGE_MS
        ):
            return None
        target, sender = relates.get("event_id"), event.get("sender")
        if relates.get("rel_type") != "m.annotation" or not is_hand_emoji(relates.get("key")):
            return None
        if not isinstance(target, str) or target == stage.state.card or sender not in stage.state.present:
            return None
        return _Raised(room, UserId(str(sender)), EventId(str(event.get("event_id"))), EventId(target))

    async def _run(self) -> None:
        clock, looked = asyncio.get_running_loop().time, 0.0
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_LOOK_S):
                    found = await self._waiting.get()
                await self._handle(found)
            if self._waiting.empty() and clock() - looked >= _LOOK_S:  # all that people took back is known by then
                await self.look()
                looked = clock()

    async def _handle(self, found: _Raised | _TakenBack) -> None:
        try:
            await (self._raise(found) if isinstance(found, _Raised) else self._lower(found))
        except EyvanError as error:
            log.info("a hand in a call: %s", error)

    async def _raise(self, found: _Raised) -> None:
        target = await self._matrix.read_event(found.room, found.target)
        stage = self._rooms.of_room(found.room)
        if target is None or stage is None or target.get("type") not in MEMBERSHIPS:
            return
        if target.get("sender") != found.user:
            return
        if await self._ask(found.room, found.user, "raise", found.event):
            self._up[found.event] = (found.room, found.user)
            if len(self._up) > MAX_UP:
                self._up.popitem(last=False)
        elif stage.state.room.place(found.user) != "stage":  # those on stage may wave to each other as they like
            await self._redact(found.room, found.event)

    async def _lower(self, found: _TakenBack) -> None:
        room, user = self._up.pop(found.event, (None, None))
        if room is not None and user is not None:
            await self._ask(room, user, "lower", None)

    async def _ask(self, room: RoomId, user: UserId, act: ActName, event: EventId | None) -> bool:
        stage = self._rooms.of_room(room)
        if stage is None:
            return False
        ask = Asked(user, act, "call", f"call hand {new_txn_id()}", event_id=event)
        return (await stage.ask(ask)).ok

    async def look(self) -> None:
        """Take away every reaction whose hand is over, once."""
        for stage in self._rooms.all():
            for hand in stage.state.hands:  # those of before a restart
                if hand.via == "call" and hand.event_id:
                    self._up.setdefault(hand.event_id, (stage.room, hand.user))
        for event, (room, user) in list(self._up.items()):
            found = self._rooms.of_room(room)
            if found is not None and (not found.state.loaded or found.state.hand_of(user) is not None):
                continue
            try:
                if found is not None and found.state.live:
                    await self._redact(room, event)
            except EyvanError as error:
                log.info("a hand in a call stands longer than it should: %s", error)
                return  # the homeserver does not answer: the next look tries again
            self._up.pop(event, None)

    async def _redact(self, room: RoomId, event: EventId) -> None:
        try:
            await self._matrix.redact(room, event, f"eyvan-hand-{event.lstrip('$')}")
        except MatrixRefused as refused:
            log.info("room %s: the bot may not take a raised hand away: %s", room, refused)


__all__ = ["CallHands"]
