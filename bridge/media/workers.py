"""The control side of the relay: starts a media worker, speaks to it, starts it again when it dies.

Implements ``bridge.live.ports.Media`` (by shape). One worker now; ``_Link`` is one worker, so that more of
them are a mapping from stage to link here and nothing elsewhere.
"""

from __future__ import annotations

import asyncio
import binascii
import itertools
import logging
import os
import socket
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

import bridge
from bridge.errors import ConfigError, NotFound, Ours, Unavailable
from bridge.ids import PeerId, StageId
from bridge.media.control import (
    CloseStage,
    Connected,
    Failed,
    Frames,
    Gate,
    GetStats,
    Gone,
    Join,
    Leave,
    LevelsNow,
    Message,
    Pressed,
    Reply,
    Start,
    Started,
    Stats,
    Stream,
    WorkerSettings,
    encode,
    error_from,
    read,
    stats_from,
)

log = logging.getLogger("eyvan.media")

_START_S = 30.0  # generous: a busy machine imports slowly
_ANSWER_S = 10.0
_STOP_S = 5.0
_BACKOFF_S = (0.0, 0.2, 0.5, 1.0, 2.0, 5.0)


Take = Callable[[int, Sequence[bytes]], None]
"""(tick of the first, consecutive Opus frames of 20 ms). Called from the relay's own task; returns at once."""


class Listener(Protocol):
    """``bridge.live.ports.MediaListener``; called from the relay's own task."""

    def peer_connected(self, peer: PeerId) -> None: ...

    def peer_gone(self, peer: PeerId, reason: str) -> None: ...

    def peer_pressed(self, peer: PeerId, key: str) -> None: ...

    def levels(self, stage: StageId, levels: Mapping[int, int]) -> None: ...


@dataclass(frozen=True, slots=True)
class Answer:
    """``bridge.live.ports.Answer``."""

    sdp: str
    csrc: int


class _Link:
    """One running worker process and the socket to it. Owned by ``Workers``' task, which reads it to its end.

    Requests may come from any task of the loop; each waits for its own reply."""

    def __init__(self, process: asyncio.subprocess.Process, reader: asyncio.StreamReader, writer: asyncio.StreamWriter):
        self.process, self._reader, self._writer = process, reader, writer
        self._ids = itertools.count(1)
        self._waiting: dict[int, asyncio.Future[Reply]] = {}
        self.closed = False

    @classmethod
    async def start(cls, settings: WorkerSettings) -> tuple[_Link, Started]:
        """Raises ConfigError where the worker cannot have its port, Unavailable where it does not start."""
        root = str(Path(bridge.__file__).parent.parent)  # the child must find the same package, wherever it runs
        paths = [root, *filter(None, [os.environ.get("PYTHONPATH")])]
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "bridge.media.worker", str(theirs.fileno()), str(os.getpid()),
                pass_fds=(theirs.fileno(),), stdin=asyncio.subprocess.DEVNULL,
                env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
            )  # fmt: skip
        except OSError:
            ours.close()
            raise
        finally:
            theirs.close()
        reader, writer = await asyncio.open_connection(sock=ours)
        link = cls(process, reader, writer)
        try:
            writer.write(encode(Start(settings)))
            first = await asyncio.wait_for(read(reader), _START_S)
        except BaseException as error:
            await link.stop()
            if isinstance(error, TimeoutError):
                raise Unavailable(f"the media worker did not start within {_START_S:.0f} s") from None
            raise
        if isinstance(first, Started):
            return link, first
        await link.stop()
        if isinstance(first, Failed):
            raise ConfigError(f"{first.text}; choose another media.port or media.bind")
        raise Unavailable("the media worker ended while it started")

    async def request(self, make: Callable[[int], Message]) -> Reply:
        """Send ``make(id)`` and wait for its reply. Raises what the worker refused with, or Unavailable."""
        if self.closed:
            raise Unavailable("the media worker is starting again")
        number = next(self._ids)
        future: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()
        self._waiting[number] = future
        try:
            self._writer.write(encode(make(number)))
            reply = await asyncio.wait_for(future, _ANSWER_S)
        except TimeoutError:
            raise Unavailable(f"the media worker did not answer within {_ANSWER_S:.0f} s") from None
        finally:
            del self._waiting[number]
        if reply.error is not None:
            raise error_from(reply.error)
        return reply

    def post(self, message: Message) -> None:
        """Send without waiting for a reply."""
        if not self.closed:
            self._writer.write(encode(message))

    async def read_to_end(self, on_event: Callable[[Message], None]) -> None:
        """Hand out replies and events until the worker has closed its end; then every request fails."""
        while (message := await read(self._reader)) is not None:
            if not isinstance(message, Reply):
                on_event(message)
            elif message.id in self._waiting and not self._waiting[message.id].done():
                self._waiting[message.id].set_result(message)
        self._fail()

    def _fail(self) -> None:
        self.closed = True
        for future in self._waiting.values():
            if not future.done():
                future.set_exception(Unavailable("the media worker ended"))

    async def stop(self) -> None:
        """Close the socket, wait for the process, kill it if it stays. Harmless twice."""
        self._fail()
        self._writer.close()
        try:
            await asyncio.wait_for(self.process.wait(), _STOP_S)
        except TimeoutError:
            self.process.kill()
            await self.process.wait()


class Workers:
    """The relay. Owns one task, which keeps a worker running; ``close`` joins it."""

    def __init__(self, settings: WorkerSettings, listener: Listener) -> None:
        self._settings = settings
        self._listener = listener
        self._link: _Link | None = None
        self._running = asyncio.Event()
        self._peers: dict[PeerId, StageId] = {}
        self._taps: dict[StageId, Take] = {}
        self._task: asyncio.Task[None] | None = None
        self._closing = False
        self.restarts = 0
        self.addresses: tuple[str, ...] = ()

    @property
    def port(self) -> int:
        """The UDP port, known after ``start``."""
        return self._settings.port

    async def start(self) -> None:
        """Raises ConfigError naming the port, Unavailable. Returns when sound can flow."""
        link = await self._open()
        self._task = asyncio.create_task(self._keep_running(link), name="media workers")

    async def _open(self) -> _Link:
        link, started = await _Link.start(self._settings)
        self._settings = replace(self._settings, port=started.port)  # a restart takes the same port again
        self.addresses = tuple(started.addresses)
        self._link = link
        for stage in self._taps:
            link.post(Stream(0, stage, True))
        self._running.set()
        return link

    async def _keep_running(self, link: _Link) -> None:
        while True:
            await link.read_to_end(self._on_event)
            self._running.clear()
            self._link = None
            await link.stop()
            if self._closing:
                return
            log.error("media worker %d ended with %s; starting another", link.process.pid, link.process.returncode)
            self.restarts += 1
            lost, self._peers = list(self._peers), {}
            for peer in lost:
                self._tell(self._listener.peer_gone, peer, "worker")
            link = await self._reopen()

    async def _reopen(self) -> _Link:
        for attempt in itertools.count():
            await asyncio.sleep(_BACKOFF_S[min(attempt, len(_BACKOFF_S) - 1)])
            try:
                return await self._open()
            except (ConfigError, Unavailable, OSError) as error:
                log.error("the media worker does not start (attempt %d): %s", attempt + 1, error)
        raise Ours("unreachable")

    def _on_event(self, message: Message) -> None:
        match message:
            case Connected():
                self._tell(self._listener.peer_connected, PeerId(message.peer))
            case Gone():
                if self._peers.pop(PeerId(message.peer), None) is not None:
                    self._tell(self._listener.peer_gone, PeerId(message.peer), message.reason)
            case Pressed():
                self._tell(self._listener.peer_pressed, PeerId(message.peer), message.key)
            case LevelsNow():
                levels = {int(csrc): level for csrc, level in message.levels.items()}
                self._tell(self._listener.levels, StageId(message.stage), levels)
            case Frames():
                take = self._taps.get(StageId(message.stage))
                if take is not None:
                    self._tell(take, message.tick, [binascii.a2b_base64(each) for each in message.frames])
            case _:
                log.error("unexpected message of the media worker: %s", type(message).__name__)

    @staticmethod
    def _tell(call: Callable[..., None], *values: object) -> None:
        try:
            call(*values)
        except Exception:
            log.exception("the media listener failed in %s", call.__name__)

    async def _ready(self) -> _Link:
        if self._closing or self._task is None:
            raise Unavailable("the relay is not running")
        try:
            await asyncio.wait_for(self._running.wait(), _ANSWER_S)
        except TimeoutError:
            raise Unavailable("no media worker is running") from None
        if self._link is None:
            raise Unavailable("the media worker is starting again")
        return self._link

    # -- live.ports.Media ------------------------------------------------------------------------

    async def join(self, stage: StageId, peer: PeerId, owner: str, offer: str, *, hear: bool, speak: bool) -> Answer:
        link = await self._ready()
        new = peer not in self._peers
        self._peers[peer] = stage
        try:
            reply = await link.request(lambda number: Join(number, stage, peer, owner, offer, hear, speak))
        except BaseException:
            if new:
                self._peers.pop(peer, None)
            raise
        return Answer(reply.sdp, reply.csrc)

    async def gate(self, peer: PeerId, *, hear: bool, speak: bool) -> None:
        if peer not in self._peers:
            raise NotFound(f"peer {peer} is not connected to the relay")
        link = await self._ready()
        await link.request(lambda number: Gate(number, peer, hear, speak))

    async def leave(self, peer: PeerId) -> None:
        if self._peers.pop(peer, None) is not None and self._link is not None:
            await self._quietly(self._link, lambda number: Leave(number, peer))

    async def close_stage(self, stage: StageId) -> None:
        for peer in [each for each, where in self._peers.items() if where == stage]:
            del self._peers[peer]
        if self._link is not None:
            await self._quietly(self._link, lambda number: CloseStage(number, stage))

    @staticmethod
    async def _quietly(link: _Link, make: Callable[[int], Message]) -> None:
        """A worker that died has let everybody go already."""
        try:
            await link.request(make)
        except Unavailable:
            if not link.closed:
                raise

    def listen(self, stage: StageId, take: Take) -> None:
        """From now on ``take`` gets the stage's shared frames, over restarts of the worker too. One a stage."""
        self._taps[stage] = take
        if self._link is not None:
            self._link.post(Stream(0, stage, True))

    def unlisten(self, stage: StageId) -> None:
        """Harmless twice."""
        if self._taps.pop(stage, None) is not None and self._link is not None:
            self._link.post(Stream(0, stage, False))

    async def stats(self) -> Stats:
        """Counters of the worker and of each peer. Raises Unavailable."""
        reply = await (await self._ready()).request(GetStats)
        if reply.stats is None:
            raise Ours("the media worker answered without stats")
        return stats_from(reply.stats)

    async def close(self) -> None:
        """Say goodbye to all peers, end the worker, join the task. Harmless twice."""
        self._closing = True
        if self._link is not None:
            await self._link.stop()
        if self._task is not None and not self._task.done():
            if self._link is None:
                self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
