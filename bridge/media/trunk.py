"""Between media workers: mixes from a stage's home to those who have listeners of it, voices the other way.

Each two workers share a pair of Unix sockets (``SOCK_SEQPACKET``: whole messages, in order, bounded by the kernel's
buffer), made by the control process and handed down through the *hatch*. A message goes out with one system call or is
dropped and counted, so that a worker that stands still stalls nobody. Only that a gate was shut is never lost: it
waits for room, and no packet of that voice passes it by.

    home → others   FRAMES  stage, tick, the shared frame and those of owners who talk
    any  → home     VOICE   stage, csrc, owner, sequence, timestamp, payload: authenticated, gate open
                    SHUT    stage, csrc, whether the peer is gone: the gate was shut
                    FEC     stage: a listener needs in-band FEC
"""

from __future__ import annotations

import asyncio
import logging
import socket
import struct
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

from bridge.media.mixer import Frame, Output

log = logging.getLogger("eyvan.media")

CONNECTION = 255
"""Handed down through the hatch with a TCP connection of somebody's (front.py)."""

_FRAMES, _VOICE, _SHUT, _FEC = 1, 2, 3, 4
_MAX_MESSAGE = 1 << 17  # bytes: a hundred frames of the longest kind
_BATCH = 256  # messages read before the loop may do something else
_SENT_ANYHOW = socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL
_frames_head = struct.Struct("!QH")
_frame_head = struct.Struct("!BBBH")
_level = struct.Struct("!IB")
_voice_head = struct.Struct("!I??HI")
_shut = struct.Struct("!I?")
_size = struct.Struct("!H")


class Spoken(NamedTuple):
    """One packet of a speaker. ``fresh``: of another source than the one before, with numbers of its own. ``copy``: it
    is one that a later packet brought again."""

    csrc: int
    owner: str
    fresh: bool
    copy: bool
    sequence: int
    timestamp: int
    payload: bytes


class TrunkEnd(Protocol):
    """The worker, as its trunk sees it; called in its one loop. ``worker``: where it comes from."""

    def on_frames(self, worker: int, stage: str, tick: int, output: Output) -> None: ...

    def on_voice(self, worker: int, stage: str, spoken: Spoken) -> None: ...

    def on_shut(self, worker: int, stage: str, csrc: int, gone: bool) -> None: ...

    def on_fec(self, worker: int, stage: str) -> None: ...

    def on_connection(self, connection: socket.socket) -> None:
        """Somebody's TCP connection, accepted by the control process, whose first frame is for this worker."""

    def on_cut(self, worker: int) -> None:
        """The worker is gone, and with it all its voices."""

    def on_defect(self, worker: int) -> None:
        """One of the others raised: in its handler, so that a traceback can be logged."""


@dataclass(slots=True, eq=False)
class _Line:
    """To one other worker. ``shuts``: what could not be said yet; at most one for each voice we forwarded."""

    socket: socket.socket
    shuts: dict[tuple[str, int], bool]


class Trunk:
    """Owns its sockets, and the hatch once it is started; no task. ``close`` closes all."""

    def __init__(self, end: TrunkEnd) -> None:
        self._end = end
        self._lines: dict[int, _Line] = {}
        self._hatch: socket.socket | None = None
        self._buffer = bytearray(_MAX_MESSAGE)
        self.dropped = 0

    def start(self, hatch: socket.socket) -> None:
        """Take what is handed down: a socket, and one byte: the number of the worker that it leads to, or
        CONNECTION."""
        hatch.setblocking(False)
        self._hatch = hatch
        asyncio.get_running_loop().add_reader(hatch.fileno(), self._on_hatch)

    def _on_hatch(self) -> None:
        assert self._hatch is not None
        try:
            data, descriptors, _, _ = socket.recv_fds(self._hatch, 1, 1)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            data, descriptors = b"", []
        if not data:  # the control process is gone; the other socket tells the worker so
            asyncio.get_running_loop().remove_reader(self._hatch.fileno())
        for each in descriptors:
            if data[0] == CONNECTION:
                self._end.on_connection(socket.socket(fileno=each))
            else:
                self.connect(data[0], socket.socket(fileno=each))

    def connect(self, worker: int, line: socket.socket) -> None:
        """The line to a worker from now on, in place of a former one, whose worker must have died."""
        if worker in self._lines:
            self._cut(worker)
        line.setblocking(False)
        self._lines[worker] = _Line(line, {})
        asyncio.get_running_loop().add_reader(line.fileno(), self._receive, worker)

    def close(self) -> None:
        """Harmless twice."""
        for worker in list(self._lines):
            self._hang_up(worker)
        if self._hatch is not None:
            asyncio.get_running_loop().remove_reader(self._hatch.fileno())
            self._hatch.close()
            self._hatch = None

    def _hang_up(self, worker: int) -> None:
        line = self._lines.pop(worker)
        asyncio.get_running_loop().remove_reader(line.socket.fileno())
        line.socket.close()

    def _cut(self, worker: int) -> None:
        self._hang_up(worker)
        self._end.on_cut(worker)

    # -- out -------------------------------------------------------------------------------------

    def frames(self, others: Iterable[int], stage: str, tick: int, output: Output) -> None:
        """The tick's output to those workers."""
        message = encode_frames(stage, tick, output)
        for worker in others:
            self._send(self._lines.get(worker), message)

    def voice(self, home: int, stage: str, spoken: Spoken) -> None:
        line = self._lines.get(home)
        if line is not None and line.shuts:
            self._say_shuts(line)
            if line.shuts:
                line = None
        self._send(line, encode_voice(stage, spoken))

    def shut(self, home: int, stage: str, csrc: int, *, gone: bool) -> None:
        line = self._lines.get(home)
        if line is not None:  # else the home is gone, and its voices with it
            line.shuts[stage, csrc] = gone
            self._say_shuts(line)

    def want_fec(self, home: int, stage: str) -> None:
        self._send(self._lines.get(home), bytes((_FEC,)) + _text(stage))

    def retry(self) -> None:
        """At each tick: say what there was no room for."""
        for line in self._lines.values():
            if line.shuts:
                self._say_shuts(line)

    def _say_shuts(self, line: _Line) -> None:
        for (stage, csrc), gone in list(line.shuts.items()):
            if not self._put(line, bytes((_SHUT,)) + _text(stage) + _shut.pack(csrc, gone)):
                return
            del line.shuts[stage, csrc]

    def _send(self, line: _Line | None, message: bytes) -> None:
        if line is None or len(message) > _MAX_MESSAGE or not self._put(line, message):
            self.dropped += 1

    @staticmethod
    def _put(line: _Line, message: bytes) -> bool:
        try:
            line.socket.send(message, _SENT_ANYHOW)
        except OSError:  # full; or it died, which reading tells
            return False
        return True

    # -- in --------------------------------------------------------------------------------------

    def drain(self) -> None:
        """Read all that was sent to us before now."""
        for worker in list(self._lines):
            self._receive(worker, 1 << 16)

    def _receive(self, worker: int, most: int = _BATCH) -> None:
        line = self._lines.get(worker)
        for _ in range(most):
            if line is None or self._lines.get(worker) is not line:
                return
            try:
                size = line.socket.recv_into(self._buffer)
            except (BlockingIOError, InterruptedError):
                return
            except OSError:
                size = 0
            if size == 0:
                self._cut(worker)
                return
            try:
                self._take(worker, bytes(memoryview(self._buffer)[:size]))
            except Exception:
                self._end.on_defect(worker)

    def _take(self, worker: int, message: bytes) -> None:
        kind = message[0]
        stage, at = _text_at(message, 1)
        if kind == _FRAMES:
            self._end.on_frames(worker, stage, *decode_frames(message, at))
        elif kind == _VOICE:
            self._end.on_voice(worker, stage, decode_voice(message, at))
        elif kind == _SHUT:
            self._end.on_shut(worker, stage, *_shut.unpack_from(message, at))
        elif kind == _FEC:
            self._end.on_fec(worker, stage)


class FarVoice:
    """Stands at the peer for a voice that is mixed by another worker: the same calls as ``Voice``."""

    __slots__ = ("_fresh", "_home", "_is_known", "_stage", "_trunk", "csrc", "open", "owner")
    fading = False  # its last 10 ms fade out at the home

    def __init__(self, trunk: Trunk, home: int, stage: str, owner: str, csrc: int) -> None:
        self._trunk, self._home, self._stage = trunk, home, stage
        self.owner, self.csrc = owner, csrc
        self.open = False
        self._fresh = self._is_known = False

    def put(self, sequence: int, timestamp: int, payload: bytes, now: float) -> None:
        self._say(False, sequence, timestamp, payload)

    def restore(self, sequence: int, timestamp: int, payload: bytes) -> None:
        self._say(True, sequence, timestamp, payload)

    def _say(self, copy: bool, sequence: int, timestamp: int, payload: bytes) -> None:
        spoken = Spoken(self.csrc, self.owner, self._fresh, copy, sequence, timestamp, payload)
        self._fresh, self._is_known = False, True
        self._trunk.voice(self._home, self._stage, spoken)

    def change_source(self) -> None:
        self._fresh = True

    def open_gate(self) -> None:
        """Nothing to say: the first packet opens it at the home."""
        self.open = True

    def shut(self, now: float) -> None:
        if self.open:
            self.open = False
            self._trunk.shut(self._home, self._stage, self.csrc, gone=False)

    def leave(self) -> None:
        """The peer is gone, or its home is another one now."""
        if self._is_known:
            self.open = self._is_known = False
            self._trunk.shut(self._home, self._stage, self.csrc, gone=True)

    def counts(self) -> dict[str, Any]:
        """None here: the home counts."""
        return {}


# -- the messages, as bytes -----------------------------------------------------------------------


def _text(text: str) -> bytes:
    data = text.encode()
    return _size.pack(len(data)) + data


def _text_at(message: bytes, at: int) -> tuple[str, int]:
    (size,) = _size.unpack_from(message, at)
    end = at + 2 + size
    return message[at + 2 : end].decode(), end


def encode_frames(stage: str, tick: int, output: Output) -> bytes:
    """One message: the shared frame under the empty name, then the others under theirs."""
    parts = [bytes((_FRAMES,)), _text(stage), _frames_head.pack(tick, 1 + len(output.own))]
    for name, frame in (("", output.shared), *output.own.items()):
        parts.append(_text(name))
        parts.append(_frame_head.pack(frame.sounding, frame.level, len(frame.csrcs), len(frame.payload)))
        parts += [_level.pack(*each) for each in frame.csrcs]
        parts.append(frame.payload)
    return b"".join(parts)


def decode_frames(message: bytes, at: int) -> tuple[int, Output]:
    """(tick, output) of a message whose stage ends at ``at``."""
    tick, count = _frames_head.unpack_from(message, at)
    at += _frames_head.size
    frames: dict[str, Frame] = {}
    for _ in range(count):
        name, at = _text_at(message, at)
        sounding, level, csrcs, size = _frame_head.unpack_from(message, at)
        at += _frame_head.size
        start = at + csrcs * _level.size
        levels = tuple(_level.iter_unpack(message[at:start]))
        at = start + size
        frames[name] = Frame(message[start:at], levels, level, bool(sounding))
    return tick, Output(frames.pop(""), frames)


def encode_voice(stage: str, spoken: Spoken) -> bytes:
    head = _voice_head.pack(spoken.csrc, spoken.fresh, spoken.copy, spoken.sequence, spoken.timestamp)
    return b"".join((bytes((_VOICE,)), _text(stage), head, _text(spoken.owner), spoken.payload))


def decode_voice(message: bytes, at: int) -> Spoken:
    csrc, fresh, copy, sequence, timestamp = _voice_head.unpack_from(message, at)
    owner, at = _text_at(message, at + _voice_head.size)
    return Spoken(csrc, owner, fresh, copy, sequence, timestamp, message[at:])
