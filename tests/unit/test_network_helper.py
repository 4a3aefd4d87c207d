"""The bad networks of the tests are as bad as they say (tests/helpers/network.py)."""

from __future__ import annotations

import asyncio
import itertools
import socket

import pytest

from tests.helpers.netns import inside, require_root, two_namespaces
from tests.helpers.network import Path, Weather, forwarding, lose, losses


def arrivals(weather: Weather, seed: int = 1, count: int = 10_000, every_s: float = 0.02) -> list[float | None]:
    """Delays in seconds of datagrams of 100 bytes."""
    path = Path(weather, seed)
    found: list[float | None] = []
    for number in range(count):
        at = path.arrival(number * every_s, 100)
        found.append(None if at is None else at - number * every_s)
    assert (path.lost, path.passed) == (found.count(None), count - found.count(None))
    return found


def test_a_clear_path_does_nothing() -> None:
    assert set(arrivals(Weather())) == {0.0}


def test_losses_are_as_many_as_said_and_the_same_again() -> None:
    found = arrivals(Weather(loss=0.05), seed=3)
    assert found.count(None) == pytest.approx(500, abs=100)
    assert sum(a is b is None for a, b in itertools.pairwise(found)) == pytest.approx(25, abs=20)  # each by itself
    assert found == arrivals(Weather(loss=0.05), seed=3)
    assert found != arrivals(Weather(loss=0.05), seed=4)


def test_delay_jitter_and_order() -> None:
    found = [each for each in arrivals(Weather(delay_ms=40, jitter_ms=15)) if each is not None]
    assert len(found) == 10_000
    assert 0.040 <= min(found) < 0.041
    assert 0.054 < max(found) <= 0.0551
    late = [each for each in arrivals(Weather(reordered=0.1)) if each is not None]
    assert sum(each > 0.02 for each in late) == pytest.approx(1000, abs=150)  # the next one overtakes it


def test_a_narrow_path_queues_then_drops() -> None:
    found = arrivals(Weather(kbit_s=20), count=1000)  # 40 kbit/s are sent
    assert found[0] == pytest.approx(0.04)
    delays = [each for each in found if each is not None]
    assert max(delays) == pytest.approx(0.24, abs=0.03)
    assert len(delays) == pytest.approx(500, abs=20)


async def test_the_forwarder_carries_both_ways() -> None:
    """Two clients through it to a server that answers; each gets its own answers, and delays add up."""
    loop = asyncio.get_running_loop()
    sockets = [socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(3)]
    try:
        for each in sockets:
            each.setblocking(False)
            each.bind(("127.0.0.1", 0))
        server, *clients = sockets
        async with (
            asyncio.timeout(30),
            forwarding(server.getsockname(), up=Weather(delay_ms=30), down=Weather(delay_ms=20, loss=0.5)) as between,
        ):
            began, got = loop.time(), 0
            for number in range(40):
                for client in clients:
                    client.sendto(bytes((number,)), between.address)
            for _ in range(80):
                data, source = await loop.sock_recvfrom(server, 100)
                assert loop.time() - began >= 0.03
                server.sendto(data * 2, source)
            arrived = sum(down.passed for _, down in between.paths)
            while arrived + sum(down.lost for _, down in between.paths) < 80:
                await asyncio.sleep(0.01)
                arrived = sum(down.passed for _, down in between.paths)
            for client, (_, down) in zip(clients, between.paths, strict=True):
                numbers = [(await loop.sock_recv(client, 100))[0] for _ in range(down.passed)]
                assert numbers == sorted(set(numbers))
                got += len(numbers)
            assert loop.time() - began >= 0.05
            assert got == arrived
            assert 20 < got < 60
    finally:
        for each in sockets:
            each.close()


async def test_losses_at_the_entrance_of_a_namespace() -> None:
    require_root()
    async with two_namespaces() as (near, far):
        with inside(near):
            sender = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        with inside(far):
            receiver = socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        with sender, receiver:
            receiver.bind((far.address, 0))
            for percent, least, most in ((0, 0, 0), (10, 60, 150), (100, 1000, 1000), (0, 0, 0)):
                await lose(far, percent)
                got = 0
                for _ in range(20):
                    for _ in range(50):
                        sender.sendto(b"x", receiver.getsockname())
                    got += await _all_of(receiver)
                async with asyncio.timeout(30):
                    while (counted := await losses(far))[0] < 1000:  # a busy kernel delivers a little later
                        got += await _all_of(receiver)
                got += await _all_of(receiver)
                assert counted == (1000, 1000 - got)
                assert least <= counted[1] <= most


async def _all_of(receiver: socket.socket) -> int:
    """How many datagrams are there."""
    await asyncio.sleep(0)
    for count in itertools.count():
        try:
            receiver.recv(10)
        except BlockingIOError:
            return count
    raise AssertionError
