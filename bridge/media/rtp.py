"""RTP on bytes: RFC 3550, header extensions RFC 8285, levels RFC 6464 and RFC 6465, redundancy RFC 2198.

What comes in here has passed SRTP authentication; a malformed packet gives None, never an exception.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import NamedTuple

AUDIO_LEVEL = "urn:ietf:params:rtp-hdrext:ssrc-audio-level"
CSRC_AUDIO_LEVEL = "urn:ietf:params:rtp-hdrext:csrc-audio-level"
MID = "urn:ietf:params:rtp-hdrext:sdes:mid"
MAX_CSRC = 15
"""RFC 3550 §5.1: the count has four bits."""

_header = struct.Struct("!BBHII")


class Packet(NamedTuple):
    """One RTP packet in clear. ``level``: −dBov by RFC 6464 if the packet has it."""

    payload_type: int
    sequence: int
    timestamp: int
    ssrc: int
    payload: bytes
    level: int | None
    marker: bool
    csrcs: tuple[int, ...]


def is_rtcp(data: bytes) -> bool:
    """RFC 5761 §4: told apart from RTP by the second byte."""
    return len(data) > 1 and 192 <= data[1] <= 223


def ssrc_of(data: bytes) -> int:
    """The SSRC of an RTP packet of at least 12 bytes, protected or not."""
    return int.from_bytes(data[8:12], "big")


def parse(data: bytes, level_id: int = 0) -> Packet | None:
    """An RTP packet, or None if it is malformed. ``level_id``: extension id of RFC 6464; 0 for none."""
    if len(data) < 12 or data[0] >> 6 != 2:
        return None
    first, second, sequence, timestamp, ssrc = _header.unpack_from(data)
    start = 12 + 4 * (first & 0x0F)
    end = len(data)
    level = None
    if first & 0x10:
        if end < start + 4:
            return None
        size = 4 * int.from_bytes(data[start + 2 : start + 4], "big")
        if level_id:
            level = _level(data[start : start + 2], data[start + 4 : start + 4 + size], level_id)
        start += 4 + size
    if first & 0x20:
        end -= data[-1] if 0 < data[-1] <= end - start else end + 1
    if end < start:
        return None
    csrcs = struct.unpack_from(f"!{first & 0x0F}I", data, 12) if first & 0x0F else ()
    return Packet(second & 0x7F, sequence, timestamp, ssrc, data[start:end], level, second >= 0x80, csrcs)


def _level(profile: bytes, block: bytes, wanted: int) -> int | None:
    two_bytes = profile[0] == 0x10
    if profile != b"\xbe\xde" and not two_bytes:
        return None
    at = 0
    while at < len(block):
        if block[at] == 0:
            at += 1  # padding, RFC 8285 §4.1
            continue
        if two_bytes:
            number, size, at = block[at], block[at + 1] if at + 1 < len(block) else 0, at + 2
        else:
            number, size, at = block[at] >> 4, (block[at] & 0x0F) + 1, at + 1
        if number == wanted and size and at < len(block):
            return block[at] & 0x7F
        at += size
    return None


def pack_header(
    marker: bool, payload_type: int, sequence: int, timestamp: int, ssrc: int, csrcs: int, ext: bool
) -> bytes:
    """The fixed 12 bytes; ``csrcs`` is how many CSRCs follow, ``ext`` whether an extension block does."""
    return _header.pack(
        0x80 | (0x10 if ext else 0) | csrcs, (0x80 if marker else 0) | payload_type, sequence, timestamp, ssrc
    )


def pack_tail(csrcs: Sequence[tuple[int, int]], level: int, level_id: int, csrc_level_id: int, payload: bytes) -> bytes:
    """All after the fixed header, the same for every listener that agreed on the same extensions.

    ``csrcs``: (CSRC, −dBov), at most 15; ``level`` is that of the whole. An id of 0 leaves that extension out."""
    parts = [csrc.to_bytes(4, "big") for csrc, _ in csrcs]
    block = b""
    if level_id:
        block += bytes((level_id << 4, (0x80 if csrcs else 0) | level))  # V bit: voice, RFC 6464 §3
    if csrc_level_id and csrcs:
        block += bytes((csrc_level_id << 4 | len(csrcs) - 1, *(each for _, each in csrcs)))  # RFC 6465 §3
    if block:
        block += bytes(-len(block) % 4)
        parts.append(b"\xbe\xde" + (len(block) // 4).to_bytes(2, "big") + block)
    parts.append(payload)
    return b"".join(parts)


# -- redundancy (RFC 2198) ----------------------------------------------------------------------

MAX_COPY = 1023
"""Bytes in a redundant block: its length has ten bits."""
COPY_HEAD = 5
"""Bytes that a copy takes beside its own: its head, and that of the primary block."""
_MAX_OFFSET = 1 << 14  # samples: 341 ms
_MAX_BLOCKS = 8
_copy = struct.Struct("!BHB")


class Block(NamedTuple):
    """One of the payloads in a RED payload. ``offset``: samples that it is older than the packet's timestamp."""

    payload_type: int
    offset: int
    payload: bytes


def unpack_red(payload: bytes) -> list[Block] | None:
    """The blocks of a RED payload, the oldest first, the primary one last; None if it is malformed."""
    heads: list[tuple[int, int, int]] = []
    at = 0
    while at < len(payload) and payload[at] & 0x80:
        if at + 4 > len(payload) or len(heads) == _MAX_BLOCKS:
            return None
        word = int.from_bytes(payload[at + 1 : at + 4], "big")
        heads.append((payload[at] & 0x7F, word >> 10, word & MAX_COPY))
        at += 4
    if at >= len(payload):
        return None
    primary = payload[at] & 0x7F
    at += 1
    blocks = []
    for kind, offset, size in heads:
        if at + size > len(payload):
            return None
        blocks.append(Block(kind, offset, payload[at : at + size]))
        at += size
    return [*blocks, Block(primary, 0, payload[at:])]


def pack_red(payload_type: int, payload: bytes, copy: bytes = b"", offset: int = 0) -> bytes:
    """``payload`` with ``copy``, which is ``offset`` samples older, in front; without it where there is none."""
    if not copy:
        return bytes((payload_type,)) + payload
    assert len(copy) <= MAX_COPY
    assert 0 < offset < _MAX_OFFSET
    word = offset << 10 | len(copy)
    head = _copy.pack(0x80 | payload_type, word >> 8, word & 0xFF)
    return b"".join((head, bytes((payload_type,)), copy, payload))
