"""A stage's traffic with the homeserver, off its own task, in order.

A stage decides fast and never waits for a network: reads, writes and notices run in lanes, and what comes of them
returns as input. Each lane is one task, owned and joined by the LiveStage that made it. A defect met on the way is
logged and ends one piece of work, never the lane.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from bridge.errors import EyvanError, MatrixRefused
from bridge.ids import EventId, RoomId
from bridge.live.ports import JsonObject, Matrix
from bridge.rules.content import MEMBER, QUEUE, ROLE
from bridge.rules.effects import KickMember, WriteState
from bridge.rules.inputs import NotWritten, Written
from bridge.telemetry import metrics

log = logging.getLogger(__name__)

DROPPED = metrics.counter("eyvan_notices_dropped_total", "Notices, cards and chats beyond what may wait")

MAX_NOTICES = 200
MAX_WRITES = 500
_RETRY_S = (0.5, 1.0, 2.0, 5.0)


async def _pause(tries: int) -> None:
    await asyncio.sleep(_RETRY_S[min(tries, len(_RETRY_S) - 1)])


@dataclass(frozen=True, slots=True)
class ReadOne:
    kind: str
    key: str


class Reader:
    """Reads state back, one at a time, each place at most once in the queue. A place is read until the homeserver
    answers: as long as it does not, what a hint took away stays away.

    ``heard`` is asked when a request is sent and handed back with its answer (`bridge.rules.inputs.StateRead`): what
    was heard meanwhile is not settled by it. Bound: one entry a place; beyond ``limit`` places all are replaced by one
    reading of the whole room."""

    def __init__(
        self,
        room: RoomId,
        matrix: Matrix,
        heard: Callable[[], int],
        on_one: Callable[[str, str, JsonObject | None, int], None],
        on_all: Callable[[list[JsonObject], int], None],
        on_gone: Callable[[], None],
        limit: int = 500,
    ) -> None:
        self._room, self._matrix, self._heard, self._limit = room, matrix, heard, limit
        self._on_one, self._on_all, self._on_gone = on_one, on_all, on_gone
        self._roles: dict[ReadOne, None] = {}  # what opens and shuts gates goes first; ordered as asked
        self._others: dict[ReadOne, None] = {}
        self._all = False
        self._wake = asyncio.Event()

    def read(self, kind: str, key: str) -> None:
        """Read this place, once more also where an answer is on its way now: it may be older than what is feared."""
        lane = self._roles if kind == ROLE else self._others
        if len(lane) >= self._limit:
            self.read_all()
        elif not self._all:  # else the whole room is read after this moment, and this place with it
            lane[ReadOne(kind, key)] = None
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
            if not (self._all or self._roles or self._others):
                self._wake.clear()
                continue
            try:
                if not await self._next():
                    return
                tries = 0
            except Exception as error:
                if isinstance(error, EyvanError):
                    log.warning("room state of %s is not to be had now: %s", self._room, error)
                else:
                    log.exception("room state of %s could not be read", self._room)
                await _pause(tries)
                tries += 1

    async def _next(self) -> bool:
        """One reading. False: the bot is not in the room any more."""
        if self._all:
            self._all = False
            try:
                heard = self._heard()
                events = list(await self._matrix.read_room(self._room))
            except MatrixRefused as refused:
                self._all = True
                return await self._still_in(refused)
            except Exception:
                self._all = True
                raise
            self._on_all(events, heard)
            return True
        lane = self._roles or self._others
        place = next(iter(lane))
        del lane[place]
        try:
            heard = self._heard()
            event = await self._matrix.read_state(self._room, place.kind, place.key)
        except MatrixRefused as refused:
            log.warning("%s %r in %s cannot be read, the whole room is: %s", place.kind, place.key, self._room, refused)
            self.read_all()
            return True
        except Exception:
            if not self._all:
                lane[place] = None
            raise
        self._on_one(place.kind, place.key, event, heard)
        return True

    async def _still_in(self, refused: MatrixRefused) -> bool:
        """A refusal alone proves nothing: a token can be wrong, a proxy can be. Everything of a room is forgotten only
        where the homeserver says that the bot is not in it. Raises ``refused`` where it is."""
        if self._room in await self._matrix.joined_rooms():
            raise refused
        log.warning("room %s is not ours any more: %s", self._room, refused)
        self._on_gone()
        return False


class Writer:
    """Writes state: cuts before all else, then the others in order. A cut is tried until the homeserver answers, as
    long as it is ``wanted``; another write is given up when it cannot be reached. A cut voids waiting writes of its own
    place, so that no grant asked for earlier lands after it.

    Bound: ``MAX_WRITES`` waiting grants, the next is refused at once; cuts are bounded by the people in the room."""

    def __init__(
        self,
        room: RoomId,
        matrix: Matrix,
        done: Callable[[Written | NotWritten], None],
        wanted: Callable[[str], bool] = lambda _: True,
    ) -> None:
        self._room, self._matrix, self._done, self._wanted = room, matrix, done, wanted
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
        """The queue of hands has a lane of its own: it is coalesced to one write a second on its way out. One that
        could not be written is written again, unless a newer one is there."""
        tries = 0
        while True:
            await self._queue_wake.wait()
            self._queue_wake.clear()
            wish, self._queue = self._queue, None
            if wish is None:
                continue
            try:
                self._done(Written(wish.write_id, await self._send(wish)))
                tries = 0
            except MatrixRefused as refused:
                self._done(NotWritten(wish.write_id, str(refused)))
            except Exception as error:
                self._log("the queue of hands", error)
                await _pause(tries)
                tries += 1
                if self._queue is None:
                    self._queue = wish
                self._queue_wake.set()

    async def _urgently(self, wish: WriteState | KickMember) -> None:
        """A cut that is over is not written any more: by then another stage may be live, or the place given anew."""
        tries = 0
        while self._wanted(wish.write_id):
            try:
                self._done(Written(wish.write_id, await self._send(wish)))
                return
            except MatrixRefused as refused:
                self._done(NotWritten(wish.write_id, str(refused)))
                return
            except Exception as error:
                self._log("a cut", error)
                await _pause(tries)
                tries += 1

    async def _once(self, wish: WriteState) -> None:
        try:
            self._done(Written(wish.write_id, await self._send(wish)))
        except Exception as error:
            self._log(wish.kind, error)
            self._done(NotWritten(wish.write_id, str(error)))

    def _log(self, what: str, error: Exception) -> None:
        trace = None if isinstance(error, EyvanError) else error
        log.warning("%s in %s was not written: %s", what, self._room, error, exc_info=trace)

    async def _send(self, wish: WriteState | KickMember) -> EventId | None:
        if isinstance(wish, WriteState):
            return await self._matrix.write_state(self._room, wish.kind, wish.key, wish.content, urgent=wish.urgent)
        try:
            await self._matrix.kick(self._room, wish.user, wish.reason)
        except MatrixRefused:
            member = await self._matrix.read_state(self._room, MEMBER, wish.user)
            content = member.get("content") if member else None
            if isinstance(content, dict) and content.get("membership") in ("join", "invite", "knock"):
                raise
            # gone already: by somebody else, or by our own first try whose answer was lost
        return None


class Courier:
    """Notices, cards, chats: things whose failure changes nothing but is logged. With one ``run`` task in order.

    Bound: ``limit``; the next is refused and counted."""

    def __init__(self, name: str, limit: int = MAX_NOTICES) -> None:
        self._name = name
        self._jobs: asyncio.Queue[Callable[[], Awaitable[object]]] = asyncio.Queue(limit)
        self.dropped = 0

    def send(self, job: Callable[[], Awaitable[object]]) -> bool:
        """False: too many wait, this one is dropped."""
        try:
            self._jobs.put_nowait(job)
        except asyncio.QueueFull:
            self.dropped += 1
            DROPPED.inc()
            log.warning("%s: a notice was dropped, %d wait", self._name, self._jobs.qsize())
            return False
        return True

    async def run(self) -> None:
        while True:
            job = await self._jobs.get()
            try:
                await job()
            except EyvanError as error:
                log.warning("%s: a notice was not sent: %s", self._name, error)
            except Exception:
                log.exception("%s: a notice was not sent", self._name)
