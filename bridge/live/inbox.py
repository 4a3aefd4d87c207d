"""What waits for a stage's one task: ordered, and bounded for what comes from outside."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from bridge.errors import EyvanError, Full, Unavailable
from bridge.telemetry import metrics

log = logging.getLogger(__name__)

REFUSED = metrics.counter("eyvan_inputs_refused_total", "Inputs of a stage beyond its inbox; its state was read again")

LIMIT = 20_000  # what our own lanes bring is bounded by what they were given

Job = Callable[[], Awaitable[Any]]
_T = TypeVar("_T")


class Inbox:
    """``full`` is told when something was refused. ``close`` fails whatever still waits for an answer."""

    def __init__(self, name: str, full: Callable[[], None]) -> None:
        self._name, self._full = name, full
        self._jobs: asyncio.Queue[Job] = asyncio.Queue()
        self._calls: set[asyncio.Future[Any]] = set()
        self._closed = False
        self.refused = 0

    def __len__(self) -> int:
        return self._jobs.qsize()

    async def get(self) -> Job:
        return await self._jobs.get()

    def put(self, job: Job) -> bool:
        """False where too much waits."""
        if len(self) >= LIMIT:
            self.refused += 1
            REFUSED.inc()
            if self.refused % 1000 == 1:
                log.error("%s: %d inputs wait; its state will be read again", self._name, LIMIT)
            self._full()
            return False
        self._jobs.put_nowait(job)
        return True

    def put_always(self, job: Job) -> None:
        """For what is never refused: what comes of our own requests, and who goes."""
        self._jobs.put_nowait(job)

    async def wait(self, future: asyncio.Future[_T]) -> _T:
        """Wait for what ``close`` ends at the latest."""
        self._calls.add(future)
        try:
            return await future
        finally:
            self._calls.discard(future)

    async def call(self, job: Job) -> Any:
        """Have ``job`` done in its turn and return what it returns. Raises its EyvanError, Unavailable for a defect and
        after ``close``, and Full."""
        if self._closed:
            raise Unavailable("the stage is closing")
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()

        async def run() -> None:
            if future.done():  # whoever asked is gone
                return
            try:
                result = await job()
            except Exception as error:
                if not isinstance(error, EyvanError):
                    log.exception("%s: a request was not carried out", self._name)
                    error = Unavailable("something went wrong on the server; try again")
                if not future.done():
                    future.set_exception(error)
            else:
                if not future.done():
                    future.set_result(result)

        if not self.put(run):
            raise Full("too much waits in this stage; try again in a moment", 1000)
        return await self.wait(future)

    def close(self) -> None:
        self._closed = True
        for future in self._calls:
            if not future.done():
                future.set_exception(Unavailable("the stage is closing"))
