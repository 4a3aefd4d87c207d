"""Classic 1:1 calls with the bot (``m.call.*``): a person's direct chat with it is a telephone line to their stage.

::

    transaction ─▶ `Calls.take` ─▶ the chat's `Line`, one task each ─▶ `call_state.take` ─▶ stage: sit, offer ─▶ answer

Whoever calls is seated like a page: same admission, same gate, same places. Which stage it is: the one they asked for
with ``!call``, else the only live one they are a member of; where there are several they are asked. A telephone sends
whatever it hears, so the gate is its microphone's switch (`LiveStage.sit`, ``mic_gated``).
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import re
from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Any, Protocol

from bridge.errors import EyvanError
from bridge.ids import EventId, RoomId, UserId
from bridge.live.card import html_of, plain_of
from bridge.live.ports import Clock, InboxRow, JsonObject
from bridge.live.rooms import Rooms
from bridge.live.stage import LiveStage
from bridge.matrix import call_events as ev
from bridge.matrix.call_line import Line
from bridge.matrix.call_seat import Several
from bridge.telemetry import metrics
from bridge.text import Lang, say

log = logging.getLogger(__name__)

MAX_LINES = 2_000  # chats in which something happens at once; the next is told that we are busy, by silence of its own
MAX_WISHES = 10_000  # people who asked for a stage; the oldest is forgotten, and asked again
MAX_RINGING = 32  # chats that are opened for a call at once; the next is told that it failed
_CLOSE_S = 3.0
_READ_S = 10.0
_DIGIT = re.compile(r"[0-9۰-۹]\Z")

CALLS = metrics.gauge("eyvan_calls", "1:1 calls that are up or ring")
DROPPED = metrics.counter("eyvan_call_events_dropped_total", "Events of 1:1 calls that came too fast")


class CallMatrix(Protocol):
    """What calls need of the homeserver. Raises MatrixRefused and Unavailable."""

    async def send(self, room: RoomId, text: str, html: str, *, reply_to: EventId | None, txn: str) -> EventId: ...

    async def send_event(self, room: RoomId, kind: str, content: JsonObject) -> EventId: ...

    async def chat_with(self, user: UserId) -> RoomId: ...

    async def is_chat_with(self, room: RoomId, user: UserId) -> bool: ...


class Calls:
    """All lines. Owned by ``app``: ``rooms`` is set before events come; ``close`` hangs up and joins every line's task
    (harmless twice). Meets `bridge.live.ports.Phone` by shape."""

    rooms: Rooms

    def __init__(self, bot: UserId, matrix: CallMatrix, clock: Clock, lang: Lang = "en", prefix: str = "!") -> None:
        self.bot, self.matrix, self.clock, self._lang, self._prefix = bot, matrix, clock, lang, prefix
        self._lines: dict[RoomId, Line] = {}
        self._wishes: OrderedDict[UserId, RoomId] = OrderedDict()
        self._ringing: set[asyncio.Task[None]] = set()
        self._closed = False

    # -- in ------------------------------------------------------------------------------------

    def expect(self, user: UserId, room: RoomId) -> None:
        self._wishes[user] = room
        self._wishes.move_to_end(user)
        if len(self._wishes) > MAX_WISHES:
            self._wishes.popitem(last=False)

    def ring(self, user: UserId, room: RoomId, by_name: str, told: Callable[[str], None]) -> None:
        if self._closed or len(self._ringing) >= MAX_RINGING:
            told("ring-failed")
            return
        task = asyncio.create_task(self._ring(user, room, by_name, told), name=f"ring {user}")
        self._ringing.add(task)
        task.add_done_callback(self._ringing.discard)

    async def _ring(self, user: UserId, room: RoomId, by_name: str, told: Callable[[str], None]) -> None:
        stage = self.rooms.of_room(room)
        try:
            chat = await self.matrix.chat_with(user)
        except EyvanError as error:
            log.warning("no chat with %s: %s", user, error)
            told("ring-failed")
            return
        line = self._line(chat, user)
        if line is None or stage is None:
            told("ring-failed")
        else:
            line.must(lambda: line.ring(stage, by_name, told))

    def wanted(self, event: Mapping[str, Any]) -> bool:
        """Whether an event of a transaction says anything to a call. Never raises."""
        if event.get("sender") == self.bot or "state_key" in event:
            return False
        if event.get("type") in ev.KINDS:
            return True
        return _digit(event) is not None and self._is_pair(event.get("room_id"))

    def take(self, room: RoomId, row: InboxRow, age_ms: int) -> None:
        """An event, in the order of the transactions. Only queues. ``age_ms``: by our homeserver's receipt."""
        event = row.event
        if self._closed or not self.wanted(event) or self.rooms.of_room(room) is None:
            return
        line = self._line(room, UserId(event["sender"]))
        if line is None:
            return
        digit = _digit(event)
        if digit is not None:
            line.happened(lambda: line.typed(digit))
        elif isinstance(event.get("content"), Mapping):
            line.happened(lambda: line.event(event["type"], event["content"], age_ms))

    def _line(self, room: RoomId, user: UserId) -> Line | None:
        line = self._lines.get(room)
        if line is not None and not line.is_over:
            return line if line.user == user else None  # two people: no direct chat
        if len(self._lines) >= MAX_LINES:
            DROPPED.inc()
            return None
        line = self._lines[room] = Line(self, room, user)
        return line

    async def close(self) -> None:
        self._closed = True
        for task in list(self._ringing):
            task.cancel()
        await asyncio.gather(*self._ringing, return_exceptions=True)
        lines = list(self._lines.values())
        for line in lines:
            line.bye_all()
        tasks = [line.task for line in lines]
        if tasks:
            _, late = await asyncio.wait(tasks, timeout=_CLOSE_S)
            for task in late:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        self._lines.clear()

    # -- for the lines -------------------------------------------------------------------------

    def forget(self, line: Line) -> None:
        if self._lines.get(line.room) is line:
            del self._lines[line.room]

    def count(self) -> None:
        CALLS.set(sum(line.is_busy for line in self._lines.values()))

    def say(self, key: str, stage: LiveStage | None = None, **args: Any) -> str:
        """A sentence, in the language of the stage where it has chosen one; ``topic`` is the stage's."""
        content = stage.state.stage if stage is not None else None
        lang: Lang = (content.language if content is not None else None) or self._lang
        topic = "" if stage is None else self.topic(stage, lang)
        return say(lang, key, **{"prefix": self._prefix, "topic": topic, "by": say(lang, "call-somebody"), **args})

    def topic(self, stage: LiveStage, lang: Lang | None = None) -> str:
        state = stage.state
        return (state.stage.topic if state.stage else "") or state.room.name or say(lang or self._lang, "card-untitled")

    def dropped(self) -> None:
        DROPPED.inc()

    async def tell(self, room: RoomId, text: str, txn: str) -> None:
        """A notice in the chat. A failure is logged: the call itself goes on."""
        try:
            await self.matrix.send(room, plain_of(text), html_of(text), reply_to=None, txn=txn)
        except EyvanError as error:
            log.warning("room %s: a notice about a call was not sent: %s", room, error)

    def _is_pair(self, room: object) -> bool:
        """As far as the room is read: the bot and one person."""
        stage = self.rooms.of_room(RoomId(room)) if isinstance(room, str) else None
        if stage is None:
            return False
        joined = (user for user, member in stage.state.room.members.items() if member.joined)
        first_three = list(itertools.islice(joined, 3))  # rooms can have many thousands
        return len(first_three) == 2 and self.bot in first_three

    async def is_line(self, room: RoomId, user: UserId) -> bool:
        """Whether calls in that room are calls with the bot: of the two alone, or the chat that the bot opened."""
        stage = self.rooms.of_room(room)
        if stage is None:
            return False
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(stage.loaded(), _READ_S)
        return self._is_pair(room) or await self.matrix.is_chat_with(room, user)

    def stage_for(self, user: UserId, room: RoomId) -> LiveStage | Several:
        """The stage that a call of this person in that chat is meant for, or those it might be, if any."""
        own = self.rooms.of_room(room)
        if own is not None and own.state.live:
            return own
        wish = self._wishes.get(user)
        wished = self.rooms.of_room(wish) if wish is not None else None
        if wished is not None and wished.state.live:
            return wished  # whether they may is for `sit` to say
        open_to_them = [
            stage
            for stage in self.rooms.all()
            if user in stage.state.room.members and stage.state.ours and stage.state.may_hear(user)
        ]
        return open_to_them[0] if len(open_to_them) == 1 else Several(tuple(open_to_them[:9]))


def _digit(event: Mapping[str, Any]) -> str | None:
    """A message that is one digit, as a number from 0 to 9: what the keypad does can be typed."""
    content = event.get("content")
    if event.get("type") != "m.room.message" or not isinstance(content, Mapping) or content.get("msgtype") != "m.text":
        return None
    body = content.get("body")
    if not isinstance(body, str) or len(body) > 4 or not _DIGIT.match(body.strip()):
        return None
    return str(int(body))
