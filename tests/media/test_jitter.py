"""The jitter buffer on a simulated clock: losses, disorder, drift, jumps. No sound is decoded here."""

from __future__ import annotations

import random
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bridge.media.jitter import Chunk, JitterBuffer, Kind

FRAME = 960


class Run:
    """Packets sent each 20 ms with given delays; one chunk taken each 20 ms, as the mixer does."""

    def __init__(self, first_sequence: int = 0, first_timestamp: int = 0) -> None:
        self.buffer = JitterBuffer()
        self.first_sequence, self.first_timestamp = first_sequence, first_timestamp
        self.taken: list[Chunk] = []
        self.queued = 0
        self.delays: list[float] = []  # seconds between the sending and the playing of each packet played

    def go(
        self,
        delays: list[float | None],
        *,
        gaps: set[int] = frozenset(),  # type: ignore[assignment]
        drift: float = 0.0,
        begin: int = 0,
        tail: int = 15,
        trim: bool = True,
    ) -> None:
        """``delays``: seconds for each packet, None for a lost one. ``gaps``: numbers not sent at all (DTX)."""
        events: list[tuple[float, int, int, bytes]] = []
        sequence = self.first_sequence + begin
        for number, delay in enumerate(delays, begin):
            if number in gaps:
                continue
            stamp = (self.first_timestamp + number * FRAME) & 0xFFFF_FFFF
            if delay is not None:
                sent = number * 0.02 * (1 + drift)
                events.append((sent + delay, sequence & 0xFFFF, stamp, number.to_bytes(4, "big")))
            sequence += 1
        events.sort(reverse=True)
        for tick in range(begin, begin + len(delays) + tail):
            now = tick * 0.02 + 0.013
            while events and events[-1][0] <= now:
                at, sequence_now, stamp, payload = events.pop()
                self.buffer.put(sequence_now, stamp, payload, FRAME, at)
            self._take(now, trim, drift)

    def _take(self, now: float, trim: bool, drift: float) -> None:
        chunk = self.buffer.take(now)
        if trim and chunk.kind is not Kind.NOTHING and self.buffer.surplus(now) > FRAME:
            self.taken.append(chunk)
            chunk = self.buffer.take(now)
        self.taken.append(chunk)
        if chunk.kind is Kind.PLAY:
            self.delays.append(now - int.from_bytes(chunk.payload, "big") * 0.02 * (1 + drift))

    @property
    def played(self) -> list[int]:
        return [int.from_bytes(each.payload, "big") for each in self.taken if each.kind is Kind.PLAY]

    def count(self, kind: Kind) -> int:
        return sum(each.kind is kind for each in self.taken)


def test_a_perfect_path_plays_everything_with_little_delay() -> None:
    run = Run()
    run.go([0.01] * 500)
    assert run.played == list(range(500))
    assert run.count(Kind.CONCEAL) <= 6  # the end: nobody knows yet that it is one
    assert max(run.delays[50:]) < 0.06
    assert run.buffer.target_ms == pytest.approx(20, abs=1)


@pytest.mark.parametrize(("sequence", "timestamp"), [(65_500, 2**32 - 20 * FRAME), (0, 2**31 - 5 * FRAME)])
def test_numbers_wrap_around(sequence: int, timestamp: int) -> None:
    run = Run(sequence, timestamp)
    run.go([0.01] * 100)
    assert run.played == list(range(100))
    assert run.buffer.resets == 0


def test_a_lost_packet_is_recovered_from_the_next() -> None:
    run = Run()
    run.go([None if number in (50, 80, 81) else 0.01 for number in range(120)])
    assert run.played == [number for number in range(120) if number not in (50, 80, 81)]
    assert run.buffer.lost == 3
    assert run.buffer.recovered == 2
    kinds = [each.kind for each in run.taken]
    assert Kind.RECOVER in kinds
    following = [int.from_bytes(each.payload, "big") for each in run.taken if each.kind is Kind.RECOVER]
    assert following == [51, 82]
    assert max(run.delays[50:]) < 0.06  # a loss leaves no delay behind


def test_disorder_within_the_target_costs_nothing() -> None:
    run = Run()
    delays: list[float | None] = [0.035 if number % 5 == 0 else 0.005 for number in range(400)]
    run.go(delays)
    assert run.played[-200:] == list(range(200, 400))
    assert run.buffer.target_ms < 60


def test_duplicates_are_dropped() -> None:
    run = Run()
    for _ in range(2):
        assert run.buffer.put(1, FRAME, b"a", FRAME, 0.01) is (run.buffer.duplicates == 0)
    assert run.buffer.duplicates == 1


def test_late_packets_are_dropped_and_the_target_grows() -> None:
    run = Run()
    run.go([0.01] * 100, tail=0)
    chance = random.Random(1)
    run.go([chance.choice([0.01, 0.09]) for _ in range(300)], begin=100)
    assert run.buffer.late > 0
    assert 80 <= run.buffer.target_ms <= 120
    tail = [number for number in range(250, 400) if number not in run.played]
    assert len(tail) <= 3  # by then the target covers it


def test_delay_is_won_back_when_the_path_calms_down() -> None:
    run = Run()
    chance = random.Random(2)
    run.go([chance.uniform(0.0, 0.09) for _ in range(200)], tail=0)
    assert run.buffer.target_ms > 70
    run.go([0.01] * 1200, begin=200)
    assert run.buffer.target_ms < 30
    assert max(run.delays[-100:]) < 0.07


def test_a_slower_path_for_good_is_followed() -> None:
    run = Run()
    run.go([0.01] * 100, tail=0)
    run.go([0.31] * 200, begin=100)
    late = [number for number in range(100, 300) if number not in run.played]
    assert len(late) <= 3


def test_dtx_is_silence_not_loss() -> None:
    run = Run()
    silent = set(range(100, 119)) | set(range(120, 139))  # Chromium: one packet each 400 ms
    run.go([0.01] * 200, gaps=silent)
    assert run.played == [number for number in range(200) if number not in silent]
    assert run.buffer.lost == 0
    assert run.buffer.resets == 0


def test_a_new_timeline_is_taken_at_once() -> None:
    run = Run()
    run.go([0.01] * 50, tail=0)
    buffer = run.buffer
    for number in range(20):
        now = (50 + number) * 0.02
        buffer.put(9000 + number, 123_456_789 + number * FRAME, bytes((number,)), FRAME, now + 0.01)
        run.taken.append(buffer.take(now + 0.013))
    assert buffer.resets == 1
    assert sum(each.kind is Kind.PLAY for each in run.taken[50:]) >= 16


@pytest.mark.parametrize("drift", [0.0005, -0.0005])
def test_drift_of_the_sender_is_absorbed(drift: float) -> None:
    """500 ppm for five minutes: 150 ms, more than any target."""
    run = Run()
    run.go([0.01] * 15_000, drift=drift)
    assert max(run.delays) < 0.09
    assert len(run.played) > 14_970
    assert run.buffer.resets == 0


@pytest.mark.parametrize("drift", [0.0002, -0.0002])
def test_an_hour_of_drift_with_loss_and_jitter(drift: float) -> None:
    """Two clocks that differ by 200 ppm are 720 ms apart after an hour. Packets of 60 ms; a frame is left out where
    the delay is a frame too long, as the mixer does it."""
    chance, buffer, length = random.Random(2), JitterBuffer(), 3 * FRAME
    queued = sent = came = silent = left_out = 0
    behind: list[int] = []
    kinds: Counter[Kind] = Counter()
    arrival = 0.01
    for tick in range(180_000):
        now = tick * 0.02 + 0.013
        while arrival <= now:
            if chance.random() >= 0.01:
                buffer.put(sent & 0xFFFF, sent * length, b"sound", length, arrival)
                came += 1
            sent += 1
            arrival = max(arrival, sent * 0.06 * (1 + drift) + chance.uniform(0.01, 0.03))
        while queued < FRAME and (chunk := buffer.take(now, queued)).kind is not Kind.NOTHING:
            kinds[chunk.kind] += 1
            queued += chunk.samples
        silent += queued < FRAME
        queued = max(0, queued - FRAME)
        if buffer.playing:
            behind.append(buffer.surplus(now, queued))
            if behind[-1] > FRAME and queued >= FRAME:
                queued -= FRAME
                left_out += 1
    assert (buffer.resets, buffer.late) == (0, 0)
    assert kinds[Kind.PLAY] >= came - 3
    assert buffer.recovered > 0.95 * buffer.lost
    assert kinds[Kind.CONCEAL] + silent < 0.003 * 180_000  # most where it waits for FEC for the first time in a while
    assert (left_out if drift < 0 else kinds[Kind.CONCEAL]) > 25  # that is how it was absorbed
    assert max(map(abs, behind[1000:])) < 5 * FRAME  # 60 ms of it where it begins or ends to wait for FEC
    assert buffer.target_ms < 120


def test_ten_and_sixty_millisecond_packets() -> None:
    for samples, every in ((480, 0.01), (2880, 0.06)):
        buffer = JitterBuffer()
        queued, played, next_packet, kinds = 0, 0, 0, []
        for tick in range(400):
            now = tick * 0.02 + 0.013
            while next_packet * every <= now:
                buffer.put(next_packet, next_packet * samples, b"abc", samples, next_packet * every)
                next_packet += 1
            while queued < FRAME:
                chunk = buffer.take(now, queued)
                kinds.append(chunk.kind)
                if chunk.kind is Kind.NOTHING:
                    break
                queued += chunk.samples
                played += chunk.kind is Kind.PLAY
            queued = max(queued - FRAME, 0)
        assert played * samples > 380 * FRAME
        assert kinds.count(Kind.RECOVER) == 0
        assert kinds.count(Kind.CONCEAL) <= 4


@settings(max_examples=60, deadline=None)
@given(st.lists(st.one_of(st.none(), st.floats(0, 0.4)), min_size=1, max_size=150), st.randoms(use_true_random=False))
def test_order_is_kept_and_nothing_grows(delays: list[float | None], chance: random.Random) -> None:
    run = Run(chance.randrange(2**16), chance.randrange(2**32))
    run.go(delays, tail=60)
    assert len(run.buffer._held) <= 64
    between_resets = run.played
    if run.buffer.resets == 0:
        assert between_resets == sorted(set(between_resets))
    assert 20 <= run.buffer.target_ms <= 120
    assert all(each.samples % 120 == 0 and each.samples > 0 for each in run.taken)
    assert run.taken[-1].kind is Kind.NOTHING or not run.played


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 65535), st.integers(0, 2**32 - 1), st.integers(0, 5760)), max_size=200))
def test_any_numbers_are_survived(packets: list[tuple[int, int, int]]) -> None:
    buffer = JitterBuffer()
    for at, (sequence, timestamp, samples) in enumerate(packets):
        buffer.put(sequence, timestamp, b"x", samples, at * 0.005)
        chunk = buffer.take(at * 0.005)
        assert chunk.samples > 0
        assert len(buffer._held) <= 64


def test_a_late_duplicate_leaves_the_clock_known() -> None:
    """Found by the test above: it made the buffer forget how the sender's time maps to ours."""
    buffer = JitterBuffer()
    for sequence, at in enumerate((0.0, 0.0, 0.2, 0.25, 0.3, 0.35, 0.4)):
        buffer.put(1 if sequence else 0, FRAME if sequence else 0, b"x", FRAME, at)
    assert buffer.duplicates == 5
    buffer.take(0.5)


@pytest.mark.parametrize("loss", [0.02, 0.05])
def test_five_percent_loss_stalls_nobody(loss: float) -> None:
    chance = random.Random(3)
    delays: list[float | None] = [
        None if chance.random() < loss else 0.01 + chance.expovariate(200) for _ in range(3000)
    ]
    run = Run()
    run.go(delays)
    nothing = run.count(Kind.NOTHING) - 15
    assert nothing / 3000 < 0.005
    assert run.buffer.recovered > 0.7 * run.buffer.lost


def test_a_copy_fills_the_gap_it_is_for_and_no_other() -> None:
    """RFC 2198: each packet brings the one before again; two in a row are lost once, singly otherwise."""
    run, buffer = Run(65_500, 2**32 - 20 * FRAME), None
    lost = {30, 50, 51, 70}
    for number in range(100):
        now = number * 0.02 + 0.01
        buffer = run.buffer
        stamp, sequence = (run.first_timestamp + number * FRAME) & 0xFFFF_FFFF, run.first_sequence + number & 0xFFFF
        if number not in lost:
            buffer.put(sequence, stamp, number.to_bytes(4, "big"), FRAME, now)
            copy = (number - 1).to_bytes(4, "big") if number else b"what was said before the gate opened"
            restored = buffer.restore(sequence - 1 & 0xFFFF, (stamp - FRAME) & 0xFFFF_FFFF, copy, FRAME)
            assert restored is (number - 1 in lost)
        run._take(now + 0.003, True, 0)
    assert buffer is not None
    assert [number for number in range(run.played[-1] + 1) if number not in run.played] == [50]
    assert (buffer.restored, buffer.lost, buffer.late, buffer.duplicates) == (3, 1, 0, 0)
    assert not buffer.restore(1, (run.first_timestamp + 200 * FRAME) & 0xFFFF_FFFF, b"of the future", FRAME)
    assert not buffer.restore(1, (run.first_timestamp + 98 * FRAME + 480) & 0xFFFF_FFFF, b"overlaps", FRAME)
    assert not buffer.restore(1, (run.first_timestamp + 97 * FRAME) & 0xFFFF_FFFF, b"no Opus", 0)
