"""The sound of one stage: voices in, one mix and its variants out, 20 ms at a time.

Everybody who is silent and leaves nobody out shares one encode. An *owner* whose peers talk, or did in the last two
seconds, gets the mix minus their own voices. Who leaves somebody out ("not this one for me") gets the mix minus those:
while one of them talks it is the very encode that this one hears, so it costs nothing; only where two and more talk
who are left out together there is one encode more, for all who leave out the same. A new encoder begins as a clone of
the one its listeners heard until then, so that they hear no seam, and is given up after two seconds in which both
were fed the same samples. Listeners who came when the bandwidth was nearly full hear one more encode, of a low bitrate
(`LOW` among those they leave out).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

import numpy as np

from bridge.media import opus
from bridge.media.control import LOW, LOW_BITRATE, MAX_LEFT_OUT_MIXES, Sound, bitrate_of
from bridge.media.limiter import Limiter
from bridge.media.opus import FRAME, Encoder, Samples
from bridge.media.voice import FADE, RAMP_DOWN, RAMP_UP, SILENCE, Voice, dbov, rms

_SILENT_PEAK = 1e-4  # −80 dBFS: below it a frame adds nothing
_OWN_HANGOVER = 100  # ticks: 2 s
_FEW = 6  # mixes for single owners encoded as well as the shared one …
_HURRIED = 0  # … and the complexity of each where there are more: 20 who talk at once fit into a quarter of a core
_TAIL = {1: 10, 2: 20}
"""Ticks of silence that are still encoded, by channels, so that a decoder's last sound dies away: what it fills gaps
with is made of that. CELT at a high bitrate needs 14 of them."""
_LEVEL_TICKS = 5  # 10 reports a second


@dataclass(frozen=True, slots=True)
class Format:
    """What the encoders of a stage make; ``bitrate`` in bit/s of each."""

    bitrate: int = 48_000
    channels: int = 1
    loss_percent: int = 5


def format_of(sound: Sound, bitrate: int) -> Format:
    """``bitrate``: that of the configuration, for voices."""
    return Format(bitrate_of(sound, bitrate), 2 if sound == "music" else 1)


@dataclass(frozen=True, slots=True)
class Frame:
    """One encoded 20 ms. ``csrcs``: (CSRC, −dBov) of the loudest in it, at most 15. ``sounding`` is False for
    the one byte that stands for silence: it need not be sent each tick (decisions 1.8)."""

    payload: bytes
    csrcs: tuple[tuple[int, int], ...]
    level: int
    sounding: bool = True


def _quiet_frame() -> Frame:
    """A TOC byte with an empty frame: "nothing" to every decoder (RFC 6716 §3.2.1, RFC 7587 §3.1.3)."""
    toc = Encoder().encode(np.zeros(FRAME, np.float32))[0] & 0xFC
    return Frame(bytes((toc,)), (), SILENCE, sounding=False)


QUIET = _quiet_frame()


class _Stream:
    """One encoder with its limiter, for the mix without ``without``."""

    __slots__ = ("_fade_in", "encoder", "encodes", "format", "limiter", "silent_ticks", "without")

    def __init__(self, form: Format, without: frozenset[str] = frozenset(), like: _Stream | None = None) -> None:
        self.format, self.without = form, without
        self.encoder = Encoder(form.bitrate, form.loss_percent, form.channels)
        self.limiter = Limiter()
        self.silent_ticks = _TAIL[form.channels] + 1
        self.encodes = 0
        self._fade_in = False
        if like is not None:
            self.encoder.copy_from(like.encoder)
            self.encoder.set_bitrate(form.bitrate)
            self.limiter.gain = like.limiter.gain
            self.silent_ticks = like.silent_ticks
            self._fade_in = like._fade_in

    def take(self, form: Format) -> None:
        """From the next frame on. Another number of channels needs another encoder, which begins with a fade."""
        if form.channels == self.format.channels:
            self.encoder.set_bitrate(form.bitrate)
            self.encoder.expect_loss(form.loss_percent)
        else:
            self.encoder = Encoder(form.bitrate, form.loss_percent, form.channels)
            self._fade_in = True
        self.format = form

    def frame(self, mix: Samples, heard: list[Voice], *, fade_out: bool = False) -> Frame:
        """``fade_out``: another encoder takes over after this frame."""
        self.silent_ticks = 0 if heard else self.silent_ticks + 1
        if self.silent_ticks > _TAIL[self.format.channels]:
            return QUIET
        self.encodes += 1
        loudest = sorted(heard, key=lambda voice: voice.level)[:15]
        level = dbov(rms(mix)) if heard else SILENCE
        limited = self.limiter.apply(mix)
        reach = FADE * self.format.channels
        if self._fade_in:
            limited[:reach] *= RAMP_UP[self.format.channels]
            self._fade_in = False
        if fade_out:
            limited[:reach] *= RAMP_DOWN[self.format.channels]
            limited[reach:] = 0
        payload = self.encoder.encode(limited)
        return Frame(payload, tuple((voice.csrc, voice.level) for voice in loudest), level)


_SEPARATOR = "\n"


def mix_key(without: Iterable[str]) -> str:
    """The name of the mix without these owners, in `Output.own`; that of one owner is the owner's."""
    return _SEPARATOR.join(sorted(without))


def is_of_one(key: str) -> bool:
    """Whether a `mix_key` is that of a single owner."""
    return _SEPARATOR not in key


@dataclass(frozen=True, slots=True)
class Output:
    """What one tick gives: a frame for everyone, and other frames by `mix_key` for those who hear less: one for each
    owner who talks, and some for several of them together."""

    shared: Frame
    own: Mapping[str, Frame]

    def without(self, key: str) -> Frame:
        """The frame without those owners, of whom not all need talk."""
        found = self.own.get(key)
        if found is None and not is_of_one(key):
            found = self.own.get(mix_key(self.own.keys() & set(key.split(_SEPARATOR))))
        return found or self.shared


class Mixer:
    """One stage's sound. Owns its encoders; voices are handed in at each tick."""

    def __init__(self, bitrate: int = 48_000, sound: Sound = "voice") -> None:
        """``bitrate``: of voices, as configured."""
        self._bitrate = bitrate
        self._sound: Sound = sound
        self._format = self._next = format_of(sound, bitrate)
        self._shared = _Stream(self._format)
        self._own: dict[str, _Stream] = {}  # by mix_key
        self._talking: dict[str, int] = {}  # owners → ticks since they were last heard
        self._ears: frozenset[frozenset[str]] = frozenset()
        self._is_chosen = True
        self._levels_in = 0
        self._levels_sent = False
        self._encodes_gone = 0

    @property
    def encodes(self) -> int:
        return self._encodes_gone + self._shared.encodes + sum(each.encodes for each in self._own.values())

    @property
    def sound(self) -> Sound:
        return self._sound

    @sound.setter
    def sound(self, sound: Sound) -> None:
        """What it is from the next tick on. Where the number of channels changes, that tick fades out and the one after
        it fades in, over 10 ms each."""
        self._sound = sound
        self._next = format_of(sound, self._bitrate)
        self._is_chosen = False

    @property
    def is_changing(self) -> bool:
        """The next tick is the last one with the present number of channels."""
        return self._next.channels != self._format.channels

    @property
    def channels(self) -> int:
        """Of the frames that voices give in the next tick."""
        return self._format.channels

    @property
    def ears(self) -> frozenset[frozenset[str]]:
        """Whom somebody does not hear: those left out, and oneself if one may speak. Only who leaves out is told of."""
        return self._ears

    @ears.setter
    def ears(self, ears: frozenset[frozenset[str]]) -> None:
        """Also where they are the same and somebody else has one of them now: who is moved from sound to a mix that is
        silent gets its tail once more."""
        self._ears, self._is_chosen = ears, False
        for stream in self._own.values():
            stream.silent_ticks = 0

    def tick(self, voices: Iterable[Voice], now: float) -> Output:
        """Mix and encode the next 20 ms."""
        if not self.is_changing:
            self._take_format()
        channels = self._format.channels
        total = np.zeros(FRAME * channels, np.float32)
        by_owner: dict[str, Samples] = {}
        heard: list[Voice] = []
        for voice in voices:
            voice.channels = channels
            frame = voice.frame(now)
            voice.track_talk()
            if frame is None or float(np.abs(frame).max()) < _SILENT_PEAK:
                voice.evener.pause()
                continue
            if channels == 1:
                frame = voice.evener.apply(frame)
            total += frame
            by_owner[voice.owner] = by_owner[voice.owner] + frame if voice.owner in by_owner else frame
            heard.append(voice)
        own = self._own_frames(total, by_owner, heard)
        output = Output(self._shared.frame(total, heard, fade_out=self.is_changing), own)
        self._take_format()
        return output

    def _take_format(self) -> None:
        if self._next != self._format:
            self._format = self._next
            for stream in (self._shared, *self._own.values()):
                stream.take(self._format_without(stream.without))

    def _format_without(self, without: frozenset[str]) -> Format:
        form = self._format
        return replace(form, bitrate=min(form.bitrate, LOW_BITRATE)) if LOW in without else form

    def _own_frames(self, total: Samples, by_owner: Mapping[str, Samples], heard: list[Voice]) -> dict[str, Frame]:
        """Before the shared encode: a clone must have the state that the listener's decoder has."""
        self._note_talk(by_owner)
        frames = {}
        for key, stream in self._own.items():
            others = [voice for voice in heard if voice.owner not in stream.without]
            minus = total
            if not others:
                minus = np.zeros(len(total), np.float32)  # exactly nothing, not the rounding of a − a
            else:
                for owner in stream.without & by_owner.keys():
                    minus = minus - by_owner[owner]
            frames[key] = stream.frame(minus, others, fade_out=self.is_changing)
        return frames

    def _note_talk(self, heard: Iterable[str]) -> None:
        """Who talks, or did in the last two seconds; and which mixes that needs."""
        before = frozenset(self._talking)
        low = frozenset({LOW}) if self._sound == "voice" else frozenset()
        self._talking = {owner: ticks + 1 for owner, ticks in self._talking.items() if ticks < _OWN_HANGOVER}
        self._talking.update(dict.fromkeys(heard, 0))
        if self._is_chosen and before == self._talking.keys():
            return
        self._is_chosen = True
        wanted = {mix_key((owner,)): frozenset((owner,)) for owner in self._talking}
        most = 2 * len(wanted) + MAX_LEFT_OUT_MIXES
        for ear in sorted(self._ears, key=sorted):
            without = ear & (self._talking.keys() | low)
            if without == {LOW} or (len(without) > 1 and len(wanted) < most):
                wanted[mix_key(without)] = without
        fresh = {}
        for key in wanted.keys() - self._own.keys():
            source = self._own.get(mix_key(wanted[key] & (before | low)), self._shared)
            fresh[key] = _Stream(self._format_without(wanted[key]), wanted[key], source)
        for key in self._own.keys() - wanted.keys():
            self._encodes_gone += self._own.pop(key).encodes
        self._own.update(fresh)
        for stream in self._own.values():
            stream.encoder.set_complexity(opus.COMPLEXITY if len(self._own) <= _FEW else _HURRIED)

    def expect_loss(self, percent: int) -> None:
        """What the listeners' links lose, for in-band FEC. Music is left alone: it would be coded as speech."""
        if self._next.channels == 1 and percent != self._next.loss_percent:
            self._next = replace(self._next, loss_percent=percent)

    def levels(self, voices: Iterable[Voice]) -> dict[int, int] | None:
        """Called once a tick: who talks now, or None where there is nothing to tell yet."""
        self._levels_in -= 1
        if self._levels_in > 0:
            return None
        talking = {voice.csrc: voice.level for voice in voices if voice.open and voice.talking}
        if not talking and not self._levels_sent:
            return None
        self._levels_in = _LEVEL_TICKS
        self._levels_sent = bool(talking)
        return talking
