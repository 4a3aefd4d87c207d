"""One WebRTC listener or talker of the load: real ICE checks, DTLS, SRTP, one UDP socket each, nothing else."""

from __future__ import annotations

import asyncio
import contextlib
import re
import secrets
import socket

import pylibsrtp
from OpenSSL import SSL

from bridge.media import rtp, stun
from bridge.media.dtls import Association, Identity, Keys

_SESSION = """v=0\r
o=- {session} 2 IN IP4 127.0.0.1\r
s=-\r
t=0 0\r
a=group:BUNDLE {mids}\r
"""
_SECTION = """m=audio 9 UDP/TLS/RTP/SAVPF 111\r
c=IN IP4 0.0.0.0\r
a=rtcp-mux\r
a=rtcp:9 IN IP4 0.0.0.0\r
a=ice-ufrag:{ufrag}\r
a=ice-pwd:{password}\r
a=fingerprint:sha-256 {fingerprint}\r
a=setup:{setup}\r
a=mid:{mid}\r
a={direction}\r
a=rtpmap:111 opus/48000/2\r
a=fmtp:111 minptime=10;useinbandfec=1\r
"""
_SOURCE = """a=ssrc:{ssrc} cname:bench\r
a=ssrc:{ssrc} msid:bench bench\r
a=msid:bench bench\r
"""
_RETRY_S = 0.25
_PATIENCE_S = 30.0


class Client:
    """Owns its socket; ``close`` closes it. Not thread-safe."""

    def __init__(
        self, identity: Identity, host: str, *, talks: bool = False, setup: str = "actpass", sections: int = 1
    ) -> None:
        """``host``: our address. ``setup``: the DTLS role we offer. ``sections``: tracks we offer to receive."""
        self._identity = identity
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.setblocking(False)
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 18)
        self.socket.bind((host, 0))
        self._ufrag, self._password = secrets.token_hex(4), secrets.token_hex(16)
        self.ssrc = secrets.randbits(31) + 1
        mids = " ".join(map(str, range(sections)))
        self.offer = _SESSION.format(session=secrets.randbits(48), mids=mids)
        for mid in range(sections):
            self.offer += _SECTION.format(
                ufrag=self._ufrag,
                password=self._password,
                fingerprint=identity.fingerprint,
                setup=setup,
                mid=mid,
                direction="sendrecv" if talks else "recvonly",
            )
            self.offer += _SOURCE.format(ssrc=self.ssrc) if mid == 0 else ""
        self._keys: Keys | None = None
        self._serves = self._checked = False
        self.remote_ssrc = 0

    def take(self, answer: str) -> None:
        """The answer's ICE credentials, fingerprint, DTLS role and first host candidate."""

        def found(pattern: str) -> str:
            match = re.search(pattern, answer)
            if match is None:
                raise ValueError(f"no {pattern} in the answer")
            return match[1]

        self._remote_ufrag, self._remote_password = found(r"a=ice-ufrag:(\S+)"), found(r"a=ice-pwd:(\S+)")
        host, port = found(r"(?i)a=candidate:\S+ 1 udp \d+ (\d+\.\d+\.\d+\.\d+ \d+) typ host").split()
        self.remote = (host, int(port))
        self._fingerprint = found(r"(?i)a=fingerprint:sha-256 (\S+)").upper()
        self._serves = "a=setup:active" in answer
        self.socket.connect(self.remote)

    def check(self) -> bytes:
        """An ICE check that nominates; sent again it is a consent check (RFC 7675)."""
        username = f"{self._remote_ufrag}:{self._ufrag}"
        return stun.binding_request(username, self._remote_password.encode(), controlling=True, nominate=True)

    @property
    def stage(self) -> str:
        """How far it came."""
        if self._keys is not None:
            return "connected"
        return "DTLS" if self._checked else "ICE checks"

    async def connect(self) -> None:
        """Check, DTLS, keys. Raises TimeoutError, ConnectionError."""
        association = self._association()
        loop, readable = asyncio.get_running_loop(), asyncio.Event()
        loop.add_reader(self.socket, readable.set)  # a sock_recv that is cancelled in time loses what it has read
        try:
            async with asyncio.timeout(_PATIENCE_S):
                await self._shake_hands(association, readable)
        finally:
            loop.remove_reader(self.socket)
        assert association.keys is not None
        self._keys = association.keys
        self._protect(association.keys)

    async def _shake_hands(self, association: Association, readable: asyncio.Event) -> None:
        while association.keys is None:
            if not self._checked:
                self._send(self.check())
            elif association.closed:
                raise ConnectionError(association.failure)
            try:
                async with asyncio.timeout(_RETRY_S):
                    await readable.wait()
            except TimeoutError:
                association.retransmit()
            readable.clear()
            with contextlib.suppress(BlockingIOError):
                while association.keys is None:
                    self._take_datagram(self.socket.recv(2048), association)
            if self._checked:
                for datagram in association.outgoing():
                    self._send(datagram)

    def _take_datagram(self, data: bytes, association: Association) -> None:
        if data and data[0] < 4:
            self._checked = self._on_stun(data) or self._checked
        elif data and 20 <= data[0] <= 63:
            association.receive(data)

    def _association(self) -> Association:
        association = Association(self._identity, frozenset({("sha-256", self._fingerprint)}))
        if not self._serves:
            association._connection.set_connect_state()
            with contextlib.suppress(SSL.WantReadError):
                association._connection.do_handshake()
        return association

    def _protect(self, keys: Keys) -> None:
        ours, theirs = (keys.outgoing, keys.incoming) if self._serves else (keys.incoming, keys.outgoing)
        policy, profile = pylibsrtp.Policy, keys.profile.libsrtp
        self.outgoing = pylibsrtp.Session(policy(ours, policy.SSRC_ANY_OUTBOUND, srtp_profile=profile))
        self.incoming = pylibsrtp.Session(policy(theirs, policy.SSRC_ANY_INBOUND, srtp_profile=profile))
        self.profile = keys.profile.name

    def _on_stun(self, data: bytes) -> bool:
        """Answer a check of theirs; True for the answer to ours."""
        message = stun.parse(data)
        if message is not None and message.is_request:
            self._send(stun.success(message, self.remote, self._password.encode()))
        return message is not None and message.is_response

    def _send(self, datagram: bytes) -> None:
        with contextlib.suppress(BlockingIOError, ConnectionRefusedError):
            self.socket.send(datagram)

    async def first_packet(self) -> bool:
        """Wait for sound, answering their checks; learns their SSRC. False if none came in time."""
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(_PATIENCE_S):
                while True:
                    data = await loop.sock_recv(self.socket, 2048)
                    if data[0] < 4:
                        self._on_stun(data)
                    elif 128 <= data[0] <= 191 and not rtp.is_rtcp(data):
                        self.remote_ssrc = rtp.ssrc_of(data)
                        return True
        except TimeoutError:
            return False

    def receiver_report(self) -> bytes:
        """A protected RR about what we hear; each call has its own SRTCP index."""
        words = (self.ssrc, self.remote_ssrc, 0, 1, 0, 0, 0)
        clear = b"\x81\xc9\x00\x07" + b"".join(word.to_bytes(4, "big") for word in words)
        protected: bytes = self.outgoing.protect_rtcp(clear)
        return protected

    def close(self) -> None:
        self.socket.close()
