"""The one TCP port for page and sound (``media.tcp_single_port``): who a connection is for stands in its first bytes.

    accepted ── 0x16, a TLS handshake ──▶ whoever serves the page
        │ └── a frame (RFC 4571) with a STUN request whose ufrag one of our workers made ──▶ that worker
        │ anything else · 5 s · pushed out by newer ones
        ▼
      refused

The bytes are looked at and left in the kernel (MSG_PEEK), so whoever takes the socket reads all of them. It is not
checked here whether the request holds: the worker does, and it alone knows the password.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import socket
from collections.abc import Callable
from dataclasses import dataclass

from bridge.media import stun, tcp

_TLS_HANDSHAKE = 0x16  # RFC 8446 §5.1; as the first byte of a frame's length it would be more than a check may have
_MOST = 2 + stun.MAX_SIZE
_PAUSE_S = 1.0  # without accepting, when the system has no descriptor left
_ACCEPTS = 32


@dataclass(frozen=True, slots=True)
class Page:
    """TLS."""


@dataclass(frozen=True, slots=True)
class Worker:
    """Sound, for the worker of this number."""

    number: int


@dataclass(frozen=True, slots=True)
class More:
    """So many bytes must be there to tell."""

    bytes: int


def destination(data: bytes) -> Page | Worker | More | None:
    """Who a connection is for that begins with ``data``, which has at least one byte; None: nobody here."""
    if data[0] == _TLS_HANDSHAKE:
        return Page()
    size = int.from_bytes(data[:2], "big")
    if len(data) >= 2 and not 20 <= size <= stun.MAX_SIZE:
        return None
    if len(data) < 2 or len(data) < 2 + size:
        return More(2 if len(data) < 2 else 2 + size)
    message = stun.parse(data[2 : 2 + size])
    number = stun.worker_of(message.username) if message is not None and message.is_request else None
    return None if number is None else Worker(number)


class _Look:
    """One connection that is undecided."""

    __slots__ = ("deadline", "socket", "source", "wanted")

    def __init__(self, connection: socket.socket, host: str) -> None:
        self.socket, self.source = connection, tcp.source_of(host)
        self.wanted = 1  # bytes that must be there before looking again is worth it
        self.deadline: asyncio.TimerHandle | None = None


class Front:
    """Owns its listeners, the connections that are undecided and their timers; no task. ``close`` closes all.

    At most ``tcp.MAX_WAITING`` connections are undecided, ``tcp.MAX_WAITING_EACH`` of one source: the oldest goes."""

    def __init__(
        self, bind: str, port: int, page: Callable[[socket.socket], None], sound: Callable[[int, socket.socket], bool]
    ) -> None:
        """``page`` takes a socket for good. ``sound``: hand it to that worker; the socket is closed here in any case,
        and False counts as refused. Raises OSError where the port cannot be had."""
        self.refused = 0
        self._page, self._sound = page, sound
        self._undecided: dict[_Look, None] = {}  # oldest first
        self._pauses: dict[socket.socket, asyncio.TimerHandle] = {}
        self._loop = asyncio.get_running_loop()
        self._listeners: list[socket.socket] = []
        families = ({6} if ":" in bind else {4}) if bind else {4, 6}
        try:
            for family in sorted(families):
                self._listeners.append(tcp.listening(family, bind, port or self.port))
        except OSError as error:
            if not self._listeners or error.errno not in (errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL):  # no IPv6 here
                self.close()
                raise
        for each in self._listeners:
            self._loop.add_reader(each.fileno(), self._accept, each)

    @property
    def port(self) -> int:
        """0 before the first listener is there."""
        return int(self._listeners[0].getsockname()[1]) if self._listeners else 0

    def __len__(self) -> int:
        return len(self._undecided)

    def close(self) -> None:
        """Harmless twice."""
        for look in list(self._undecided):
            self._forget(look)
            look.socket.close()
        for pause in self._pauses.values():
            pause.cancel()
        for each in self._listeners:
            if each.fileno() >= 0:
                self._loop.remove_reader(each.fileno())
                each.close()

    def _accept(self, listener: socket.socket) -> None:
        for _ in range(_ACCEPTS):
            try:
                connection, remote = listener.accept()
            except (BlockingIOError, InterruptedError):
                return
            except OSError as error:
                if error.errno in (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM):
                    self._loop.remove_reader(listener.fileno())  # else it would wake us again and again
                    self._pauses[listener] = self._loop.call_later(_PAUSE_S, self._resume, listener)
                    return
                continue  # a connection that ended before we took it (accept(2))
            connection.setblocking(False)
            self._add(_Look(connection, remote[0]))

    def _resume(self, listener: socket.socket) -> None:
        del self._pauses[listener]
        self._loop.add_reader(listener.fileno(), self._accept, listener)

    def _add(self, look: _Look) -> None:
        alike = [each for each in self._undecided if each.source == look.source]
        if look.source and len(alike) >= tcp.MAX_WAITING_EACH:
            self._refuse(alike[0])
        elif len(self._undecided) >= tcp.MAX_WAITING:
            self._refuse(next(iter(self._undecided)))
        self._undecided[look] = None
        look.deadline = self._loop.call_later(tcp.FIRST_CHECK_S, self._refuse, look)
        self._loop.add_reader(look.socket.fileno(), self._look_at, look)

    def _look_at(self, look: _Look) -> None:
        try:
            data = look.socket.recv(_MOST, socket.MSG_PEEK)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            data = b""
        if len(data) < look.wanted:  # awake with less than was waited for: the other side has closed
            self._refuse(look)
            return
        found = destination(data)
        if found is None:
            self._refuse(look)
        elif isinstance(found, More):
            look.wanted = found.bytes
            look.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, found.bytes)
        else:
            self._pass_on(look, found)

    def _pass_on(self, look: _Look, found: Page | Worker) -> None:
        self._forget(look)
        with contextlib.suppress(OSError):  # it may be gone: who takes it sees
            look.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, 1)
        if isinstance(found, Page):
            self._page(look.socket)
            return
        self.refused += not self._sound(found.number, look.socket)
        look.socket.close()

    def _forget(self, look: _Look) -> None:
        del self._undecided[look]
        self._loop.remove_reader(look.socket.fileno())
        if look.deadline is not None:
            look.deadline.cancel()

    def _refuse(self, look: _Look) -> None:
        self.refused += 1
        self._forget(look)
        look.socket.close()
