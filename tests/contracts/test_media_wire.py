"""What any relay must do on the wire: checks, addresses, restarts, junk, a dead worker. Every datagram is ours."""

from __future__ import annotations

import asyncio
import itertools
import os
import secrets
import signal
import socket
from collections.abc import AsyncIterator, Iterator

import pytest

from bridge.errors import ConfigError, Full, NotFound
from bridge.ids import PeerId, StageId
from bridge.media import opus, rtcp, rtp, stun
from bridge.media.control import WorkerSettings
from bridge.media.counters import PeerStats
from bridge.media.workers import Workers
from tests.helpers.raw_peer import RawPeer
from tests.helpers.relay import BACKENDS, HANG_S, Witness, enter, loud, on_stage, running, silent, until
from tests.helpers.tone import ratio_at

STAGE = StageId("stage")
SOON_S = 0.4  # for "nothing comes": an answer takes 1 ms


@pytest.fixture(params=BACKENDS, ids=lambda each: each.__name__)
async def relay(request: pytest.FixtureRequest) -> AsyncIterator[tuple[Workers, Witness]]:
    async with running(request.param) as both:
        yield both


@pytest.fixture
def raw() -> Iterator[RawPeer]:
    peer = RawPeer()
    yield peer
    peer.close()


async def join(workers: Workers, raw: RawPeer, *, speak: bool = True, peer: str = "raw") -> int:
    answer = await workers.join(STAGE, PeerId(peer), "raw", raw.offer, hear=True, speak=speak)
    raw.take(answer.sdp)
    return answer.csrc


async def nothing_comes(raw: RawPeer, through: socket.socket | None = None) -> None:
    with pytest.raises(TimeoutError):
        await raw.receive(through, within_s=SOON_S)


async def test_only_a_check_that_holds_is_answered(relay: tuple[Workers, Witness], raw: RawPeer) -> None:
    workers, _ = relay
    await join(workers, raw)
    good = raw.check_message()
    no_fingerprint = good[:2] + (len(good) - 28).to_bytes(2, "big") + good[4:-8]
    flipped = bytearray(good)
    flipped[-1] ^= 1
    for bad in (
        raw.check_message(password="not the password"),
        stun.binding_request(f"nobody:{raw.ufrag}", raw.remote_password.encode(), controlling=True),
        stun.binding_request(f"{raw.remote_ufrag}:other", raw.remote_password.encode(), controlling=True),
        no_fingerprint,
        bytes(flipped),
        good[:60],
        b"\x00\x01\x00\x00" + stun.COOKIE.to_bytes(4, "big") + os.urandom(12),  # a bare Binding request
    ):
        raw.send(bad)
    await nothing_comes(raw)
    assert (await workers.stats()).worker.stun_refused == 7
    raw.send(good)
    answer = stun.parse(await raw.receive())
    assert answer is not None
    assert answer.is_response
    assert answer.signed_by(raw.remote_password.encode())
    await workers.leave(PeerId("raw"))
    raw.send(raw.check_message())
    await nothing_comes(raw)  # ufrags exist only for peers that have joined


async def test_a_peer_that_wants_to_be_controlled_is_told(relay: tuple[Workers, Witness], raw: RawPeer) -> None:
    workers, _ = relay
    await join(workers, raw)
    username = f"{raw.remote_ufrag}:{raw.ufrag}"
    raw.send(stun.binding_request(username, raw.remote_password.encode(), controlling=False))
    answer = await raw.receive()
    assert answer[:2] == b"\x01\x11"
    assert b"\x00\x00\x04\x57" in answer  # 487


async def test_no_dtls_without_a_check_and_little_before_the_handshake(
    relay: tuple[Workers, Witness], raw: RawPeer
) -> None:
    workers, _ = relay
    await join(workers, raw)
    hello = raw.client_hello()
    raw.send(hello)
    await nothing_comes(raw)
    sent = len(raw.check_message())
    await raw.check()
    got = len(stun.success(_parsed(raw.check_message()), ("127.0.0.1", 1), b"x"))
    raw.send(hello)
    sent += len(hello)
    got += await _bytes_until_quiet(raw)  # the relay sends its flight again and again; we stay silent
    assert got > 300
    assert got <= 3 * sent


async def _bytes_until_quiet(raw: RawPeer) -> int:
    got = 0
    while True:
        try:
            got += len(await raw.receive(within_s=2.5))
        except TimeoutError:
            return got


def _parsed(data: bytes) -> stun.Message:
    message = stun.parse(data)
    assert message is not None
    return message


async def test_unknown_certificate_is_refused(relay: tuple[Workers, Witness], raw: RawPeer) -> None:
    workers, witness = relay
    raw.fingerprint = ":".join(["AB"] * 32)
    await join(workers, raw)
    await raw.check()
    with pytest.raises(ConnectionError):
        await raw.handshake()
    assert witness.told == []
    assert not (await workers.stats()).peers[PeerId("raw")].connected


async def test_raw_peer_is_heard_and_hears(relay: tuple[Workers, Witness], raw: RawPeer) -> None:
    """RTP as it should be: own SSRC, contiguous numbering over silence, marker, CSRC, level, SR with CNAME, BYE."""
    workers, witness = relay
    await join(workers, raw, speak=False)
    await raw.check()
    await raw.handshake()
    await witness.until(lambda: ("connected", "raw") in witness.told, "peer_connected")
    first, second = await raw.packet(), await raw.packet()
    assert (second.sequence - first.sequence) & 0xFFFF == 1
    assert 45 * 960 <= (second.timestamp - first.timestamp) & 0xFFFF_FFFF <= 60 * 960
    assert first.ssrc == second.ssrc
    assert len(first.payload) == 1
    async with on_stage(workers, ("ava", True)) as (ava,):
        ava.client.say(440)
        async with asyncio.timeout(HANG_S):
            while len((packet := await raw.packet()).payload) < 10:
                second = packet
        assert packet.csrcs == (ava.answer.csrc,)
        assert packet.marker
        assert not second.marker
        following = await raw.packet()
        assert (following.sequence - packet.sequence) & 0xFFFF == 1
        assert (following.timestamp - packet.timestamp) & 0xFFFF_FFFF == opus.samples_in(packet.payload)
        report = await raw.report()
        info = rtcp.parse(report).info
        assert info is not None
        assert info.ssrc == packet.ssrc
        assert report[28 + 1] == 202  # SDES follows the sender's report of 28 bytes
    raw.tell_loss(packet.ssrc, 0.25, info.ntp_middle)

    async def counted() -> bool:
        return (await workers.stats()).peers[PeerId("raw")].rtt_s is not None

    await until(counted, "the round trip")
    stats = (await workers.stats()).peers[PeerId("raw")]
    assert stats.remote_loss == 0.25
    await workers.leave(PeerId("raw"))
    assert b"\x81\xcb\x00\x01" + packet.ssrc.to_bytes(4, "big") in await raw.report()


async def test_address_moves_only_by_a_check_that_holds(relay: tuple[Workers, Witness], raw: RawPeer) -> None:
    """… and media to a new address that does not answer our own check stops after a second (decisions 1.10)."""
    workers, _ = relay
    await join(workers, raw, speak=False)
    await raw.check()
    await raw.handshake()
    other = raw.new_socket()
    try:
        async with on_stage(workers, ("ava", True)) as (ava,):
            ava.client.say(440)
            await raw.packet()
            raw.send(raw.check_message(password="not the password"), other)
            raw.send(raw.protect(raw.voice(880, 1)[0]), other)  # right SRTP, wrong address
            await nothing_comes(raw, other)
            await raw.packet()

            raw.answers_checks = False
            await raw.check(other, nominate=False)
            with pytest.raises(TimeoutError):
                await raw.packet(other, within_s=SOON_S)  # only a nomination moves it
            await raw.check(other)
            await raw.packet(other)
            seen = raw.checks_seen
            first = await raw.packet(other)
            last = await _media_ends(raw, other)
            assert raw.checks_seen > seen
            assert (last.timestamp - first.timestamp) & 0xFFFF_FFFF < 1.5 * 48_000  # the relay looks each 100 ms or so
            raw.answers_checks = True
            await raw.packet(other)
            for _ in range(100):  # for two seconds: longer than an unverified address would get
                await raw.packet(other)
    finally:
        other.close()


async def _media_ends(raw: RawPeer, through: socket.socket) -> rtp.Packet:
    """The last media packet before there is none for two seconds. Raises TimeoutError if it never ends."""
    async with asyncio.timeout(HANG_S):
        packet = await raw.packet(through)
        while True:
            try:
                packet = await raw.packet(through, within_s=2)
            except TimeoutError:
                return packet


async def test_over_ipv6(raw: RawPeer) -> None:
    """Real UDP from end to end: heard, hears, and followed to another address."""
    workers = Workers(WorkerSettings(bind="::1"), Witness())
    await workers.start()
    try:
        await join(workers, raw)
        await raw.check()
        await raw.handshake()
        for payload in raw.voice(440, 20):
            raw.send(raw.protect(payload))

        async def heard() -> bool:
            return (await workers.stats()).peers[PeerId("raw")].decoded == 20

        await until(heard, "the voice")
        with raw.new_socket() as other:
            await raw.check(other)
            assert (await raw.packet(other)).ssrc == (await raw.packet(other)).ssrc
        assert (await workers.stats()).worker.send_errors == 0
    finally:
        await workers.close()


async def test_ice_restart_by_a_second_offer(relay: tuple[Workers, Witness], raw: RawPeer) -> None:
    workers, witness = relay
    csrc = await join(workers, raw, speak=False)
    await raw.check()
    await raw.handshake()
    async with on_stage(workers, ("ava", True)) as (ava,):
        ava.client.say(440)
        old = (raw.remote_ufrag, raw.remote_password, raw.ufrag)
        ssrc = (await raw.packet()).ssrc
        raw.new_credentials()
        assert await join(workers, raw, speak=False) == csrc
        assert raw.remote_ufrag != old[0]
        assert (await raw.packet()).ssrc == ssrc  # the old pair goes on until the new one is nominated
        elsewhere = raw.new_socket()
        try:
            await raw.check(elsewhere)
            assert (await raw.packet(elsewhere)).ssrc == ssrc
            raw.send(stun.binding_request(f"{old[0]}:{old[2]}", old[1].encode(), controlling=True), elsewhere)
            for _ in range(10):
                await raw.packet(elsewhere)
        finally:
            elsewhere.close()
        assert (await workers.stats()).worker.stun_refused == 1  # the old credentials are void now
    assert [each for each in witness.told if each == ("connected", "raw")] == [("connected", "raw")]


async def test_junk_datagrams_disturb_nothing(relay: tuple[Workers, Witness], raw: RawPeer) -> None:
    workers, _ = relay
    await join(workers, raw)
    await raw.check()
    await raw.handshake()
    async with on_stage(workers, ("ava", True), ("ben", False)) as (ava, ben):
        ava.client.say(440)
        await ben.client.hear(loud(440))
        stranger = raw.new_socket()
        good = raw.protect(raw.voice(880, 1)[0])
        try:
            for number in range(3000):
                junk = bytes((secrets.choice((0, 1, 22, 128, 144, 200, 255)),)) + secrets.token_bytes(number % 200)
                raw.send(junk, stranger if number % 2 else None)
                if number % 7 == 0:
                    raw.send(good[: number % len(good)])
                if number % 100 == 0:
                    await asyncio.sleep(0)
        finally:
            stranger.close()
        await ben.client.hear(lambda heard: ratio_at(heard, 440) > 30, window_s=1)
        raw.send(raw.protect(b""))  # authenticated, but no sound in it
        raw.send(raw.protect(b"\xff" * 3))
        raw.send(raw.protect(b"\x05\x80\x00\x00", payload_type=110))
        heard = await ben.client.hear(lambda heard: ratio_at(heard, 440) > 30, window_s=1)
        assert loud(440)(heard)
        stats = await workers.stats()
        assert stats.worker.tick_errors == 0
        assert stats.worker.junk > 500
        assert stats.peers[PeerId("raw")].refused > 100


async def test_kill_9_of_the_worker(relay: tuple[Workers, Witness]) -> None:
    workers, witness = relay
    async with on_stage(workers, ("ava", True), ("ben", False)) as (ava, ben):
        ava.client.say(440)
        await ben.client.hear(loud(440))
        before = (await workers.stats()).worker
        os.kill(before.pid, signal.SIGKILL)
        for person in (ava, ben):
            await witness.until(lambda peer=person.peer: ("gone", peer, "worker") in witness.told, "gone")  # type: ignore[misc]
        with pytest.raises(NotFound):
            await workers.gate(ava.peer, hear=True, speak=True)
        again = [await enter(workers, "stage", "ava", speak=True), await enter(workers, "stage", "ben", speak=False)]
        try:
            again[0].client.say(660)
            await again[1].client.hear(loud(660))
            after = (await workers.stats()).worker
            assert (after.port, workers.restarts) == (before.port, 1)
            assert after.pid != before.pid
        finally:
            for person in again:
                await person.client.close()


async def test_silent_peer_gets_nothing_then_is_dropped(raw: RawPeer) -> None:
    witness = Witness()
    workers = Workers(WorkerSettings(silent_s=1.0, gone_s=6.0), witness)
    await workers.start()
    try:
        await join(workers, raw, speak=False)
        await raw.check()
        await raw.handshake()
        async with on_stage(workers, ("ava", True)) as (ava,):
            ava.client.say(440)
            for _ in range(100):  # RTP alone, for two seconds: it is a sign of life
                await raw.packet()
                raw.send(raw.protect(b"\xf8"))
            await _media_ends(raw, raw.main)
            assert ("gone", "raw", "timeout") not in witness.told
            await raw.check()
            await raw.packet()  # back at once
            await witness.until(lambda: ("gone", "raw", "timeout") in witness.told, "timeout")
            assert set((await workers.stats()).peers) == {ava.peer}
    finally:
        await workers.close()


async def test_a_peer_that_only_sends_gets_no_sound(relay: tuple[Workers, Witness], raw: RawPeer) -> None:
    workers, _ = relay
    raw.direction = "sendonly"
    await join(workers, raw)
    await raw.check()
    await raw.handshake()
    async with on_stage(workers, ("ben", True)) as (ben,):
        ben.client.say(660)
        for payload in raw.voice(440, 100):
            raw.send(raw.protect(payload))
            await asyncio.sleep(0.02)
        await ben.client.hear(loud(440), window_s=2)
        with pytest.raises(TimeoutError):
            await raw.packet(within_s=SOON_S)
        assert rtp.is_rtcp(await raw.report())


async def test_one_source_at_a_time_and_few_in_all(relay: tuple[Workers, Witness], raw: RawPeer) -> None:
    """A peer's second SSRC is not mixed in while the first speaks; libsrtp's state for sources is bounded."""
    workers, witness = relay
    csrc = await join(workers, raw)
    await raw.check()
    await raw.handshake()

    async def stats() -> PeerStats:
        return (await workers.stats()).peers[PeerId("raw")]

    voice = raw.voice(440, 20)
    for payload in voice:
        raw.send(raw.protect(payload, level=127))  # claims to be silent (RFC 6464)

    async def decoded() -> bool:
        return (await stats()).decoded == 20

    await until(decoded, "the voice")
    await witness.until(lambda: bool(witness.levels_told), "levels")
    told = witness.levels_told[0][2]  # as the sine is heard, whatever the packets claim
    assert told == {csrc: pytest.approx(15, abs=4)}
    first = raw.ssrc
    for number in range(20):
        raw.ssrc = first
        raw.send(raw.protect(b"\xf8"))
        raw.ssrc = first + 1 + number % 10 & 0xFFFF_FFFF
        raw.send(raw.protect(voice[number]))

    async def all_in() -> bool:
        seen = await stats()
        return seen.ignored == 20

    await until(all_in, "the other sources")
    seen = await stats()
    assert seen.packets_in == 20 + 20 + 6  # three sources more were authenticated, two packets of each
    assert seen.refused == 0


async def test_keys_of_a_telephone_are_told_whoever_may_speak(relay: tuple[Workers, Witness], raw: RawPeer) -> None:
    """telephone-event (RFC 4733) is answered where it was offered, told once a press, and never sound."""
    workers, witness = relay
    answer = await workers.join(STAGE, PeerId("raw"), "raw", raw.offer, hear=True, speak=False)
    raw.take(answer.sdp)
    assert "a=rtpmap:110 telephone-event/48000\r\n" in answer.sdp
    await raw.check()
    await raw.handshake()
    for event in (1, 11):
        at = raw.timestamp
        for number in range(8):
            raw.timestamp = at
            raw.send(raw.protect(bytes([event, 0x80 * (number > 4) | 10, 0, 160]), payload_type=110))
        raw.timestamp = at + 9_600 & 0xFFFF_FFFF
    await witness.until(lambda: ("pressed", "raw", "#") in witness.told, "the second key")
    assert [each for each in witness.told if each[0] == "pressed"] == [("pressed", "raw", "1"), ("pressed", "raw", "#")]
    await workers.gate(PeerId("raw"), hear=True, speak=True)
    raw.send(raw.protect(bytes([2, 10, 0, 160]), payload_type=110))
    await witness.until(lambda: ("pressed", "raw", "2") in witness.told, "a key of who may speak")
    assert (await workers.stats()).peers[PeerId("raw")].decoded == 0


async def test_listeners_get_sixty_milliseconds_and_speakers_twenty(
    relay: tuple[Workers, Witness], raw: RawPeer
) -> None:
    """… and nothing is lost or comes twice when somebody is promoted, or steps down."""
    workers, _ = relay
    await join(workers, raw, speak=False)
    await raw.check()
    await raw.handshake()
    async with on_stage(workers, ("ava", True)) as (ava,):
        ava.client.say(440)
        packets = [await raw.packet()]

        async def row_of(samples: int, count: int = 10) -> None:
            async with asyncio.timeout(HANG_S):
                while {opus.samples_in(each.payload) for each in packets[-count:]} != {samples}:
                    packets.append(await raw.packet())

        await row_of(2880)
        for speak, samples in ((True, 960), (False, 2880)):
            await workers.gate(PeerId("raw"), hear=True, speak=speak)
            await row_of(samples)
    start = next(number for number, each in enumerate(packets) if opus.samples_in(each.payload) == 2880)
    for packet, following in itertools.pairwise(packets[start:]):
        assert (following.sequence - packet.sequence) & 0xFFFF == 1
        if len(packet.payload) > 1:  # else the talker, a client of Python, had stalled: nothing is sent for a while
            assert (following.timestamp - packet.timestamp) & 0xFFFF_FFFF == opus.samples_in(packet.payload)


async def test_nobody_gets_more_in_a_packet_than_they_take(relay: tuple[Workers, Witness], raw: RawPeer) -> None:
    workers, _ = relay
    raw.max_ptime = 40
    await join(workers, raw, speak=False)
    await raw.check()
    await raw.handshake()
    async with on_stage(workers, ("ava", True)) as (ava,):
        ava.client.say(440)
        lengths = [opus.samples_in((await raw.packet()).payload) for _ in range(60)]
        assert max(lengths) == 1920


async def test_limits_and_taken_port() -> None:
    witness = Witness()
    workers = Workers(WorkerSettings(max_peers=1), witness)
    await workers.start()
    try:
        first, second = RawPeer(), RawPeer()
        await join(workers, first, peer="first")
        with pytest.raises(Full):
            await join(workers, second, peer="second")
        await workers.leave(PeerId("first"))
        await join(workers, second, peer="second")
        first.close()
        second.close()
        with pytest.raises(ConfigError, match=str(workers.port)):
            await Workers(WorkerSettings(port=workers.port), witness).start()
    finally:
        await workers.close()
        await workers.close()


async def test_bandwidth_is_a_limit_and_who_may_speak_has_a_place() -> None:
    """Nobody is connected yet: places count from the answer on, so that a storm of joins does not pass by the limit."""
    workers = Workers(WorkerSettings(max_mbit=0.5), Witness())
    await workers.start()
    raws = [RawPeer() for _ in range(11)]
    try:
        for number in range(8):  # 0.0565 each; a twentieth is kept
            await join(workers, raws[number], speak=False, peer=f"p{number}")
        with pytest.raises(Full, match=r"0\.5 Mbit/s") as caught:
            await join(workers, raws[8], speak=False, peer="p8")
        assert caught.value.retry_after_ms == 10_000
        await join(workers, raws[0], speak=False, peer="p0")  # an ICE restart needs no new place
        await workers.leave(PeerId("p7"))
        host = await workers.join(STAGE, PeerId("host"), "h", raws[9].offer, hear=True, speak=False, may_speak=True)
        assert host.sdp
        with pytest.raises(Full):
            await join(workers, raws[10], speak=False, peer="p10")
        await workers.leave(PeerId("p6"))
        await join(workers, raws[10], speak=False, peer="p10")
    finally:
        for each in raws:
            each.close()
        await workers.close()


async def test_nearly_full_a_new_listener_hears_the_same_for_half_the_bits() -> None:
    workers = Workers(WorkerSettings(max_mbit=0.6), Witness(), count=2)
    await workers.start()
    raws = [RawPeer() for _ in range(7)]
    try:
        for number, raw in enumerate(raws):  # 0.0565 each
            await join(workers, raw, speak=False, peer=f"p{number}")
        async with on_stage(workers, ("ava", True), ("early", False), stage="stage") as (ava, early):
            late = await enter(workers, STAGE, "late", speak=False)
            try:
                ava.client.say(440)
                for each in (early, late):
                    await each.client.hear(loud(440))

                async def half() -> bool:
                    peers = (await workers.stats()).peers
                    full, low = peers[early.peer], peers[late.peer]
                    return 0.3 < (low.bytes_out / low.packets_out) / (full.bytes_out / full.packets_out) < 0.75

                await until(half, "packets of half the size")
            finally:
                await late.client.close()
    finally:
        for raw in raws:
            raw.close()
        await workers.close()


async def test_what_is_sent_is_measured_with_its_headers(relay: tuple[Workers, Witness], raw: RawPeer) -> None:
    workers, _ = relay
    await join(workers, raw, speak=False)
    await raw.check()
    await raw.handshake()
    async with on_stage(workers, ("ava", True)) as (ava,):
        ava.client.say(440)

        async def as_a_listener_takes() -> bool:
            raw.send(raw.check_message())
            stats = await workers.stats()
            of_raw = stats.peers[PeerId("raw")]
            headers = 28 * of_raw.packets_out
            share = (of_raw.bytes_out + headers) / sum(
                each.bytes_out + 28 * each.packets_out for each in stats.peers.values()
            )
            return 0.04 < stats.worker.out_mbit * share < 0.08

        await until(as_a_listener_takes, "57 kbit/s")


async def test_a_quick_row_of_gate_changes_ends_as_the_last_said(relay: tuple[Workers, Witness]) -> None:
    workers, _ = relay
    async with on_stage(workers, ("ava", True), ("ben", False)) as (ava, ben):
        ava.client.say(440)
        await ben.client.hear(loud(440))
        for last in (False, True):
            for number in range(20):
                await workers.gate(ava.peer, hear=True, speak=number % 2 == 0)
            await workers.gate(ava.peer, hear=True, speak=last)
            await ben.client.hear(loud(440) if last else silent)
