"""RTCP on bytes (RFC 3550 §6), and what a receiver counts for its reports.

What comes in here has passed SRTCP authentication; what is malformed is left out, never an exception.
"""

from __future__ import annotations

import struct
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

_SR, _RR, _SDES, _BYE = 200, 201, 202, 203
_NTP_EPOCH = 2_208_988_800  # seconds from 1900 to 1970


@dataclass(frozen=True, slots=True)
class ReportBlock:
    """RFC 3550 §6.4.1. ``loss`` is a fraction 0 … 1; ``lsr`` and ``dlsr`` in 1/65536 s."""

    ssrc: int
    loss: float
    lost: int
    highest: int
    jitter: int
    lsr: int
    dlsr: int


class SenderInfo(NamedTuple):
    ssrc: int
    ntp_middle: int  # the middle 32 bits of the NTP timestamp: what LSR must repeat


def ntp(unix_s: float) -> int:
    """A Unix time as a 64-bit NTP timestamp."""
    seconds = int(unix_s)
    return (seconds + _NTP_EPOCH) << 32 | int((unix_s - seconds) * (1 << 32))


def ntp_middle(unix_s: float) -> int:
    return ntp(unix_s) >> 16 & 0xFFFF_FFFF


def _packet(kind: int, count: int, body: bytes) -> bytes:
    return struct.pack("!BBH", 0x80 | count, kind, len(body) // 4) + body


def sender_report(
    ssrc: int, cname: str, unix_s: float, timestamp: int, packets: int, octets: int, blocks: Sequence[ReportBlock]
) -> bytes:
    """SR and SDES CNAME in one compound packet (RFC 3550 §6.1). ``timestamp`` is our RTP time at ``unix_s``."""
    body = struct.pack("!IQIII", ssrc, ntp(unix_s), timestamp, packets & 0xFFFF_FFFF, octets & 0xFFFF_FFFF)
    return _packet(_SR, len(blocks), body + b"".join(map(pack_block, blocks))) + _sdes(ssrc, cname)


def bye(ssrc: int, cname: str) -> bytes:
    """An empty RR (a compound packet begins with a report), SDES and BYE."""
    return _packet(_RR, 0, struct.pack("!I", ssrc)) + _sdes(ssrc, cname) + _packet(_BYE, 1, struct.pack("!I", ssrc))


def _sdes(ssrc: int, cname: str) -> bytes:
    name = cname.encode()[:255]
    chunk = struct.pack("!IBB", ssrc, 1, len(name)) + name
    return _packet(_SDES, 1, chunk + bytes(4 - len(chunk) % 4))  # ends with at least one zero byte, §6.5


def pack_block(block: ReportBlock) -> bytes:
    """The 24 bytes of a report block (RFC 3550 §6.4.1)."""
    lost = min(max(block.lost, -0x80_0000), 0x7F_FFFF) & 0xFF_FFFF
    word = min(int(block.loss * 256), 255) << 24 | lost
    return struct.pack("!IIIIII", block.ssrc, word, block.highest, block.jitter, block.lsr, block.dlsr)


class Compound(NamedTuple):
    """What a compound packet says: the sender info of its SR, all report blocks, the SSRCs in its BYE."""

    info: SenderInfo | None
    blocks: list[ReportBlock]
    gone: list[int]


def parse(data: bytes) -> Compound:
    """A compound packet. What is malformed is left out."""
    info: SenderInfo | None = None
    blocks: list[ReportBlock] = []
    gone: list[int] = []
    for kind, count, body in _packets(data):
        if kind == _SR and len(body) >= 24:
            info = SenderInfo(int.from_bytes(body[:4], "big"), int.from_bytes(body[6:10], "big"))
            blocks += _blocks(body[24:], count)
        elif kind == _RR and len(body) >= 4:
            blocks += _blocks(body[4:], count)
        elif kind == _BYE:
            gone += struct.unpack_from(f"!{min(count, len(body) // 4)}I", body)
    return Compound(info, blocks, gone)


def _packets(data: bytes) -> Iterator[tuple[int, int, bytes]]:
    at = 0
    while at + 4 <= len(data) and data[at] >> 6 == 2:
        end = at + 4 + 4 * int.from_bytes(data[at + 2 : at + 4], "big")
        yield data[at + 1], data[at] & 0x1F, data[at + 4 : end]
        at = end


def _blocks(body: bytes, count: int) -> Iterable[ReportBlock]:
    for at in range(0, min(count * 24, len(body) - len(body) % 24), 24):
        ssrc, word, highest, jitter, lsr, dlsr = struct.unpack_from("!IIIIII", body, at)
        lost = word & 0xFF_FFFF
        yield ReportBlock(ssrc, (word >> 24) / 256, lost - (lost >> 23 << 24), highest, jitter, lsr, dlsr)


class Reception:
    """What a receiver counts to report on one source (RFC 3550 §6.4.1, appendix A.3 and A.8)."""

    __slots__ = ("_base", "_cycles", "_jitter", "_lsr", "_lsr_at", "_max", "_prior", "_received", "_transit", "ssrc")

    def __init__(self, ssrc: int, sequence: int) -> None:
        self.ssrc = ssrc
        self._base = self._max = sequence
        self._cycles = self._received = 0
        self._prior = (0, 0)  # expected, received at the last report
        self._jitter = 0.0
        self._transit: int | None = None
        self._lsr, self._lsr_at = 0, 0.0

    def count(self, sequence: int, timestamp: int, now: float) -> None:
        step = sequence - self._max & 0xFFFF
        if 0 < step < 0x8000:
            self._cycles += 0x1_0000 if sequence < self._max else 0
            self._max = sequence
        self._received += 1
        transit = int(now * 48_000) - timestamp
        if self._transit is not None:
            change = abs((transit - self._transit + 0x8000_0000) % 0x1_0000_0000 - 0x8000_0000)
            self._jitter += (min(change, 48_000) - self._jitter) / 16
        self._transit = transit

    def heard_report(self, info: SenderInfo, now: float) -> None:
        self._lsr, self._lsr_at = info.ntp_middle, now

    def report(self, now: float) -> ReportBlock:
        """The block for now; the fraction lost covers the time since the last call."""
        highest = self._cycles + self._max
        expected = highest - self._base + 1
        wanted, got = expected - self._prior[0], self._received - self._prior[1]
        self._prior = (expected, self._received)
        loss = max(0.0, (wanted - got) / wanted) if wanted > 0 else 0.0
        dlsr = int((now - self._lsr_at) * 65536) if self._lsr else 0
        return ReportBlock(
            self.ssrc, loss, expected - self._received, highest & 0xFFFF_FFFF, int(self._jitter), self._lsr, dlsr
        )


def round_trip(block: ReportBlock, unix_s: float) -> float | None:
    """Seconds, from a report block about what we send; None where the other side has had no SR yet."""
    if not block.lsr:
        return None
    units = (ntp_middle(unix_s) - block.lsr - block.dlsr) & 0xFFFF_FFFF
    return units / 65536 if units < 60 * 65536 else None


def wall() -> float:
    """Unix time; only for NTP timestamps, whose absolute value nobody relies on."""
    return time.time()
