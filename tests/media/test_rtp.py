"""RTP and RTCP by bytes; aiortc's own parser is the second opinion."""

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
        rtp.parse_rtcp(each)


@pytest.mark.parametrize(("second", "answer"), [(200, True), (201, True), (111, False), (111 | 0x80, False)])
def test_rtcp_is_told_apart(second: int, answer: bool) -> None:
    assert rtp.is_rtcp(bytes((0x80, second))) is answer


def test_sender_report_is_what_aiortc_reads() -> None:
    block = rtp.ReportBlock(7, 0.25, -3, 70_000, 12, 0xABCD, 0x1234)
    data = rtp.sender_report(0xDEAD, "name", 1_000_000.5, 960, 10, 800, [block])
    report, sdes = theirs.RtcpPacket.parse(data)
    assert isinstance(report, theirs.RtcpSrPacket)
    assert isinstance(sdes, theirs.RtcpSdesPacket)
    assert report.sender_info.ntp_timestamp == rtp.ntp(1_000_000.5)
    assert (report.sender_info.packet_count, report.sender_info.octet_count) == (10, 800)
    assert (report.reports[0].fraction_lost, report.reports[0].packets_lost) == (64, -3)
    assert sdes.chunks[0].items == [(1, b"name")]
    info, blocks = rtp.parse_rtcp(data)
    assert info == (0xDEAD, rtp.ntp_middle(1_000_000.5))
    assert blocks == [block]


@pytest.mark.parametrize("cname", ["", "a", "ab", "abc", "abcd", "é" * 200])
def test_bye_is_a_compound_packet(cname: str) -> None:
    data = rtp.bye(5, cname)
    assert len(data) % 4 == 0
    kinds = [type(each).__name__ for each in theirs.RtcpPacket.parse(data)]
    assert kinds == ["RtcpRrPacket", "RtcpSdesPacket", "RtcpByePacket"]


def test_reception_counts_loss_over_the_wrap() -> None:
    reception = rtp.Reception(9, 65_530)
    for number in range(100):
        if number % 10 != 5:
            reception.count((65_530 + number) & 0xFFFF, number * 960, number * 0.02)
    report = reception.report(2.0)
    assert report.lost == 10
    assert report.loss == pytest.approx(0.1)
    assert report.highest == 0x1_0000 + (65_530 + 99) % 0x1_0000
    assert report.jitter < 10
    assert reception.report(2.0).loss == 0  # nothing expected since the last report
    reception.heard_report(rtp.SenderInfo(9, 0xAAAA), 2.0)
    later = reception.report(2.5)
    assert (later.lsr, later.dlsr) == (0xAAAA, 32_768)


def test_round_trip_time() -> None:
    sent = 1_000_000.0
    block = rtp.ReportBlock(1, 0, 0, 0, 0, rtp.ntp_middle(sent), 65_536 // 2)
    assert rtp.round_trip(block, sent + 0.6) == pytest.approx(0.1, abs=0.001)
    assert rtp.round_trip(block, sent) is None  # a clock that went back
    assert rtp.round_trip(rtp.ReportBlock(1, 0, 0, 0, 0, 0, 0), sent) is None
