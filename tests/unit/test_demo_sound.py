"""The demo's sound: voices rendered once, strings where espeak-ng is missing, an ear that tells no old sound as new."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest
from av import AudioFrame

from bridge.demo import voices
from bridge.demo.frames import parse_link, read_frame
from bridge.demo.sound import FRAME, RATE, Ear, Voice
from bridge.errors import BadInput
from tests.helpers.tone import ratio_at, rms_dbfs, sine


def frame_of(pcm: np.ndarray) -> AudioFrame:
    frame = AudioFrame.from_ndarray(np.repeat(pcm, 2).reshape(1, -1), format="s16", layout="stereo")
    frame.sample_rate = RATE
    return frame


def test_ear_puts_silence_where_nothing_came(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr("bridge.demo.sound.time.monotonic", lambda: now[0])
    ear = Ear()
    tone = sine(440, 1.0)
    for at in range(0, RATE, FRAME):
        now[0] += FRAME / RATE
        ear.hear(frame_of(tone[at : at + FRAME]))
    assert ratio_at(ear.recent(1.0), 440) > 30
    now[0] += 2.0
    assert not ear.recent(1.0).any(), "two seconds later the tone is old"
    assert ratio_at(ear.recent(3.0)[:RATE], 440) > 30
    assert len(ear.recent(1000)) == 30 * RATE


async def test_voice_says_once_or_for_ever_and_then_is_silent() -> None:
    voice = Voice()
    voice.say(sine(440, 0.05))
    await_said = voice.said()
    frames = [(await voice.recv()).to_ndarray()[0] for _ in range(4)]  # type: ignore[attr-defined]
    await await_said
    assert [bool(frame.any()) for frame in frames] == [True, True, True, False]
    voice.say(sine(440, 0.05), loop=True)
    assert all([(await voice.recv()).to_ndarray().any() for _ in range(5)])  # type: ignore[attr-defined]
    with pytest.raises(ValueError, match="give int16 mono"):
        voice.say(np.zeros(10, np.float32))


async def test_voices_are_rendered_once_and_loud_enough(tmp_path: Path) -> None:
    told: list[str] = []
    first = await voices.render(tmp_path, told.append)
    assert first.spoken
    assert told
    assert all(-30 < rms_dbfs(pcm) < -10 for pcm in first.turns.values())
    assert {say.lang for say in first.turns} == {"fa", "en"}
    again = await voices.render(tmp_path, pytest.fail)
    assert all(np.array_equal(first.turns[say], again.turns[say]) for say in first.turns)


async def test_strings_play_without_espeak(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bridge.demo.voices.shutil.which", lambda name: None)
    played = await voices.render(tmp_path, pytest.fail)
    assert not played.spoken
    assert all(-30 < rms_dbfs(pcm) < -10 for pcm in played.turns.values())


@pytest.mark.parametrize(("rate", "hz"), list(itertools.product((16_000, 22_050, 44_100), (300, 3000))))
def test_resampling_keeps_the_tone_and_adds_no_other(rate: int, hz: int) -> None:
    made = voices.resample(sine(hz, 1.0, rate).astype(float), rate).astype(np.int16)
    assert len(made) == RATE
    assert ratio_at(made, hz) > 40


def test_links_and_frames_are_read_strictly() -> None:
    assert parse_link("http://h/sub/s/abc#l=tok") == ("http://h/sub", "abc", "tok")
    assert parse_link("http://h/s/abc") == ("http://h", "abc", None)
    for bad in ("http://h/abc", "http://h/s/", "http://h/s/abc#x"):
        with pytest.raises(BadInput, match="link"):
            parse_link(bad)
    with pytest.raises(BadInput, match=r"messages[.]py does not know"):
        read_frame({"t": "nonsense"})
    with pytest.raises(BadInput, match="no such field"):
        read_frame({"t": "done", "id": 1, "more": 2})
