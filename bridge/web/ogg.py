"""Ogg pages with Opus (RFC 3533, RFC 7845), for a stream that people join in the middle.

One stream serves all who listen: pages are made once. Whoever joins gets the two header pages first, numbered so that
the next shared page follows them; the granule position of that page is then larger than its samples, which is how a
live stream is joined (RFC 7845 §4.5: the stream begins at a time other than zero).
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Sequence

FRAME = 960
"""Samples of 20 ms at 48 kHz, the unit of granule positions (RFC 7845 §4)."""
PRE_SKIP = 3840
"""80 ms: what a decoder needs to converge after joining in the middle is not played (RFC 7845 §4.2)."""
_BEGIN = 2  # header type: first page of the logical stream (RFC 3533 §6)
_HEADER = struct.Struct("<4sBBqIIIB")
_CRC_AT = 22

_REVERSED = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))


def crc(data: bytes) -> int:
    """Ogg's CRC-32 (polynomial 0x04c11db7, not reflected, initial value and final XOR 0) by zlib's, which is the same
    with all bits in reverse and ones at both ends: about 3 µs a page."""
    mirrored = zlib.crc32(data.translate(_REVERSED), 0xFFFFFFFF) ^ 0xFFFFFFFF
    return int.from_bytes(mirrored.to_bytes(4, "little").translate(_REVERSED), "big")


def _laced(packet: bytes) -> bytes:
    return b"\xff" * (len(packet) // 255) + bytes((len(packet) % 255,))


def page(packets: Sequence[bytes], granule: int, serial: int, sequence: int, flags: int = 0) -> bytes:
    """One page with whole packets; at most 255 segments, or ValueError."""
    lacing = b"".join(map(_laced, packets))
    if len(lacing) > 255:
        raise ValueError(f"{len(lacing)} segments do not fit into an Ogg page")
    head = _HEADER.pack(b"OggS", 0, flags, granule, serial, sequence & 0xFFFF_FFFF, 0, len(lacing))
    data = bytearray(head + lacing + b"".join(packets))
    struct.pack_into("<I", data, _CRC_AT, crc(bytes(data)))
    return bytes(data)


class OggOpus:
    """One logical stream. Pure: frames in, pages out. It is announced with two channels, as a stage may be for music at
    any time; frames of one channel sound in both (RFC 7845 §5.1.1.1)."""

    def __init__(self, serial: int, title: str = "") -> None:
        self._serial, self._title = serial, title
        self._sequence = 2  # of the next page of sound; two headers come before the first
        self.granule = 0  # samples so far

    def headers(self) -> bytes:
        """OpusHead and OpusTags (RFC 7845 §5), for somebody who joins before the next page."""
        head = b"OpusHead" + struct.pack("<BBHIhB", 1, 2, PRE_SKIP, 48_000, 0, 0)
        comment = f"TITLE={self._title}".encode()
        vendor = b"Eyvan"
        tags = b"OpusTags" + struct.pack("<I", len(vendor)) + vendor
        tags += struct.pack("<II", 1, len(comment)) + comment if self._title else struct.pack("<I", 0)
        return page([head], 0, self._serial, self._sequence - 2, _BEGIN) + page(
            [tags], 0, self._serial, self._sequence - 1
        )

    def sound(self, frames: Sequence[bytes]) -> bytes:
        """The next page: whole 20 ms frames, each one packet."""
        self.granule += FRAME * len(frames)
        made = page(frames, self.granule, self._serial, self._sequence)
        self._sequence = self._sequence + 1 & 0xFFFF_FFFF
        return made

    def instead(self, frames: Sequence[bytes]) -> bytes:
        """The page made last, with other frames of the same time: for somebody who may not hear those."""
        return page(frames, self.granule, self._serial, self._sequence - 1)
