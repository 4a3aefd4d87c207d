"""One direct chat as a telephone line: its one call, the seat that call has in a stage, and what is said about it.

Everything that happens to a line is done by its one task, one after the other: events of the chat, keys, and what the
stage tells. What the caller hears of their place is written into the chat, as a telephone has no screen of ours.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Any

from bridge.errors import BadInput, EyvanError, Full, Refused
from bridge.ids import RoomId, UserId, new_session_id, new_txn_id
from bridge.live.seats import Offered
from bridge.live.stage import LiveStage
from bridge.matrix import call_events as ev
from bridge.matrix import call_state as st
from bridge.matrix.call_keys import count, move_hand
from bridge.matrix.call_seat import BYES, RANG, TOLD, Leg, Ringing, Several
from bridge.matrix.call_state import Call, Send
from bridge.rules.inputs import Asked
from bridge.telemetry import log_context
from bridge.text import keys

if TYPE_CHECKING:
    from bridge.matrix.calls import Calls

log = logging.getLogger(__name__)

MAX_WAITING = 64  # jobs of one line; further events and keys are dropped and counted
IDLE_S = 60.0  # a line with no call is let go after so long
_KEY_EVERY_MS = 300
_OFFER_TRIES = 10  # while an earlier offer of the same call is being answered

Job = Callable[[], Awaitable[None]]


class Line:
    """Owns its task, which ends when nothing happened for IDLE_S and no call is up, and the call's seat."""

    def __init__(self, calls: Calls, room: RoomId, user: UserId) -> None:
        self.room, self.user = room, user
        self.is_over = False
        self._calls = calls
        self._jobs: asyncio.Queue[Job] = asyncio.Queue()
        self._call: Call | None = None
        self._leg: Leg | None = None
        self._ringing: Ringing | None = None
        self._choices: tuple[LiveStage, ...] = ()
        self._key_ms = 0
        self.task = asyncio.create_task(self._run(), name=f"call in {room}")

    @property
    def is_busy(self) -> bool:
        return self._call is not None

    # -- in ------------------------------------------------------------------------------------

    def happened(self, job: Job) -> None:
        if self._jobs.qsize() >= MAX_WAITING:
            self._calls.dropped()
            return
        self._jobs.put_nowait(job)

    def must(self, job: Job) -> None:
        """What ends a seat: once for each."""
        self._jobs.put_nowait(job)

    def bye_all(self) -> None:
        """The bridge stops."""
        self.must(self._stop)

    async def _run(self) -> None:
        with log_context(room=self.room, user=self.user):
            try:
                while not self.is_over:
                    try:
                        job = await asyncio.wait_for(self._jobs.get(), self._patience())
                    except TimeoutError:
                        await self._time_passed()
                        continue
                    try:
                        await job()
                    except EyvanError as error:
                        log.warning("a call's event was not carried out: %s", error)
                        await self._drop()
                    except Exception:
                        log.exception("a call's event was not carried out")
                        await self._drop()
                    self._calls.count()
            finally:
                self.is_over = True
                self._rise()
                self._tell_ringer("ring-failed")
                self._calls.forget(self)
                self._calls.count()

    def _patience(self) -> float:
        if self._call is None or self._call.phase != "ringing":
            return IDLE_S
        return max(0.0, (self._call.until_ms - self._calls.clock.now_ms()) / 1000)

    async def _time_passed(self) -> None:
        if self._call is None:
            self.is_over = self._jobs.empty()
            return
        self._call, do = st.expire(self._call, self._calls.clock.now_ms())
        await self._do(do)

    async def _stop(self) -> None:
        if self._leg is not None:
            await self.put_out(self._leg, "restart")
        self.is_over = True
        ringing, self._ringing = self._ringing, None
        if ringing is not None and self._call is not None:
            ringing.told("ring-failed")
            await self._send(st.hung_up(self._call, "user_hangup"))

    # -- events of the chat --------------------------------------------------------------------

    async def event(self, kind: str, content: Mapping[str, Any], age_ms: int) -> None:
        if not await self._calls.is_line(self.room, self.user):
            return  # a call between people of that room
        try:
            head = ev.parse_head(content)
        except BadInput as bad:
            log.warning("%s names no call and cannot be answered: %s", kind, bad)
            return
        try:
            event = ev.parse(kind, head, content)
        except BadInput as bad:
            log.warning("%s of call %s cannot be read: %s", kind, head.call_id, bad)
            await self._unreadable(kind, head)
            return
        if event is None or (isinstance(event, ev.Invite) and event.invitee not in (None, self._calls.bot)):
            return
        self._call, do = st.take(self._call, event, "eyvan-" + new_session_id(), self._calls.clock.now_ms(), age_ms)
        await self._do(do)

    async def _unreadable(self, kind: str, head: ev.Head) -> None:
        """Who waits for an answer gets one; the call that is up goes on."""
        ours = self._call.ours if self._call is not None else "eyvan"
        is_current = self._call is not None and self._call.head.call_id == head.call_id
        if kind == ev.INVITE and not is_current:
            await self._send(st.refused(head, ours, "unknown_error"))
            await self.tell("call-unreadable")
        elif kind in (ev.ANSWER, ev.NEGOTIATE):
            await self._send(Send(*ev.hangup(head, ours, "unknown_error")))
            if is_current:
                await self._drop()

    async def _do(self, steps: Any) -> None:
        for step in steps:
            match step:
                case Send():
                    await self._send(step)
                case st.Connect(sdp, muted):
                    await self._connect(sdp, muted)
                case st.Renew(sdp):
                    await self._renew(sdp)
                case st.Microphone(on):
                    await self._microphone(on)
                case st.Leave():
                    self._rise()
                case st.Accept(sdp):
                    await self._accepted(sdp)
                case st.Rang(outcome):
                    await self._nobody_came(outcome)

    async def _send(self, what: Send) -> None:
        await self._calls.matrix.send_event(self.room, what.kind, what.content)

    # -- the seat ------------------------------------------------------------------------------

    async def _connect(self, sdp: str, muted: bool) -> None:
        """Seat the caller, answer their offer; where that is not to be, reject it and say why."""
        assert self._call is not None
        call = self._call
        ringing, self._ringing = self._ringing, None
        if ringing is not None:  # they call at the same time, and theirs stands: they come by themselves
            await self._withdraw(ringing)
        found = self._calls.stage_for(self.user, self.room)
        if isinstance(found, Several):
            self._call = None
            await self._send(st.refused(call.head, call.ours, "user_busy" if found.stages else "unknown_error"))
            await self._ask_which(found.stages)
            return
        try:
            answer = await self._seat(found, sdp)
        except EyvanError as error:
            log.info("a call is not taken: %s", error)
            self._rise()
            self._call = None
            reason = {BadInput: "user_media_failed", Full: "user_busy"}.get(type(error), "unknown_error")
            await self._send(st.refused(call.head, call.ours, reason))
            await self._explain(error)
            return
        await self._send(Send(*ev.answer(call.head, call.ours, answer)))
        await self._welcome(found, muted)

    async def _seat(self, stage: LiveStage, sdp: str, offered: Offered | None = None) -> str:
        if stage.stage_id is None:
            raise Refused("no-stage")
        leg = self._leg = Leg(self, stage)
        await stage.sit(leg.session, self.user, leg, stage.stage_id, mic_gated=True)
        return await self._offer(leg, sdp, offered)

    async def _offer(self, leg: Leg, sdp: str, offered: Offered | None = None) -> str:
        for left in reversed(range(_OFFER_TRIES)):
            try:
                return (await leg.stage.offer(leg.session, leg, sdp, offered)).sdp
            except Full as error:
                if not left or error.retry_after_ms > 1000:
                    raise
                await asyncio.sleep(error.retry_after_ms / 1000)
        raise AssertionError("unreachable")

    async def _renew(self, sdp: str) -> None:
        """Hold, resume, or new candidates after a change of network: answered, never offered."""
        assert self._call is not None
        if self._leg is not None:
            answer = await self._offer(self._leg, sdp)
            await self._send(Send(*ev.negotiate(self._call.head, self._call.ours, answer)))

    def _rise(self) -> None:
        leg, self._leg = self._leg, None
        if leg is not None:
            leg.stage.rise(leg.session, leg, keep=False)

    async def _drop(self) -> None:
        """Something failed: the call ends, as far as the homeserver lets us say so."""
        call, self._call = self._call, None
        self._rise()
        self._tell_ringer("ring-failed")
        if call is not None:
            try:
                await self._send(st.hung_up(call, "unknown_error"))
            except EyvanError as error:
                log.warning("call %s could not be hung up: %s", call.head.call_id, error)

    # -- calls that we place -------------------------------------------------------------------

    async def ring(self, stage: LiveStage, by_name: str, told: Callable[[str], None]) -> None:
        if self._call is not None:
            told("ring-there")
            return
        try:
            offered = await stage.call_out()
        except EyvanError as error:
            log.warning("nobody can be called: %s", error)
            told("ring-failed")
            return
        self._ringing = Ringing(stage, offered, told)
        self._call = st.ring(new_session_id(), "eyvan-" + new_session_id(), self._calls.clock.now_ms())
        await self.tell("call-ringing", stage=stage, by=by_name)
        await self._send(Send(*ev.invite(self._call.head, self._call.ours, offered.sdp, self.user)))

    async def _accepted(self, sdp: str) -> None:
        """Whoever answers comes up to the stage, if that still stands; the microphone is theirs to open."""
        ringing, self._ringing = self._ringing, None
        if ringing is None:
            return
        try:
            await self._seat(ringing.stage, sdp, ringing.offered)
        except EyvanError as error:
            log.warning("an answered call does not come about: %s", error)
            ringing.told("ring-failed")
            await self._withdraw(ringing)
            await self._drop()
            await self._explain(error)
            return
        outcome = await ringing.stage.ask(Asked(self.user, "accept", "call", f"call {new_txn_id()}"))
        await self.tell(outcome.text, **outcome.args)

    async def _nobody_came(self, outcome: st.Outcome) -> None:
        """Who declined the call has declined the invitation; else it stands."""
        stage = self._ringing.stage if self._ringing is not None else None
        self._tell_ringer(RANG[outcome])
        if outcome == "declined" and stage is not None:
            await stage.ask(Asked(self.user, "decline", "call", f"call {new_txn_id()}"))

    def _tell_ringer(self, sentence: str) -> None:
        ringing, self._ringing = self._ringing, None
        if ringing is not None:
            ringing.told(sentence)
            self.must(lambda: self._withdraw(ringing))

    @staticmethod
    async def _withdraw(ringing: Ringing) -> None:
        await ringing.stage.withdraw(ringing.offered)

    # -- what the stage tells ------------------------------------------------------------------

    async def told(self, leg: Leg, key: str, by_name: str) -> None:
        if leg is not self._leg:
            return
        sentence = TOLD.get(key) or "tell-" + key.replace("_", "-")
        if sentence in keys("en"):
            who: dict[str, Any] = {"by": by_name} if by_name else {}
            await self.tell(sentence, **who)

    async def lost(self, leg: Leg) -> None:
        """The relay lost the connection: a telephone cannot offer again by itself."""
        if leg is self._leg and self._call is not None:
            call, self._call = self._call, None
            self._rise()
            await self._send(st.hung_up(call, "ice_failed"))
            await self.tell("call-over-lost")

    async def put_out(self, leg: Leg, reason: str) -> None:
        if leg is not self._leg:
            return
        self._leg = None
        if reason == "restart":
            leg.stage.rise(leg.session, leg, keep=False)
        call, self._call = self._call, None
        if call is not None:
            await self._send(st.hung_up(call, "user_hangup"))
            await self.tell(BYES.get(reason, "call-over-ended"), stage=leg.stage)

    # -- keys ----------------------------------------------------------------------------------

    async def typed(self, digit: str) -> None:
        """A digit as a message: a choice that was asked for, else the key of the call that is up."""
        if self._leg is not None:
            await self._key(self._leg, digit)
        elif 0 < int(digit) <= len(self._choices):
            chosen = self._choices[int(digit) - 1]
            self._choices = ()
            self._calls.expect(self.user, chosen.room)
            await self.tell("call-chosen", stage=chosen)

    async def pressed(self, leg: Leg, key: str) -> None:
        now = self._calls.clock.now_ms()
        if leg is self._leg and now - self._key_ms >= _KEY_EVERY_MS:
            self._key_ms = now
            await self._key(leg, key)

    async def _key(self, leg: Leg, key: str) -> None:
        match key:
            case "0":
                await self.tell("call-help")
            case "1":
                await move_hand(leg, self.user, self.tell)
            case "2":
                await self._microphone(not leg.stage.mic_is_on(leg.session), by_key=True)
            case "3":
                await count(leg, self.tell)

    async def _microphone(self, on: bool, *, by_key: bool = False) -> None:
        """By key 2 or their client's own button. In the audience there is nothing to switch."""
        leg = self._leg
        if leg is None:
            return
        state, is_on = leg.stage.state, leg.stage.mic_is_on(leg.session)
        if not state.on_stage(self.user):
            await self._tell_if(by_key, "call-mic-audience")
        elif state.muted(self.user):
            await self._tell_if(by_key or on, "call-muted")
        elif is_on != on:
            leg.stage.microphone(leg.session, leg, on)
            await self.tell("call-mic-on" if on else "call-mic-off")

    # -- words ---------------------------------------------------------------------------------

    async def tell(self, key: str, *, stage: LiveStage | None = None, **args: Any) -> None:
        stage = stage or (self._leg.stage if self._leg is not None else None)
        await self._calls.tell(self.room, self._calls.say(key, stage, **args), new_txn_id())

    async def _tell_if(self, wanted: bool, key: str) -> None:
        if wanted:
            await self.tell(key)

    async def _welcome(self, stage: LiveStage, muted: bool) -> None:
        leg = self._leg
        if leg is None:
            return
        is_on = stage.mic_is_on(leg.session)
        if is_on and muted:  # their own button is off: it shows so, and their next press opens it
            stage.microphone(leg.session, leg, False)
        on_stage = stage.state.on_stage(self.user)
        await self.tell("call-welcome-stage" if on_stage and is_on else "call-welcome")

    async def _ask_which(self, stages: tuple[LiveStage, ...]) -> None:
        self._choices = stages
        if not stages:
            await self.tell("call-no-stage")
            return
        lines = [f"{number} – {self._calls.topic(stage)}" for number, stage in enumerate(stages, 1)]
        await self.tell("call-which", list="\n".join(lines))

    async def _explain(self, error: EyvanError) -> None:
        if isinstance(error, Refused):
            await self.tell(error.reason, **dict[str, Any](error.args_for_text))
        elif isinstance(error, BadInput):
            await self.tell("call-unreadable")
        else:
            await self.tell("call-full" if isinstance(error, Full) else "call-unavailable")
