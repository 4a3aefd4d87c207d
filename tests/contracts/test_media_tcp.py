"""What any relay must do over TCP (RFC 6544, RFC 4571): who may stay, which path sound takes, what junk changes."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import socket
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack

import pytest

from bridge.errors import ConfigError
from bridge.ids import PeerId, StageId
from bridge.media import rtp, stun, tcp
from bridge.media.control import WorkerSettings
from bridge.media.counters import PeerStats, WorkerCounters
from bridge.media.workers import Workers
from tests.helpers.raw_peer import RawPeer
from tests.helpers.relay import HANG_S, Witness, loud, on_stage, running, until
from tests.helpers.tone import Samples, ratio_at

STAGE = StageId("stage")
SOON_S = 0.4  # for "nothing comes": an answer takes 1 ms


@pytest.fixture(params=["c", "python"])
async def relay(request: pytest.FixtureRequest) -> AsyncIterator[tuple[Workers, Witness]]:
    """With both engines of the fan-out."""

    async def start(witness: Witness) -> Workers:
        workers = Workers(WorkerSettings(silent_s=4.0, gone_s=8.0, fan_out=request.param), witness)
        await workers.start()
        return workers

    async with running(start) as both:
        yield both


def undisturbed(heard: Samples) -> bool:
    """The tone, with what a client of Python loses on a busy machine."""
    return loud(440)(heard) and ratio_at(heard, 440) > 10


@pytest.fixture
def raw() -> Iterator[RawPeer]:
    peer = RawPeer()
    yield peer
    peer.close()


async def join(workers: Workers, raw: RawPeer, *, speak: bool = False) -> str:
    answer = await workers.join(STAGE, PeerId("raw"), "raw", raw.offer, hear=True, speak=speak)
    raw.take(answer.sdp)
    return answer.sdp


async def join_by_tcp(workers: Workers, raw: RawPeer, *, speak: bool = False) -> None:
    """Joined and connected, by TCP alone."""
    await join(workers, raw, speak=speak)
    raw.main.close()
    raw.main = raw.new_stream()
    await raw.check()
    await raw.handshake()


async def counters(workers: Workers) -> WorkerCounters:
    return (await workers.stats()).worker


async def of_raw(workers: Workers) -> PeerStats:
    return (await workers.stats()).peers[PeerId("raw")]


async def sound_goes_on(raw: RawPeer, through: socket.socket, ssrc: int) -> None:
    """For two seconds, longer than a path that nothing has proved would get it."""
    end = time.monotonic() + 2
    while time.monotonic() < end:
        assert (await raw.packet(through)).ssrc == ssrc


async def closed_by_relay(connection: socket.socket) -> None:
    """Wait for the end; TimeoutError where it stays open."""
    async with asyncio.timeout(HANG_S):
        try:
            while await asyncio.get_running_loop().sock_recv(connection, 4096):
                pass
        except ConnectionResetError:
            return


async def test_both_paths_are_offered(raw: RawPeer) -> None:
    """UDP before TCP, whatever the order of addresses (RFC 6544 §4.2); the announced port is TCP's alone."""
    for settings, expected in (
        (WorkerSettings(announce=("203.0.113.5", "2001:db8::5")), "own"),
        (WorkerSettings(announce=("203.0.113.5", "2001:db8::5"), tcp_announce_port=443), "443"),
        (WorkerSettings(announce=("203.0.113.5", "2001:db8::5"), tcp=False), "none"),
    ):
        workers = Workers(settings, Witness())
        await workers.start()
        try:
            text = await join(workers, raw)
            found = re.findall(r"a=candidate:(\d+) 1 (udp|tcp) (\d+) (\S+) (\d+) typ host( tcptype passive)?\r", text)
            assert len({each[0] for each in found}) == len(found), "a foundation each"
            assert [each[1] for each in found] == ["udp", "udp"] + (["tcp", "tcp"] if expected != "none" else [])
            assert [each[3] for each in found][:2] == ["203.0.113.5", "2001:db8::5"]
            priorities = [int(each[2]) for each in found]
            assert priorities == sorted(set(priorities), reverse=True)
            assert {each[4] for each in found if each[1] == "udp"} == {str(workers.port)}
            if expected == "none":
                assert "tcp" not in text.lower().replace("rtcp", "")
                with socket.socket() as probe:
                    assert probe.connect_ex(("127.0.0.1", workers.port)) != 0
                continue
            assert {each[4] for each in found[2:]} == {"443" if expected == "443" else str(workers.port)}
            assert priorities[2:] == [90 << 24 | (4 << 13 | 8191 - index) << 8 | 255 for index in (0, 1)]
            assert all(each[5] for each in found[2:])
        finally:
            await workers.close()


async def test_heard_and_hears_by_tcp(relay: tuple[Workers, Witness], raw: RawPeer) -> None:
    workers, witness = relay
    await join_by_tcp(workers, raw, speak=True)
    await witness.until(lambda: ("connected", "raw") in witness.told, "peer_connected")
    assert (await of_raw(workers)).path == "tcp"
    async with on_stage(workers, ("ava", True), ("ben", False)) as (ava, ben):
        ava.client.say(660)
        for payload in raw.voice(440, 150):
            raw.send(raw.protect(payload))
            await raw.packet()  # one comes for each that goes: the relay's clock paces us
        await ben.client.hear(lambda heard: loud(440)(heard) and loud(660)(heard), window_s=2)
    found = await of_raw(workers)
    assert (found.packets_in, found.refused) == (150, 0)
    assert (await counters(workers)).streams == 1
    assert (await counters(workers)).send_errors == 0
    await workers.leave(PeerId("raw"))
    async with asyncio.timeout(HANG_S):
        while b"\x81\xcb\x00\x01" not in await raw.report():  # BYE (RFC 3550 §6.6)
            pass
    await closed_by_relay(raw.main)
    assert (await counters(workers)).streams == 0


async def test_over_ipv6(raw: RawPeer) -> None:
    workers = Workers(WorkerSettings(bind="::1"), Witness())
    await workers.start()
    try:
        await join_by_tcp(workers, raw)
        async with asyncio.timeout(HANG_S):
            await raw.packet()
    finally:
        await workers.close()


def _framed(data: bytes) -> bytes:
    return len(data).to_bytes(2, "big") + data


def _first_frames(raw: RawPeer) -> dict[str, bytes]:
    good, secret = raw.check_message(), raw.remote_password.encode()
    flipped = bytearray(good)
    flipped[-1] ^= 1
    return {
        "web": b"GET / HTTP/1.1\r\nHost: stage.example.org\r\n\r\n" + b" " * 20_000,
        "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + os.urandom(6_000),
        "empty": _framed(b""),
        "huge": b"\xff\xff" + good,
        "longer than a check": (stun.MAX_SIZE + 1).to_bytes(2, "big"),
        "not our password": _framed(raw.check_message(password="not the password")),
        "unknown": _framed(stun.binding_request(f"nobody:{raw.ufrag}", secret, controlling=True)),
        "no integrity": _framed(b"\x00\x01\x00\x00" + stun.COOKIE.to_bytes(4, "big") + os.urandom(12)),
        "bad fingerprint": _framed(bytes(flipped)),
        "a response": _framed(stun.success(_parsed(good), ("127.0.0.1", 9), secret)),
        "DTLS": _framed(raw.client_hello()),
        "no frame at all": os.urandom(4_000),
        "junk, then a check": _framed(b"\x80junk") + _framed(good),
    }


def _parsed(data: bytes) -> stun.Message:
    message = stun.parse(data)
    assert message is not None
    return message


async def test_another_first_frame_ends_the_connection(relay: tuple[Workers, Witness], raw: RawPeer) -> None:
    workers, _ = relay
    await join(workers, raw)
    frames = _first_frames(raw)
    began = time.monotonic()
    for name, bytes_sent in frames.items():
        with raw.new_stream() as connection:
            connection.sendall(bytes_sent)
            async with asyncio.timeout(HANG_S):
                await closed_by_relay(connection)
        assert not (await of_raw(workers)).connected, name
    found = await counters(workers)
    assert (found.streams, found.streams_refused, found.tick_errors) == (0, len(frames), 0)
    assert time.monotonic() - began < tcp.FIRST_CHECK_S * len(frames) / 2, "at once, not when the time was up"


async def test_who_says_nothing_or_little_is_closed(relay: tuple[Workers, Witness], raw: RawPeer) -> None:
    """Half a frame, and one byte after the other without end (slow loris), take five seconds of one place."""
    workers, _ = relay
    await join(workers, raw)
    check = _framed(raw.check_message())
    with raw.new_stream() as silent, raw.new_stream() as half, raw.new_stream() as slow:
        half.sendall(check[:-1])

        async def drip() -> None:
            for byte in check[:-1]:
                slow.sendall(bytes((byte,)))
                await asyncio.sleep(0.2)

        dripping = asyncio.create_task(drip())
        began = time.monotonic()
        await asyncio.gather(*(closed_by_relay(each) for each in (silent, half, slow)))
        assert time.monotonic() - began > tcp.FIRST_CHECK_S / 2
        dripping.cancel()
        await asyncio.gather(dripping, return_exceptions=True)
    found = await counters(workers)
    assert (found.streams, found.streams_refused) == (0, 3)


async def test_frames_are_found_however_they_are_cut(relay: tuple[Workers, Witness], raw: RawPeer) -> None:
    workers, _ = relay
    await join(workers, raw)
    raw.main.close()
    raw.main = raw.new_stream()
    raw.main.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    checks = [raw.check_message() for _ in range(4)]
    for byte in _framed(checks[0]):
        raw.main.sendall(bytes((byte,)))
        await asyncio.sleep(0)
    raw.main.sendall(_framed(checks[1]) + _framed(b"") + _framed(checks[2]) + _framed(checks[3])[:9])
    for each in checks[:3]:
        assert _parsed(await raw.receive()).transaction == each[8:20]
    raw.main.sendall(_framed(checks[3])[9:])
    assert _parsed(await raw.receive()).transaction == checks[3][8:20]
    assert (await counters(workers)).streams_refused == 0


async def test_the_browsers_nomination_chooses_the_path(relay: tuple[Workers, Witness], raw: RawPeer) -> None:
    workers, witness = relay
    await join(workers, raw)
    await raw.check()
    await raw.handshake()
    async with on_stage(workers, ("ava", True)) as (ava,):
        ava.client.say(440)
        ssrc = (await raw.packet()).ssrc
        with raw.new_stream() as stream:
            await raw.check(stream, nominate=False)
            with pytest.raises(TimeoutError):
                await raw.packet(stream, within_s=SOON_S)
            assert (await of_raw(workers)).path == "udp"
            await raw.check(stream)
            await sound_goes_on(raw, stream, ssrc)  # though it is not yet asked whether it wants it
            found = await counters(workers)
            assert (found.moved_to_tcp, found.moved_to_udp) == (1, 0)
            assert (await of_raw(workers)).path == "tcp"
            await raw.check()
            await sound_goes_on(raw, raw.main, ssrc)
            found = await counters(workers)
            assert (found.moved_to_tcp, found.moved_to_udp) == (1, 1)
        # The connection has closed; it was not the path, so nothing changes.
        for _ in range(10):
            await raw.packet()
    assert [each for each in witness.told if each[1] == "raw"] == [("connected", "raw")]


async def test_a_restart_that_only_tcp_answers_moves_the_path(relay: tuple[Workers, Witness], raw: RawPeer) -> None:
    """UDP dies without a word: a new offer, a check by TCP, and sound is back; counted also for a fresh connection."""
    workers, _ = relay
    await join(workers, raw)
    await raw.check()
    await raw.handshake()
    raw.main.close()
    raw.new_credentials()
    await join(workers, raw)  # the same peer connection: an ICE restart
    raw.main = raw.new_stream()
    await raw.check()
    await raw.packet()
    assert (await counters(workers)).moved_to_tcp == 1
    again = RawPeer()  # another peer connection in the same peer's name
    try:
        await join(workers, again)
        await again.check()
        await again.handshake()
        assert (await counters(workers)).moved_to_udp == 1
    finally:
        again.close()


async def test_a_restart_waits_for_a_nomination_only_while_the_old_path_lives(
    relay: tuple[Workers, Witness], raw: RawPeer
) -> None:
    workers, _ = relay
    await join(workers, raw)
    await raw.check()
    await raw.handshake()
    raw.new_credentials()
    await join(workers, raw)
    with raw.new_stream() as stream:
        checks = 0

        async def moved() -> bool:
            nonlocal checks
            checks += 1
            await raw.check(stream, nominate=False)
            return (await of_raw(workers)).path == "tcp"

        began = time.monotonic()
        await until(moved, "the other path", every_s=0.2)
        assert checks > 5, "the first check came right after one on the old path"
        assert time.monotonic() - began > 2.5
        await raw.packet(stream)
        await raw.check()  # UDP lives again, and is nominated
        await raw.packet()


async def test_a_closed_connection_is_a_candidate_gone(relay: tuple[Workers, Witness], raw: RawPeer) -> None:
    """… and no more than that: the peer stays, the next connection brings its sound back; silence ends it at last."""
    workers, witness = relay
    await join_by_tcp(workers, raw)
    async with on_stage(workers, ("ava", True)) as (ava,):
        ava.client.say(440)
        ssrc = (await raw.packet()).ssrc
        raw.main.close()

        async def closed() -> bool:
            return (await counters(workers)).streams == 0

        await until(closed, "the end of the connection")
        sent = (await of_raw(workers)).packets_out
        raw.main = raw.new_stream()
        await raw.check(nominate=False)  # nothing else is there: it need not wait for the nomination
        assert (await raw.packet()).ssrc == ssrc
        assert (await of_raw(workers)).packets_out > sent
        raw.main.sendall(b"\xff\xff")  # broken framing cannot be mended: closed as well
        await closed_by_relay(raw.main)
        assert (await counters(workers)).streams_refused == 0
        raw.main.close()
        raw.main = raw.new_stream()
        await raw.check()
        await raw.packet()
        assert (await counters(workers)).moved_to_tcp == 0
        await witness.until(lambda: ("gone", "raw", "timeout") in witness.told, "timeout")
        await closed_by_relay(raw.main)
        assert set((await workers.stats()).peers) == {ava.peer}
        assert (await counters(workers)).tick_errors == 0


async def test_a_reader_that_stands_still_holds_up_nobody(raw: RawPeer) -> None:
    """Its oldest sound is dropped; when it reads again it is at the present within seconds of sound, not behind."""
    workers = Workers(WorkerSettings(), Witness())
    await workers.start()
    try:
        await join(workers, raw)
        raw.main.close()
        raw.main = raw.new_stream(receive_buffer=2048)
        await raw.check()
        await raw.handshake()
        async with on_stage(workers, ("ava", True), ("ben", False)) as (ava, ben):
            ava.client.say(440)
            await ben.client.hear(loud(440))
            before = await raw.packet()

            async def dropped() -> bool:
                raw.send(raw.check_message())  # alive, but it reads nothing
                return (await counters(workers)).stream_drops >= 100

            await until(dropped, "dropped packets", every_s=0.5)
            await ben.client.hear(undisturbed, window_s=2)
            found = await counters(workers)
            assert found.tick_errors == 0
            sent = (await of_raw(workers)).packets_out
            first_missing: rtp.Packet | None = None
            previous = before
            while first_missing is None:
                packet = await raw.packet()
                if (packet.sequence - previous.sequence) & 0xFFFF > 1:
                    first_missing = packet
                previous = packet
            # What it had missed was dropped: it did not have to hear all of it first.
            assert (first_missing.sequence - before.sequence) & 0xFFFF > 50
            assert (await of_raw(workers)).packets_out - sent < 200
            await ben.client.hear(undisturbed, window_s=1)
    finally:
        await workers.close()


async def test_many_connections_leave_place_for_people(relay: tuple[Workers, Witness], raw: RawPeer) -> None:
    """Of those who say nothing the oldest make place, of one source and in all; those who talk are not disturbed."""
    workers, _ = relay
    await join(workers, raw)
    async with on_stage(workers, ("ava", True), ("ben", False)) as (ava, ben):
        ava.client.say(440)
        await ben.client.hear(loud(440))
        with ExitStack() as stack:
            flood = [stack.enter_context(raw.new_stream()) for _ in range(400)]
            await closed_by_relay(flood[0])
            most = tcp.MAX_WAITING if raw.host == "127.0.0.1" else tcp.MAX_WAITING_EACH
            found = await counters(workers)
            assert found.streams <= most
            raw.main.close()
            raw.main = stack.enter_context(raw.new_stream())
            await raw.check()
            await raw.handshake()
            await raw.packet()
            for _ in range(400):
                with raw.new_stream() as connection:
                    connection.sendall(os.urandom(30))
            await raw.packet()
            await ben.client.hear(undisturbed, window_s=2)
            for each in flood:
                await closed_by_relay(each)
            found = await counters(workers)
        assert (found.streams, found.tick_errors) == (1, 0)
        assert found.streams_refused >= 800 - most


async def test_a_peer_keeps_few_connections(relay: tuple[Workers, Witness], raw: RawPeer) -> None:
    """… the last ones that it checked, and the one that sound goes by."""
    workers, _ = relay
    await join_by_tcp(workers, raw)
    with ExitStack() as stack:
        more = [stack.enter_context(raw.new_stream()) for _ in range(20)]
        for each in more:
            await raw.check(each, nominate=False)
        for each in more[:-7]:
            await closed_by_relay(each)
        assert (await counters(workers)).streams == 8
        await raw.packet()
        await raw.check(more[-1])
        await raw.packet(more[-1])


async def test_the_next_worker_takes_the_same_port(relay: tuple[Workers, Witness], raw: RawPeer) -> None:
    """Though connections of the one that died are still in the kernel's books."""
    workers, witness = relay
    await join_by_tcp(workers, raw)
    port = raw.tcp_port
    os.kill((await counters(workers)).pid, signal.SIGKILL)
    await witness.until(lambda: ("gone", "raw", "worker") in witness.told, "gone")
    raw.main.close()
    await join_by_tcp(workers, raw)
    assert raw.tcp_port == port


async def test_a_taken_port_is_named() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(ConfigError, match=rf"{port}: .*TCP.*media\.tcp: false"):
            await Workers(WorkerSettings(bind="127.0.0.1", port=port), Witness()).start()
        workers = Workers(WorkerSettings(bind="127.0.0.1", port=port, tcp=False), Witness())
        await workers.start()
        await workers.close()
