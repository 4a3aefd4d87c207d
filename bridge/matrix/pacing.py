"""How fast the bot writes: a rate for all of it, and "at most one each interval, the last one wins" per thing.

One state event costs the homeserver 60-90 ms (SQLite, measured), about ten a second. Times are seconds of the event
loop's clock.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
from collections.abc import Awaitable, Callable, Hashable
from typing import Generic, TypeVar

from bridge.errors import Unavailable

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")
R = TypeVar("R")


class RateLimit:
    """First in, first out: each caller gets the next free moment (generic cell rate algorithm, ATM Forum TM 4.1).

    A caller who would wait longer than ``longest_wait_s`` is refused with Unavailable: that bounds the queue."""

    def __init__(self, per_second: float, burst: int, longest_wait_s: float = 60) -> None:
        self._interval, self._burst, self._longest = 1 / per_second, burst, longest_wait_s
        self._next = 0.0
        self.refused = 0

    async def wait(self) -> None:
        """Return when it is this caller's turn. Raises Unavailable where the turn is too far away."""
        now = asyncio.get_running_loop().time()
        turn = max(self._next, now - self._burst * self._interval)
        pause = turn + self._interval - now
        if pause > self._longest:
            self.refused += 1
            raise Unavailable(f"{math.ceil(pause / self._interval)} writes to the homeserver wait already")
        self._next = turn + self._interval
        if pause > 0:
            await asyncio.sleep(pause)

    def pass_by(self) -> None:
        """Go at once, at the cost of those who come later."""
        now = asyncio.get_running_loop().time()
        self._next = max(self._next, now - self._burst * self._interval) + self._interval


class LastWins(Generic[K, V, R]):
    """At most one write per key each ``interval_s``, with the value given last; the first one goes at once.

    Holds one waiting value per key and one task per key written in the last interval. ``write`` is called from the
    event loop; the tasks are joined by ``close``, which writes what waits at once and gives up after ``drain_s``.
    """

    def __init__(self, interval_s: float, write: Callable[[K, V], Awaitable[R]], drain_s: float = 3) -> None:
        self._interval, self._write, self._drain = interval_s, write, drain_s
        self._waiting: dict[K, tuple[V, asyncio.Future[R]]] = {}
        self._tasks: dict[K, asyncio.Task[None]] = {}
        self._closing = asyncio.Event()
        self.superseded = 0

    def put(self, key: K, value: V) -> asyncio.Future[R]:
        """Replace what waits for ``key``. The future is shared with those replaced: await it behind a shield.

        It ends with what the write returned or raised; unread errors are not reported. Raises Unavailable when
        closed."""
        if self._closing.is_set():
            raise Unavailable("closed: nothing more is written")
        future = self._waiting[key][1] if key in self._waiting else self._new_future()
        self.superseded += key in self._waiting
        self._waiting[key] = (value, future)
        if key not in self._tasks:
            self._tasks[key] = asyncio.create_task(self._run(key))
        return future

    async def close(self) -> None:
        self._closing.set()
        tasks = list(self._tasks.values())
        if tasks:
            _, late = await asyncio.wait(tasks, timeout=self._drain)
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)
        for _, future in self._waiting.values():
            future.set_exception(Unavailable("closed before it was written"))
        self._waiting.clear()

    def _new_future(self) -> asyncio.Future[R]:
        future: asyncio.Future[R] = asyncio.get_running_loop().create_future()
        future.add_done_callback(lambda done: done.cancelled() or done.exception())
        return future

    async def _run(self, key: K) -> None:
        try:
            while key in self._waiting:
                value, future = self._waiting.pop(key)
                await self._write_one(key, value, future)
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(self._interval):
                        await self._closing.wait()
        finally:
            self._tasks.pop(key, None)

    async def _write_one(self, key: K, value: V, future: asyncio.Future[R]) -> None:
        try:
            result = await self._write(key, value)
        except asyncio.CancelledError:
            # Not a cancellation of those who wait for it.
            future.set_exception(Unavailable("closed while it was written"))
            raise
        except Exception as error:
            if not future.done():
                future.set_exception(error)
        else:
            if not future.done():
                future.set_result(result)
