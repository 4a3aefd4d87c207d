"""A stage's traffic with the homeserver and the store, off its own task, in order.

A stage decides fast and never waits for a network: reads, writes and notices run in lanes, and what comes of them
returns as input. Each lane is one task, owned and joined by the LiveStage that made it.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from bridge.errors import EyvanError, MatrixRefused, Unavailable
from bridge.ids import EventId, RoomId
from bridge.live.ports import JsonObject, Matrix
from bridge.rules.content import QUEUE, ROLE
from bridge.rules.effects import KickMember, WriteState
from bridge.rules.inputs import NotWritten, Written

log = logging.getLogger(__name__)

MAX_NOTICES = 200
MAX_WRITES = 500
_RETRY_S = (0.5, 1.0, 2.0, 5.0)


def _pause(tries: int) -> float:
    return _RETRY_S[min(tries, len(_RETRY_S) - 1)]


@dataclass(frozen=True, slots=True)
class ReadOne:
    kind: str
    key: str


class ReadAll:
    """Read the whole room."""


class Reader:
    """Reads state back, one at a time, each place at most once in the queue. A place is read until the homeserver
    answers: as long as it does not, what a hint took away stays away.

    Bound: one entry a place; beyond ``limit`` places all are replaced by one reading of the whole room."""

    def __init__(
        self,
        room: RoomId,
        matrix: Matrix,
        on_one: Callable[[str, str, JsonObject | None], None],
        on_all: Callable[[list[JsonObject]], None],
        on_gone: Callable[[], None],
        limit: int = 500,
    ) -> None:
        self._room, self._matrix, self._limit = room, matrix, limit
        self._on_one, self._on_all, self._on_gone = on_one, on_all, on_gone
        self._roles: deque[ReadOne] = deque()  # what opens and shuts gates goes first
        self._others: deque[ReadOne] = deque()
        self._all = False
        self._wake = asyncio.Event()

    def read(self, kind: str, key: str) -> None:
        place = ReadOne(kind, key)
        lane = self._roles if kind == ROLE else self._others
        if place in lane:
            return
        if len(lane) >= self._limit:
            self.read_all()
            return
        lane.append(place)
        self._wake.set()

    def read_all(self) -> None:
        self._all = True
        self._roles.clear()
        self._others.clear()
        self._wake.set()

    async def run(self) -> None:
        tries = 0
        while True:
            await self._wake.wait()
            whole, self._all = self._all, False
            place = None if whole else self._roles.popleft() if self._roles else None
            if not whole and place is None:
                place = self._others.popleft() if self._others else None
            if not whole and place is None:
                self._wake.clear()
                continue
            try:
                if place is None:
                    self._on_all(list(await self._matrix.read_room(self._room)))
                else:
                    self._on_one(
                        place.kind, place.key, await self._matrix.read_state(self._room, place.kind, place.key)
                    )
                tries = 0
            except MatrixRefused as refused:
                log.warning("room state of %s cannot be read: %s", self._room, refused)
                self._on_gone()
                return
            except Unavailable as error:
                log.warning("room state of %s is not to be had now: %s", self._room, error)
                self._again(place)
                await asyncio.sleep(_pause(tries))
                tries += 1

    def _again(self, place: ReadOne | None) -> None:
        if place is None:
            self._all = True
        elif not self._all:
            (self._roles if place.kind == ROLE else self._others).appendleft(place)


class Writer:
    """Writes state: cuts before all else, then the others in order. A cut is tried until the homeserver answers;
    another write is given up when it cannot be reached. A cut voids waiting writes of its own place, so that no grant
    asked for earlier lands after it.

    Bound: ``MAX_WRITES`` waiting grants, the next is refused at once; cuts are bounded by the people in the room."""

    def __init__(self, room: RoomId, matrix: Matrix, done: Callable[[Written | NotWritten], None]) -> None:
        self._room, self._matrix, self._done = room, matrix, done
        self._urgent: deque[WriteState | KickMember] = deque()
        self._normal: deque[WriteState] = deque()
        self._queue: WriteState | None = None
        self._wake = asyncio.Event()
        self._queue_wake = asyncio.Event()

    def write(self, wish: WriteState | KickMember) -> None:
        if isinstance(wish, KickMember) or wish.urgent:
            if isinstance(wish, WriteState):
                self._void(wish)
            self._urgent.append(wish)
        elif wish.kind == QUEUE:
            self._queue = wish
            self._queue_wake.set()
            return
        elif len(self._normal) >= MAX_WRITES:
            self._done(NotWritten(wish.write_id, "too many writes are waiting"))
            return
        else:
            self._normal.append(wish)
        self._wake.set()

    def _void(self, cut: WriteState) -> None:
        place = (cut.kind, cut.key)
        voided = [each for each in self._normal if (each.kind, each.key) == place]
        self._normal = deque(each for each in self._normal if (each.kind, each.key) != place)
        for each in voided:
            self._done(NotWritten(each.write_id, "a later cut voids it"))

    async def run(self) -> None:
        while True:
            await self._wake.wait()
            if self._urgent:
                await self._urgently(self._urgent.popleft())
            elif self._normal:
                await self._once(self._normal.popleft())
            else:
                self._wake.clear()

    async def run_queue(self) -> None:
        """The queue of hands has a lane of its own: it is coalesced to one write a second on its way out."""
        while True:
            await self._queue_wake.wait()
            self._queue_wake.clear()
            if self._queue is not None:
                wish, self._queue = self._queue, None
                await self._once(wish)

    async def _urgently(self, wish: WriteState | KickMember) -> None:
        tries = 0
        while True:
            try:
                self._done(Written(wish.write_id, await self._send(wish)))
                return
            except MatrixRefused as refused:
                self._done(NotWritten(wish.write_id, str(refused)))
                return
            except Unavailable as error:
                log.warning("a cut in %s is not written yet: %s", self._room, error)
                await asyncio.sleep(_pause(tries))
                tries += 1

    async def _once(self, wish: WriteState) -> None:
        try:
            self._done(Written(wish.write_id, await self._send(wish)))
        except (MatrixRefused, Unavailable) as error:
            log.warning("%s in %s was not written: %s", wish.kind, self._room, error)
            self._done(NotWritten(wish.write_id, str(error)))

    async def _send(self, wish: WriteState | KickMember) -> EventId | None:
        if isinstance(wish, KickMember):
            await self._matrix.kick(self._room, wish.user, wish.reason)
            return None
        return await self._matrix.write_state(self._room, wish.kind, wish.key, wish.content, urgent=wish.urgent)


class Courier:
    """Notices, cards, chats: things whose failure changes nothing but is logged. In order.

    Bound: ``MAX_NOTICES``; the next is dropped and counted."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._jobs: asyncio.Queue[Callable[[], Awaitable[None]]] = asyncio.Queue(MAX_NOTICES)
        self.dropped = 0

    def send(self, job: Callable[[], Awaitable[None]]) -> None:
        try:
            self._jobs.put_nowait(job)
        except asyncio.QueueFull:
            self.dropped += 1
            log.warning("%s: a notice was dropped, %d wait", self._name, MAX_NOTICES)

    async def run(self) -> None:
        while True:
            job = await self._jobs.get()
            try:
                await job()
            except EyvanError as error:
                log.warning("%s: a notice was not sent: %s", self._name, error)
            except Exception:
                log.exception("%s: a notice was not sent", self._name)
