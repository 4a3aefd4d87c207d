"""One WebSocket = one page: sign in, snapshot, patches, requests → inputs; SDP passed on.

::

    opened ─ hello within 5 s ─▶ seated ─▶ bye ─▶ closed
        └──────── anything else ──────────────────┘

Two tasks a page: the request handler reads, a writer sends. What a slow page cannot take is bounded: of what the stage
*shows* only the newest is kept, of levels too; small messages queue up to ``MAX_QUEUED``, then the page is let go and
comes back by itself. What a page asks too fast waits in its socket.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import secrets
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any

from aiohttp import WSCloseCode, WSMsgType, web

from bridge.errors import BadInput, BadToken, EyvanError, Full, Refused, Unavailable
from bridge.identity.links import LinkSigner, Session, SessionClaims
from bridge.ids import UserId, parse_user
from bridge.live.card import plain_of
from bridge.live.confirmations import Confirmations
from bridge.live.ports import Clock, Store
from bridge.live.rooms import Rooms
from bridge.live.stage import LiveStage
from bridge.live.view import Act, Me, View
from bridge.rules.inputs import ActName, Asked
from bridge.text import Lang, say
from bridge.web import messages as m
from bridge.web.frames import Frames, to_json

log = logging.getLogger(__name__)

HELLO_S = 5.0
SEND_S = 10.0  # a frame that a page did not take for so long is its last
MAX_QUEUED = 100
MAX_AT_ONCE = 16  # requests of one page under way
_REQUESTS_A_SECOND, _BURST = 10.0, 40.0

_ACTS: dict[Act, ActName] = {
    "invite": "invite",
    "bring_up": "bring_up",
    "not_now": "not_now",
    "to_audience": "to_audience",
    "mute": "mute",
    "unmute": "unmute",
    "kick": "kick",
    "make_moderator": "make_moderator",
    "end": "end",
    "topic": "topic",
    "sound": "sound",
}
_BYES = {
    "ended": "stage-ended", "removed": "not-in-room", "left_room": "not-in-room", "expired": "session-over",
}  # fmt: skip


class PageSocket:
    """The page as its live stage sees it (`bridge.live.ports.Page`), and what the writer task sends."""

    def __init__(self, socket: web.WebSocketResponse, prefix: str, frames: Frames, abort: Callable[[], None]) -> None:
        self._socket, self._prefix, self._frames, self._abort = socket, prefix, frames, abort
        self.lang: Lang = "en"
        self._queue: deque[m.ToPage] = deque()
        self._news: tuple[View, Me] | None = None
        self._sent: tuple[View, Me] | None = None
        self._levels: Mapping[int, int] | None = None
        self._seq = 0
        self._wake = asyncio.Event()
        self.over: str | None = None
        """Why we said good-bye."""

    # -- the stage calls these -----------------------------------------------------------------

    def show(self, view: View, me: Me) -> None:
        self._news = (view, me)
        self._wake.set()

    def levels(self, levels: Mapping[int, int]) -> None:
        self._levels = levels
        self._wake.set()

    def notice(self, key: str, by_name: str) -> None:
        self.send(m.Notice(key, by_name))  # type: ignore[arg-type]

    def sound_lost(self) -> None:
        """The page sees it in ``me.can_hear`` and by its own missing packets, and offers again."""

    def bye(self, reason: str, text: str = "") -> None:
        if self.over is not None:
            return
        if not text and reason in _BYES:
            text = plain_of(say(self.lang, _BYES[reason], prefix=self._prefix))
        self._queue.append(m.Bye(reason, text))  # type: ignore[arg-type]
        self.over = reason
        self._wake.set()

    # -- the session calls these ---------------------------------------------------------------

    def send(self, message: m.ToPage) -> None:
        if self.over is not None:
            return
        if len(self._queue) >= MAX_QUEUED:
            self.bye("slow")
            return
        self._queue.append(message)
        self._wake.set()

    def refuse(self, request: int, error: EyvanError) -> None:
        if isinstance(error, Refused):
            text = plain_of(say(self.lang, error.reason, **{"prefix": self._prefix, **error.args_for_text}))
        else:
            text = str(error)
        retry = error.retry_after_ms if isinstance(error, Full) else None
        self.send(m.RefusedAnswer(request, error.errcode, text, retry))

    def resync(self) -> None:
        self._news, self._sent = self._news or self._sent, None
        self._wake.set()

    async def write(self) -> None:
        """Send until ``bye`` or until the page takes nothing any more."""
        try:
            while not self._socket.closed and await self._write_what_waits():
                pass
        except TimeoutError:
            log.info("a page takes nothing any more and is let go")
            self._abort()
        except ConnectionError:
            pass  # the reader sees the same

    async def _write_what_waits(self) -> bool:
        await self._wake.wait()
        self._wake.clear()
        if self._news is not None and self.over is None:
            news, self._news = self._news, None
            await self._show(news)
        while self._queue:
            await self._send(to_json(m.encode(self._queue.popleft())))
        if self.over is not None:
            async with asyncio.timeout(SEND_S):
                await self._socket.close()
            return False
        if self._levels is not None:
            levels, self._levels = self._levels, None
            await self._send(self._frames.levels(levels))
        return True

    async def _show(self, news: tuple[View, Me]) -> None:
        sent, self._sent = self._sent, news
        if sent is None:
            frame: bytes | None = self._frames.snapshot(self._seq + 1, *news)
        else:
            frame = self._frames.patch(self._seq + 1, sent, news)
        if frame is not None:
            self._seq += 1
            await self._send(frame)

    async def _send(self, frame: bytes) -> None:
        async with asyncio.timeout(SEND_S):
            await self._socket.send_frame(frame, WSMsgType.TEXT)


class PageSession:
    """Runs one WebSocket from hello to bye."""

    def __init__(
        self,
        rooms: Rooms,
        signer: LinkSigner,
        store: Store,
        clock: Clock,
        prefix: str,
        frames: Frames,
        confirmations: Confirmations | None = None,
    ) -> None:
        """``confirmations`` None: sessions of OpenID tokens, as of an earlier run, do nothing to others."""
        self._confirmations = confirmations
        self._rooms, self._signer, self._store, self._clock = rooms, signer, store, clock
        self._prefix, self._frames = prefix, frames
        self._tokens, self._refilled = _BURST, 0.0

    async def run(
        self,
        socket: web.WebSocketResponse,
        abort: Callable[[], None],
        greeted: Callable[[], None],
        place: Callable[[UserId | None], Callable[[], None]],
    ) -> None:
        """``abort`` drops the connection at once; ``greeted`` is called when the page has said hello, well or not.
        ``place`` gives one for that person, and what gives it back; raises Full."""
        page = PageSocket(socket, self._prefix, self._frames, abort)
        writer = asyncio.create_task(page.write(), name="page writer")
        try:
            try:
                session, stage = await self._hello(socket, page)
                give_back = place(session.claims.user)
            except EyvanError as error:
                page.bye(_bye_reason(error), _said(error, page, self._prefix))
                await writer
                return
            finally:
                greeted()
            try:
                await self._seated(socket, page, session, stage)
            finally:
                give_back()
        finally:
            writer.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await writer

    async def _seated(
        self, socket: web.WebSocketResponse, page: PageSocket, session: Session, stage: LiveStage
    ) -> None:
        claims = session.claims
        try:
            await stage.sit(claims.session_id, claims.user, page, claims.stage)
            await self._check_revoked(session)  # after it sat: one revoked before is seen here, after it is sent away
        except EyvanError as error:
            page.bye(_bye_reason(error), _said(error, page, self._prefix))
        left_s = (session.expires_ms - self._clock.now_ms()) / 1000
        expiry = asyncio.get_running_loop().call_later(max(0.0, left_s), page.bye, "expired")
        try:
            await self._read(socket, page, session, stage)
        finally:
            expiry.cancel()
            left = socket.close_code == WSCloseCode.OK  # the person left; a break or a reload has another code
            stage.rise(claims.session_id, page, keep=page.over != "expired" and not left)

    async def _hello(self, socket: web.WebSocketResponse, page: PageSocket) -> tuple[Session, LiveStage]:
        try:
            frame = await asyncio.wait_for(socket.receive(), HELLO_S)
        except TimeoutError:
            raise BadToken("unknown", "send hello with your session within 5 s") from None
        hello = m.decode(_json(frame.data if frame.type is WSMsgType.TEXT else None))
        if not isinstance(hello, m.Hello):
            raise BadInput("t", hello.t, "the first frame is hello")
        page.lang = hello.lang
        session = self._signer.verify_session(hello.session, self._clock.now_ms())
        stage = self._rooms.of_room(session.claims.room)
        if stage is None:
            raise Refused("not-in-room")
        if not stage.state.loaded:
            raise Unavailable("this room is not ready")
        return session, stage

    async def _check_revoked(self, session: Session) -> None:
        claims = session.claims
        if claims.user is None:
            return
        if session.issued_ms <= await self._store.links_revoked_before(claims.user, claims.room):
            raise BadToken("revoked", "this link was revoked; ask the bot for a new one")

    async def _read(self, socket: web.WebSocketResponse, page: PageSocket, session: Session, stage: LiveStage) -> None:
        requests: set[asyncio.Task[None]] = set()
        try:
            async for frame in socket:
                await self._pace()
                if len(requests) >= MAX_AT_ONCE:
                    await asyncio.wait(requests, return_when=asyncio.FIRST_COMPLETED)
                body = _json(frame.data if frame.type is WSMsgType.TEXT else None)
                try:
                    message = m.decode(body)
                except BadInput as error:
                    page.refuse(_number_of(body), error)
                    continue
                task = asyncio.create_task(self._handle(message, page, session, stage))
                requests.add(task)
                task.add_done_callback(requests.discard)
        finally:
            for task in requests:
                task.cancel()
            await asyncio.gather(*requests, return_exceptions=True)

    async def _pace(self) -> None:
        """Wait rather than refuse: what comes too fast stays in the socket, and the page's own TCP slows it."""
        loop = asyncio.get_running_loop()
        while True:
            now = loop.time()
            self._tokens = min(_BURST, self._tokens + (now - self._refilled) * _REQUESTS_A_SECOND)
            self._refilled = now
            if self._tokens >= 1:
                self._tokens -= 1
                return
            await asyncio.sleep((1 - self._tokens) / _REQUESTS_A_SECOND)

    async def _handle(self, message: m.FromPage, page: PageSocket, session: Session, stage: LiveStage) -> None:
        number = getattr(message, "id", 0)
        try:
            match message:
                case m.Ping():
                    page.send(m.Pong())
                case m.Resync():
                    page.resync()
                case m.Offer(sdp=sdp):
                    answer = await stage.offer(session.claims.session_id, page, sdp)
                    page.send(m.MediaAnswer(number, answer.sdp))
                case m.MicState(on=on):
                    stage.microphone(session.claims.session_id, page, on)
                    page.send(m.Done(number))
                case m.LeaveOut(user=user, out=out):
                    await self._leave_out(session, page, parse_user(user), out, stage)
                    page.send(m.Done(number))
                case m.Hello():
                    raise BadInput("t", "hello", "hello is sent once")
                case _:
                    self._check_confirmed(message, page, session.claims, stage)
                    await self._ask(message, page, session.claims.user, stage)
                    page.send(m.Done(number))
        except EyvanError as error:
            page.refuse(number, error)
        except Exception:
            log.exception("a page's request failed")
            page.refuse(number, Unavailable("something went wrong on the server; try again"))

    def _check_confirmed(self, message: m.FromPage, page: PageSocket, claims: SessionClaims, stage: LiveStage) -> None:
        """Acts on others by a widget's page wait for the person's own word, once. Stepping down oneself does not."""
        if not claims.openid or claims.user is None or not isinstance(message, m.DoAct):
            return
        if message.act == "to_audience" and message.user == claims.user:
            return
        if self._confirmations is None:
            raise Refused("not-permitted")
        self._confirmations.require(claims.session_id, claims.user, stage.state, page.notice)

    @staticmethod
    async def _leave_out(session: Session, page: PageSocket, user: UserId, out: bool, stage: LiveStage) -> None:
        try:
            await stage.leave_out(session.claims.session_id, page, user, out)
        except Full:
            raise Refused("left-out-full") from None

    async def _ask(self, message: m.FromPage, page: PageSocket, user: UserId | None, stage: LiveStage) -> None:
        if user is None:
            raise Refused("guests-closed")
        ref = "page:" + secrets.token_urlsafe(8)
        match message:
            case m.RaiseHand(raised=raised, note=note):
                ask = Asked(user, "raise" if raised else "lower", "web", ref, text=note)
            case m.InviteReply(accept=accept):
                ask = Asked(user, "accept" if accept else "decline", "web", ref)
            case m.DoAct(act=act, user=target, text=text):
                whom = None if target is None else parse_user(target)
                ask = Asked(user, _ACTS[act], "web", ref, whom, text)
            case _:
                raise BadInput("t", message.t, "this is not a request")
        outcome = await stage.ask(ask)
        if not outcome.ok:
            raise Refused(outcome.text, **outcome.args)


def _json(text: object) -> object:
    """A frame as JSON, None where it is none: `messages.decode` then names it."""
    if not isinstance(text, str):
        return None
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def _number_of(body: Any) -> int:
    number = body.get("id") if isinstance(body, dict) else None
    return number if isinstance(number, int) and not isinstance(number, bool) and 0 <= number < 2**53 else 0


def _bye_reason(error: EyvanError) -> m.ByeReason:
    if isinstance(error, BadToken | BadInput):
        return "expired"
    if isinstance(error, Refused):
        return "ended" if error.reason == "no-stage" else "removed"
    return "full" if isinstance(error, Full) else "restart"


def _said(error: EyvanError, page: PageSocket, prefix: str) -> str:
    if isinstance(error, Refused):
        return plain_of(say(page.lang, error.reason, **{"prefix": prefix, **error.args_for_text}))
    return str(error)
