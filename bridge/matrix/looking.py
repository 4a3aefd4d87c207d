"""A look at every room again and again: what should stand there is compared with what does."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

log = logging.getLogger(__name__)

LOOK_S = 1.0


class Looking:
    """Calls ``look`` once a second from ``start`` on, one call at a time; a defect in one look ends none of the next.
    ``close`` cancels and joins the task; harmless twice."""

    def __init__(self, look: Callable[[], Awaitable[None]], name: str) -> None:
        """``name``: of the task, for the log."""
        self._look, self._name = look, name
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._task = asyncio.create_task(self._run(), name=self._name)

    async def close(self) -> None:
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def _run(self) -> None:
        while True:
            try:
                await self._look()
            except Exception:
                log.exception("%s: a look at the rooms failed", self._name)
            await asyncio.sleep(LOOK_S)
