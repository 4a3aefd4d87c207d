"""One measurement: a fresh server, a talker, one listener that decodes, and N that count."""

from __future__ import annotations

import asyncio
import os
import statistics
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench.servers import Child, Eyvan, Server

WINDOWS = 3
"""Of each figure the median of so many windows is told."""


@dataclass(slots=True)
class Row:
    """What one server did with N listeners. CPU in µs for one listener for one second; times in ms."""

    server: str
    packet_ms: int
    listeners: int
    talkers: int = 1
    us: float = 0.0
    us_per_packet: float = 0.0
    cpu_share: float = 0.0
    loss: float = 1.0
    late_p50_ms: float = -1.0
    late_p99_ms: float = -1.0
    kb_per_listener: float = 0.0
    joins_per_s: float = 0.0
    join_cpu_ms: float = 0.0
    mbit: float = 0.0
    datagram: int = 0
    idle_us: float | None = None
    load_average: float = 0.0
    spread: list[float] = field(default_factory=list)  # us of each window
    more: dict[str, Any] = field(default_factory=dict)

    @property
    def holds(self) -> bool:
        """Whether this N is one that the server serves: next to no loss, and in time."""
        return self.loss < 0.001 and 0 <= self.late_p99_ms < 50 and not self.more.get("silent")


def cpu_s(pid: int) -> float:
    """CPU seconds of all threads of a process so far, to the nanosecond; a process without schedstat by ticks."""
    total = 0.0
    for task in Path(f"/proc/{pid}/task").iterdir():
        try:
            total += int((task / "schedstat").read_text().split()[0]) / 1e9
        except FileNotFoundError:
            fields = (task / "stat").read_text().rsplit(")", 1)[1].split()
            total += (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    return total


def rss_kb(pid: int) -> int:
    text = Path(f"/proc/{pid}/status").read_text()
    return next(int(line.split()[1]) for line in text.splitlines() if line.startswith("VmRSS"))


@asynccontextmanager
async def child(*command: str) -> AsyncIterator[Child]:
    started = await Child.start(sys.executable, "-m", *command)
    try:
        yield started
    finally:
        await started.close()


async def join(load: Child, server: Server, count: int, host: str, tracks: int = 1) -> dict[str, Any]:
    """Hand offers and answers to and fro, several at a time, until all have joined. ``tracks``: as many as talk; a
    server that answers offers and does not mix wants a section for each."""
    sections = tracks if server.wants_sections else 1
    load.write({"join": count, "host": host, "setup": server.setup, "sections": sections})
    tasks: set[asyncio.Task[None]] = set()

    async def answer(number: int, offer: str) -> None:
        load.write({"number": number, "answer": await server.answer(offer, talks=False)})

    try:
        while True:
            line = await load.read()
            assert isinstance(line, dict)
            if "failed" in line:
                raise ConnectionError(str(line["failed"]))
            if "offer" not in line:
                return line
            for each in [each for each in tasks if each.done()]:
                tasks.remove(each)
                await each  # raises what the server raised
            tasks.add(asyncio.create_task(answer(line["number"], line["offer"])))
    finally:
        await asyncio.gather(*tasks)


@asynccontextmanager
async def talkers(server: Server, host: str, count: int) -> AsyncIterator[Child]:
    """So many people who talk, connected; a server that makes its own sound has none."""
    setup = "plain" if server.plain_port else server.setup
    number = str(count if server.needs_talker else 0)
    async with child("bench.talker", host, setup, number) as started:
        for _ in range(int(number)):
            if server.plain_port:
                started.write(server.plain_port)
            else:
                started.write(await server.answer(str(await started.read()), talks=True))
            await started.read()
        yield started


async def measure(server: Server, row: Row, host: str, seconds: float, *, idle: bool = False) -> Row:
    """Fill ``row``. Raises what the server or a client raises when it cannot serve so many."""
    row.more["settings"] = server.settings
    try:
        await server.start()
        async with talkers(server, host, row.talkers) as talker, child("bench.load") as ear:
            await join(ear, server, 1, host, row.talkers)
            async with child("bench.load") as load:
                if isinstance(server, Eyvan):
                    talker.write("mute")  # so that the CPU of joining is not that of sound
                await _join_all(server, row, host, load, seconds)
                talker.write("talk")
                await _with_listeners(server, row, seconds, load, ear)
                if idle:
                    talker.write("mute")
                    row.idle_us = (await window(server, load, min(2.0, seconds), row.listeners))[0]
                    row.idle_us = (await window(server, load, seconds, row.listeners))[0]
    finally:
        await server.close()
    return row


async def _join_all(server: Server, row: Row, host: str, load: Child, seconds: float) -> None:
    await asyncio.sleep(min(1.0, seconds))  # who mutes now is silent then
    memory, cpu = rss_kb(server.pid), cpu_s(server.pid)
    joined = await join(load, server, row.listeners, host, row.talkers)
    row.joins_per_s = row.listeners / joined["seconds"]
    row.join_cpu_ms = 1000 * (cpu_s(server.pid) - cpu) / row.listeners
    row.kb_per_listener = (rss_kb(server.pid) - memory) / row.listeners
    row.more |= {"profiles": joined["profiles"], "join_client_cpu_s": joined["client_cpu_s"]}


async def _with_listeners(server: Server, row: Row, seconds: float, load: Child, ear: Child) -> None:
    await window(server, load, min(2.0, seconds), row.listeners)  # empties the sockets
    ear.write({"ear": WINDOWS * seconds / 2})
    windows = [await window(server, load, seconds, row.listeners) for _ in range(WINDOWS)]
    row.more["ear"] = await ear.read()
    row.spread = [round(us, 1) for us, _ in windows]
    row.us = statistics.median(row.spread)
    row.cpu_share = row.us * row.listeners / 1e6

    def middle(name: str) -> float:
        return float(statistics.median(each[name] for _, each in windows))

    packets = middle("packets")
    row.loss, row.late_p50_ms, row.late_p99_ms = middle("loss"), middle("late_p50_ms"), middle("late_p99_ms")
    row.datagram = round(middle("bytes") / packets) if packets else 0
    row.us_per_packet = row.us * row.listeners * seconds / packets if packets else 0.0
    row.mbit = (middle("bytes") + 28 * packets) * 8 / seconds / 1e6
    row.more["silent"] = max(each["silent"] for _, each in windows)
    row.more["tracks"] = min(each["fewest_sources"] for _, each in windows)
    row.more["packets_per_listener_second"] = round(packets / seconds / row.listeners, 2)
    row.more["client_cpu"] = round(middle("client_cpu"), 2)
    row.load_average = os.getloadavg()[0]
    if isinstance(server, Eyvan):
        row.more |= await server.counters()


async def window(server: Server, load: Child, seconds: float, listeners: int) -> tuple[float, dict[str, Any]]:
    """(µs of the server's CPU for one listener for one second, what the clients counted)"""
    cpu, began = cpu_s(server.pid), time.monotonic()
    load.write({"measure": seconds})
    counted = await load.read()
    used, took = cpu_s(server.pid) - cpu, time.monotonic() - began
    assert isinstance(counted, dict)
    return used / took / listeners * 1e6, counted


async def floor(row: Row, host: str, seconds: float) -> Row:
    """The kernel alone: ``row.datagram`` bytes to each listener, by one sendmmsg a batch, without SRTP."""
    phases = row.packet_ms // 20
    async with child("bench.load") as sink, child("bench.load") as source:
        sink.write({"plain": row.listeners, "host": host})
        ports = await sink.read()
        results = []
        for _ in range(WINDOWS):
            sink.write({"measure": seconds + 0.5})
            source.write({"flood": ports, "host": host, "size": row.datagram, "phases": phases, "seconds": seconds})
            sent, _counted = await source.read(), await sink.read()
            assert isinstance(sent, dict)
            results.append((sent["cpu_s"] / seconds / row.listeners * 1e6, sent["cpu_s"] / max(1, sent["sent"]) * 1e6))
        row.spread = [round(us, 1) for us, _ in results]
        row.us = statistics.median(row.spread)
        row.us_per_packet = statistics.median(each for _, each in results)
        row.cpu_share = row.us * row.listeners / 1e6
        row.loss, row.late_p99_ms = 0.0, 0.0
        row.load_average = os.getloadavg()[0]
    return row
