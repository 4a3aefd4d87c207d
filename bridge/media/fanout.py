"""One encoded frame → the datagrams of every listener of a stage.

Who may speak gets a packet of 20 ms each tick. The others get the same frames joined to packets of
``listener_packet_ms`` (RFC 6716 §3.2.5), each in one of the phases, so that a tick serves a third of them:
cost is per packet. A packet holds what came since the last one to that listener, so that a change of pace
loses and repeats nothing. A listener whose link loses packets gets the frames of the one before again with each
(RFC 2198), where the browser offered that.

    tick    1    2    3    4    5    6         A, B, C: phases of 60 ms packets
    A            ●━━━━━━━━━━━━━━●              the window ends in a new packet where the TOC changes, a frame is
    B       ●━━━━━━━━━━━━━━●                   DTX or silence, or ticks were skipped; the phase stays
    C                 ●━━━━━━━━━━━━━━●

Two engines with one interface and the same rules: this one, and the loop in C (fanout_native.py).
Measured by ``make bench``; figures in docs/performance.md.
"""

from __future__ import annotations

import ctypes
import ipaddress
import secrets
import socket
import sys
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import pylibsrtp

from bridge.media import opus, rtp
from bridge.media.control import LOW
from bridge.media.dtls import Keys
from bridge.media.mixer import QUIET, Frame, Output, mix_key
from bridge.media.stun import Address

FRAME = 960
TICK_MS = 20
MAX_TICKS = 3
"""Ticks in one packet at most: 60 ms."""
MAX_JOINED = 1088
"""Bytes; with header, extensions and tag a packet stays below 1200, as DTLS does."""
_KEPT = 2 * MAX_TICKS  # ticks: what one packet holds, and what the copy in it does
KEEP_ALIVE_TICKS = 45
"""0.9 s: in silence a listener gets a packet at least each second, and takes 3 s of nothing for a broken path."""
_SPREAD = 9  # … some of them a little earlier, so that keep-alives do not come all in one tick
_QUIET, _SHARED = 0, 1  # streams of a stage; the others are those without owners who talk

Send = Callable[[bytes, Address], object]


class Sender(ctypes.Structure):
    """What we send to one listener: SSRC, numbering, SRTP, address, pace. Filled in by its peer.

    Timestamps advance with the ticks, sent or not; sequence numbers only with packets (RFC 3550 §5.1). The fields
    are the memory that fanout.c works on: ``struct sender`` there has the same ones."""

    _fields_ = (
        ("cipher", ctypes.c_void_p),
        ("index", ctypes.c_uint64),  # RFC 3711 §3.3.1: rollover counter, sequence number
        ("done", ctypes.c_int64),  # frames up to this tick were sent or passed over
        ("last_tick", ctypes.c_int64),
        ("packets", ctypes.c_uint64),
        ("octets", ctypes.c_uint64),
        ("wire_bytes", ctypes.c_uint64),
        ("ssrc", ctypes.c_uint32),
        ("timestamp_base", ctypes.c_uint32),
        ("stream", ctypes.c_uint16),
        ("payload_type", ctypes.c_uint8),
        ("level_id", ctypes.c_uint8),
        ("csrc_level_id", ctypes.c_uint8),
        ("red_type", ctypes.c_uint8),  # payload type of RED; 0: packets hold no copies
        ("period", ctypes.c_uint8),  # ticks from packet to packet
        ("phase", ctypes.c_uint8),
        ("keep_alive", ctypes.c_uint8),
        ("quiet", ctypes.c_uint8),  # the last packet was one of silence
        ("address_size", ctypes.c_uint8),  # 0: nothing is sent (not connected, silent, not verified, not wanted)
        ("salt", ctypes.c_uint8 * 12),
        ("sockaddr", ctypes.c_uint8 * 28),
    )

    def __init__(self, owner: str, seat: int = 0) -> None:
        """``seat``: any number; those that follow one another get different phases."""
        super().__init__()
        self.owner = owner
        self.left_out: frozenset[str] = frozenset()  # owners that it does not hear, beside its own
        self.srtp: pylibsrtp.Session | None = None
        self.ssrc = secrets.randbits(32) or 1
        self.index = secrets.randbits(15)  # below 2^15: libsrtp must not guess a wrong rollover at the start
        self.timestamp_base = secrets.randbits(32)
        self.keep_alive = KEEP_ALIVE_TICKS - seat % _SPREAD
        self.last_tick = -KEEP_ALIVE_TICKS
        self.quiet = 1
        self._seat = seat
        self._hear = False
        self._stream = _SHARED
        self._wanted = True
        self._address: Address | None = None
        self.pace(1)

    __hash__ = object.__hash__  # by identity, as it is compared

    def pace(self, ticks: int) -> None:
        """A packet each so many ticks (1 … 3) from now on."""
        self.period, self.phase = ticks, self._seat % ticks

    @property
    def hear(self) -> bool:
        """Whether it gets the stage, or silence."""
        return self._hear

    @hear.setter
    def hear(self, hear: bool) -> None:
        self._hear = hear
        self.stream = self._stream if hear else _QUIET

    def listen_to(self, stream: int) -> None:
        """The stream it gets while it hears."""
        self._stream = stream
        self.hear = self._hear

    @property
    def wanted(self) -> bool:
        """False: the other side only sends (its offer says sendonly or inactive)."""
        return self._wanted

    @wanted.setter
    def wanted(self, wanted: bool) -> None:
        self._wanted = wanted
        self._place()

    @property
    def address(self) -> Address | None:
        return self._address

    @address.setter
    def address(self, address: Address | None) -> None:
        if address != self._address:
            self._address = address
            self._place()

    def _place(self) -> None:
        packed = _sockaddr(self._address) if self._address is not None and self._wanted else b""
        ctypes.memmove(self.sockaddr, packed, len(packed))
        self.address_size = len(packed)

    def timestamp(self, tick: int) -> int:
        base: int = self.timestamp_base
        return base + tick * FRAME & 0xFFFF_FFFF


def _sockaddr(address: Address) -> bytes:
    """As the kernel has it: sockaddr_in (16 bytes) or sockaddr_in6 (28 bytes); of a TCP connection its number (8)."""
    if len(address) == 3:
        return address[2].to_bytes(8, sys.byteorder)
    host, port = address[0].split("%", 1)[0], address[1]
    packed = ipaddress.ip_address(host).packed
    if len(address) == 2:
        return socket.AF_INET.to_bytes(2, "little") + port.to_bytes(2, "big") + packed + bytes(8)
    flow, scope = address[2], address[3]
    head = socket.AF_INET6.to_bytes(2, "little") + port.to_bytes(2, "big") + flow.to_bytes(4, "big")
    return head + packed + scope.to_bytes(4, "little")


@dataclass(frozen=True, slots=True)
class Piece:
    """What goes into one packet. ``tick``: of its first frame. ``loudest``: whose level and CSRCs stand for all."""

    tick: int
    loudest: Frame
    payload: bytes


def pieces(window: Sequence[tuple[int, Frame]]) -> list[Piece]:
    """Cut (tick, frame) of at most three ticks into packets: one, where all frames can be joined."""
    runs: list[list[tuple[int, Frame]]] = []
    for tick, frame in window:
        if runs and _may_follow(runs[-1], tick, frame):
            runs[-1].append((tick, frame))
        else:
            runs.append([(tick, frame)])
    return [
        Piece(run[0][0], min((frame for _, frame in run), key=_level), opus.join([frame.payload for _, frame in run]))
        for run in runs
    ]


def _level(frame: Frame) -> int:
    return frame.level


def copied(window: Sequence[tuple[int, Frame]]) -> bytes:
    """What was sent as one packet, to be sent again; nothing where it was none, or is not worth it, or too long."""
    if not window or not window[0][1].sounding or len(window[0][1].payload) <= 2:
        return b""
    found = pieces(window)
    return found[0].payload if len(found) == 1 and len(found[0].payload) <= rtp.MAX_COPY else b""


def _may_follow(run: list[tuple[int, Frame]], tick: int, frame: Frame) -> bool:
    """RFC 6716 §3.2 wants one TOC; a payload of two bytes and less is DTX and stands alone."""
    last_tick, last = run[-1]
    if tick != last_tick + 1 or not (last.sounding and frame.sounding):
        return False
    if min(len(last.payload), len(frame.payload)) <= 2 or last.payload[0] != frame.payload[0] or last.payload[0] & 3:
        return False
    return sum(len(each.payload) for _, each in run) + len(frame.payload) + 2 * MAX_TICKS <= MAX_JOINED


class Stage(Protocol):
    """The listeners of one stage. ``tick`` counts from 1 and never repeats."""

    def add(self, sender: Sender) -> None: ...

    def connect(self, sender: Sender, keys: Keys) -> None:
        """The sender has its keys (and ``srtp``, made of the same): from here on it is served."""

    def leave_out(self, sender: Sender, owners: frozenset[str]) -> None:
        """From the next packet on it hears the mix without these, as far as the mixer makes that (`Mixer.ears`)."""

    def remove(self, sender: Sender) -> None:
        """Harmless twice."""

    def tick(self, output: Output, tick: int) -> None:
        """Send each listener that is due what came since its last packet."""


class Engine(Protocol):
    """One way to fan out. Owned by the worker."""

    name: str

    @property
    def errors(self) -> int:
        """Datagrams not taken, beside those that the port itself counts."""

    def stage(self) -> Stage: ...

    def close(self) -> None:
        """Harmless twice."""


class PythonEngine:
    """libsrtp and sendto, a packet at a time."""

    name = "Python"
    errors = 0

    def __init__(self, send: Send) -> None:
        self._send = send

    def stage(self) -> Stage:
        return PythonStage(self._send)

    def close(self) -> None:
        pass


class PythonStage:
    """Serves listeners of any SRTP profile. Keeps the outputs of the last six ticks."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self._now = 0
        self._history: deque[tuple[int, Output]] = deque(maxlen=_KEPT)
        self._served: dict[Sender, None] = {}  # connected, in the order in which they came
        self._by_owner: dict[str, list[Sender]] = {}  # those who leave nobody out
        self._choosy: dict[Sender, None] = {}  # those who do
        self._streams: dict[str, int] = {}  # by mix_key: of frames without somebody in the last three ticks
        self._keys: dict[int, str] = {}
        self._cut: dict[tuple[int, int], list[Piece]] = {}
        self._red: dict[tuple[int, int, int], bytes] = {}
        self._tails: dict[tuple[int, int, int, int], bytes] = {}

    def add(self, sender: Sender) -> None:
        if sender.left_out:
            self._choosy[sender] = None
        else:
            self._by_owner.setdefault(sender.owner, []).append(sender)
        sender.listen_to(self._stream_of(sender))

    def leave_out(self, sender: Sender, owners: frozenset[str]) -> None:
        self._forget(sender)
        sender.left_out = owners
        self.add(sender)

    def connect(self, sender: Sender, keys: Keys) -> None:
        sender.done = self._now
        self._served[sender] = None

    def remove(self, sender: Sender) -> None:
        self._served.pop(sender, None)
        self._forget(sender)

    def _forget(self, sender: Sender) -> None:
        self._choosy.pop(sender, None)
        of_owner = self._by_owner.get(sender.owner, [])
        if sender in of_owner:
            of_owner.remove(sender)
            if not of_owner:
                del self._by_owner[sender.owner]

    def tick(self, output: Output, tick: int) -> None:
        self._remember(output, tick)
        self._serve(tick)

    def _remember(self, output: Output, tick: int) -> None:
        """What is mixed without somebody has a stream until three ticks after its last frame."""
        self._now = tick
        self._history.append((tick, output))
        self._cut.clear()
        self._red.clear()
        self._tails.clear()
        if not output.own and not self._streams:
            return
        wanted = {key for at, each in self._history if tick - at < MAX_TICKS for key in each.own}
        changed = wanted ^ self._streams.keys()
        if not changed:
            return
        for key in self._streams.keys() - wanted:
            del self._keys[self._streams.pop(key)]
        for key in wanted - self._streams.keys():
            stream = next(each for each in range(_SHARED + 1, 1 << 16) if each not in self._keys)
            self._streams[key], self._keys[stream] = stream, key
        for key in changed:
            for sender in self._by_owner.get(key, ()):
                sender.listen_to(self._stream_of(sender))
        for sender in self._choosy:
            sender.listen_to(self._stream_of(sender))

    def _stream_of(self, sender: Sender) -> int:
        """Where there is no mix without all whom it should not hear, the one without itself comes first."""
        if not sender.left_out:
            return self._streams.get(sender.owner, _SHARED)
        without = (sender.left_out | {sender.owner}) & self._streams.keys()
        keys = (mix_key(without), sender.owner, *sorted(without - {LOW}), LOW)
        return next((self._streams[key] for key in keys if key in self._streams), _SHARED)

    def _frame(self, stream: int, output: Output) -> Frame:
        if stream == _QUIET:
            return QUIET
        return output.shared if stream == _SHARED else output.without(self._keys[stream])

    def _serve(self, tick: int) -> None:
        for sender in self._served:
            if not sender.address_size:
                sender.done = tick
            elif tick % sender.period == sender.phase or tick - sender.done >= MAX_TICKS:
                first = max(sender.done + 1, tick - MAX_TICKS + 1, 1)
                sender.done = tick
                self._send_window(sender, sender.stream, first)

    def _send_window(self, sender: Sender, stream: int, first: int) -> None:
        cut = self._cut.get((stream, first))
        if cut is None:
            window = [(at, self._frame(stream, output)) for at, output in self._history if at >= first]
            cut = self._cut[stream, first] = pieces(window)
        for piece in cut:
            if piece.loudest.sounding or not sender.quiet or piece.tick - sender.last_tick >= sender.keep_alive:
                self._send_piece(sender, piece)

    def _send_piece(self, sender: Sender, piece: Piece) -> None:
        about, level_id, csrc_level_id = piece.loudest, sender.level_id, sender.csrc_level_id
        payload = self._with_copy(sender, piece) if sender.red_type else piece.payload
        key = (id(about), id(payload), level_id, csrc_level_id)  # both are kept as long as the tick
        tail = self._tails.get(key)
        if tail is None:
            tail = self._tails[key] = rtp.pack_tail(about.csrcs, about.level, level_id, csrc_level_id, payload)
        index = sender.index
        head = rtp.pack_header(
            about.sounding and bool(sender.quiet),  # marker: a talk spurt begins (RFC 3551 §4.1)
            sender.red_type or sender.payload_type,
            index & 0xFFFF,
            sender.timestamp(piece.tick),
            sender.ssrc,
            len(about.csrcs),
            bool(level_id or (csrc_level_id and about.csrcs)),
        )
        assert sender.srtp is not None
        assert sender.address is not None
        packet = sender.srtp.protect(head + tail)
        self._send(packet, sender.address)
        sender.index = index + 1
        sender.quiet = not about.sounding
        sender.last_tick = piece.tick
        sender.packets += 1
        sender.octets += len(payload)
        sender.wire_bytes += len(packet)

    def _with_copy(self, sender: Sender, piece: Piece) -> bytes:
        """RFC 2198: the packet before again, if it was one of the last ticks. A receiver that has it drops the copy,
        one that has it not must find it in the place of the original."""
        ticks = piece.tick - sender.last_tick
        key = (id(piece), sender.payload_type, ticks)
        red = self._red.get(key)
        if red is None:
            copy = b""
            if ticks <= MAX_TICKS:
                window = [(at, self._frame(sender.stream, output)) for at, output in self._history]
                copy = copied([each for each in window if sender.last_tick <= each[0] < piece.tick])
            if rtp.COPY_HEAD + len(copy) + len(piece.payload) > MAX_JOINED:
                copy = b""
            red = self._red[key] = rtp.pack_red(sender.payload_type, piece.payload, copy, ticks * FRAME)
        return red
