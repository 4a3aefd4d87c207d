"""One stage at one worker. At its *home* all voices are mixed; other workers fan out the frames that come from there.

All workers of a machine count the same ticks (20 ms of the monotonic clock), so a frame has one number and one RTP
timestamp everywhere, whoever mixes. What comes from home is sent on as it comes. Home does not say at each tick that it
is quiet; a home that died is heard as a pause.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from bridge.media.control import LOW, Sound
from bridge.media.counters import VoiceStats
from bridge.media.fanout import Stage as FanOut
from bridge.media.mixer import QUIET, Mixer, Output
from bridge.media.trunk import FarVoice, Spoken, Trunk
from bridge.media.voice import Voice

if TYPE_CHECKING:
    from bridge.media.peer import Peer

_GRACE = 25  # ticks that a frame from home may take in the middle of sound before it is missed …
_LAG = 5  # … and when it is quiet there
_SAID_QUIET = 6  # ticks of silence that home sends after sound, so that the last packets go out at once
_FEC_TICKS = 100  # 2 s; who needs it asks each second
_LOSS_PERCENT, _LOSSY_PERCENT = 5, 15  # told to the encoder: as a rule; while a listener depends on in-band FEC
_NOTHING = Output(QUIET, {})


@dataclass(slots=True)
class _Far:
    """A voice of a peer at another worker, at the home. It stays while the peer does: its counts, what was learnt of
    its path."""

    voice: Voice
    worker: int
    gone: bool = False


class Stage:
    """The peers of one stage at this worker, their fan-out, and at the home their mixer. Owned by the worker."""

    def __init__(
        self, name: str, worker: int, home: int, bitrate: int, fan_out: FanOut, trunk: Trunk, sound: Sound = "voice"
    ) -> None:
        """``worker``: the number of ours; ``home``: of the one that mixes."""
        self.name, self.home, self.fan_out = name, home, fan_out
        self.peers: dict[str, Peer] = {}
        self.others: tuple[int, ...] = ()  # whom home sends its frames
        self.sound: Sound = sound
        self._ears: frozenset[frozenset[str]] = frozenset()
        self.mixer = Mixer(bitrate, sound)
        self._worker, self._bitrate, self._trunk = worker, bitrate, trunk
        self._sounding: dict[Peer, None] = {}  # whose gate is open, or was and the fade is still to come
        self._leaving: list[Voice] = []  # whose last 10 ms fade out in the next tick
        self._far: dict[int, _Far] = {}  # by CSRC
        self._fec_until = 0  # tick: until then somebody needs in-band FEC
        self._sent = 0  # the last tick that was fanned out
        self._quiet_ticks = _SAID_QUIET  # at the home: since it last said anything
        self._is_quiet = True  # elsewhere: what home said last

    @property
    def is_home(self) -> bool:
        return self.home == self._worker

    @property
    def is_empty(self) -> bool:
        """Nobody here needs it."""
        return not self.peers and not (self.is_home and self.others)

    def settle(self, home: int, others: tuple[int, ...], now: float) -> bool:
        """Who mixes from now on, and for whom else. The voices of our peers go there. Whether home has changed."""
        self.others = others if home == self._worker else ()
        if home == self.home:
            return False
        self.home = home
        self.mixer = Mixer(self._bitrate, self.sound)
        self.mixer.ears = self._ears
        self._far.clear()
        self._leaving.clear()
        for peer in self.peers.values():
            if isinstance(peer.voice, FarVoice):
                peer.voice.leave()
            peer.speak_through(self.voice_for(peer.owner, peer.csrc), now)
        return True

    def tune(self, sound: Sound, ears: frozenset[frozenset[str]]) -> None:
        """Heard from the next tick on. What is kept at the others is for the day when one of them becomes home."""
        self.sound = self.mixer.sound = sound
        self._ears = self.mixer.ears = ears

    # -- peers -----------------------------------------------------------------------------------

    def voice_for(self, owner: str, csrc: int) -> Voice | FarVoice:
        return Voice(owner, csrc) if self.is_home else FarVoice(self._trunk, self.home, self.name, owner, csrc)

    def add(self, peer: Peer) -> None:
        self.peers[peer.name] = peer
        self.fan_out.add(peer.sender)

    def may_sound(self, peer: Peer) -> None:
        self._sounding[peer] = None

    def remove(self, peer: Peer) -> None:
        """Its gate was shut before."""
        self.peers.pop(peer.name, None)
        self._sounding.pop(peer, None)
        self.fan_out.remove(peer.sender)
        if isinstance(peer.voice, FarVoice):
            peer.voice.leave()
        else:
            self._leaving.append(peer.voice)

    def want_fec(self, tick: int) -> None:
        """Somebody needs in-band FEC, and asks again each second."""
        if not self.is_home:
            if tick <= self._fec_until - _FEC_TICKS // 2:
                return  # home knows already
            self._trunk.want_fec(self.home, self.name)
        self._fec_until = tick + _FEC_TICKS

    # -- the trunk -------------------------------------------------------------------------------

    def on_frames(self, worker: int, tick: int, output: Output) -> bool:
        """False: too late, or from another than our home."""
        if worker != self.home or tick <= self._sent:
            return False
        self._is_quiet = _is_quiet(output)
        self._send(output, tick)
        return True

    def on_voice(self, worker: int, spoken: Spoken, now: float) -> bool:
        """False: we are not its home."""
        if not self.is_home:
            return False
        far = self._far.get(spoken.csrc)
        if far is None:
            far = self._far[spoken.csrc] = _Far(Voice(spoken.owner, spoken.csrc), worker)
        far.worker, far.gone = worker, False
        far.voice.open_gate()
        if spoken.fresh:
            far.voice.change_source()
        if spoken.copy:
            far.voice.restore(spoken.sequence, spoken.timestamp, spoken.payload)
        else:
            far.voice.put(spoken.sequence, spoken.timestamp, spoken.payload, now)
        return True

    def hush(self, csrc: int, now: float, *, gone: bool = False) -> None:
        """The gate of a far voice was shut. Harmless twice."""
        far = self._far.get(csrc)
        if far is not None:
            far.voice.shut(now)
            far.gone = far.gone or gone

    def on_cut(self, worker: int, now: float) -> None:
        """Another worker is gone, and its voices with it."""
        for csrc in [csrc for csrc, far in self._far.items() if far.worker == worker]:
            self.hush(csrc, now, gone=True)

    # -- the tick --------------------------------------------------------------------------------

    def tick(self, now: float, tick: int) -> Output | None:
        """Mix and send; what was mixed. None where another worker is the home."""
        if self.is_home:
            return self._mix(now, tick)
        if self._sent < tick - (_LAG if self._is_quiet else _GRACE):
            self._is_quiet = True
            self._send(_NOTHING, tick - _LAG)
        return None

    def voices(self) -> list[Voice]:
        """Those that may be heard."""
        near = [peer.voice for peer in self._sounding if isinstance(peer.voice, Voice)]
        return near + [far.voice for far in self._far.values() if far.voice.open or far.voice.fading]

    def _mix(self, now: float, tick: int) -> Output:
        for peer in [each for each in self._sounding if not (each.speak or each.voice.fading)]:
            del self._sounding[peer]
        for csrc in [csrc for csrc, far in self._far.items() if far.gone and not far.voice.fading]:
            del self._far[csrc]
        voices = self.voices() + self._leaving
        self._leaving = []
        self.mixer.expect_loss(_LOSSY_PERCENT if self._fec_until > tick else _LOSS_PERCENT)
        output = self.mixer.tick(voices, now)
        if tick > self._sent:  # else the former home has sent it
            self._send(output, tick)
        if self.others:
            self._quiet_ticks = self._quiet_ticks + 1 if _is_quiet(output) else 0
            if self._quiet_ticks <= _SAID_QUIET:
                self._trunk.frames(self.others, self.name, tick, output)
        return output

    def _send(self, output: Output, tick: int) -> None:
        self._sent = tick
        self.fan_out.tick(output, tick)

    def levels(self) -> Mapping[int, int] | None:
        """After a tick at the home; see ``Mixer.levels``."""
        return self.mixer.levels(self.voices())

    def far_stats(self) -> list[VoiceStats]:
        return [VoiceStats(self.name, csrc, far.voice.counts()) for csrc, far in self._far.items()]


def _is_quiet(output: Output) -> bool:
    """Nobody talks, nor did just now: who did has a mix of their own for a while."""
    return not output.shared.sounding and all(key == LOW for key in output.own)
