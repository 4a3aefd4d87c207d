"""How fast the bot writes."""

from __future__ import annotations

import asyncio
import gc

import pytest

from bridge.errors import Unavailable
from bridge.matrix.pacing import LastWins, RateLimit


class Writer:
    """Keeps what is written; may be held, and may fail."""

    def __init__(self) -> None:
        self.written: list[tuple[str, int]] = []
        self.open = asyncio.Event()
        self.open.set()
        self.began = asyncio.Event()

    async def __call__(self, key: str, value: int) -> int:
        self.began.set()
        await self.open.wait()
        if value < 0:
            raise Unavailable(f"no {value}")
        self.written.append((key, value))
        return value * 10


async def test_a_burst_goes_at_once_and_the_rest_in_turn() -> None:
    limit, done = RateLimit(per_second=20, burst=3), []
    loop = asyncio.get_running_loop()
    started = loop.time()

    async def one(number: int) -> None:
        await limit.wait()
        done.append((number, loop.time() - started))

    await asyncio.gather(*(one(n) for n in range(8)))
    assert [number for number, _ in done] == list(range(8))
    assert all(at >= (number - 2) / 20 - 0.01 for number, at in done[3:]), "five wait 50 ms each"


async def test_who_passes_by_is_paid_for_by_those_who_come_later() -> None:
    limit = RateLimit(per_second=20, burst=1)
    loop = asyncio.get_running_loop()
    started = loop.time()
    for _ in range(4):
        limit.pass_by()
    await limit.wait()
    assert loop.time() - started >= 4 / 20 - 0.01


async def test_a_turn_too_far_away_is_refused() -> None:
    limit = RateLimit(per_second=0.1, burst=1, longest_wait_s=35)
    waiting = [asyncio.create_task(limit.wait()) for _ in range(4)]
    await asyncio.sleep(0)
    for _ in range(3):
        with pytest.raises(Unavailable, match="4 writes to the homeserver wait already"):
            await limit.wait()
    assert limit.refused == 3
    for task in waiting:
        task.cancel()
    await asyncio.gather(*waiting, return_exceptions=True)


async def test_the_first_goes_at_once_and_the_last_wins() -> None:
    writer = Writer()
    paced = LastWins[str, int, int](0.05, writer)
    first = paced.put("a", 1)
    assert await first == 10
    later = [paced.put("a", n) for n in (2, 3, 4)]
    other = paced.put("b", 7)
    assert await other == 70, "another key does not wait for this one"
    assert await asyncio.gather(*map(asyncio.shield, later)) == [40, 40, 40]
    assert writer.written == [("a", 1), ("b", 7), ("a", 4)]
    assert paced.superseded == 2
    await paced.close()


async def test_what_comes_during_a_write_is_written_after_it() -> None:
    writer = Writer()
    writer.open.clear()
    paced = LastWins[str, int, int](0, writer)
    first = paced.put("a", 1)
    await writer.began.wait()
    second = paced.put("a", 2)
    writer.open.set()
    assert (await first, await second) == (10, 20)
    await paced.close()


async def test_the_interval_lies_between_the_writes() -> None:
    writer, loop = Writer(), asyncio.get_running_loop()
    paced = LastWins[str, int, int](0.1, writer)
    await paced.put("a", 1)
    started = loop.time()
    await paced.put("a", 2)
    assert loop.time() - started >= 0.09
    await paced.close()


async def test_a_failure_is_told_and_does_not_stop_the_next() -> None:
    paced = LastWins[str, int, int](0, Writer())
    failing = [paced.put("a", -1), paced.put("a", -2)]
    for future in failing:
        with pytest.raises(Unavailable, match="no -2"):
            await asyncio.shield(future)
    assert await paced.put("a", 3) == 30
    await paced.close()


async def test_a_failure_nobody_waits_for_is_not_reported(caplog: pytest.LogCaptureFixture) -> None:
    paced = LastWins[str, int, int](0, Writer())
    paced.put("a", -1)
    await paced.close()
    gc.collect()
    assert "never retrieved" not in caplog.text


async def test_nothing_is_kept_of_a_key_that_is_quiet() -> None:
    paced = LastWins[str, int, int](0.01, Writer())
    for number in range(20):
        paced.put(f"key {number}", number)
    async with asyncio.timeout(30):
        while paced._tasks:
            await asyncio.wait(set(paced._tasks.values()))
    assert not paced._waiting
    await paced.close()


async def test_closing_writes_what_waits_without_the_interval() -> None:
    writer = Writer()
    paced = LastWins[str, int, int](3600, writer)
    await paced.put("a", 1)
    last = paced.put("a", 2)
    await paced.close()
    assert await last == 20
    with pytest.raises(Unavailable, match="closed"):
        paced.put("a", 3)
    await paced.close()


async def test_closing_gives_up_on_a_write_that_hangs() -> None:
    writer = Writer()
    writer.open.clear()
    paced = LastWins[str, int, int](3600, writer, drain_s=0.05)
    first = paced.put("a", 1)
    await writer.began.wait()
    second = paced.put("a", 2)
    await paced.close()
    for future in (first, second):
        with pytest.raises(Unavailable, match="closed"):
            await asyncio.shield(future)
    assert writer.written == []


async def test_a_caller_that_is_cancelled_cancels_only_itself() -> None:
    writer = Writer()
    writer.open.clear()
    paced = LastWins[str, int, int](0, writer)

    async def wait(value: int) -> int:
        return await asyncio.shield(paced.put("a", value))

    gone, stays = asyncio.create_task(wait(1)), asyncio.create_task(wait(2))
    await asyncio.sleep(0)
    gone.cancel()
    await asyncio.gather(gone, return_exceptions=True)
    writer.open.set()
    assert await stays == 20
    await paced.close()
