"""One room with its stage, live.

A LiveStage owns its StageState and its seats. Everything that happens comes through one bounded inbox and is worked on
by one task, in this order: decide (rules) → shut gates → make cuts durable → queue writes and notices → open gates →
show. Reads, writes and notices run in lanes (`bridge.live.lanes`) whose outcome comes back through the inbox.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import logging
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from bridge.errors import BadInput, EyvanError, Full, MatrixRefused, NotFound, Refused, Unavailable
from bridge.ids import EventId, PeerId, RoomId, SessionId, StageId, UserId, new_peer_id
from bridge.live import card, saved
from bridge.live.lanes import Courier, Reader, Writer
from bridge.live.ports import Answer as MediaAnswer
from bridge.live.ports import Clock, JsonObject, Matrix, Media, Page, Store
from bridge.live.view import SHUT, Gate, Me, View, Voice, build, gate_for, me, without_names
from bridge.rules import effects as fx
from bridge.rules import inputs
from bridge.rules.authority import Policy
from bridge.rules.content import state_event
from bridge.rules.inputs import Asked, Input, Present
from bridge.rules.reduce import reduce, rewrite_cuts
from bridge.rules.state import StageState
from bridge.telemetry import log_context
from bridge.text import Lang, say

log = logging.getLogger(__name__)

INBOX = 20_000
SEAT_KEPT_S = 15.0  # a page whose WebSocket broke keeps its seat and its sound for so long
SHOW_EVERY_S = 0.1  # pages whose own place did not change are shown news at most this often


class _NoPage:
    """In a seat whose WebSocket broke: the gate still holds for it, and nothing is shown."""

    def show(self, view: View, me: Me) -> None: ...
    def levels(self, levels: Mapping[int, int]) -> None: ...
    def notice(self, key: str, by_name: str) -> None: ...
    def sound_lost(self) -> None: ...
    def bye(self, reason: str) -> None: ...


_NO_PAGE = _NoPage()


@dataclass(slots=True, eq=False)
class Seat:
    """One connected page or call. Touched by its LiveStage's task alone."""

    session: SessionId
    user: UserId | None
    page: Page
    peer: PeerId | None = None
    csrc: int | None = None
    mic_on: bool = False
    gate: Gate = SHUT  # as the relay last confirmed it
    away: asyncio.TimerHandle | None = None


@dataclass(frozen=True, slots=True)
class Outcome:
    """The answer to somebody who asked: ``text`` is the key of a sentence."""

    ok: bool
    text: str
    args: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class World:
    """What a live stage needs of the world."""

    matrix: Matrix
    media: Media
    store: Store
    clock: Clock
    make_link: Callable[[UserId, RoomId, StageId], str]  # a personal URL
    lang: Lang = "en"
    prefix: str = "!"
    public_url: str = ""


_Job = Callable[[], Awaitable[Any]]


class LiveStage:
    """``start`` once, ``close`` at the end (harmless twice). Tasks: the stage's own, a reader, two writers, a courier;
    all are joined by ``close``. Others come in by ``happened``, ``ask``, ``sit``, ``offer``, ``rise``."""

    def __init__(self, room: RoomId, bot: UserId, policy: Policy, world: World, gone: Callable[[RoomId], None]) -> None:
        self.room = room
        self._state = StageState(room, bot, policy)
        self._world, self._gone = world, gone
        self._inbox: asyncio.Queue[_Job] = asyncio.Queue(INBOX)
        self._seats: dict[SessionId, Seat] = {}
        self._waiting: dict[str, asyncio.Future[Outcome]] = {}
        self._reader = Reader(room, world.matrix, self._read_one, self._read_all, lambda: gone(room))
        self._writer = Writer(room, world.matrix, self.happened)
        self._courier = Courier(room)
        self._tasks: list[asyncio.Task[None]] = []
        self._applied: list[int] = []
        self._show_due: asyncio.TimerHandle | None = None
        self._view: View | None = None
        self._card_shown = ""
        self._loaded = asyncio.Event()
        self._closed = False

    # -- in ------------------------------------------------------------------------------------

    @property
    def state(self) -> StageState:
        return self._state

    @property
    def stage_id(self) -> StageId | None:
        return self._state.stage.stage_id if self._state.stage else None

    def start(self, kept: JsonObject | None, cuts: list[tuple[str, JsonObject]]) -> None:
        """Begin: what a crash left acts from the first moment, then the room is read, then gates open."""
        self._state, _ = reduce(self._state, saved.load(kept, cuts), self._world.clock.now_ms())
        runs = (self._run(), self._reader.run(), self._writer.run(), self._writer.run_queue(), self._courier.run())
        self._tasks = [asyncio.create_task(run, name=f"stage {self.room}") for run in runs]
        self._reader.read_all()

    async def loaded(self) -> None:
        """Wait until the room was read once."""
        await self._loaded.wait()

    def happened(self, what: Input, row: int | None = None) -> None:
        """Take an input. Never waits, never fails: when the inbox is full, state is read again as a whole instead."""
        self._put(lambda: self._apply(what, row))

    def rows_done(self, *rows: int) -> None:
        """Inbox rows that need nothing of the rules."""
        self._put(lambda: self._mark(rows))

    async def ask(self, ask: Asked) -> Outcome:
        """Ask on somebody's behalf and wait for the answer. Raises Unavailable when the stage closes meanwhile."""
        future: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
        self._waiting[ask.ref] = future
        try:
            self.happened(ask)
            return await future
        finally:
            self._waiting.pop(ask.ref, None)

    async def sit(self, session: SessionId, user: UserId | None, page: Page) -> None:
        """A page connects. Raises Refused where this person may not hear the stage. An older page of the same
        session is told to go."""
        await self._call(lambda: self._sit(session, user, page))

    async def offer(self, session: SessionId, page: Page, sdp: str) -> MediaAnswer:
        """The page's WebRTC offer. Raises as `Media.join`, and NotFound for a page that is not seated."""
        result: MediaAnswer = await self._call(lambda: self._offer(session, page, sdp))
        return result

    def microphone(self, session: SessionId, page: Page, on: bool) -> None:
        self._put(lambda: self._microphone(session, page, on))

    def rise(self, session: SessionId, page: Page) -> None:
        """The page's socket closed. It may be back in a moment: its seat and its sound are kept for SEAT_KEPT_S."""
        self._put(lambda: self._step_out(session, page))

    def peer_gone(self, peer: PeerId) -> None:
        self._put(lambda: self._peer_gone(peer))

    def levels(self, levels: Mapping[int, int]) -> None:
        """Who talks, to every page: not through the inbox, as nothing is decided by it."""
        for seat in list(self._seats.values()):
            seat.page.levels(levels)

    async def close(self, reason: str = "restart") -> None:
        """End the sound and the tasks; pages are told ``reason``."""
        if self._closed:
            return
        self._closed = True
        if self._show_due:
            self._show_due.cancel()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for future in self._waiting.values():
            if not future.done():
                future.set_exception(Unavailable("the stage is closing"))
        for seat in self._seats.values():
            seat.page.bye(reason)
            if seat.away is not None:
                seat.away.cancel()
        self._seats.clear()
        if self.stage_id:
            with contextlib.suppress(EyvanError):
                await self._world.media.close_stage(self.stage_id)

    # -- the one task --------------------------------------------------------------------------

    def _put(self, job: _Job) -> None:
        try:
            self._inbox.put_nowait(job)
        except asyncio.QueueFull:
            log.error("room %s: inbox of %d is full; its state will be read again", self.room, INBOX)
            self._reader.read_all()

    async def _call(self, job: _Job) -> Any:
        if self._closed:
            raise Unavailable("the stage is closing")
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()

        async def run() -> None:
            try:
                result = await job()
                if not future.done():
                    future.set_result(result)
            except EyvanError as error:
                if not future.done():
                    future.set_exception(error)

        self._put(run)
        return await future

    async def _run(self) -> None:
        with log_context(room=self.room):
            while True:
                job = await self._inbox.get()
                try:
                    await job()
                except Exception:
                    log.exception("room %s: an input was not carried out", self.room)
                if self._applied and (self._inbox.empty() or len(self._applied) >= 50):
                    rows, self._applied = self._applied, []
                    await self._world.store.mark_applied(rows)

    async def _mark(self, rows: tuple[int, ...]) -> None:
        self._applied += rows

    async def _apply(self, what: Input, row: int | None = None) -> None:
        before = self._state
        self._state, effects = reduce(before, what, self._world.clock.now_ms())
        if isinstance(what, inputs.RoomRead):
            effects = [*effects, *rewrite_cuts(self._state)]
        gates_may_differ = before is not self._state
        changed = await self._shut_gates() if gates_may_differ else set()
        for effect in effects:
            if isinstance(effect, fx.KeepCut):
                await self._world.store.add_cut(self.room, effect.cut.cut_id, saved.cut_json(effect.cut))
        for effect in effects:
            await self._carry_out(effect)
        if gates_may_differ:
            changed |= await self._open_gates()
            self._show(changed)
        if isinstance(what, inputs.RoomRead):
            self._loaded.set()
        if row is not None:
            self._applied.append(row)

    # -- gates: desired, then diffed; revocations first ----------------------------------------

    async def _shut_gates(self) -> set[Seat]:
        changed = set()
        for seat in list(self._seats.values()):
            want = gate_for(self._state, seat.user)
            narrower = Gate(hear=seat.gate.hear and want.hear, speak=seat.gate.speak and want.speak)
            if narrower != seat.gate:
                await self._set_gate(seat, narrower)
                changed.add(seat)
        for seat in list(self._seats.values()):
            if not self._state.may_hear(seat.user) and self._state.loaded:
                await self._show_out(seat)
        return changed

    async def _open_gates(self) -> set[Seat]:
        changed = set()
        for seat in list(self._seats.values()):
            want = gate_for(self._state, seat.user)
            if seat.peer is not None and want != seat.gate:
                await self._set_gate(seat, want)
                changed.add(seat)
        return changed

    async def _set_gate(self, seat: Seat, gate: Gate) -> None:
        if seat.peer is None:
            seat.gate = SHUT
            return
        try:
            await self._world.media.gate(seat.peer, hear=gate.hear, speak=gate.speak)
            seat.gate = gate
        except NotFound:
            self._without_peer(seat)
        except Unavailable as error:  # the worker is gone, and its peers with it
            log.warning("gate of %s: %s", seat.user or "a guest", error)
            self._without_peer(seat)

    def _without_peer(self, seat: Seat) -> None:
        seat.peer, seat.csrc, seat.gate = None, None, SHUT
        seat.page.sound_lost()

    async def _show_out(self, seat: Seat) -> None:
        """This person may not be here (any more): by the state, not by courtesy of the page."""
        ended = not self._state.live
        self._seats.pop(seat.session, None)
        if seat.away is not None:
            seat.away.cancel()
        if seat.peer:
            with contextlib.suppress(EyvanError):
                await self._world.media.leave(seat.peer)
        seat.page.bye("ended" if ended else "left_room" if self._left_by_oneself(seat.user) else "removed")
        self._leave_present(seat)

    def _left_by_oneself(self, user: UserId | None) -> bool:
        member = self._state.room.members.get(user) if user else None
        return member is not None and member.membership == "leave" and not self._state.cuts

    # -- seats ---------------------------------------------------------------------------------

    async def _sit(self, session: SessionId, user: UserId | None, page: Page) -> None:
        if not self._state.may_hear(user):
            raise Refused("no-stage" if not self._state.live else "guests-closed" if user is None else "not-in-room")
        seat = self._seats.get(session)
        if seat is not None:
            seat.page.bye("elsewhere")
            seat.page, seat.mic_on = page, False
            if seat.away is not None:
                seat.away.cancel()
        else:
            seat = self._seats[session] = Seat(session, user, page)
            if user is not None:
                self._state, _ = reduce(self._state, Present(user, 1), self._world.clock.now_ms())
        self._show({seat})

    def _seat(self, session: SessionId, page: Page) -> Seat:
        seat = self._seats.get(session)
        if seat is None or seat.page is not page:
            raise NotFound("this page has no seat; connect again")
        return seat

    async def _offer(self, session: SessionId, page: Page, sdp: str) -> MediaAnswer:
        seat = self._seat(session, page)
        stage = self.stage_id
        want = gate_for(self._state, seat.user)
        if stage is None or not want.hear:
            raise Refused("no-stage")
        peer = seat.peer or new_peer_id()
        owner = seat.user or f"guest {seat.session}"
        answer = await self._world.media.join(stage, peer, owner, sdp, hear=want.hear, speak=want.speak)
        seat.peer, seat.csrc, seat.gate = peer, answer.csrc, want
        self._show({seat})
        return answer

    async def _microphone(self, session: SessionId, page: Page, on: bool) -> None:
        seat = self._seats.get(session)
        if seat is not None and seat.page is page and seat.mic_on != on:
            seat.mic_on = on
            self._show({seat})

    async def _step_out(self, session: SessionId, page: Page) -> None:
        seat = self._seats.get(session)
        if seat is None or seat.page is not page:
            return
        seat.page = _NO_PAGE
        rise = partial(self._rise, session, _NO_PAGE)
        seat.away = asyncio.get_running_loop().call_later(SEAT_KEPT_S, self._put, rise)

    async def _rise(self, session: SessionId, page: Page) -> None:
        seat = self._seats.get(session)
        if seat is None or seat.page is not page:
            return
        del self._seats[session]
        if seat.peer:
            with contextlib.suppress(EyvanError):
                await self._world.media.leave(seat.peer)
        self._leave_present(seat)
        self._show(set())

    def _leave_present(self, seat: Seat) -> None:
        if seat.user is not None:
            self._state, _ = reduce(self._state, Present(seat.user, -1), self._world.clock.now_ms())

    async def _peer_gone(self, peer: PeerId) -> None:
        for seat in self._seats.values():
            if seat.peer == peer:
                self._without_peer(seat)
                self._show({seat})

    # -- effects -------------------------------------------------------------------------------

    async def _carry_out(self, effect: fx.Effect) -> None:
        store, clock = self._world.store, self._world.clock
        match effect:
            case fx.ReadState(kind, key):
                self._reader.read(kind, key)
            case fx.ReadRoom():
                self._reader.read_all()
            case fx.WriteState() | fx.KickMember():
                self._writer.write(effect)
            case fx.KeepCut():
                pass  # done before all else
            case fx.DropCut(cut_id):
                await store.drop_cut(cut_id)
            case fx.Keep():
                await store.save_stage(self.room, saved.dump(self._state))
            case fx.Record():
                line = {name: value for name, value in dataclasses.asdict(effect).items() if value}
                await store.add_record(self.room, effect.stage_id, clock.now_ms(), line)
                log.info("%s by %s%s", effect.act, effect.by, f" on {effect.target}" if effect.target else "")
            case fx.Answer():
                self._answer(effect.ref, Outcome(effect.ok, effect.text, effect.args))
            case fx.Tell():
                self._tell(effect)
            case fx.Announce(text, args):
                self._notice(say(self._world.lang, text, **args))
            case fx.PostCard():
                pass  # posted by _show once the stage is confirmed live
            case fx.SendLink(user, ref):
                self._send_link(user, ref)
            case fx.RevokeLinks(user):
                await store.revoke_links(user, self.room, clock.now_ms())
            case fx.CloseStage(stage_id):
                with contextlib.suppress(EyvanError):
                    await self._world.media.close_stage(stage_id)
                self._card_shown = ""
            case fx.BadEvent(event_id, kind, reason):
                log.warning("room %s event %s (%s) is passed over: %s", self.room, event_id or "-", kind, reason)
            case fx.Follow(room):
                self._courier.send(lambda: self._follow(RoomId(room)))

    def _answer(self, ref: str, outcome: Outcome) -> None:
        future = self._waiting.get(ref)
        if future is not None and not future.done():
            future.set_result(outcome)
        elif ref.startswith("$"):  # a command: the answer goes into the room, as a reply
            text = say(self._world.lang, outcome.text, **{"prefix": self._world.prefix, **outcome.args})
            self._notice(text, EventId(ref))

    def _notice(self, text: str, reply_to: EventId | None = None) -> None:
        html = card.html_of(text)
        txn = f"eyvan-{reply_to or self._world.clock.now_ms()}"

        async def job() -> None:
            await self._world.matrix.send(self.room, text, html, reply_to=reply_to, txn=txn)

        self._courier.send(job)

    def _tell(self, tell: fx.Tell) -> None:
        seats = [seat for seat in self._seats.values() if seat.user == tell.user]
        by_name = self._state.name(tell.by) if tell.by != self._state.bot else ""
        for seat in seats:
            seat.page.notice(tell.key, by_name)
        if seats or not tell.by_chat or tell.user == self._state.bot:
            return
        topic = self._state.stage.topic if self._state.stage else ""
        text = say(self._world.lang, "tell-" + tell.key.replace("_", "-"), by=by_name, topic=topic or self.room)
        self._courier.send(lambda: self._world.matrix.tell(tell.user, text, card.html_of(text)))

    def _send_link(self, user: UserId, ref: str) -> None:
        if self.stage_id is None or self._state.stage is None:
            return
        url = self._world.make_link(user, self.room, self.stage_id)
        text, html = card.link_message(self._world.lang, self._state.stage.topic or self._state.room.name, url)

        async def job() -> None:
            try:
                await self._world.matrix.tell(user, text, html)
            except MatrixRefused as refused:
                log.warning("no chat with %s: %s", user, refused)
                self._answer(ref, Outcome(False, "link-refused", {"name": self._state.name(user)}))
                return
            self._answer(ref, Outcome(True, "link-sent", {"name": self._state.name(user)}))

        self._courier.send(job)

    async def _follow(self, successor: RoomId) -> None:
        """An upgraded room (client-server API, "Room Upgrades"): followed only if the new room names this one."""
        matrix = self._world.matrix
        await matrix.join(successor)
        create = await matrix.read_state(successor, "m.room.create", "")
        content = create.get("content") if create else None
        predecessor = content.get("predecessor") if isinstance(content, Mapping) else None
        if not isinstance(predecessor, Mapping) or predecessor.get("room_id") != self.room:
            log.warning("%s claims %s as its successor, which does not name it", self.room, successor)
            await matrix.leave(successor)
            return
        self._gone(self.room)

    # -- what the reader brings ----------------------------------------------------------------

    def _read_one(self, kind: str, key: str, raw: JsonObject | None) -> None:
        try:
            event = state_event(raw) if raw is not None else None
        except BadInput as bad:
            log.warning("room %s: state %s %r cannot be read: %s", self.room, kind, key, bad)
            event = None
        self.happened(inputs.StateRead(kind, key, event))

    def _read_all(self, raws: list[JsonObject]) -> None:
        events = []
        for raw in raws:
            try:
                events.append(state_event(raw))
            except BadInput as bad:
                log.warning("room %s: a state event cannot be read: %s", self.room, bad)
        self.happened(inputs.RoomRead(tuple(events)))

    # -- out to the pages ----------------------------------------------------------------------

    def _show(self, now: set[Seat]) -> None:
        """Pages in ``now`` see the change at once, the others within ``SHOW_EVERY_S``."""
        if self._closed:
            return
        if now:
            self._show_to(now)
        if self._show_due is None:
            self._show_due = asyncio.get_running_loop().call_later(SHOW_EVERY_S, self._show_all)

    def _show_all(self) -> None:
        self._show_due = None
        self._show_to(set(self._seats.values()))
        self._show_card()

    def _show_to(self, seats: set[Seat]) -> None:
        voices = [Voice(s.user, s.csrc, s.mic_on, s.gate) for s in self._seats.values()]
        view = build(self._state, voices, self._world.clock.now_ms())
        for_guests = without_names(view)
        for seat in seats:
            if self._seats.get(seat.session) is seat:
                seat.page.show(view if seat.user else for_guests, me(self._state, seat.user, seat.gate))

    def _show_card(self) -> None:
        """The card in the room: posted when the stage is live, then edited (throttled on its way out)."""
        if not self._state.live or self._state.stage is None:
            return
        if self._state.stage.bot not in (None, self._state.bot):
            return
        voices = [Voice(s.user, s.csrc, s.mic_on, s.gate) for s in self._seats.values()]
        view = build(self._state, voices, self._world.clock.now_ms())
        text, html = card.card(self._world.lang, view, self._world.prefix, self._world.public_url, self._state.stage)
        if text == self._card_shown:
            return
        first, self._card_shown = not self._card_shown and self._state.card is None, text
        stage_id = self._state.stage.stage_id
        if first:
            self._courier.send(lambda: self._post_card(stage_id, text, html))
        elif self._state.card is not None:
            event = self._state.card
            self._courier.send(lambda: self._world.matrix.edit(self.room, event, text, html))

    async def _post_card(self, stage_id: StageId, text: str, html: str) -> None:
        txn = f"eyvan-card-{stage_id}"
        event = await self._world.matrix.send(self.room, text, html, reply_to=None, txn=txn)
        self.happened(inputs.CardPosted(event))
        self._card_shown = ""  # what changed meanwhile goes in by an edit
        self._show(set())
        await self._world.matrix.react(self.room, event, "✋")


__all__ = ["Full", "LiveStage", "Outcome", "Seat", "World"]
