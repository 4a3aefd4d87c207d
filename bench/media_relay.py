"""aiortc's documented pattern as a server: ``MediaRelay().subscribe(track)`` and a peer connection for each listener.

JSON lines: {"offer": SDP} in, {"answer": SDP} out. Its encoders are set to what ours does, mono and 48 kbit/s (their
default is twice both); the source is a tone made in the process, so that it decodes nothing.
"""

from __future__ import annotations

import asyncio
import fractions
import json
import sys

import av
import numpy as np
from aiortc import MediaStreamTrack, RTCConfiguration, RTCPeerConnection, RTCSessionDescription, codecs
from aiortc.codecs import opus
from aiortc.contrib.media import MediaRelay

from bridge.media.opus import FRAME, RATE
from tests.helpers.tone import sine


class Tone(MediaStreamTrack):
    kind = "audio"

    def __init__(self) -> None:
        super().__init__()
        self._tone = sine(440, 1)
        self._position, self._start = 0, 0.0

    async def recv(self) -> av.AudioFrame:
        loop = asyncio.get_running_loop()
        self._start = self._start or loop.time()
        await asyncio.sleep(max(0.0, self._start + self._position / RATE - loop.time()))
        at = self._position % RATE
        frame = av.AudioFrame.from_ndarray(self._tone[np.newaxis, at : at + FRAME], format="s16", layout="mono")
        frame.sample_rate, frame.pts, frame.time_base = RATE, self._position, fractions.Fraction(1, RATE)
        self._position += FRAME
        return frame


class Mono(opus.OpusEncoder):
    def __init__(self) -> None:
        super().__init__()
        self.codec.bit_rate = 48_000
        self.codec.layout = "mono"
        self.resampler = av.AudioResampler(format="s16", layout="mono", rate=RATE, frame_size=FRAME)


async def serve() -> None:
    opus.OpusEncoder = Mono  # type: ignore[misc]
    codecs.OpusEncoder = Mono  # type: ignore[attr-defined]
    relay, source = MediaRelay(), Tone()
    peers = []
    reader = asyncio.StreamReader(limit=1 << 20)
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    while line := await reader.readline():
        pc = RTCPeerConnection(RTCConfiguration(iceServers=[]))
        peers.append(pc)
        pc.addTrack(relay.subscribe(source))
        await pc.setRemoteDescription(RTCSessionDescription(json.loads(line)["offer"], "offer"))
        await pc.setLocalDescription(await pc.createAnswer())
        print(json.dumps({"answer": pc.localDescription.sdp}), flush=True)
    for pc in peers:
        await pc.close()


if __name__ == "__main__":
    asyncio.run(serve())
