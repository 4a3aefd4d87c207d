"""CPU microseconds per listener-second of the Ogg stream, beside Icecast in the same run.

``python -m bench.stream [--listeners 200] [--seconds 20] [--json FILE]``

Both serve the same Opus frames (a chord with noise, mono, 48 kbit/s, 20 ms) to real TCP readers in another process.
Ours is the web server of the bridge with its live stage, rights and limits; frames come as the relay hands them over,
a batch each 200 ms. CPU is read from /proc for the serving process alone, over the steady state, and told at one
listener too: the difference is what a listener costs. Icecast is Debian's package (``apt install icecast2``), told the
same pages by its source protocol; where it is missing, its row says so. One reader of each parses what it gets.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import contextlib
import json
import os
import shutil
import socket
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bridge.ids import StageId, UserId
from bridge.media.opus import FRAME, RATE, Encoder
from bridge.media.sinks.stream import BATCH
from bridge.web.ogg import OggOpus
from tests.helpers.ogg import check_stream, take_page

_HZ = os.sysconf("SC_CLK_TCK")
_PERIOD_S = 0.02 * BATCH
_HANG_S = 60


def cpu_s(pid: int) -> float:
    """User and system seconds of a process so far, all threads."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / _HZ


def batches() -> list[list[bytes]]:
    """Ten seconds of real Opus frames at 48 kbit/s."""
    times = np.arange(10 * RATE) / RATE
    chord = sum(np.sin(2 * np.pi * hz * times) for hz in (220, 277, 330, 440)) * 0.09
    sound = (chord + 0.02 * np.random.default_rng(1).standard_normal(len(times))).astype(np.float32)
    encoder = Encoder(48_000)
    frames = [encoder.encode(sound[at : at + FRAME].copy()) for at in range(0, len(sound), FRAME)]
    return [frames[at : at + BATCH] for at in range(0, len(frames), BATCH)]


async def in_time(send: Callable[[list[bytes], int], object]) -> None:
    """Hand over a batch each 200 ms, for ever."""
    made = batches()
    loop = asyncio.get_running_loop()
    began, number = loop.time(), 0
    while True:
        send(made[number % len(made)], number * BATCH)
        number += 1
        await asyncio.sleep(max(0.0, began + number * _PERIOD_S - loop.time()))


# -- ours: a process of its own --------------------------------------------------------------------


class Relay:
    """`bridge.web.listen.FrameSource` from memory."""

    def __init__(self) -> None:
        self._takes: dict[StageId, Callable[[int, Sequence[bytes]], None]] = {}

    def listen(self, stage: StageId, take: Callable[[int, Sequence[bytes]], None]) -> None:
        self._takes[stage] = take

    def unlisten(self, stage: StageId) -> None:
        self._takes.pop(stage, None)

    def send(self, frames: list[bytes], tick: int) -> None:
        for take in self._takes.values():
            take(tick, frames)


async def serve(listeners: int) -> None:
    """Prints one JSON line with where to listen, then serves until standard input closes."""
    from tests.helpers.studio import running_studio

    people = [UserId(f"@p{number}:a.org") for number in range(listeners)]
    relay = Relay()
    with tempfile.TemporaryDirectory() as directory:
        async with running_studio(Path(directory), *people) as studio:
            studio.server._streams._source = relay
            source = asyncio.create_task(in_time(relay.send))
            heads = [
                f"GET /listen/{studio.stage}.ogg HTTP/1.1\r\nHost: x\r\n"
                f"Authorization: Bearer {studio.whep_token(person)}\r\n\r\n"
                for person in people
            ]
            sys.stdout.write(json.dumps({"url": studio.url, "requests": heads}) + "\n")
            sys.stdout.flush()
            await asyncio.to_thread(sys.stdin.read)
            source.cancel()
            await asyncio.gather(source, return_exceptions=True)


@contextlib.asynccontextmanager
async def eyvan(listeners: int) -> AsyncIterator[tuple[int, int, list[bytes]]]:
    """(pid, port, requests)"""
    pipe = asyncio.subprocess.PIPE
    command = (sys.executable, "-m", "bench.stream", "--serve", "--listeners", str(listeners))
    process = await asyncio.create_subprocess_exec(*command, stdin=pipe, stdout=pipe, limit=1 << 24)
    assert process.stdin
    assert process.stdout
    try:
        where = json.loads(await asyncio.wait_for(process.stdout.readline(), _HANG_S))
        yield process.pid, int(where["url"].rsplit(":", 1)[1]), [each.encode() for each in where["requests"]]
    finally:
        process.stdin.close()
        await process.wait()


# -- Icecast ---------------------------------------------------------------------------------------

_CONFIG = """<icecast><limits><clients>5000</clients><sources>2</sources><burst-on-connect>0</burst-on-connect>
<queue-size>524288</queue-size></limits><authentication><source-password>bench</source-password>
<admin-user>admin</admin-user><admin-password>bench</admin-password></authentication><hostname>127.0.0.1</hostname>
<listen-socket><port>{port}</port><bind-address>127.0.0.1</bind-address></listen-socket><fileserve>0</fileserve>
<paths><basedir>{dir}</basedir><logdir>{dir}</logdir><webroot>{dir}</webroot><adminroot>{dir}</adminroot></paths>
<logging><accesslog>access.log</accesslog><errorlog>error.log</errorlog><loglevel>1</loglevel></logging></icecast>"""


@contextlib.asynccontextmanager
async def icecast(listeners: int) -> AsyncIterator[tuple[int, int, list[bytes]]]:
    """Debian's Icecast on a free port, as ``nobody``: it refuses to run as root."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = int(free.getsockname()[1])
    with tempfile.TemporaryDirectory() as directory:
        config = _written(directory, port)
        more: dict[str, Any] = {"user": "nobody"} if os.getuid() == 0 else {}
        quiet = asyncio.subprocess.DEVNULL
        command = ("icecast2", "-c", str(config))
        process = await asyncio.create_subprocess_exec(*command, stdout=quiet, stderr=quiet, **more)
        source = asyncio.create_task(_feed(port))
        try:
            await asyncio.sleep(2)  # the mount point has to be there; no listener waits for it
            yield process.pid, port, [b"GET /bench.ogg HTTP/1.1\r\nHost: x\r\n\r\n"] * listeners
        finally:
            source.cancel()
            await asyncio.gather(source, return_exceptions=True)
            process.terminate()
            await process.wait()


def _written(directory: str, port: int) -> Path:
    Path(directory).chmod(0o777)
    config = Path(directory, "icecast.xml")
    config.write_text(_CONFIG.format(port=port, dir=directory))
    return config


async def _feed(port: int) -> None:
    async with asyncio.timeout(_HANG_S):
        while True:
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", port)
                break
            except OSError:
                await asyncio.sleep(0.1)
    password = base64.b64encode(b"source:bench").decode()
    head = f"PUT /bench.ogg HTTP/1.1\r\nHost: x\r\nAuthorization: Basic {password}\r\nContent-Type: audio/ogg\r\n\r\n"
    ogg = OggOpus(7)
    writer.write(head.encode() + ogg.headers())
    try:
        await in_time(lambda frames, tick: writer.write(ogg.sound(frames)))
    finally:
        writer.close()


# -- readers: a process of its own -----------------------------------------------------------------


class Reader(asyncio.Protocol):
    """Counts, and keeps what the first one gets."""

    def __init__(self, request: bytes, keep: bool) -> None:
        self._request = request
        self.kept = bytearray() if keep else None
        self.bytes = 0
        self.lost = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        self.bytes += len(data)
        if self.kept is not None:
            self.kept += data

    def connection_lost(self, error: Exception | None) -> None:
        self.lost = True


async def read(port: int, seconds: float) -> None:
    """Requests from standard input, one JSON list; prints ``ready`` when all get sound, then what they got."""
    requests = [each.encode() for each in json.loads(sys.stdin.readline())]
    loop = asyncio.get_running_loop()
    readers = [Reader(each, number == 0) for number, each in enumerate(requests)]
    for reader in readers:
        await loop.create_connection(lambda reader=reader: reader, "127.0.0.1", port)  # type: ignore[misc]
        await asyncio.sleep(0.002)
    async with asyncio.timeout(_HANG_S):
        while not all(each.bytes > 4000 for each in readers):  # noqa: ASYNC110
            await asyncio.sleep(0.05)
    before = [each.bytes for each in readers]
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    await asyncio.sleep(seconds)
    got = [each.bytes - then for each, then in zip(readers, before, strict=True)]
    told: dict[str, Any] = {"least": min(got), "most": max(got), "lost": sum(each.lost for each in readers)}
    told["pages"] = _parse(bytes(readers[0].kept or b""))
    sys.stdout.write(json.dumps(told) + "\n")


def _parse(data: bytes) -> int:
    head, _, body = data.partition(b"\r\n\r\n")
    if b"chunked" in head.lower():
        whole = bytearray()
        while b"\r\n" in body:
            size, _, rest = body.partition(b"\r\n")
            if not size or len(rest) < int(size, 16) + 2:
                break
            whole += rest[: int(size, 16)]
            body = rest[int(size, 16) + 2 :]
        body = bytes(whole)
    pages = []
    while (found := take_page(body)) is not None:
        pages.append(found[0])
        body = body[found[1] :]
    sound = [each for each in pages if not each.packets[0].startswith(b"Opus")]
    if b"chunked" in head.lower():
        check_stream(pages)  # Icecast numbers what comes after its headers as it comes
    return len(sound)


# -- the run ---------------------------------------------------------------------------------------


async def measure(pid: int, port: int, requests: list[bytes], seconds: float) -> dict[str, Any]:
    pipe = asyncio.subprocess.PIPE
    command = (sys.executable, "-m", "bench.stream", "--read", str(port), "--seconds", str(seconds))
    process = await asyncio.create_subprocess_exec(*command, stdin=pipe, stdout=pipe)
    assert process.stdin
    assert process.stdout
    process.stdin.write(json.dumps([each.decode() for each in requests]).encode() + b"\n")
    await asyncio.wait_for(process.stdout.readline(), 2 * _HANG_S)
    cpu, began = cpu_s(pid), time.monotonic()
    told = json.loads(await asyncio.wait_for(process.stdout.readline(), seconds + _HANG_S))
    used, lasted = cpu_s(pid) - cpu, time.monotonic() - began
    await process.wait()
    return {"listeners": len(requests), "cpu_us_per_s": 1e6 * used / lasted, **told}


async def run(listeners: int, seconds: float) -> dict[str, Any]:
    """One and many listeners of each server. ``us_per_listener_s`` is the slope."""
    results: dict[str, Any] = {"machine": os.uname().release, "cores": os.cpu_count(), "seconds": seconds}
    servers: dict[str, Any] = {"eyvan": eyvan}
    if shutil.which("icecast2"):
        servers["icecast"] = icecast
    else:
        results["icecast"] = "not installed (apt install icecast2)"
    for name, server in servers.items():
        async with server(listeners) as (pid, port, requests):
            few = await measure(pid, port, requests[:1], seconds)
            many = await measure(pid, port, requests, seconds)
        slope = (many["cpu_us_per_s"] - few["cpu_us_per_s"]) / (listeners - 1)
        whole = many["cpu_us_per_s"] / listeners
        results[name] = {"us_per_listener_s": round(slope, 1), "with_the_stage": round(whole, 1), "runs": [few, many]}
    return results


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--listeners", type=int, default=200)
    parser.add_argument("--seconds", type=float, default=20)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--read", type=int, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.serve:
        asyncio.run(serve(args.listeners))
    elif args.read:
        asyncio.run(read(args.read, args.seconds))
    else:
        results = asyncio.run(run(args.listeners, args.seconds))
        print(json.dumps(results, indent=1))
        if args.json:
            args.json.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
