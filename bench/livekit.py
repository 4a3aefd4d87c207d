"""LiveKit's server, built by Go from its module: ICE-lite, one UDP port, no TURN, no STUN. Spoken to in its own
signalling (``livekit-protocol``); listeners are hidden participants, so that nobody is told of each one who comes."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

import aiohttp
import jwt
from livekit.protocol import models as M
from livekit.protocol import rtc as L

from bench.answers import answer_to
from bench.janus import free_port

MODULE = "github.com/livekit/livekit-server/cmd/server@v1.9.12"
"""The newest whose module needs no replaced ones, and so can be built by its name."""
_PATIENCE_S = 60
_KEY, _SECRET = "bench", "only-for-the-bench-and-its-own-machine"
_CONFIG = """port: {port}
bind_addresses: ["127.0.0.1"]
log_level: error
keys: {{ {key}: {secret} }}
turn: {{ enabled: false }}
rtc:
  udp_port: {udp}
  tcp_port: 0
  node_ip: {host}
  use_ice_lite: true
  use_external_ip: false
  stun_servers: []
  ips: {{ includes: ["{host}/32"] }}
"""


def build(directory: Path) -> tuple[Path | None, str]:
    """(the binary, or None; why not). Takes minutes the first time; Go keeps what it compiled."""
    if shutil.which("go") is None:
        return None, "not built (no Go)"
    environment = {**os.environ, "GOBIN": str(directory)}
    made = subprocess.run(["go", "install", MODULE], env=environment, capture_output=True, text=True, check=False)
    if made.returncode:
        return None, f"not built ({(made.stderr.strip().splitlines() or ['?'])[-1][:80]})"
    return directory / "server", ""


class LiveKit:
    """A server of bench.servers. Each peer has a WebSocket, read until ``close``."""

    setup = "actpass"
    wants_sections = False
    needs_talker = True
    plain_port = 0
    settings = "ICE-lite, one UDP port, no TURN, listeners hidden; RED and DTX off"

    def __init__(self, binary: Path, host: str) -> None:
        self._binary, self._host = binary, host
        self._readers: list[asyncio.Task[None]] = []
        self._number = 0

    async def start(self) -> None:
        """Raises ConnectionError where it does not come up."""
        self._directory = tempfile.TemporaryDirectory()
        port, udp = free_port("127.0.0.1"), free_port(self._host)
        file = self._written(_CONFIG.format(port=port, udp=udp, host=self._host, key=_KEY, secret=_SECRET))
        quiet = asyncio.subprocess.DEVNULL
        self._process = await asyncio.create_subprocess_exec(self._binary, "--config", file, stdout=quiet, stderr=quiet)
        self.pid = self._process.pid
        self._http = aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0))
        self._url = f"http://127.0.0.1:{port}"
        async with asyncio.timeout(_PATIENCE_S):
            while self._process.returncode is None:
                with contextlib.suppress(aiohttp.ClientError):
                    async with self._http.get(self._url) as response:
                        if response.status == 200:
                            return
                await asyncio.sleep(0.1)
        raise ConnectionError("LiveKit ended at once")

    def _written(self, config: str) -> Path:
        file = Path(self._directory.name, "livekit.yaml")
        file.write_text(config)
        return file

    def _token(self, name: str, *, talks: bool) -> str:
        grant = {"room": "bench", "roomJoin": True, "canPublish": talks, "canSubscribe": not talks, "hidden": not talks}
        claims = {"iss": _KEY, "sub": name, "exp": int(time.time()) + 3600, "video": grant}
        return jwt.encode(claims, _SECRET, algorithm="HS256")

    async def answer(self, offer: str, *, talks: bool) -> str:
        self._number += 1
        name = f"{'talker' if talks else 'listener'}{self._number}"
        query = {"access_token": self._token(name, talks=talks), "auto_subscribe": "1", "protocol": "12", "sdk": "go"}
        socket = await self._http.ws_connect(f"{self._url}/rtc", params=query, max_msg_size=0)
        told: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._readers.append(asyncio.create_task(self._serve(socket, offer, told, talks=talks)))
        async with asyncio.timeout(_PATIENCE_S):
            return await told

    async def _serve(
        self, socket: aiohttp.ClientWebSocketResponse, offer: str, told: asyncio.Future[str], *, talks: bool
    ) -> None:
        """One participant's signalling. ``told`` gets the first description with a candidate in it."""
        wanted = L.SignalTarget.PUBLISHER if talks else L.SignalTarget.SUBSCRIBER
        sdp, candidates = "", ""
        try:
            async for message in socket:
                if message.type is not aiohttp.WSMsgType.BINARY:
                    continue
                got = L.SignalResponse.FromString(message.data)
                kind = got.WhichOneof("message")
                if kind == "join":
                    if talks:
                        track = L.AddTrackRequest(cid="bench", name="bench", type=M.TrackType.AUDIO, disable_red=True)
                        await _send(socket, add_track=track)
                elif kind == "track_published":
                    await _send(socket, offer=L.SessionDescription(type="offer", sdp=offer))
                elif kind == "offer":
                    sdp = got.offer.sdp
                    answer = L.SessionDescription(type="answer", sdp=answer_to(sdp, offer), id=got.offer.id)
                    await _send(socket, answer=answer)
                elif kind == "answer":
                    sdp = got.answer.sdp
                elif kind == "trickle" and got.trickle.target == wanted:
                    candidate = json.loads(got.trickle.candidateInit).get("candidate", "")
                    candidates += f"a={candidate}\r\n" if candidate else ""
                if sdp and "candidate:" in sdp + candidates and "m=audio" in sdp and not told.done():
                    told.set_result(sdp.rstrip() + "\r\n" + candidates)
        except Exception as error:
            if not told.done():
                told.set_exception(ConnectionError(f"LiveKit: {type(error).__name__}: {error}"))
            raise
        finally:
            if not told.done():
                told.set_exception(ConnectionError(f"LiveKit closed the connection: {socket.close_code}"))

    async def close(self) -> None:
        for task in self._readers:
            task.cancel()
        await asyncio.gather(*self._readers, return_exceptions=True)
        if self._process.returncode is None:
            self._process.kill()  # taking down hundreds of peers one by one is not what is measured
        await self._process.wait()
        await self._http.close()
        self._directory.cleanup()


async def _send(socket: aiohttp.ClientWebSocketResponse, **message: Any) -> None:
    await socket.send_bytes(L.SignalRequest(**message).SerializeToString())
