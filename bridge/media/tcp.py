"""The TCP side of a worker's port, for networks that let no UDP through: ICE-TCP, passive (RFC 6544).

A connection carries datagrams, each with two bytes of length in front (RFC 4571 §2). Browsers open it; who they are
is told by the first frame alone:

    accepted ── a check that holds ──▶ kept ── either side closes ──▶ gone, and its peer is told
        │ any other first frame · 5 s · pushed out by newer ones
        ▼
      refused
"""

from __future__ import annotations

import asyncio
import errno
import ipaddress
import itertools
import resource
import socket
import sys
from collections import deque
from collections.abc import Callable

from bridge.media import rtp, stun
from bridge.media.stun import Address
from bridge.media.udp import Port

FIRST_CHECK_S = 5.0
MAX_WAITING = 256
"""Connections without a check so far. Beyond it the oldest goes: a browser's check follows its connection at once."""
MAX_WAITING_EACH = 32
"""… of one source: an IPv4 address, an IPv6 /64. Loopback, a proxy of our own, is not limited so."""
MAX_QUEUED = 32
"""Frames waiting for a connection that the network does not empty: 0.6 to 1.9 s. Beyond it the oldest audio goes."""
_MAX_FRAME = 2048
_READ = 16 * 1024  # bytes read before the loop may do something else
_ACCEPTS = 32  # … and connections accepted
_UNSENT = 4096  # bytes in the kernel that are not on their way; what waits longer, waits with us and can be dropped
_DEAD_MS = 30_000  # nothing acknowledged for so long: as long as a silent peer stays (RFC 7675 §5.1)
_SPARE_DESCRIPTORS = 64
_PAUSE_S = 1.0  # without accepting, when the system has no descriptor left
_TRIES = 20


class _Stream:
    """One connection. ``queue``: frames not sent yet; the first may be the rest of one."""

    __slots__ = ("address", "buffer", "deadline", "is_closed", "is_kept", "queue", "socket", "source")

    def __init__(self, connection: socket.socket, address: tuple[str, int, int]) -> None:
        self.socket, self.address = connection, address
        self.source = source_of(address[0])
        self.buffer = bytearray()  # at most one frame and one read
        self.queue: deque[bytes] = deque()
        self.is_kept = self.is_closed = False
        self.deadline: asyncio.TimerHandle | None = None


class Streams:
    """Owns its listeners, connections and timers; ``close`` closes all. No task; all is called from the one loop.

    A connection's address is ``(host, port, number)``: three parts, unlike both kinds of UDP address. ``send`` never
    blocks and never raises."""

    def __init__(self, bind: str, port: int, families: set[int], limit: int) -> None:
        """``families`` as ``Port`` has them; none is no TCP. At most ``limit`` connections, fewer where the system
        gives fewer descriptors. Raises OSError."""
        self.refused = 0  # no check that holds, or no place
        self.dropped = 0  # frames of kept connections that were too slow
        self._limit = min(limit, _descriptors() - _SPARE_DESCRIPTORS)
        self._numbers = itertools.count(1)
        self._streams: dict[int, _Stream] = {}
        self._waiting: dict[int, _Stream] = {}  # those not kept, oldest first
        self._pauses: dict[socket.socket, asyncio.TimerHandle] = {}
        self._listeners: list[socket.socket] = []
        self._loop: asyncio.AbstractEventLoop | None = None
        try:
            for family in sorted(families):
                self._listeners.append(listening(family, bind, port))
        except OSError as error:
            self.close()
            raise OSError(error.errno, f"TCP: {error.strerror} (media.tcp: false does without)") from None

    def __len__(self) -> int:
        return len(self._streams)

    def start(self, on_datagram: Callable[[bytes, Address], None], on_gone: Callable[[Address], None]) -> None:
        """``on_datagram`` is called for each frame and may not raise; if it does not ``keep`` the sender of a first
        frame, that one is refused. ``on_gone``: a kept connection has closed, not by ``hang_up``."""
        self._loop = asyncio.get_running_loop()
        self._on_datagram, self._on_gone = on_datagram, on_gone
        for each in self._listeners:
            self._loop.add_reader(each.fileno(), self._accept, each)

    def close(self) -> None:
        """Harmless twice."""
        for stream in list(self._streams.values()):
            self._close(stream)
        for pause in self._pauses.values():
            pause.cancel()
        for each in self._listeners:
            if each.fileno() >= 0 and self._loop is not None:
                self._loop.remove_reader(each.fileno())
            each.close()

    # -- connections -----------------------------------------------------------------------------

    def _accept(self, listener: socket.socket) -> None:
        assert self._loop is not None
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
            self._add(connection, (remote[0], remote[1], next(self._numbers)))

    def adopt(self, connection: socket.socket) -> None:
        """A connection that the control process has accepted; its first frame may be unread still."""
        try:
            host, port = connection.getpeername()[:2]
        except OSError:  # it has ended meanwhile
            connection.close()
            return
        self._add(connection, (host, port, next(self._numbers)))

    def _resume(self, listener: socket.socket) -> None:
        assert self._loop is not None
        del self._pauses[listener]
        self._loop.add_reader(listener.fileno(), self._accept, listener)

    def _add(self, connection: socket.socket, address: tuple[str, int, int]) -> None:
        assert self._loop is not None
        stream = _Stream(connection, address)
        if not self._make_place(stream.source):
            self.refused += 1
            connection.close()
            return
        connection.setblocking(False)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, _UNSENT)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, _DEAD_MS)
        self._streams[address[2]] = self._waiting[address[2]] = stream
        stream.deadline = self._loop.call_later(FIRST_CHECK_S, self._refuse, stream)
        self._loop.add_reader(connection.fileno(), self._read, stream)

    def _make_place(self, source: str) -> bool:
        alike = [each for each in self._waiting.values() if each.source == source]
        if source and len(alike) >= MAX_WAITING_EACH:
            self._refuse(alike[0])
        elif self._waiting and (len(self._waiting) >= MAX_WAITING or len(self._streams) >= self._limit):
            self._refuse(next(iter(self._waiting.values())))
        return len(self._streams) < self._limit

    def keep(self, address: Address) -> None:
        """A check from there held: it stays until either side closes it."""
        stream = self._waiting.pop(address[2], None) if len(address) == 3 else None
        if stream is not None:
            stream.is_kept = True
            if stream.deadline is not None:
                stream.deadline.cancel()

    def hang_up(self, address: Address) -> None:
        """Close it once the kernel has what was sent. Harmless where it is closed."""
        stream = self._streams.get(address[2]) if len(address) == 3 else None
        if stream is not None:
            self._flush(stream)
            self._close(stream)

    def _refuse(self, stream: _Stream) -> None:
        self.refused += 1
        self._close(stream)

    def _lose(self, stream: _Stream) -> None:
        """The other side closed it, broke the framing, or is unreachable."""
        if not stream.is_kept:
            self._refuse(stream)
            return
        self._close(stream)
        self._on_gone(stream.address)

    def _close(self, stream: _Stream) -> None:
        if stream.is_closed:
            return
        stream.is_closed = True
        stream.queue.clear()
        if stream.deadline is not None:
            stream.deadline.cancel()
        if self._loop is not None:
            self._loop.remove_reader(stream.socket.fileno())
            self._loop.remove_writer(stream.socket.fileno())
        stream.socket.close()
        self._streams.pop(stream.address[2], None)
        self._waiting.pop(stream.address[2], None)

    # -- frames in -------------------------------------------------------------------------------

    def _read(self, stream: _Stream) -> None:
        try:
            data = stream.socket.recv(_READ)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            data = b""
        if not data:
            self._lose(stream)
            return
        stream.buffer += data
        self._take_frames(stream)

    def _take_frames(self, stream: _Stream) -> None:
        buffer, at = stream.buffer, 0
        while len(buffer) - at >= 2:
            size = buffer[at] << 8 | buffer[at + 1]
            if size > (_MAX_FRAME if stream.is_kept else stun.MAX_SIZE):
                self._lose(stream)
                return
            end = at + 2 + size
            if len(buffer) < end:
                break
            if size or not stream.is_kept:  # an empty frame is allowed, and says nothing (RFC 4571 §2)
                self._on_datagram(bytes(buffer[at + 2 : end]), stream.address)
            if stream.is_closed:
                return
            if not stream.is_kept:
                self._refuse(stream)
                return
            at = end
        del buffer[:at]

    # -- frames out ------------------------------------------------------------------------------

    def send(self, datagram: bytes, address: Address) -> None:
        """Nothing is sent to a connection that is closed."""
        stream = self._streams.get(address[2]) if len(address) == 3 else None
        if stream is None:
            return
        if len(stream.queue) >= MAX_QUEUED:
            self.dropped += 1
            if not _drop_oldest_audio(stream.queue):
                return
        stream.queue.append(len(datagram).to_bytes(2, "big") + datagram)
        if len(stream.queue) == 1 and not self._flush(stream) and self._loop is not None:
            self._loop.add_writer(stream.socket.fileno(), self._on_writable, stream)

    def _on_writable(self, stream: _Stream) -> None:
        if self._flush(stream) and self._loop is not None:
            self._loop.remove_writer(stream.socket.fileno())

    @staticmethod
    def _flush(stream: _Stream) -> bool:
        """Whether nothing waits any more."""
        queue = stream.queue
        while queue:
            try:
                sent = stream.socket.send(queue[0])
            except (BlockingIOError, InterruptedError):
                return False
            except OSError:  # it is broken: reading will tell, and close it
                queue.clear()
                return True
            if sent < len(queue[0]):
                queue[0] = queue[0][sent:]
                return False
            queue.popleft()
        return True


def _drop_oldest_audio(queue: deque[bytes]) -> bool:
    """False where there is none but in the first, of which a part may have been sent."""
    for index in range(1, len(queue)):
        datagram = queue[index][2:]
        if 128 <= datagram[0] <= 191 and not rtp.is_rtcp(datagram):
            del queue[index]
            return True
    return False


def source_of(host: str) -> str:
    """Who is counted as one; "" is not counted."""
    address = ipaddress.ip_address(host.split("%", 1)[0])
    if address.is_loopback:
        return ""
    return host if address.version == 4 else str(ipaddress.IPv6Network((int(address) >> 64 << 64, 64)))


def listening(family: int, bind: str, port: int) -> socket.socket:
    """``family`` is 4 or 6, ``bind`` "" every address of it. Raises OSError."""
    kind = socket.AF_INET6 if family == 6 else socket.AF_INET
    made = socket.socket(kind, socket.SOCK_STREAM)
    try:
        made.setblocking(False)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # a worker's heir takes the port again at once
        if family == 6:
            made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        made.bind((bind or ("::" if family == 6 else "0.0.0.0"), port))  # noqa: S104
        made.listen(socket.SOMAXCONN)
    except OSError:
        made.close()
        raise
    return made


def _descriptors() -> int:
    """How many files this process may open, after asking for all that it is allowed."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard == resource.RLIM_INFINITY:
        return soft if soft != resource.RLIM_INFINITY else sys.maxsize
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard


def open_port(bind: str, port: int, *, tcp: bool, limit: int) -> tuple[Port, Streams]:
    """UDP, and TCP at the same number if wanted; without it, ``Streams`` has what it adopts alone. Raises OSError that
    says which of them failed."""
    for attempt in range(_TRIES):
        datagrams = Port(bind, port)
        try:
            return datagrams, Streams(bind, datagrams.port, datagrams.families if tcp else set(), limit)
        except OSError:
            datagrams.close()
            if port or attempt == _TRIES - 1:
                raise
    raise AssertionError("unreachable")
