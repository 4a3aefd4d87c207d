"""Packets in any order in, one chunk of sound per call out. Pure: no I/O, no clock, no decoder.

Time is kept in samples of 48 kHz. The fastest packets of the last ten seconds tell how the sender's
timestamps map to our clock (``base``); the spread of the others gives the ``target`` delay, 20-120 ms.
So at any moment one timestamp is *due*. Play-out follows it: ahead of it a chunk is stretched, behind
it the caller may drop a quiet frame (``surplus``). Drift of the sender's clock moves ``base`` and heals
the same way.

    WAITING   nothing to play: the first packet is played when it is due
       │ a packet is due              ▲ nothing left for 100 ms, or the sender's DTX said so
       ▼                              │
    PLAYING ── missing: in the next packet's FEC → RECOVER, else → CONCEAL ──┘
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections import deque
from dataclasses import dataclass
from enum import Enum

RATE = 48_000
_FRAME = 960
_MIN_TARGET, _MAX_TARGET = _FRAME, 6 * _FRAME
_CAPACITY = 64
"""Packets held at most; the oldest goes first (64 × 20 ms is ten times the largest target)."""
_JUMP = RATE
"""A timestamp off by more than a second from what the clock says is a new timeline."""
_LATE_RUN = 5
"""So many late packets in a row, or slower than any target, mean that the path became slower for good."""
_DRY_CHUNKS = 5
"""Concealed 20 ms chunks with nothing behind them before silence: libopus has faded out by then."""
_BUCKETS, _BUCKET = 10, RATE
_SPREADS = 200
"""Packets (4 s) over which the spread of delays is looked at."""
_REPAIR = 10 * RATE
"""Two losses within ten seconds: from then on, until ten seconds without, the target leaves time for the next packet,
in which the lost one may be found (in-band FEC, or a copy)."""
_FORGET = 16
_ALL_SEEN = (1 << _FORGET) - 1
"""So many packets back is looked for lost ones; a jump by as many begins anew."""


class Kind(Enum):
    PLAY = "play"  # decode ``payload``
    RECOVER = "recover"  # the packet is lost; ``payload`` is the one after it, which may hold FEC
    CONCEAL = "conceal"  # the packet is lost, or late, or the delay has to grow
    NOTHING = "nothing"  # silence


@dataclass(frozen=True, slots=True)
class Chunk:
    kind: Kind
    payload: bytes
    samples: int


_SILENCE = Chunk(Kind.NOTHING, b"", _FRAME)


@dataclass(slots=True)
class _Held:
    sequence: int
    payload: bytes
    samples: int


class JitterBuffer:
    """One RTP source. ``now`` is any monotonic clock, in seconds, the same for ``put`` and ``take``."""

    def __init__(self) -> None:
        self._held: dict[int, _Held] = {}  # by extended timestamp; at most _CAPACITY
        self._next: int | None = None  # extended timestamp of the next sample to give; None: WAITING
        self._last_time = 0  # newest extended timestamp
        self._last_sequence: int | None = None  # of the newest packet given out
        self._played_until: int | None = None
        self._length = _FRAME  # of the sender's packets
        self._was_dtx = False
        self._dry = 0
        self._late_run = self._slow_run = 0
        self._minima: deque[tuple[int, int]] = deque(maxlen=_BUCKETS)  # (bucket number, smallest transit)
        self._base = 0  # the smallest of these
        self._spreads: deque[int] = deque()  # in the order in which they came …
        self._ranked: list[int] = []  # … and by size
        self._newest_sequence = 0
        self._seen = 0  # bit n: whether the packet n before the newest has come
        self._loss_at = self._repair_until = -_REPAIR  # of our clock, in samples
        self._target = float(2 * _FRAME)
        self._started = False
        self.lost = self.recovered = self.restored = self.late = self.duplicates = self.resets = 0

    # -- in --------------------------------------------------------------------------------------

    def put(self, sequence: int, timestamp: int, payload: bytes, samples: int, now: float) -> bool:
        """Take one packet. False where it was dropped: late, a duplicate, or one of no length."""
        if samples <= 0:
            return False
        time = self._extend(timestamp)
        clock = int(now * RATE)
        transit = clock - time
        if self._minima and abs(transit - self._base) > _JUMP:
            self._restart(timestamp)
            time = timestamp
            transit = clock - time
        self._follow_slower_path(transit, clock)
        if self._is_late(time):
            self.late += 1
            self._late_run += 1
            if self._next is not None and self._late_run < _LATE_RUN:
                self._learn(transit, clock)  # a late packet makes the target grow
                return False
            self._restart(timestamp)
            time = timestamp
            transit = clock - time
        elif time in self._held:
            self.duplicates += 1
            return False
        self._late_run = 0
        self._note_losses(sequence, clock)
        self._learn(transit, clock)
        self._last_time = max(self._last_time, time) if self._started else time
        self._started = True
        self._held[time] = _Held(sequence, payload, samples)
        if len(self._held) > _CAPACITY:
            del self._held[min(self._held)]
        return True

    def restore(self, sequence: int, timestamp: int, payload: bytes, samples: int) -> bool:
        """Take the copy of an earlier packet (RFC 2198), after the packet that brought it. False where nothing is
        missing at its place: nothing begins with a copy, as it may be older than the gate's opening."""
        time = self._extend(timestamp)
        begun = self._next if self._next is not None else min(self._held, default=time)
        if samples <= 0 or not begun <= time < self._last_time or not self._is_free(time, time + samples):
            return False
        self._held[time] = _Held(sequence, payload, samples)
        self.restored += 1
        if len(self._held) > _CAPACITY:
            del self._held[min(self._held)]
        return True

    def _is_free(self, start: int, end: int) -> bool:
        return all(end <= time or time + each.samples <= start for time, each in self._held.items())

    def _extend(self, timestamp: int) -> int:
        """RFC 3550 timestamps wrap at 2^32: take the one nearest to the newest so far."""
        if not self._started:
            return timestamp
        step = (timestamp - self._last_time + 0x8000_0000) % 0x1_0000_0000 - 0x8000_0000
        return self._last_time + step

    def _is_late(self, time: int) -> bool:
        if self._next is not None:
            return time < self._next
        return self._played_until is not None and time < self._played_until

    def _follow_slower_path(self, transit: int, clock: int) -> None:
        """Forget how fast the path was: at once where nothing is playing, else after a run of slow packets."""
        if not self._minima or transit - self._base <= _MAX_TARGET:
            self._slow_run = 0
            return
        self._slow_run += 1
        if self._slow_run >= _LATE_RUN or (self._next is None and not self._held):
            self._minima.clear()
            self._minima.append((clock // _BUCKET, transit))
            self._base = transit
            self._spreads.clear()
            self._ranked.clear()
            self._slow_run = 0

    def _note_losses(self, sequence: int, clock: int) -> None:
        """A packet is lost when three after it have come, and it has not."""
        step = (sequence - self._newest_sequence) & 0xFFFF if self._seen else _FORGET
        if step >= 0x8000:
            self._seen |= (1 << min(0x1_0000 - step, _FORGET)) & _ALL_SEEN
            return
        self._newest_sequence = sequence
        if step >= _FORGET:
            self._seen = _ALL_SEEN
            return
        for _ in range(step):
            self._seen = self._seen << 1 & _ALL_SEEN
            if not self._seen >> 3 & 1:
                if clock - self._loss_at < _REPAIR:
                    self._repair_until = clock + _REPAIR
                self._loss_at = clock
        self._seen |= 1

    def _learn(self, transit: int, clock: int) -> None:
        bucket = clock // _BUCKET
        if self._minima and self._minima[-1][0] == bucket:
            self._minima[-1] = (bucket, min(self._minima[-1][1], transit))
        else:
            self._minima.append((bucket, transit))
        while self._minima[0][0] <= bucket - _BUCKETS:
            self._minima.popleft()
        self._base = min(each for _, each in self._minima)
        if len(self._spreads) == _SPREADS:
            del self._ranked[bisect_left(self._ranked, self._spreads.popleft())]
        self._spreads.append(transit - self._base)
        insort(self._ranked, transit - self._base)
        wanted = self._ranked[int(0.97 * (len(self._ranked) - 1))] + _FRAME / 2  # half a tick: we look only every 20 ms
        wanted = max(wanted, _MIN_TARGET) + (self._length if clock < self._repair_until else 0)
        wanted = min(wanted, _MAX_TARGET)
        # Grows at once, shrinks by 2 % a packet: a stall now is worse than 20 ms of delay for a second.
        self._target = wanted if wanted > self._target else self._target + 0.02 * (wanted - self._target)

    def _restart(self, timestamp: int) -> None:
        self.resets += 1
        self._held.clear()
        self._next = self._played_until = self._last_sequence = None
        self._seen = 0
        self._minima.clear()
        self._late_run = self._slow_run = self._dry = 0
        self._started = False
        self._last_time = timestamp

    # -- out -------------------------------------------------------------------------------------

    @property
    def target_ms(self) -> float:
        return self._target / 48

    @property
    def playing(self) -> bool:
        return self._next is not None

    def _due(self, now: float) -> int:
        return int(now * RATE) - self._base - int(self._target)

    def surplus(self, now: float, queued: int = 0) -> int:
        """Samples of delay beyond the target; ``queued`` were taken and are not played yet."""
        if self._next is None:
            return 0
        return self._due(now) - (self._next - queued)

    def take(self, now: float, queued: int = 0) -> Chunk:
        """The next chunk. Call it while less than a frame is queued at the caller."""
        if self._next is None:
            if not self._held:
                return _SILENCE
            first = min(self._held)
            if self._due(now) < first:
                return _SILENCE
            self._next = first
        if self._next - queued > self._due(now) + _FRAME // 2:  # ahead of what is due: stretch, without moving on
            return _SILENCE if self._was_dtx else Chunk(Kind.CONCEAL, b"", _FRAME)
        held = self._held.pop(self._next, None)
        if held is not None:
            return self._play(held)
        return self._missing()

    def _play(self, held: _Held) -> Chunk:
        assert self._next is not None
        self._next += held.samples
        self._played_until = self._next
        self._last_sequence = held.sequence
        self._length = held.samples
        self._was_dtx = len(held.payload) <= 2  # RFC 7587 §3.1.3: nothing follows until sound returns
        self._dry = 0
        return Chunk(Kind.PLAY, held.payload, held.samples)

    def _missing(self) -> Chunk:
        assert self._next is not None
        stale = [time for time in self._held if time < self._next]
        for time in stale:
            del self._held[time]
        if not self._held:
            return self._run_dry()
        following = min(self._held)
        gap = following - self._next
        after = self._held[following]
        if self._was_dtx or after.sequence == ((self._last_sequence or 0) + 1) & 0xFFFF:
            self._next = None  # the sender was silent: wait until the packet is due
            return _SILENCE
        samples = max(min(self._length, gap, 2880), 120)
        self._next += samples
        self._played_until = self._next
        self.lost += 1
        if gap == samples and gap % 120 == 0:
            self.recovered += 1
            return Chunk(Kind.RECOVER, after.payload, samples)
        return Chunk(Kind.CONCEAL, b"", samples - samples % 120 or 120)

    def _run_dry(self) -> Chunk:
        assert self._next is not None
        self._dry += 1
        if self._was_dtx or self._dry > _DRY_CHUNKS:
            self._next = None
            self._dry = 0
            return _SILENCE
        self._next += _FRAME
        return Chunk(Kind.CONCEAL, b"", _FRAME)

    def clear(self) -> None:
        """Forget the packets held, not what was learnt about the path."""
        self._held.clear()
        self._next = None
        self._dry = 0
        self._was_dtx = False
