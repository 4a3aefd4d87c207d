"""The talk of the demo: a short poetry evening in Persian and English, spoken by espeak-ng.

Rendered once into ``DIR/voices`` (WAV, 48 kHz, mono, 16 bits) and read from there at later starts.
Without espeak-ng two plucked strings play instead. The verses are by Hafez of Shiraz (14th century,
public domain); all other lines are our own.
"""

from __future__ import annotations

import asyncio
import hashlib
import shutil
import wave
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from bridge.demo.sound import RATE, Pcm
from bridge.errors import Unavailable

Speaker = Literal["arash", "sara", "nilufar"]


@dataclass(frozen=True, slots=True)
class Say:
    """One turn at the microphone."""

    who: Speaker
    lang: Literal["fa", "en"]
    text: str
    pause_s: float = 0.9  # silence after it


@dataclass(frozen=True, slots=True)
class Do:
    """Something that is seen, not heard."""

    what: Literal["raise hand", "lower hand", "mute arash", "unmute arash", "nilufar speaks"]
    note: str = ""


@dataclass(frozen=True, slots=True)
class _Timbre:
    voice: str
    speed: int  # words a minute
    pitch: int  # 0 … 99


_TIMBRES: Mapping[tuple[Speaker, str], _Timbre] = {
    ("arash", "fa"): _Timbre("fa+m3", 135, 38),
    ("arash", "en"): _Timbre("en-gb+m3", 145, 38),
    ("sara", "fa"): _Timbre("fa+f2", 140, 58),
    ("sara", "en"): _Timbre("en-gb+f2", 150, 58),
    ("nilufar", "fa"): _Timbre("fa+f4", 145, 70),
    ("nilufar", "en"): _Timbre("en-gb+f4", 155, 70),
}

PLAY: tuple[Say | Do, ...] = (
    Say("arash", "fa", "سلام به همه. به شب شعر خوش آمدید. امشب از حافظ آغاز می‌کنیم."),
    Say("sara", "en", "Good evening, and welcome. Arash reads in Persian. I answer in English."),
    Say("arash", "fa", "اَلا یا اَیُّهَا السّاقی، اَدِر کَأساً و ناوِلها."),
    Say("arash", "fa", "که عشق آسان نمود اول، ولی افتاد مشکل‌ها.", 1.4),
    Say("sara", "en", "He says: love looked easy at first, and then the troubles came."),
    Do("raise hand", "یک پرسش درباره‌ی ساقی · A question about the cupbearer"),
    Say("sara", "en", "I see a hand in the audience. One moment, please. First, does the poem need a singer?"),
    Say("arash", "fa", "نه. شعر خودش آواز است. کافی است آرام بخوانیم و خوب گوش بدهیم."),
    Do("mute arash"),
    Say("sara", "en", "The moderator has muted Arash now. He may talk into his microphone, and nobody hears him."),
    Do("unmute arash"),
    Say("arash", "fa", "و حالا دوباره صدای من را می‌شنوید."),
    Do("nilufar speaks"),
    Say("sara", "en", "Here is another line. Plant the tree of friendship, for it bears what the heart desires."),
    Say("arash", "fa", "درخت دوستی بنشان که کام دل به بار آرد."),
    Say("arash", "fa", "نهال دشمنی بَرکَن که رنج بی‌شمار آرد.", 1.4),
    Say("sara", "en", "And pull up the sapling of hate. It brings troubles without number."),
    Do("lower hand"),
    Say("arash", "fa", "چند لحظه سکوت، و بعد از نو می‌خوانیم.", 3.0),
)
QUESTION = Say("nilufar", "fa", "سلام. پرسش من این است: ساقی در این شعر کیست؟")


@dataclass(frozen=True, slots=True)
class Voices:
    """The sound of each turn. ``spoken`` is False where espeak-ng is missing and strings play."""

    turns: Mapping[Say, Pcm]
    spoken: bool


async def render(directory: Path, progress: Callable[[str], None]) -> Voices:
    """All turns, from ``directory`` where they lie there already. Raises Unavailable when espeak-ng fails."""
    await asyncio.to_thread(directory.mkdir, parents=True, exist_ok=True)
    says = [each for each in PLAY if isinstance(each, Say)] + [QUESTION]
    espeak = shutil.which("espeak-ng")
    if espeak is None:
        return Voices({say: melody(number, say) for number, say in enumerate(says)}, spoken=False)
    turns: dict[Say, Pcm] = {}
    for number, say in enumerate(says, 1):
        timbre = _TIMBRES[say.who, say.lang]
        name = hashlib.sha256(f"{timbre} {say.text}".encode()).hexdigest()[:16]
        path = directory / f"{name}.wav"
        if not path.exists():
            progress(f"{number} of {len(says)}: {say.who}")
            await _speak(espeak, timbre, say.text, path)
        turns[say] = read_wav(path)
    return Voices(turns, spoken=True)


async def _speak(espeak: str, timbre: _Timbre, text: str, path: Path) -> None:
    raw = path.with_suffix(".raw.wav")
    process = await asyncio.create_subprocess_exec(
        espeak,
        *("-v", timbre.voice, "-s", str(timbre.speed), "-p", str(timbre.pitch), "-w", str(raw), text),
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        _, said = await process.communicate()
    except asyncio.CancelledError:
        process.kill()
        await process.wait()
        raise
    if process.returncode:
        raise Unavailable(f"espeak-ng -v {timbre.voice} failed: {said.decode(errors='replace').strip()}")
    write_wav(path, _level(read_wav(raw)))
    raw.unlink()


def read_wav(path: Path) -> Pcm:
    """A 16-bit WAV file as mono at 48 kHz."""
    with wave.open(str(path)) as file:
        sound = np.frombuffer(file.readframes(file.getnframes()), np.int16)
        mono = sound.reshape(-1, file.getnchannels()).mean(axis=1)
        return resample(mono, file.getframerate()).astype(np.int16)


def write_wav(path: Path, pcm: Pcm) -> None:
    """Whole or not at all: a broken start leaves no half file that a later one would play."""
    part = path.with_suffix(".part")
    with wave.open(str(part), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(RATE)
        file.writeframes(pcm.tobytes())
    part.replace(path)


def resample(sound: np.ndarray, rate: int) -> np.ndarray:
    """To 48 kHz over the spectrum, which adds no images above the old band. A few seconds at most."""
    if rate == RATE or not len(sound):
        return sound
    length = round(len(sound) * RATE / rate)
    spectrum = np.fft.rfft(sound)
    stretched = np.zeros(length // 2 + 1, complex)
    kept = min(len(spectrum), len(stretched))
    stretched[:kept] = spectrum[:kept]
    return np.clip(np.fft.irfft(stretched, length) * (length / len(sound)), -32768, 32767)


def _level(sound: Pcm) -> Pcm:
    """Without the silence at both ends, and as loud as any other turn: −20 dBFS, peaks below −2."""
    loud = np.flatnonzero(np.abs(sound) > 300)
    if not len(loud):
        return sound
    part = sound[max(0, loud[0] - RATE // 50) : loud[-1] + RATE // 10].astype(float)
    gain = min(3276.8 / np.sqrt(np.mean(part**2)), 26000 / np.max(np.abs(part)))
    levelled: Pcm = (part * gain).astype(np.int16)
    return levelled


# Dastgah-e Shur on D, in cents above it: the quarter tone on the second degree is what makes it Persian.
_SHUR = (0, 150, 300, 500, 700, 800, 1000, 1200)


def melody(number: int, say: Say) -> Pcm:
    """A phrase on plucked strings about as long as ``say``; each person has an octave of their own."""
    rng = np.random.default_rng(number)
    base = {"arash": 146.8, "sara": 293.7, "nilufar": 440.0}[say.who]
    beats = max(8, len(say.text) // 6)
    sound = np.zeros(int((beats * 0.22 + 1.5) * RATE))
    degree = 4
    for beat in range(beats):
        degree = int(np.clip(degree + rng.integers(-2, 3), 0, 7)) if beat < beats - 1 else 0
        tone = _pluck(base * 2 ** (_SHUR[degree] / 1200), 1.4, rng)
        start = int(beat * 0.22 * RATE)
        sound[start : start + len(tone)] += tone
    whole: Pcm = (sound / np.max(np.abs(sound)) * 20000).astype(np.int16)
    return _level(whole)


def _pluck(hertz: float, seconds: float, rng: np.random.Generator) -> np.ndarray:
    """A struck metal string: partials a little sharp, the higher the shorter."""
    t = np.arange(int(seconds * RATE)) / RATE
    partials = [(n, 1 / n**1.3, 2.2 + 0.9 * n) for n in range(1, 9)]
    tone = sum(
        level * np.exp(-fall * t) * np.sin(2 * np.pi * hertz * n * (1 + 0.0002 * n * n) * t + rng.uniform(0, 6.28))
        for n, level, fall in partials
    )
    return np.asarray(tone * np.minimum(1, t / 0.002) * rng.uniform(0.7, 1.0))
