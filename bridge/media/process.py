"""The process of a media worker: ``python -m bridge.media.process CONTROL HATCH PARENT``, two descriptors and a process
id (link.py). One asyncio loop, and a thread that writes the log. It ends when the control socket closes, or the parent
dies.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import gc
import logging
import os
import signal
import socket
import sys
from collections.abc import Callable

from bridge.media.control import (
    Failed,
    LevelsNow,
    Message,
    Pressed,
    Start,
    Started,
    encode,
    read,
)
from bridge.media.lossy_log import LossyHandler
from bridge.media.worker import Worker

_NICE = -10  # a late tick is heard; a late page is not
_MAX_PENDING_OUT = 1 << 20  # bytes waiting for the control process; levels and stream frames are dropped beyond it


async def serve(control: socket.socket, hatch: socket.socket) -> int:
    """Obey the control process until it closes the socket. ``hatch``: see trunk.py. Returns the exit status."""
    reader, writer = await asyncio.open_connection(sock=control)
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    first = await read(reader)
    if not isinstance(first, Start):
        return 1

    def has_room() -> bool:
        return writer.transport.get_write_buffer_size() <= _MAX_PENDING_OUT

    def emit(message: Message) -> None:
        if isinstance(message, LevelsNow | Pressed) and not has_room():
            return
        writer.write(encode(message))

    try:
        worker = Worker(first.settings, emit)
    except (OSError, ValueError) as error:
        where = f"{first.settings.bind or 'all addresses'}, port {first.settings.port}"
        emit(Failed(f"media cannot listen on {where}: {error}"))
        await writer.drain()
        return 1
    worker.stages.streams.has_room = has_room
    worker.start()
    worker.stages.trunk.start(hatch)
    gc.freeze()  # what is loaded now stays: full collections need not look at it
    emit(Started(worker.port, worker.addresses))
    requests = asyncio.create_task(_obey(worker, reader, emit))
    stopping = asyncio.create_task(stop.wait())
    try:
        await asyncio.wait((requests, stopping), return_when=asyncio.FIRST_COMPLETED)
    finally:
        requests.cancel()
        stopping.cancel()
        await asyncio.gather(requests, stopping, return_exceptions=True)
        worker.close()
        writer.close()
    return 0


async def _obey(worker: Worker, reader: asyncio.StreamReader, emit: Callable[[Message], None]) -> None:
    while (request := await read(reader)) is not None:
        reply = worker.handle(request)
        if reply is not None:
            emit(reply)


def _die_with_parent(parent: int) -> None:
    """prctl(2) PR_SET_PDEATHSIG: SIGTERM when the control process dies, however it dies."""
    ctypes.CDLL(None, use_errno=True).prctl(1, signal.SIGTERM, 0, 0, 0)
    if os.getppid() != parent:
        sys.exit(0)


def main() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C goes to the whole group; the control process tells us
    _die_with_parent(int(sys.argv[3]))
    with contextlib.suppress(PermissionError):  # without the right to it, as any other process
        os.setpriority(os.PRIO_PROCESS, 0, _NICE)
    log = LossyHandler(sys.stderr)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s", handlers=[log])
    try:
        status = asyncio.run(serve(*(socket.socket(fileno=int(each)) for each in sys.argv[1:3])))
    finally:
        log.close()
    sys.exit(status)


if __name__ == "__main__":
    main()
