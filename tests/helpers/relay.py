"""People on a stage of a real relay, and a listener that remembers what the relay told."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager

from bridge.ids import PeerId, StageId
from bridge.live import ports
from bridge.media.control import WorkerSettings
from bridge.media.workers import Workers
from tests.helpers.rtc import RtcClient
from tests.helpers.tone import Samples, level_at, rms_dbfs

HANG_S = 60.0
Told = tuple[str, ...]
numbers = itertools.count()


class Witness:
    """A MediaListener that keeps what it was told, and lets a test wait for it."""

    def __init__(self) -> None:
        self.told: list[Told] = []
        self.levels_told: list[tuple[float, StageId, Mapping[int, int]]] = []  # with loop time
        self._changed = asyncio.Event()

    def peer_connected(self, peer: PeerId) -> None:
        self._note("connected", peer)

    def peer_gone(self, peer: PeerId, reason: str) -> None:
        self._note("gone", peer, reason)

    def peer_pressed(self, peer: PeerId, key: str) -> None:
        self._note("pressed", peer, key)

    def levels(self, stage: StageId, levels: Mapping[int, int]) -> None:
        self.levels_told.append((asyncio.get_running_loop().time(), stage, levels))
        self._changed.set()

    def _note(self, *what: str) -> None:
        self.told.append(what)
        self._changed.set()

    async def until(self, holds: Callable[[], bool], what: str) -> None:
        try:
            async with asyncio.timeout(HANG_S):
                while not holds():
                    self._changed.clear()
                    await self._changed.wait()
        except TimeoutError:
            raise AssertionError(f"{what} did not come; told so far {self.told}") from None


Backend = Callable[[Witness], Awaitable[Workers]]


async def fan_out_in_c(witness: Witness) -> Workers:
    return await _started(WorkerSettings(fan_out="c"), witness)


async def fan_out_in_python(witness: Witness) -> Workers:
    return await _started(WorkerSettings(fan_out="python"), witness)


async def two_workers(witness: Witness) -> Workers:
    """Who enters one after the other sits at one and the other in turn."""
    return await _started(WorkerSettings(fan_out="python"), witness, count=2)


async def _started(settings: WorkerSettings, witness: Witness, count: int = 1) -> Workers:
    workers = Workers(settings, witness, count)
    await workers.start()
    return workers


BACKENDS: list[Backend] = [fan_out_in_c, fan_out_in_python]


@asynccontextmanager
async def running(backend: Backend) -> AsyncIterator[tuple[Workers, Witness]]:
    witness = Witness()
    workers = await backend(witness)
    try:
        yield workers, witness
    finally:
        await workers.close()


class Person:
    """A connected client with its peer id and what the relay answered."""

    def __init__(self, client: RtcClient, peer: PeerId, answer: ports.Answer) -> None:
        self.client, self.peer, self.answer = client, peer, answer


@asynccontextmanager
async def on_stage(workers: Workers, *wanted: tuple[str, bool], stage: str = "stage") -> AsyncIterator[list[Person]]:
    """Connected people, one for each (owner, speak); all hear. Closed at the end."""
    people: list[Person] = []
    try:
        for owner, speak in wanted:
            people.append(await enter(workers, stage, owner, speak=speak))
        yield people
    finally:
        for person in people:
            await person.client.close()


async def enter(workers: ports.Media, stage: str, owner: str, *, speak: bool, peer: str = "") -> Person:
    client, name = RtcClient(), PeerId(peer or f"{owner}-{next(numbers)}")
    answers: list[ports.Answer] = []

    async def ask(offer: str) -> str:
        answers.append(await workers.join(StageId(stage), name, owner, offer, hear=True, speak=speak))
        return answers[0].sdp

    try:
        await client.connect(ask)
    except BaseException:
        await client.close()
        raise
    return Person(client, name, answers[0])


def loud(hz: float) -> Callable[[Samples], bool]:
    return lambda heard: level_at(heard, hz) >= -30


def silent(heard: Samples) -> bool:
    return rms_dbfs(heard) < -60


async def until(reached: Callable[[], Awaitable[bool]], what: str, every_s: float = 0.05) -> None:
    """Ask until the answer is yes; for what cannot call back, such as counters."""
    try:
        async with asyncio.timeout(HANG_S):
            while not await reached():  # noqa: ASYNC110
                await asyncio.sleep(every_s)
    except TimeoutError:
        raise AssertionError(f"{what} did not come within {HANG_S} s") from None
