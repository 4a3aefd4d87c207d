"""Those who talk: ``python -m bench.talker HOST SETUP [COUNT]``. For each an offer is printed, the answer read, and
"connected" printed; then all send a chord with some noise, 20 ms a packet, until standard input ends. The lines "mute"
and "talk" stop and go on. SETUP "plain": RTP without SRTP to the port of the one line that is read."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import secrets
import socket
import sys
from collections.abc import Sequence

import numpy as np

from bench.client import Client
from bridge.media import opus, rtp
from bridge.media.dtls import Identity

_CHECK_TICKS = 250


def sound() -> list[bytes]:
    """A second of Opus at 48 kbit/s, as payloads: 440 Hz, softer thirds and fifths, a little noise."""
    times = np.arange(opus.RATE) / opus.RATE
    chord = 0.25 * np.sin(2 * np.pi * 440 * times)
    for hz in (220, 277, 330):
        chord += 0.05 * np.sin(2 * np.pi * hz * times)
    chord += 0.01 * np.random.default_rng(1).standard_normal(opus.RATE)
    encoder = opus.Encoder()
    frames = chord.astype(np.float32).reshape(-1, opus.FRAME)
    return [encoder.encode(np.ascontiguousarray(frame)) for _ in range(2) for frame in frames][len(frames) :]


_NICE = -15  # it stands for another machine: on this one, busy as it is, its packets must leave in time


class Plain:
    """RTP in clear, as Janus's streaming plugin takes it."""

    def __init__(self, host: str, port: int) -> None:
        self.ssrc = secrets.randbits(31) + 1
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.connect((host, port))

    def speak(self, packet: bytes) -> None:
        self.socket.send(packet)

    def keep_up(self, *, check: bool) -> None:
        """Nothing is asked of us."""

    def close(self) -> None:
        self.socket.close()


class Secure(Client):
    """Over ICE, DTLS and SRTP."""

    def speak(self, packet: bytes) -> None:
        self.socket.send(self.outgoing.protect(packet))

    def keep_up(self, *, check: bool) -> None:
        if check:
            self.socket.send(self.check())
        with contextlib.suppress(BlockingIOError):
            while True:
                data = self.socket.recv(2048)
                if data[0] < 4:
                    self._on_stun(data)


async def talk(host: str, setup: str, count: int) -> None:
    reader = asyncio.StreamReader(limit=1 << 20)
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    voices: list[Plain | Secure] = []
    for _ in range(count):
        if setup == "plain":
            voices.append(Plain(host, json.loads(await reader.readline())))
        else:
            client = Secure(Identity(), host, talks=True, setup=setup)
            print(json.dumps(client.offer), flush=True)
            client.take(json.loads(await reader.readline()))
            await client.connect()
            voices.append(client)
        print(json.dumps("connected"), flush=True)
    talking = asyncio.Event()
    talking.set()
    sending = asyncio.create_task(_send(voices, talking))
    while line := (await reader.readline()).strip():
        talking.clear() if line == b'"mute"' else talking.set()
    sending.cancel()
    await asyncio.gather(sending, return_exceptions=True)
    for voice in voices:
        voice.close()


async def _send(voices: Sequence[Plain | Secure], talking: asyncio.Event) -> None:
    loop, payloads = asyncio.get_running_loop(), sound()
    start, tick, sequence = loop.time(), 0, 0
    while True:
        await asyncio.sleep(max(0.0, start + tick * 0.02 - loop.time()))
        for voice in voices:
            with contextlib.suppress(BlockingIOError, ConnectionRefusedError):
                voice.keep_up(check=tick % _CHECK_TICKS == 0)
                if talking.is_set():
                    head = rtp.pack_header(False, 111, sequence & 0xFFFF, tick * opus.FRAME, voice.ssrc, 0, False)
                    voice.speak(head + payloads[tick % len(payloads)])
        sequence += talking.is_set()
        tick += 1


if __name__ == "__main__":
    with contextlib.suppress(PermissionError):
        os.setpriority(os.PRIO_PROCESS, 0, _NICE)
    asyncio.run(talk(sys.argv[1], sys.argv[2], int(sys.argv[3]) if len(sys.argv) > 3 else 1))
