"""A partner's homeserver as Element Call sees it: a real LiveKit server with a token service before it, both by TLS,
and a client that publishes a microphone there."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import ssl
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import jwt
from aiohttp import web
from aiortc import RTCConfiguration, RTCPeerConnection, RTCSessionDescription
from aiortc.sdp import candidate_from_sdp
from livekit.protocol import models as M
from livekit.protocol import rtc as L

from bridge.demo.site import own_address
from tests.helpers.ports import free_port
from tests.helpers.rtc import Mouth

BINARY = "EYVAN_LIVEKIT_SERVER"
"""Names LiveKit's server; `make interop` builds it and sets this."""
HOST = "127.0.0.1"
_KEY, _SECRET = "partner", "only-for-the-tests-and-this-machine"
_HANG_S = 60.0
_CONFIG = """port: {port}
bind_addresses: ["127.0.0.1"]
log_level: error
keys: {{ {key}: {secret} }}
turn: {{ enabled: false }}
rtc:
  udp_port: {udp}
  tcp_port: 0
  node_ip: {host}
  use_external_ip: false
  stun_servers: []
  ips: {{ includes: ["{host}/32"] }}
"""


def token_of(identity: str, room: str) -> str:
    grant = {"room": room, "roomJoin": True, "canPublish": True, "canSubscribe": True}
    claims = {"iss": _KEY, "sub": identity, "exp": int(time.time()) + 3600, "video": grant}
    return jwt.encode(claims, _SECRET, algorithm="HS256")


class Server:
    """LiveKit's own server, as a process."""

    def __init__(self, directory: Path) -> None:
        self.port, self._udp = free_port(HOST), free_port(own_address())
        self._file = directory / "livekit.yaml"
        self._process: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        self._file.write_text(
            _CONFIG.format(port=self.port, udp=self._udp, host=own_address(), key=_KEY, secret=_SECRET)
        )
        quiet = asyncio.subprocess.DEVNULL
        command = (os.environ[BINARY], "--config", str(self._file))
        self._process = await asyncio.create_subprocess_exec(*command, stdout=quiet, stderr=quiet)
        async with asyncio.timeout(_HANG_S), aiohttp.ClientSession() as http:
            while True:
                assert self._process.returncode is None, "LiveKit's server ended"
                with contextlib.suppress(aiohttp.ClientError):
                    async with http.get(f"http://{HOST}:{self.port}") as response:
                        if response.status == 200:
                            return
                await asyncio.sleep(0.05)

    async def stop(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            await process.wait()


@dataclass
class Partner:
    """``service`` is their ``livekit_service_url``; ``asked`` are the bodies that came to it."""

    server: Server
    service: str
    asked: list[dict[str, Any]] = field(default_factory=list)


@contextlib.asynccontextmanager
async def running_partner(directory: Path, tls: ssl.SSLContext) -> AsyncIterator[Partner]:
    """As lk-jwt-service in its older form: it has no ``/get_token``."""
    server = Server(directory)
    await server.start()
    signalling, port = free_port(HOST), free_port(HOST)
    partner = Partner(server, f"https://{HOST}:{port}/livekit/jwt")

    async def give(request: web.Request) -> web.Response:
        body = await request.json()
        partner.asked.append(body)
        if not body.get("openid_token", {}).get("access_token"):
            return web.json_response({"errcode": "M_UNAUTHORIZED"}, status=401)
        token = token_of(f"@eyvan:a.org:{body['device_id']}", body["room"])
        return web.json_response({"url": f"wss://{HOST}:{signalling}", "jwt": token})

    app = web.Application()
    app.add_routes([web.post("/livekit/jwt/sfu/get", give)])
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, HOST, port, ssl_context=tls).start()
    front = await asyncio.start_server(lambda r, w: _through(r, w, server.port), HOST, signalling, ssl=tls)
    try:
        yield partner
    finally:
        front.close()
        await runner.cleanup()
        await server.stop()


async def _through(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, port: int) -> None:
    """TLS ends here; what is inside goes to LiveKit as it is."""

    async def pump(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError, ssl.SSLError):
            while data := await source.read(65536):
                sink.write(data)
                await sink.drain()
        sink.close()

    try:
        inner_reader, inner_writer = await asyncio.open_connection(HOST, port)
    except OSError:
        writer.close()
        return
    await asyncio.gather(pump(reader, inner_writer), pump(inner_reader, writer))


class Publisher:
    """One participant with a microphone, as Element Call is at its own server's SFU. ``close`` is harmless twice."""

    def __init__(self, identity: str, room: str, port: int) -> None:
        self._query = {"access_token": token_of(identity, room), "auto_subscribe": "0", "protocol": "9"}
        self._url = f"ws://{HOST}:{port}/rtc"
        self._pc = RTCPeerConnection(RTCConfiguration(iceServers=[]))
        self._http = aiohttp.ClientSession()
        self._reader: asyncio.Task[None] | None = None
        self._published = asyncio.Event()
        self.mouth = Mouth()
        self.others: dict[str, bool] = {}
        """Identity → whether it is there."""
        self._sid = ""

    async def start(self) -> None:
        self._socket = await self._http.ws_connect(self._url, params=self._query, max_msg_size=0)
        self._reader = asyncio.create_task(self._read())
        async with asyncio.timeout(_HANG_S):
            await self._published.wait()

    async def _send(self, **message: Any) -> None:
        await self._socket.send_bytes(L.SignalRequest(**message).SerializeToString())

    async def mute(self, muted: bool) -> None:
        await self._send(mute=L.MuteTrackRequest(sid=self._sid, muted=muted))

    async def _read(self) -> None:
        async for frame in self._socket:
            if frame.type is not aiohttp.WSMsgType.BINARY:
                continue
            said = L.SignalResponse.FromString(frame.data)
            match said.WhichOneof("message"):
                case "join":
                    self._see(said.join.other_participants)
                    track = L.AddTrackRequest(
                        cid="mic", name="mic", type=M.TrackType.AUDIO, source=M.TrackSource.MICROPHONE, disable_red=True
                    )
                    await self._send(add_track=track)
                case "track_published":
                    self._sid = said.track_published.track.sid
                    self._pc.addTransceiver(self.mouth, direction="sendonly")
                    await self._pc.setLocalDescription(await self._pc.createOffer())
                    sdp = self._pc.localDescription.sdp
                    await self._send(offer=L.SessionDescription(type="offer", sdp=sdp))
                case "answer":
                    await self._pc.setRemoteDescription(RTCSessionDescription(said.answer.sdp, "answer"))
                    self._published.set()
                case "trickle" if said.trickle.target == L.SignalTarget.PUBLISHER:
                    init = json.loads(said.trickle.candidateInit)
                    candidate = candidate_from_sdp(init["candidate"].removeprefix("candidate:"))
                    candidate.sdpMid, candidate.sdpMLineIndex = init.get("sdpMid"), init.get("sdpMLineIndex")
                    await self._pc.addIceCandidate(candidate)
                case "update":
                    self._see(said.update.participants)

    def _see(self, participants: Any) -> None:
        for each in participants:
            self.others[each.identity] = each.state != M.ParticipantInfo.DISCONNECTED

    async def close(self) -> None:
        if self._reader is not None:
            self._reader.cancel()
            await asyncio.gather(self._reader, return_exceptions=True)
            await self._socket.close()
        await self._pc.close()
        await self._http.close()
