"""One call client on its WebSocket, seated in a stage like a page: LiveKit's signalling, the client always offers.

::

    token spent ─▶ sit ─▶ offer answered ─▶ join, answer ─▶ seated ─▶ leave ─▶ closed

The reader handles one request after the other; a writer sends. Of what the stage shows and of who talks only the newest
is kept; messages queue up to ``MAX_QUEUED``, then the client is told to join anew. Whether somebody is heard is decided
by the gate alone, before anything here is sent.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import logging
import secrets
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator, Mapping

from aiohttp import WSMsgType, web
from livekit.protocol import models as M
from livekit.protocol import rtc as L

from bridge.errors import BadInput, EyvanError, Full
from bridge.identity.call_tokens import Call
from bridge.ids import SessionId, StageId, UserId
from bridge.live.stage import LiveStage
from bridge.live.view import Me, View
from bridge.web import livekit_messages as lk

log = logging.getLogger(__name__)

MAX_QUEUED = 200
MAX_TRACKS = 4  # microphones that one client has published; the oldest is forgotten
SEND_S = 10.0
REFRESH_S = 20.0  # so often a client gets a token with which it may join again
_OFFER_TRIES = 10  # while an earlier connection of the same device is still being answered
_REQUESTS_A_SECOND, _BURST = 20.0, 100.0


def session_of(call: Call) -> SessionId:
    """The same for every join of one device: the later one takes the earlier one's seat."""
    name = f"{call.user}\0{call.device}".encode()
    return SessionId("call-" + hashlib.sha256(name).hexdigest()[:32])


class Calls:
    """The call clients of every stage: each sees the others. Bound: those who are seated."""

    def __init__(self) -> None:
        self._of: dict[StageId, dict[str, CallPage]] = {}

    def __iter__(self) -> Iterator[CallPage]:
        return iter([page for pages in self._of.values() for page in pages.values()])

    def __len__(self) -> int:
        return sum(len(pages) for pages in self._of.values())

    def of(self, stage: StageId) -> Mapping[str, CallPage]:
        return self._of.get(stage, {})

    def add(self, stage: StageId, page: CallPage) -> None:
        self._of.setdefault(stage, {})[page.caller.identity] = page
        self._changed(stage)

    def remove(self, stage: StageId, page: CallPage) -> None:
        """Harmless for one whose place another has taken."""
        pages = self._of.get(stage, {})
        if pages.get(page.caller.identity) is page:
            del pages[page.caller.identity]
        if not pages:
            self._of.pop(stage, None)
        self._changed(stage)

    def _changed(self, stage: StageId) -> None:
        for page in self.of(stage).values():
            page.others_changed()


class CallPage:
    """The client as its live stage sees it (`bridge.live.ports.Page`), and what the writer task sends."""

    def __init__(self, call: Call, name: str, *, may_speak: bool, others: Callable[[], Mapping[str, CallPage]]) -> None:
        self.user: UserId = call.user
        self.caller = lk.Caller("PA_" + secrets.token_hex(8), call.identity, name)
        self.may_speak = may_speak  # as the client was last told
        self.tracks: dict[str, M.TrackInfo] = {}
        self.over: str | None = None
        """Why we said good-bye."""
        self._others = others
        self._shown: dict[str, lk.Seen] = {}  # other call clients, as this one knows them
        self._talking: dict[str, float] = {}  # as the client was last told
        self._queue: deque[L.SignalResponse] = deque()
        self._news: Me | None = None
        self._view: View | None = None
        self._levels: Mapping[int, int] | None = None
        self._others_changed = self._joined = False
        self._wake = asyncio.Event()

    # -- the stage calls these -----------------------------------------------------------------

    def show(self, view: View, me: Me) -> None:
        self._view, self._news = view, me
        self._wake.set()

    def levels(self, levels: Mapping[int, int]) -> None:
        self._levels = levels
        self._wake.set()

    def notice(self, key: str, by_name: str) -> None:
        """Element Call has no place for it; what matters comes by `show`."""

    def sound_lost(self) -> None:
        self.bye("sound")

    def bye(self, reason: str) -> None:
        if self.over is None:
            self.over = reason
            self._queue.append(lk.left(reason))
            self._wake.set()

    # -- the session calls these ---------------------------------------------------------------

    def others_changed(self) -> None:
        self._others_changed = True
        self._wake.set()

    def joined(self, room: str, bot: str, room_name: str) -> None:
        """The first message. What the stage showed until now is older than the answer of the relay."""
        self._news, self._joined = None, True
        self._shown = self._see()
        self.send(lk.joined(self.info(), map(lk.other, self._shown.values()), room=room, name=room_name, bot=bot))

    def _see(self) -> dict[str, lk.Seen]:
        return {key: each.seen() for key, each in self._others().items() if each is not self}

    def seen(self) -> lk.Seen:
        """As others see it: with a microphone that is on or off, or none. Its sound is in the bot's track."""
        on = self.may_speak and any(not track.muted for track in self.tracks.values())
        return lk.Seen(self.caller, next(iter(self.tracks), None), on)

    def tell_others(self) -> None:
        for each in self._others().values():
            if each is not self:
                each.others_changed()

    def info(self) -> M.ParticipantInfo:
        return lk.participant(self.caller, may_speak=self.may_speak, tracks=self.tracks.values())

    def send(self, message: L.SignalResponse) -> None:
        if self.over is not None:
            return
        if len(self._queue) >= MAX_QUEUED:
            self.bye("slow")
            return
        self._queue.append(message)
        self._wake.set()

    async def write(self, socket: web.WebSocketResponse, abort: Callable[[], None]) -> None:
        """Send until ``bye`` or until the client takes nothing any more."""
        try:
            while not socket.closed:
                await self._wake.wait()
                self._wake.clear()
                self._say_what_changed()
                while self._queue:
                    async with asyncio.timeout(SEND_S):
                        await socket.send_bytes(self._queue.popleft().SerializeToString())
                if self.over is not None:
                    async with asyncio.timeout(SEND_S):
                        await socket.close()
                    return
        except TimeoutError:
            log.info("a call client takes nothing any more and is let go")
            abort()
        except ConnectionError:
            pass  # the reader sees the same

    def _say_what_changed(self) -> None:
        if self.over is not None or not self._joined:
            return
        news, self._news = self._news, None
        if news is not None and news.can_speak != self.may_speak:
            self._permit(news.can_speak)
        if self._others_changed:
            self._others_changed = False
            self._announce()
        levels, self._levels = self._levels, None
        if levels is not None:
            self._tell_who_talks(levels)

    def _permit(self, may_speak: bool) -> None:
        """The gate is as it should be already; the client is told."""
        self.may_speak = may_speak
        if not may_speak:
            for sid, track in self.tracks.items():
                track.muted = True
                self.send(lk.muted(sid))
        self.send(lk.updated([self.info()]))
        self.tell_others()

    def _announce(self) -> None:
        now = self._see()
        gone = [each for key, each in self._shown.items() if key not in now or now[key].caller != each.caller]
        went = [lk.other(each, gone=True) for each in gone]
        came = [lk.other(each) for key, each in now.items() if self._shown.get(key) != each]
        self._shown = now
        if went or came:
            self.send(lk.updated([*went, *came]))

    def _tell_who_talks(self, levels: Mapping[int, int]) -> None:
        """Those who are call clients under their own name; everybody else talks as the bot, whose track the mix is."""
        people = {csrc: each.user for each in (self._view.speakers if self._view else ()) for csrc in each.csrc}
        pages: dict[str, str] = {each.user: each.caller.sid for each in self._others().values()}
        talking: dict[str, float] = {}
        for csrc, level in levels.items():
            user = people.get(csrc)
            loudness = round(10 ** (-level / 20), 2)
            sids = [pages[user]] if user in pages else []
            if user != self.user:
                sids.append(lk.BOT_SID)
            for sid in sids:
                talking[sid] = max(loudness, talking.get(sid, 0))
        if talking.keys() != self._talking.keys():
            self.send(lk.speakers(talking, self._talking.keys() - talking.keys()))
            self._talking = talking


class CallSession:
    """Runs one WebSocket, from the offer to the end. The caller has made the page sit."""

    def __init__(self, call: Call, stage: LiveStage, page: CallPage, calls: Calls, bot: str) -> None:
        self._call, self._stage, self._page, self._calls, self._bot = call, stage, page, calls, bot
        self._session = session_of(call)
        self._tokens, self._refilled = _BURST, 0.0

    async def run(
        self,
        socket: web.WebSocketResponse,
        join: L.JoinRequest,
        abort: Callable[[], None],
        new_token: Callable[[], str],
    ) -> None:
        """``abort`` drops the connection at once; ``new_token`` makes one for the next join."""
        page, room = self._page, self._stage.state.room.name
        answer: L.SignalResponse | None = None
        writer = asyncio.create_task(page.write(socket, abort), name="call writer")
        refresher = asyncio.create_task(self._refresh(new_token), name="call token")
        try:
            if join.publisher_offer.sdp:
                answer = await self._answer(join.publisher_offer)
            page.joined(self._call.room, self._bot, room)
            self._calls.add(self._call.stage, page)
            if answer is not None:
                page.send(answer)
            page.send(lk.refreshed(new_token()))
            await self._read(socket)
        except EyvanError as error:
            log.warning("a call client of %s: %s", self._call.user, error)
            page.bye("sound" if not isinstance(error, BadInput) else "removed")
            await writer
        finally:
            self._calls.remove(self._call.stage, page)
            for task in (writer, refresher):
                task.cancel()
            await asyncio.gather(writer, refresher, return_exceptions=True)

    async def _refresh(self, new_token: Callable[[], str]) -> None:
        while True:
            await asyncio.sleep(REFRESH_S)
            self._page.send(lk.refreshed(new_token()))

    async def _read(self, socket: web.WebSocketResponse) -> None:
        async for frame in socket:
            await self._pace()
            if frame.type is WSMsgType.ERROR:
                return
            try:
                request = lk.parse_request(frame.data)
                if not await self._handle(request):
                    return
            except BadInput as error:
                log.info("a frame of %s is passed over: %s", self._call.user, error)

    async def _pace(self) -> None:
        """What comes too fast waits in its socket."""
        loop = asyncio.get_running_loop()
        while True:
            now = loop.time()
            self._tokens = min(_BURST, self._tokens + (now - self._refilled) * _REQUESTS_A_SECOND)
            self._refilled = now
            if self._tokens >= 1:
                self._tokens -= 1
                return
            await asyncio.sleep((1 - self._tokens) / _REQUESTS_A_SECOND)

    async def _handle(self, request: L.SignalRequest) -> bool:
        """False: the client leaves. What a stage has no use for (subscriptions, layers, metadata) is passed over."""
        match request.WhichOneof("message"):
            case "offer":
                self._page.send(await self._answer(request.offer))
            case "add_track":
                self._add_track(request.add_track)
            case "mute":
                self._mute(request.mute)
            case "ping_req":
                self._page.send(lk.pong(request.ping_req))
            case "leave":
                self._page.over = self._page.over or "left"
                return False
        return True

    async def _answer(self, offer: L.SessionDescription) -> L.SignalResponse:
        for left in reversed(range(_OFFER_TRIES)):
            try:
                answer = await self._stage.offer(self._session, self._page, offer.sdp)
                return lk.answered(answer.sdp, offer.id)
            except Full as error:
                if not left or error.retry_after_ms > 1000:
                    raise
                await asyncio.sleep(error.retry_after_ms / 1000)
        raise AssertionError("unreachable")

    def _add_track(self, asked: L.AddTrackRequest) -> None:
        page, why = self._page, L.RequestResponse
        if asked.type != M.AUDIO:
            page.send(lk.refused(asked, why.UNSUPPORTED_TYPE, "a stage takes sound alone"))
        elif asked.encryption != M.Encryption.NONE:
            page.send(lk.refused(asked, why.NOT_ALLOWED, "end-to-end encrypted sound cannot be mixed"))
        elif not page.may_speak:
            page.send(lk.refused(asked, why.NOT_ALLOWED, "you are in the audience; raise your hand to speak"))
        else:
            if len(page.tracks) >= MAX_TRACKS:
                del page.tracks[next(iter(page.tracks))]
            track = lk.microphone("TR_" + secrets.token_hex(8), asked)
            page.tracks[track.sid] = track
            page.send(lk.published(asked.cid, track))
            self._microphone()

    def _mute(self, asked: L.MuteTrackRequest) -> None:
        track = self._page.tracks.get(asked.sid)
        if track is None:
            return
        if not asked.muted and not self._page.may_speak:
            self._page.send(lk.muted(asked.sid))  # its button shows what is true again
            return
        track.muted = asked.muted
        self._microphone()

    def _microphone(self) -> None:
        on = any(not track.muted for track in self._page.tracks.values())
        self._stage.microphone(self._session, self._page, on)
        self._page.tell_others()


@contextlib.asynccontextmanager
async def seated(call: Call, stage: LiveStage, page: CallPage) -> AsyncIterator[None]:
    """Sit for as long as the block runs. Raises as `LiveStage.sit`."""
    session = session_of(call)
    await stage.sit(session, call.user, page, call.stage)
    try:
        yield
    finally:
        stage.rise(session, page, keep=page.over is None)
