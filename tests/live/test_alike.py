"""Judging people who are alike once gives what judging each gives; what was kept by another version is let go."""

from __future__ import annotations

import random
from typing import Any

import pytest

from bridge.ids import SessionId, UserId, role_key
from bridge.live import saved
from bridge.live.seats import Seat
from bridge.live.showing import Glance, Showing
from bridge.live.view import gate_for, gate_of, me
from bridge.rules import content as c
from bridge.rules.authority import Permission, Policy
from bridge.rules.inputs import Asked, RoomRead, StateHint
from bridge.rules.reduce import reduce
from bridge.rules.state import Cut, StageState
from tests.helpers.fakes import ADMIN, BOT, MOD, ROOM, FakeMatrix, FakePage, HandClock, levels

PEOPLE = [UserId(f"@p{n}:s{n % 3}.org") for n in range(9)]
STAGE_ID = "stage-one-0123456789ab"
ROLES: list[dict[str, Any]] = [
    {}, {"role": "speaker"}, {"role": "listener"}, {"role": "moderator"}, {"role": "speaker", "muted": True},
    {"role": "speaker", "stage_id": "stage-two-0123456789ab"}, {"role": "burn"},
]  # fmt: skip


def _event(rng: random.Random, number: int) -> c.StateEvent:
    user = rng.choice(PEOPLE)
    kind, key, content = rng.choice(
        [
            (c.ROLE, role_key(user), rng.choice(ROLES)),
            (c.MEMBER, user, {"membership": rng.choice(["join", "leave", "ban"]), "displayname": f"N{number}"}),
            (c.SERVER_ACL, "", {"allow": ["*"], "deny": rng.choice([[], ["s1.org"]])}),
            (c.POWER_LEVELS, "", levels(users={ADMIN: 100, BOT: 50, user: rng.choice([0, 50])})),
            (c.STAGE, "", {"status": "live", "stage_id": STAGE_ID, "host": user, "bot": BOT, "speaker_limit": 3}),
        ]
    )
    return c.StateEvent(kind, key, ADMIN, content, f"$h{number}", number)  # type: ignore[arg-type]


@pytest.mark.parametrize("seed", range(40))
def test_alike_is_the_same(seed: int) -> None:
    rng = random.Random(seed)
    matrix = FakeMatrix(HandClock())
    room = matrix.make_room(ROOM, BOT, MOD, *PEOPLE)
    matrix.put(ADMIN, c.STAGE, "", {"status": "live", "stage_id": STAGE_ID, "host": ADMIN, "bot": BOT})
    permissions = {
        "*": Permission.speak,
        "s2.org": Permission.listen,
        PEOPLE[4]: Permission.none,
        ADMIN: Permission.host,
    }
    state = StageState(ROOM, BOT, Policy(permissions=permissions))
    state, _ = reduce(state, RoomRead(tuple(c.state_event(event) for event in room.state.values())), 1)
    seats = [Seat(SessionId(user), user, STAGE_ID, FakePage()) for user in (*PEOPLE, ADMIN, MOD)]  # type: ignore[arg-type]
    showing, differ = Showing(), 0
    for number in range(30):
        if rng.random() < 0.3:
            asks = [
                ("raise", None),
                ("mute", rng.choice(PEOPLE)),
                ("kick", rng.choice(PEOPLE)),
                ("invite", rng.choice(PEOPLE)),
            ]
            act, target = rng.choice(asks)
            actor = rng.choice(PEOPLE) if act == "raise" else ADMIN
            state, _ = reduce(state, Asked(actor, act, "web", "r", target), number)  # type: ignore[arg-type]
        elif rng.random() < 0.2:
            events = [h[-1].event for h in state.hints.values()]
            place = {(e.kind, e.key): e for e in (c.state_event(event) for event in room.state.values())}
            place |= {(e.kind, e.key): e for e in events if e is not None}
            state, _ = reduce(state, RoomRead(tuple(place.values()), state.heard), number)
        else:
            state, _ = reduce(state, StateHint(_event(rng, number)), number)
        glance = Glance(state)
        showing.forget()
        for seat in seats:
            assert seat.user is not None
            want = gate_for(state, seat.user)
            assert glance.gate(seat.user) == want, seat.user
            differ += want != gate_of(hear=True, speak=False)
            seat.gate = want
            if want.hear:
                assert showing.me(glance, seat) == me(state, seat.user, seat.gate)
        assert glance.gate(None) == gate_for(state, None)
    assert differ, "gates were shut and opened"


JUNK: list[Any] = [None, {}, {"hands": 7}, {"hands": [7, None, {}, {"user": "x"}, {"user": "@a:b", "via": "pigeon"}]}]
JUNK += [{"invitations": []}, {"invitations": {"@a:b": 7}}, {"card": 7}, {"seq": "x"}, {"seq": True}, {"stage_id": []}]


@pytest.mark.parametrize("kept", JUNK)
def test_what_cannot_be_read_counts_as_absent(kept: Any) -> None:
    cuts: list[Any] = [7, None, {}, {"kind": "burn"}, {"kind": "mute"}, {"kind": "mute", "cut_id": "c", "by": 7}]
    good = {"cut_id": "c", "kind": "mute", "user": "@a:b", "by": "@m:b", "via": "web", "stage_id": STAGE_ID, "at_ms": 5}
    cuts += [{**good, "user": "nobody"}, {**good, "user": None}]
    found = saved.load(kept, [(str(n), cut) for n, cut in enumerate(cuts)])
    assert (found.hands, found.cuts, found.card, found.seq, found.stage_id) == ((), (), None, 0, None)
    assert not found.invitations
    (cut,) = saved.load(kept, [("c", {**good, "new_in_version_9": 1})]).cuts
    assert cut == Cut("c", "mute", UserId("@a:b"), UserId("@m:b"), "web", STAGE_ID, 5)  # type: ignore[arg-type]
    assert saved.load(None, [("c", saved.cut_json(cut))]).cuts == (cut,)
