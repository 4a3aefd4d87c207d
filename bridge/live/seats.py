"""Who sits in a stage with a page or call, and what the relay lets each of them do.

What a seat *may* do is wanted as a whole and compared with what the relay confirmed, so that a lost answer heals like
an ordinary change. For one seat there is one request to the relay at a time; seats do not wait for each other, and no
offer waits behind a thousand others.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Coroutine, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from bridge.errors import EyvanError, Full, NotFound, Unavailable
from bridge.ids import PeerId, SessionId, StageId, UserId, new_peer_id
from bridge.live.ports import Answer, Media, Page
from bridge.live.view import SHUT, Gate, Me, View, gate_of
from bridge.rules.content import Sound

log = logging.getLogger(__name__)

PATIENCE_S = 2.0  # a cut is made durable after so long even if the relay has not confirmed it yet
_AGAIN_S = 0.5


@dataclass(frozen=True, slots=True)
class Offered:
    """An offer of the relay for somebody who is called, and the seat that it keeps there."""

    peer: PeerId
    sdp: str


class NoPage:
    """In a seat whose WebSocket broke: the gate still holds for it, and nothing is shown."""

    def show(self, view: View, me: Me) -> None: ...
    def levels(self, levels: Mapping[int, int]) -> None: ...
    def notice(self, key: str, by_name: str) -> None: ...
    def sound_lost(self) -> None: ...
    def bye(self, reason: str) -> None: ...


NO_PAGE = NoPage()


@dataclass(slots=True, eq=False)
class Seat:
    """One connected page or call. Owned by `Seats`."""

    session: SessionId
    user: UserId | None
    stage: StageId
    page: Page
    peer: PeerId | None = None
    csrc: int | None = None
    mic_on: bool = False
    want: Gate = SHUT  # what the state of the room says
    gate: Gate = SHUT  # as the relay last confirmed it
    unsure: bool = False  # a request was not answered: the relay may have done it, or do it yet
    joining: PeerId | None = None  # an offer is with the relay
    work: asyncio.Task[None] | None = None  # the request to the relay that is under way
    away: asyncio.TimerHandle | None = None
    listen_only: bool = False  # a player: whatever its person may do, it is never heard
    mic_gated: bool = False  # a telephone, which sends all the time: the gate is its microphone's switch
    ear: Callable[[bool], None] | None = None  # it hears beside the relay, and is told whether it may; returns at once
    left_out: frozenset[UserId] = frozenset()  # whom it does not hear, by its own wish
    me: Me | None = None  # as last shown

    @property
    def awaits_the_relay(self) -> bool:
        """Its person is to be heard by it, and the relay has not said yet that they are."""
        return self.peer is not None and self.want.speak and not self.gate.speak


class Seats:
    """Owned by a LiveStage, on its loop. ``changed`` is told when the relay confirmed or lost something. ``close``
    joins what is under way and is harmless twice. Bound: one seat a page session, at most one relay request each."""

    def __init__(self, media: Media, changed: Callable[[Seat], None]) -> None:
        self._media, self._changed = media, changed
        self._seats: dict[SessionId, Seat] = {}
        self._by_user: dict[UserId | None, set[Seat]] = {}
        self._by_peer: dict[PeerId, Seat] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    def __iter__(self) -> Iterator[Seat]:
        return iter(list(self._seats.values()))

    def __len__(self) -> int:
        return len(self._seats)

    def __contains__(self, seat: Seat) -> bool:
        return self._seats.get(seat.session) is seat

    def get(self, session: SessionId) -> Seat | None:
        return self._seats.get(session)

    def find(self, session: SessionId, page: Page) -> Seat:
        """Raises NotFound where the page has no seat (any more)."""
        seat = self._seats.get(session)
        if seat is None or seat.page is not page:
            raise NotFound("this page has no seat; connect again")
        return seat

    def of(self, users: Iterable[UserId]) -> list[Seat]:
        return [seat for user in users for seat in self._by_user.get(user, ())]

    def users(self) -> Iterable[UserId | None]:
        return self._by_user.keys()

    def has_peer(self, peer: PeerId) -> bool:
        return peer in self._by_peer

    def of_peer(self, peer: PeerId) -> Seat | None:
        return self._by_peer.get(peer)

    def add(self, seat: Seat) -> None:
        self._seats[seat.session] = seat
        self._by_user.setdefault(seat.user, set()).add(seat)

    # -- gates ---------------------------------------------------------------------------------

    async def narrow(self, wants: Iterable[tuple[Seat, Gate]]) -> None:
        """Take away what is not wanted any more. Returns when the relay has confirmed it, or after PATIENCE_S."""
        under_way = []
        for seat, want in wants:
            if want is seat.want:
                continue
            narrower = gate_of(hear=seat.want.hear and want.hear, speak=seat.want.speak and want.speak)
            if narrower != seat.want:
                seat.want = narrower
                under_way.append(self._align(seat))
        await self._patiently(under_way)

    def widen(self, wants: Iterable[tuple[Seat, Gate]]) -> None:
        """Give what is wanted. ``changed`` is told when the relay has confirmed it."""
        for seat, want in wants:
            if seat.want is not want and seat.want != want:
                seat.want = want
                self._align(seat)

    async def _patiently(self, tasks: Iterable[asyncio.Task[None] | None]) -> None:
        waiting = {task for task in tasks if task is not None}
        if waiting:
            _, late = await asyncio.wait(waiting, timeout=PATIENCE_S)
            if late:
                log.error("%d gates are not confirmed by the relay within %.0f s", len(late), PATIENCE_S)

    def begin(self, seat: Seat, want: Gate) -> None:
        """For a seat with an ear of its own: it hears from now on, if it may."""
        seat.want = want
        self._align(seat)

    def _align(self, seat: Seat) -> asyncio.Task[None] | None:
        if seat.ear is not None:
            seat.gate = gate_of(hear=seat.want.hear, speak=False)
            seat.ear(seat.want.hear)
            return None
        if seat.peer is None and seat.joining is None:
            return None
        if seat.work is None:
            seat.work = self._own(self._until_confirmed(seat))
        return seat.work

    async def _until_confirmed(self, seat: Seat) -> None:
        """What was wanted when it began may be outdated when the relay answers: then once more."""
        try:
            while seat.peer is not None and seat.joining is None and (seat.unsure or seat.gate != seat.want):
                peer, want = seat.peer, seat.want
                try:
                    await self._media.gate(peer, hear=want.hear, speak=want.speak)
                except NotFound:
                    if seat.peer == peer:
                        self._lose(seat)
                except EyvanError as error:  # a dead worker takes its peers along: then `peer_gone` comes
                    log.warning("gate of %s is not confirmed: %s", seat.user or "a guest", error)
                    seat.unsure = True
                    await asyncio.sleep(_AGAIN_S)
                else:
                    if seat.peer == peer:
                        seat.gate, seat.unsure = want, False
                        self._changed(seat)
        finally:
            seat.work = None

    def peer_gone(self, peer: PeerId) -> None:
        seat = self._by_peer.pop(peer, None)
        if seat is None:
            return
        if seat.joining == peer:
            seat.joining = None
        if seat.peer == peer:
            self._lose(seat)

    def _lose(self, seat: Seat) -> None:
        if seat.peer is not None:
            self._by_peer.pop(seat.peer, None)
        seat.peer, seat.csrc, seat.gate, seat.unsure = None, None, SHUT, False
        seat.page.sound_lost()
        self._changed(seat)

    # -- sound ---------------------------------------------------------------------------------

    async def leave_out(self, seat: Seat, users: frozenset[UserId]) -> None:
        """Kept over new connections of the seat. Raises as `Media.leave_out`; then nothing has changed."""
        before, seat.left_out = seat.left_out, users  # at once: another request of the page builds on it
        try:
            if seat.peer is not None:
                await self._media.leave_out(seat.peer, users)
        except EyvanError:
            seat.left_out = seat.left_out - (users - before) | (before - users)
            raise
        finally:
            self._changed(seat)

    def tune(self, stage: StageId, sound: Sound) -> None:
        """The relay does it soon; it does not forget."""
        self._own(self._tune(stage, sound))

    async def _tune(self, stage: StageId, sound: Sound) -> None:
        try:
            await self._media.tune(stage, sound)
        except EyvanError as error:
            log.warning("the sound of stage %s is changed once the relay is back: %s", stage, error)

    # -- in and out ----------------------------------------------------------------------------

    async def join(
        self, seat: Seat, sdp: str, want: Callable[[], Gate], offered: Offered | None = None, *, may_speak: bool = False
    ) -> Answer:
        """Answer the page's offer. ``want`` is asked when it is sent and again when the relay has answered.
        ``offered``: it was ours, and ``sdp`` answers it.
        Raises as `Media.join`, and Full where an offer of this seat is under way."""
        if seat.joining is not None:
            raise Full("an offer of this page is under way", 500)
        peer = seat.joining = seat.peer or (offered.peer if offered is not None else new_peer_id())
        self._by_peer[peer] = seat
        try:
            if seat.work is not None:
                await asyncio.wait({seat.work})  # it ends after its present request, as ``joining`` is set
            seat.want = first = want()
            answer = await self._media.join(
                seat.stage,
                peer,
                seat.user or f"guest {seat.session}",
                sdp,
                hear=first.hear,
                speak=first.speak,
                answer_to=offered.sdp if offered is not None else "",
                may_speak=may_speak,
            )
            if seat.left_out:
                await self._leave_out_again(seat, peer)
            if seat.joining != peer:
                raise Unavailable("the relay lost this connection; offer again")
            seat.peer, seat.csrc, seat.gate, seat.unsure = peer, answer.csrc, first, False
        except BaseException:
            seat.unsure = True
            if seat.peer != peer:
                self._by_peer.pop(peer, None)
                self._own(self._let_go(peer))
            raise
        finally:
            seat.joining = None
            if seat in self:
                seat.want = want()
                self._align(seat)
        if seat not in self:
            self._by_peer.pop(peer, None)
            self._own(self._let_go(peer))
            raise NotFound("this page has no seat any more; connect again")
        self._changed(seat)
        return answer

    async def _leave_out_again(self, seat: Seat, peer: PeerId) -> None:
        """A fresh connection, on which nothing is heard yet. The page shows where there is no mix for it any more."""
        try:
            await self._media.leave_out(peer, seat.left_out)
        except Full:
            seat.left_out = frozenset()

    async def remove(self, seats: Iterable[Seat], reason: str) -> None:
        """They leave the relay; their pages are told ``reason``. Returns as `narrow` does."""
        leaving: list[asyncio.Task[None] | None] = []
        for seat in seats:
            if self._seats.pop(seat.session, None) is None:
                continue
            peer = self._forget(seat)
            if peer is not None:
                leaving.append(self._own(self._let_go(peer)))
            seat.page.bye(reason)
        await self._patiently(leaving)

    async def remove_all(self, stage: StageId | None, reason: str) -> None:
        """All seats; the relay is told once."""
        seats, self._seats = list(self._seats.values()), {}
        for seat in seats:
            self._forget(seat)
            seat.page.bye(reason)
        if stage is not None:
            await self._patiently([self._own(self._close_stage(stage))])

    def _forget(self, seat: Seat) -> PeerId | None:
        same = self._by_user.get(seat.user, set())
        same.discard(seat)
        if not same:
            self._by_user.pop(seat.user, None)
        peer, seat.peer = seat.peer, None
        if peer is not None:
            self._by_peer.pop(peer, None)
        if seat.away is not None:
            seat.away.cancel()
        return peer

    async def _let_go(self, peer: PeerId) -> None:
        with contextlib.suppress(EyvanError):
            await self._media.leave(peer)

    async def _close_stage(self, stage: StageId) -> None:
        with contextlib.suppress(EyvanError):
            await self._media.close_stage(stage)

    def _own(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._done)
        return task

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            log.error("a request to the relay failed", exc_info=task.exception())

    async def close(self) -> None:
        """Join what is under way. Call after `remove_all`."""
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
