"""The control side of the relay: where everybody is, and what the workers are told (supervisor.py runs them).

Implements ``bridge.live.ports.Media`` (by shape). A peer's sound comes in and goes out at one worker, and its gate is
there; a stage is mixed at its home worker (placement.py). The workers pass voices and mixes to each other over their
trunk (trunk.py).
"""

from __future__ import annotations

import asyncio
import binascii
import logging
import socket
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Protocol

from bridge.errors import EyvanError, NotFound, Ours, Unavailable
from bridge.ids import PeerId, StageId
from bridge.media.admission import Admission, Load
from bridge.media.control import (
    STATS_PAGE,
    CloseStage,
    Connected,
    Frames,
    Gate,
    GetStats,
    Gone,
    Home,
    Hush,
    Join,
    Leave,
    LeaveOut,
    LevelsNow,
    MakeOffer,
    Message,
    Pressed,
    Sending,
    Sound,
    Stream,
    Tune,
    WorkerSettings,
    bitrate_of,
)
from bridge.media.counters import PeerStats, Stats, merged, stats_from
from bridge.media.left_out import LeftOut
from bridge.media.link import Link
from bridge.media.placement import Placement, Route, Seat
from bridge.media.supervisor import Supervisor
from bridge.media.trunk import CONNECTION

log = logging.getLogger("eyvan.media")

Take = Callable[[int, Sequence[bytes]], None]
"""(tick of the first, consecutive Opus frames of 20 ms). Called from the relay's own task; returns at once."""


class Listener(Protocol):
    """``bridge.live.ports.MediaListener``; called from the relay's own task."""

    def peer_connected(self, peer: PeerId) -> None: ...

    def peer_gone(self, peer: PeerId, reason: str) -> None: ...

    def peer_pressed(self, peer: PeerId, key: str) -> None: ...

    def levels(self, stage: StageId, levels: Mapping[int, int]) -> None: ...


@dataclass(frozen=True, slots=True)
class Answer:
    """``bridge.live.ports.Answer``."""

    sdp: str
    csrc: int


class Workers:
    """The relay. Owns the supervisor of its workers; ``close`` ends both."""

    def __init__(self, settings: WorkerSettings, listener: Listener, count: int = 1) -> None:
        """``count`` workers (1 … 64). Each has a port of its own: ``settings.port`` and those that follow it, or any
        free ones where that is 0."""
        self._settings = settings
        self._listener = listener
        self._supervisor = Supervisor(settings, count, self)
        self._placement = Placement()
        self._admission = Admission(settings.max_peers, settings.max_mbit)
        self._sending: dict[int, float] = {}  # Mbit/s of each worker, where there is a limit
        self._told: dict[str, Route] = {}  # the routes as the workers know them
        self._taps: dict[StageId, Take] = {}
        self._sounds: dict[str, Sound] = {}  # of stages that are not for voices
        self._left_out = LeftOut()

    @property
    def port(self) -> int:
        """The UDP port of the first worker, known after ``start``."""
        return self.ports[0]

    @property
    def ports(self) -> tuple[int, ...]:
        """Of all workers; a worker that is started again takes its port again."""
        return self._supervisor.ports

    @property
    def addresses(self) -> tuple[str, ...]:
        """Those of our candidates, known after ``start``."""
        return self._supervisor.addresses

    @property
    def restarts(self) -> int:
        return self._supervisor.restarts

    async def start(self) -> None:
        """Raises ConfigError naming the port, Unavailable. Returns when sound can flow."""
        await self._supervisor.start()

    async def close(self) -> None:
        """Say goodbye to all peers, end the workers, join the tasks. Harmless twice."""
        await self._supervisor.close()

    # -- what the supervisor tells ---------------------------------------------------------------

    def worker_came(self, number: int) -> None:
        for stage in self._placement.came(number):
            self._tell_route(stage)

    def worker_died(self, number: int) -> None:
        """First who mixes for the others now, which makes their silence short; then its own peers."""
        self._sending.pop(number, None)
        lost, touched = self._placement.died(number)
        for peer in lost:
            self._left_out.gone(peer)
        for stage in touched:
            self._tell_route(stage)
        for peer in lost:
            self._tell(self._listener.peer_gone, PeerId(peer), "worker")

    def worker_says(self, number: int, message: Message) -> None:
        match message:
            case Connected():
                self._tell(self._listener.peer_connected, PeerId(message.peer))
            case Gone():
                seat = self._placement.seat(message.peer)
                if seat is not None and seat.worker == number:
                    self._forget(message.peer)
                    self._tell(self._listener.peer_gone, PeerId(message.peer), message.reason)
            case Pressed():
                self._tell(self._listener.peer_pressed, PeerId(message.peer), message.key)
            case Sending():
                self._sending[number] = message.mbit
            case LevelsNow():
                levels = {int(csrc): level for csrc, level in message.levels.items()}
                self._tell(self._listener.levels, StageId(message.stage), levels)
            case Frames():
                take = self._taps.get(StageId(message.stage))
                if take is not None:
                    self._tell(take, message.tick, [binascii.a2b_base64(each) for each in message.frames])
            case _:
                log.error("unexpected message of the media worker: %s", type(message).__name__)

    @staticmethod
    def _tell(call: Callable[..., None], *values: object) -> None:
        try:
            call(*values)
        except Exception:
            log.exception("the media listener failed in %s", call.__name__)

    # -- routes ----------------------------------------------------------------------------------

    def _post(self, worker: int | None, message: Message) -> None:
        """To a worker that runs; one that does not has forgotten everything anyway."""
        if (link := self._supervisor.link(worker)) is not None:
            link.post(message)

    def _tell_route(self, stage: str) -> None:
        """Tell the workers concerned who mixes a stage and for whom, where that has changed."""
        before, now = self._told.get(stage, Route(None)), self._placement.route(stage)
        if before == now:
            return
        if now.home is None:
            del self._told[stage]
            self._post(before.home, Home(0, stage, before.home or 0))  # it may mix for others only
        else:
            self._told[stage] = now
            for worker in now.all:
                self._post(worker, Home(0, stage, now.home, now.others))
        if before.home != now.home and StageId(stage) in self._taps:
            self._post(before.home, Stream(0, stage, False))
            self._post(now.home, Stream(0, stage, True))
        if now.home is not None:
            self._tell_sound(stage)

    def _tune(self, number: int, stage: str) -> Tune:
        ears = tuple(sorted(tuple(sorted(each)) for each in self._left_out.ears(stage)))
        return Tune(number, stage, self._sounds.get(stage, "voice"), ears)

    def _tell_sound(self, stage: str) -> None:
        for worker in self._placement.route(stage).all:
            self._post(worker, self._tune(0, stage))

    def _forget(self, peer: str) -> Seat | None:
        seat = self._placement.leave(peer)
        if seat is not None:
            changed = self._left_out.gone(peer)
            self._tell_route(seat.stage)
            if changed is not None:
                self._tell_sound(changed)
        return seat

    def _link_of(self, seat: Seat) -> Link:
        link = self._supervisor.link(seat.worker)
        if link is None:
            raise Unavailable("the media worker is starting again")
        return link

    def take_connection(self, worker: int, connection: socket.socket) -> bool:
        """Give somebody's TCP connection to the worker that its first frame names; the caller closes its own end. False
        where no such worker runs, or it stands still."""
        link = self._supervisor.link(worker)
        if link is None or link.closed:
            return False
        try:
            link.hand_over(connection, CONNECTION)
        except OSError:
            return False
        return True

    # -- live.ports.Media ------------------------------------------------------------------------

    async def offer(self, stage: StageId, peer: PeerId) -> str:
        """The peer has its seat from now on, where its answer will be taken."""
        await self._supervisor.until_one_runs()
        self._admit(stage, speak=False, may_speak=True)  # whom we call
        seat = self._placement.join(stage, peer, speak=False)
        if seat is None:
            raise Unavailable("the media worker is starting again")
        try:
            return (await self._link_of(seat).request(MakeOffer)).sdp
        except BaseException:
            self._forget(peer)
            raise

    def _admit(self, stage: StageId, *, speak: bool, may_speak: bool) -> bool:
        """Whether it takes a low bitrate: the bandwidth is nearly full, and the stage is for voices. Raises Full."""
        present = [
            load
            for name, speakers, others in self._placement.counts()
            for load in self._loads(StageId(name), speakers, others)
        ]
        measured = sum(self._sending.values())
        low = not (speak or may_speak) and self._is_voice(stage) and self._admission.is_tight(present, measured)
        new = self._load(stage, 1, speak=speak, low=low)
        self._admission.check(present, measured, new, may_speak=speak or may_speak)
        return low

    def _is_voice(self, stage: StageId) -> bool:
        return stage not in self._sounds

    def _loads(self, stage: StageId, speakers: int, others: int) -> tuple[Load, ...]:
        low = min(self._left_out.saving(stage), others) if self._is_voice(stage) else 0
        return (
            self._load(stage, speakers, speak=True),
            self._load(stage, others - low, speak=False),
            self._load(stage, low, speak=False, low=True),
        )

    def _load(self, stage: StageId, count: int, *, speak: bool, low: bool = False) -> Load:
        sound: Sound = "low" if low else self._sounds.get(stage, "voice")
        bitrate = bitrate_of(sound, self._settings.bitrate)
        return Load(count, bitrate, 20 if speak else self._settings.listener_packet_ms)

    async def join(
        self,
        stage: StageId,
        peer: PeerId,
        owner: str,
        offer: str,
        *,
        hear: bool,
        speak: bool,
        answer_to: str = "",
        may_speak: bool = False,
    ) -> Answer:
        await self._supervisor.until_one_runs()
        seat = self._placement.seat(peer)
        if seat is not None and seat.stage != stage:
            await self.leave(peer)
            seat = None
        is_new = seat is None
        low = is_new and self._admit(stage, speak=speak, may_speak=may_speak)
        seat = self._placement.join(stage, peer, speak=speak)
        if seat is None:
            raise Unavailable("the media worker is starting again")
        self._left_out.joined(stage, peer, owner)
        if low:
            self._left_out.save(peer)
        self._tell_route(stage)
        self._may_speak(peer, seat, speak)
        home = self._placement.route(stage).home
        where, sound = seat, self._sounds.get(stage, "voice")
        try:
            reply = await self._link_of(where).request(
                lambda number: Join(
                    number, stage, peer, owner, offer, hear, speak, where.csrc, home or 0, sound, answer_to
                )
            )
        except BaseException:
            if is_new and self._placement.seat(peer) is seat:
                self._forget(peer)
            raise
        await self._confirm(peer, seat, speak)
        if low:
            await self._tell_left_out(peer, seat)
        return Answer(reply.sdp, reply.csrc)

    async def gate(self, peer: PeerId, *, hear: bool, speak: bool) -> None:
        seat = self._placement.seat(peer)
        if seat is None:
            raise NotFound(f"peer {peer} is not connected to the relay")
        self._may_speak(peer, seat, speak)
        await self._link_of(seat).request(lambda number: Gate(number, peer, hear, speak))
        await self._confirm(peer, seat, speak)

    async def _confirm(self, peer: str, seat: Seat, speak: bool) -> None:
        """The peer's worker has set the gate; where it was shut and another worker mixes, see that this one has let
        go of the voice too before anybody is told so."""
        home = self._placement.route(seat.stage).home
        if self._placement.seat(peer) is not seat or seat.speak == speak:
            return
        self._placement.gate(peer, speak=speak)
        if not speak and home != seat.worker and (link := self._supervisor.link(home)) is not None:
            await self._quietly(link, lambda number: Hush(number, seat.stage, seat.csrc))

    def _may_speak(self, peer: str, seat: Seat, speak: bool) -> None:
        """Before it is heard: who leaves somebody out must not hear oneself either."""
        if speak and self._left_out.may_speak(peer):
            self._tell_sound(seat.stage)

    async def leave_out(self, peer: PeerId, owners: Collection[str]) -> None:
        seat = self._placement.seat(peer)
        if seat is None:
            raise NotFound(f"peer {peer} is not connected to the relay")
        self._left_out.leave_out(peer, owners)
        await self._tell_left_out(peer, seat)

    async def _tell_left_out(self, peer: str, seat: Seat) -> None:
        owners = tuple(sorted(self._left_out.of(peer)))
        self._tell_sound(seat.stage)
        await self._link_of(seat).request(lambda number: LeaveOut(number, peer, owners))

    async def tune(self, stage: StageId, sound: Sound) -> None:
        if sound == "voice":
            self._sounds.pop(stage, None)
        else:
            self._sounds[stage] = sound
        links = [self._supervisor.link(each) for each in self._placement.route(stage).all]
        told = [self._quietly(link, lambda number: self._tune(number, stage)) for link in links if link is not None]
        await asyncio.gather(*told)

    async def leave(self, peer: PeerId) -> None:
        seat = self._forget(peer)
        if seat is not None and (link := self._supervisor.link(seat.worker)) is not None:
            await self._quietly(link, lambda number: Leave(number, peer))

    async def close_stage(self, stage: StageId) -> None:
        links = [self._supervisor.link(each) for each in self._placement.route(stage).all]
        self._sounds.pop(stage, None)
        for peer in self._placement.peers_of(stage):
            self._placement.leave(peer)
            self._left_out.gone(peer)
        closing = [self._quietly(link, lambda number: CloseStage(number, stage)) for link in links if link is not None]
        self._tell_route(stage)
        await asyncio.gather(*closing)

    @staticmethod
    async def _quietly(link: Link, make: Callable[[int], Message]) -> None:
        """A worker that died has let everybody go already."""
        try:
            await link.request(make)
        except Unavailable:
            if not link.closed:
                raise

    def listen(self, stage: StageId, take: Take) -> None:
        """From now on ``take`` gets the stage's shared frames, over restarts of workers too. One a stage."""
        is_new = stage not in self._taps
        self._taps[stage] = take
        self._placement.tap(stage, on=True)
        if is_new and self._told.get(stage, Route(None)).home is not None:
            self._post(self._told[stage].home, Stream(0, stage, True))
        self._tell_route(stage)

    def unlisten(self, stage: StageId) -> None:
        """Harmless twice."""
        if self._taps.pop(stage, None) is not None:
            self._post(self._placement.route(stage).home, Stream(0, stage, False))
            self._placement.tap(stage, on=False)
            self._tell_route(stage)

    async def stats(self) -> Stats:
        """Counters of the workers and of each peer. Raises Unavailable where no worker runs."""
        await self._supervisor.until_one_runs()
        running = self._supervisor.links
        replies = await asyncio.gather(*(self._stats_of(link) for link in running.values()), return_exceptions=True)
        found: dict[int, Stats] = {}
        for number, reply in zip(running, replies, strict=True):
            if isinstance(reply, Stats):
                restarts = self._supervisor.restarts_of(number)
                found[number] = replace(reply, worker=replace(reply.worker, restarts=restarts))
            elif not isinstance(reply, EyvanError):  # else it died meanwhile
                raise reply
        if not found:
            raise Unavailable("the media worker is starting again")
        return merged(found)

    @staticmethod
    async def _stats_of(link: Link) -> Stats:
        """All pages of one worker."""
        pages: list[Stats] = []
        peers: dict[str, PeerStats] = {}
        while not pages or len(pages[-1].peers) == STATS_PAGE:
            first = STATS_PAGE * len(pages)
            reply = await link.request(partial(GetStats, first=first))
            if reply.stats is None:
                raise Ours("the media worker answered without stats")
            pages.append(stats_from(reply.stats))
            peers |= pages[-1].peers
        return replace(pages[0], peers=peers)
