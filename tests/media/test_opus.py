"""libopus through our binding: what was encoded is decoded and measured."""

from __future__ import annotations

import numpy as np
import pytest

from bridge.media.opus import FRAME, MAX_PACKET, Decoder, Encoder, OpusError, Samples, samples_in, version
from tests.helpers.raw_peer import as_samples
from tests.helpers.tone import level_at, ratio_at, rms_dbfs, sine


def frames(hz: float, count: int) -> list[Samples]:
    tone = sine(hz, count * 0.02).astype(np.float32) / 32768
    return [np.ascontiguousarray(each) for each in tone.reshape(count, FRAME)]


def test_round_trip() -> None:
    encoder, decoder = Encoder(), Decoder()
    packets = [encoder.encode(frame) for frame in frames(440, 50)]
    heard = as_samples(np.concatenate([decoder.decode(packet).copy() for packet in packets])[-FRAME * 25 :])
    assert level_at(heard, 440) == pytest.approx(-12, abs=0.5)
    assert ratio_at(heard, 440) > 30
    mean = sum(map(len, packets)) / 50 * 8 * 50
    assert 20_000 < mean < 70_000
    assert version().startswith("libopus")


def test_concealment_goes_on_from_what_was_heard() -> None:
    encoder, decoder = Encoder(), Decoder()
    for frame in frames(440, 25):
        decoder.decode(encoder.encode(frame))
    guess = as_samples(np.concatenate([decoder.conceal(FRAME).copy() for _ in range(2)]))
    assert rms_dbfs(guess) == pytest.approx(-12, abs=4)
    assert len(decoder.conceal(480)) == 480


def speechlike(count: int) -> list[Samples]:
    """A buzz with formants that change: libopus makes FEC for speech, not for a pure tone."""
    rng = np.random.default_rng(7)
    times = np.arange(count * FRAME) / 48_000
    pitch = 120 + 20 * np.sin(2 * np.pi * 3 * times)
    buzz = np.sign(np.sin(2 * np.pi * np.cumsum(pitch) / 48_000)) * (0.6 + 0.4 * np.sin(2 * np.pi * 4 * times))
    kernel = np.hanning(24)
    voice = 0.2 * np.convolve(buzz + 0.02 * rng.standard_normal(len(buzz)), kernel / kernel.sum(), "same")
    return [np.ascontiguousarray(each) for each in voice.astype(np.float32).reshape(count, FRAME)]


def test_in_band_fec_brings_a_lost_frame_back() -> None:
    encoder = Encoder(bitrate=24_000, loss_percent=20)
    packets = [encoder.encode(frame) for frame in speechlike(60)]
    full, fec, plc = Decoder(), Decoder(), Decoder()
    errors = {"fec": 0.0, "plc": 0.0}
    for at in range(59):
        whole = full.decode(packets[at]).copy()
        if at > 20 and at % 4 == 0:  # lost
            guesses = {"fec": fec.recover(packets[at + 1], FRAME).copy(), "plc": plc.conceal(FRAME).copy()}
        else:
            guesses = {"fec": fec.decode(packets[at]).copy(), "plc": plc.decode(packets[at]).copy()}
        if at > 20 and at % 4 == 0:
            for name, guess in guesses.items():
                errors[name] += float(np.sum((np.abs(np.fft.rfft(guess)) - np.abs(np.fft.rfft(whole))) ** 2))
    assert errors["fec"] < 0.5 * errors["plc"]


def test_a_clone_continues_without_a_seam() -> None:
    first, second, reference = Encoder(), Encoder(), Decoder()
    tone = frames(440, 40)
    for frame in tone[:20]:
        reference.decode(first.encode(frame))
    second.copy_from(first)
    for frame in tone[20:]:
        packet = first.encode(frame)
        assert packet == second.encode(frame)
    second.encode(tone[0])
    assert first.encode(tone[1]) != second.encode(tone[1])  # two states, not one shared


@pytest.mark.parametrize("bad", [b"", b"\xff", b"\xff\xff\xff", bytes(3), b"\x03\x00"])
def test_corrupt_packets_are_errors_not_crashes(bad: bytes) -> None:
    decoder = Decoder()
    try:
        assert len(decoder.decode(bad)) <= 5760
    except OpusError as error:
        assert str(error)  # noqa: PT017
    encoder = Encoder()
    good = [encoder.encode(frame) for frame in frames(440, 20)]
    heard = np.concatenate([decoder.decode(each).copy() for each in good])
    assert level_at(as_samples(heard[-FRAME * 10 :]), 440) > -14


def test_encoder_wants_its_format() -> None:
    for wrong in (np.zeros(480, np.float32), np.zeros(FRAME, np.float64), np.zeros((FRAME, 2), np.float32)[:, 0]):
        with pytest.raises(ValueError, match="960"):
            Encoder().encode(wrong)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("packet", "samples"),
    [
        (b"", 0),
        (b"\x00", 480),  # SILK narrow-band, 10 ms
        (b"\x18", 2880),  # SILK narrow-band, 60 ms
        (b"\x78", 960),  # hybrid, 20 ms
        (b"\xe0", 120),  # CELT, 2.5 ms
        (b"\xf8", 960),  # CELT, 20 ms
        (b"\xf9", 1920),  # … two of them
        (b"\xfb\x03", 2880),  # … three
        (b"\xfb", 0),
        (b"\xfb\x3f", 0),  # 63 × 20 ms: more than 120 ms
    ],
)
def test_length_from_the_first_bytes(packet: bytes, samples: int) -> None:
    assert samples_in(packet) == samples


def test_length_agrees_with_the_decoder() -> None:
    packet = Encoder().encode(frames(440, 1)[0])
    assert samples_in(packet) == len(Decoder().decode(packet)) == FRAME
    assert len(packet) <= MAX_PACKET
