"""One browser: its answer, DTLS, what it is sent. Where it is, is known by ``Paths``; what it sends goes to ``Uplink``.

    JOINED ── a check with its ufrag ──▶ CHECKED ── DTLS handshake ──▶ CONNECTED ── close_notify, 30 s silent ──▶ GONE
                                            │ fingerprint differs: the association is closed, the peer times out

Nothing is allocated, and no byte is answered, for a datagram that names no joined peer's ufrag. DTLS is
taken only from an address whose check held, and answered with at most three times the bytes that came.
"""

from __future__ import annotations

import secrets
from collections import deque
from dataclasses import replace
from typing import Protocol

import pylibsrtp

from bridge.media import rtp, sdp, stun
from bridge.media.control import WorkerSettings
from bridge.media.counters import PeerStats
from bridge.media.data import DataChannels
from bridge.media.dtls import Association, Identity, Keys, Settled
from bridge.media.fanout import TICK_MS, Sender
from bridge.media.paths import Paths
from bridge.media.reports import Reports
from bridge.media.sdp import Offer, Ours
from bridge.media.sdp_offer import Offered
from bridge.media.stun import Address
from bridge.media.trunk import FarVoice
from bridge.media.uplink import Uplink
from bridge.media.voice import Voice

_MAX_HELD = 8  # DTLS datagrams waiting for the amplification limit; more are dropped, DTLS sends again
_AMPLIFICATION = 3
_HEADERS = {2: 28, 4: 48, 3: 54}  # bytes: UDP over IPv4 and IPv6; RFC 4571, TCP with timestamps and IPv4


class Hub(Protocol):
    """What a peer asks of its worker; called in the worker's one loop, returns at once."""

    settings: WorkerSettings

    @property
    def identity(self) -> Identity:
        """For a new association."""

    def identity_of(self, fingerprint: str) -> Identity:
        """For one that we have offered."""

    def send(self, datagram: bytes, address: Address) -> None: ...

    def ufrag_of(self, ufrag: str, peer: Peer | None) -> None:
        """Checks that name this ufrag are the peer's from now on; None forgets it."""

    def address_of(self, address: Address, peer: Peer) -> None:
        """Other datagrams from this address are the peer's from now on."""

    def forget_address(self, address: Address, peer: Peer) -> None:
        """Harmless where another peer has the address by now."""

    def connected(self, peer: Peer, keys: Keys) -> None: ...

    def voice_for(self, stage: str, owner: str, csrc: int) -> Voice | FarVoice:
        """Its gate is shut."""

    def hurry(self, peer: Peer) -> None:
        """Look after the peer more often than each second while it ``wants_care``."""

    def may_sound(self, peer: Peer) -> None:
        """The peer's gate is open: ask its voice at each tick, until it is shut and has faded."""

    def pressed(self, peer: Peer, key: str) -> None:
        """A telephone's key went down."""

    def wants_fec(self, peer: Peer) -> None:
        """For the next seconds packets should hold in-band FEC."""

    def copies_fit(self, peer: Peer) -> bool:
        """Whether the peer's packets, however long, leave room for a copy of the one before."""

    def moved(self, path: str) -> None:
        """A peer that was connected by the other path now is by this one, "udp" or "tcp"."""

    def gone(self, peer: Peer, reason: str) -> None:
        """The worker takes the peer out and closes it."""


class Peer:
    """Owned by the worker, which calls everything here from its one loop; has no task and no socket."""

    def __init__(
        self,
        hub: Hub,
        stage: str,
        name: str,
        owner: str,
        csrc: int,
        offer: Offer,
        now: float,
        seat: int = 0,
        offered: Offered | None = None,
    ) -> None:
        """``seat`` spreads listeners over the phases of longer packets (fanout.Sender). ``offered``: it was we who
        called, and ``offer`` is the answer."""
        self.hub, self.stage, self.name, self.owner, self.csrc, self.seat = hub, stage, name, owner, csrc, seat
        self.sender = Sender(owner, seat)
        self.is_connected = self.is_closed = False
        self.last_heard = self._offered_at = now
        self._offer = offer
        self._session = secrets.randbits(62) if offered is None else offered.session
        self._version = 0
        identity = hub.identity if offered is None else hub.identity_of(offered.fingerprint)
        self._fingerprint = identity.fingerprint  # of our association; the worker's may be another by the next answer
        self._association: Association | Settled = Association(identity, offer.fingerprints)
        self._data: DataChannels | None = None
        self._paths = Paths(hub, self, offer, offered, now)
        self._handshake_address: Address | None = None  # where it was when the handshake began
        self._wire = 0  # bytes of sound that sent_since has told of
        self._held: deque[bytes] = deque(maxlen=_MAX_HELD)
        self._reports = Reports(self.sender.ssrc, name, now)
        self._messages = 0
        voice = hub.voice_for(stage, owner, csrc)
        self._uplink = Uplink(offer, voice, self._reports, lambda key: hub.pressed(self, key))
        hub.hurry(self)
        self._take_offer(offer)

    # -- signalling ------------------------------------------------------------------------------

    def _take_offer(self, offer: Offer) -> None:
        self._offer = self._uplink.offer = offer
        self.sender.payload_type = offer.payload_type
        self.sender.level_id = offer.extension(rtp.AUDIO_LEVEL)
        self.sender.csrc_level_id = offer.extension(rtp.CSRC_AUDIO_LEVEL)
        self.sender.wanted = offer.direction in ("sendrecv", "sendonly")
        self._suit_link()

    def is_same_connection(self, offer: Offer) -> bool:
        """Whether an offer is of the peer connection we already serve (else it is a fresh one)."""
        same = offer.fingerprints == self._offer.fingerprints and offer.session == self._offer.session
        return same and not self._association.closed

    def renew(self, offer: Offer, now: float) -> None:
        """A further offer of the same peer connection. New credentials begin an ICE restart: the old pair
        goes on until a check with the new ones nominates another (RFC 8445 §9)."""
        if (offer.ufrag, offer.password) != (self._offer.ufrag, self._offer.password):
            self._paths.restart(offer)
            self.last_heard = now
        self._offered_at = now
        self._take_offer(offer)

    def answer(self, addresses: tuple[str, ...], port: int, tcp_port: int, *, music: bool = False) -> str:
        """The answer to the offer taken last; call it once for each. ``tcp_port`` 0: no TCP candidates."""
        self._version += 1
        credentials = self._paths.credentials
        ours = Ours(
            ssrc=self.sender.ssrc,
            cname=self.name,
            ufrag=credentials.local_ufrag,
            password=credentials.local_password,
            fingerprint=self._fingerprint,
            addresses=addresses,
            port=port,
            tcp_port=tcp_port,
            data=self._data is not None or not self.is_connected,  # who connected without them has no room for them
            music=music,
        )
        text = sdp.answer(self._offer, ours, self._session, self._version)
        self._offer = self._uplink.offer = replace(self._offer, sections=())  # up to 64 KiB that nobody needs again
        return text

    def gate(self, *, hear: bool, speak: bool, now: float) -> None:
        self.sender.hear = hear
        self._uplink.speak = speak
        self._suit_link()
        if speak:
            self.hub.may_sound(self)
            self.voice.open_gate()
        else:
            self.voice.shut(now)

    def speak_through(self, voice: Voice | FarVoice, now: float) -> None:
        """Another voice from now on: the stage is mixed elsewhere."""
        self.voice.shut(now)
        self._uplink.voice = voice
        if self.speak:
            self.hub.may_sound(self)
            voice.open_gate()

    def _suit_link(self) -> None:
        """Who may speak is spared the delay of longer packets; nobody gets longer ones than they take. Where packets
        are lost, each gets a copy into the next one (RFC 2198); who takes none gets short ones, for in-band FEC
        recovers 20 ms at most (decisions 1.7)."""
        lossy = self._reports.watch.lossy
        self.sender.red_type = self._offer.red if lossy else 0
        is_short = self.speak or (lossy and not (self._offer.red and self.hub.copies_fit(self)))
        longest = 20 if is_short else min(self.hub.settings.listener_packet_ms, self._offer.max_ptime)
        self.sender.pace(max(1, longest // TICK_MS))

    # -- ICE -------------------------------------------------------------------------------------

    def on_check(self, message: stun.Message, address: Address, now: float) -> bool:
        """A Binding request that names our ufrag. False: it does not hold, and was not answered."""
        if not self._paths.on_check(message, address, now):
            return False
        self.last_heard = now
        self._flush()
        return True

    def on_response(self, message: stun.Message, address: Address, now: float) -> None:
        """An answer to our own check."""
        if self._paths.on_response(message, address):
            self.last_heard = now

    def lost(self, address: Address) -> None:
        """A TCP connection has closed."""
        self._paths.lost(address)

    # -- DTLS ------------------------------------------------------------------------------------

    def on_dtls(self, datagram: bytes, now: float) -> None:
        """A DTLS datagram from one of the peer's checked addresses."""
        self._paths.received += len(datagram)
        had_keys = self._association.keys is not None
        data = self._association.receive(datagram)
        if self._handshake_address is None:
            self._handshake_address = self._paths.address
        self._flush()
        if self._association.closed:
            if had_keys:
                self.hub.gone(self, "closed")
            return
        keys = self._association.keys
        if keys is not None and not had_keys:
            offered = self._offer.data
            if offered is None:
                self._association = self._association.settled()
            else:
                self._data = DataChannels(offered.port, offered.max_message, self._send_data, self._on_message)
            self._connect(keys, now)
        if self._data is not None:
            for each in data:
                self._data.receive(each, now)

    def _send_data(self, packet: bytes) -> None:
        self._association.send(packet)
        self._flush()

    def _on_message(self, channel: str, message: str | bytes) -> None:
        """Nothing that comes by a data channel means anything to a stage."""
        self._messages += 1

    def _connect(self, keys: Keys, now: float) -> None:
        policy, session = pylibsrtp.Policy, pylibsrtp.Session
        self._uplink.srtp = session(policy(keys.incoming, policy.SSRC_ANY_INBOUND, srtp_profile=keys.profile.libsrtp))
        outgoing = policy(keys.outgoing, policy.SSRC_ANY_OUTBOUND, srtp_profile=keys.profile.libsrtp)
        self.sender.srtp = session(outgoing)
        self.is_connected = True
        self.last_heard = now
        self._paths.connect(self._handshake_address, now)
        self.hub.connected(self, keys)

    def _flush(self) -> None:
        self._held.extend(self._association.outgoing())
        paths = self._paths
        while self._held and paths.address is not None:
            size = len(self._held[0])
            if self._association.keys is None and paths.sent + size > _AMPLIFICATION * paths.received:
                return
            paths.sent += size
            self.hub.send(self._held.popleft(), paths.address)

    @property
    def path(self) -> str:
        """ "udp" or "tcp" once connected. A peer that takes another's place goes on from its path."""
        return self._paths.kind

    @path.setter
    def path(self, kind: str) -> None:
        self._paths.kind = kind

    # -- media -----------------------------------------------------------------------------------

    @property
    def speak(self) -> bool:
        """Whether the gate is open."""
        return self._uplink.speak

    @property
    def voice(self) -> Voice | FarVoice:
        return self._uplink.voice

    def on_srtp(self, data: bytes, now: float) -> None:
        """RTP or RTCP from one of the peer's addresses."""
        if self._uplink.receive(data, now):
            self.last_heard = now
            if rtp.is_rtcp(data):
                self._suit_link()

    # -- time ------------------------------------------------------------------------------------

    def look_after(self, now: float, tick: int) -> None:
        """Called at least each second: timers of DTLS, ICE, RTCP and silence."""
        silent = now - self.last_heard
        never = not self.is_connected and now - self._offered_at > self.hub.settings.gone_s  # checks alone keep no peer
        if never or silent > self.hub.settings.gone_s:
            self.hub.gone(self, "timeout")
            return
        if not self.is_connected:
            self._association.retransmit()
            self._flush()
            return
        if silent > self.hub.settings.silent_s:
            self.sender.address = None
        else:
            self._paths.look_after(now)
        if self._reports.watch.lossy and not self._offer.red:
            self.hub.wants_fec(self)
        if self._reports.is_due(now):
            self._report(now, tick)

    def sent_since(self) -> int:
        """Bytes of sound sent since the last call, with the headers of UDP or TCP, and of IP."""
        sender = self.sender
        wire: int = sender.wire_bytes + sender.packets * _HEADERS.get(len(self._paths.address or ()), 0)
        since, self._wire = wire - self._wire, wire
        return max(0, since)  # the path has changed, and with it what a header counts

    @property
    def wants_care(self) -> bool:
        """Whether a timer shorter than a second runs: handshake, or a new address."""
        return not self.is_connected or not self._paths.is_verified

    def _report(self, now: float, tick: int) -> None:
        sender = self.sender
        if sender.srtp is None or sender.address is None:
            return
        about = self._reports.compound(self._uplink.source, sender.timestamp(tick), sender.packets, sender.octets, now)
        self.hub.send(sender.srtp.protect_rtcp(about), sender.address)

    def close(self) -> None:
        """BYE and close_notify; all addresses and ufrags forgotten. Harmless twice."""
        if self.is_closed:
            return
        self.is_closed = True
        sender = self.sender
        if sender.srtp is not None and sender.address is not None:
            self.hub.send(sender.srtp.protect_rtcp(self._reports.farewell()), sender.address)
        if self._data is not None:
            self._data.close()
        self._association.close()
        self._flush()
        sender.address = None
        self._paths.close()

    def stats(self) -> PeerStats:
        keys = self._association.keys
        return PeerStats(
            stage=self.stage,
            csrc=self.csrc,
            connected=self.is_connected,
            hear=self.sender.hear,
            speak=self.speak,
            packets_out=self.sender.packets,
            bytes_out=self.sender.wire_bytes,
            copies=bool(self.sender.red_type),
            remote_loss=self._reports.loss,
            rtt_s=self._reports.rtt_s,
            srtp_profile=keys.profile.name if keys is not None else "",
            path=self.path,
            messages=self._messages,
            **self._uplink.counts,
            **self.voice.counts(),
        )
