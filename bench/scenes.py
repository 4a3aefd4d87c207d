"""What a table of listeners does not show: a storm of joins, idle stages, twenty who talk, a dead worker, delays.

Each scene starts what it needs, and gives its figures by name. Eyvan's worker, fan-out in C, packets of 60 ms."""

from __future__ import annotations

import asyncio
import itertools
import os
import signal
import statistics
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from bench import delay, loss, stream
from bench.client import Client
from bench.measure import child, cpu_s, join, rss_kb, talkers, window
from bench.servers import Eyvan
from bridge.ids import PeerId, StageId
from bridge.media.dtls import Identity
from tests.helpers.browser import Kind
from tests.helpers.network import Weather
from tests.media.test_bad_paths import heard

Figures = Mapping[str, Any]


class ManyStages(Eyvan):
    """Listeners go to one stage after another."""

    def __init__(self, stages: int) -> None:
        super().__init__("c", 60)
        self._stages = itertools.cycle(StageId(f"stage{number}") for number in range(stages))

    async def answer(self, offer: str, *, talks: bool) -> str:
        self.stage = next(self._stages)
        return await super().answer(offer, talks=talks)


async def storm(host: str, seconds: float) -> Figures:
    """2,000 join as fast as they can while one listens and decodes; clients share the server's cores."""
    server, count = Eyvan("c", 60), 2000
    await server.start()
    try:
        async with talkers(server, host, 1), child("bench.load") as ear, child("bench.load") as crowd:
            await join(ear, server, 1, host)
            memory, cpu = rss_kb(server.pid), cpu_s(server.pid)
            ear.write({"ear": 10.0})
            joined = await join(crowd, server, count, host)
            cpu = cpu_s(server.pid) - cpu
            found_by_ear = await ear.read()
            assert isinstance(found_by_ear, dict)
            return {
                "listeners": count,
                "seconds": joined["seconds"],
                "joins_per_s": count / joined["seconds"],
                "join_cpu_ms": 1000 * cpu / count,
                "silent": joined["silent"],
                "kb_per_listener": (rss_kb(server.pid) - memory) / count,
                "missing_at_the_ear_ms": found_by_ear["gaps_ms"],
            }
    finally:
        await server.close()


async def idle(host: str, seconds: float) -> Figures:
    """200 stages where nobody talks, 1,000 listeners in all."""
    stages, count = 200, 1000
    server = ManyStages(stages)
    await server.start()
    try:
        async with child("bench.load") as crowd:
            memory = rss_kb(server.pid)
            await join(crowd, server, count, host)
            memory = rss_kb(server.pid) - memory
            await window(server, crowd, 2.0, count)
            found = [(await window(server, crowd, seconds, count))[0] for _ in range(3)]
            us = statistics.median(found)
            return {
                "stages": stages,
                "listeners": count,
                "us_per_listener_s": us,
                "percent_of_a_core": us * count / 1e4,
                "kb_per_listener_with_its_share_of_the_stages": memory / count,
            }
    finally:
        await server.close()


async def twenty(host: str, seconds: float) -> Figures:
    """20 who talk all the time, each with their own mix back at 20 ms; nobody else but one ear."""
    server, count = Eyvan("c", 60), 20
    await server.start()
    try:
        async with talkers(server, host, count) as voices, child("bench.load") as ear:
            await join(ear, server, 1, host)
            await window(server, ear, 2.0, 1)
            found = [(await window(server, ear, seconds, 1))[0] / 1e4 for _ in range(3)]
            ear.write({"ear": seconds})
            found_by_ear = await ear.read()
            assert isinstance(found_by_ear, dict)
            told = await server.counters()
            voices.write("mute")
            return {
                "who_talk": count,
                "percent_of_a_core": statistics.median(found),
                "windows": found,
                "tick_late_p99_ms": told["tick_late_p99_ms"],
                "missing_at_the_ear_ms": found_by_ear["gaps_ms"],
            }
    finally:
        await server.close()


async def killed(host: str, seconds: float) -> Figures:
    """``kill -9`` of the only worker: how long 20 listeners who come back at once hear nothing."""
    server, identity = Eyvan("c", 60), Identity()
    await server.start()
    gaps: list[float] = []
    try:
        async with talkers(server, host, 1):
            crowd = [Client(identity, host) for _ in range(20)]
            await asyncio.gather(*(_come(server, each, host) for each in crowd))
            os.kill(server.pid, signal.SIGKILL)
            dead = time.monotonic()
            await server.restarted()
            ready = time.monotonic() - dead
            async with talkers(server, host, 1):
                again = [Client(identity, host) for _ in range(20)]

                async def back(client: Client) -> None:
                    await _come(server, client, host)
                    gaps.append(1000 * (time.monotonic() - dead))

                await asyncio.gather(*map(back, again))
            for each in (*crowd, *again):
                each.close()
    finally:
        await server.close()
    return {
        "listeners": len(gaps),
        "worker_is_back_after_ms": 1000 * ready,
        "sound_is_back_p50_ms": statistics.median(gaps),
        "sound_is_back_max_ms": max(gaps),
    }


async def _come(server: Eyvan, client: Client, host: str) -> None:
    client.take(await server.answer(client.offer, talks=False))
    await client.connect()
    if not await client.first_packet():
        raise TimeoutError("no sound came")


async def gate(host: str, seconds: float) -> Figures:
    """From the call at the relay's port until the worker says that the gate is changed, while it serves 500."""
    server = Eyvan("c", 60)
    await server.start()
    try:
        async with talkers(server, host, 2), child("bench.load") as crowd:
            await join(crowd, server, 500, host)
            draining = asyncio.create_task(window(server, crowd, max(4.0, seconds), 500))
            took = []
            for number in range(300):
                began = time.perf_counter()
                await server.gate(PeerId("talker2"), speak=number % 2 == 0)
                took.append(1000 * (time.perf_counter() - began))
                await asyncio.sleep(0.007)
            await draining
            took.sort()
            return {"changes": len(took), "p50_ms": took[150], "p99_ms": took[297], "max_ms": took[-1]}
    finally:
        await server.close()


async def mouth_to_ear(host: str, seconds: float) -> Figures:
    """See bench.delay."""
    server = Eyvan("c", 60)
    await server.start()
    try:
        return await delay.run(server, host, bursts=max(8, round(3 * seconds)))
    finally:
        await server.close()


async def ogg(host: str, seconds: float) -> Figures:
    """The Ogg stream beside Icecast (bench.stream): µs of CPU for one listener for one second."""
    found = await stream.run(200, max(4.0, 2 * seconds))
    figures: dict[str, Any] = {"listeners": 200}
    for name in ("eyvan", "icecast"):
        told = found[name]
        figures[f"{name}_us_per_listener_s"] = told["us_per_listener_s"] if isinstance(told, dict) else told
    return figures


async def bad_paths(host: str, seconds: float) -> Figures:
    """A speaker's voice over loss and jitter, on a simulated clock with real Opus: "percent of the time at which it is
    there, longest gap in ms"."""
    figures = {}
    for percent in (0, 2, 5, 10):
        for jitter_ms in (0, 50, 100, 200):
            found = heard(Weather(loss=percent / 100, delay_ms=20, jitter_ms=jitter_ms))
            figures[f"loss {percent} %, jitter {jitter_ms} ms"] = [100 * found.covered, found.longest_gap_ms]
            await asyncio.sleep(0)
    return figures


def lossy_browser(kind: Kind) -> Callable[[str, float], Awaitable[Figures]]:
    """A real browser behind a link that loses packets (bench.loss): percent of the sound that it made up."""

    async def scene(host: str, seconds: float) -> Figures:
        if os.geteuid():
            return {"not_run": "network namespaces need root"}
        rows = await loss.run((kind,), (5, 10), max(10.0, 4 * seconds))
        figures: dict[str, Any] = {}
        for row in rows:
            who = "concealed" if row.link.endswith("listens") else "concealed_of_its_voice"
            figures[f"{who}_at_{row.loss:g}_percent"] = row.concealed
        return figures | {"what_helps": rows[0].how, "buffer_ms": rows[0].buffer_ms}

    return scene


ALL = {
    "gate": gate,
    "mouth to ear": mouth_to_ear,
    "twenty talk": twenty,
    "storm": storm,
    "idle stages": idle,
    "worker killed": killed,
    "stream": ogg,
    "speaker's bad path": bad_paths,
    "lossy link, Chromium": lossy_browser("chromium"),
    "lossy link, Firefox": lossy_browser("firefox"),
}
LONG = ("lossy link, Chromium", "lossy link, Firefox")
"""More than a minute each."""
QUICK = ("gate", "mouth to ear", "worker killed")
