"""What is measured: Eyvan's media worker, and its peers, each behind the same three calls.

A server is started fresh for each measurement. Its CPU is that of the one process that carries sound.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

from bridge.errors import Unavailable
from bridge.ids import PeerId, StageId
from bridge.media.control import WorkerSettings
from bridge.media.workers import Workers

STAGE = StageId("bench")
_HANG_S = 30


class Server(Protocol):
    """``answer`` may be called from several tasks at once."""

    setup: str  # the DTLS role a client offers
    needs_talker: bool
    wants_sections: bool  # whether a listener's offer must have a section for each who talks
    plain_port: int  # where the talker's plain RTP goes; 0: the talker is a WebRTC client as others

    @property
    def settings(self) -> str:
        """How it is set up, for the reader of the table."""

    async def start(self) -> None: ...

    @property
    def pid(self) -> int: ...

    async def answer(self, offer: str, *, talks: bool) -> str: ...

    async def close(self) -> None: ...


class _Nobody:
    def peer_connected(self, peer: PeerId) -> None: ...

    def peer_gone(self, peer: PeerId, reason: str) -> None: ...

    def peer_pressed(self, peer: PeerId, key: str) -> None: ...

    def levels(self, stage: StageId, levels: Mapping[int, int]) -> None: ...


class Eyvan:
    """One media worker, spoken to as the control process does."""

    setup = "actpass"
    needs_talker = True
    wants_sections = False
    plain_port = 0

    def __init__(self, fan_out: str, packet_ms: int) -> None:
        self.settings = f"one worker, nice −10, fan-out {fan_out}, {packet_ms} ms to listeners, mono 48 kbit/s"
        settings = WorkerSettings(fan_out=fan_out, listener_packet_ms=packet_ms, max_peers=20_000)
        self._workers = Workers(settings, _Nobody())
        self._peers = self._talkers = 0
        self.stage = STAGE
        self.pid = 0

    async def start(self) -> None:
        await self._workers.start()
        self.pid = (await self._workers.stats()).worker.pid

    async def answer(self, offer: str, *, talks: bool) -> str:
        self._peers += 1
        self._talkers += talks
        name = f"talker{self._talkers}" if talks else f"listener{self._peers}"
        joined = await self._workers.join(self.stage, PeerId(name), name, offer, hear=True, speak=talks)
        return joined.sdp

    async def gate(self, peer: PeerId, *, speak: bool) -> None:
        await self._workers.gate(peer, hear=True, speak=speak)

    async def restarted(self) -> None:
        """Until another process is the worker, after the last one died."""
        dead = self.pid
        async with asyncio.timeout(_HANG_S):
            while self.pid == dead:
                with contextlib.suppress(Unavailable):
                    self.pid = (await self._workers.stats()).worker.pid
                await asyncio.sleep(0.005)

    async def counters(self) -> Mapping[str, float | str]:
        worker = (await self._workers.stats()).worker
        return {
            "tick_late_p50_ms": worker.late_p50_ms,
            "tick_late_p99_ms": worker.late_p99_ms,
            "ticks_skipped": worker.ticks_skipped,
            "send_errors": worker.send_errors,
        }

    async def close(self) -> None:
        await self._workers.close()


class Child:
    """A process spoken to in JSON lines."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process

    @classmethod
    async def start(cls, *command: str) -> Child:
        pipe = asyncio.subprocess.PIPE
        environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent.parent)}
        return cls(
            await asyncio.create_subprocess_exec(*command, stdin=pipe, stdout=pipe, limit=1 << 24, env=environment)
        )

    async def read(self, within_s: float = 180) -> object:
        assert self.process.stdout is not None
        line = await asyncio.wait_for(self.process.stdout.readline(), within_s)
        if not line:
            raise ConnectionError("a process of the bench ended")
        return json.loads(line)

    def write(self, value: object) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(value).encode() + b"\n")

    async def close(self) -> None:
        assert self.process.stdin is not None
        with contextlib.suppress(ConnectionError):
            self.process.stdin.close()
        try:
            await asyncio.wait_for(self.process.wait(), 20)
        except TimeoutError:
            self.process.kill()
            await self.process.wait()


class _Spoken:
    """A server that reads {"offer", "talks"} lines and writes {"answer"} lines, one after the other."""

    setup = "actpass"
    wants_sections = True
    plain_port = 0

    def __init__(self, *command: str, needs_talker: bool, settings: str) -> None:
        self._command, self.needs_talker, self.settings = command, needs_talker, settings
        self._one = asyncio.Lock()

    async def start(self) -> None:
        self._child = await Child.start(*self._command)
        self.pid = self._child.process.pid

    async def answer(self, offer: str, *, talks: bool) -> str:
        async with self._one:
            self._child.write({"offer": offer, "talks": talks})
            line = await self._child.read()
        assert isinstance(line, dict)
        return str(line["answer"])

    async def close(self) -> None:
        await self._child.close()


def media_relay() -> Server:
    """aiortc as its documentation relays: an encoder and a peer connection for each listener."""
    return _Spoken(
        sys.executable,
        "-m",
        "bench.media_relay",
        needs_talker=False,
        settings="mono 48 kbit/s; no decoder: it makes its tone",
    )


def pion(binary: Path) -> Server:
    """A plain Pion forwarder: one local track, written once for all (bench/pion)."""
    return _Spoken(str(binary), needs_talker=True, settings="ICE-lite, one UDP port, 4 MB buffers")
