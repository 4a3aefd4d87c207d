"""The one who talks: ``python -m bench.talker HOST SETUP``. Prints an offer, reads the answer, then sends a chord with
some noise, 20 ms a packet, until standard input ends. The lines "mute" and "talk" stop and go on."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import sys

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


async def talk(host: str, setup: str) -> None:
    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    client = Client(Identity(), host, talks=True, setup=setup)
    print(json.dumps(client.offer), flush=True)
    client.take(json.loads(await reader.readline()))
    await client.connect()
    print(json.dumps("connected"), flush=True)
    talking = asyncio.Event()
    talking.set()
    sending = asyncio.create_task(_send(client, talking))
    while line := (await reader.readline()).strip():
        talking.clear() if line == b'"mute"' else talking.set()
    sending.cancel()
    await asyncio.gather(sending, return_exceptions=True)
    client.close()


async def _send(client: Client, talking: asyncio.Event) -> None:
    loop, payloads = asyncio.get_running_loop(), sound()
    start, tick, sequence = loop.time(), 0, 0
    while True:
        await asyncio.sleep(max(0.0, start + tick * 0.02 - loop.time()))
        with contextlib.suppress(BlockingIOError, ConnectionRefusedError):
            if tick % _CHECK_TICKS == 0:
                client.socket.send(client.check())
            if talking.is_set():
                head = rtp.pack_header(False, 111, sequence & 0xFFFF, tick * opus.FRAME, client.ssrc, 0, False)
                client.socket.send(client.outgoing.protect(head + payloads[tick % len(payloads)]))
                sequence += 1
        tick += 1
        with contextlib.suppress(BlockingIOError):
            while True:
                data = client.socket.recv(2048)
                if data[0] < 4:
                    client._on_stun(data)


if __name__ == "__main__":
    with contextlib.suppress(PermissionError):
        os.setpriority(os.PRIO_PROCESS, 0, _NICE)
    asyncio.run(talk(sys.argv[1], sys.argv[2]))
