"""Telephone keys in RTP packets: each press once, whatever is lost, doubled, late, or held down."""

from __future__ import annotations

import pytest

from bridge.media.keypad import Keypad

Sent = tuple[float, int, int, bool]  # s, timestamp, event, end


def pressed(*packets: Sent) -> str:
    pad = Keypad()
    found = [pad.take(ts % (1 << 32), bytes([event, 0x80 * end | 10, 0, 160]), at) for at, ts, event, end in packets]
    return "".join(key or "" for key in found)


def press(at: float, timestamp: int, event: int) -> list[Sent]:
    """A press as Chromium sends it: every 20 ms for 100 ms, then its end three times."""
    return [(at + 0.02 * n, timestamp, event, n >= 5) for n in range(8)]


def test_each_press_once() -> None:
    packets = [*press(1, 1000, 1), *press(1.3, 15_400, 1), *press(1.6, 29_800, 11)]
    assert pressed(*packets) == "11#"
    assert pressed(*(each for each in packets for _ in range(2))) == "11#", "doubled"
    assert pressed(*packets[7::8]) == "11#", "of each press only the last packet came"


def test_a_late_packet_is_no_press() -> None:
    one, two = press(1, 1000, 1), press(1.3, 15_400, 2)
    assert pressed(*one[:6], *two[:4], *one[6:], *two[4:]) == "12"


def test_a_key_held_down_is_one_press() -> None:
    segments = [(1 + 0.02 * n, 1000 + 65_535 * (n // 68), 3, n == 199) for n in range(200)]
    assert pressed(*segments) == "3"


def test_timestamps_wrap_and_begin_anew() -> None:
    assert pressed(*press(1, (1 << 32) - 100, 4), *press(2, 300, 5)) == "45"
    assert pressed(*press(1, 3_000_000_000, 4), *press(9, 100, 4)) == "44"


@pytest.mark.parametrize("payload", [b"", b"\x01\x80\x00", b"\x10\x0a\x00\xa0", b"\xff" * 4])
def test_what_is_no_key_says_nothing(payload: bytes) -> None:
    assert Keypad().take(1, payload, 1.0) is None


def test_a_flood_is_cut_short() -> None:
    flood = [(1 + 0.001 * n, 1000 * n, n % 10, True) for n in range(900)]
    assert len(pressed(*flood)) == 10
    assert pressed(*flood, *press(3, 2_000_000, 5)).endswith("5")
