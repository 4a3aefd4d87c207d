"""A WebRTC peer of which every datagram is the test's choice: checks, DTLS as client, SRTP, from any socket.

A socket may be of TCP (``new_stream``): datagrams go in frames (RFC 4571), as an active ICE-TCP peer sends them."""

from __future__ import annotations

import asyncio
import contextlib
import re
import secrets
import socket

import numpy as np
import pylibsrtp
from OpenSSL import SSL

from bridge.media import opus, rtcp, rtp, stun
from bridge.media.dtls import Association, Identity, Profile
from tests.helpers.tone import Samples, sine

OFFER = """v=0\r
o=- {session} 2 IN IP4 127.0.0.1\r
s=-\r
t=0 0\r
a=group:BUNDLE 0\r
m=audio 9 UDP/TLS/RTP/SAVPF 111 63 110\r
c=IN IP4 0.0.0.0\r
a=rtcp-mux\r
a=ice-ufrag:{ufrag}\r
a=ice-pwd:{password}\r
a=fingerprint:sha-256 {fingerprint}\r
a=setup:actpass\r
a=mid:0\r
a=extmap:1 urn:ietf:params:rtp-hdrext:ssrc-audio-level\r
a=extmap:2/recvonly urn:ietf:params:rtp-hdrext:csrc-audio-level\r
a={direction}\r
a=maxptime:{max_ptime}\r
a=rtpmap:111 opus/48000/2\r
a=rtpmap:63 red/48000/2\r
a=fmtp:63 {red}\r
a=rtpmap:110 telephone-event/48000\r
"""


class RawPeer:
    """Owns its sockets; ``close`` closes them. Calls wait for at most ten seconds, then raise TimeoutError."""

    def __init__(self) -> None:
        self._identity = Identity()
        self._session = secrets.randbits(48)
        self.fingerprint = self._identity.fingerprint
        self.port = self.tcp_port = 0
        self.host = ""
        self.remote_ufrag = self.remote_password = ""
        self.main = self.new_socket()
        self._buffers: dict[socket.socket, bytearray] = {}
        self.answers_checks = True
        self.direction = "sendrecv"
        self.max_ptime = 120
        self.red = ""  # such as 111/111: two blocks of Opus (RFC 2198); else none is understood
        self.checks_seen = 0
        self.ssrc, self.sequence, self.timestamp = secrets.randbits(32) or 1, 65_530, 2**32 - 4800  # both wrap soon
        self._encoder = opus.Encoder()
        self.new_credentials()

    def new_socket(self) -> socket.socket:
        """Of UDP, and of the family of the relay's address, once that is known."""
        family = socket.AF_INET6 if ":" in self.host else socket.AF_INET
        made = socket.socket(family, socket.SOCK_DGRAM)
        made.setblocking(False)
        made.bind(("", 0))
        return made

    def new_stream(self, receive_buffer: int = 0) -> socket.socket:
        """A TCP connection to the relay; all else takes it as it takes a UDP socket."""
        made = socket.socket(socket.AF_INET6 if ":" in self.host else socket.AF_INET, socket.SOCK_STREAM)
        if receive_buffer:
            made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        made.settimeout(10)
        made.connect((self.host, self.tcp_port))
        made.setblocking(False)
        return made

    def new_credentials(self) -> None:
        self.ufrag, self.password = secrets.token_hex(4), secrets.token_hex(16)

    @property
    def offer(self) -> str:
        return OFFER.format(
            session=self._session,
            direction=self.direction,
            max_ptime=self.max_ptime,
            red=self.red,
            ufrag=self.ufrag,
            password=self.password,
            fingerprint=self.fingerprint,
        )

    def take(self, answer: str) -> None:
        def found(pattern: str) -> str:
            match = re.search(pattern, answer)
            assert match is not None, pattern
            return match[1]

        self.remote_ufrag, self.remote_password = found(r"a=ice-ufrag:(\S+)"), found(r"a=ice-pwd:(\S+)")
        self.host, self.port = found(r"udp \d+ (\S+) \d+ typ host"), int(found(r"udp \d+ \S+ (\d+) typ host"))
        if ":" in self.host and self.main.family == socket.AF_INET:
            self.main.close()
            self.main = self.new_socket()
        passive = re.search(r" tcp \d+ \S+ (\d+) typ host tcptype passive", answer)
        self.tcp_port = int(passive[1]) if passive else 0
        self.remote_fingerprint = found(r"a=fingerprint:sha-256 (\S+)")

    # -- datagrams -------------------------------------------------------------------------------

    def send(self, datagram: bytes, through: socket.socket | None = None) -> None:
        through = through or self.main
        if through.type == socket.SOCK_STREAM:
            through.sendall(len(datagram).to_bytes(2, "big") + datagram)
        else:
            through.sendto(datagram, (self.host, self.port))

    async def _datagram(self, source: socket.socket) -> bytes:
        """ConnectionError where a TCP connection has ended. Cancelled between two parts of a frame, it goes on."""
        loop = asyncio.get_running_loop()
        if source.type != socket.SOCK_STREAM:
            return await loop.sock_recv(source, 2048)
        buffer = self._buffers.setdefault(source, bytearray())
        while len(buffer) < 2 or len(buffer) < 2 + int.from_bytes(buffer[:2], "big"):
            data = await loop.sock_recv(source, 4096)
            if not data:
                raise ConnectionError("the relay closed the connection")
            buffer += data
        end = 2 + int.from_bytes(buffer[:2], "big")
        frame = bytes(buffer[2:end])
        del buffer[:end]
        return frame

    async def receive(self, through: socket.socket | None = None, within_s: float = 10) -> bytes:
        """The next datagram; checks are answered on the way if ``answers_checks``. TimeoutError if none comes."""
        source = through or self.main
        async with asyncio.timeout(within_s):
            while True:
                data = await self._datagram(source)
                message = stun.parse(data) if data[0] < 4 else None
                if message is None or not message.is_request:
                    return data
                assert message.signed_by(self.password.encode())
                self.checks_seen += 1
                if self.answers_checks:
                    self.send(stun.success(message, (self.host, self.port), self.password.encode()), source)

    def check_message(self, *, nominate: bool = True, password: str = "") -> bytes:
        secret = (password or self.remote_password).encode()
        username = f"{self.remote_ufrag}:{self.ufrag}"
        return stun.binding_request(username, secret, controlling=True, nominate=nominate)

    async def check(self, through: socket.socket | None = None, *, nominate: bool = True) -> stun.Message:
        """Send a check and wait for its answer, passing over media."""
        request = self.check_message(nominate=nominate)
        self.send(request, through)
        async with asyncio.timeout(10):
            while True:
                message = stun.parse(await self.receive(through))
                if message is not None and message.transaction == request[8:20]:
                    assert message.signed_by(self.remote_password.encode())
                    return message

    def _client(self) -> Association:
        association = Association(self._identity, frozenset({("sha-256", self.remote_fingerprint)}))
        association._connection.set_connect_state()  # the relay only ever serves
        with contextlib.suppress(SSL.WantReadError):
            association._connection.do_handshake()
        return association

    def client_hello(self) -> bytes:
        return next(iter(self._client().outgoing()))

    async def handshake(self) -> None:
        """DTLS as client, then SRTP keys. Raises ConnectionError where it fails."""
        association = self._client()
        async with asyncio.timeout(10):
            while association.keys is None:
                for datagram in association.outgoing():
                    self.send(datagram)
                if association.closed:
                    raise ConnectionError(association.failure)
                data = await self.receive()
                if 20 <= data[0] <= 63:
                    association.receive(data)
        for datagram in association.outgoing():
            self.send(datagram)
        keys = association.keys
        self._set_keys(keys.profile, theirs=keys.outgoing, ours=keys.incoming)

    def _set_keys(self, profile: Profile, *, theirs: bytes, ours: bytes) -> None:
        policy, session = pylibsrtp.Policy, pylibsrtp.Session
        self._incoming = session(policy(theirs, policy.SSRC_ANY_INBOUND, srtp_profile=profile.libsrtp))
        self._outgoing = session(policy(ours, policy.SSRC_ANY_OUTBOUND, srtp_profile=profile.libsrtp))

    # -- media -----------------------------------------------------------------------------------

    def protect(self, payload: bytes, payload_type: int = 111, level: int = 15) -> bytes:
        """The next RTP packet, protected; 20 ms later than the one before."""
        head = rtp.pack_header(False, payload_type, self.sequence, self.timestamp, self.ssrc, 0, True)
        packet: bytes = self._outgoing.protect(head + rtp.pack_tail((), level, 1, 0, payload))
        self.sequence = self.sequence + 1 & 0xFFFF
        self.timestamp = self.timestamp + opus.FRAME & 0xFFFF_FFFF
        return packet

    def voice(self, hz: float, frames: int) -> list[bytes]:
        """Opus payloads of a tone."""
        tone = sine(hz, frames * opus.FRAME / opus.RATE).astype(np.float32) / 32768
        return [self._encoder.encode(np.ascontiguousarray(each)) for each in tone.reshape(frames, opus.FRAME)]

    async def packet(self, through: socket.socket | None = None, within_s: float = 10) -> rtp.Packet:
        """The next RTP packet from the relay, in clear."""
        async with asyncio.timeout(within_s):
            while True:
                data = await self.receive(through)
                if 128 <= data[0] <= 191 and not rtp.is_rtcp(data):
                    packet = rtp.parse(self._incoming.unprotect(data), 1)
                    assert packet is not None
                    return packet

    async def report(self) -> bytes:
        """The next RTCP packet from the relay, in clear."""
        async with asyncio.timeout(30):
            while True:
                data = await self.receive(within_s=30)
                if 128 <= data[0] <= 191 and rtp.is_rtcp(data):
                    clear: bytes = self._incoming.unprotect_rtcp(data)
                    return clear

    def loss_report(self, about: int, loss: float, lsr: int = 0) -> bytes:
        """A receiver report (RFC 3550 §6.4.2) about the relay's SSRC, in clear."""
        block = rtcp.ReportBlock(about, loss, 1, 0, 0, lsr, 0)
        return b"\x81\xc9\x00\x07" + self.ssrc.to_bytes(4, "big") + rtcp.pack_block(block)

    def tell_loss(self, about: int, loss: float, lsr: int = 0) -> None:
        self.send_report(self.loss_report(about, loss, lsr))

    def protect_report(self, report: bytes) -> bytes:
        protected: bytes = self._outgoing.protect_rtcp(report)
        return protected

    def send_report(self, report: bytes) -> None:
        self.send(self.protect_report(report))

    def close(self) -> None:
        self.main.close()


def as_samples(decoded: opus.Samples) -> Samples:
    samples: Samples = np.clip(np.round(decoded * 32768), -32768, 32767).astype(np.int16)
    return samples
