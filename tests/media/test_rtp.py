"""RTP by bytes; aiortc's own parser is the second opinion."""

from __future__ import annotations

import pytest
from aiortc import rtp as theirs
from hypothesis import given
from hypothesis import strategies as st

from bridge.media import rtp


def made(level_id: int = 1, csrc_level_id: int = 0, payload: bytes = b"sound") -> bytes:
    csrcs = [(11, 20), (12, 30)]
    head = rtp.pack_header(True, 111, 65_535, 2**32 - 1, 0xDEADBEEF, len(csrcs), bool(level_id or csrc_level_id))
    return head + rtp.pack_tail(csrcs, 17, level_id, csrc_level_id, payload)


def test_what_we_write_aiortc_reads() -> None:
    packet = theirs.RtpPacket.parse(made(3, 5))
    assert (packet.payload_type, packet.sequence_number, packet.timestamp) == (111, 65_535, 2**32 - 1)
    assert (packet.ssrc, packet.csrc, packet.payload, packet.marker) == (0xDEADBEEF, [11, 12], b"sound", 1)
    extensions = dict(theirs.unpack_header_extensions(0xBEDE, made(3, 5)[24:32]))
    assert extensions == {3: bytes((0x80 | 17,)), 5: bytes((20, 30))}


def test_what_we_write_we_read() -> None:
    packet = rtp.parse(made(), 1)
    assert packet == rtp.Packet(111, 65_535, 2**32 - 1, 0xDEADBEEF, b"sound", 17, True, (11, 12))
    assert rtp.parse(made(0, 0), 1) == packet._replace(level=None) if packet else None


def test_two_byte_extension_and_padding() -> None:
    block = b"\x09\x01\x00" + b"\x01\x01\x85" + bytes(2)
    data = b"\xb0\x6f\x00\x01" + bytes(8) + b"\x10\x00\x00\x02" + block + b"abc\x00\x02"
    packet = rtp.parse(data, 1)
    assert packet is not None
    assert (packet.level, packet.payload) == (5, b"abc")


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x80" + bytes(10),
        b"\x40" + bytes(11),  # version 1
        b"\x8f" + bytes(11),  # 15 CSRCs, none there
        b"\x90" + bytes(11) + b"\xbe\xde\x00\x05",  # extension longer than the packet
        b"\xa0" + bytes(11),  # padding, but no byte that tells how much
        b"\xa0" + bytes(11) + b"\x09",
        b"\xa0" + bytes(11) + b"\x00",
    ],
)
def test_malformed_is_none(data: bytes) -> None:
    assert rtp.parse(data, 1) is None


@given(st.binary(max_size=80), st.integers(0, 14))
def test_any_bytes_are_survived(data: bytes, level_id: int) -> None:
    for each in (data, b"\x90\x6f" + data, b"\xb1\xef" + data):
        packet = rtp.parse(each, level_id)
        assert packet is None or len(packet.payload) <= len(each)


@pytest.mark.parametrize(("second", "answer"), [(200, True), (201, True), (111, False), (111 | 0x80, False)])
def test_rtcp_is_told_apart(second: int, answer: bool) -> None:
    assert rtp.is_rtcp(bytes((0x80, second))) is answer


@given(st.lists(st.binary(max_size=1023), max_size=8), st.binary(max_size=200))
def test_blocks_of_red_are_read(copies: list[bytes], primary: bytes) -> None:
    """RFC 2198 §3, the heads written by hand."""
    heads, count = b"", len(copies)
    for number, each in enumerate(copies):
        heads += (0x80 << 24 | 111 << 24 | (count - number) * 960 << 10 | len(each)).to_bytes(4, "big")
    found = rtp.unpack_red(heads + b"\x6f" + b"".join(copies) + primary)
    wanted = [(111, (count - number) * 960, each) for number, each in enumerate(copies)]
    assert found == [*wanted, (111, 0, primary)]
    if count == 1 and copies[0]:
        assert rtp.pack_red(111, primary, copies[0], 960) == heads + b"\x6f" + copies[0] + primary
    if not count:
        assert rtp.pack_red(111, primary) == b"\x6f" + primary


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xef",
        b"\xef\x0f\x00\x01",  # no primary block
        b"\xef\x0f\x00\x02\x6f\x01",  # the copy is longer than the packet
        b"\xef\x0f\x00\x00" * 9 + b"\x6f",  # too many
    ],
)
def test_malformed_red_is_none(data: bytes) -> None:
    assert rtp.unpack_red(data) is None


@given(st.binary(max_size=80))
def test_any_red_is_survived(data: bytes) -> None:
    blocks = rtp.unpack_red(data)
    assert blocks is None or sum(len(each.payload) for each in blocks) < len(data)
