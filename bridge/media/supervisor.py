"""Keeps the media workers running: starts them, joins them by their trunk, starts one again that died or hangs."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import socket
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Protocol

from bridge.errors import ConfigError, Unavailable
from bridge.media.control import Message, Ping, WorkerSettings
from bridge.media.link import ANSWER_S, Link

log = logging.getLogger("eyvan.media")

_BACKOFF_S = (0.0, 0.2, 0.5, 1.0, 2.0, 5.0)
_TRUNK_BYTES = 1 << 20  # waiting in the kernel for a worker that stands still; the kernel may give less
_LOOK_S = 2.0
_HANGS_AFTER = 2
"""Questions in a row that a worker leaves without an answer for ten seconds each: then it is killed, as if it died."""


class Told(Protocol):
    """The owner; called from the supervisor's own tasks. Returns at once, and does not raise."""

    def worker_came(self, number: int) -> None: ...

    def worker_died(self, number: int) -> None: ...

    def worker_says(self, number: int, message: Message) -> None: ...


@dataclass(slots=True)
class _Slot:
    """The place of one worker; who fills it changes when it dies. ``task`` keeps it filled."""

    number: int
    settings: WorkerSettings
    link: Link | None = None
    task: asyncio.Task[None] | None = None
    restarts: int = 0


class Supervisor:
    """Owns a task for each worker, which keeps it running; ``close`` joins them."""

    def __init__(self, settings: WorkerSettings, count: int, told: Told) -> None:
        """``count`` workers (1 … 64). Each has a port of its own: ``settings.port`` and those that follow it, or any
        free ones where that is 0."""
        self._slots = [
            _Slot(number, replace(settings, number=number, port=settings.port and settings.port + number))
            for number in range(count)
        ]
        if not settings.tcp_handed:
            for slot in self._slots[1:]:  # what is forwarded from the announced port comes to the first
                slot.settings = replace(slot.settings, tcp_announce_port=0)
        self._told = told
        self._running = asyncio.Event()  # at least one worker does
        self._started = self._closing = False
        self.addresses: tuple[str, ...] = ()

    @property
    def ports(self) -> tuple[int, ...]:
        """Of all workers; a worker that is started again takes its port again."""
        return tuple(slot.settings.port for slot in self._slots)

    @property
    def restarts(self) -> int:
        return sum(slot.restarts for slot in self._slots)

    def restarts_of(self, number: int) -> int:
        return self._slots[number].restarts

    def link(self, number: int | None) -> Link | None:
        """To a worker that runs; None for one that does not, or where there is none of this number."""
        return self._slots[number].link if number is not None and number < len(self._slots) else None

    @property
    def links(self) -> Mapping[int, Link]:
        """To all that run."""
        return {slot.number: slot.link for slot in self._slots if slot.link is not None}

    async def until_one_runs(self) -> None:
        """Raises Unavailable where none does for ten seconds."""
        if self._closing or not self._started:
            raise Unavailable("the relay is not running")
        try:
            await asyncio.wait_for(self._running.wait(), ANSWER_S)
        except TimeoutError:
            raise Unavailable("no media worker is running") from None

    async def start(self) -> None:
        """Raises ConfigError naming the port, Unavailable. Returns when all run."""
        try:
            async with asyncio.TaskGroup() as starting:
                for slot in self._slots:
                    starting.create_task(self._open(slot))
        except BaseExceptionGroup as group:
            await self._stop_all()
            raise group.exceptions[0] from None
        self._started = True
        for slot in self._slots:
            slot.task = asyncio.create_task(self._keep_running(slot), name=f"media worker {slot.number}")

    async def _open(self, slot: _Slot) -> None:
        link, started = await Link.start(slot.settings)
        slot.settings = replace(slot.settings, port=started.port)
        self.addresses = tuple(started.addresses)
        slot.link = link
        for other in self._slots:
            if other is not slot and other.link is not None:
                self._connect(slot.number, link, other.number, other.link)
        self._told.worker_came(slot.number)
        self._running.set()

    @staticmethod
    def _connect(one: int, link: Link, two: int, other: Link) -> None:
        """A new pair of sockets for two workers; where they had one, it is dead or they take the new one for it."""
        pair = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        for each in pair:
            each.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _TRUNK_BYTES)
        try:
            link.hand_over(pair[0], two)
            other.hand_over(pair[1], one)
        except OSError as error:
            log.error("media workers %d and %d cannot pass sound to each other: %s", one, two, error)
        finally:
            for each in pair:
                each.close()

    async def _keep_running(self, slot: _Slot) -> None:
        while True:
            link = slot.link
            assert link is not None
            looking = asyncio.create_task(self._look_after(slot.number, link))
            await link.read_to_end(lambda message: self._told.worker_says(slot.number, message))
            looking.cancel()
            await asyncio.gather(looking, return_exceptions=True)
            slot.link = None
            if not self.links:
                self._running.clear()
            if not self._closing:
                self._told.worker_died(slot.number)
            await link.stop()
            if self._closing:
                return
            log.error("media worker %d ended with %s; starting another", link.process.pid, link.process.returncode)
            slot.restarts += 1
            await self._reopen(slot)

    @staticmethod
    async def _look_after(number: int, link: Link) -> None:
        """A worker that answers nothing any more is of no use to its people, and neither will it end."""
        missed = 0
        while missed < _HANGS_AFTER:
            await asyncio.sleep(_LOOK_S)
            try:
                await link.request(Ping)
                missed = 0
            except Unavailable:
                missed += 1
        log.error("media worker %d (process %d) does not answer; it is killed", number, link.process.pid)
        with contextlib.suppress(ProcessLookupError):
            link.process.kill()

    async def _reopen(self, slot: _Slot) -> None:
        for attempt in itertools.count():
            await asyncio.sleep(_BACKOFF_S[min(attempt, len(_BACKOFF_S) - 1)])
            try:
                await self._open(slot)
                return
            except (ConfigError, Unavailable, OSError) as error:
                log.error("media worker %d does not start (attempt %d): %s", slot.number, attempt + 1, error)

    async def close(self) -> None:
        """End the workers, which say goodbye to all peers; join the tasks. Harmless twice."""
        self._closing = True
        await self._stop_all()
        for slot in self._slots:
            if slot.task is not None and not slot.task.done():
                if slot.link is None:
                    slot.task.cancel()
                await asyncio.gather(slot.task, return_exceptions=True)

    async def _stop_all(self) -> None:
        await asyncio.gather(*(link.stop() for link in self.links.values()))
