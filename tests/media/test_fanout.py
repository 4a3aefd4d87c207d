"""The fan-out, in C and in Python: real sockets, real SRTP; what comes is unprotected, decoded and measured."""

from __future__ import annotations

import ctypes
import itertools
import logging
import os
import random
import secrets
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pylibsrtp
import pytest

from bridge.media import fanout_native, opus, rtp
from bridge.media.control import WorkerSettings
from bridge.media.dtls import PROFILES, Keys
from bridge.media.fanout import KEEP_ALIVE_TICKS, Engine, PythonEngine, Sender, Stage, copied, pieces
from bridge.media.fanout_native import NativeEngine, NotThere
from bridge.media.mixer import QUIET, Frame, Output, mix_key
from bridge.media.opus import FRAME, Samples
from bridge.media.udp import Port
from bridge.media.worker import Worker

GCM, CM = PROFILES
LEVEL_ID, CSRC_LEVEL_ID = 3, 5


class Ear:
    """A listener: the sender that serves it, a socket, and the packets it got in clear."""

    def __init__(self, owner: str = "ear", seat: int = 0, *, ticks: int = 3, profile: object = GCM) -> None:
        assert profile in (GCM, CM)
        self.profile = GCM if profile is GCM else CM
        master = secrets.token_bytes(self.profile.key + self.profile.salt)
        self.keys = Keys(self.profile, b"", master)
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
        self.socket.setblocking(False)
        self.socket.bind(("127.0.0.1", 0))
        policy = pylibsrtp.Policy
        self._policy = policy(master, policy.SSRC_ANY_INBOUND, srtp_profile=self.profile.libsrtp)
        self._incoming = pylibsrtp.Session(self._policy)
        self.sender = Sender(owner, seat)
        self.sender.pace(ticks)
        self.sender.payload_type = 111
        self.sender.level_id = LEVEL_ID
        self.sender.address = self.socket.getsockname()
        self.sender.hear = True
        outgoing = policy(master, policy.SSRC_ANY_OUTBOUND, srtp_profile=self.profile.libsrtp)
        self.sender.srtp = pylibsrtp.Session(outgoing)
        self.packets: list[rtp.Packet] = []

    def datagrams(self) -> list[bytes]:
        found = []
        while True:
            try:
                found.append(self.socket.recv(4096))
            except BlockingIOError:
                return found

    def listen(self) -> list[rtp.Packet]:
        """What came since the last call; loopback delivers before sendmmsg returns."""
        new = []
        for data in self.datagrams():
            packet = rtp.parse(self._incoming.unprotect(data), LEVEL_ID)
            assert packet is not None
            new.append(packet)
        self.packets += new
        return new

    def tick_of(self, packet: rtp.Packet) -> int:
        ticks, rest = divmod((packet.timestamp - self.sender.timestamp_base) & 0xFFFF_FFFF, FRAME)
        assert rest == 0
        return ticks


class Hall:
    """A stage with its port and its ears, one tick after another."""

    def __init__(self, make: Callable[[Port], Engine]) -> None:
        self.port = Port("127.0.0.1", 0)
        self.engine = make(self.port)
        self.stage: Stage = self.engine.stage()
        self.ears: list[Ear] = []
        self.now = 0

    def enter(self, *ears: Ear) -> None:
        for ear in ears:
            self.stage.add(ear.sender)
            self.stage.connect(ear.sender, ear.keys)
            self.ears.append(ear)

    def play(self, *frames: Frame | Output) -> None:
        for frame in frames:
            self.now += 1
            self.stage.tick(frame if isinstance(frame, Output) else Output(frame, {}), self.now)
            for ear in self.ears:
                ear.listen()

    def close(self) -> None:
        for ear in self.ears:
            self.stage.remove(ear.sender)
            self.stage.remove(ear.sender)
            ear.socket.close()
        self.engine.close()
        self.engine.close()
        self.port.close()


def in_c(port: Port) -> Engine:
    return NativeEngine(*port.descriptors, port.send)


def in_python(port: Port) -> Engine:
    return PythonEngine(port.send)


@pytest.fixture(params=[in_c, in_python], ids=lambda each: each.__name__)
def hall(request: pytest.FixtureRequest) -> Iterator[Hall]:
    made = Hall(request.param)
    yield made
    made.close()


def said(payload: bytes, level: int = 20, csrcs: tuple[tuple[int, int], ...] = ((7, 20),)) -> Frame:
    return Frame(payload, csrcs, level)


def numbered(number: int, toc: int = 0x78, size: int = 40) -> Frame:
    return said(bytes((toc,)) + number.to_bytes(4, "big") + bytes(size))


def numbers_in(payload: bytes) -> list[int]:
    """The numbers of the ``numbered`` frames in a packet: read as RFC 6716 §3.2 has it."""
    count, same = (payload[1] & 0x3F, not payload[1] & 0x80) if payload[0] & 3 == 3 else (1, True)
    at = 1 if count == 1 else 2
    sizes = []
    for _ in range(0 if same else count - 1):
        size, at = payload[at], at + 1
        if size >= 252:
            size, at = size + 4 * payload[at], at + 1
        sizes.append(size)
    if same:
        sizes = [(len(payload) - at) // count] * count
    else:
        sizes.append(len(payload) - at - sum(sizes))
    found = []
    for size in sizes:
        found.append(int.from_bytes(payload[at : at + 4], "big"))
        at += size
    return found


# -- both engines send the same -------------------------------------------------------------------


def random_frame(chance: random.Random) -> Frame:
    if chance.random() < 0.15:
        return QUIET
    size = chance.choice((1, 2, 60, 60, 60, 120, 251, 252, 253, 254, 255, 256, 257, 400, 600, 1100))
    toc = chance.choice((0x78, 0x78, 0x78, 0x78, 0xF8, 0xFC, 0x79))
    csrcs = tuple((chance.randrange(1, 1 << 32), chance.randrange(128)) for _ in range(chance.choice((0, 1, 2, 15))))
    return Frame(bytes((toc,)) + chance.randbytes(size), csrcs, chance.randrange(128))


def random_history(seed: int, ears: list[Ear], stage: Stage) -> list[list[bytes]]:
    """Ticks with everything that may happen; the datagrams each ear got."""
    chance = random.Random(seed)
    tick, owners = 0, sorted({ear.sender.owner for ear in ears})
    got: list[list[bytes]] = [[] for _ in ears]
    talking: set[str] = set()
    inside = set(ears)
    for ear in ears:
        stage.add(ear.sender)
        stage.connect(ear.sender, ear.keys)
    for _ in range(300):
        tick += chance.choice((1,) * 30 + (2, 3, 7))
        ear = chance.choice(ears)
        match chance.randrange(14):
            case 0:
                ear.sender.hear = not ear.sender.hear
            case 1:
                ear.sender.pace(chance.choice((1, 2, 3)))
            case 2:
                ear.sender.address = None if ear.sender.address else ear.socket.getsockname()
            case 3:
                talking ^= {chance.choice(owners)}
            case 4:
                ear.sender.wanted = not ear.sender.wanted
            case 6 if ear in inside:
                stage.leave_out(ear.sender, frozenset(chance.sample(owners, chance.randrange(3))))
            case 7:
                ear.sender.red_type = 0 if ear.sender.red_type else chance.choice((1, 63, 127))
            case 5 if ear in inside:
                stage.remove(ear.sender)
                inside.discard(ear)
            case 5:
                stage.add(ear.sender)
                stage.connect(ear.sender, ear.keys)
                inside.add(ear)
        keys = sorted(talking) + [mix_key(pair) for pair in itertools.combinations(sorted(talking), 2)][:9]
        stage.tick(Output(random_frame(chance), {key: random_frame(chance) for key in keys}), tick)
        for number, each in enumerate(ears):
            got[number] += each.datagrams()
    return got


@pytest.mark.parametrize("seed", range(8))
def test_both_engines_send_the_same_bytes(seed: int) -> None:
    """C with its own AEAD beside libsrtp: headers, numbering, rollover counter, joins, tags."""
    results = []
    ears = [Ear(f"owner{n % 12}", n) for n in range(40)]  # more than the first room for streams and senders
    chance = random.Random(seed)
    extensions = [(chance.choice((0, 1, 14)), chance.choice((0, 2, 13))) for _ in ears]
    starts = [chance.choice((65_520, 32_000, 0)) for _ in ears]
    hear = [chance.random() < 0.8 for _ in ears]
    states = []
    for make in (in_c, in_python):
        port = Port("127.0.0.1", 0)
        engine = make(port)
        for ear, ids, start, hears in zip(ears, extensions, starts, hear, strict=True):
            fresh = Sender(ear.sender.owner, ear.sender._seat)
            fresh.ssrc, fresh.timestamp_base = ear.sender.ssrc, ear.sender.timestamp_base
            fresh.index, fresh.payload_type, fresh.red_type = start, 111, 63 if start else 0
            (fresh.level_id, fresh.csrc_level_id), fresh.hear = ids, hears
            fresh.address = ear.socket.getsockname()
            fresh.pace(3)
            policy = pylibsrtp.Policy
            outgoing = policy(ear.keys.outgoing, policy.SSRC_ANY_OUTBOUND, srtp_profile=GCM.libsrtp)
            fresh.srtp = pylibsrtp.Session(outgoing)
            if start > 1 << 15:  # libsrtp must see a packet below it, or it guesses the counter before the first
                fresh.srtp.protect(rtp.pack_header(False, 111, 30_000, 0, fresh.ssrc, 0, False) + b"x")
            ear.sender = fresh
        results.append(random_history(seed, ears, engine.stage()))
        counted = ("index", "packets", "octets", "wire_bytes", "last_tick", "quiet")
        states.append([tuple(getattr(ear.sender, name) for name in counted) for ear in ears])
        assert engine.errors + port.send_errors == 0
        port.close()
    for ear in ears:
        ear.socket.close()
    assert sum(len(each) for each in results[0]) > 500
    assert results[0] == results[1]
    assert states[0] == states[1]
    assert any(index > 65_536 for index, *_ in states[0])  # a rollover was among them


def test_the_layout_is_the_one_of_the_c_file() -> None:
    library = fanout_native._library()
    assert library.eyvan_sender_size() == ctypes.sizeof(Sender)


# -- what is joined -------------------------------------------------------------------------------


def speech_music_silence() -> list[Samples]:
    rng = np.random.default_rng(7)
    times = np.arange(48_000) / 48_000
    pitch = 120 + 20 * np.sin(2 * np.pi * 3 * times)
    buzz = np.sign(np.sin(2 * np.pi * np.cumsum(pitch) / 48_000)) * (0.6 + 0.4 * np.sin(2 * np.pi * 4 * times))
    speech = 0.2 * np.convolve(buzz + 0.05 * rng.standard_normal(48_000), np.hanning(24) / 12, "same")
    music = sum(0.1 * np.sin(2 * np.pi * hz * times) for hz in (220, 277, 330, 440, 5000)) + 0.02 * rng.standard_normal(
        48_000
    )
    sound = np.concatenate((speech, music, np.zeros(24_000), speech)).astype(np.float32)
    return [np.ascontiguousarray(each) for each in sound.reshape(-1, FRAME)]


def encoded() -> list[Frame]:
    encoder = opus.Encoder()
    return [said(encoder.encode(frame)) for frame in speech_music_silence()]


def decoded(ear: Ear) -> Samples:
    """All an ear got, on the stage's time line."""
    decoder = opus.Decoder()
    last = ear.packets[-1]
    sound = np.zeros((ear.tick_of(last) + 3) * FRAME, np.float32)
    for packet in ear.packets:
        samples = decoder.decode(packet.payload)
        assert len(samples) == opus.samples_in(packet.payload)
        at = ear.tick_of(packet) * FRAME
        sound[at : at + len(samples)] = samples
    return sound


def test_longer_packets_decode_to_the_same_samples(hall: Hall) -> None:
    frames = encoded()
    tocs = [frame.payload[0] for frame in frames]
    assert len(set(tocs)) > 1  # the encoder changed from hybrid to CELT by itself
    reference, *others = [Ear(seat=0, ticks=1), *(Ear(seat=n, ticks=t) for t in (2, 3) for n in range(t))]
    hall.enter(reference, *others)
    hall.play(*frames, QUIET, QUIET, QUIET)
    want = decoded(reference)
    assert len(reference.packets) == len(frames) + 1
    assert float(np.abs(want).max()) > 0.1
    end = (len(frames) + 1) * FRAME
    for ear in others:
        assert np.array_equal(decoded(ear)[:end], want[:end])
        assert len(ear.packets) < 0.75 * len(reference.packets)
    split = [packet for ear in others for packet in ear.packets if opus.samples_in(packet.payload) < 2 * FRAME]
    assert split  # a window with two TOCs was cut
    sequences = [packet.sequence for packet in others[-1].packets]
    assert all((b - a) & 0xFFFF == 1 for a, b in itertools.pairwise(sequences))


def test_a_window_is_cut_where_frames_cannot_be_joined() -> None:
    def cut(*frames: Frame) -> list[int]:
        return [len(numbers_in(each.payload)) for each in pieces(list(enumerate(frames, 1)))]

    a, b = numbered(1), numbered(2, toc=0xF8)
    assert cut(a, a, a) == [3]
    assert cut(a, a, b) == [2, 1]
    assert cut(a, b, b) == [1, 2]
    assert cut(a, b, a) == [1, 1, 1]
    assert cut(a, QUIET, a) == [1, 1, 1]
    assert cut(a, said(b"\x78\x01"), a) == [1, 1, 1]  # DTX
    assert cut(numbered(1, toc=0x79), numbered(1, toc=0x79)) == [1, 1]  # two frames each already
    assert cut(numbered(1, size=600), numbered(2, size=600), numbered(3, size=100)) == [1, 2]  # 1200 bytes
    assert [each.tick for each in pieces([(1, a), (3, a), (4, a)])] == [1, 3]  # a tick was skipped
    loudest = pieces([(1, said(b"\x78abc", 30)), (2, said(b"\x78abc", 10, ((9, 10),))), (3, said(b"\x78abc", 30))])
    assert (loudest[0].loudest.level, loudest[0].loudest.csrcs) == (10, ((9, 10),))


@pytest.mark.parametrize("sizes", [(3, 3, 3), (3, 251, 60), (252, 253, 254), (255, 256, 257), (300, 20, 400)])
def test_lengths_of_joined_frames(sizes: tuple[int, ...]) -> None:
    frames = [bytes((0x78,)) + number.to_bytes(4, "big") + bytes(size) for number, size in enumerate(sizes)]
    joined = opus.join(frames)
    assert numbers_in(joined) == [0, 1, 2]
    assert opus.samples_in(joined) == 3 * FRAME
    assert len(joined) <= sum(map(len, frames)) + 4


def test_each_tick_serves_a_third(hall: Hall) -> None:
    hall.enter(*(Ear(seat=n) for n in range(30)))
    hall.play(*(numbered(n) for n in range(3)))
    for n in range(3, 9):
        before = sum(len(ear.packets) for ear in hall.ears)
        hall.play(numbered(n))
        assert sum(len(ear.packets) for ear in hall.ears) - before == 10


def test_a_change_of_pace_loses_and_repeats_no_frame(hall: Hall) -> None:
    chance = random.Random(3)
    ears = [Ear(seat=n, ticks=chance.choice((1, 3))) for n in range(9)]
    hall.enter(*ears)
    for number in range(1, 301):
        if number % 2:
            chance.choice(ears).sender.pace(chance.choice((1, 1, 2, 3)))
        hall.play(numbered(number))
    for ear in ears:
        ear.sender.pace(1)
    hall.play(numbered(301))
    for ear in ears:
        heard = [number for packet in ear.packets for number in numbers_in(packet.payload)]
        assert heard == list(range(1, 302))
        assert [ear.tick_of(packet) for packet in ear.packets] == [numbers_in(each.payload)[0] for each in ear.packets]
        assert {len(numbers_in(packet.payload)) for packet in ear.packets} == {1, 2, 3}


def test_frames_of_the_own_mix_from_the_first_to_the_last(hall: Hall) -> None:
    """An owner's other device, which only listens, changes to the own mix and back in the middle of a packet."""
    laptop, other = Ear("ava", seat=1), Ear("ben", seat=1)
    hall.enter(laptop, other)
    talks = range(50, 100)
    for number in range(1, 151):
        own = {"ava": numbered(1000 + number)} if number in talks else {}
        hall.play(Output(numbered(number), own))
    wanted = [1000 + number if number in talks else number for number in range(1, 149)]
    assert [each for packet in laptop.packets for each in numbers_in(packet.payload)][:148] == wanted
    assert [each for packet in other.packets for each in numbers_in(packet.payload)][:148] == list(range(1, 149))


# -- copies (RFC 2198) ----------------------------------------------------------------------------


def test_each_packet_brings_the_one_before_again(hall: Hall) -> None:
    """Of the sound of any packet that is lost, nothing is missing; timestamps and samples are those of the original."""
    frames = encoded()[:60]
    plain, *ears = [Ear(ticks=1), *(Ear(seat=n, ticks=ticks) for n, ticks in enumerate((1, 2, 3)))]
    for ear in ears:
        ear.sender.red_type = 63
    hall.enter(plain, *ears)
    hall.play(*frames, *[QUIET] * 6)
    want = decoded(plain)
    for ear in ears:
        assert {packet.payload_type for packet in ear.packets} == {63}
        copies: dict[int, bytes] = {}
        previous: rtp.Packet | None = None
        for number, packet in enumerate(ear.packets):
            *before, primary = rtp.unpack_red(packet.payload) or []
            assert (primary.payload_type, primary.offset) == (111, 0)
            assert len(before) == (number > 0), "no second copy of what is older"
            for copy in before:
                assert copy.payload_type == 111
                assert previous is not None
                assert copy.offset == (packet.timestamp - previous.timestamp) & 0xFFFF_FFFF
                assert copy.payload == (rtp.unpack_red(previous.payload) or [])[-1].payload
                copies[number - 1] = copy.payload
            previous = packet
            if primary.payload == QUIET.payload:
                break
        assert len(copies) >= len(frames) // ear.sender.period
        lossy = random.Random(ear.sender.period)
        packets, ear.packets = ear.packets, []
        for number, packet in enumerate(packets):
            kept = number not in copies or lossy.random() > 0.3
            payload = (rtp.unpack_red(packet.payload) or [])[-1].payload if kept else copies[number]
            ear.packets.append(packet._replace(payload=payload))
        end = (len(frames) + 1) * FRAME
        assert np.array_equal(decoded(ear)[:end], want[:end])


def test_a_copy_is_the_packet_before_or_nothing() -> None:
    def again(*frames: Frame) -> list[int]:
        payload = copied(list(enumerate(frames, 1)))
        return numbers_in(payload) if payload else []

    a, b, c = numbered(1), numbered(2), numbered(3)
    assert again(a, b, c) == [1, 2, 3]
    assert again(c) == [3]
    assert again() == again(QUIET) == []
    assert again(numbered(1, toc=0xF8), b, c) == []  # these were two packets
    assert again(a, QUIET) == []
    assert again(said(b"\x78\x01")) == []  # DTX
    assert again(numbered(1, size=1018)) == [1]
    assert again(numbered(1, size=1019)) == []  # its length would need eleven bits
    assert again(numbered(1, size=500), numbered(2, size=520)) == []


def test_a_packet_with_a_copy_stays_below_1200_bytes(hall: Hall) -> None:
    ear = Ear(ticks=1)
    ear.sender.red_type = 63
    hall.enter(ear)
    hall.play(*(numbered(n, size=size) for n, size in enumerate((500, 500, 570, 600, 1080, 40))))
    found = [rtp.unpack_red(packet.payload) or [] for packet in ear.packets]
    assert [[numbers_in(block.payload)[0] for block in each] for each in found] == [[0], [0, 1], [1, 2], [3], [4], [5]]
    assert max(len(packet.payload) for packet in ear.packets) < 1100
    assert ear.sender.octets == sum(len(packet.payload) for packet in ear.packets)


# -- silence --------------------------------------------------------------------------------------


def test_who_leaves_somebody_out_hears_the_mix_without_them(hall: Hall) -> None:
    """Frame for frame while they begin and stop; who talks oneself is left out too. Numbers: 1 for ava, 2 for ben …"""
    ben_out, both_out, ava = Ear("dara", ticks=3), Ear("eve", ticks=1), Ear("ava", ticks=1)
    hall.enter(ben_out, both_out, ava)
    hall.stage.leave_out(ben_out.sender, frozenset({"ben"}))
    hall.stage.leave_out(both_out.sender, frozenset({"ava", "ben", "nobody"}))
    hall.stage.leave_out(ava.sender, frozenset({"ben"}))
    talks = ["", "a", "a", "ab", "ab", "b", "b", "", "ab", "ab", "ab", *[""] * 7]
    for number, who in enumerate(talks, 1):
        names = {"a": ("ava",), "b": ("ben",), "ab": ("ava", "ben", mix_key(("ava", "ben")))}.get(who, ())
        values = {"ava": 1, "ben": 2, mix_key(("ava", "ben")): 3}
        own = {name: numbered(100 * number + values[name]) for name in names}
        hall.play(Output(numbered(100 * number), own))
    for ear, without in ((ben_out, "b"), (both_out, "ab"), (ava, "ab")):
        heard = [number for packet in ear.packets for number in numbers_in(packet.payload)]
        value = {"": 0, "a": 1, "b": 2, "ab": 3}
        expected = [100 * n + value["".join(sorted(set(who) & set(without)))] for n, who in enumerate(talks, 1)]
        assert heard == expected[: len(heard)], ear.sender.owner
        assert len(heard) >= len(talks) - 2
    hall.stage.leave_out(both_out.sender, frozenset())
    hall.play(Output(numbered(7), {"ava": numbered(8)}))
    assert numbers_in(both_out.packets[-1].payload) == [7]


def test_without_a_mix_for_it_one_hears_the_one_without_oneself(hall: Hall) -> None:
    """The mixer makes a bounded number of them."""
    talker, listener = Ear("ava", ticks=1), Ear("eve", ticks=1)
    hall.enter(talker, listener)
    for ear in (talker, listener):
        hall.stage.leave_out(ear.sender, frozenset({"ben", "cem"}))
    hall.play(Output(numbered(1), {"ava": numbered(2), "ben": numbered(3), "cem": numbered(4)}))
    assert [numbers_in(each.packets[-1].payload) for each in (talker, listener)] == [[2], [3]]


def test_silence_costs_a_keep_alive_and_the_first_frame_is_whole(hall: Hall) -> None:
    ears = [Ear(seat=n, ticks=ticks) for n in range(9) for ticks in (1, 3)]
    hall.enter(*ears)
    hall.play(*(numbered(n) for n in range(1, 11)), *[QUIET] * 1000)
    for ear in ears:
        silence = [packet for packet in ear.packets if packet.payload == QUIET.payload]
        times = [ear.tick_of(packet) for packet in silence]
        assert times[0] == 11
        assert all(KEEP_ALIVE_TICKS - 10 <= b - a <= 50 for a, b in itertools.pairwise(times))
        assert times[-1] >= 1010 - 50
    arrivals: dict[Ear, int] = {}
    for number in range(1, 7):
        hall.play(numbered(number))
        for ear in ears:
            if ear not in arrivals and ear.packets[-1].payload != QUIET.payload:
                arrivals[ear] = number
                packet = ear.packets[-1]
                assert packet.marker
                assert ear.tick_of(packet) == 1011
                assert numbers_in(packet.payload)[0] == 1
    assert {arrivals[ear] for ear in ears if ear.sender.period == 1} == {1}
    assert {arrivals[ear] for ear in ears if ear.sender.period == 3} == {1, 2, 3}


def test_who_may_not_hear_gets_silence_alone(hall: Hall) -> None:
    ear = Ear()
    ear.sender.hear = False
    hall.enter(ear)
    hall.play(*(numbered(n) for n in range(1, 200)))
    assert {packet.payload for packet in ear.packets} == {QUIET.payload}
    ear.sender.hear = True
    hall.play(*(numbered(n) for n in range(200, 206)))
    assert numbers_in(ear.packets[-1].payload)[-1] >= 203


# -- other profiles, other families, errors -------------------------------------------------------


def test_aes_cm_listeners_are_served_beside_the_others(hall: Hall) -> None:
    ears = [Ear(seat=n, profile=profile) for profile in (GCM, CM) for n in range(3)]
    hall.enter(*ears)
    hall.play(*(numbered(n) for n in range(1, 31)))
    for ear in ears:
        heard = [number for packet in ear.packets for number in numbers_in(packet.payload)]
        assert heard == list(range(1, len(heard) + 1))
        assert len(heard) >= 28
        assert ear.sender.wire_bytes > ear.sender.octets


def test_ipv6_listeners(hall: Hall) -> None:
    port = Port("::1", 0)
    engine = NativeEngine(*port.descriptors, port.send) if hall.engine.name == "C" else PythonEngine(port.send)
    ear = Ear()
    ear.socket.close()
    ear.socket = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
    ear.socket.setblocking(False)
    ear.socket.bind(("::1", 0))
    ear.sender.address = ear.socket.getsockname()
    stage = engine.stage()
    stage.add(ear.sender)
    stage.connect(ear.sender, ear.keys)
    for tick in range(1, 4):
        stage.tick(Output(numbered(tick), {}), tick)
    assert ear.listen()
    stage.remove(ear.sender)
    ear.socket.close()
    engine.close()
    port.close()


def test_what_the_kernel_refuses_is_counted_and_the_rest_comes(hall: Hall) -> None:
    ears = [Ear(seat=n, ticks=1) for n in range(100)]
    hall.enter(*ears)
    for ear in ears[::10]:
        ear.sender.address = ("127.0.0.1", 0)  # no such port: EINVAL
    hall.play(numbered(1), numbered(2))
    assert hall.engine.errors + hall.port.send_errors == 20
    for number, ear in enumerate(ears):
        assert len(ear.packets) == (0 if number % 10 == 0 else 2)
    hall.port.close()  # EBADF for each
    hall.play(numbered(3))
    assert hall.engine.errors + hall.port.send_errors == 120


def test_listeners_come_and_go(hall: Hall) -> None:
    ears = [Ear(f"o{n}", seat=n, ticks=1) for n in range(50)]
    hall.enter(*ears)
    hall.play(numbered(1))
    for ear in ears[::2]:
        hall.stage.remove(ear.sender)
    hall.play(numbered(2), numbered(3))
    hall.enter(late := Ear(ticks=1))
    hall.play(numbered(4))
    assert [len(ear.packets) for ear in ears] == [1, 4] * 25
    assert [numbers_in(packet.payload) for packet in late.packets] == [[4]]


# -- which engine ---------------------------------------------------------------------------------


async def test_without_the_library_python_is_taken_and_said(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, "eyvan.media"):
        Worker(WorkerSettings(bind="127.0.0.1"), lambda message: None).close()
        assert "fan-out in C" in caplog.text
        monkeypatch.setattr(fanout_native, "LIBRARY", Path("/nowhere/_fanout.so"))
        worker = Worker(WorkerSettings(bind="127.0.0.1"), lambda message: None)
        assert "fan-out in Python: the package was built without a C compiler" in caplog.text
        assert worker.stats().worker.fan_out == "Python"
        worker.close()
    with pytest.raises(ValueError, match="C compiler"):
        Worker(WorkerSettings(bind="127.0.0.1", fan_out="c"), lambda message: None)


def test_without_libcrypto_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fanout_native, "_LIBCRYPTO", ("libnowhere.so.9", "libc.so.6"))  # the second lacks EVP
    with pytest.raises(NotThere, match="libssl3"):
        NativeEngine(-1, -1, lambda data, address: None)


def test_another_version_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fanout_native, "_VERSION", 0)
    with pytest.raises(NotThere, match="another version"):
        NativeEngine(-1, -1, lambda data, address: None)


def test_the_build_goes_on_without_a_compiler() -> None:
    root = Path(__file__).parents[2]
    before = (root / "bridge/media/_fanout.so").stat().st_mtime_ns
    for compiler, reason in (("no-such-compiler", "No such file"), ("false", "ended with 1")):
        result = subprocess.run(
            [sys.executable, root / "tools/build_fanout.py"],
            env={**os.environ, "CC": compiler},
            capture_output=True,
            text=True,
            check=False,
        )
        assert result.returncode == 1
        assert reason in result.stderr
    assert (root / "bridge/media/_fanout.so").stat().st_mtime_ns == before
