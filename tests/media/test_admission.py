"""How many find a place, by number and by bandwidth."""

from __future__ import annotations

import pytest

from bridge.errors import Full
from bridge.media.admission import Admission, Load

LISTENER, SPEAKER = Load(1, 48_000, 60), Load(1, 48_000, 20)


def admitted(admission: Admission, new: Load, *, may_speak: bool, measured: float = 0.0) -> int:
    """How many of these come in, one after the other."""
    count = 0
    while count < 10_000:
        try:
            admission.check([Load(count, new.bitrate, new.packet_ms)], measured, new, may_speak=may_speak)
        except Full:
            return count
        count += 1
    return count


def test_what_one_takes() -> None:
    assert LISTENER.mbit == pytest.approx(0.0565, abs=0.0005)  # docs/operation.md: about 57 kbit/s
    assert SPEAKER.mbit == pytest.approx(0.0736, abs=0.0005)
    assert Load(1000, 24_000, 60).mbit == pytest.approx(32.5, abs=0.1)


@pytest.mark.parametrize(("most", "listeners"), [(1, 1), (19, 19), (20, 19), (1000, 950), (8000, 7900)])
def test_the_last_places_are_for_who_may_speak(most: int, listeners: int) -> None:
    assert admitted(Admission(most, 0), LISTENER, may_speak=False) == listeners
    assert admitted(Admission(most, 0), LISTENER, may_speak=True) == most


def test_so_many_mbit() -> None:
    assert admitted(Admission(10_000, 57), LISTENER, may_speak=False) == 957
    assert admitted(Admission(10_000, 57), LISTENER, may_speak=True) == 1008
    assert admitted(Admission(10_000, 57), Load(1, 24_000, 60), may_speak=False) > 1600


def test_what_is_measured_counts_where_it_is_more() -> None:
    admission = Admission(100, 10)
    admission.check([], 9.4, LISTENER, may_speak=False)
    with pytest.raises(Full, match="10 Mbit/s") as caught:
        admission.check([], 9.5, LISTENER, may_speak=False)
    assert caught.value.retry_after_ms == 10_000
    admission.check([], 9.5, LISTENER, may_speak=True)
    with pytest.raises(Full):
        admission.check([], 10, LISTENER, may_speak=True)


def test_from_four_fifths_on_it_is_tight() -> None:
    admission = Admission(10_000, 57)
    assert not admission.is_tight([Load(800, 48_000, 60)], 0)
    assert admission.is_tight([Load(810, 48_000, 60)], 0)
    assert admission.is_tight([], 45.7)
    assert not Admission(10_000, 0).is_tight([Load(10_000, 48_000, 60)], 999)
