"""A worker in this process with one peer that has done everything right, and whose keys are the test's."""

from __future__ import annotations

import asyncio
from typing import NoReturn

from bridge.media import stun
from bridge.media.control import Join, Message, Reply, WorkerSettings
from bridge.media.peer import Peer
from bridge.media.stun import Address
from bridge.media.worker import Worker
from tests.helpers.raw_peer import RawPeer

TICK_EACH = 8  # cases


class Stage:
    """``make`` connects the peer; then everything is a direct call, and a defect of the worker is raised."""

    worker: Worker
    raw: RawPeer
    peer: Peer
    address: Address
    _cases = 0

    @classmethod
    async def make(cls) -> Stage:
        self = cls()
        self.worker = Worker(WorkerSettings(bind="127.0.0.1", gone_s=1e9, silent_s=1e9), self._told)
        self.worker.start()
        self.raw = RawPeer()
        self.raw.red = "111/111"
        reply = self.worker.handle(Join(1, "stage", "raw", "raw", self.raw.offer, True, True))
        assert isinstance(reply, Reply)
        self.raw.take(reply.sdp)
        await self.raw.check()
        await self.raw.handshake()
        self.peer = self.worker._peers["raw"]
        while not self.peer.is_connected:  # noqa: ASYNC110
            await asyncio.sleep(0)
        self.address = next(iter(self.worker._by_address))
        self.worker._defect = self._raise  # type: ignore[method-assign]
        return self

    def _told(self, message: Message) -> None: ...

    def _raise(self, where: str) -> NoReturn:
        raise  # called from the handler of what is raised again

    def datagram(self, data: bytes, address: Address | None = None) -> None:
        """As the port gives it to the worker; now and then a tick plays what came."""
        self.worker._on_datagram(data, address or self.address)
        self._cases += 1
        if self._cases % TICK_EACH == 0:
            self.worker._tick += 1
            self.worker._run_tick(self.worker._loop.time())

    def rtp(self, packet: bytes) -> None:
        """What is authentic: the peer's own keys protect it. Its number is the next, so that it is no replay."""
        if len(packet) < 12:
            return
        self.raw.sequence = self.raw.sequence + 1 & 0xFFFF
        ssrc = self.raw.ssrc + packet[11] % 6  # more than a peer may have
        head = packet[:2] + self.raw.sequence.to_bytes(2, "big") + packet[4:8] + (ssrc & 0xFFFF_FFFF).to_bytes(4, "big")
        try:
            protected = self.raw._outgoing.protect(head + packet[12:])
        except Exception:  # libsrtp does not write such a packet
            return
        self.datagram(protected)
        assert len(self.peer._reports) <= 4

    def rtcp(self, packet: bytes) -> None:
        ssrc = self.raw.ssrc + (packet[7] % 6 if len(packet) > 7 else 0)  # our own libsrtp keeps state for each, too
        try:
            protected = self.raw._outgoing.protect_rtcp(
                packet[:4] + (ssrc & 0xFFFF_FFFF).to_bytes(4, "big") + packet[8:]
            )
        except Exception:
            return
        self.datagram(protected)
        assert len(self.peer._uplink._reporters) <= 4

    def check(self, attributes: bytes) -> None:
        """A check that our own password signs, with any attributes, from one of many addresses."""
        username = stun._attribute(stun._USERNAME, f"{self.raw.remote_ufrag}:{self.raw.ufrag}".encode())
        padded = attributes[:1000] + bytes(-len(attributes[:1000]) % 4)
        password = self.raw.remote_password.encode()
        message = stun._message(stun._REQUEST, bytes(12), username + padded, password)
        origin = ("127.0.0.1", 40_000 + sum(attributes) % 50)
        self.datagram(message, origin)
        assert len(self.worker._by_address) <= 8

    def close(self) -> None:
        self.worker.close()
        self.raw.close()
