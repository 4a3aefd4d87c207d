"""The mixer with real packets on a simulated clock; what a listener's decoder makes of it is measured."""

from __future__ import annotations

import itertools
import random
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bridge.media import opus
from bridge.media.control import LOW, MAX_LEFT_OUT_MIXES, Sound
from bridge.media.fanout import pieces
from bridge.media.limiter import Limiter
from bridge.media.mixer import QUIET, Frame, Mixer, Output, mix_key
from bridge.media.opus import FRAME, Samples
from bridge.media.voice import SILENCE, Voice, dbov
from tests.helpers.loud import lufs, speech
from tests.helpers.raw_peer import as_samples
from tests.helpers.tone import Samples as Pcm
from tests.helpers.tone import level_at, ratio_at, rms_dbfs, sine

TONE = -18.0
"""dBFS: a steady tone is never raised, and below −15 dBFS (about −18 LUFS) it is not lowered either."""


class Talker:
    """A voice and the packets it gets: one each 20 ms, unless ``mute``."""

    def __init__(self, owner: str, csrc: int, hz: float, dbfs: float = TONE) -> None:
        self.voice = Voice(owner, csrc)
        self.voice.open_gate()
        self.encoder = opus.Encoder()
        self.tone: Samples = (sine(hz, 1, dbfs=dbfs) / 32768).astype(np.float32)
        self.mute = False
        self.sent = 0
        self.loss = 0.0
        self.chance = random.Random(5)

    def send(self, tick: int) -> None:
        if self.mute:
            return
        at = tick * FRAME % len(self.tone)
        packet = self.encoder.encode(np.ascontiguousarray(self.tone[at : at + FRAME]).ravel())
        self.sent += 1
        if self.chance.random() >= self.loss:
            self.voice.put(self.sent, tick * FRAME, packet, tick * 0.02 + 0.005)


class Stage:
    """Some talkers and a mixer; ``ears`` decode as listeners of an owner (or of nobody: "") do."""

    def __init__(self, *talkers: Talker) -> None:
        self.talkers = list(talkers)
        self.mixer = Mixer()
        self.tick = 0
        self.decoders: dict[str, opus.Decoder] = {}
        self.heard: dict[str, list[Samples]] = {}
        self.frames: dict[str, list[Frame]] = {}

    def run(self, ticks: int, ears: Sequence[str] = ("",)) -> Output:
        for _ in range(ticks):
            for each in self.talkers:
                each.send(self.tick)
            output = self.mixer.tick([each.voice for each in self.talkers], self.tick * 0.02 + 0.013)
            for ear in ears:
                frame = output.without(ear)
                decoder = self.decoders.setdefault(ear, opus.Decoder())
                samples = (
                    decoder.decode(frame.payload).copy()
                    if frame.sounding
                    else np.zeros(FRAME * decoder.channels, np.float32)
                )
                self.heard.setdefault(ear, []).append(samples)
                self.frames.setdefault(ear, []).append(frame)
            self.tick += 1
        return output

    def last(self, ear: str, ticks: int) -> Pcm:
        return as_samples(np.concatenate(self.heard[ear][-ticks:]))


def test_each_owner_gets_the_mix_without_their_own() -> None:
    stage = Stage(Talker("ava", 1, 440), Talker("ben", 2, 660), Talker("cem", 3, 880))
    output = stage.run(100, ("", "ava", "ben"))
    everyone = stage.last("", 50)
    for hz in (440, 660, 880):
        assert level_at(everyone, hz) == pytest.approx(TONE, abs=3)
    assert level_at(stage.last("ava", 50), 440) < -60
    assert level_at(stage.last("ava", 50), 660) > TONE - 3
    assert level_at(stage.last("ben", 50), 660) < -60
    assert {csrc for csrc, _ in output.shared.csrcs} == {1, 2, 3}
    assert {csrc for csrc, _ in output.own["ava"].csrcs} == {2, 3}


def test_one_encode_for_all_who_are_silent() -> None:
    stage = Stage(Talker("ava", 1, 440))
    output = stage.run(50)
    assert set(output.own) == {"ava"}
    assert output.own["ava"] is QUIET  # alone: nothing for them, and no encoder at work
    before = stage.mixer.encodes
    stage.run(50)
    assert stage.mixer.encodes - before == 50


def test_two_voices_of_one_owner() -> None:
    stage = Stage(Talker("ava", 1, 440), Talker("ava", 2, 660), Talker("ben", 3, 880))
    stage.run(100, ("ava",))
    heard = stage.last("ava", 50)
    assert ratio_at(heard, 880) > 30
    assert level_at(heard, 440) < -60
    assert level_at(heard, 660) < -60


def worst_step(heard: Pcm) -> float:
    """dB of what is above 2 kHz in any 20 ms: a click in a mix of low tones."""
    worst = -120.0
    for start in range(0, len(heard) - FRAME, FRAME // 2):
        window = heard[start : start + FRAME] * np.hanning(FRAME)
        bins = np.abs(np.fft.rfft(window / 32768.0)) ** 2 * 8 / FRAME**2 * 1.5
        worst = max(worst, 10 * float(np.log10(np.sum(bins[40:]) + 1e-12)))
    return worst


def test_moving_to_an_own_encoder_and_back_does_not_click() -> None:
    ben = Talker("ben", 2, 440)
    ava = Talker("ava", 1, 660)
    ava.mute = True
    stage = Stage(ava, ben)
    stage.run(60, ("ava",))
    steady = worst_step(stage.last("ava", 40))
    ava.mute = False
    output = stage.run(40, ("ava",))
    assert "ava" in output.own
    ava.mute = True
    output = stage.run(170, ("ava",))
    assert "ava" not in output.own  # two seconds later
    assert worst_step(stage.last("ava", 215)) < steady + 6
    assert level_at(stage.last("ava", 200), 660) < -60
    assert level_at(stage.last("ava", 50), 440) == pytest.approx(TONE, abs=1)


def ears(*sets: str) -> frozenset[frozenset[str]]:
    """Whom somebody does not hear, written as "ava ben"."""
    return frozenset(frozenset(each.split()) for each in sets)


def test_whom_one_leaves_out_is_not_heard() -> None:
    stage = Stage(Talker("ava", 1, 440), Talker("ben", 2, 660), Talker("cem", 3, 880))
    stage.mixer.ears = ears("ben", "ava ben")
    both = mix_key({"ben", "ava"})
    output = stage.run(100, ("", "ben", both))
    assert output.own.keys() == {"ava", "ben", "cem", both}
    assert [csrc for csrc, _ in output.own[both].csrcs] == [3]
    for ear, heard in ((both, {880}), ("ben", {440, 880}), ("", {440, 660, 880})):
        for hz in (440, 660, 880):
            level = level_at(stage.last(ear, 50), hz)
            assert level > TONE - 3 if hz in heard else level < -60, (ear, hz)


def test_leaving_one_out_needs_no_encode_of_its_own() -> None:
    """It is the one that this person hears; and all who leave out the same two share one."""
    stage = Stage(Talker("ava", 1, 440), Talker("ben", 2, 660), Talker("cem", 3, 880))
    stage.mixer.ears = ears("ben", "cem")
    stage.run(20)
    before = stage.mixer.encodes
    stage.run(10)
    assert stage.mixer.encodes - before == 40
    stage.mixer.ears = ears("ben", "cem", "ava ben", "ava ben dara", "ava ben eve")
    stage.run(20)
    before = stage.mixer.encodes
    stage.run(10)
    assert stage.mixer.encodes - before == 50


def test_mixes_that_leave_out_are_bounded() -> None:
    talkers = [Talker(f"o{n}", n + 1, 300 + 100 * n) for n in range(8)]
    stage = Stage(*talkers)
    stage.mixer.ears = ears(*(f"o{a} o{b}" for a, b in itertools.combinations(range(8), 2)))  # 28
    output = stage.run(10)
    assert len(output.own) == 8 + 8 + MAX_LEFT_OUT_MIXES
    stage.mixer.ears = frozenset()
    assert stage.run(1).own.keys() == {f"o{n}" for n in range(8)}


def test_mixes_that_come_and_go_do_not_click() -> None:
    """Whoever leaves out two of three hears the third one evenly while those begin and end."""
    ava, ben, cem = Talker("ava", 1, 660), Talker("ben", 2, 880), Talker("cem", 3, 440)
    stage, ear = Stage(ava, ben, cem), mix_key({"ava", "ben"})
    stage.mixer.ears = ears("ava ben")
    ava.mute = ben.mute = True
    stage.run(60, (ear,))
    steady = worst_step(stage.last(ear, 40))
    for ava.mute, ben.mute in ((False, True), (False, False), (True, False), (True, True), (False, False)):
        output = stage.run(120, (ear,))
        assert (ear in output.own) is (not ava.mute and not ben.mute)
    heard = stage.last(ear, 620)
    assert worst_step(heard) < steady + 6
    for hz in (660, 880):
        assert level_at(heard, hz) < -60
    levels = [rms_dbfs(heard[at : at + FRAME]) for at in range(0, len(heard), FRAME)]
    assert max(levels) - min(levels) < 1


class Band(Talker):
    """Music: one tone to the left, another to the right."""

    def __init__(self, owner: str, csrc: int, left: float, right: float) -> None:
        super().__init__(owner, csrc, left)
        self.encoder = opus.Encoder(128_000, channels=2)
        other = (sine(right, 1, dbfs=TONE) / 32768).astype(np.float32)
        self.tone = np.stack((self.tone, other), axis=1)


def sides(heard: list[Samples]) -> tuple[Pcm, Pcm]:
    both = np.concatenate(heard).reshape(-1, 2)
    return as_samples(both[:, 0]), as_samples(both[:, 1])


def test_music_has_two_sides_from_end_to_end() -> None:
    stage = Stage(Band("ava", 1, 440, 660), Talker("ben", 2, 880))
    stage.mixer.sound = "music"
    stage.decoders[""], stage.decoders["ava"] = opus.Decoder(2), opus.Decoder(2)
    stage.run(100, ("", "ava"))
    left, right = sides(stage.heard[""][-50:])
    for side, own, other in ((left, 440, 660), (right, 660, 440)):
        assert level_at(side, own) == pytest.approx(TONE, abs=1)
        assert level_at(side, other) < -50
        assert level_at(side, 880) == pytest.approx(TONE, abs=1)  # one channel stands in the middle
    for side in sides(stage.heard["ava"][-50:]):
        assert level_at(side, 880) == pytest.approx(TONE, abs=1)
        assert rms_dbfs(side) == pytest.approx(TONE, abs=1)  # and nothing of the own


def test_music_ends_in_silence() -> None:
    """Between keep-alives a decoder fills up with what it heard last: Chromium made a hiss of it."""
    band = Band("ava", 1, 440, 660)
    band.tone = np.random.default_rng(3).standard_normal((FRAME * 50, 2)).astype(np.float32) * 0.1
    stage = Stage(band)
    stage.mixer.sound = "music"
    stage.decoders[""] = decoder = opus.Decoder(2)
    stage.run(50)
    band.mute = True
    stage.run(50)
    assert stage.frames[""][-1] is QUIET
    decoder.decode(QUIET.payload)
    assert max(float(np.abs(decoder.conceal(FRAME)).max()) for _ in range(45)) < 1e-6


@pytest.mark.parametrize("sound", ["voice", "music"])
def test_who_leaves_out_the_only_one_who_talks_hears_silence(sound: Sound) -> None:
    band = Band("ava", 1, 440, 660)
    stage = Stage(band)
    stage.mixer.sound = sound
    decoder = opus.Decoder(2)
    for tick in range(100):
        output = stage.run(1)
        if tick == 50:
            stage.mixer.ears = ears("ava")
        frame = output.own["ava"] if tick > 50 else output.shared
        heard = decoder.decode(frame.payload).copy()
    assert frame is QUIET
    heard = np.concatenate([heard, *(decoder.conceal(FRAME).copy() for _ in range(45))])
    assert float(np.abs(heard).max()) < 1e-4  # three steps of 16 bits


def test_music_is_not_evened() -> None:
    talker = Talker("ava", 1, 440, dbfs=-6)
    stage = Stage(talker)
    stage.mixer.sound = "music"
    stage.run(150)
    assert level_at(stage.last("", 50), 440) == pytest.approx(-6, abs=0.5)
    stage.mixer.sound = "low"
    stage.run(250)
    assert level_at(stage.last("", 50), 440) == pytest.approx(-12, abs=0.5)


@pytest.mark.parametrize(
    ("sound", "configured", "bitrate"),
    [
        ("voice", 48_000, 48_000), ("voice", 32_000, 32_000), ("low", 48_000, 24_000), ("low", 16_000, 16_000),
        ("music", 48_000, 128_000), ("music", 16_000, 128_000),
    ],
)  # fmt: skip
def test_bitrates(sound: Sound, configured: int, bitrate: int) -> None:
    """Of packets as they are made of something that is hard to code; and all may be joined to 60 ms."""
    talker = Talker("ava", 1, 440)
    talker.encoder = opus.Encoder(256_000, channels=2)
    noise = np.random.default_rng(3).standard_normal((FRAME * 50, 2)).astype(np.float32) * 0.1
    talker.tone = noise if sound == "music" else noise[:, 0].repeat(2).reshape(-1, 2)
    stage = Stage(talker)
    stage.mixer = Mixer(configured, sound)
    stage.run(100)
    payloads = [frame.payload for frame in stage.frames[""][-60:]]
    made = sum(map(len, payloads)) * 8 / (60 * 0.02)
    assert 0.7 * bitrate < made < 1.1 * bitrate
    assert {payload[0] & 4 for payload in payloads} == ({4} if sound == "music" else {0})  # RFC 6716 §3.1: stereo
    tripled = pieces(list(enumerate(stage.frames[""][-3:])))
    assert [opus.samples_in(each.payload) for each in tripled] == [2880]


@pytest.mark.parametrize("channels", [1, 2])
def test_another_sound_comes_without_a_click(channels: int) -> None:
    """To a decoder of one channel or two that goes on; whoever talks is heard but for a dip of 30 ms."""
    stage = Stage(Talker("ava", 1, 440), Talker("ben", 2, 550))
    stage.decoders[""] = opus.Decoder(channels)
    stage.run(60)
    for each in ("low", "voice", "music", "low", "music", "voice"):
        stage.mixer.sound = each
        stage.run(40)
    heard = [as_samples(frame[::channels]) for frame in stage.heard[""][20:]]
    whole = np.concatenate(heard)
    assert worst_step(whole) < -50
    assert sum(rms_dbfs(frame) < TONE - 3 for frame in heard) <= 4 * 2  # four of the changes need another encoder
    assert max(rms_dbfs(frame) for frame in heard) < TONE + 6
    for hz in (440, 550):
        assert level_at(whole[-20 * FRAME :], hz) == pytest.approx(TONE, abs=1)


def test_silence_costs_nothing_and_ends_within_a_frame() -> None:
    talker = Talker("ava", 1, 440)
    stage = Stage(talker)
    stage.run(50)
    talker.mute = True
    stage.run(40)
    assert stage.frames[""][-1] is QUIET
    before = stage.mixer.encodes
    stage.run(100)
    assert stage.mixer.encodes == before
    assert opus.samples_in(QUIET.payload) == FRAME
    assert len(opus.Decoder().decode(QUIET.payload)) == FRAME
    talker.mute = False
    stage.run(4)
    assert stage.frames[""][-1].sounding


def test_a_talker_who_stops_dead_fades() -> None:
    talker = Talker("ava", 1, 440)
    stage = Stage(talker)
    stage.run(60)
    steady = worst_step(stage.last("", 40))
    talker.mute = True
    stage.run(30)
    assert worst_step(stage.last("", 35)) < steady + 12
    assert rms_dbfs(stage.last("", 10)) < -60


def test_opening_the_gate_fades_in_over_ten_milliseconds() -> None:
    talker = Talker("ava", 1, 440, dbfs=-12)
    packets = [talker.encoder.encode(np.ascontiguousarray(talker.tone[at * FRAME :][:FRAME])) for at in range(20)]
    plain = opus.Decoder().decode(packets[10]).copy()
    talker.voice.put(10, 10 * FRAME, packets[10], 0.2)
    faded = next(frame for tick in range(11, 20) if (frame := talker.voice.frame(tick * 0.02)) is not None)
    ramp = np.concatenate((np.linspace(0, 1, 480), np.ones(480)))
    assert np.abs(plain[:480]).max() > 0.05
    assert np.allclose(faded, plain * ramp, atol=1e-4)


def test_shutting_the_gate_fades_out_within_ten_milliseconds() -> None:
    talker = Talker("ava", 1, 440, dbfs=-12)
    voice = talker.voice
    frames = []
    for tick in range(80):
        talker.send(tick)
        if tick == 50:
            voice.shut(tick * 0.02)
        frame = voice.frame(tick * 0.02 + 0.013)
        frames.append(np.zeros(FRAME, np.float32) if frame is None else frame.copy())
    sound = np.concatenate(frames)
    edge = 50 * FRAME
    assert np.abs(sound[edge + 480 :]).max() == 0
    assert np.abs(sound[edge - 480 : edge]).max() > 0.2
    assert 0.1 < np.abs(sound[edge : edge + 240]).max() < 0.27
    assert np.abs(sound[edge + 432 : edge + 480]).max() < 0.03
    assert not voice.fading
    assert worst_step(as_samples(sound)) < -45


@pytest.mark.parametrize("phase", [0, 700])
def test_no_click_is_heard_where_a_gate_opens_or_shuts(phase: int) -> None:
    """Over a loud tone, wherever in its period: what a listener's decoder gives has no more above 2 kHz than the tone
    itself. Cut off hard, the same tone has 20 dB more."""
    ava, ben = Talker("ava", 1, 440, dbfs=-12), Talker("ben", 2, 660, dbfs=-30)
    ava.tone = np.roll(ava.tone, phase).astype(np.float32)
    stage = Stage(ava, ben)
    stage.run(60)
    steady = worst_step(stage.last("", 40))
    for _ in range(3):
        ava.voice.shut(stage.tick * 0.02)
        stage.run(15)
        ava.voice.open_gate()
        stage.run(25)
    clicks = stage.last("", 120)
    assert level_at(clicks[-15 * FRAME :], 440) > -18
    assert worst_step(clicks) < max(steady + 12, -50)
    hard = ava.tone[: 10 * FRAME].copy()
    hard[4 * FRAME + int(np.argmax(hard[4 * FRAME : 5 * FRAME])) :] = 0
    assert worst_step(as_samples(hard)) > -40


def test_speakers_are_evened_in_what_a_listener_hears() -> None:
    """One speaks 4 dB too softly, the other 4 dB too loudly, one after the other."""
    soft, loud = Talker("ava", 1, 440), Talker("ben", 2, 660)
    soft.tone, loud.tone = speech(6, -22, pitch=160), speech(6, -14, pitch=110, seed=4)
    stage, found = Stage(soft, loud), {}
    for talker in (soft, loud):
        soft.mute, loud.mute = talker is loud, talker is soft
        stage.run(450)
        found[talker.voice.owner] = lufs(np.concatenate(stage.heard[""][-150:]))
    assert found["ava"] == pytest.approx(-18, abs=1)
    assert found["ben"] == pytest.approx(-18, abs=1)


def test_what_was_buffered_behind_a_shut_gate_is_never_heard() -> None:
    talker = Talker("ava", 1, 440)
    for tick in range(20):
        talker.send(tick)
    talker.voice.shut(0.4)
    talker.voice.open_gate()
    assert all(talker.voice.frame(0.42 + each * 0.02) is None for each in range(20))


def test_five_percent_loss_is_covered() -> None:
    talker = Talker("ava", 1, 440)
    talker.loss = 0.05
    stage = Stage(talker)
    stage.run(1000)
    heard = stage.last("", 950)
    levels = [rms_dbfs(heard[at : at + FRAME]) for at in range(0, len(heard), FRAME)]
    assert sum(level < -30 for level in levels) <= 5  # 99.5 % of the time there is sound
    assert talker.voice.jitter.lost > 30


def test_in_band_fec_is_there_while_somebody_needs_it() -> None:
    """SILK and hybrid have it, CELT has none (RFC 6716 §2.1.7, §3.1); music is never coded as speech for its sake."""
    talker = Talker("ava", 1, 440)
    stage = Stage(talker)

    def has_fec(ear: str) -> bool:
        stage.run(50, ("", ear))
        return stage.frames[ear][-1].payload[0] >> 3 < 16

    assert not has_fec("")
    stage.mixer.expect_loss(15)
    assert has_fec("")
    other = Talker("ben", 2, 660)
    stage.talkers.append(other)
    assert has_fec("ben"), "an encoder that is new"
    stage.mixer.expect_loss(5)
    assert not has_fec("")
    stage.mixer.sound = "music"
    stage.mixer.expect_loss(15)
    assert not has_fec("")


def test_drifting_sender_never_ends_the_tone() -> None:
    voice, encoder, tone = Voice("ava", 1), opus.Encoder(), sine(440, 1).astype(np.float32) / 32768
    voice.open_gate()
    packets = [(n * 0.02 * 1.0003 + 0.005, n) for n in range(6000)]
    silent = 0
    for tick in range(6000):
        now = tick * 0.02 + 0.013
        while packets and packets[0][0] <= now:
            at, number = packets.pop(0)
            start = number % 50 * FRAME
            payload = encoder.encode(np.ascontiguousarray(tone[start : start + FRAME]))
            voice.put(number & 0xFFFF, number * FRAME, payload, at)
        frame = voice.frame(now)
        silent += tick > 20 and (frame is None or float(np.abs(frame).max()) < 0.05)
    assert silent == 0
    assert len(voice._queue) < FRAME


@pytest.mark.parametrize(("dbfs", "most_ms"), [(-60, 45), (-12, 110)])
def test_delay_is_won_back(dbfs: float, most_ms: float) -> None:
    """A stall of 200 ms, whose packets come all at once: of quiet sound the delay is soon gone, of loud sound it
    is bounded; and every frame of that time is heard or left out with a cross-fade."""
    talker = Talker("ava", 1, 440, dbfs=dbfs)
    packets = [talker.encoder.encode(np.ascontiguousarray(talker.tone[n % 50 * FRAME :][:FRAME])) for n in range(400)]
    sound = []
    for tick in range(400):
        now = tick * 0.02
        if tick < 100 or tick >= 110:
            for number in range(100, 111) if tick == 110 else (tick,):
                talker.voice.put(number, number * FRAME, packets[number], now + 0.005)
        frame = talker.voice.frame(now + 0.013)
        sound.append(np.zeros(FRAME, np.float32) if frame is None else frame.copy())
    behind = talker.voice.jitter.surplus(400 * 0.02, len(talker.voice._queue)) / 48
    assert behind < 25 if dbfs < -50 else behind < 85
    heard = np.concatenate(sound[120:])
    assert level_at(as_samples(heard), 440) == pytest.approx(dbfs, abs=2)
    assert worst_step(as_samples(heard)) < dbfs - 15
    assert talker.voice.jitter.target_ms < most_ms


@pytest.mark.parametrize("count", [2, 8, 20])
def test_many_loud_voices_never_clip(count: int) -> None:
    stage = Stage(*(Talker(f"o{n}", n + 1, 300 + 37 * n, dbfs=-3) for n in range(count)))
    stage.run(60)
    limiter, mix = Limiter(), np.zeros(FRAME, np.float32)
    for _ in range(100):
        mix = limiter.apply((np.random.default_rng(1).standard_normal(FRAME) * count).astype(np.float32))
        assert np.abs(mix).max() < 1
    heard = np.concatenate(stage.heard[""][-40:])
    assert np.abs(heard).max() < 1.1  # a codec may overshoot a little what it was given
    assert rms_dbfs(as_samples(heard)) > -20
    assert len(stage.frames[""][-1].csrcs) == min(count, 15)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.floats(0, 100), min_size=1, max_size=10))
def test_limiter_never_reaches_full_scale(peaks: list[float]) -> None:
    limiter = Limiter()
    ramp = np.linspace(-1, 1, FRAME, dtype=np.float32)
    for peak in peaks:
        out = limiter.apply(ramp * np.float32(peak))
        assert out.dtype == np.float32
        assert float(np.abs(out).max()) < 1


def test_limiter_leaves_soft_sound_alone_and_recovers() -> None:
    limiter = Limiter()
    soft = (sine(440, 0.02, dbfs=-12) / 32768).astype(np.float32)
    assert np.array_equal(limiter.apply(soft), soft)
    limiter.apply(soft * 40)
    assert limiter.gain < 0.2
    for _ in range(200):
        out = limiter.apply(soft)
    assert np.allclose(out, soft, atol=0.002)
    assert np.array_equal(limiter.apply(np.full(FRAME, np.nan, np.float32)), np.zeros(FRAME))


def test_levels_with_hysteresis_and_one_last_empty_mapping() -> None:
    talker = Talker("ava", 7, 440)
    stage = Stage(talker)
    told = []
    for tick in range(200):
        talker.mute = tick >= 100
        stage.run(1)
        levels = stage.mixer.levels([talker.voice])
        if levels is not None:
            told.append((tick, levels))
    assert told[0][1].keys() == {7}
    assert told[0][1][7] == pytest.approx(3 - TONE, abs=2)
    assert all(b[0] - a[0] >= 5 for a, b in itertools.pairwise(told))
    assert [levels for _, levels in told if not levels] == [{}]
    assert told[-1][1] == {}
    assert 115 <= told[-1][0] <= 135  # 300 ms after the end, which itself is noticed some frames late


@pytest.mark.parametrize(
    ("levels", "talks"),
    [
        ([(51, 40)], ""),  # never loud enough to begin
        ([(50, 1)], "#"),
        ([(40, 3), (60, 40)], "#" * 43),  # on the way down it takes more to be silent
        ([(40, 2), (61, 15)], "#" * 17),  # … and 300 ms of it
        ([(40, 2), (61, 16)], "#" * 17 + "."),
        ([(40, 1), (127, 15), (55, 1), (127, 16)], "#" * 32 + "."),
        ([(40, 1), (127, 16), (55, 3), (50, 1)], "#" * 16 + "...." + "#"),  # and once silent, -55 is not enough
    ],
)
def test_who_talks_has_hysteresis(levels: list[tuple[int, int]], talks: str) -> None:
    """``levels``: (−dBov, ticks). One sign a tick."""
    voice, found = Voice("ava", 1), ""
    voice.open_gate()
    for voice.level, ticks in levels:
        for _ in range(ticks):
            voice.track_talk()
            found += "#" if voice.talking else "."
    assert found == (talks or "." * len(found))


def test_gated_talkers_have_no_level() -> None:
    talker = Talker("ava", 7, 440)
    stage = Stage(talker)
    stage.run(50)
    talker.voice.shut(1.0)
    stage.run(1)
    assert stage.mixer.levels([talker.voice]) is None
    assert talker.voice.level == SILENCE


@pytest.mark.parametrize(("rms", "level"), [(1.0, 0), (0.1, 20), (0.0, 127), (1e-9, 127), (2.0, 0)])
def test_dbov(rms: float, level: int) -> None:
    assert dbov(rms) == level


def test_a_corrupt_packet_costs_its_own_time_only() -> None:
    talker = Talker("ava", 1, 440)
    stage = Stage(talker)
    stage.run(30)
    talker.sent += 1
    talker.mute = True
    talker.voice.put(talker.sent, stage.tick * FRAME, b"\x7b\x81\xff\xff", stage.tick * 0.02 + 0.005)
    stage.run(1)
    talker.mute = False
    stage.run(30)
    assert level_at(stage.last("", 20), 440) == pytest.approx(TONE, abs=1)


def test_a_low_bitrate_is_one_encode_more_for_all_who_take_it() -> None:
    stage = Stage(Talker("ava", 1, 440), Talker("ben", 2, 660))
    stage.mixer.ears = frozenset({frozenset({LOW}), frozenset({LOW, "ben"})})
    without = mix_key({LOW, "ben"})
    output = stage.run(100, ["", LOW, without])
    sizes = {ear: sum(len(frame.payload) for frame in frames[50:]) for ear, frames in stage.frames.items()}
    assert 0.35 < sizes[LOW] / sizes[""] < 0.65  # 24 kbit/s beside 48
    assert set(output.own) == {"ava", "ben", LOW, without}
    heard = {ear: np.concatenate(found[50:]) for ear, found in stage.heard.items()}
    for ear in ("", LOW):
        assert abs(level_at(as_samples(heard[ear]), 660) - TONE) < 1.5
    assert ratio_at(as_samples(heard[without]), 440) > 20
    stage.mixer.sound = "music"
    assert LOW not in stage.run(5).own
    stage.mixer.sound = "voice"
    assert LOW in stage.run(5).own
