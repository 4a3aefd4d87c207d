"""Data channels of one peer: SCTP inside its DTLS (RFC 8831, RFC 8832, RFC 8841), for those alone who offer it.

The association is aiortc's. Its timers run in the worker's loop until ``close``; it has no task, and nothing of it
waits. Channels that a client opens are accepted, what comes in them is handed out, and we open none.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Coroutine
from typing import Any, cast

from aiortc import RTCDataChannel
from aiortc.rtcdtlstransport import RTCDtlsTransport
from aiortc.rtcsctptransport import RTCSctpCapabilities, RTCSctpTransport

from bridge.media.sdp import SCTP_PORT

log = logging.getLogger("eyvan.media")

_MAX_STREAMS = 64
_MAX_AHEAD = 256  # chunks that came before one that is missing
_MAX_HELD = 512  # chunks of messages that are not complete: a message of 64 KiB has 56
_MAX_UNACKED = 256  # of ours, which only ever acknowledge
_MAX_A_SECOND = 200  # packets, in bursts of twice as many; SCTP sends again what is dropped beyond it
_MAX_GAPS = 1024  # chunks that the gap blocks of one SACK span
_HEAD, _CHUNK_HEAD, _PARAMETER_HEAD = 12, 4, 4  # bytes: RFC 9260 §3.1, §3.2, §3.2.1
_SACK = 3
_WITH_PARAMETERS = {1: 16, 2: 16, 4: 0, 5: 0, 6: 0, 9: 0, 130: 0}
"""Types of chunks that hold parameters or causes, and the bytes before these: INIT, INIT ACK, HEARTBEAT and its ACK,
ABORT, ERROR, RE-CONFIG."""

Take = Callable[[str, str | bytes], None]
"""(the channel's label, a message): text or bytes."""


class DataChannels:
    """Owned by its peer, which calls it in the worker's loop. ``is_open`` until either side, or a bound, ends it."""

    def __init__(self, port: int, max_message: int, send: Callable[[bytes], None], take: Take) -> None:
        """``port`` and ``max_message`` are those of the offer. ``send`` takes SCTP packets; ``take`` may not raise."""
        self._take = take
        self._path = _Path(send)
        self._sctp = RTCSctpTransport(cast(RTCDtlsTransport, self._path), SCTP_PORT)
        self._sctp.add_listener("datachannel", self._on_channel)
        self._tokens, self._filled_at = 2.0 * _MAX_A_SECOND, 0.0
        _now(self._sctp.start(RTCSctpCapabilities(max_message), port))

    @property
    def is_open(self) -> bool:
        return self._sctp.state != "closed"

    def receive(self, packet: bytes, now: float) -> None:
        """One SCTP packet. Never raises: what a client of ours would not send is dropped or ends the association."""
        if not self.is_open or not self._in_time(now) or not is_sound(packet):
            return
        try:
            _now(self._sctp._handle_data(packet))
        except Exception as error:  # aiortc asserts what the other side must do, and unpacks without asking
            log.info("data channels end: %s", error or type(error).__name__)
            self.close()
        if self._is_too_much():
            log.info("data channels end: more streams or unfinished messages than we keep")
            self.close()

    def _in_time(self, now: float) -> bool:
        self._tokens = min(2.0 * _MAX_A_SECOND, self._tokens + (now - self._filled_at) * _MAX_A_SECOND)
        self._filled_at = now
        if self._tokens < 1:
            return False
        self._tokens -= 1
        return True

    def _is_too_much(self) -> bool:
        sctp = self._sctp
        ours = len(sctp._outbound_queue) + len(sctp._sent_queue) + len(sctp._data_channel_queue)
        return (
            max(len(sctp._inbound_streams), len(sctp._data_channels)) > _MAX_STREAMS
            or len(sctp._sack_misordered) > _MAX_AHEAD
            or sum(len(each.reassembly) for each in sctp._inbound_streams.values()) > _MAX_HELD
            or ours > _MAX_UNACKED
        )

    def _on_channel(self, channel: RTCDataChannel) -> None:
        channel.add_listener("message", lambda message: self._take(channel.label, message))

    def close(self) -> None:
        """Abort the association, where there is one. Harmless twice."""
        _now(self._sctp.stop())


class _Path:
    """What aiortc's SCTP asks of a DTLS transport: ours is the server, and is connected."""

    state = "connected"
    _role = "server"

    def __init__(self, send: Callable[[bytes], None]) -> None:
        self._send = send

    def _register_data_receiver(self, receiver: object) -> None: ...

    def _unregister_data_receiver(self, receiver: object) -> None: ...

    async def _send_data(self, data: bytes) -> None:
        self._send(data)


def is_sound(packet: bytes) -> bool:
    """Whether aiortc may see it: at a parameter of no length it would stay for ever, and it counts through the gaps of
    a SACK one by one."""
    at = _HEAD
    while at + _CHUNK_HEAD <= len(packet):
        size = int.from_bytes(packet[at + 2 : at + 4], "big")
        if size < _CHUNK_HEAD or at + size > len(packet):
            return False
        body = packet[at + _CHUNK_HEAD : at + size]
        before = _WITH_PARAMETERS.get(packet[at])
        if before is not None and not _has_sound_parameters(body, before):
            return False
        if packet[at] == _SACK and not _has_few_gaps(body):
            return False
        at += size + -size % 4
    return True


def _has_sound_parameters(body: bytes, at: int) -> bool:
    while at + _PARAMETER_HEAD <= len(body):
        size = int.from_bytes(body[at + 2 : at + 4], "big")
        if size < _PARAMETER_HEAD or at + size > len(body):
            return False
        at += size + -size % 4
    return True


def _has_few_gaps(body: bytes) -> bool:
    """RFC 9260 §3.3.4: start and end of each, as offsets from the cumulative TSN."""
    count = int.from_bytes(body[8:10], "big")
    blocks = [body[at : at + 4] for at in range(12, 12 + 4 * count, 4)]
    widths = [int.from_bytes(each[2:], "big") - int.from_bytes(each[:2], "big") + 1 for each in blocks]
    return all(each > 0 for each in widths) and sum(widths) <= _MAX_GAPS


def _now(steps: Coroutine[Any, Any, None]) -> None:
    """Run what never waits: all that aiortc awaits there is ``_send_data``."""
    try:
        steps.send(None)
    except StopIteration:
        return
    steps.close()
    raise RuntimeError("aiortc's SCTP waits for something")
