"""Bad networks. This kernel may have no netem, so there are two ways:

``lose``       nft drops UDP datagrams at random at the entrance of a namespace (netns.py); needs root.
``Forwarder``  a UDP forwarder in this process: loss, delay, jitter, reordering, bandwidth, from a seed.
"""

from __future__ import annotations

import asyncio
import contextlib
import heapq
import itertools
import random
import re
import socket
from collections.abc import AsyncIterator
from dataclasses import dataclass

from tests.helpers.netns import Namespace, nft

Address = tuple[str, int]


async def lose(namespace: Namespace, percent: float) -> None:
    """From now on so many of the UDP datagrams that come in from elsewhere get lost; 0 ends it. May be called again."""
    some = "" if percent >= 100 else f"numgen random mod 1000 < {round(percent * 10)} "
    await nft(
        namespace,
        "add table inet lossy",
        "delete table inet lossy",
        "add table inet lossy",
        "add chain inet lossy in { type filter hook input priority 0; }",
        'add rule inet lossy in iifname != "lo" meta l4proto udp counter',
        f'add rule inet lossy in iifname != "lo" meta l4proto udp {some}counter drop',
    )


async def losses(namespace: Namespace) -> tuple[int, int]:
    """Datagrams that came since ``lose``, and those of them that were dropped."""
    counted = re.findall(r"counter packets (\d+)", await nft(namespace, "list table inet lossy"))
    return int(counted[0]), int(counted[1])


@dataclass(frozen=True)
class Weather:
    """What a path does to datagrams. ``jitter_ms``: up to so much more delay, evenly spread; it may put them in another
    order. ``reordered``: the share that are 25 ms later beside. ``kbit_s``: a queue of 200 ms, which drops the rest."""

    loss: float = 0.0
    delay_ms: float = 0.0
    jitter_ms: float = 0.0
    reordered: float = 0.0
    kbit_s: float | None = None


class Path:
    """One direction, as a plan: no I/O, no clock. The same seed does the same to the same datagrams."""

    _QUEUE_S, _STRAGGLE_S = 0.2, 0.025

    def __init__(self, weather: Weather, seed: int) -> None:
        self.weather = weather
        self.passed = self.lost = 0
        self._chance = random.Random(seed)
        self._free_at = 0.0  # when the bottleneck has sent all before

    def arrival(self, now: float, size: int) -> float | None:
        """When a datagram of ``size`` bytes sent ``now`` comes out (seconds), or None where it is lost."""
        weather, chance = self.weather, self._chance
        lost, late, straggles = chance.random() < weather.loss, chance.random(), chance.random() < weather.reordered
        start = max(now, self._free_at)
        if lost or start - now > self._QUEUE_S:
            self.lost += 1
            return None
        if weather.kbit_s is not None:
            start = self._free_at = start + size * 8 / (1000 * weather.kbit_s)
        self.passed += 1
        return start + (weather.delay_ms + late * weather.jitter_ms) / 1000 + (self._STRAGGLE_S if straggles else 0.0)


class Forwarder:
    """In front of ``target``: each client that sends to ``address`` has a socket of its own towards it. Owned by
    ``forwarding``; nothing runs but the loop's callbacks."""

    def __init__(self, target: Address, up: Weather, down: Weather, seed: int) -> None:
        self._target = target
        self._weather, self._seeds = (up, down), itertools.count(2 * seed)
        self.paths: list[tuple[Path, Path]] = []  # up, down: one pair for each client
        self._outside: dict[Address, tuple[socket.socket, Path]] = {}
        self._due: list[tuple[float, int, bytes, socket.socket, Address]] = []
        self._number = itertools.count()
        self._timer: asyncio.TimerHandle | None = None
        self._loop = asyncio.get_running_loop()
        self._inside = self._socket(target)
        self.address: Address = self._inside.getsockname()[:2]
        self._loop.add_reader(self._inside, self._from_clients)

    @staticmethod
    def _socket(target: Address) -> socket.socket:
        made = socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        made.bind(("127.0.0.1" if target[0].startswith("127.") else target[0], 0))
        return made

    def _from_clients(self) -> None:
        with contextlib.suppress(BlockingIOError):
            while True:
                data, client = self._inside.recvfrom(65_536)
                if client not in self._outside:
                    self._welcome(client)
                outside, up = self._outside[client]
                self._send_later(up, data, outside, self._target)

    def _welcome(self, client: Address) -> None:
        up, down = (Path(weather, next(self._seeds)) for weather in self._weather)
        self.paths.append((up, down))
        outside = self._socket(self._target)
        self._outside[client] = outside, up
        self._loop.add_reader(outside, self._from_target, outside, down, client)

    def _from_target(self, outside: socket.socket, down: Path, client: Address) -> None:
        with contextlib.suppress(BlockingIOError):
            while True:
                self._send_later(down, outside.recv(65_536), self._inside, client)

    def _send_later(self, path: Path, data: bytes, through: socket.socket, to: Address) -> None:
        at = path.arrival(self._loop.time(), len(data))
        if at is None:
            return
        heapq.heappush(self._due, (at, next(self._number), data, through, to))
        if self._timer is None or self._due[0][0] == at:
            self._set_timer()

    def _set_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._loop.call_at(self._due[0][0], self._send_due) if self._due else None

    def _send_due(self) -> None:
        now = self._loop.time()
        while self._due and self._due[0][0] <= now:
            _, _, data, through, to = heapq.heappop(self._due)
            with contextlib.suppress(BlockingIOError, ConnectionRefusedError):
                through.sendto(data, to)
        self._timer = None
        self._set_timer()

    def close(self) -> None:
        """Harmless twice."""
        if self._timer is not None:
            self._timer.cancel()
        self._due.clear()
        for each in (self._inside, *(outside for outside, _ in self._outside.values())):
            if each.fileno() >= 0:
                self._loop.remove_reader(each)
            each.close()


@contextlib.asynccontextmanager
async def forwarding(
    target: Address, *, up: Weather | None = None, down: Weather | None = None, seed: int = 1
) -> AsyncIterator[Forwarder]:
    """``up``: from clients to ``target``, ``down``: back. The forwarder is on the address that the target has."""
    forwarder = Forwarder(target, up or Weather(), down or Weather(), seed)
    try:
        yield forwarder
    finally:
        forwarder.close()
