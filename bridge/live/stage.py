"""One room with its stage, live.

A LiveStage owns its StageState and its seats. Everything that happens comes through one inbox and is worked on by one
task, in this order: decide (rules) → shut gates → make cuts durable → queue writes and notices → open gates → show.
Whatever may take long runs beside it: reads, writes and notices in lanes (`bridge.live.lanes`), requests to the relay
one a seat (`bridge.live.seats`), what is kept in a task of its own; what comes of it returns through the inbox.
"""

from __future__ import annotations

import asyncio
import dataclasses
import logging
from collections.abc import Callable, Coroutine, Iterable, Mapping
from typing import Any

from bridge.errors import BadInput, Full, Refused, Unavailable
from bridge.ids import EventId, PeerId, RoomId, SessionId, StageId, UserId, new_peer_id
from bridge.live import saved
from bridge.live.inbox import Inbox
from bridge.live.keeping import Keeping
from bridge.live.lanes import Reader, Writer
from bridge.live.notices import Notices, Outcome, World
from bridge.live.ports import Answer as MediaAnswer
from bridge.live.ports import JsonObject, Keypad, Page
from bridge.live.reply import Reply
from bridge.live.seats import NO_PAGE, PATIENCE_S, Offered, Seat, Seats
from bridge.live.showing import Window
from bridge.live.view import Gate, gate_of, is_over, may_sit
from bridge.rules import effects as fx
from bridge.rules import inputs
from bridge.rules.authority import Policy
from bridge.rules.content import Sound, state_event
from bridge.rules.cut import Cut
from bridge.rules.inputs import Asked, Input, Present
from bridge.rules.reduce import reduce, rewrite_cuts
from bridge.rules.state import StageState
from bridge.telemetry import log_context

log = logging.getLogger(__name__)

MAX_LEFT_OUT = 20  # people whom one page does not hear
SEAT_KEPT_S = 15.0  # a page whose WebSocket broke keeps its seat and its sound for so long
MAX_SEATS = 20  # of one person: pages, players and calls together
_LAST_WORDS_S = 2.0


class LiveStage:
    """``start`` once, ``close`` at the end (harmless twice). Tasks: the stage's own, the keeper's, a reader, two
    writers, the notices'; all are joined by ``close``. Others come in by ``happened``, ``say``, ``ask``, ``sit``,
    ``offer``, ``rise``."""

    def __init__(
        self,
        room: RoomId,
        bot: UserId,
        policy: Policy,
        world: World,
        gone: Callable[[RoomId], None],
        follow: Callable[[RoomId, RoomId], None] = lambda old, new: None,
    ) -> None:
        self.room = room
        self._state = StageState(room, bot, policy)
        self._world, self._follow = world, follow
        self._inbox = Inbox(f"room {room}", lambda: self._reader.read_all())
        self._asked: dict[str, asyncio.Future[Outcome]] = {}
        self._answers: list[fx.Answer] = []
        self._revoked: list[UserId] = []
        self._seats = Seats(world.media, lambda seat: self._window.changed(seat))
        self._window = Window(self._seats, world.clock, lambda: self._state, lambda view: self._notices.show_card(view))
        self._keeping = Keeping(room, world.store)
        self._keep_due = asyncio.Event()
        self._reader = Reader(
            room, world.matrix, lambda: self._state.heard, self._read_one, self._read_all, lambda: gone(room)
        )
        self._writer = Writer(room, world.matrix, self._happened_here, lambda cut: cut in self._state.cuts)
        self._notices = Notices(room, world, lambda: self._state, self._happened_here)
        self._tuned: tuple[StageId, Sound] | None = None  # what the relay was told of the stage's sound
        self._tasks: list[asyncio.Task[None]] = []
        self._loaded = asyncio.Event()
        self._closed = False

    # -- in ------------------------------------------------------------------------------------

    @property
    def state(self) -> StageState:
        return self._state

    @property
    def stage_id(self) -> StageId | None:
        return self._state.stage.stage_id if self._state.stage else None

    @property
    def seated(self) -> int:
        """Connected pages and calls, and those that may be back in a moment."""
        return len(self._seats)

    def start(self, kept: JsonObject | None, cuts: list[tuple[str, JsonObject]]) -> None:
        """Begin: what a crash left acts from the first moment, then the room is read, then gates open."""
        self._state, _ = reduce(self._state, saved.load(kept, cuts), self._world.clock.now_ms())
        runs: list[Coroutine[Any, Any, None]] = [
            self._run(), self._keep(), self._reader.run(), self._writer.run(), self._writer.run_queue(),
            *self._notices.runs(),
        ]  # fmt: skip
        self._tasks = [asyncio.create_task(run, name=f"stage {self.room}") for run in runs]
        self._reader.read_all()

    async def loaded(self) -> None:
        """Wait until the room was read once. Returns also where the stage is closed before."""
        await self._loaded.wait()

    def happened(self, what: Input, row: int | None = None) -> None:
        """Take an input. Never waits, never fails: when the inbox is full, state is read again as a whole instead; that
        settles a state event, and what a person said is lost and counted."""
        if not self._inbox.put(lambda: self._apply(what, row)) and row is not None:
            self.rows_done(row)

    def say(self, reply: Reply, row: int | None = None) -> None:
        """A word of the bot that the rules know nothing of."""
        self._inbox.put_always(lambda: self._reply(reply, row))

    def rows_done(self, *rows: int) -> None:
        """Inbox rows that need nothing of the rules."""
        self._keeping.applied(rows)
        self._keep_due.set()

    async def ask(self, ask: Asked) -> Outcome:
        """Ask on somebody's behalf and wait for the answer. Raises Unavailable where the stage closes meanwhile, and
        Full where too much waits."""
        future: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
        self._asked[ask.ref] = future
        try:
            await self._inbox.call(lambda: self._apply(ask))
            return await self._inbox.wait(future)
        finally:
            self._asked.pop(ask.ref, None)

    async def sit(
        self,
        session: SessionId,
        user: UserId | None,
        page: Page,
        stage: StageId,
        *,
        listen_only: bool = False,
        mic_gated: bool = False,
        ear: Callable[[bool], None] | None = None,
    ) -> None:
        """A page connects to ``stage``. Raises Refused where this person may not hear it, Unavailable where that is not
        known just now. An older page of the same session is told to go. ``listen_only``: a player, which is never
        heard. ``mic_gated``: a telephone, which sends whatever it hears; its microphone is on from the start only for
        who is on the stage then, and off again whenever the right to speak is lost. ``ear``: it makes no offer and
        hears beside the relay; it is told at once, and at each change, whether it may."""
        seat = Seat(session, user, stage, page, listen_only=listen_only, mic_gated=mic_gated, ear=ear)
        await self._inbox.call(lambda: self._sit(seat))

    async def call_out(self) -> Offered:
        """An offer for somebody whom the bot calls: answered by ``offer``, or given back by ``withdraw``. Raises as
        `Media.offer`, and Refused where no stage is live."""
        if self.stage_id is None or not self._state.live:
            raise Refused("no-stage")
        peer = new_peer_id()
        return Offered(peer, await self._world.media.offer(self.stage_id, peer))

    async def withdraw(self, offered: Offered) -> None:
        await self._world.media.leave(offered.peer)

    async def offer(self, session: SessionId, page: Page, sdp: str, offered: Offered | None = None) -> MediaAnswer:
        """The page's WebRTC offer. Raises as `Media.join`, and NotFound for a page that is not seated. It passes by the
        inbox: a thousand joins would hold up a cut. ``offered``: we called, and ``sdp`` is the answer."""
        seat = self._seats.find(session, page)
        if self._closed or not self._window.glance().gate(seat.user).hear:
            raise Unavailable("the stage does not take connections just now; try again")
        may_speak = seat.user is not None and (self._state.on_stage(seat.user) or self._state.has_authority(seat.user))
        return await self._seats.join(seat, sdp, lambda: self._want(seat), offered, may_speak=may_speak)

    def microphone(self, session: SessionId, page: Page, on: bool) -> None:
        self._inbox.put_always(lambda: self._microphone(session, page, on))

    def mic_is_on(self, session: SessionId) -> bool:
        seat = self._seats.get(session)
        return seat is not None and seat.mic_on

    async def leave_out(self, session: SessionId, page: Page, user: UserId, out: bool) -> None:
        """The page does not hear this person any more (``out``), or does again. Raises NotFound for a page that is not
        seated, BadInput for its own person, Full where it leaves out too many or the stage has no mix left for it."""
        seat = self._seats.find(session, page)
        if user == seat.user:
            raise BadInput("user", user, "one never hears oneself")
        users = seat.left_out | {user} if out else seat.left_out - {user}
        if len(users) > MAX_LEFT_OUT:
            raise Full(f"a page leaves out {MAX_LEFT_OUT} people at most", 0)
        await self._seats.leave_out(seat, users)

    def rise(self, session: SessionId, page: Page, *, keep: bool = True) -> None:
        """The page's socket closed. It may be back in a moment: with ``keep`` its seat and its sound stay for
        SEAT_KEPT_S."""
        self._inbox.put_always(lambda: self._step_out(session, page, keep))

    def has_peer(self, peer: PeerId) -> bool:
        return self._seats.has_peer(peer)

    def peer_gone(self, peer: PeerId) -> None:
        self._seats.peer_gone(peer)

    def pressed(self, peer: PeerId, key: str) -> None:
        """A key of a telephone (`Keypad`); a page has none."""
        seat = self._seats.of_peer(peer)
        if seat is not None and isinstance(seat.page, Keypad):
            seat.page.pressed(key)

    def levels(self, levels: Mapping[int, int]) -> None:
        """Who talks, to every page: not through the inbox, as nothing is decided by it."""
        for seat in self._seats:
            seat.page.levels(levels)

    async def close(self, reason: str = "restart") -> None:
        """End the sound and the tasks; pages are told ``reason``, whoever waits is told that we are closing."""
        if self._closed:
            return
        self._closed = True
        self._window.close()
        for task in self._tasks:
            task.cancel()
        try:
            await asyncio.gather(*self._tasks, return_exceptions=True)
            self._inbox.close()
            await self._seats.remove_all(self.stage_id, reason)
            async with asyncio.timeout(_LAST_WORDS_S):
                await self._keeping.flush(lambda: self._state)
        except TimeoutError:
            log.error("room %s: the store does not answer; it is asked again after a restart", self.room)
        finally:
            self._loaded.set()
            await self._seats.close()

    # -- the one task --------------------------------------------------------------------------

    def _happened_here(self, what: Input) -> None:
        """What comes of our own reads and writes is never refused: each write is answered."""
        self._inbox.put_always(lambda: self._apply(what))

    async def _run(self) -> None:
        with log_context(room=self.room):
            while True:
                job = await self._inbox.get()
                try:
                    await job()
                except Exception:
                    log.exception("room %s: an input was not carried out", self.room)
                if self._keeping.owes or self._answers or self._revoked:
                    self._keep_due.set()

    async def _keep(self) -> None:
        """Keeps what a batch of inputs changed, then answers those who asked: what was said to be done survives."""
        with log_context(room=self.room):
            while True:
                await self._keep_due.wait()
                self._keep_due.clear()
                answers, self._answers = self._answers, []
                revoked, self._revoked = self._revoked, []
                try:
                    await self._keeping.flush(lambda: self._state)
                finally:
                    for answer in answers:
                        self._give(answer)
                    self._void_pages(revoked)

    async def _apply(self, what: Input, row: int | None = None) -> None:
        before = self._state
        self._state, effects = reduce(before, what, self._world.clock.now_ms())
        if self._state.loaded and not before.loaded:
            effects = [*effects, *rewrite_cuts(self._state)]
            self._loaded.set()
        self._tune()
        wants = await self._shut_gates() if before is not self._state else []
        for effect in effects:
            if isinstance(effect, fx.KeepCut):
                await self._keep_cut(effect.cut)
        for effect in effects:
            self._carry_out(effect, before)
        if before is not self._state:
            self._seats.widen((seat, want) for seat, want in wants if seat in self._seats)
            self._window.changed()
        if isinstance(what, inputs.Tick):
            self._again()
        if row is not None:
            self._keeping.applied([row])

    def _tune(self) -> None:
        stage = self._state.stage
        tuned = (stage.stage_id, stage.sound) if stage is not None else None
        if tuned != self._tuned:
            if tuned is not None and not (self._tuned is None and tuned[1] == "voice"):
                self._seats.tune(*tuned)
            self._tuned = tuned

    async def _keep_cut(self, cut: Cut) -> None:
        """Durable before it is written. Where the store fails the gate stays shut, the write goes out all the same, the
        store is asked again at each tick, and whoever made the cut is told."""
        try:
            kept = await asyncio.wait_for(self._keeping.cut(cut), PATIENCE_S)
        except TimeoutError:
            log.error("room %s: a cut of %s could not be kept within %.0f s", self.room, cut.user, PATIENCE_S)
            kept = False
        if not kept:
            self._notices.tell(cut.by, "cut_not_kept", {})

    def _again(self) -> None:
        if self._keeping.owes:
            self._keep_due.set()
        if self._state.card is None and self._state.live:
            self._window.changed()

    # -- gates: desired, then diffed; revocations first ----------------------------------------

    def _want(self, seat: Seat) -> Gate:
        gate = self._window.glance().gate(seat.user)
        is_shut = seat.listen_only or (seat.mic_gated and not seat.mic_on)
        return gate_of(hear=gate.hear, speak=False) if is_shut else gate

    async def _shut_gates(self) -> list[tuple[Seat, Gate]]:
        """Take away; returns what may be given after that."""
        if not len(self._seats):
            return []
        if is_over(self._state) and self._state.loaded:
            await self._all_out("ended")
            return []
        elsewhere = [seat for seat in self._seats if seat.stage != self.stage_id]
        if elsewhere:
            await self._out(elsewhere, "ended")
        for seat in self._seats:
            if seat.mic_gated and seat.mic_on:  # a place that comes back comes back with the microphone off
                seat.mic_on = self._window.glance().gate(seat.user).speak
        wants = [(seat, self._want(seat)) for seat in self._seats]
        await self._seats.narrow(wants)
        # Sent away is who may surely not be here; where it is only feared, the gate alone is shut.
        if self._state.loaded:
            out = [seat for seat, want in wants if not want.hear and not may_sit(self._state, seat.user)]
            for seat in out:
                await self._out([seat], "left_room" if self._left_by_oneself(seat.user) else "removed")
        return wants

    async def _all_out(self, reason: str) -> None:
        stage = next((seat.stage for seat in self._seats), self.stage_id)
        self._state = dataclasses.replace(self._state, present={})
        await self._seats.remove_all(stage, reason)

    async def _out(self, seats: Iterable[Seat], reason: str) -> None:
        for seat in seats:
            self._present(seat, -1)
        await self._seats.remove(seats, reason)

    def _left_by_oneself(self, user: UserId | None) -> bool:
        if user is None or self._state.is_cut(user, "kick"):
            return False
        member = self._state.room.members.get(user)
        return member is not None and member.membership == "leave"

    # -- seats ---------------------------------------------------------------------------------

    async def _sit(self, fresh: Seat) -> None:
        user = fresh.user
        if is_over(self._state) or fresh.stage != self.stage_id:
            raise Refused("no-stage")
        if not may_sit(self._state, user):
            raise Refused("guests-closed" if user is None else "not-in-room")
        if not self._state.may_hear(user):
            raise Unavailable("the room is being read; connect again in a moment")
        seat = self._seats.get(fresh.session)
        if seat is None and user is not None and len(self._seats.of([user])) >= MAX_SEATS:
            raise Full("you are connected many times over; close the page elsewhere", 10_000)
        if seat is None:
            seat = fresh
            seat.mic_on = seat.mic_gated and self._state.may_speak(user)
            self._seats.add(seat)
            self._present(seat, 1)
            if seat.ear is not None:
                self._seats.begin(seat, self._want(seat))
        else:
            seat.page.bye("elsewhere")
            seat.page, seat.mic_on = fresh.page, False
            if seat.away is not None:
                seat.away.cancel()
        self._window.changed(seat)

    def _present(self, seat: Seat, change: int) -> None:
        if seat.user is not None:
            present = Present(seat.user, 1 if change > 0 else -1)
            self._state, _ = reduce(self._state, present, self._world.clock.now_ms())

    async def _microphone(self, session: SessionId, page: Page, on: bool) -> None:
        seat = self._seats.get(session)
        if seat is None or seat.page is not page:
            return
        on = on and (not seat.mic_gated or self._state.may_speak(seat.user))
        if seat.mic_on == on:
            return
        seat.mic_on = on
        if seat.mic_gated:
            want = self._want(seat)
            await self._seats.narrow([(seat, want)])
            self._seats.widen([(seat, want)])
        self._window.changed(seat)

    async def _step_out(self, session: SessionId, page: Page, keep: bool) -> None:
        seat = self._seats.get(session)
        if seat is None or seat.page is not page:
            return
        if not keep:
            await self._out([seat], "elsewhere")
            self._window.changed()
            return
        seat.page, seat.mic_on = NO_PAGE, False
        seat.away = asyncio.get_running_loop().call_later(
            SEAT_KEPT_S, self._inbox.put_always, lambda: self._step_out(session, NO_PAGE, False)
        )
        self._window.changed()

    # -- effects -------------------------------------------------------------------------------

    def _carry_out(self, effect: fx.Effect, before: StageState) -> None:
        match effect:
            case fx.ReadState(kind, key):
                self._reader.read(kind, key)
            case fx.ReadRoom():
                self._reader.read_all()
            case fx.WriteState() | fx.KickMember():
                self._writer.write(effect)
            case fx.KeepCut() | fx.PostCard():
                pass  # a cut is kept before all else; the card is posted by `_show`
            case fx.DropCut(cut_id):
                self._keeping.drop(cut_id)
            case fx.Keep():
                self._keeping.changed = True
            case fx.Record():
                line = {name: value for name, value in dataclasses.asdict(effect).items() if value}
                self._keeping.record(effect.stage_id, self._world.clock.now_ms(), line)
                log.info("%s by %s%s", effect.act, effect.by, f" on {effect.target}" if effect.target else "")
            case fx.Answer():
                self._answers.append(effect)
            case fx.Tell():
                self._tell(effect)
            case fx.Announce(text, args):
                self._notices.announce(text, args)
            case fx.SendLink(user, ref, player):
                self._send_link(user, ref, player)
            case fx.AwaitCall(user, ref):
                self._await_call(user, ref)
            case fx.Ring(user, by, ref):
                self._ring(user, by, ref)
            case fx.RevokeLinks(user):
                self._keeping.revoke(user, self._world.clock.now_ms())
                self._revoked.append(user)
            case fx.CloseStage():
                stage = before.stage
                self._notices.end_card(before.card if before.ours else None, stage.topic if stage else "")
            case fx.BadEvent(event_id, kind, reason):
                log.warning("room %s event %s (%s) is passed over: %s", self.room, event_id or "-", kind, reason)
            case fx.Follow(room):
                self._follow(self.room, RoomId(room))

    async def _reply(self, reply: Reply, row: int | None) -> None:
        self._notices.reply(reply)
        if row is not None:
            self._keeping.applied([row])

    def _give(self, answer: fx.Answer) -> None:
        outcome = Outcome(answer.ok, answer.text, answer.args)
        future = self._asked.get(answer.ref)
        if future is not None:
            if not future.done():
                future.set_result(outcome)
        elif answer.ref.startswith("$"):  # a command: the answer goes into the room, as a reply
            self._notices.answer(EventId(answer.ref), outcome)

    def _tell(self, tell: fx.Tell) -> None:
        seats = [seat for seat in self._seats.of([tell.user]) if seat.page is not NO_PAGE]
        by_name = self._state.name(tell.by) if tell.by != self._state.bot else ""
        for seat in seats:
            seat.page.notice(tell.key, by_name)
        if not seats and tell.by_chat:
            self._notices.tell(tell.user, tell.key, {"by": by_name})

    def _send_link(self, user: UserId, ref: str, player: bool) -> None:
        answer = self._later(ref)
        if self._state.stage is None:
            answer(Outcome(False, "no-stage"))
        else:
            self._notices.send_link(user, self._state.stage, answer, player=player)

    def _await_call(self, user: UserId, ref: str) -> None:
        if self._world.phone is not None:
            self._world.phone.expect(user, self.room)
        self._notices.await_call(user, self._later(ref))

    def _ring(self, user: UserId, by: UserId, ref: str) -> None:
        """Who is connected already sees the invitation there."""

        def told(sentence: str) -> None:
            if ref.startswith("$"):
                self.say(Reply(EventId(ref), by, sentence, {"name": self._state.name(user)}, part=f"-{sentence}"))

        if self._seats.of([user]):
            told("ring-there")
        elif self._world.phone is None:
            told("ring-failed")
        else:
            self._world.phone.ring(user, self.room, self._state.name(by), told)

    def _later(self, ref: str) -> Callable[[Outcome], None]:
        """Called when a direct chat was written to, or was not."""

        def answer(outcome: Outcome) -> None:
            self._answers.append(fx.Answer(ref, outcome.ok, outcome.text, outcome.args))
            self._keep_due.set()

        return answer

    def _void_pages(self, users: list[UserId]) -> None:
        """Links of before are void by now, and so are the pages that they opened. A page that sits down at this moment
        reads from the store that its link is void."""
        for user in users:
            self._inbox.put_always(lambda user=user: self._out(self._seats.of([user]), "expired"))  # type: ignore[misc]

    # -- what the reader brings ----------------------------------------------------------------

    def _read_one(self, kind: str, key: str, raw: JsonObject | None, heard: int) -> None:
        try:
            event = state_event(raw) if raw is not None else None
        except BadInput as bad:
            log.warning("room %s: state %s %r cannot be read: %s", self.room, kind, key, bad)
            event = None
        self._happened_here(inputs.StateRead(kind, key, event, heard))

    def _read_all(self, raws: list[JsonObject], heard: int) -> None:
        events = []
        for raw in raws:
            try:
                events.append(state_event(raw))
            except BadInput as bad:
                log.warning("room %s: a state event cannot be read: %s", self.room, bad)
        self._happened_here(inputs.RoomRead(tuple(events), heard))


__all__ = ["LiveStage", "Outcome", "Seat", "World"]
