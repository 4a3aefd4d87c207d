"""One TCP port for page and sound: real TLS and real ICE-TCP at the same one, and who may not stay."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import ssl
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web

from bridge.errors import ConfigError
from bridge.ids import PeerId, StageId
from bridge.media import front, stun, tcp
from bridge.media.control import WorkerSettings
from bridge.media.front import Front, More, Page, Worker, destination
from bridge.media.workers import Workers
from bridge.web.tls import OwnTls, PassOn, proxy_line
from tests.helpers.certificates import certificate
from tests.helpers.raw_peer import RawPeer
from tests.helpers.relay import HANG_S, Witness, until

STAGE = StageId("stage")


def framed(data: bytes) -> bytes:
    return len(data).to_bytes(2, "big") + data


def check(ufrag: str) -> bytes:
    return framed(stun.binding_request(f"{ufrag}:theirs", b"secret", controlling=True))


def test_who_a_connection_is_for() -> None:
    whole = check(stun.new_ufrag(3))
    assert destination(whole) == Worker(3)
    assert destination(whole + b"more") == Worker(3)
    assert destination(b"\x16") == Page()
    assert destination(whole[:1]) == More(2)
    assert destination(whole[:2]) == More(len(whole))
    assert destination(whole[:-1]) == More(len(whole))
    for nobody in (
        b"GET / HTTP/1.1\r\n",
        check("not-ours"),
        check("ff" + "0" * 12),
        whole[:-1] + b"\0",  # FINGERPRINT
        framed(stun.success(_request(), ("192.0.2.1", 1), b"secret")),
        framed(b""),
        b"\x05\x01" + bytes(1300),
    ):
        assert destination(nobody) is None


def _request() -> stun.Message:
    message = stun.parse(check("x")[2:])
    assert message is not None
    return message


class Site:
    """A page by TLS and two media workers behind one port."""

    def __init__(self, directory: Path) -> None:
        self.files = certificate(directory)

    async def start(self) -> None:
        async def hello(request: web.Request) -> web.Response:
            return web.Response(text=f"hello {request.remote} {request.scheme}")

        application = web.Application()
        application.router.add_get("/", hello)
        self.runner = web.AppRunner(application)
        await self.runner.setup()
        assert self.runner.server is not None
        self.tls = OwnTls(*self.files, self.runner.server)
        self.front = Front("127.0.0.1", 0, self.tls.take, self._sound)
        settings = WorkerSettings(bind="127.0.0.1", tcp_handed=True, tcp_announce_port=self.front.port)
        self.workers = Workers(settings, Witness(), 2)
        await self.workers.start()

    def _sound(self, number: int, connection: socket.socket) -> bool:
        return self.workers.take_connection(number, connection)

    async def page(self) -> str:
        trust = ssl.create_default_context(cafile=str(self.files[0]))
        url = f"https://127.0.0.1:{self.front.port}/"
        async with aiohttp.ClientSession() as http, http.get(url, ssl=trust) as answer:
            return await answer.text()

    async def close(self) -> None:
        self.front.close()
        self.front.close()
        await self.tls.close()
        await self.runner.cleanup()
        await self.workers.close()


@pytest.fixture(scope="module")
async def site(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Site]:
    made = Site(tmp_path_factory.mktemp("site"))
    await made.start()
    yield made
    await made.close()


@pytest.fixture
def raws() -> Iterator[list[RawPeer]]:
    made = [RawPeer(), RawPeer()]
    yield made
    for each in made:
        each.close()


async def test_page_and_sound_at_one_port(site: Site, raws: list[RawPeer]) -> None:
    """Each of two peers, whose sound is at two workers, comes to its own; the page is served meanwhile."""
    for number, raw in enumerate(raws):
        answer = await site.workers.join(STAGE, PeerId(f"raw{number}"), "raw", raw.offer, hear=True, speak=False)
        raw.take(answer.sdp)
        assert raw.tcp_port == site.front.port
        raw.main.close()
        raw.main = raw.new_stream()
        first = framed(raw.check_message())
        raw.main.sendall(first[:1])  # it comes in three parts
        await asyncio.sleep(0)
        raw.main.sendall(first[1:9])
        assert await site.page() == "hello 127.0.0.1 https"
        raw.main.sendall(first[9:])
        await raw.check()
        await raw.handshake()
    for raw in raws:
        await raw.packet()
    stats = await site.workers.stats()
    assert {stats.peers[f"raw{number}"].path for number in (0, 1)} == {"tcp"}
    assert [each.streams for each in stats.workers.values()] == [1, 1]
    assert {stun.worker_of(raw.remote_ufrag) for raw in raws} == {0, 1}


async def test_what_is_for_nobody_is_closed(site: Site) -> None:
    refused = site.front.refused
    loop = asyncio.get_running_loop()
    began = time.monotonic()
    for first in (
        b"GET / HTTP/1.1\r\n\r\n",
        framed(b"\x80" * 40),
        check("ff" + "0" * 12),
        check(stun.new_ufrag(9)),
        b"",
    ):
        with socket.create_connection(("127.0.0.1", site.front.port)) as connection:
            connection.setblocking(False)
            connection.sendall(first)
            if len(first) < 2:
                connection.shutdown(socket.SHUT_WR)
            async with asyncio.timeout(HANG_S):
                assert await _end(loop, connection) == b""
    assert site.front.refused - refused == 5
    assert time.monotonic() - began < tcp.FIRST_CHECK_S * 2, "at once, not when the time was up"
    assert len(site.front) == 0


async def _end(loop: asyncio.AbstractEventLoop, connection: socket.socket) -> bytes:
    try:
        return await loop.sock_recv(connection, 100)
    except ConnectionResetError:
        return b""


async def test_who_says_too_little_is_closed_and_pushes_nobody_else_out(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Slow loris, also within the first frame: its time is up, its number is bounded, it costs no spinning."""
    monkeypatch.setattr(tcp, "MAX_WAITING", 8)
    monkeypatch.setattr(tcp, "FIRST_CHECK_S", 1.0)
    loop = asyncio.get_running_loop()
    looks = 0
    real = site.front._look_at

    def counting(look: front._Look) -> None:
        nonlocal looks
        looks += 1
        real(look)

    monkeypatch.setattr(site.front, "_look_at", counting)
    connections = [socket.create_connection(("127.0.0.1", site.front.port)) for _ in range(20)]
    try:
        for each in connections:
            each.setblocking(False)
            each.sendall(check(stun.new_ufrag(0))[:-1])
        await until(lambda: _is(len(site.front) == 8), "the newest eight", 0.01)
        assert await site.page() == "hello 127.0.0.1 https"
        async with asyncio.timeout(HANG_S):
            for each in connections:
                assert await _end(loop, each) == b""
        assert len(site.front) == 0
        assert looks < 4 * len(connections)
    finally:
        for each in connections:
            each.close()


async def _is(value: bool) -> bool:
    return value


async def test_a_renewed_certificate_is_used_and_a_broken_one_is_not(site: Site) -> None:
    await site.page()
    certificate(site.files[0].parent)
    assert (await site.page()).startswith("hello")
    good = site.files[0].read_bytes()
    site.files[0].write_text("nonsense")
    os.utime(site.files[0], ns=(1, 1))
    with socket.create_connection(("127.0.0.1", site.front.port)) as raw:
        raw.settimeout(HANG_S)
        context = ssl.create_default_context(cadata=good.decode())
        wrapped = await asyncio.to_thread(context.wrap_socket, raw, server_hostname="127.0.0.1")
        wrapped.close()
    site.files[0].write_bytes(good)


def test_files_that_are_no_certificate(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"web\.tls_certificate"):
        OwnTls(tmp_path / "none.pem", tmp_path / "none.pem", asyncio.Protocol)


async def test_tls_is_passed_on_with_its_source() -> None:
    got: list[bytes] = []

    async def proxy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        got.append(await reader.readline())
        data = await reader.read(100_000)
        while len(data) < 100_001:
            data += await reader.read(100_000)
        writer.write(data)
        await writer.drain()
        got.append(await reader.read())
        writer.close()

    server = await asyncio.start_server(proxy, "127.0.0.1", 0)
    passing = PassOn("127.0.0.1", server.sockets[0].getsockname()[1])
    one = Front("127.0.0.1", 0, passing.take, lambda number, connection: False)
    try:
        reader, writer = await asyncio.open_connection("127.0.0.1", one.port)
        own = writer.get_extra_info("sockname")
        writer.write(b"\x16" + bytes(100_000))
        async with asyncio.timeout(HANG_S):
            assert await reader.readexactly(100_001) == b"\x16" + bytes(100_000)
            writer.write_eof()
            assert await reader.read() == b""
        assert got == [f"PROXY TCP4 127.0.0.1 127.0.0.1 {own[1]} {one.port}\r\n".encode(), b""]
        writer.close()
        server.close()
        async with asyncio.timeout(HANG_S):  # nobody there any more: closed, not left hanging
            reader, writer = await asyncio.open_connection("127.0.0.1", one.port)
            writer.write(b"\x16")
            with contextlib.suppress(ConnectionResetError):
                assert await reader.read() == b""
            writer.close()
    finally:
        one.close()
        await passing.close()
        await passing.close()
        server.close()


def test_the_proxy_line_of_ipv6() -> None:
    line = proxy_line(("fe80::1%eth0", 5, 0, 2), ("2001:db8::1", 443, 0, 0))
    assert line == b"PROXY TCP6 fe80::1 2001:db8::1 5 443\r\n"
