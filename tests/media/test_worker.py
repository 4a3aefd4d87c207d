"""The worker process itself: what travels to it, and that it ends with its parent."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from pathlib import Path

import pytest

from bridge.errors import BadInput, ConfigError, Full, NotFound, Unavailable
from bridge.ids import PeerId, StageId
from bridge.media import control, counters, link, sdp, supervisor, udp, worker
from bridge.media.control import WorkerSettings
from bridge.media.workers import Workers
from tests.helpers.raw_peer import RawPeer
from tests.helpers.relay import HANG_S, Witness

MESSAGES: list[control.Message] = [
    control.Start(WorkerSettings(announce=("192.0.2.1", "2001:db8::1"))),
    control.Join(1, "stage", "peer", "@ava:example.org", "v=0 ‹ü›", True, False),
    control.Gate(2, "peer", False, True),
    control.Leave(3, "peer"),
    control.CloseStage(4, "stage"),
    control.GetStats(5),
    control.Hush(6, "stage", 2**32 - 1),
    control.Home(7, "stage", 3, (0, 5)),
    control.Tune(8, "stage", "music", (("ava", "ben"), ("cem",))),
    control.Ping(9),
    control.Started(7400, ("192.0.2.1",)),
    control.Frames("stage", 5, ("aa", "bb")),
    control.Failed("no"),
    control.Connected("peer"),
    control.Gone("peer", "timeout"),
    control.LevelsNow("stage", {"7": 20}),
    control.Reply(1, None, "v=0", 7),
]


@pytest.mark.parametrize("message", MESSAGES, ids=lambda each: type(each).__name__)
async def test_messages_survive_the_socket(message: control.Message) -> None:
    reader = asyncio.StreamReader()
    reader.feed_data(control.encode(message) * 2)
    reader.feed_eof()
    assert await control.read(reader) == message
    assert await control.read(reader) == message
    assert await control.read(reader) is None


async def test_strange_frames_are_a_defect() -> None:
    reader = asyncio.StreamReader()
    reader.feed_data(b"\xff\xff\xff\xff")
    with pytest.raises(ValueError, match="bytes"):
        await control.read(reader)
    with pytest.raises(ValueError, match="unknown"):
        control.decode(b'{"t": "Nonsense"}')


@pytest.mark.parametrize(
    "error",
    [BadInput("offer a=setup", "x", "remedy"), BadInput("offer", None, "r"), Full("full", 9), NotFound("gone")],
)
def test_errors_survive(error: BadInput) -> None:
    again = control.error_from(control.error_to(error))
    assert type(again) is type(error)
    assert str(again) == str(error)


def test_stats_survive() -> None:
    voices = (counters.VoiceStats("stage", 7, {"decoded": 5}),)
    peers = {"p": counters.PeerStats(stage="stage", csrc=7, gated=3, rtt_s=0.5)}
    stats = counters.Stats(counters.WorkerCounters(pid=5), peers, voices)
    reply = control.decode(control.encode(control.Reply(1, stats=control.plain(stats)))[4:])
    assert isinstance(reply, control.Reply)
    assert reply.stats is not None
    assert counters.stats_from(reply.stats) == stats


def test_a_speaker_is_counted_where_the_mix_is() -> None:
    here = counters.Stats(
        counters.WorkerCounters(pid=1), {"p": counters.PeerStats(stage="s", csrc=7, gated=3), "q": counters.PeerStats()}
    )
    home = counters.Stats(
        counters.WorkerCounters(pid=2),
        {"r": counters.PeerStats(stage="s", csrc=8, decoded=1)},
        (counters.VoiceStats("s", 7, {"decoded": 5, "lost": 2}), counters.VoiceStats("s", 99, {"decoded": 6})),
    )
    whole = counters.merged({1: here, 0: home})
    assert whole.peers == {
        "p": counters.PeerStats(stage="s", csrc=7, gated=3, decoded=5, lost=2),
        "q": counters.PeerStats(),
        "r": counters.PeerStats(stage="s", csrc=8, decoded=1),
    }
    assert (whole.worker.pid, {number: each.pid for number, each in whole.workers.items()}) == (2, {0: 2, 1: 1})


async def test_counters_of_many_peers_come_in_pages() -> None:
    workers = Workers(WorkerSettings(), Witness())
    await workers.start()
    raw = RawPeer()
    try:
        names = [PeerId(f"p{number}") for number in range(control.STATS_PAGE + 7)]
        for name in names:
            await workers.join(StageId("s"), name, name, raw.offer, hear=True, speak=False)
        assert list((await workers.stats()).peers) == names
        for name in names[control.STATS_PAGE :]:
            await workers.leave(name)
        assert len((await workers.stats()).peers) == control.STATS_PAGE
    finally:
        raw.close()
        await workers.close()


def test_addresses() -> None:
    found = udp.addresses_of_interfaces()
    assert found
    assert "127.0.0.1" not in found or found == ["127.0.0.1"]
    assert not any(each.startswith("fe80") for each in found)
    assert udp.announced("", ("203.0.113.5",), {4, 6}) == ("203.0.113.5",)
    assert udp.announced("127.0.0.1", (), {4}) == ("127.0.0.1",)
    assert all(":" not in each for each in udp.announced("0.0.0.0", (), {4}))
    with pytest.raises(ValueError, match="does not appear"):
        udp.announced("", ("relay.example.org",), {4})
    with pytest.raises(ValueError, match=r"media\.announce"):
        udp.announced("127.0.0.1", (), {6})


def test_both_families_share_one_port() -> None:
    port = udp.Port("", 0)
    try:
        assert {each.getsockname()[1] for each in port._sockets} == {port.port}
        port.send(b"x", ("203.0.113.1", 0))  # an impossible port is counted, not raised
        assert port.send_errors == 1
    finally:
        port.close()
        port.close()


async def test_a_bad_announcement_stops_the_start() -> None:
    with pytest.raises(ConfigError, match=r"relay\.example"):
        await Workers(WorkerSettings(announce=("relay.example",)), Witness()).start()
    with pytest.raises(ConfigError, match=r"203\.0\.113\.77"):
        await Workers(WorkerSettings(bind="203.0.113.77"), Witness()).start()


async def test_nothing_is_taken_before_start_or_after_close() -> None:
    workers = Workers(WorkerSettings(), Witness())
    raw = RawPeer()
    for _ in range(2):
        with pytest.raises(Unavailable):
            await workers.join(StageId("s"), PeerId("p"), "o", raw.offer, hear=True, speak=True)
        await workers.leave(PeerId("p"))
        await workers.close_stage(StageId("s"))
        with pytest.raises(NotFound):
            await workers.gate(PeerId("p"), hear=True, speak=True)
        await workers.close()
    raw.close()


PARENT = """
import asyncio, sys
from bridge.media.control import WorkerSettings
from bridge.media.workers import Workers
class Nobody:
    def peer_connected(self, peer): pass
    def peer_gone(self, peer, reason): pass
    def peer_pressed(self, peer, key): pass
    def levels(self, stage, levels): pass
async def main():
    workers = Workers(WorkerSettings(), Nobody())
    await workers.start()
    print((await workers.stats()).worker.pid, flush=True)
    await asyncio.sleep(600)
asyncio.run(main())
"""


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
async def test_the_worker_dies_with_its_parent(how: signal.Signals) -> None:
    root = Path(__file__).parents[2]
    parent = await asyncio.create_subprocess_exec(
        sys.executable, "-c", PARENT, cwd=root, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL
    )
    assert parent.stdout is not None
    pid = int(await asyncio.wait_for(parent.stdout.readline(), HANG_S))
    assert _alive(pid)
    parent.send_signal(how)
    await parent.wait()
    async with asyncio.timeout(HANG_S):
        while _alive(pid):  # noqa: ASYNC110
            await asyncio.sleep(0.02)


def _alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state != "Z"


async def test_a_worker_that_answers_nothing_any_more_is_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    witness = Witness()
    workers = Workers(WorkerSettings(), witness)
    await workers.start()
    raw = RawPeer()
    try:
        await workers.join(StageId("s"), PeerId("p"), "o", raw.offer, hear=True, speak=False)
        pid = (await workers.stats()).worker.pid
        monkeypatch.setattr(supervisor, "_LOOK_S", 0.01)
        monkeypatch.setattr(link, "ANSWER_S", 2.0)
        os.kill(pid, signal.SIGSTOP)
        await witness.until(lambda: ("gone", "p", "worker") in witness.told, "gone")
        monkeypatch.undo()
        assert (await workers.stats()).worker.pid != pid
        assert workers.restarts == 1
    finally:
        raw.close()
        await workers.close()


async def test_a_stopped_worker_catches_up_without_a_flood() -> None:
    """SIGSTOP for half a second: ticks are skipped, not run 25 times in a row."""
    workers = Workers(WorkerSettings(), Witness())
    await workers.start()
    try:
        before = (await workers.stats()).worker
        os.kill(before.pid, signal.SIGSTOP)
        await asyncio.sleep(0.5)
        os.kill(before.pid, signal.SIGCONT)
        after = (await workers.stats()).worker
        assert after.ticks_skipped - before.ticks_skipped >= 15
        assert after.tick_errors == 0
    finally:
        await workers.close()


async def test_a_request_that_fails_in_the_worker_ends_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """The worker carries everybody's sound: a defect in one request is an answer to that request."""
    engine = worker.Worker(WorkerSettings(bind="127.0.0.1", announce=("127.0.0.1",)), lambda message: None)
    try:
        monkeypatch.setattr(sdp, "parse", lambda text: 1 // 0)
        reply = engine.handle(control.Join(7, "stage", "peer", "owner", "v=0", True, False))
        assert reply is not None
        assert reply.error is not None
        assert (reply.id, reply.error["kind"]) == (7, "Unavailable")
        after = engine.handle(control.GetStats(8))
        assert after is not None
        assert after.stats is not None
    finally:
        engine.close()
