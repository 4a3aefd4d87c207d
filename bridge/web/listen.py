"""``GET /listen/{stage}.ogg``: a stage's sound as one endless Ogg stream, for players, phones and narrow networks.

::

    relay ─ frames ─▶ Broadcast of the stage ─ one page each 200 ms, made once ─▶ every Listener's socket

A page goes straight to each socket; what one does not take waits in its own buffer, and at MAX_BEHIND that listener is
dropped, so that nobody waits for anybody. Cost: bench/stream.py.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import socket
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from aiohttp import web

from bridge.errors import Unavailable
from bridge.ids import StageId, new_session_id
from bridge.live.stage import LiveStage
from bridge.live.view import Me, View
from bridge.telemetry import metrics
from bridge.web.access import Access, Gatekeeper, bearer
from bridge.web.ogg import OggOpus
from bridge.web.sources import Places, Sources

log = logging.getLogger(__name__)

MAX_BEHIND = 64 * 1024  # bytes: about 10 s that a listener did not take
KERNEL_BUFFER = 32 * 1024  # bytes; the kernel's own choice would be minutes of sound
MAX_FILL = 250  # frames, 5 s: a longer break of the relay is not made good by silence
SLICE = 500  # sockets written to before other work has its turn
_SILENCE = b"\xf8\xff\xfe"  # as bridge/media/sinks/stream.py says
_PAGE = 10  # frames a page has at most: 200 ms, and fewer than 255 segments whatever their size

_opened = metrics.counter("eyvan_streams_total", "Ogg streams opened")
_dropped = metrics.counter("eyvan_streams_dropped_total", "Ogg streams ended as their reader took too little")
_now = metrics.gauge("eyvan_streams", "Ogg streams open now")


class FrameSource(Protocol):
    """The relay. ``take`` gets (tick of the first, consecutive Opus frames of 20 ms) and returns at once."""

    def listen(self, stage: StageId, take: Callable[[int, Sequence[bytes]], None]) -> None: ...

    def unlisten(self, stage: StageId) -> None: ...


class Listener:
    """One response, as its live stage sees it (`bridge.live.ports.Page`) and as the broadcast writes to it."""

    def __init__(self, transport: asyncio.Transport, chunked: bool) -> None:
        self.transport, self.chunked = transport, chunked
        self.may_hear = False
        self.over = asyncio.Event()
        self.reason = ""

    def hear(self, allowed: bool) -> None:
        self.may_hear = allowed

    def end(self, reason: str) -> None:
        if not self.over.is_set():
            self.reason = reason
            self.over.set()

    def show(self, view: View, me: Me) -> None: ...
    def levels(self, levels: Mapping[int, int]) -> None: ...
    def notice(self, key: str, by_name: str) -> None: ...
    def sound_lost(self) -> None: ...

    def bye(self, reason: str) -> None:
        self.end(reason)


class Broadcast:
    """One stage's stream and who hears it. The relay's frames come to ``take``; it lives while somebody listens."""

    def __init__(self, title: str) -> None:
        self._ogg = OggOpus(secrets.randbits(32), title)
        self._next_tick: int | None = None
        self.listeners: set[Listener] = set()

    def headers(self) -> bytes:
        return self._ogg.headers()

    def take(self, tick: int, frames: Sequence[bytes]) -> None:
        """Pages for what came; for ticks that the relay skipped, silence: a player's own clock went on."""
        missing = tick - self._next_tick if self._next_tick is not None else 0
        whole = [_SILENCE] * missing + list(frames) if 0 < missing <= MAX_FILL else list(frames)
        self._next_tick = tick + len(frames)
        for begin in range(0, len(whole), _PAGE):
            self._send(whole[begin : begin + _PAGE])

    def _send(self, frames: list[bytes]) -> None:
        page = self._ogg.sound(frames)
        all_may = all(each.may_hear for each in self.listeners)
        quiet = b"" if all_may else self._ogg.instead([_SILENCE] * len(frames))
        chunk, quiet_chunk = _chunk(page), _chunk(quiet)
        everyone = list(self.listeners)
        loop = asyncio.get_running_loop()
        for begin in range(0, len(everyone), SLICE):
            some = everyone[begin : begin + SLICE]
            if begin:
                loop.call_soon(_write, some, page, chunk, quiet, quiet_chunk)
            else:
                _write(some, page, chunk, quiet, quiet_chunk)


def _chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)  # RFC 9112 §7.1


def _write(listeners: Sequence[Listener], page: bytes, chunk: bytes, quiet: bytes, quiet_chunk: bytes) -> None:
    for each in listeners:
        transport = each.transport
        if each.over.is_set():
            continue
        if transport.is_closing():
            each.end("gone")
        elif transport.get_write_buffer_size() > MAX_BEHIND:
            _dropped.inc()
            each.end("slow")
        elif each.may_hear:
            transport.write(chunk if each.chunked else page)
        else:
            transport.write(quiet_chunk if each.chunked else quiet)


class Streams:
    """All Ogg streams. Owned by the web server; ``close`` ends them."""

    def __init__(
        self, gate: Gatekeeper, sources: Sources, source: FrameSource | None, public_url: str, guests: int
    ) -> None:
        """``guests``: so many streams of guests from one source."""
        self._gate, self._sources, self._source = gate, sources, source
        self._public = public_url.rstrip("/")
        self._places = Places("streams", 5_000, 8, guests)
        self._broadcasts: dict[StageId, Broadcast] = {}

    def routes(self) -> list[web.RouteDef]:
        where = "/listen/{stage:[A-Za-z0-9_-]{16,43}}.ogg"
        return [
            web.get(where, self._listen),
            web.options(where, self._options),
            web.post("/api/v1/sessions/listen", self._token),
        ]

    def close(self) -> None:
        for broadcast in self._broadcasts.values():
            for each in broadcast.listeners:
                each.end("restart")

    async def _token(self, request: web.Request) -> web.StreamResponse:
        access = self._gate.read(bearer(request) or "")
        await self._gate.check_revoked(access)
        token, expires = self._gate.hearing(access)
        body = {"url": f"{self._public}/listen/{access.stage}.ogg?t={token}", "expires_ts": expires}
        return web.json_response(body, headers={"Cache-Control": "no-store"})

    def _headers(self, request: web.Request) -> dict[str, str]:
        """Other origins may play what everybody may hear (Fetch standard, CORS protocol); a token is ours alone."""
        public = bearer(request) is None and "t" not in request.query
        shared = {"Access-Control-Allow-Origin": "*"} if public and self._has_guests(request) else {}
        return {
            "Content-Type": "audio/ogg; codecs=opus",
            "Cache-Control": "no-store",
            "X-Content-Type-Options": "nosniff",
            "X-Accel-Buffering": "no",  # nginx: pass it on as it comes
            **shared,
        }

    def _has_guests(self, request: web.Request) -> bool:
        return self._gate.has_guests(request.match_info["stage"])

    async def _options(self, request: web.Request) -> web.StreamResponse:
        headers = {"Allow": "GET, HEAD, OPTIONS"}
        if self._has_guests(request):
            headers |= {"Access-Control-Allow-Origin": "*", "Access-Control-Allow-Methods": "GET"}
            headers |= {"Access-Control-Allow-Headers": "Range, Icy-MetaData"}
        return web.Response(status=204, headers=headers)

    async def _listen(self, request: web.Request) -> web.StreamResponse:
        if self._source is None:
            raise Unavailable("this server gives no streams")
        access, stage = await self._gate.admit(request, by_query=True)
        if request.method == "HEAD":
            return web.Response(headers=self._headers(request))
        give_back = self._places.take(access.user, self._sources.of(request))
        try:
            return await self._run(request, access, stage)
        finally:
            give_back()

    async def _run(self, request: web.Request, access: Access, stage: LiveStage) -> web.StreamResponse:
        transport = request.transport
        if transport is None:
            raise ConnectionResetError
        response = web.StreamResponse(headers=self._headers(request))
        chunked = request.version >= (1, 1)
        if chunked:
            response.enable_chunked_encoding()
        response.force_close()
        listener, session = Listener(transport, chunked), new_session_id()
        try:
            await stage.sit(session, access.user, listener, access.stage, listen_only=True, ear=listener.hear)
            await self._gate.check_revoked(access)
            transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, KERNEL_BUFFER)
            await response.prepare(request)
            await self._play(response, listener, access, stage)
        finally:
            stage.rise(session, listener, keep=False)
        return response

    async def _play(self, response: web.StreamResponse, listener: Listener, access: Access, stage: LiveStage) -> None:
        """From the headers to the end: pages are written by the broadcast meanwhile."""
        broadcast = self._broadcast(access.stage, stage)
        left_s = (access.until_ms - self._gate.now_ms()) / 1000
        expiry = asyncio.get_running_loop().call_later(max(0.0, left_s), listener.end, "expired")
        try:
            await response.write(broadcast.headers())  # nothing awaits between it and the next line but a full socket
            broadcast.listeners.add(listener)
            _opened.inc()
            _now.inc()
            await listener.over.wait()
        finally:
            expiry.cancel()
            if listener in broadcast.listeners:
                broadcast.listeners.remove(listener)
                _now.dec()
            self._tidy(access.stage, broadcast)
        if listener.reason == "slow":
            log.info("a stream's reader takes too little and is let go")
            listener.transport.abort()

    def _broadcast(self, stage_id: StageId, stage: LiveStage) -> Broadcast:
        broadcast = self._broadcasts.get(stage_id)
        if broadcast is None:
            assert self._source is not None
            info = stage.state.stage
            broadcast = self._broadcasts[stage_id] = Broadcast(info.topic if info else "")
            self._source.listen(stage_id, broadcast.take)
        return broadcast

    def _tidy(self, stage_id: StageId, broadcast: Broadcast) -> None:
        """A stage's frames leave the relay only while somebody listens."""
        if not broadcast.listeners and self._broadcasts.get(stage_id) is broadcast:
            del self._broadcasts[stage_id]
            if self._source is not None:
                self._source.unlisten(stage_id)
