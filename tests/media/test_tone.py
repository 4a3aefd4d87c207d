"""The meter itself is measured: a test that hears with it is worth no more than this."""

from __future__ import annotations

import numpy as np
import pytest

from tests.helpers.tone import FLOOR, level_at, ratio_at, rms_dbfs, sine


@pytest.mark.parametrize("dbfs", [-1, -12, -40, -60])
@pytest.mark.parametrize("hz", [440, 660, 880, 1003.7])
def test_level_of_a_sine(hz: float, dbfs: float) -> None:
    assert level_at(sine(hz, 0.5, dbfs=dbfs), hz) == pytest.approx(dbfs, abs=0.2)
    assert rms_dbfs(sine(hz, 0.5, dbfs=dbfs)) == pytest.approx(dbfs, abs=0.2)


def test_a_quiet_tone_beside_a_loud_one() -> None:
    both = sine(440, 0.5, dbfs=-12) + sine(880, 0.5, dbfs=-70)
    assert level_at(both, 880) == pytest.approx(-70, abs=2)
    assert level_at(sine(440, 0.5, dbfs=-12), 880) < -85


def test_ratio() -> None:
    mixed = sine(440, 0.5, dbfs=-12) + sine(660, 0.5, dbfs=-32)
    assert ratio_at(mixed, 440) == pytest.approx(20, abs=0.3)
    assert ratio_at(mixed, 660) == pytest.approx(-20, abs=0.3)
    assert ratio_at(sine(440, 0.5), 440) > 60


def test_silence() -> None:
    nothing = np.zeros(4800, np.int16)
    assert level_at(nothing, 440) == rms_dbfs(nothing) == FLOOR
    assert level_at(nothing[:0], 440) == rms_dbfs(nothing[:0]) == FLOOR
    assert ratio_at(nothing[:0], 440) == FLOOR


def test_another_rate() -> None:
    assert level_at(sine(440, 0.5, rate=16_000, dbfs=-20), 440, rate=16_000) == pytest.approx(-20, abs=0.2)
