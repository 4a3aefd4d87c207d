"""RTCP by bytes; aiortc's own parser is the second opinion."""

from __future__ import annotations

import pytest
from aiortc import rtp as theirs
from hypothesis import given
from hypothesis import strategies as st

from bridge.media import rtcp
from bridge.media.reports import LossWatch


@given(st.binary(max_size=80))
def test_any_bytes_are_survived(data: bytes) -> None:
    for each in (data, b"\x81\xc8" + data, b"\x9f\xcb" + data):
        rtcp.parse(each)


def test_sender_report_is_what_aiortc_reads() -> None:
    block = rtcp.ReportBlock(7, 0.25, -3, 70_000, 12, 0xABCD, 0x1234)
    data = rtcp.sender_report(0xDEAD, "name", 1_000_000.5, 960, 10, 800, [block])
    report, sdes = theirs.RtcpPacket.parse(data)
    assert isinstance(report, theirs.RtcpSrPacket)
    assert isinstance(sdes, theirs.RtcpSdesPacket)
    assert report.sender_info.ntp_timestamp == rtcp.ntp(1_000_000.5)
    assert (report.sender_info.packet_count, report.sender_info.octet_count) == (10, 800)
    assert (report.reports[0].fraction_lost, report.reports[0].packets_lost) == (64, -3)
    assert sdes.chunks[0].items == [(1, b"name")]
    info, blocks, gone = rtcp.parse(data)
    assert gone == []
    assert info == (0xDEAD, rtcp.ntp_middle(1_000_000.5))
    assert blocks == [block]


@pytest.mark.parametrize("cname", ["", "a", "ab", "abc", "abcd", "é" * 200])
def test_bye_is_a_compound_packet(cname: str) -> None:
    data = rtcp.bye(5, cname)
    assert len(data) % 4 == 0
    kinds = [type(each).__name__ for each in theirs.RtcpPacket.parse(data)]
    assert kinds == ["RtcpRrPacket", "RtcpSdesPacket", "RtcpByePacket"]


def test_reception_counts_loss_over_the_wrap() -> None:
    reception = rtcp.Reception(9, 65_530)
    for number in range(100):
        if number % 10 != 5:
            reception.count((65_530 + number) & 0xFFFF, number * 960, number * 0.02)
    report = reception.report(2.0)
    assert report.lost == 10
    assert report.loss == pytest.approx(0.1)
    assert report.highest == 0x1_0000 + (65_530 + 99) % 0x1_0000
    assert report.jitter < 10
    assert reception.report(2.0).loss == 0  # nothing expected since the last report
    reception.heard_report(rtcp.SenderInfo(9, 0xAAAA), 2.0)
    later = reception.report(2.5)
    assert (later.lsr, later.dlsr) == (0xAAAA, 32_768)


def test_round_trip_time() -> None:
    sent = 1_000_000.0
    block = rtcp.ReportBlock(1, 0, 0, 0, 0, rtcp.ntp_middle(sent), 65_536 // 2)
    assert rtcp.round_trip(block, sent + 0.6) == pytest.approx(0.1, abs=0.001)
    assert rtcp.round_trip(block, sent) is None  # a clock that went back
    assert rtcp.round_trip(rtcp.ReportBlock(1, 0, 0, 0, 0, 0, 0), sent) is None


def test_good_byes_are_read() -> None:
    assert rtcp.parse(rtcp.bye(0xDEAD, "name")).gone == [0xDEAD]
    assert rtcp.parse(b"\x9f\xcb\x00\x01\x00\x00\x00\x07").gone == [7], "31 are said, one is there"


def test_one_bad_report_makes_a_link_lossy_and_six_good_ones_end_it() -> None:
    watch = LossWatch()
    for loss, lossy in ((0.0, False), (0.02, False), (0.03, True), *[(0.0, True)] * 5, (0.015, True)):
        watch.note(loss)
        assert watch.lossy is lossy
    for number in range(6):
        assert watch.lossy
        watch.note(0.009 if number % 2 else 0.0)
    assert not watch.lossy
