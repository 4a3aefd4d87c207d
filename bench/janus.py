"""Janus (Debian's package), three of its plugins: audiobridge mixes and encodes for each, videoroom forwards, streaming
forwards plain RTP. Spoken to over its WebSocket; one session, a handle for each peer.

Its media is ICE-lite here, at one address, with AES_128_GCM as all others; ``event_loops`` puts its peers on so many
threads instead of one each."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import secrets
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import aiohttp

from bench.answers import answer_to

ROOM = 1234
_PATIENCE_S = 60
_CORE = """general: {{
  configs_folder = "{dir}"
  debug_level = 2
  session_timeout = 0
  server_name = "bench"
  {loops}
}}
media: {{ rtp_port_range = "20000-58000" }}
nat: {{ ice_lite = true, full_trickle = false, ice_enforce_list = "{host}", ignore_mdns = true }}
plugins: {{ disable = "{others}" }}
transports: {{ disable = "{transports}" }}
events: {{ broadcast = false }}
loggers: {{ disable = "libjanus_jsonlog.so" }}
"""
_PLUGINS = (
    *("audiobridge", "videoroom", "streaming", "duktape", "echotest", "lua", "nosip", "recordplay", "sip", "textroom"),
    *("videocall", "voicemail"),
)
_TRANSPORTS = ("http", "pfunix", "mqtt", "nanomsg", "rabbitmq")


def missing() -> str:
    """Why Janus cannot be measured here, or nothing."""
    return "" if shutil.which("janus") else "not installed (Debian: janus)"


def version() -> str:
    """Of the installed one."""
    told = subprocess.run(["janus", "--version"], capture_output=True, text=True, check=False).stdout
    found = re.search(r"\(([\d.]+)\)", told)
    return found[1] if found else "installed"


def free_port(host: str) -> int:
    with socket.socket() as free:
        free.bind((host, 0))
        return int(free.getsockname()[1])


class Janus:
    """A server of bench.servers. ``plugin``: audiobridge, videoroom, streaming."""

    setup = "actpass"
    wants_sections = False

    def __init__(self, plugin: str, host: str, event_loops: int = 0) -> None:
        """``event_loops`` 0: a thread for each peer, its default."""
        self._plugin, self._host, self._loops = plugin, host, event_loops
        self.needs_talker = True
        self.plain_port = free_port(host) if plugin == "streaming" else 0
        self._waiting: dict[str, asyncio.Future[dict[str, Any]]] = {}
        self._feeds: list[int] = []
        self._names = 0

    @property
    def settings(self) -> str:
        loops = f"event_loops = {self._loops}" if self._loops else "a thread for each peer"
        return f"ICE-lite, {loops}, mono 48 kbit/s"

    async def start(self) -> None:
        """Raises ConnectionError where it does not come up."""
        self._directory = tempfile.TemporaryDirectory()
        folder = Path(self._directory.name)
        port = free_port("127.0.0.1")
        loops = f"event_loops = {self._loops}" if self._loops else ""
        others = _libraries(each for each in _PLUGINS if each != self._plugin)
        transports = _libraries(_TRANSPORTS)
        core = _CORE.format(dir=folder, loops=loops, host=self._host, others=others, transports=transports)
        (folder / "janus.jcfg").write_text(core)
        (folder / "janus.transport.websockets.jcfg").write_text(
            f'general: {{ json = "plain", ws = true, ws_port = {port}, ws_ip = "127.0.0.1" }}\n'
        )
        (folder / f"janus.plugin.{self._plugin}.jcfg").write_text("general: {}\n")
        quiet = asyncio.subprocess.DEVNULL
        self._process = await asyncio.create_subprocess_exec(
            "janus", "-F", str(folder), "-C", str(folder / "janus.jcfg"), stdin=quiet, stdout=quiet, stderr=quiet
        )
        self.pid = self._process.pid
        self._http = aiohttp.ClientSession()
        self._socket = await self._connected(f"ws://127.0.0.1:{port}/")
        self._reading = asyncio.create_task(self._read())
        self._session = (await self._ask({"janus": "create"}))["data"]["id"]
        self._beating = asyncio.create_task(self._beat())
        await self._prepare()

    async def _connected(self, url: str) -> aiohttp.ClientWebSocketResponse:
        async with asyncio.timeout(_PATIENCE_S):
            while self._process.returncode is None:
                with contextlib.suppress(aiohttp.ClientError):
                    return await self._http.ws_connect(url, protocols=["janus-protocol"], max_msg_size=0)
                await asyncio.sleep(0.1)
        raise ConnectionError("Janus ended at once")

    async def _prepare(self) -> None:
        """The room, or the mountpoint."""
        handle = await self._attach()
        wish: dict[str, Any] = {"request": "create", "room": ROOM, "permanent": False}
        if self._plugin == "audiobridge":
            wish |= {"sampling_rate": 48000, "default_bitrate": 48000, "audiolevel_event": False}
        elif self._plugin == "videoroom":
            wish |= {"publishers": 100, "audiocodec": "opus", "audiolevel_event": False, "notify_joining": False}
        else:
            audio = {"type": "audio", "mid": "a", "port": self.plain_port, "pt": 111, "codec": "opus"}
            wish |= {"type": "rtp", "id": ROOM, "media": [audio]}
        told = (await self._ask({"janus": "message", "body": wish}, handle))["plugindata"]["data"]
        if "error" in told:
            raise ConnectionError(f"Janus: {told['error']}")

    async def answer(self, offer: str, *, talks: bool) -> str:
        handle = await self._attach()
        if self._plugin == "audiobridge":
            self._names += 1
            body = {"request": "join", "room": ROOM, "muted": not talks, "display": str(self._names), "codec": "opus"}
            told = await self._ask({"janus": "message", "body": body}, handle)
            configure = {"request": "configure", "muted": not talks, "bitrate": 48000}
            told = await self._ask({"janus": "message", "body": configure, "jsep": _jsep("offer", offer)}, handle)
            return str(told["jsep"]["sdp"])
        if self._plugin == "videoroom" and talks:
            body = {"request": "joinandconfigure", "ptype": "publisher", "room": ROOM, "audio": True, "video": False}
            told = await self._ask({"janus": "message", "body": body, "jsep": _jsep("offer", offer)}, handle)
            self._feeds.append(told["plugindata"]["data"]["id"])
            return str(told["jsep"]["sdp"])
        return await self._listen(handle, offer)

    async def _listen(self, handle: int, offer: str) -> str:
        if self._plugin == "videoroom":
            streams = [{"feed": feed} for feed in self._feeds]
            body = {"request": "join", "ptype": "subscriber", "room": ROOM, "streams": streams}
        else:
            body = {"request": "watch", "id": ROOM}
        told = await self._ask({"janus": "message", "body": body}, handle)
        if "jsep" not in told:
            raise ConnectionError(f"Janus: {told['plugindata']['data']}")
        theirs = str(told["jsep"]["sdp"])
        started = {"janus": "message", "body": {"request": "start"}, "jsep": _jsep("answer", answer_to(theirs, offer))}
        await self._ask(started, handle)
        return theirs

    async def _attach(self) -> int:
        told = await self._ask({"janus": "attach", "plugin": f"janus.plugin.{self._plugin}"})
        return int(told["data"]["id"])

    async def _ask(self, message: dict[str, Any], handle: int = 0) -> dict[str, Any]:
        """The answer, or the event where the plugin answers later. Raises ConnectionError, TimeoutError."""
        transaction = secrets.token_hex(8)
        message |= {"transaction": transaction}
        if message["janus"] != "create":
            message["session_id"] = self._session
        if handle:
            message["handle_id"] = handle
        self._waiting[transaction] = asyncio.get_running_loop().create_future()
        try:
            await self._socket.send_str(json.dumps(message))
            async with asyncio.timeout(_PATIENCE_S):
                told = await self._waiting[transaction]
        finally:
            del self._waiting[transaction]
        if told["janus"] == "error":
            raise ConnectionError(f"Janus: {told['error']['reason']}")
        return told

    async def _read(self) -> None:
        async for message in self._socket:
            told = json.loads(message.data)
            waiting = self._waiting.get(told.get("transaction", ""))
            if told["janus"] != "ack" and waiting is not None and not waiting.done():
                waiting.set_result(told)

    async def _beat(self) -> None:
        while True:
            await asyncio.sleep(20)
            await self._ask({"janus": "keepalive"})

    async def close(self) -> None:
        tasks = [
            each for each in (getattr(self, "_beating", None), getattr(self, "_reading", None)) if each is not None
        ]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._http.close()
        if self._process.returncode is None:
            self._process.kill()  # taking down hundreds of peers one by one is not what is measured
        await self._process.wait()
        self._directory.cleanup()


def _libraries(names: Iterable[str]) -> str:
    return ",".join(f"libjanus_{each}.so" for each in names)


def _jsep(kind: str, sdp: str) -> dict[str, str]:
    return {"type": kind, "sdp": sdp}
