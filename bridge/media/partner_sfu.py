"""A partner's SFU: LiveKit's signalling as a client that only listens, and the way from there into our own relay.

::

    their LiveKit ── RTP ──▶ `Sfu` (whose microphones are wanted) ──▶ listener.said ──▶ `Uplink` ── RTP ──▶ our worker

Element Call publishes to the SFU of its own homeserver and nowhere else, so the voice of a partner's user has to be
fetched there. Opus payloads are handed on as they come: nothing is decoded on this way. aiortc is the client of both
connections; the gate, as for everybody, is our worker's.
"""

from __future__ import annotations

import asyncio
import contextlib
import fractions
import json
import logging
from collections.abc import Callable, Collection, Mapping
from typing import Any, Protocol

import aiohttp
from aiortc import RTCConfiguration, RTCPeerConnection, RTCSessionDescription
from aiortc.mediastreams import MediaStreamTrack
from aiortc.rtp import RtpPacket
from aiortc.sdp import SessionDescription, candidate_from_sdp
from av.packet import Packet
from google.protobuf.message import DecodeError
from livekit.protocol import models as M
from livekit.protocol import rtc as L

from bridge.errors import Unavailable

log = logging.getLogger("eyvan.partner")

MAX_MESSAGE = 256 * 1024  # bytes
_MAX_PARTICIPANTS = 5_000  # of their room; further ones are passed over
_HELD = 50  # packets between the two connections: 1 s; the oldest is dropped
_PING_S = 5.0
_SILENT_S = 30.0  # LiveKit answers each ping
_SAMPLE = fractions.Fraction(1, 48_000)
_NO_SERVERS = RTCConfiguration(iceServers=[])  # nobody else is ever asked


class Listener(Protocol):
    """Who takes what the SFU sends. Every method returns at once."""

    def said(self, identity: str, timestamp: int, payload: bytes) -> None:
        """One Opus packet of that participant; ``timestamp`` in samples at 48 kHz, modulo 2³²."""

    def microphone(self, identity: str, on: bool | None) -> None:
        """A wanted participant's microphone is on or off; None: there is none (any more)."""


class Sfu:
    """One connection to a LiveKit server, as a participant that subscribes and never publishes.

    ``socket`` is open already, to ``…/rtc?auto_subscribe=0``; ``check`` raises OSError for an address where media may
    not come from. ``run`` works until the connection ends; it closes what it opened."""

    def __init__(
        self, socket: aiohttp.ClientWebSocketResponse, listener: Listener, check: Callable[[str], None]
    ) -> None:
        self._socket, self._listener, self._check = socket, listener, check
        self._pc = RTCPeerConnection(_NO_SERVERS)
        self._wanted: frozenset[str] = frozenset()
        self._tracks: dict[str, tuple[str, M.TrackInfo]] = {}  # track's sid → its participant's identity, the track
        self._sids: dict[str, str] = {}  # identity → participant's sid
        self._asked: set[str] = set()  # tracks that we are subscribed to
        self._by_ssrc: dict[int, str] = {}  # → track's sid
        self._opus: frozenset[int] = frozenset()  # payload types
        self._told: dict[str, bool] = {}
        self._changed = asyncio.Event()

    def want(self, identities: Collection[str]) -> None:
        """Whose microphones are to be heard from now on; returns at once."""
        self._wanted = frozenset(identities)
        self._changed.set()

    async def run(self) -> None:
        """Raises Unavailable when the connection has ended, and says why."""
        helpers = [asyncio.create_task(self._ping()), asyncio.create_task(self._follow())]
        try:
            while True:
                try:
                    frame = await self._socket.receive(_SILENT_S)
                except TimeoutError:
                    raise Unavailable("the partner's SFU answers no more") from None
                if frame.type is not aiohttp.WSMsgType.BINARY:
                    raise Unavailable(f"the partner's SFU closed the connection ({self._socket.close_code})")
                await self._take(frame.data)
        except (ConnectionError, aiohttp.ClientError) as error:
            raise Unavailable(f"the partner's SFU is gone: {error}") from error
        finally:
            for task in helpers:
                task.cancel()
            await asyncio.gather(*helpers, return_exceptions=True)
            for identity in list(self._told):
                self._tell(identity, None)
            await self._pc.close()
            with contextlib.suppress(Exception):
                await self._send(leave=L.LeaveRequest(reason=M.DisconnectReason.CLIENT_INITIATED))
            await self._socket.close()

    async def _send(self, **message: Any) -> None:
        await self._socket.send_bytes(L.SignalRequest(**message).SerializeToString())

    async def _ping(self) -> None:
        while True:
            await asyncio.sleep(_PING_S)
            await self._send(ping=0)

    async def _take(self, data: bytes) -> None:
        """One message. One that cannot be read is passed over: the next may be good."""
        try:
            message = L.SignalResponse.FromString(data)
        except DecodeError:
            return
        match message.WhichOneof("message"):
            case "join":
                self._see(message.join.other_participants)
            case "update":
                self._see(message.update.participants)
            case "offer":
                await self._answer(message.offer)
            case "trickle":
                await self._candidate(message.trickle)
            case "leave":
                raise Unavailable(f"the partner's SFU says good-bye ({message.leave.reason})")

    # -- whose tracks --------------------------------------------------------------------------

    def _see(self, participants: Collection[M.ParticipantInfo]) -> None:
        for each in participants:
            for sid in [sid for sid, (identity, _) in self._tracks.items() if identity == each.identity]:
                del self._tracks[sid]
            self._sids.pop(each.identity, None)
            if each.state == M.ParticipantInfo.DISCONNECTED or len(self._sids) >= _MAX_PARTICIPANTS:
                continue
            self._sids[each.identity] = each.sid
            for track in each.tracks:
                is_plain = track.encryption == M.Encryption.NONE
                if track.type == M.TrackType.AUDIO and track.source == M.TrackSource.MICROPHONE and is_plain:
                    self._tracks[track.sid] = (each.identity, track)
        self._asked &= self._tracks.keys()
        self._changed.set()

    async def _follow(self) -> None:
        """Ask for the tracks that are wanted, and for no others."""
        while True:
            await self._changed.wait()
            self._changed.clear()
            wanted = {sid for sid, (identity, _) in self._tracks.items() if identity in self._wanted}
            for sids, subscribe in ((self._asked - wanted, False), (wanted - self._asked, True)):
                if sids:
                    await self._send(subscription=self._subscription(sids, subscribe=subscribe))
            self._asked = wanted
            on: dict[str, bool] = {}
            for sid in wanted:
                identity, track = self._tracks[sid]
                on[identity] = on.get(identity, False) or not track.muted
            for identity in self._told.keys() - on.keys():
                self._tell(identity, None)
            for identity, is_on in on.items():
                self._tell(identity, is_on)

    def _subscription(self, sids: Collection[str], *, subscribe: bool) -> L.UpdateSubscription:
        of: dict[str, list[str]] = {}
        for sid in sids:
            of.setdefault(self._sids.get(self._tracks[sid][0], ""), []).append(sid)
        tracks = [M.ParticipantTracks(participant_sid=who, track_sids=each) for who, each in of.items()]
        return L.UpdateSubscription(track_sids=list(sids), subscribe=subscribe, participant_tracks=tracks)

    def _tell(self, identity: str, on: bool | None) -> None:
        if self._told.get(identity) == on:
            return
        if on is None:
            del self._told[identity]
        else:
            self._told[identity] = on
        self._listener.microphone(identity, on)

    # -- media ---------------------------------------------------------------------------------

    async def _answer(self, offer: L.SessionDescription) -> None:
        """Raises Unavailable where their description cannot be answered."""
        try:
            sdp = "".join(line for line in offer.sdp.splitlines(keepends=True) if self._may_stand(line))
            parsed = SessionDescription.parse(sdp)
            await self._pc.setRemoteDescription(RTCSessionDescription(sdp, "offer"))
            await self._pc.setLocalDescription(await self._pc.createAnswer())
        except Exception as error:  # aiortc has no error of its own for a description
            raise Unavailable(f"the partner's SFU offers what cannot be answered: {error}") from error
        audio = [media for media in parsed.media if media.kind == "audio"]
        self._by_ssrc = {source.ssrc: _track_of(media.msid) for media in audio for source in media.ssrc}
        codecs = [codec for media in audio for codec in media.rtp.codecs]
        self._opus = frozenset(c.payloadType or 0 for c in codecs if c.mimeType.lower() == "audio/opus")
        sctp = [self._pc.sctp.transport] if self._pc.sctp else []
        for transport in (*sctp, *(each.receiver.transport for each in self._pc.getTransceivers())):
            # aiortc's own way leads to a decoder, and finds none for sections that were added to a bundle later.
            transport._handle_rtp_data = self._packet  # type: ignore[method-assign]
        answer = L.SessionDescription(type="answer", sdp=self._pc.localDescription.sdp, id=offer.id)
        await self._send(answer=answer)

    def _may_stand(self, line: str) -> bool:
        return not line.startswith("a=candidate:") or self._is_good(line.removeprefix("a=candidate:"))

    def _is_good(self, candidate: str) -> bool:
        parts = candidate.split()
        if len(parts) < 6 or parts[2].lower() != "udp":
            return False
        try:
            self._check(parts[4])
        except (OSError, ValueError):
            return False  # a private address, or a name
        return True

    async def _candidate(self, trickle: L.TrickleRequest) -> None:
        if trickle.target != L.SignalTarget.SUBSCRIBER:
            return
        try:
            said = json.loads(trickle.candidateInit)
            text = str(said["candidate"]).removeprefix("candidate:")
            if not self._is_good(text):
                return
            candidate = candidate_from_sdp(text)
            candidate.sdpMid, candidate.sdpMLineIndex = said.get("sdpMid"), said.get("sdpMLineIndex")
            await self._pc.addIceCandidate(candidate)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            log.info("a candidate of the partner's SFU is passed over: %s", error)

    async def _packet(self, data: bytes, arrival_time_ms: int) -> None:
        """One RTP packet that SRTP has let through."""
        try:
            packet = RtpPacket.parse(data)
        except ValueError:
            return
        known = self._tracks.get(self._by_ssrc.get(packet.ssrc, ""))
        if known is not None and packet.payload_type in self._opus and packet.payload and known[0] in self._wanted:
            self._listener.said(known[0], packet.timestamp, packet.payload)


def _track_of(msid: str | None) -> str:
    """The sid of the track: LiveKit's stream is ``participant|track``, its track that sid or the client's own id."""
    parts = (msid or "").replace("|", " ").split()
    return next((part for part in parts if part.startswith("TR_")), "")


class _Handed(MediaStreamTrack):
    """Encoded packets in the order they came; aiortc sends an `av.Packet` as it is."""

    kind = "audio"

    def __init__(self) -> None:
        super().__init__()
        self._queue: asyncio.Queue[Packet[Any]] = asyncio.Queue(_HELD)
        self._last: int | None = None
        self._at = 0

    def put(self, timestamp: int, payload: bytes) -> None:
        if self._last is not None:
            step = (timestamp - self._last) & 0xFFFFFFFF
            self._at += step if step < 1 << 31 else step - (1 << 32)
        self._last = timestamp
        if self._at < 0:
            return
        packet = Packet(payload)
        packet.pts, packet.time_base = self._at, _SAMPLE
        if self._queue.full():
            self._queue.get_nowait()
        self._queue.put_nowait(packet)

    async def recv(self) -> Packet[Any]:
        return await self._queue.get()


class Uplink:
    """A peer connection into our own relay that only sends. ``close`` is harmless twice."""

    def __init__(self) -> None:
        self._pc = RTCPeerConnection(_NO_SERVERS)
        self._track = _Handed()

    async def offer(self) -> str:
        """The SDP that `live.ports.Media.join` answers."""
        self._pc.addTransceiver(self._track, direction="sendonly")
        await self._pc.setLocalDescription(await self._pc.createOffer())
        return str(self._pc.localDescription.sdp)

    async def accept(self, answer: str) -> None:
        """The relay's answer names the addresses at which it is reached from outside, which from here may lead nowhere
        (NAT): those of this machine's interfaces are tried as well."""
        await self._pc.setRemoteDescription(RTCSessionDescription(answer, "answer"))
        section = SessionDescription.parse(answer).media[0]
        own = SessionDescription.parse(self._pc.localDescription.sdp).media[0].ice_candidates
        ports = {each.port for each in section.ice_candidates if each.protocol == "udp"}
        for ip in {each.ip for each in own if each.type == "host"} - {each.ip for each in section.ice_candidates}:
            for port in ports:
                candidate = candidate_from_sdp(f"1 1 udp 1 {ip} {port} typ host")
                candidate.sdpMid = section.rtp.muxId
                await self._pc.addIceCandidate(candidate)

    def put(self, timestamp: int, payload: bytes) -> None:
        """As `Listener.said` has it; returns at once."""
        self._track.put(timestamp, payload)

    async def close(self) -> None:
        await self._pc.close()


def query(jwt: str) -> Mapping[str, str]:
    """Of the URL at which a LiveKit server takes a client that subscribes to what it asks for."""
    return {"access_token": jwt, "auto_subscribe": "0", "protocol": "9", "sdk": "python", "version": "1"}
