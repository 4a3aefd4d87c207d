"""One stage over three workers: who is heard where, and what the others notice when one of them stops or dies.

Raw listeners take packets of 20 ms, each of which is one encoded frame of the mix: two who hear the same can be
compared frame by frame, whatever this machine's other work does to their timing.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import re
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack

import numpy as np
import pytest

from bridge.ids import PeerId, StageId
from bridge.media import opus, rtp, stun
from bridge.media.control import WorkerSettings
from bridge.media.workers import Workers
from tests.helpers.raw_peer import RawPeer, as_samples
from tests.helpers.relay import HANG_S, Person, Witness, enter, loud, until
from tests.helpers.tone import Samples, level_at

numbers = itertools.count()


def worker_in(answer: str) -> int:
    found = re.search(r"a=ice-ufrag:(\S+)", answer)
    assert found is not None
    number = stun.worker_of(found[1])
    assert number is not None
    return number


class Ear:
    """A listener by RTP alone. Owns its task; keeps every packet."""

    def __init__(self, raw: RawPeer, peer: PeerId, worker: int) -> None:
        self.raw, self.peer, self.worker = raw, peer, worker
        self.packets: list[rtp.Packet] = []
        self._changed = asyncio.Event()
        self._task = asyncio.create_task(self._listen())

    async def _listen(self) -> None:
        while True:
            self.packets.append(await self.raw.packet(within_s=HANG_S))
            self._changed.set()

    @property
    def sound(self) -> list[bytes]:
        """The frames that were no silence."""
        return [each.payload for each in self.packets if len(each.payload) > 10]

    async def more(self, count: int, since: int | None = None) -> None:
        """Until so many more sounding frames have come than now, or than ``since``."""
        wanted = (len(self.sound) if since is None else since) + count
        async with asyncio.timeout(HANG_S):
            while len(self.sound) < wanted:
                self._changed.clear()
                await self._changed.wait()

    def heard(self, last: int) -> Samples:
        """The last sounding frames, decoded; those before them have set the decoder."""
        decoder = opus.Decoder()
        decoded = [decoder.decode(each).copy() for each in self.sound[-last - 5 :]]
        return as_samples(np.concatenate(decoded[-last:]))

    async def hears(self, predicate: Callable[[Samples], bool]) -> None:
        """Until half a second of new sound is so."""
        await self.more(5)
        async with asyncio.timeout(HANG_S):
            while not predicate(self.heard(25)):
                await self.more(5)

    async def falls_silent(self) -> None:
        async with asyncio.timeout(HANG_S):
            while not self.packets or len(self.packets[-1].payload) > 10:
                self._changed.clear()
                await self._changed.wait()

    async def close(self) -> None:
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        self.raw.close()


def in_step(one: Ear, two: Ear) -> int:
    """How many frames both have got, each of them the same at the same time since the first."""
    count = min(len(one.sound), len(two.sound))
    rows = [[each for each in ear.packets if len(each.payload) > 10][:count] for ear in (one, two)]
    timed = [[((each.timestamp - row[0].timestamp) & 0xFFFF_FFFF, each.payload) for each in row] for row in rows]
    assert timed[0] == timed[1]
    return count


class Scene:
    """A stage of its own at a relay of three workers, and who is on it; all leave at the end."""

    def __init__(self, workers: Workers, witness: Witness, stack: AsyncExitStack) -> None:
        self.workers, self.witness, self._stack = workers, witness, stack
        self.stage = f"stage-{next(numbers)}"
        self.told_before = len(witness.told)

    async def person(self, owner: str, worker: int, *, speak: bool) -> Person:
        person = await enter(self.workers, self.stage, owner, speak=speak)
        self._stack.push_async_callback(person.client.close)
        self._stack.push_async_callback(self.workers.leave, person.peer)
        assert worker_in(person.answer.sdp) == worker
        return person

    async def ear(self, owner: str, worker: int) -> Ear:
        raw = RawPeer()
        raw.max_ptime = 20
        peer = PeerId(f"{owner}-{next(numbers)}")
        answer = await self.workers.join(StageId(self.stage), peer, owner, raw.offer, hear=True, speak=False)
        raw.take(answer.sdp)
        assert worker_in(answer.sdp) == worker
        await raw.check()
        await raw.handshake()
        ear = Ear(raw, peer, worker)
        self._stack.push_async_callback(ear.close)
        self._stack.push_async_callback(self.workers.leave, peer)
        return ear

    @property
    def told(self) -> list[tuple[str, ...]]:
        return self.witness.told[self.told_before :]

    async def gone(self, person: Person | Ear) -> None:
        await self.witness.until(lambda: ("gone", person.peer, "worker") in self.told, "gone")


@pytest.fixture(scope="module")
async def relay() -> AsyncIterator[tuple[Workers, Witness]]:
    witness = Witness()
    workers = Workers(WorkerSettings(fan_out="c"), witness, 3)
    await workers.start()
    yield workers, witness
    await workers.close()


@pytest.fixture
async def scene(relay: tuple[Workers, Witness]) -> AsyncIterator[Scene]:
    async with AsyncExitStack() as stack:
        yield Scene(*relay, stack)


async def pid_of(workers: Workers, number: int) -> int:
    return (await workers.stats()).workers[number].pid


async def all_run(workers: Workers) -> None:
    async def they_do() -> bool:
        return len((await workers.stats()).workers) == 3

    await until(they_do, "the dead worker's successor")


async def test_one_stage_over_three_workers(scene: Scene) -> None:
    """Mix and mix-minus across workers, also for two devices of one owner; a promotion that connects nobody anew; a
    gate that is shut at another worker than the one that mixes."""
    workers, witness = scene.workers, scene.witness
    assert len(set(workers.ports)) == 3
    ava = await scene.person("ava", 0, speak=True)
    ben = await scene.person("ben", 1, speak=False)
    cem = await scene.ear("cem", 2)
    phone = await scene.ear("ava", 1)
    stats = await workers.stats()
    assert {number: each.peers for number, each in stats.workers.items()} == {0: 1, 1: 2, 2: 1}
    await workers.gate(ben.peer, hear=True, speak=True)
    ava.client.say(440)
    ben.client.say(660)

    def only(own: float, other: float) -> Callable[[Samples], bool]:
        return lambda heard: loud(other)(heard) and level_at(heard, other) - level_at(heard, own) >= 20

    await cem.hears(lambda heard: loud(440)(heard) and abs(level_at(heard, 440) - level_at(heard, 660)) < 3)
    await phone.hears(only(440, 660))
    await ava.client.hear(only(440, 660), within_s=HANG_S)
    await ben.client.hear(only(660, 440), within_s=HANG_S)
    wanted = {ava.answer.csrc, ben.answer.csrc}
    await witness.until(lambda: set(witness.levels_told[-1][2]) == wanted, "levels of both")
    assert (await workers.stats()).peers[ben.peer].decoded > 0  # counted at the home

    await workers.gate(ben.peer, hear=True, speak=False)
    decoded = (await workers.stats()).peers[ben.peer].decoded
    await cem.hears(lambda heard: loud(440)(heard) and level_at(heard, 660) < -60)
    await phone.falls_silent()
    after = (await workers.stats()).peers[ben.peer]
    assert after.gated > 0
    assert after.decoded == decoded
    await workers.leave(ava.peer)  # the home mixes on for the others, with no peer of its own
    await cem.falls_silent()
    await workers.gate(ben.peer, hear=True, speak=True)
    await cem.hears(loud(660))
    assert [each for each in scene.told if each[0] == "gone"] == []
    assert sorted(each[1] for each in scene.told if each[0] == "connected") == sorted(
        each.peer for each in (ava, ben, cem, phone)
    )


async def test_a_worker_that_stops_or_dies_is_noticed_by_its_own_people_alone(scene: Scene) -> None:
    workers = scene.workers
    home, lost, far = [await scene.ear(f"ear{worker}", worker) for worker in range(3)]
    ava = await scene.person("ava", 0, speak=True)
    ava.client.say(440)
    for ear in (home, lost, far):
        await ear.more(20)
    pid = await pid_of(workers, 1)
    os.kill(pid, signal.SIGSTOP)
    await far.more(50)
    os.kill(pid, signal.SIGKILL)
    await scene.gone(lost)
    await far.more(50)
    await home.more(5)
    assert in_step(home, far) >= 120
    assert level_at(far.heard(100), 440) > -30
    assert [each for each in scene.told if each[0] == "gone"] == [("gone", lost.peer, "worker")]
    await all_run(workers)
    again = await scene.ear("ear1", 1)
    await again.more(20)
    assert level_at(again.heard(20), 440) > -30


async def test_when_the_home_dies_the_others_hear_on_by_another(
    scene: Scene, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nobody else is connected anew: the same numbering goes on, after a pause while nobody mixed; and the stage sounds
    as it was set."""
    workers = scene.workers
    streamed: list[bytes] = []
    workers.listen(StageId(scene.stage), lambda tick, frames: streamed.extend(frames))
    lost = await scene.ear("host", 0)
    ben = await scene.person("ben", 1, speak=True)
    far = await scene.ear("far", 2)
    ben.client.say(660)
    await workers.tune(StageId(scene.stage), "music")
    await far.more(20)
    before = len(far.sound)
    os.kill(await pid_of(workers, 0), signal.SIGKILL)
    await scene.gone(lost)
    await far.more(60, since=before)
    assert level_at(far.heard(30), 660) > -30
    assert far.sound[-1][0] & 4, "one channel"  # RFC 6716 §3.1
    assert [each for each in scene.told if each[0] == "gone"] == [("gone", lost.peer, "worker")]
    assert len({each.ssrc for each in far.packets}) == 1
    for one, two in itertools.pairwise(far.packets):
        assert (two.sequence - one.sequence) & 0xFFFF == 1
        assert 0 < (two.timestamp - one.timestamp) & 0xFFFF_FFFF < 1 << 31
    ends = [each.timestamp for each in far.packets if len(each.payload) > 10]
    pause = max((two - one) & 0xFFFF_FFFF for one, two in itertools.pairwise(ends)) // 48
    with capsys.disabled():
        print(f"\n  home killed: {pause - 20} ms without a mix")
    await ben.client.close()
    streamed.clear()
    await all_run(workers)
    host = await scene.person("host", 0, speak=True)  # its worker is another one; it is not home again
    host.client.say(440)
    await far.more(20)
    assert level_at(far.heard(20), 440) > -30

    async def by_stream() -> bool:
        return sum(len(each) > 10 for each in streamed) >= 10

    await until(by_stream, "the stream's frames from the new home")
    workers.unlisten(StageId(scene.stage))
