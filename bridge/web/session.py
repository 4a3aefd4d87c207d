"""One WebSocket = one page: sign in, snapshot, patches, requests → inputs; SDP passed on.

::

    opened ─ hello within 5 s ─▶ seated ─▶ bye ─▶ closed
        └──────── anything else ──────────────────┘

Two tasks a page: the request handler reads, a writer sends. What a slow page cannot take is bounded: of what the stage
*shows* only the newest is kept, of levels too; small messages queue up to ``MAX_QUEUED``, then the page is let go and
comes back by itself.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import secrets
from collections import deque
from collections.abc import Mapping
from dataclasses import replace

from aiohttp import WSMsgType, web

from bridge.errors import BadInput, BadToken, EyvanError, Full, Refused, Theirs, Unavailable
from bridge.identity.links import LinkSigner, Session
from bridge.ids import UserId, parse_user
from bridge.live.rooms import Rooms
from bridge.live.stage import LiveStage
from bridge.live.view import Act, Me, View
from bridge.rules.inputs import ActName, Asked
from bridge.text import Lang, say
from bridge.web import messages as m

log = logging.getLogger(__name__)

HELLO_S = 5.0
MAX_QUEUED = 100
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
}


class PageSocket:
    """The page as its live stage sees it (`bridge.live.ports.Page`), and the task that sends to it."""

    def __init__(self, socket: web.WebSocketResponse, prefix: str) -> None:
        self._socket, self._prefix = socket, prefix
        self.lang: Lang = "en"
        self._queue: deque[m.ToPage] = deque()
        self._news: tuple[View, Me] | None = None
        self._sent: tuple[View, Me] | None = None
        self._levels: Mapping[int, int] | None = None
        self._seq = 0
        self._wake = asyncio.Event()
        self._over = False

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
        self._wake.set()

    def bye(self, reason: str, text: str = "") -> None:
        keys = {"ended": "stage-ended", "removed": "not-in-room", "left_room": "not-in-room"}
        if not text and reason in keys:
            text = say(self.lang, keys[reason])
        self._queue.append(m.Bye(reason, text))  # type: ignore[arg-type]
        self._over = True
        self._wake.set()

    # -- the session calls these ---------------------------------------------------------------

    def send(self, message: m.ToPage) -> None:
        if len(self._queue) >= MAX_QUEUED:
            self.bye("slow")
            return
        self._queue.append(message)
        self._wake.set()

    def refuse(self, request: int, error: EyvanError) -> None:
        if isinstance(error, Refused):
            text = say(self.lang, error.reason, **{"prefix": self._prefix, **error.args_for_text})
        else:
            text = str(error)
        self.send(m.RefusedAnswer(request, error.errcode, text))

    def resync(self) -> None:
        self._news, self._sent = self._news or self._sent, None
        self._wake.set()

    async def write(self) -> None:
        """Send until ``bye``. Ends by itself when the socket is closed."""
        while not self._socket.closed:
            await self._wake.wait()
            self._wake.clear()
            if self._news is not None and not self._over:
                (view, me), self._news = self._news, None
                message = self._difference(view, me)
                self._sent = (view, me)
                if message is not None:
                    await self._send(message)
            while self._queue:
                await self._send(self._queue.popleft())
            if self._over:
                await self._socket.close()
                return
            if self._levels is not None:
                levels, self._levels = self._levels, None
                await self._send(m.Levels({str(csrc): level for csrc, level in levels.items()}))

    async def _send(self, message: m.ToPage) -> None:
        await self._socket.send_str(json.dumps(m.encode(message), ensure_ascii=False, separators=(",", ":")))

    def _difference(self, view: View, me: Me) -> m.Snapshot | m.Patch | None:
        queue = view.queue if "not_now" in me.can else []
        if self._sent is None:
            self._seq += 1
            return m.Snapshot(self._seq, view.stage, me, view.speakers, view.audience, queue)
        old, old_me = self._sent
        old_queue = old.queue if "not_now" in old_me.can else []
        patch = m.Patch(
            seq=self._seq + 1,
            stage=view.stage if replace(view.stage, server_ts=0) != replace(old.stage, server_ts=0) else None,
            me=me if me != old_me else None,
            speakers=view.speakers if view.speakers != old.speakers else None,
            audience=view.audience if view.audience != old.audience else None,
            queue=queue if queue != old_queue else None,
        )
        if all(part is None for part in (patch.stage, patch.me, patch.speakers, patch.audience, patch.queue)):
            return None
        self._seq += 1
        return patch


class PageSession:
    """Runs one WebSocket from hello to bye."""

    def __init__(self, rooms: Rooms, signer: LinkSigner, now_ms: int, prefix: str) -> None:
        self._rooms, self._signer, self._now_ms, self._prefix = rooms, signer, now_ms, prefix
        self._tokens, self._refilled = _BURST, 0.0

    async def run(self, socket: web.WebSocketResponse) -> None:
        page = PageSocket(socket, self._prefix)
        writer = asyncio.create_task(page.write(), name="page writer")
        stage: LiveStage | None = None
        session: Session | None = None
        try:
            try:
                session, stage = await self._hello(socket, page)
            except EyvanError as error:
                page.bye(_bye_reason(error), _said(error, page, self._prefix))
                await writer
                return
            expiry = asyncio.get_running_loop().call_later(
                max(0.0, (session.expires_ms - self._now_ms) / 1000), page.bye, "expired"
            )
            try:
                await self._read(socket, page, session, stage)
            finally:
                expiry.cancel()
        finally:
            if stage is not None and session is not None:
                stage.rise(session.claims.session_id, page)
            writer.cancel()
            with contextlib.suppress(asyncio.CancelledError, ConnectionError):
                await writer

    async def _hello(self, socket: web.WebSocketResponse, page: PageSocket) -> tuple[Session, LiveStage]:
        try:
            frame = await asyncio.wait_for(socket.receive(), HELLO_S)
        except TimeoutError:
            raise BadToken("unknown", "send hello with your session within 5 s") from None
        hello = m.decode(_json(frame.data if frame.type is WSMsgType.TEXT else None))
        if not isinstance(hello, m.Hello):
            raise BadInput("t", hello.t, "the first frame is hello")
        page.lang = hello.lang
        session = self._signer.verify_session(hello.session, self._now_ms)
        stage = self._rooms.of_room(session.claims.room)
        if stage is None or not stage.state.loaded:
            raise Unavailable("this room is not ready")
        if stage.stage_id != session.claims.stage:
            raise Refused("no-stage")
        await stage.sit(session.claims.session_id, session.claims.user, page)
        return session, stage

    async def _read(self, socket: web.WebSocketResponse, page: PageSocket, session: Session, stage: LiveStage) -> None:
        requests: set[asyncio.Task[None]] = set()
        try:
            async for frame in socket:
                if frame.type is not WSMsgType.TEXT:
                    break
                body = _json(frame.data)
                try:
                    message = m.decode(body)
                    self._pace()
                except Theirs as error:
                    number = body.get("id") if isinstance(body, dict) else None
                    page.refuse(number if isinstance(number, int) else 0, error)
                    continue
                task = asyncio.create_task(self._handle(message, page, session, stage))
                requests.add(task)
                task.add_done_callback(requests.discard)
        finally:
            for task in requests:
                task.cancel()
            await asyncio.gather(*requests, return_exceptions=True)

    def _pace(self) -> None:
        now = asyncio.get_running_loop().time()
        self._tokens = min(_BURST, self._tokens + (now - self._refilled) * _REQUESTS_A_SECOND)
        self._refilled = now
        if self._tokens < 1:
            raise Full("too many requests from this page; wait a moment", 1000)
        self._tokens -= 1

    async def _handle(self, message: m.FromPage, page: PageSocket, session: Session, stage: LiveStage) -> None:
        number = getattr(message, "id", 0)
        try:
            match message:
                case m.Ping():
                    page.send(m.Pong())
                case m.Resync():
                    page.resync()
                case m.Offer(id=number, sdp=sdp):
                    answer = await stage.offer(session.claims.session_id, page, sdp)
                    page.send(m.MediaAnswer(number, answer.sdp))
                case m.MicState(id=number, on=on):
                    stage.microphone(session.claims.session_id, page, on)
                    page.send(m.Done(number))
                case m.Hello():
                    raise BadInput("t", "hello", "hello is sent once")
                case _:
                    await self._ask(message, page, session.claims.user, stage)
                    page.send(m.Done(number))
        except EyvanError as error:
            page.refuse(number, error)
        except Exception:
            log.exception("a page's request failed")
            page.refuse(number, Unavailable("something went wrong on the server; try again"))

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


def _bye_reason(error: EyvanError) -> m.ByeReason:
    if isinstance(error, BadToken | BadInput):
        return "expired"
    if isinstance(error, Refused):
        return "ended" if error.reason == "no-stage" else "removed"
    return "restart"


def _said(error: EyvanError, page: PageSocket, prefix: str) -> str:
    if isinstance(error, Refused):
        return say(page.lang, error.reason, **{"prefix": prefix, **error.args_for_text})
    return str(error)
