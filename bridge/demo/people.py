"""A person at the page, without a browser: the page's own protocol (web/messages.py) and aiortc.

``PageClient`` is used by the demo's speakers and by the tests. It does what the page does: the link
is exchanged for a session, one WebSocket carries snapshot, patches, requests and SDP, one sendrecv
peer connection carries the sound both ways and is never renegotiated. When the relay has lost that
(``me.can_hear`` ends, or ICE fails), another one is offered at once on the same WebSocket; when the WebSocket
breaks, all comes back by itself. The microphone is then as the person had left it. ::

    connect ──► opening ──► live ──► lost ──► opening …       (0.2 s to 3 s between two tries)
                   ▲          ├──► over        bye: ended, removed, left_room, expired, elsewhere
                   └──────────┘                the relay has lost the peer connection
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import random
import socket
from collections import deque
from collections.abc import Callable, Coroutine
from typing import Any, Literal, cast
from urllib.parse import urlsplit

import aiohttp
from aiortc import RTCConfiguration, RTCPeerConnection, RTCSessionDescription
from aiortc.mediastreams import MediaStreamError, MediaStreamTrack
from av import AudioFrame

from bridge.demo.frames import RequestRefused, parse_link, patched, read_frame, read_opened
from bridge.demo.sound import Ear, Pcm, Voice
from bridge.errors import BadInput, BadToken, Unavailable
from bridge.live import view
from bridge.web import messages as m

__all__ = ["PageClient", "RequestRefused"]
State = Literal["new", "opening", "live", "lost", "over"]
_FINAL = {"ended", "removed", "left_room", "elsewhere"}
_ANSWER_S = 30.0  # a hang limit, not a goal
_LATER = {"M_UNAVAILABLE", "M_LIMIT_EXCEEDED"}  # the relay starts again, or has an offer of ours
_OFFER_AGAIN_S = 0.3
_TOLD = 200  # notices and refusals kept; the oldest is dropped


class PageClient:
    """One open page. Owns its connection task, its WebSocket and its peer connection; ``close`` joins them.

    ``link`` is a personal link (``…/s/{stage}#l={token}``) or a guest's (without the fragment).
    """

    def __init__(self, link: str, *, lang: Literal["fa", "en"] = "en", name: str = "", ear: Ear | None = None) -> None:
        self.base, self.stage_id, self.token = parse_link(link)
        self.name, self.lang = name, lang
        self.state: State = "new"
        self.snapshot: m.Snapshot | None = None
        self.levels: dict[int, int] = {}
        self.notices: deque[m.Notice] = deque(maxlen=_TOLD)
        self.bye: m.Bye | None = None
        self.connections = 0  # how often the page became live
        self.voice = Voice()
        self._ear = ear or Ear()
        self._mic = False
        self._session: str | None = None
        self._device: str | None = None
        self._http: aiohttp.ClientSession | None = None
        self._socket: aiohttp.ClientWebSocketResponse | None = None
        self._pc: RTCPeerConnection | None = None
        self._waiting: dict[int, asyncio.Future[m.Done | m.MediaAnswer]] = {}
        self._ids = 0
        self._changed = asyncio.Event()
        self._sound_lost = asyncio.Event()  # the relay has no peer connection of ours any more
        self._error: BaseException | None = None
        self._run: asyncio.Task[None] | None = None
        self._hearing: set[asyncio.Task[None]] = set()
        self._unfinished: set[asyncio.Task[None]] = set()

    # -- what the person sees -------------------------------------------------------------------

    @property
    def me(self) -> view.Me:
        return self._seen().me

    @property
    def stage(self) -> view.StageInfo:
        return self._seen().stage

    @property
    def speakers(self) -> list[view.Person]:
        return self._seen().speakers

    @property
    def audience(self) -> view.Audience:
        return self._seen().audience

    @property
    def queue(self) -> list[view.Hand]:
        return self._seen().queue

    @property
    def media_connected(self) -> bool:
        """ICE and DTLS are up."""
        return self._pc is not None and self._pc.connectionState == "connected"

    def speaker(self, user: str) -> view.Person | None:
        """The person on the stage with that user id, if there."""
        return next((each for each in self.speakers if each.user == user), None)

    def recent(self, seconds: float) -> Pcm:
        """What was heard in the last ``seconds``: int16 mono 48 kHz, zeros where nothing came."""
        return self._ear.recent(seconds)

    # -- what the person does -------------------------------------------------------------------

    async def connect(self, timeout_s: float = _ANSWER_S) -> PageClient:
        """Open the page; returns when the snapshot is there and sound can flow.

        Raises BadToken (the link does not hold), RequestRefused, Unavailable (nobody answers in time).
        """
        if self._run is None:
            self._http = aiohttp.ClientSession()
            self._run = asyncio.create_task(self._stay(), name=f"page {self.name or self.stage_id}")
        try:
            await self.wait(lambda c: c.state == "live" and c.media_connected, timeout_s, "the page to be live")
        except BaseException:
            await self.close()
            raise
        return self

    async def wait(self, condition: Callable[[PageClient], object], timeout_s: float = 30.0, what: str = "") -> None:
        """Until ``condition(self)`` holds. Looked at on each message and at least every 50 ms.

        Raises Unavailable with what is known of the page when ``timeout_s`` have passed, or the error that ended it.
        """
        deadline = asyncio.get_running_loop().time() + timeout_s
        while not (self.snapshot is not None and condition(self)):
            if self._error is not None:
                raise self._error
            if asyncio.get_running_loop().time() > deadline:
                raise Unavailable(f"waited {timeout_s:g} s for {what or 'a condition'}: {self!r}")
            self._changed.clear()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._changed.wait(), 0.05)

    def say(self, pcm: Pcm, *, loop: bool = False) -> None:
        """Send this sound from now on, whether the microphone is on for the server or not."""
        self.voice.say(pcm, loop=loop)

    async def mic(self, on: bool) -> None:
        """Tell the server that the microphone is on or off."""
        self._mic = on
        await self.request(m.MicState(self._next_id(), on))

    async def hand(self, raised: bool, note: str = "") -> None:
        await self.request(m.RaiseHand(self._next_id(), raised, note))

    async def reply(self, accept: bool) -> None:
        """Answer an invitation to the stage."""
        await self.request(m.InviteReply(self._next_id(), accept))

    async def act(self, act: view.Act, user: str | None = None, text: str = "") -> None:
        """A moderator's act. Raises RequestRefused where it is not allowed."""
        await self.request(m.DoAct(self._next_id(), act, user, text))

    async def request(self, message: m.Offer | m.MicState | m.RaiseHand | m.InviteReply | m.DoAct) -> object:
        """Send a request and return its ``done`` or ``answer``. Raises RequestRefused, Unavailable."""
        future: asyncio.Future[m.Done | m.MediaAnswer] = asyncio.get_running_loop().create_future()
        self._waiting[message.id] = future
        try:
            await self.send(dataclasses.asdict(message))
            return await asyncio.wait_for(future, _ANSWER_S)
        except TimeoutError:
            raise Unavailable(f"no answer to {message.t} in {_ANSWER_S:g} s: {self!r}") from None
        finally:
            self._waiting.pop(message.id, None)

    async def send(self, frame: object) -> None:
        """One raw frame; tests send junk with it. Raises Unavailable when there is no connection."""
        if self._socket is None or self._socket.closed:
            raise Unavailable(f"the page is not connected: {self!r}")
        await self._socket.send_json(frame)

    def break_connection(self) -> None:
        """As when the network goes: the socket ends without a word, and the page comes back by itself."""
        wire = self._socket.get_extra_info("socket") if self._socket is not None else None
        if wire is not None:
            with contextlib.suppress(OSError):
                wire.shutdown(socket.SHUT_RDWR)

    async def close(self) -> None:
        """Close the page. Harmless twice."""
        if self._run is not None:
            self._run.cancel()
            await asyncio.gather(self._run, return_exceptions=True)
        await self._drop()
        if self._http is not None:
            await self._http.close()
        self.state = "over"

    async def __aenter__(self) -> PageClient:
        return await self.connect()

    async def __aexit__(self, *exc: object) -> None:
        await self.close()

    def __repr__(self) -> str:
        media = self._pc.connectionState if self._pc else "none"
        who = self.snapshot.me if self.snapshot else None
        shown = f" {who.user or 'guest'} {who.role} on {who.place} can_speak={who.can_speak}" if who else ""
        said = f" bye={self.bye.reason}" if self.bye else ""
        return f"<PageClient {self.name}{shown} {self.state} media={media}{said} heard={self._ear.frames} frames>"

    # -- the connection -------------------------------------------------------------------------

    async def _stay(self) -> None:
        """Connect, and again after each break, until ``bye`` says that it is over."""
        pause = 0.2
        while True:
            self.state = "opening"
            try:
                await self._once()
                pause = 0.2
            except (OSError, aiohttp.ClientError, Unavailable, TimeoutError):
                pause = min(3.0, pause * 2)
            except (BadToken, RequestRefused, BadInput) as error:
                self._error = error
                break
            finally:
                await self._drop()
            if self.bye is not None and self.bye.reason in _FINAL:
                break
            self.state = "lost"
            self._changed.set()
            await asyncio.sleep(pause * random.uniform(0.5, 1.0))  # noqa: S311  (spreads retries, is no secret)
        self.state = "over"
        self._changed.set()

    async def _once(self) -> None:
        assert self._http is not None
        if self._session is None:
            await self._open_session()
        url = self.base + "/api/v1/socket"
        self.bye = None
        origin = "{0.scheme}://{0.netloc}".format(urlsplit(self.base))
        async with self._http.ws_connect(url, heartbeat=10, headers={"Origin": origin}) as ws:
            self._socket = ws
            await self.send(dataclasses.asdict(m.Hello(cast(str, self._session), self.lang)))
            media: asyncio.Task[None] | None = None
            try:
                async for frame in ws:
                    self._take(frame.json())
                    if media is None and self.snapshot is not None and self.bye is None:
                        media = asyncio.create_task(self._keep_media(), name=f"media {self.name}")
                        media.add_done_callback(self._media_failed)
                if self.bye is not None and self.bye.reason == "expired":
                    self._session = None
            finally:
                if media is not None:
                    media.cancel()
                    outcome = (await asyncio.gather(media, return_exceptions=True))[0]
                    if isinstance(outcome, RequestRefused) and self.bye is None:
                        raise outcome

    async def _open_session(self) -> None:
        assert self._http is not None
        body = {"link": self.token, "device": self._device} if self.token else {"guest": self.stage_id}
        body = {name: value for name, value in body.items() if value is not None}
        async with self._http.post(self.base + "/api/v1/sessions", json=body) as answer:
            opened = read_opened(answer.status, await answer.json())
            self._session, self._device = opened.session, opened.device or self._device

    async def _keep_media(self) -> None:
        """One peer connection after another. Raises Unavailable; RequestRefused where no first offer is taken."""
        pause, renews = _OFFER_AGAIN_S, False
        while True:
            self._sound_lost.clear()
            try:
                live = await self._connect_media()
            except RequestRefused as error:
                live = False
                if not renews and error.errcode not in _LATER:
                    raise
            if live:
                pause, renews = _OFFER_AGAIN_S, True
                await self._sound_lost.wait()
                self.state = "opening"
            else:
                await asyncio.sleep(pause)
                pause = min(3.0, pause * 2)
            await self._drop_media()

    async def _connect_media(self) -> bool:
        """Offer a new peer connection. False where it was lost before it was up."""
        pc = self._pc = RTCPeerConnection(RTCConfiguration(iceServers=[]))
        pc.addTransceiver(self.voice, direction="sendrecv")
        pc.on("track", self._on_track)
        pc.on("connectionstatechange", self._on_media_state)
        await self._to_its_end(pc.setLocalDescription(await pc.createOffer()))
        answer = await self.request(m.Offer(self._next_id(), pc.localDescription.sdp))
        assert isinstance(answer, m.MediaAnswer)
        await pc.setRemoteDescription(RTCSessionDescription(answer.sdp, "answer"))
        await self.wait(lambda c: c.media_connected or c._sound_lost.is_set(), what="ICE and DTLS")
        if self._sound_lost.is_set():
            return False
        self.connections += 1
        self.state = "live"
        self._changed.set()
        if self._mic:
            with contextlib.suppress(RequestRefused):  # no longer allowed to speak: the microphone stays off
                await self.mic(True)
        return True

    def _media_failed(self, media: asyncio.Task[None]) -> None:
        if not media.cancelled() and media.exception() is not None:
            self.break_connection()

    def _on_media_state(self) -> None:
        self._changed.set()
        if self._pc is not None and self._pc.connectionState in ("failed", "closed"):
            self._sound_lost.set()

    def _on_track(self, track: MediaStreamTrack) -> None:
        task = asyncio.create_task(self._hear(track), name=f"ear {self.name}")
        self._hearing.add(task)
        task.add_done_callback(self._hearing.discard)

    async def _hear(self, track: MediaStreamTrack) -> None:
        with contextlib.suppress(MediaStreamError):
            while True:
                self._ear.hear(cast(AudioFrame, await track.recv()))

    async def _drop(self) -> None:
        """What one WebSocket had: its waiting requests and the sound."""
        for future in list(self._waiting.values()):
            if not future.done():
                future.set_exception(Unavailable("the connection was lost"))
                future.exception()  # nobody may be waiting any more
        self._socket = None
        await asyncio.gather(*self._unfinished, return_exceptions=True)
        await self._drop_media()

    async def _drop_media(self) -> None:
        """The peer connection and its ears."""
        pc, self._pc = self._pc, None
        if pc is not None:
            pc.remove_all_listeners()
            await self._to_its_end(pc.close())
        for task in list(self._hearing):
            task.cancel()
        await asyncio.gather(*self._hearing, return_exceptions=True)
        self._hearing.clear()

    async def _to_its_end(self, work: Coroutine[Any, Any, None]) -> None:
        """aiortc leaves sockets open where its gathering or closing is cancelled: ``_drop`` joins what goes on."""
        task = asyncio.create_task(work)
        self._unfinished.add(task)
        task.add_done_callback(self._unfinished.discard)
        await asyncio.shield(task)

    # -- frames ---------------------------------------------------------------------------------

    def _take(self, frame: dict[str, Any]) -> None:
        message = read_frame(frame)
        match message:
            case m.Snapshot():
                self.snapshot = message
            case m.Patch():
                seen = self._seen()
                self.snapshot = patched(seen, message)
                if seen.me.can_hear and not self.me.can_hear:
                    self._sound_lost.set()
            case m.Done() | m.MediaAnswer():
                self._settle(message.id, message)
            case m.RefusedAnswer():
                self._settle(message.id, RequestRefused(message.errcode, message.error))
            case m.Levels():
                self.levels = {int(csrc): level for csrc, level in message.levels.items()}
            case m.Notice():
                self.notices.append(message)
            case m.Bye():
                self.bye = message
        self._changed.set()

    def _settle(self, request: int, outcome: m.Done | m.MediaAnswer | RequestRefused) -> None:
        future = self._waiting.get(request)
        if future is None or future.done():
            return
        if isinstance(outcome, RequestRefused):
            future.set_exception(outcome)
        else:
            future.set_result(outcome)

    def _seen(self) -> m.Snapshot:
        if self.snapshot is None:
            raise Unavailable(f"the page has no snapshot yet: {self!r}")
        return self.snapshot

    def _next_id(self) -> int:
        self._ids += 1
        return self._ids
