"""Whom peers leave out: the bound, and what the mixer is told of it."""

from __future__ import annotations

import pytest

from bridge.errors import BadInput, Full
from bridge.media.control import LOW, MAX_LEFT_OUT_MIXES
from bridge.media.left_out import MOST, LeftOut


def audience(count: int, stage: str = "s") -> LeftOut:
    """Peers p0 … of owners o0 …"""
    left_out = LeftOut()
    for number in range(count):
        left_out.joined(stage, f"p{number}", f"o{number}")
    return left_out


def ears(left_out: LeftOut, stage: str = "s") -> set[str]:
    return {" ".join(sorted(each)) for each in left_out.ears(stage)}


def test_all_who_leave_out_the_same_are_one_ear() -> None:
    left_out = audience(1000)
    for number in range(1000):
        left_out.leave_out(f"p{number}", ["ava", "ben"] if number % 2 else ["ava"])
    assert ears(left_out) == {"ava", "ava ben"}
    left_out.leave_out("p3", [])
    assert ears(left_out) == {"ava", "ava ben"}
    assert ears(left_out, "another") == set()


def test_who_may_speak_does_not_hear_oneself_either() -> None:
    left_out = audience(3)
    left_out.joined("s", "phone", "o1")
    left_out.leave_out("p1", ["o0"])
    assert not left_out.may_speak("p0")
    assert ears(left_out) == {"o0"}
    assert left_out.may_speak("phone")  # the same person, by another device
    assert ears(left_out) == {"o0 o1"}
    assert not left_out.may_speak("p1")
    assert left_out.gone("phone") is None
    assert ears(left_out) == {"o0 o1"}
    assert left_out.gone("p1") == "s"
    assert left_out.gone("p1") is None
    assert ears(left_out) == set()


def test_sets_of_several_are_bounded_and_single_ones_are_not() -> None:
    left_out = audience(100)
    for number in range(MAX_LEFT_OUT_MIXES):
        left_out.leave_out(f"p{number}", ["ava", f"x{number}"])
    with pytest.raises(Full, match="8 different sets of people are left out at this stage already"):
        left_out.leave_out("p50", ["ava", "y"])
    left_out.leave_out("p50", ["y"])
    with pytest.raises(Full):
        left_out.leave_out("p50", ["y", "z"])
    assert "y" in ears(left_out)
    left_out.leave_out("p51", ["x3", "ava"])  # as p3 does
    for number in range(60, 100):
        left_out.leave_out(f"p{number}", [f"z{number}"])
    left_out.leave_out("p0", ["ava", "y"])  # p0's own former set is free
    assert left_out.gone("p1") == "s"
    left_out.leave_out("p50", ["y", "z"])
    left_out.joined("s2", "other", "o")
    left_out.leave_out("other", ["a", "b"])  # another stage has its own


def test_one_peer_leaves_out_twenty_at_most() -> None:
    left_out = audience(1)
    with pytest.raises(BadInput, match=f"^owners: {MOST + 1} "):
        left_out.leave_out("p0", [str(n) for n in range(MOST + 1)])
    assert ears(left_out) == set()


def test_nothing_is_kept_of_who_is_gone() -> None:
    left_out = audience(5)
    left_out.leave_out("p0", ["o1"])
    left_out.may_speak("p1")
    for number in range(5):
        left_out.gone(f"p{number}")
    assert not left_out._stages
    assert not left_out._stage_of


def test_who_takes_a_low_bitrate_keeps_it_whomever_they_leave_out() -> None:
    left_out = audience(3)
    left_out.save("p0")
    assert (left_out.saving("s"), left_out.saving("another")) == (1, 0)
    assert ears(left_out) == {LOW}
    left_out.leave_out("p0", ["ava"])
    assert left_out.of("p0") == {LOW, "ava"}
    left_out.leave_out("p0", [])
    assert left_out.of("p0") == {LOW}
    assert not left_out.of("p1")
    assert left_out.gone("p0") == "s"
    assert left_out.saving("s") == 0
