"""One running media worker process, as the control process holds it."""

from __future__ import annotations

import asyncio
import itertools
import os
import socket
import sys
from collections.abc import Callable
from pathlib import Path

import bridge
from bridge.errors import ConfigError, Unavailable
from bridge.media.control import (
    Failed,
    Message,
    Reply,
    Start,
    Started,
    WorkerSettings,
    encode,
    error_from,
    read,
)

_START_S = 30.0  # generous: a busy machine imports slowly
ANSWER_S = 10.0
_STOP_S = 5.0


class Link:
    """A worker and the two sockets to it: one for messages, one to hand it its ends of the trunk (trunk.py).

    Owned by the task of ``Workers`` that reads it to its end. Requests may come from any task of the loop; each waits
    for its own reply."""

    def __init__(
        self,
        process: asyncio.subprocess.Process,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        hatch: socket.socket,
    ):
        self.process, self._reader, self._writer, self._hatch = process, reader, writer, hatch
        self._ids = itertools.count(1)
        self._waiting: dict[int, asyncio.Future[Reply]] = {}
        self.closed = False

    @classmethod
    async def start(cls, settings: WorkerSettings) -> tuple[Link, Started]:
        """Raises ConfigError where the worker cannot have its port, Unavailable where it does not start."""
        root = str(Path(bridge.__file__).parent.parent)  # the child must find the same package, wherever it runs
        paths = [root, *filter(None, [os.environ.get("PYTHONPATH")])]
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        hatch, their_hatch = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        hatch.setblocking(False)
        try:
            process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "bridge.media.process",
                str(theirs.fileno()), str(their_hatch.fileno()), str(os.getpid()),
                pass_fds=(theirs.fileno(), their_hatch.fileno()), stdin=asyncio.subprocess.DEVNULL,
                env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
            )  # fmt: skip
        except OSError:
            ours.close()
            hatch.close()
            raise
        finally:
            theirs.close()
            their_hatch.close()
        reader, writer = await asyncio.open_connection(sock=ours)
        link = cls(process, reader, writer, hatch)
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

    def hand_over(self, given: socket.socket, to: int) -> None:
        """Its end of the trunk to worker ``to``, or somebody's connection (`trunk.CONNECTION`). Raises OSError: the
        worker is ending, or stands still."""
        socket.send_fds(self._hatch, [bytes((to,))], [given.fileno()])

    async def request(self, make: Callable[[int], Message]) -> Reply:
        """Send ``make(id)`` and wait for its reply. Raises what the worker refused with, or Unavailable."""
        if self.closed:
            raise Unavailable("the media worker is starting again")
        number = next(self._ids)
        future: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()
        self._waiting[number] = future
        try:
            self._writer.write(encode(make(number)))
            reply = await asyncio.wait_for(future, ANSWER_S)
        except TimeoutError:
            raise Unavailable(f"the media worker did not answer within {ANSWER_S:.0f} s") from None
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
        """Close the sockets, wait for the process, kill it if it stays. Harmless twice."""
        self._fail()
        self._writer.close()
        self._hatch.close()
        try:
            await asyncio.wait_for(self.process.wait(), _STOP_S)
        except TimeoutError:
            self.process.kill()
            await self.process.wait()
