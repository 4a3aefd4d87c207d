"""One encoded frame → the datagrams of every listener of a stage.

What follows the fixed RTP header is the same for all listeners that agreed on the same extensions: it is
made once. For each listener remain 12 bytes, SRTP and a send. Measured by bench/relay_cpu.py.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterable, Mapping

import pylibsrtp

from bridge.media import rtp
from bridge.media.mixer import QUIET, Frame, Output
from bridge.media.stun import Address

FRAME = 960
KEEP_ALIVE_TICKS = 45
"""0.9 s: in silence a listener gets a packet at least each second, and takes 3 s of nothing for a broken path."""


class Sender:
    """What we send to one listener: SSRC, numbering, SRTP, address. Filled in by its peer.

    Timestamps advance with the ticks, sent or not; sequence numbers only with packets (RFC 3550 §5.1)."""

    __slots__ = (
        "address",
        "csrc_level_id",
        "hear",
        "last_tick",
        "level_id",
        "octets",
        "owner",
        "packets",
        "payload_type",
        "quiet",
        "sequence",
        "srtp",
        "ssrc",
        "timestamp_base",
        "wanted",
        "wire_bytes",
    )

    def __init__(self, owner: str) -> None:
        self.owner = owner
        self.ssrc = secrets.randbits(32) or 1
        self.sequence = secrets.randbits(15)  # below 2^15: libsrtp must not guess a wrong rollover at the start
        self.timestamp_base = secrets.randbits(32)
        self.payload_type = 0
        self.level_id = self.csrc_level_id = 0
        self.hear = False
        self.wanted = True  # False: the other side only sends (its answer says recvonly or inactive)
        self.srtp: pylibsrtp.Session | None = None
        self.address: Address | None = None  # None: nothing is sent (not connected, silent, or not verified)
        self.quiet = True  # the last packet was one of silence
        self.last_tick = -KEEP_ALIVE_TICKS
        self.packets = self.octets = self.wire_bytes = 0

    def timestamp(self, tick: int) -> int:
        return self.timestamp_base + tick * FRAME & 0xFFFF_FFFF


def fan_out(senders: Iterable[Sender], output: Output, tick: int, send: Callable[[bytes, Address], object]) -> None:
    """Send this tick's frame to each listener; of silence only the first packet and keep-alives."""
    tails: dict[tuple[int, int, int], bytes] = {}
    own: Mapping[str, Frame] = output.own
    for sender in senders:
        srtp, address = sender.srtp, sender.address
        if srtp is None or address is None or not sender.wanted:
            continue
        frame = own.get(sender.owner, output.shared) if sender.hear else QUIET
        if not frame.sounding and sender.quiet and tick - sender.last_tick < KEEP_ALIVE_TICKS:
            continue
        key = (id(frame), sender.level_id, sender.csrc_level_id)
        tail = tails.get(key)
        if tail is None:
            tail = tails[key] = rtp.pack_tail(
                frame.csrcs, frame.level, sender.level_id, sender.csrc_level_id, frame.payload
            )
        timestamp = sender.timestamp(tick)
        extended = bool(sender.level_id or (sender.csrc_level_id and frame.csrcs))
        packet = srtp.protect(
            rtp.pack_header(
                frame.sounding and sender.quiet,  # marker: a talk spurt begins (RFC 3551 §4.1)
                sender.payload_type,
                sender.sequence,
                timestamp,
                sender.ssrc,
                len(frame.csrcs),
                extended,
            )
            + tail
        )
        send(packet, address)
        sender.sequence = sender.sequence + 1 & 0xFFFF
        sender.quiet = not frame.sounding
        sender.last_tick = tick
        sender.packets += 1
        sender.octets += len(frame.payload)
        sender.wire_bytes += len(packet)
