"""Routes, security headers, limits, static files. One origin, works under a sub-path behind a reverse proxy.

=============================  ===============================================================
``GET /s/{stage}``             the page; its files under ``/s/``
``GET /s/widget``              the same page, for Matrix clients to show in a frame
``POST /api/v1/sessions``      link, OpenID token or guest → session
``GET /api/v1/socket``         the page's WebSocket; the session is its first frame, never in a URL
``/listen``, ``/whep``          the sound alone, for players: `bridge.web.listen`, `bridge.web.whep`
=============================  ===============================================================

What else is served here brings its own routes (`MoreRoutes`).

Refusals are ``{errcode, error, reason?, retry_after_ms?}`` in Matrix's form.
"""

from __future__ import annotations

import asyncio
import json
import logging
import secrets
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Protocol

from aiohttp import web

from bridge.config import WebConfig, WidgetConfig
from bridge.errors import BadInput, BadToken, EyvanError, Full, NotFound, Refused, Unavailable
from bridge.identity.links import LinkSigner, SessionClaims, device_hash, new_device
from bridge.identity.openid import OpenId, OpenIdToken
from bridge.ids import new_session_id, parse_room, parse_stage
from bridge.live.card import plain_of
from bridge.live.confirmations import Confirmations
from bridge.live.ports import Clock, Store
from bridge.live.rooms import Rooms
from bridge.live.stage import LiveStage
from bridge.text import say
from bridge.web import messages as m
from bridge.web.access import Gatekeeper
from bridge.web.frames import Frames
from bridge.web.listen import FrameSource, Streams
from bridge.web.session import PageSession
from bridge.web.sources import Places, Sources
from bridge.web.whep import Whep

log = logging.getLogger(__name__)

STATIC = Path(__file__).parent / "static"
MAX_BODY = 16 * 1024  # bytes
GUEST_HOURS = 12
_CALL_SHARE = 5  # times as many: Element Call signs in three times to join
_PENDING = 2_000  # sockets that have not said hello; further ones are told to come again

_NO_FRAME = "frame-ancestors 'none'"
_CSP = (
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; font-src 'self'; "
    "img-src 'self' data: blob:; connect-src 'self'; media-src 'self' blob: mediastream:; "
    f"manifest-src 'self'; base-uri 'none'; form-action 'none'; {_NO_FRAME}"
)
"""``connect-src 'self'`` covers the WebSocket of the page's own origin (CSP level 3; Safari from 15.4)."""
_HEADERS = {
    "Content-Security-Policy": _CSP,
    "Permissions-Policy": "microphone=(self), camera=(), geolocation=(), display-capture=()",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Robots-Tag": "noindex",
}
_PREFIX = web.AppKey("prefix", str)
_NOT_KEPT = {**_HEADERS, "Cache-Control": "no-store"}

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def widget_headers(clients: tuple[str, ...]) -> dict[str, str]:
    """Of the page in a frame. It knows nobody there: no cookie, no kept link, only what the client around it tells.

    Without a list every client may show it, and ``frame-ancestors`` is left out: ``*`` would not cover the scheme that
    Element Desktop shows its own pages by (CSP level 3, "matches a host-source")."""
    ancestors = f"frame-ancestors {' '.join(clients)}" if clients else ""
    return {**_HEADERS, "Content-Security-Policy": _CSP.replace(_NO_FRAME, ancestors).rstrip("; ")}


class MoreRoutes(Protocol):
    """Routes of the same origin that know nothing of pages."""

    def routes(self, sign_in: Callable[[web.Request], None]) -> list[web.RouteDef]:
        """``sign_in`` counts an attempt for its source address; raises Full."""

    async def hang_up(self) -> None:
        """The server stops: end every socket."""


class WebServer:
    """The page's origin. ``start`` listens, ``close`` ends every socket; harmless twice."""

    def __init__(
        self,
        config: WebConfig,
        rooms: Rooms,
        store: Store,
        signer: LinkSigner,
        clock: Clock,
        prefix: str,
        more: MoreRoutes | None = None,
        source: FrameSource | None = None,
        widget: tuple[WidgetConfig, OpenId, Confirmations] | None = None,
    ) -> None:
        """``source``: the relay's frames, for those who listen by stream; None: there are no streams. ``widget`` None:
        no client may frame the page, and no OpenID token is taken."""
        self._config, self._rooms, self._store, self._signer = config, rooms, store, signer
        self._more, self._widget = more, widget
        self._clock, self._prefix = clock, prefix
        self._sources = Sources(config.trusted_proxies, config.requests_a_minute)
        self._more_sources = Sources(config.trusted_proxies, _CALL_SHARE * config.requests_a_minute)
        gate = Gatekeeper(rooms, store, signer, clock, self._sources)
        guests = config.guests_per_source
        self._streams = Streams(gate, self._sources, source, config.public_url, guests)
        self._whep = Whep(gate, self._sources, config.public_url, _said, guests)
        self._frames = Frames(clock.now_ms)
        self._places = Places("pages", config.sessions, config.sessions_per_user, guests)
        self._sockets: set[web.WebSocketResponse] = set()
        self._pending = 0
        self._runner: web.AppRunner | None = None

    async def start(self) -> None:
        app = web.Application(client_max_size=MAX_BODY, middlewares=[_answers])
        app.add_routes(
            [
                web.get("/", self._index),
                web.get("/s/{stage:[A-Za-z0-9_-]{16,43}}", self._index),
                web.get("/s/widget", self._widget_page),
                web.get("/s/{file:.+}", self._file),
                web.post("/api/v1/sessions", self._sessions),
                web.get("/api/v1/socket", self._socket),
                *self._streams.routes(),
                *self._whep.routes(),
            ]
        )
        if self._more is not None:
            app.add_routes(self._more.routes(self._count_sign_in))
        app[_PREFIX] = self._prefix
        app.on_shutdown.append(self._hang_up)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=5)
        await self._runner.setup()
        await web.TCPSite(self._runner, self._config.hostname, self._config.port).start()

    def connection(self) -> asyncio.BaseProtocol:
        """The server's side of one more connection, once it is started: for those that another listener accepts."""
        assert self._runner is not None
        assert self._runner.server is not None
        return self._runner.server()

    async def close(self) -> None:
        if self._runner is not None:
            runner, self._runner = self._runner, None
            await runner.cleanup()

    async def _hang_up(self, _: web.Application) -> None:
        self._streams.close()
        self._whep.close()
        await asyncio.gather(*(socket.close() for socket in list(self._sockets)), return_exceptions=True)
        if self._more is not None:
            await self._more.hang_up()

    # -- files ---------------------------------------------------------------------------------

    async def _index(self, request: web.Request) -> web.StreamResponse:
        return self._static("index.html", "no-store")

    async def _widget_page(self, request: web.Request) -> web.StreamResponse:
        if self._widget is None:
            raise NotFound("this server gives no widget (widget.enabled)")
        return self._static("index.html", "no-store", widget_headers(self._widget[0].clients))

    async def _file(self, request: web.Request) -> web.StreamResponse:
        name = request.match_info["file"]
        kept = "public, max-age=31536000, immutable" if name.startswith("assets/") else "no-cache"
        return self._static(name, kept)

    def _static(self, name: str, cache: str, headers: Mapping[str, str] = _HEADERS) -> web.StreamResponse:
        try:
            path = (STATIC / name).resolve()
            served = path.is_relative_to(STATIC.resolve()) and path.is_file()
        except (OSError, ValueError):  # a name that is too long, or holds NUL
            served = False
        if not served:
            raise NotFound("there is no such page")
        return web.FileResponse(path, headers={**headers, "Cache-Control": cache})

    # -- sign in -------------------------------------------------------------------------------

    def _count_sign_in(self, request: web.Request) -> None:
        self._more_sources.take(self._more_sources.of(request), asyncio.get_running_loop().time())

    async def _sessions(self, request: web.Request) -> web.StreamResponse:
        self._sources.take(self._sources.of(request), asyncio.get_running_loop().time())
        try:
            body = json.loads(await request.read())
        except (ValueError, RecursionError):
            raise BadInput("body", "no JSON", "send a JSON object") from None
        wish = m.decode_open(body)
        if wish.openid is not None:
            opened = await self._by_openid(wish)
        else:
            opened = await (self._by_link(wish) if wish.link is not None else self._as_guest(wish))
        return web.json_response(m.encode(opened), headers=_NOT_KEPT)

    async def _by_link(self, wish: m.OpenSession) -> m.SessionOpened:
        now = self._clock.now_ms()
        link = self._signer.verify(wish.link, now)
        if link.user is None:
            raise BadToken("unknown", "this link names nobody")
        stage = self._rooms.of_room(link.room)
        if stage is None or stage.stage_id != link.stage:
            raise BadToken("expired", "the stage of this link is over")
        if not stage.state.may_hear(link.user):
            if not stage.state.live:
                raise BadToken("expired", "the stage of this link is over")
            raise BadToken("membership", "you are not in the room of this stage (any more)")
        if link.issued_ms <= await self._store.links_revoked_before(link.user, link.room):
            raise BadToken("revoked", "this link was revoked; ask the bot for a new one")
        device = wish.device or new_device()
        hashed = device_hash(device)
        if not await self._store.open_link(link.id, hashed, link.expires_ms, self._config.link_devices):
            raise BadToken("devices", "this link is open on other devices already; ask the bot for a new one")
        claims = SessionClaims(new_session_id(), link.user, link.room, link.stage, link.id, hashed)
        token = self._signer.make_session(claims, now, link.expires_ms)
        return m.SessionOpened(token, device, link.stage, link.expires_ms, link.user)

    async def _by_openid(self, wish: m.OpenSession) -> m.SessionOpened:
        """By the word of the person's own homeserver. Who is not in the room learns nothing of it."""
        if self._widget is None:
            raise NotFound("this server takes no OpenID tokens (widget.enabled)")
        room = parse_room(wish.room, "room")
        user = await self._widget[1].user_of(OpenIdToken.parse(wish.openid))
        stage = self._rooms.of_room(room)
        if stage is None or not stage.state.room.may_be_here(user):
            raise BadToken("membership", "you are not in this room, or nobody knows it here")
        if not stage.state.loaded:
            raise Unavailable("this room is being read; try again in a moment")
        if stage.stage_id is None or not stage.state.live:
            raise NotFound("there is no stage in this room just now")
        if not stage.state.may_hear(user):
            raise BadToken("membership", "you may not hear this stage")
        now = self._clock.now_ms()
        expires = now + self._config.link_hours * 3_600_000
        claims = SessionClaims(new_session_id(), user, stage.room, stage.stage_id, openid=True)
        return m.SessionOpened(self._signer.make_session(claims, now, expires), None, stage.stage_id, expires, user)

    async def _as_guest(self, wish: m.OpenSession) -> m.SessionOpened:
        stage_id = parse_stage(wish.guest, "guest")
        stage: LiveStage | None = self._rooms.of_stage(stage_id)
        if stage is None or not stage.state.live:
            raise NotFound("there is no such stage, or it is over")
        if not stage.state.may_hear(None):
            raise Refused("guests-closed")
        now = self._clock.now_ms()
        expires = now + GUEST_HOURS * 3_600_000
        claims = SessionClaims(new_session_id(), None, stage.room, stage_id)
        return m.SessionOpened(self._signer.make_session(claims, now, expires), None, stage_id, expires, None)

    # -- the socket ----------------------------------------------------------------------------

    async def _socket(self, request: web.Request) -> web.StreamResponse:
        """Frames are not compressed: what all pages see is written down once, and a compressor a page would cost more
        than all else (and 250 kB)."""
        if self._pending >= _PENDING:
            raise Full("too many pages connect at once; try again in a moment", 1000)
        socket = web.WebSocketResponse(heartbeat=20, max_msg_size=m.MAX_FRAME, compress=False)
        await socket.prepare(request)
        self._sockets.add(socket)
        self._pending += 1
        pending = [1]

        def greeted() -> None:
            self._pending -= pending.pop() if pending else 0

        def abort() -> None:
            if request.transport is not None:
                request.transport.abort()

        confirmations = self._widget[2] if self._widget else None
        session = PageSession(
            self._rooms, self._signer, self._store, self._clock, self._prefix, self._frames, confirmations
        )
        source = self._sources.of(request)
        try:
            await session.run(socket, abort, greeted, lambda user: self._places.take(user, source))
        finally:
            greeted()
            self._sockets.discard(socket)
            if not socket.closed:
                await socket.close()
        return socket


@web.middleware
async def _answers(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Errors as answers; nothing of ours leaks."""
    try:
        return await handler(request)
    except EyvanError as error:
        return _refusal(request, error)
    except web.HTTPException as error:
        body = m.ErrorBody("M_UNRECOGNIZED" if error.status == 404 else "M_UNKNOWN", error.reason)
        return web.json_response(m.encode(body), status=error.status, headers=_NOT_KEPT)
    except (asyncio.CancelledError, ConnectionError):
        raise
    except Exception:
        number = secrets.token_hex(4)
        log.exception("request %s %s failed (%s)", request.method, request.path, number)
        body = m.ErrorBody("M_UNKNOWN", f"something went wrong on the server ({number})")
        return web.json_response(m.encode(body), status=500, headers=_NOT_KEPT)


def _said(request: web.Request, error: EyvanError) -> str:
    """In the language of who asks."""
    if not isinstance(error, Refused):
        return str(error)
    persian = request.headers.get("Accept-Language", "").startswith("fa")
    args = {"prefix": request.app[_PREFIX], **error.args_for_text}
    return plain_of(say("fa" if persian else "en", error.reason, **args))


def _refusal(request: web.Request, error: EyvanError) -> web.StreamResponse:
    text = _said(request, error)
    reason = error.reason if isinstance(error, BadToken) else None
    retry = error.retry_after_ms if isinstance(error, Full) else None
    body = m.ErrorBody(error.errcode, text, reason, retry)
    status = error.status if error.status < 600 else 500
    return web.json_response(m.encode(body), status=status, headers=_NOT_KEPT)
