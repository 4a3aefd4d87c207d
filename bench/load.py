"""A process of the load: ``python -m bench.load`` with JSON lines on standard input and output.

{"join": N, "host", "setup", "sections"}  N listeners: an offer line for each, an answer line for each, a summary
{"measure": seconds}                  drain for so long; counts, loss, lateness
{"plain": N, "host": …}               N plain UDP sockets; their ports
{"flood": [ports], …}                 the kernel's floor: datagrams to these ports; CPU used
{"ear": seconds}                      the first listener decodes: tone, gaps
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import json
import socket
import struct
import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from bench.client import Client
from bench.native import Count, Sample, Upkeep, library
from bridge.media import opus, rtp
from bridge.media.dtls import Identity
from tests.helpers.tone import level_at, ratio_at

AT_ONCE = 48
"""Joins under way at a time."""
UPKEEP_S = 5.0
"""Each client sends an ICE check (RFC 7675 §5.1) and a receiver report so often."""
_ROUNDS = 24
_SLOT = 128
_SAMPLED = 16
_MAX_SAMPLES = 400_000


class Load:
    """The listeners of this process."""

    def __init__(self) -> None:
        self._identity = Identity()
        self.clients: list[Client] = []
        self.joined: list[Client] = []
        self._plain: list[socket.socket] = []
        self._round = 0
        self._upkeep: Upkeep | None = None
        self._answers: dict[int, asyncio.Future[str]] = {}

    async def join(
        self, count: int, host: str, setup: str, sections: int, reader: asyncio.StreamReader
    ) -> dict[str, Any]:
        """Join ``count`` more; joins per second are those of this process and the server together."""
        first = len(self.clients)
        fresh = [Client(self._identity, host, setup=setup, sections=sections) for _ in range(count)]
        self.clients += fresh
        waiting = iter(enumerate(fresh, first))
        answers = asyncio.create_task(self._read_answers(reader, count))
        began, cpu = time.monotonic(), time.process_time()

        failed: list[str] = []

        async def one_after_another() -> None:
            for number, client in waiting:
                self._answers[number] = answered = asyncio.get_running_loop().create_future()
                say({"number": number, "offer": client.offer})
                client.take(await answered)
                try:
                    await client.connect()
                except (TimeoutError, ConnectionError) as error:
                    failed.append(f"{type(error).__name__} {error}, {client.stage}")
                    return  # one who waits for each of a server that is overwhelmed waits for hours
                self.joined.append(client)

        await asyncio.gather(*(one_after_another() for _ in range(AT_ONCE)))
        took, cpu = time.monotonic() - began, time.process_time() - cpu
        if failed:
            answers.cancel()
            await asyncio.gather(answers, return_exceptions=True)
            return {"failed": f"{len(self.joined) - first} of {count} came in; {failed[0]}"}
        await answers
        heard = [await client.first_packet() for client in fresh]
        self._prepare()
        profiles = {client.profile for client in fresh}
        return {"seconds": took, "client_cpu_s": cpu, "silent": heard.count(False), "profiles": sorted(profiles)}

    async def _read_answers(self, reader: asyncio.StreamReader, count: int) -> None:
        for _ in range(count):
            line = json.loads(await reader.readline())
            self._answers.pop(line["number"]).set_result(line["answer"])

    def _prepare(self) -> None:
        """What each client sends by itself, made beforehand: protected reports have an index each."""
        data = bytearray(len(self.clients) * _ROUNDS * 2 * _SLOT)
        sizes = (ctypes.c_int32 * (len(self.clients) * _ROUNDS * 2))()
        for number, client in enumerate(self.clients):
            check = client.check()
            for at in range(_ROUNDS):
                for part, datagram in enumerate((check, client.receiver_report())):
                    slot = (number * _ROUNDS + at) * 2 + part
                    data[slot * _SLOT : slot * _SLOT + len(datagram)] = datagram
                    sizes[slot] = len(datagram)
        self._kept = bytes(data)
        self._sizes = sizes
        self._upkeep = Upkeep(self._kept, sizes, _SLOT, _ROUNDS, int(UPKEEP_S * 1e9))
        self._round = 0

    def measure(self, seconds: float) -> dict[str, Any]:
        """Drain; what of the packets came, and how late against each listener's fastest one (by the kernel's clock)."""
        sockets: Sequence[socket.socket] = [client.socket for client in self.clients] or self._plain
        count = len(sockets)
        descriptors = (ctypes.c_int32 * count)(*(each.fileno() for each in sockets))
        counts, samples = (Count * count)(), (Sample * _MAX_SAMPLES)()
        upkeep = ctypes.byref(self._upkeep) if self._upkeep is not None else None
        cpu = time.process_time()
        _call = library().drain
        taken = _call(
            descriptors, count, counts, upkeep, self._round, samples, _MAX_SAMPLES, _SAMPLED, int(seconds * 1e9)
        )
        self._round = (self._round + int(seconds // UPKEEP_S) + 1) % _ROUNDS
        packets = sum(each.packets for each in counts)
        expected = sum(each.expected for each in counts)
        late = lateness(samples, taken)
        return {
            "packets": packets,
            "bytes": sum(each.bytes for each in counts),
            "loss": 1 - packets / expected if expected else 1.0,
            "silent": sum(not each.packets for each in counts),
            "fewest_sources": min((each.sources for each in counts), default=0),
            "late_p50_ms": percentile(late, 50),
            "late_p99_ms": percentile(late, 99),
            "late_max_ms": percentile(late, 100),
            "client_cpu": (time.process_time() - cpu) / seconds,
        }

    def plain(self, count: int, host: str) -> list[int]:
        for _ in range(count):
            made = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 18)
            made.bind((host, 0))
            self._plain.append(made)
        return [each.getsockname()[1] for each in self._plain]

    async def ear(self, seconds: float) -> dict[str, Any]:
        """The first listener decodes: level and purity of the talker's tone, and what was missing."""
        client, decoder, loop = self.clients[0], opus.Decoder(), asyncio.get_running_loop()
        while True:
            with contextlib.suppress(BlockingIOError):
                client.socket.recv(2048)
                continue
            break
        heard: dict[int, opus.Samples] = {}
        end = loop.time() + seconds
        while loop.time() < end:
            with contextlib.suppress(TimeoutError):
                data = await asyncio.wait_for(loop.sock_recv(client.socket, 2048), 0.5)
                if 128 <= data[0] <= 191 and not rtp.is_rtcp(data) and rtp.ssrc_of(data) == client.remote_ssrc:
                    packet = rtp.parse(client.incoming.unprotect(data))
                    assert packet is not None
                    heard[packet.timestamp] = decoder.decode(packet.payload).copy()
        return describe(heard)

    def close(self) -> None:
        for client in self.clients:
            client.close()
        for each in self._plain:
            each.close()


async def _keep_up(joined: Sequence[Client]) -> None:
    """Consent checks while ``drain`` does not send them: a server may let silent ones go."""
    while True:
        await asyncio.sleep(UPKEEP_S / 2)
        for client in joined:
            with contextlib.suppress(BlockingIOError):
                client.socket.send(client.check())


def describe(heard: Mapping[int, opus.Samples]) -> dict[str, Any]:
    """Of decoded packets by timestamp: dBFS at 440 Hz, dB over the rest, milliseconds that are missing."""
    if not heard:
        return {"tone_dbfs": -120.0, "gaps_ms": -1.0}
    first = min(heard)
    length = max(timestamp + len(samples) for timestamp, samples in heard.items()) - first
    sound = np.zeros(length, np.float32)
    covered = 0
    for timestamp, samples in heard.items():
        sound[timestamp - first : timestamp - first + len(samples)] = samples
        covered += len(samples)
    pcm = np.clip(sound * 32768, -32768, 32767).astype(np.int16)[-opus.RATE :]
    return {
        "tone_dbfs": round(level_at(pcm, 440), 1),
        "tone_over_rest_db": round(ratio_at(pcm, 440), 1),
        "gaps_ms": round((length - covered) / 48, 1),
        "packet_ms": max(map(len, heard.values())) / 48,
    }


def lateness(samples: ctypes.Array[Sample], taken: int) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Milliseconds of each sampled packet behind the earliest one of its listener and source, on the RTP time line."""
    rows = np.frombuffer(bytes(samples), dtype=[("at", "<i8"), ("flow", "<u4"), ("rtp", "<u4")])[: max(0, taken)]
    found = []
    for flow in np.unique(rows["flow"]):
        mine = rows[rows["flow"] == flow]
        media = (mine["rtp"] - mine["rtp"][0]).astype(np.int32).astype(np.float64) / 48  # ms, over the wrap
        arrival = (mine["at"] - mine["at"][0]) / 1e6
        found.append(arrival - media - (arrival - media).min())
    return np.concatenate(found) if found else np.zeros(0)


def percentile(values: np.ndarray[Any, np.dtype[np.float64]], which: float) -> float:
    return round(float(np.percentile(values, which)), 2) if len(values) else -1.0


def flood(host: str, ports: Sequence[int], size: int, phases: int, seconds: float) -> dict[str, Any]:
    """The floor: CPU of sendmmsg alone, for as many datagrams of the same size."""
    source = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    source.bind((host, 0))
    source.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4 << 20)
    packed = b"".join(
        struct.pack("<H", socket.AF_INET) + struct.pack("!H", port) + socket.inet_aton(host) + bytes(8)
        for port in ports
    )
    sent = ctypes.c_int64()
    _call = library().flood
    used = _call(source.fileno(), packed, len(ports), size, phases, 20_000_000, int(seconds * 1e9), ctypes.byref(sent))
    source.close()
    return {"cpu_s": used / 1e9, "sent": sent.value, "seconds": seconds}


def say(value: object) -> None:
    sys.stdout.write(json.dumps(value) + "\n")
    sys.stdout.flush()


async def main() -> None:
    reader = asyncio.StreamReader(limit=1 << 22)
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    load = Load()
    library()
    awake = asyncio.create_task(_keep_up(load.joined))
    while line := await reader.readline():
        match json.loads(line):
            case {"join": count, "host": host, "setup": setup, "sections": sections}:
                say(await load.join(count, host, setup, sections, reader))
            case {"measure": seconds}:
                say(load.measure(seconds))
            case {"ear": seconds}:
                say(await load.ear(seconds))
            case {"plain": count, "host": host}:
                say(load.plain(count, host))
            case {"flood": ports, "host": host, "size": size, "phases": phases, "seconds": seconds}:
                say(flood(host, ports, size, phases, seconds))
    awake.cancel()
    await asyncio.gather(awake, return_exceptions=True)
    load.close()


if __name__ == "__main__":
    asyncio.run(main())
