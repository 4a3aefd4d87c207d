"""What one browser sends: RTP and RTCP, authenticated, counted, given to its voice. The gate is tested here."""

from __future__ import annotations

from collections.abc import Callable

import pylibsrtp

from bridge.media import rtp
from bridge.media.keypad import Keypad
from bridge.media.reports import Reports
from bridge.media.sdp import Offer
from bridge.media.trunk import FarVoice
from bridge.media.voice import Voice

_MAX_SOURCES = 4  # SSRCs taken from one peer, and as many that only report: libsrtp keeps state for each
_SOURCE_SWITCH_S = 0.5  # another SSRC is followed when the present one was silent for so long


class Uplink:
    """Owned by its peer. ``source``: the SSRC that is heard, 0 for none yet; ``counts``: as in PeerStats."""

    __slots__ = (
        "_keypad",
        "_pressed",
        "_reporters",
        "_reports",
        "_source_at",
        "counts",
        "offer",
        "source",
        "speak",
        "srtp",
        "voice",
    )

    def __init__(self, offer: Offer, voice: Voice | FarVoice, reports: Reports, pressed: Callable[[str], None]) -> None:
        """``pressed`` is told of each key of a telephone that goes down."""
        self.offer, self.voice = offer, voice
        self.speak = False
        self.srtp: pylibsrtp.Session | None = None  # until the handshake has ended
        self.source = 0
        self.counts = dict.fromkeys(("packets_in", "bytes_in", "gated", "ignored", "refused"), 0)
        self._source_at = 0.0
        self._reports = reports
        self._reporters: tuple[int, ...] = ()
        self._keypad = Keypad()
        self._pressed = pressed

    def receive(self, data: bytes, now: float) -> bool:
        """RTP or RTCP from one of the peer's addresses: authenticated, counted, then let through the gate. False where
        it was not authentic."""
        incoming = self.srtp
        if incoming is None or len(data) < 12:
            self.counts["ignored"] += 1
            return False
        if rtp.is_rtcp(data):
            return self._on_rtcp(incoming, data, now)
        ssrc = rtp.ssrc_of(data)
        if ssrc not in self._reports and len(self._reports) >= _MAX_SOURCES:
            self.counts["ignored"] += 1
            return False
        try:
            clear = incoming.unprotect(data)
        except (pylibsrtp.Error, ValueError):
            self.counts["refused"] += 1
            return False
        self.counts["packets_in"] += 1
        self.counts["bytes_in"] += len(data)
        packet = rtp.parse(clear)
        if packet is not None:
            self._on_packet(packet, now)
        return True

    def _on_packet(self, packet: rtp.Packet, now: float) -> None:
        self._reports.count(packet.ssrc, packet.sequence, packet.timestamp, now)
        if packet.payload_type in self.offer.events:  # no sound, and also for those who are not heard
            self.counts["ignored"] += 1
            key = self._keypad.take(packet.timestamp, packet.payload, now)
            if key is not None:
                self._pressed(key)
            return
        if not self.speak:  # THE GATE
            self.counts["gated"] += 1
            return
        blocks = self._blocks(packet)
        if not blocks:
            self.counts["ignored"] += 1  # comfort noise, padding for bandwidth probes
            return
        if packet.ssrc != self.source:
            if self.source and now - self._source_at < _SOURCE_SWITCH_S:
                self.counts["ignored"] += 1
                return
            self.source = packet.ssrc
            self.voice.change_source()
        self._source_at = now
        self.voice.put(packet.sequence, packet.timestamp, blocks[-1].payload, now)
        for age, copy in enumerate(reversed(blocks[:-1]), 1):
            if copy.payload_type == self.offer.payload_type:
                stamp = packet.timestamp - copy.offset & 0xFFFF_FFFF
                self.voice.restore(packet.sequence - age & 0xFFFF, stamp, copy.payload)

    def _blocks(self, packet: rtp.Packet) -> list[rtp.Block]:
        """The sound in a packet, the newest last; copies before it where it is RED (RFC 2198)."""
        opus = self.offer.payload_type
        if packet.payload_type == opus and packet.payload:
            return [rtp.Block(opus, 0, packet.payload)]
        if packet.payload_type == self.offer.red and self.offer.red:
            blocks = rtp.unpack_red(packet.payload)
            if blocks is not None and blocks[-1].payload_type == opus and blocks[-1].payload:
                return blocks
        return []

    def _on_rtcp(self, incoming: pylibsrtp.Session, data: bytes, now: float) -> bool:
        reporter = int.from_bytes(data[4:8], "big")
        if reporter not in self._reporters and len(self._reporters) >= _MAX_SOURCES:
            self.counts["ignored"] += 1
            return False
        try:
            clear = incoming.unprotect_rtcp(data)
        except (pylibsrtp.Error, ValueError):
            self.counts["refused"] += 1
            return False
        if reporter not in self._reporters:
            self._reporters += (reporter,)
        if self.source in self._reports.take(clear, now):
            self.source = 0  # BYE: whichever source comes next is followed at once
        return True
