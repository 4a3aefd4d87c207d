"""Reads Ogg Opus by the letter of RFC 3533 and RFC 7845, and decodes what it holds."""

from __future__ import annotations

import asyncio
import io
import itertools
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import aiohttp
import av
import numpy as np

from tests.helpers.tone import Samples

RATE = 48_000


def slow_crc(data: bytes) -> int:
    """RFC 3533 §6, byte by byte."""
    value = 0
    for byte in data:
        value = (value << 8 ^ _TABLE[value >> 24 ^ byte]) & 0xFFFF_FFFF
    return value


def _shifted(value: int) -> int:
    for _ in range(8):
        value = (value << 1 ^ (0x04C11DB7 if value & 0x8000_0000 else 0)) & 0xFFFF_FFFF
    return value


_TABLE = [_shifted(byte << 24) for byte in range(256)]


@dataclass(frozen=True)
class OggPage:
    flags: int
    granule: int
    serial: int
    sequence: int
    packets: tuple[bytes, ...]


def take_page(data: bytes, *, check: bool = True) -> tuple[OggPage, int] | None:
    """(the first page, its size); None: it is not whole yet. AssertionError where it is no page."""
    if len(data) < 27:
        return None
    magic, version, flags, granule, serial, sequence, crc, count = struct.unpack_from("<4sBBqIIIB", data)
    assert (magic, version) == (b"OggS", 0), data[:32]
    lacing = data[27 : 27 + count]
    size = 27 + count + sum(lacing)
    if len(data) < size:
        return None
    if check:
        assert slow_crc(data[:22] + bytes(4) + data[26:size]) == crc
    packets, at, begin = [], 27 + count, 27 + count
    for each in lacing:
        at += each
        if each < 255:
            packets.append(data[begin:at])
            begin = at
    assert begin == size, "a packet goes on in the next page"
    return OggPage(flags, granule, serial, sequence, tuple(packets)), size


def check_stream(pages: Sequence[OggPage]) -> None:
    """Headers, then sound without a hole: sequence and granule positions go on by what each page holds."""
    head, tags, *sound = pages
    assert (head.flags, head.granule, tags.flags, tags.granule) == (2, 0, 0, 0)
    assert head.packets[0].startswith(b"OpusHead\x01\x02")
    assert tags.packets[0].startswith(b"OpusTags")
    assert {each.serial for each in pages} == {head.serial}
    assert [each.sequence for each in pages] == [head.sequence + i for i in range(len(pages))]
    for before, after in itertools.pairwise(sound):
        assert after.granule - before.granule == 960 * len(after.packets)
    assert all(each.granule >= 960 * len(each.packets) for each in sound)


class OggReader:
    """One GET. ``pages`` grows while ``until`` or ``seconds`` reads."""

    def __init__(self, response: aiohttp.ClientResponse) -> None:
        self.response = response
        self.data = bytearray()
        self.pages: list[OggPage] = []
        self.arrived: list[float] = []
        self._at = 0
        self.ended = False

    async def until(self, holds: Callable[[OggReader], bool], limit_s: float = 60) -> None:
        async with asyncio.timeout(limit_s):
            while not holds(self):
                got = await self.response.content.readany()
                if not got:
                    self.ended = True
                    assert holds(self), f"the stream ended after {len(self.pages)} pages"
                    return
                self.data += got
                while (found := take_page(bytes(self.data[self._at :]))) is not None:
                    self.pages.append(found[0])
                    self.arrived.append(asyncio.get_running_loop().time())
                    self._at += found[1]

    async def read(self, seconds: float) -> None:
        """So much more sound."""
        enough = self.frames + seconds * 50
        await self.until(lambda reader: reader.frames >= enough)

    def heard(self) -> Samples:
        """What was read in all, decoded."""
        return decode(bytes(self.data[: self._at]))

    async def seconds(self, wanted: float) -> Samples:
        """Read so much more sound and return what was read in all, decoded."""
        await self.read(wanted)
        return self.heard()

    @property
    def frames(self) -> int:
        return sum(len(each.packets) for each in self.pages[2:])


def decode(data: bytes) -> Samples:
    """All of it, by FFmpeg: the left channel at 48 kHz."""
    parts = []
    with av.open(io.BytesIO(data), "r", format="ogg") as container:
        for frame in container.decode(audio=0):
            assert frame.sample_rate == RATE
            values = frame.to_ndarray()[0]
            parts.append(values if values.dtype == np.int16 else np.clip(values * 32767, -32768, 32767))
    return np.concatenate(parts).astype(np.int16)


async def opusdec(data: bytes) -> tuple[Samples, str]:
    """All of it, by Xiph's reference tools: (the left channel at 48 kHz, what opusdec complained of)."""
    process = await asyncio.create_subprocess_exec(
        *("opusdec", "--quiet", "--rate", "48000", "-", "-"),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, complaints = await process.communicate(data)
    return np.frombuffer(out, np.int16)[::2], complaints.decode()
