"""Loudness between speakers, measured by another implementation of EBU R128 than ours: ffmpeg's."""

from __future__ import annotations

import numpy as np
import pytest

from bridge.media import loudness
from bridge.media.loudness import MOST_DB, TARGET, Evener
from bridge.media.opus import FRAME, Samples
from tests.helpers.loud import RATE, lufs, speech


def frames_of(sound: Samples) -> list[Samples]:
    return list(sound[: len(sound) // FRAME * FRAME].reshape(-1, FRAME))


def evened(sound: Samples, evener: Evener | None = None) -> tuple[Samples, list[float]]:
    """What comes out, and the gain in dB at the end of each frame. Silence is what the mixer takes for it."""
    evener = evener or Evener()
    out, gains = [], []
    for frame in frames_of(sound):
        if np.abs(frame).max() < 1e-4:
            evener.pause()
            out.append(frame)
        else:
            out.append(evener.apply(frame))
        gains.append(evener.gain_db)
    return np.concatenate(out), gains


def hiss(seconds: float, level: float) -> Samples:
    """White noise, ``level`` in LUFS."""
    noise = np.random.default_rng(2).standard_normal(round(seconds * RATE)).astype(np.float32) * np.float32(0.01)
    return noise * np.float32(10 ** ((level - lufs(noise)) / 20))


def sine(hz: float, seconds: float, level: float) -> Samples:
    tone = np.sin(2 * np.pi * hz * np.arange(round(seconds * RATE)) / RATE).astype(np.float32) * np.float32(0.1)
    return tone * np.float32(10 ** ((level - lufs(tone)) / 20))


@pytest.mark.parametrize("hz", [100, 337.3, 997, 3011, 9000])
def test_measures_as_ffmpeg_does(hz: float) -> None:
    sound = sine(hz, 1, -23)
    ours = loudness.lufs(float(np.mean([loudness.power(frame) for frame in frames_of(sound)])))
    assert ours == pytest.approx(-23, abs=0.15)


@pytest.mark.parametrize("off", [-10, -5, -2, 0, 3, 6, 10])
def test_speakers_come_out_alike(off: float) -> None:
    """Softer or louder than the target by ``off``: even within 1 dB, as far as 6 dB allow."""
    out, gains = evened(speech(15, TARGET + off, pitch=140 + 5 * off))
    settled = out[6 * RATE :]
    assert lufs(settled) == pytest.approx(TARGET + off - max(-MOST_DB, min(MOST_DB, off)), abs=1)
    assert max(map(abs, gains)) <= MOST_DB
    assert float(np.abs(np.diff(gains)).max()) < 1.001


def test_gain_has_no_step_and_does_not_pump() -> None:
    """No frame begins with another gain than the last one ended with; while somebody talks it moves by 0.12 dB a frame
    at most, and stays within 1 dB once it is settled."""
    sound = np.concatenate((speech(12, -24, pause_s=0.2), speech(12, -14, pause_s=0.2, seed=3)))
    out, gains = evened(sound)
    steps = np.diff(gains)
    assert np.abs(steps).max() <= 0.1201
    for settled in (gains[400:600], gains[1000:1200]):
        assert np.ptp(settled) < 1
    with np.errstate(divide="ignore", invalid="ignore"):
        gain = np.where(np.abs(sound[: len(out)]) > 0.001, out / sound[: len(out)], np.nan)
    edges = [gain[at - 200 : at + 200] for at in range(FRAME, len(out) - FRAME, FRAME)]
    widest = [float(np.nanmax(edge) / np.nanmin(edge)) for edge in edges if np.isfinite(edge).sum() > 50]
    assert len(widest) > 500
    assert 20 * np.log10(max(widest)) < 0.13


@pytest.mark.parametrize(
    "sound",
    [
        hiss(8, -40),
        sine(437, 8, -30),
        sine(100, 8, -45),
        np.concatenate((np.zeros(RATE, np.float32), hiss(8, -35))),
        np.zeros(8 * RATE, np.float32),
    ],
    ids=["hiss", "tone", "hum", "hiss after silence", "silence"],
)
def test_what_is_no_speech_is_not_raised(sound: Samples) -> None:
    out, gains = evened(sound)
    assert max(gains) == 0
    assert np.array_equal(out, sound[: len(out)])


def test_what_is_too_loud_is_lowered_whatever_it_is() -> None:
    out, _ = evened(sine(437, 8, -10))
    assert lufs(out[4 * RATE :]) == pytest.approx(-16, abs=0.2)


def test_the_room_of_a_soft_voice_is_not_raised() -> None:
    """In a pause the lift is let go, slowly; what was lifted in speech is lifted again within a syllable."""
    room = hiss(30, -52)
    talk = speech(30, -28, pause_s=0)
    says = np.ones(len(talk), bool)
    says[10 * RATE : 20 * RATE] = False
    sound = np.where(says, talk, 0).astype(np.float32) + room
    out, gains = evened(sound)
    assert gains[499] == pytest.approx(MOST_DB, abs=0.3)
    assert np.diff(gains).min() > -0.16
    pause = slice(12 * RATE, 20 * RATE)
    assert lufs(out[pause]) == pytest.approx(lufs(sound[pause]), abs=0.1)
    assert gains[1020] == pytest.approx(MOST_DB, abs=0.5)


def test_noise_that_stays_ends_the_lift() -> None:
    """Somebody soft stops talking and turns on a fan that is as loud."""
    evener = Evener()
    evened(speech(10, -28), evener)
    assert evener.gain_db > 5
    _, gains = evened(hiss(10, -28), evener)
    assert gains[-1] < 0.1


def test_gain_is_kept_over_a_shut_gate() -> None:
    evener = Evener()
    evened(speech(10, -12), evener)
    before = evener.gain_db
    assert before == pytest.approx(-6, abs=0.5)
    for _ in range(500):
        evener.pause()
    assert evener.gain_db == before
