"""The lines between workers: real sockets, full ones too."""

from __future__ import annotations

import asyncio
import itertools
import socket
from collections.abc import AsyncIterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.media.mixer import QUIET, Frame, Output
from bridge.media.trunk import (
    FarVoice,
    Spoken,
    Trunk,
    decode_frames,
    decode_voice,
    encode_frames,
    encode_voice,
)

HANG_S = 60
STAGE = "!stage"

names = st.text(max_size=40)
numbers = st.integers(0, 2**32 - 1)
frames = st.builds(
    Frame,
    st.binary(max_size=1275),
    st.lists(st.tuples(numbers, st.integers(0, 127)), max_size=15).map(tuple),
    st.integers(0, 127),
    st.booleans(),
)
HEAD = 1 + 2 + len(STAGE)


class End:
    """A worker that writes down what its trunk says."""

    def __init__(self) -> None:
        self.told: list[tuple[object, ...]] = []
        self.trunk = Trunk(self)

    def on_frames(self, worker: int, stage: str, tick: int, output: Output) -> None:
        self.told.append(("frames", worker, stage, tick, output))

    def on_voice(self, worker: int, stage: str, spoken: Spoken) -> None:
        self.told.append(("voice", worker, stage, spoken))

    def on_shut(self, worker: int, stage: str, csrc: int, gone: bool) -> None:
        self.told.append(("shut", worker, stage, csrc, gone))

    def on_fec(self, worker: int, stage: str) -> None:
        self.told.append(("fec", worker, stage))

    def on_connection(self, connection: socket.socket) -> None: ...

    def on_cut(self, worker: int) -> None:
        self.told.append(("cut", worker))

    def on_defect(self, worker: int) -> None:
        self.told.append(("defect", worker))

    async def until(self, count: int) -> None:
        async with asyncio.timeout(HANG_S):
            while len(self.told) < count:  # noqa: ASYNC110
                await asyncio.sleep(0.005)


@pytest.fixture
async def ends() -> AsyncIterator[tuple[End, End]]:
    """Workers 0 and 1; what worker 0 sends fills its socket soon."""
    one, two = End(), End()
    pair = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    pair[0].setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 8192)
    one.trunk.connect(1, pair[0])
    two.trunk.connect(0, pair[1])
    yield one, two
    one.trunk.close()
    two.trunk.close()


@given(st.integers(0, 2**63), frames, st.dictionaries(names.filter(bool), frames, max_size=5))
def test_frames_survive(tick: int, shared: Frame, own: dict[str, Frame]) -> None:
    output = Output(shared, own)
    assert decode_frames(encode_frames(STAGE, tick, output), HEAD) == (tick, output)


@given(st.builds(Spoken, numbers, names, st.booleans(), st.booleans(), st.integers(0, 65535), numbers, st.binary()))
def test_voices_survive(spoken: Spoken) -> None:
    assert decode_voice(encode_voice(STAGE, spoken), HEAD) == spoken


async def test_what_is_said_comes_in_order(ends: tuple[End, End]) -> None:
    one, two = ends
    voice = FarVoice(one.trunk, 1, STAGE, "ava", 7)
    voice.open_gate()
    voice.put(1, 960, b"a", 0.0)
    voice.change_source()
    voice.put(9, 10, b"b", 0.0)
    voice.restore(8, 5, b"c")
    voice.shut(0.0)
    voice.shut(0.0)
    voice.leave()
    voice.leave()
    one.trunk.want_fec(1, STAGE)
    one.trunk.frames((1,), STAGE, 3, Output(QUIET, {}))
    await two.until(7)
    assert two.told == [
        ("voice", 0, STAGE, Spoken(7, "ava", False, False, 1, 960, b"a")),
        ("voice", 0, STAGE, Spoken(7, "ava", True, False, 9, 10, b"b")),
        ("voice", 0, STAGE, Spoken(7, "ava", False, True, 8, 5, b"c")),
        ("shut", 0, STAGE, 7, False),
        ("shut", 0, STAGE, 7, True),
        ("fec", 0, STAGE),
        ("frames", 0, STAGE, 3, Output(QUIET, {})),
    ]
    assert one.trunk.dropped == 0


async def test_a_full_line_drops_sound_but_no_shut_gate(ends: tuple[End, End]) -> None:
    """Worker 1 stands still: worker 0 goes on at once, and what it says last of a voice is that its gate was shut."""
    one, two = ends
    asyncio.get_running_loop().remove_reader(two.trunk._lines[0].socket.fileno())
    voice = FarVoice(one.trunk, 1, STAGE, "ava", 7)
    voice.open_gate()
    for number in itertools.count():
        voice.put(number & 0xFFFF, number, bytes(100), 0.0)
        if one.trunk.dropped == 20:
            break
    one.trunk.frames((1,), STAGE, 1, Output(Frame(bytes(100), (), 10), {}))
    voice.shut(0.0)
    voice.open_gate()
    voice.put(0, 0, b"passes nothing by", 0.0)
    assert one.trunk.dropped == 22
    sent = number + 1 - 20
    two.trunk.drain()
    assert [each[0] for each in two.told] == ["voice"] * sent
    one.trunk.retry()
    voice.put(1, 960, b"again", 0.0)
    two.trunk.drain()
    assert two.told[sent:] == [
        ("shut", 0, STAGE, 7, False),
        ("voice", 0, STAGE, Spoken(7, "ava", False, False, 1, 960, b"again")),
    ]


async def test_a_worker_that_died_is_cut_off_and_another_takes_its_place(ends: tuple[End, End]) -> None:
    one, two = ends
    two.trunk.close()
    await one.until(1)
    assert one.told == [("cut", 1)]
    one.trunk.frames((1,), STAGE, 1, Output(QUIET, {}))
    one.trunk.shut(1, STAGE, 7, gone=True)
    assert one.trunk.dropped == 1
    for _ in range(2):  # the second pair comes before the first was seen to be dead
        pair = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        one.trunk.connect(1, pair[0])
        two.trunk.connect(0, pair[1])
    assert one.told == [("cut", 1)] * 2
    one.trunk.want_fec(1, STAGE)
    await two.until(2)
    assert two.told == [("cut", 0), ("fec", 0, STAGE)]


async def test_a_message_that_fails_is_told_and_the_next_one_heard(
    ends: tuple[End, End], monkeypatch: pytest.MonkeyPatch
) -> None:
    one, two = ends
    monkeypatch.setattr(two, "on_shut", lambda *values: 1 // 0)
    one.trunk.shut(1, STAGE, 7, gone=False)
    one.trunk.want_fec(1, STAGE)
    await two.until(2)
    assert two.told == [("defect", 0), ("fec", 0, STAGE)]


async def test_lines_come_through_the_hatch(ends: tuple[End, End]) -> None:
    third = End()
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    third.trunk.start(theirs)
    pair = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    socket.send_fds(ours, [bytes((1,))], [pair[1].fileno()])
    pair[1].close()
    ends[1].trunk.connect(2, pair[0])
    ends[1].trunk.want_fec(2, STAGE)
    await third.until(1)
    assert third.told == [("fec", 1, STAGE)]
    ours.close()
    third.trunk.close()
    third.trunk.close()
