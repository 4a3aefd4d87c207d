"""What pages see of a stage, made so that what did not change stays the same object.

A page compares by identity and the web layer writes each object down once, whoever many look. People about whom the
state says nothing special are alike: what holds for one of a server holds for all, so a thousand listeners cost a
thousand look-ups and not a thousand judgements.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any, TypeVar

from bridge.errors import BadInput
from bridge.ids import UserId, server_of, user_of_role_key
from bridge.live.ports import Clock
from bridge.live.seats import Seat, Seats
from bridge.live.view import Gate, Me, View, Voice, build, gate_for, me, without_names
from bridge.rules.content import MEMBER, ROLE
from bridge.rules.state import StageState

SHOW_EVERY_S = 0.1  # pages whose own place did not change are shown news at most this often,
SHOW_PER_SEAT_S = 0.00025  # and less often where many look: half a second more for 2,000
MANY = 200  # seats

_Kind = tuple[str, bool, bool]
_T = TypeVar("_T")


class Glance:
    """One state, asked about many people. Thrown away with it."""

    def __init__(self, state: StageState) -> None:
        self.state = state
        self._special = _special(state)
        self._gates: dict[_Kind, Gate] = {}

    def kind(self, user: UserId) -> _Kind | None:
        """People of one kind may do the same; None: this one is judged alone."""
        if user in self._special:
            return None
        member, feared = self.state.room.members.get(user), self.state.feared.members.get(user)
        return (
            server_of(user),
            member is not None and member.membership == "join",
            feared is not None and feared.membership == "join",
        )

    def gate(self, user: UserId | None) -> Gate:
        """As `bridge.live.view.gate_for`."""
        kind = self.kind(user) if user is not None else ("", False, False)
        if kind is None:
            return gate_for(self.state, user)
        found = self._gates.get(kind)
        if found is None:
            found = self._gates[kind] = gate_for(self.state, user)
        return found


def _special(state: StageState) -> set[str]:
    """Everybody whom the state names: a superset is safe, one left out is not."""
    named: set[Any] = {hand.user for hand in state.hands} | set(state.invitations) | set(state.policy.permissions)
    for cut in state.cuts.values():
        named |= {cut.user, cut.by}
    for kind, key in state.hints:
        if kind == MEMBER:
            named.add(key)
        elif kind == ROLE:
            try:
                named.add(user_of_role_key(key))
            except BadInput:
                continue
    for view in (state.room, state.feared, *state.doubts):
        named |= set(view.roles) | set(view.power.users) | view.power.creators
        named.add(view.stage.host if view.stage else None)
    return named


class Showing:
    """Remembers what was shown. Owned by a LiveStage."""

    def __init__(self) -> None:
        self._last: tuple[View, View] | None = None
        self._plain: dict[tuple[_Kind, Gate], Me] = {}

    def views(self, state: StageState, seats: Iterable[Seat], now: int) -> tuple[View, View]:
        """(for members, for guests)"""
        fresh = build(state, [Voice(s.user, s.csrc, s.mic_on, s.gate, s.awaits_the_relay) for s in seats], now)
        if self._last is None:
            self._last = (fresh, without_names(fresh))
            return self._last
        old, old_guests = self._last
        same_stage = replace(fresh.stage, server_ts=old.stage.server_ts) == old.stage
        view = View(
            stage=old.stage if same_stage else fresh.stage,
            speakers=_kept(old.speakers, fresh.speakers),
            audience=_kept(old.audience, fresh.audience),
            queue=_kept(old.queue, fresh.queue),
            now=now,
        )
        guests = without_names(view)
        guests = replace(
            guests,
            audience=_kept(old_guests.audience, guests.audience),
            queue=_kept(old_guests.queue, guests.queue),
        )
        self._last = (view, guests)
        return self._last

    def me(self, glance: Glance, seat: Seat) -> Me:
        """What concerns the person in this seat: the object shown before, where nothing changed."""
        seat.me = mine = _kept(seat.me, self._fresh(glance, seat))
        return mine

    def _fresh(self, glance: Glance, seat: Seat) -> Me:
        if seat.left_out or (seat.me is not None and seat.me.left_out):
            return replace(me(glance.state, seat.user, seat.gate), left_out=sorted(seat.left_out))
        state = glance.state
        kind = glance.kind(seat.user) if seat.user is not None else ("", False, False)
        if kind is None or seat.user is None:
            return me(state, seat.user, seat.gate)
        plain = self._plain.get((kind, seat.gate))
        if plain is None:
            plain = self._plain[kind, seat.gate] = me(state, seat.user, seat.gate)
        name, last = state.name(seat.user), seat.me
        if last is not None and last.name == name and last.user == seat.user and _alike(last, plain):
            return last
        return replace(plain, user=seat.user, name=name)

    def forget(self) -> None:
        """Another state: who is alike is found anew."""
        self._plain.clear()


def _alike(one: Me, other: Me) -> bool:
    """But for the person. `can` is a list: the same people's is one object."""
    return (
        one.can_speak is other.can_speak
        and one.can_hear is other.can_hear
        and one.may_raise is other.may_raise
        and one.muted is other.muted
        and one.role == other.role
        and one.place == other.place
        and one.hand == other.hand
        and one.invited == other.invited
        and (one.can is other.can or one.can == other.can)
    )


def _kept(old: _T | None, new: _T) -> _T:
    return old if old is not None and old == new else new


class Window:
    """Through it all pages of a stage see it: when something changed, and no more often than need be. Owned by a
    LiveStage; ``close`` stops its timer."""

    def __init__(
        self, seats: Seats, clock: Clock, state: Callable[[], StageState], card: Callable[[View], None]
    ) -> None:
        self._seats, self._clock, self._state, self._card = seats, clock, state, card
        self._showing, self._known = Showing(), Glance(state())
        self._due: asyncio.TimerHandle | None = None
        self._at_once: set[Seat] = set()
        self._views: tuple[View, View] | None = None
        self._outdated, self._viewed_at = True, 0.0
        self._closed = False

    def glance(self) -> Glance:
        """The state as it is now."""
        state = self._state()
        if self._known.state is not state:
            self._known = Glance(state)
            self._showing.forget()
        return self._known

    def changed(self, now: Seat | None = None) -> None:
        """The page in ``now`` sees the change at once (with the next turn of the loop), the others a little later."""
        if self._closed:
            return
        self._outdated = True
        loop = asyncio.get_running_loop()
        if now is not None:
            if not self._at_once:
                loop.call_soon(self._show_to_some)
            self._at_once.add(now)
        if self._due is None:
            self._due = loop.call_later(SHOW_EVERY_S + SHOW_PER_SEAT_S * len(self._seats), self._show_all)

    def close(self) -> None:
        self._closed = True
        if self._due is not None:
            self._due.cancel()

    def _show_to_some(self) -> None:
        """Where many look, those who come see what was seen a moment ago: a view for each join would cost more than the
        joins."""
        seats, self._at_once = self._at_once, set()
        fresh = len(self._seats) < MANY or asyncio.get_running_loop().time() - self._viewed_at > SHOW_EVERY_S
        self._show_to([seat for seat in seats if seat in self._seats], self._look(fresh))

    def _show_all(self) -> None:
        self._due = None
        views = self._look(True)
        self._show_to(self._seats, views)
        self._card(views[0])

    def _look(self, fresh: bool) -> tuple[View, View]:
        """(for members, for guests)"""
        if self._views is None or (fresh and self._outdated):
            self._views = self._showing.views(self._state(), self._seats, self._clock.now_ms())
            self._outdated, self._viewed_at = False, asyncio.get_running_loop().time()
        return self._views

    def _show_to(self, seats: Iterable[Seat], views: tuple[View, View]) -> None:
        if self._closed:
            return
        glance, (view, for_guests) = self.glance(), views
        for seat in seats:
            seat.page.show(view if seat.user else for_guests, self._showing.me(glance, seat))
