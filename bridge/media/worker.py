"""A media worker: sound is received, mixed and sent here. The composition root of the process that process.py runs.

One asyncio loop: it reads the control socket, the trunk and its port, and runs the 20 ms tick.

    datagram ─▶ demultiplex (RFC 7983) ─▶ peer ─▶ voice          tick: voices ─▶ mixer ─▶ fan-out ─▶ datagrams
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import os
import secrets
import time
from collections import deque
from collections.abc import Callable

from bridge.errors import NotFound, Theirs, Unavailable
from bridge.media import sdp, sdp_offer, stun
from bridge.media.control import (
    STATS_PAGE,
    CloseStage,
    Connected,
    Gate,
    GetStats,
    Gone,
    Home,
    Hush,
    Join,
    Leave,
    LeaveOut,
    MakeOffer,
    Message,
    Ping,
    Pressed,
    Reply,
    Sending,
    Stream,
    Tune,
    WorkerSettings,
    error_to,
    plain,
)
from bridge.media.counters import Stats, WorkerCounters
from bridge.media.dtls import Identities, Identity, Keys
from bridge.media.fanout import Engine, PythonEngine
from bridge.media.fanout_native import NativeEngine, NotThere
from bridge.media.peer import Peer
from bridge.media.stages import Stages
from bridge.media.stun import Address
from bridge.media.tcp import open_port
from bridge.media.trunk import FarVoice
from bridge.media.udp import announced
from bridge.media.voice import Voice

log = logging.getLogger("eyvan.media")

TICK_S = 0.02
_CATCH_UP = 3  # ticks run at once after a stall; more are skipped, or the stall would grow
_CARE_TICKS = 50  # every peer's timers are looked at once a second, a fiftieth of them each tick
_URGENT_TICKS = 5  # … and those in a handshake each 100 ms
_LATENESS = 3000


class Worker:
    """Owns the port, the tick's timer and all peers. ``emit`` takes what the control process is told."""

    def __init__(self, settings: WorkerSettings, emit: Callable[[Message], None]) -> None:
        """Raises OSError (port taken) or ValueError (nothing to announce, no such fan-out)."""
        self.settings = settings
        self._identities = Identities(settings.certificate_s, time.monotonic)
        self._emit = emit
        limit = 2 * settings.max_peers  # a browser opens one for each of its interfaces, and keeps one
        self._port, self._streams = open_port(
            settings.bind, settings.port, tcp=settings.tcp and not settings.tcp_handed, limit=limit
        )
        self.port = self._port.port
        self.tcp_port = settings.tcp_announce_port or self.port if settings.tcp else 0
        self.addresses = announced(settings.bind, settings.announce, self._port.families)
        self._engine = self._choose(settings.fan_out)
        self._seats = itertools.count()
        self._peers: dict[str, Peer] = {}
        self._rota: list[dict[Peer, None]] = [{} for _ in range(_CARE_TICKS)]  # who is looked after at which tick
        self._sent = [0] * _CARE_TICKS  # bytes by those of each rota, in the second before their turn
        self._urgent: dict[Peer, None] = {}
        self.stages = Stages(
            settings,
            self._engine,
            emit,
            lambda: self._loop.time(),
            lambda where: self._defect(where),
            self._streams.adopt,
        )
        self._by_ufrag: dict[str, Peer] = {}
        self._by_address: dict[Address, Peer] = {}
        self._tick = self._first_tick = 0  # of the monotonic clock, the same in all workers
        self._timer: asyncio.TimerHandle | None = None
        self._lateness: deque[float] = deque(maxlen=_LATENESS)
        self._skipped = self._tick_errors = self._stun_refused = self._junk = 0
        self._moved = {"udp": 0, "tcp": 0}
        self._logged_at = 0.0

    def _choose(self, wanted: str) -> Engine:
        """Raises ValueError where C was asked for by name and is not there."""
        reason = "as asked"
        if wanted in ("auto", "c"):
            try:
                engine = NativeEngine(*self._port.descriptors, self.send)
            except NotThere as error:
                reason = str(error)
                if wanted == "c":
                    self._port.close()
                    self._streams.close()
                    raise ValueError(f"no fan-out in C: {error}") from None
            else:
                log.info("fan-out in C")
                return engine
        log.log(logging.INFO if wanted == "python" else logging.WARNING, "fan-out in Python: %s", reason)
        return PythonEngine(self.send)

    def start(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._tick = self._first_tick = int(self._loop.time() / TICK_S)
        self._port.start(self._on_datagram)
        self._streams.start(self._on_datagram, self._on_stream_gone)
        self._timer = self._loop.call_at((self._tick + 1) * TICK_S, self._on_timer)

    def close(self) -> None:
        """BYE and close_notify to all. Harmless twice."""
        if self._timer is not None:
            self._timer.cancel()
        for peer in list(self._peers.values()):
            self._remove(peer)
        self.stages.close()
        self._engine.close()
        self._port.close()
        self._streams.close()

    # -- requests --------------------------------------------------------------------------------

    def handle(self, request: Message) -> Reply | None:
        """Do what the control process asks; an error goes into the reply. No request may end the worker: it carries
        the sound of all the others."""
        try:
            match request:
                case Join():
                    peer = self._join(request)
                    answer = peer.answer(self.addresses, self.port, self.tcp_port, music=request.sound == "music")
                    return Reply(request.id, sdp=answer, csrc=peer.csrc)
                case MakeOffer():
                    return Reply(request.id, sdp=self._offer())
                case Gate():
                    self._gate(request)
                case LeaveOut():
                    peer = self._peer(request.peer)
                    self.stages[peer.stage].fan_out.leave_out(peer.sender, frozenset(request.owners))
                case Tune():
                    self.stages.tune(request)
                case Hush():
                    self.stages.hush(request)
                case Home():
                    self.stages.settle(request)
                case Leave():
                    if request.peer in self._peers:
                        self._remove(self._peers[request.peer])
                case CloseStage():
                    for peer in self.stages.peers_of(request.stage):
                        self._remove(peer)
                case Stream():
                    self.stages.streams.switch(request.stage, request.on)
                case Ping():
                    pass
                case GetStats():
                    return Reply(request.id, stats=plain(self.stats(request.first)))
                case _:
                    return None
            return Reply(request.id)
        except Theirs as error:
            return Reply(getattr(request, "id", 0), error=error_to(error))
        except Exception:
            log.exception("%s was not done", type(request).__name__)
            failed = Unavailable("the media worker could not do this; its log says why")
            return Reply(getattr(request, "id", 0), error=error_to(failed))

    def _join(self, request: Join) -> Peer:
        now = self._loop.time()
        offer = sdp.parse(request.offer)
        known = self._peers.get(request.peer)
        is_known = known is not None and (known.stage, known.owner) == (request.stage, request.owner)
        if known is not None and is_known and known.is_same_connection(offer):
            known.renew(offer, now)
            known.gate(hear=request.hear, speak=request.speak, now=now)
            return known
        if known is not None:
            self._remove(known)
        stage = self.stages.open(request.stage, request.home, request.sound)
        csrc = request.csrc
        offered = sdp_offer.offered(request.answer_to) if request.answer_to else None
        peer = Peer(self, request.stage, request.peer, request.owner, csrc, offer, now, next(self._seats), offered)
        if known is not None:
            peer.path, peer.sender.left_out = known.path, known.sender.left_out
        self._peers[request.peer] = peer
        stage.add(peer)
        self._rota[peer.seat % _CARE_TICKS][peer] = None
        peer.gate(hear=request.hear, speak=request.speak, now=now)
        return peer

    def _offer(self) -> str:
        ours = sdp.Ours(
            ssrc=0,
            cname="",
            ufrag=stun.new_ufrag(self.settings.number),
            password=secrets.token_hex(16),
            fingerprint=self.identity.fingerprint,
            addresses=self.addresses,
            port=self.port,
            tcp_port=self.tcp_port,
        )
        return sdp_offer.offer(ours, secrets.randbits(62))

    def _gate(self, request: Gate) -> None:
        self._peer(request.peer).gate(hear=request.hear, speak=request.speak, now=self._loop.time())

    def _peer(self, name: str) -> Peer:
        peer = self._peers.get(name)
        if peer is None:
            raise NotFound(f"peer {name} is not connected to the relay")
        return peer

    def _remove(self, peer: Peer) -> None:
        peer.voice.shut(self._loop.time())
        peer.close()
        self._peers.pop(peer.name, None)
        self._rota[peer.seat % _CARE_TICKS].pop(peer, None)
        self._urgent.pop(peer, None)
        self.stages.remove(peer)

    # -- Hub: what peers ask ---------------------------------------------------------------------

    @property
    def identity(self) -> Identity:
        return self._identities.current

    def identity_of(self, fingerprint: str) -> Identity:
        return self._identities.of(fingerprint)

    def send(self, datagram: bytes, address: Address) -> None:
        (self._streams if len(address) == 3 else self._port).send(datagram, address)

    def ufrag_of(self, ufrag: str, peer: Peer | None) -> None:
        if peer is None:
            self._by_ufrag.pop(ufrag, None)
        else:
            self._by_ufrag[ufrag] = peer

    def hurry(self, peer: Peer) -> None:
        self._urgent[peer] = None

    def may_sound(self, peer: Peer) -> None:
        self.stages[peer.stage].may_sound(peer)

    def voice_for(self, stage: str, owner: str, csrc: int) -> Voice | FarVoice:
        return self.stages[stage].voice_for(owner, csrc)

    def address_of(self, address: Address, peer: Peer) -> None:
        self._by_address[address] = peer
        self._streams.keep(address)

    def forget_address(self, address: Address, peer: Peer) -> None:
        if self._by_address.get(address) is peer:
            del self._by_address[address]
            self._streams.hang_up(address)

    def connected(self, peer: Peer, keys: Keys) -> None:
        self.stages[peer.stage].fan_out.connect(peer.sender, keys)
        self._emit(Connected(peer.name))

    def pressed(self, peer: Peer, key: str) -> None:
        self._emit(Pressed(peer.name, key))

    def wants_fec(self, peer: Peer) -> None:
        self.stages[peer.stage].want_fec(self._tick)

    def copies_fit(self, peer: Peer) -> bool:
        return self.stages[peer.stage].sound != "music"

    def moved(self, path: str) -> None:
        self._moved[path] += 1

    def gone(self, peer: Peer, reason: str) -> None:
        if self._peers.get(peer.name) is peer:
            self._remove(peer)
            self._emit(Gone(peer.name, reason))

    # -- datagrams -------------------------------------------------------------------------------

    def _on_datagram(self, data: bytes, address: Address) -> None:
        """RFC 7983 §7: the first byte tells the protocol."""
        first = data[0] if data else 255
        try:
            if first < 4:
                if not self._on_stun(data, address):
                    self._stun_refused += 1
                return
            peer = self._by_address.get(address)
            if peer is None:
                self._junk += 1
            elif 128 <= first <= 191:
                peer.on_srtp(data, self._loop.time())
            elif 20 <= first <= 63:
                peer.on_dtls(data, self._loop.time())
            else:
                self._junk += 1
        except Exception:
            self._defect("a datagram")

    def _on_stream_gone(self, address: Address) -> None:
        peer = self._by_address.get(address)
        if peer is not None:
            peer.lost(address)

    def _on_stun(self, data: bytes, address: Address) -> bool:
        message = stun.parse(data)
        if message is None:
            return False
        if message.is_request:
            peer = self._by_ufrag.get(message.username.partition(":")[0])
            return peer is not None and peer.on_check(message, address, self._loop.time())
        peer = self._by_address.get(address)
        if peer is not None and message.is_response:
            peer.on_response(message, address, self._loop.time())
        return peer is not None

    # -- the tick --------------------------------------------------------------------------------

    def _on_timer(self) -> None:
        now = self._loop.time()
        behind = int(now / TICK_S) - self._tick
        if behind > _CATCH_UP:
            self._skipped += behind - _CATCH_UP
            self._tick += behind - _CATCH_UP
        while now >= (due := (self._tick + 1) * TICK_S):
            self._tick += 1
            self._lateness.append(now - due)
            self._run_tick(due)
        self._timer = self._loop.call_at(due, self._on_timer)

    def _run_tick(self, now: float) -> None:
        self.stages.run(now, self._tick)
        self._care_for_peers()

    def _care_for_peers(self) -> None:
        now = self._loop.time()
        chosen = list(self._rota[self._tick % _CARE_TICKS])
        self._sent[self._tick % _CARE_TICKS] = sum(peer.sent_since() for peer in chosen)
        if self.settings.max_mbit and self._tick % _CARE_TICKS == 0:
            self._emit(Sending(self.out_mbit))
        if self._tick % _URGENT_TICKS == 0:
            for peer in [each for each in self._urgent if each.is_closed or not each.wants_care]:
                del self._urgent[peer]
            chosen += self._urgent
        for peer in chosen:
            try:
                if not peer.is_closed:
                    peer.look_after(now, self._tick)
            except Exception:
                self._defect(f"peer {peer.name}")

    @property
    def out_mbit(self) -> float:
        return round(8e-6 * sum(self._sent), 3)

    def _defect(self, where: str) -> None:
        """Whatever happens, the tick goes on; at most one traceback each ten seconds."""
        self._tick_errors += 1
        if self._loop.time() - self._logged_at > 10 or not self._logged_at:
            self._logged_at = self._loop.time()
            log.exception("defect in the relay at %s; sound goes on without it", where)

    def stats(self, first: int = 0) -> Stats:
        """Of a page of the peers; see GetStats."""
        late = sorted(self._lateness) or [0.0]
        counters = WorkerCounters(
            pid=os.getpid(),
            port=self.port,
            peers=len(self._peers),
            stages=len(self.stages),
            ticks=self._tick - self._first_tick,
            ticks_skipped=self._skipped,
            late_p50_ms=round(1000 * late[len(late) // 2], 2),
            late_p99_ms=round(1000 * late[int(0.99 * (len(late) - 1))], 2),
            tick_errors=self._tick_errors,
            encodes=self.stages.encodes,
            stream_dropped=self.stages.streams.dropped,
            stun_refused=self._stun_refused,
            junk=self._junk,
            send_errors=self._port.send_errors + self._engine.errors,
            out_mbit=self.out_mbit,
            fan_out=self._engine.name,
            cpu_s=time.process_time(),
            streams=len(self._streams),
            streams_refused=self._streams.refused,
            stream_drops=self._streams.dropped,
            moved_to_tcp=self._moved["tcp"],
            moved_to_udp=self._moved["udp"],
            trunk_dropped=self.stages.trunk.dropped,
            trunk_late=self.stages.late,
        )
        page = itertools.islice(self._peers.items(), first, first + STATS_PAGE)
        voices = () if first else self.stages.voices()
        return Stats(counters, {name: peer.stats() for name, peer in page}, voices)
