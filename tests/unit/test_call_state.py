"""The state machine of a 1:1 call, by tables: what an event makes of it and what is sent; and what cannot be read."""

from __future__ import annotations

from typing import Any

import pytest

from bridge.errors import BadInput
from bridge.ids import UserId
from bridge.matrix import call_events as ev
from bridge.matrix import call_state as st
from bridge.matrix.call_events import Head
from bridge.matrix.call_state import Call

OURS, NOW = "EYVAN", 1_000_000
BOT = UserId("@eyvan:a.org")
OFFER: dict[str, Any] = {"offer": {"type": "offer", "sdp": "v=0 offer"}}


def content(call_id: str = "b", *, party: str | None = "PHONE", version: Any = "1", **more: Any) -> dict[str, Any]:
    return {"call_id": call_id, "version": version, **({"party_id": party} if party else {}), **more}


def take(call: Call | None, kind: str, raw: dict[str, Any], age_ms: int = 0) -> tuple[Call | None, list[str]]:
    """The call after the event, and what is done, in short."""
    event = ev.parse(kind, ev.parse_head(raw), raw)
    assert event is not None
    after, do = st.take(call, event, OURS, NOW, age_ms)
    return after, [shown(each) for each in do]


def shown(do: st.Do) -> str:
    match do:
        case st.Send(kind, sent):
            about = sent.get("reason") or sent.get("selected_party_id")
            parts = [kind.removeprefix("m.call."), sent["call_id"], *([about] if about else [])]
            assert sent["version"] in (0, "1")
            assert (sent.get("party_id") is None) == (sent["version"] == 0)
            return " ".join(parts)
        case st.Connect(_, muted):
            return "connect muted" if muted else "connect"
        case st.Accept() | st.Renew() | st.Leave():
            return type(do).__name__.lower()
        case st.Microphone(on):
            return f"microphone {'on' if on else 'off'}"
        case st.Rang(outcome):
            return f"rang {outcome}"


UP = Call(Head("b", "PHONE", "1"), OURS, "up", "PHONE")
OLD = Call(Head("b", None, 0), OURS, "up")
RINGING = st.ring("b", OURS, NOW)
ANSWERED = Call(Head("b", None, "1"), OURS, "up", "PHONE", until_ms=RINGING.until_ms)
ANSWER: dict[str, Any] = {"answer": {"type": "answer", "sdp": "v=0 answer"}}
REOFFER: dict[str, Any] = {"description": {"type": "offer", "sdp": "v=0 again"}, "lifetime": 60_000}
MUTED: dict[str, Any] = {"sdp_stream_metadata": {"s": {"purpose": "m.usermedia", "audio_muted": True}}}
UNMUTED: dict[str, Any] = {"org.matrix.msc3077.sdp_stream_metadata": {"s": {"audio_muted": False}}}

TABLE: list[tuple[str, Call | None, str, dict[str, Any], int, str | None, list[str]]] = [
    # name, call before, type, content, age ms, phase after, done
    ("a call", None, ev.INVITE, content(**OFFER, lifetime=60_000), 0, "up", ["connect"]),
    ("muted at their end", None, ev.INVITE, content(**OFFER, **MUTED), 0, "up", ["connect muted"]),
    ("version 0", None, ev.INVITE, content(party=None, version=0, **OFFER), 0, "up", ["connect"]),
    ("just in time", None, ev.INVITE, content(**OFFER, lifetime=5_000), 5_000, "up", ["connect"]),
    ("too late", None, ev.INVITE, content(**OFFER, lifetime=5_000), 5_001, None, ["reject b invite_timeout"]),
    ("too late, version 0", None, ev.INVITE, content(party=None, version=0, **OFFER), 60_001, None,
     ["hangup b invite_timeout"]),
    ("too late beside a call", UP, ev.INVITE, content("c", **OFFER), 70_000, "up", ["reject c invite_timeout"]),
    ("the same again", UP, ev.INVITE, content(**OFFER), 0, "up", []),
    ("a second call", UP, ev.INVITE, content("c", **OFFER), 0, "up", ["hangup b replaced", "leave", "connect"]),
    ("glare, theirs is less", RINGING, ev.INVITE, content("a", **OFFER), 0, "up",
     ["hangup b replaced", "leave", "connect"]),
    ("glare, ours is less", RINGING, ev.INVITE, content("c", **OFFER), 0, "ringing", ["reject c replaced"]),
    ("answer to our ringing", RINGING, ev.ANSWER, content(**ANSWER), 0, "up", ["select_answer b PHONE", "accept"]),
    ("answer of an old client", RINGING, ev.ANSWER, content(party=None, version=0, **ANSWER), 0, "up", ["accept"]),
    ("a second device answers", ANSWERED, ev.ANSWER, content(party="TABLET", **ANSWER), 0, "up", []),
    ("declined", RINGING, ev.REJECT, content(), 0, None, ["leave", "rang declined"]),
    ("busy", RINGING, ev.HANGUP, content(reason="user_busy"), 0, None,
     ["hangup b user_hangup", "leave", "rang busy"]),
    ("hung up while it rings", RINGING, ev.HANGUP, content(), 0, None,
     ["hangup b user_hangup", "leave", "rang declined"]),
    ("answer to no call", None, ev.ANSWER, content(**ANSWER), 0, None, ["hangup b unknown_error"]),
    ("answer to another call", UP, ev.ANSWER, content("x", **ANSWER), 0, "up", ["hangup x unknown_error"]),
    ("hold", UP, ev.NEGOTIATE, content(**REOFFER), 0, "up", ["renew"]),
    ("hold and mute", UP, ev.NEGOTIATE, content(**REOFFER, **MUTED), 0, "up", ["renew", "microphone off"]),
    ("their answer to no offer of ours", UP, ev.NEGOTIATE,
     content(description={"type": "answer", "sdp": "v=0"}), 0, "up", []),
    ("hold of another party", UP, ev.NEGOTIATE, content(party="TABLET", **REOFFER), 0, "up", []),
    ("hold after our restart", None, ev.NEGOTIATE, content(**REOFFER), 0, None, ["hangup b unknown_error"]),
    ("their microphone off", UP, "m.call.sdp_stream_metadata_changed", content(**MUTED), 0, "up", ["microphone off"]),
    ("and on, unstable name", UP, "org.matrix.call.sdp_stream_metadata_changed", content(**UNMUTED), 0, "up",
     ["microphone on"]),
    ("metadata that says nothing", UP, "m.call.sdp_stream_metadata_changed", content(), 0, "up", []),
    ("our answer is taken", UP, ev.SELECT, content(selected_party_id=OURS), 0, "up", []),
    ("another device of ours answered", UP, ev.SELECT, content(selected_party_id="OTHER"), 0, None, ["leave"]),
    ("they hang up", UP, ev.HANGUP, content(reason="user_hangup"), 0, None, ["leave"]),
    ("they hang up, version 0", OLD, ev.HANGUP, content(party=None, version=0), 0, None, ["leave"]),
    ("another party hangs up", UP, ev.HANGUP, content(party="TABLET"), 0, "up", []),
    ("another device rejects what is up", ANSWERED, ev.REJECT, content(party="TABLET"), 0, "up", []),
    ("hangup of no call", None, ev.HANGUP, content(), 0, None, []),
    ("a reason that is no text", UP, ev.HANGUP, content(reason=7), 0, None, ["leave"]),
]  # fmt: skip


@pytest.mark.parametrize(("call", "kind", "raw", "age", "phase", "done"), [row[1:] for row in TABLE],
                         ids=[row[0] for row in TABLE])  # fmt: skip
def test_table(call: Call | None, kind: str, raw: dict[str, Any], age: int, phase: str | None, done: list[str]) -> None:
    after, did = take(call, kind, raw, age)
    assert (after.phase if after else None, did) == (phase, done)
    if "connect" in str(did):
        assert after is not None
        assert (after.head.call_id, after.theirs) == (raw["call_id"], raw.get("party_id"))


def test_ringing_ends_with_its_lifetime() -> None:
    assert st.expire(RINGING, RINGING.until_ms - 1) == (RINGING, [])
    after, do = st.expire(RINGING, RINGING.until_ms)
    assert (after, [shown(each) for each in do]) == (None, ["hangup b invite_timeout", "leave", "rang unanswered"])
    assert st.expire(UP, NOW * 2) == (UP, []), "a call that is up has no lifetime"


def test_only_version_1_has_a_reject() -> None:
    assert shown(st.refused(Head("b", "PHONE", "1"), OURS, "user_busy")) == "reject b user_busy"
    assert shown(st.refused(Head("b", None, 0), OURS, "user_busy")) == "hangup b user_busy"


@pytest.mark.parametrize(("raw", "version"), [(0, 0), ("0", 0), (None, 0), ("1", "1"), (1, "1"), ("7", "1")])
def test_versions(raw: object, version: object) -> None:
    """A version that is not known is read as the newest one."""
    given = {"call_id": "b", "party_id": "P"} | ({} if raw is None else {"version": raw})
    assert ev.parse_head(given) == Head("b", None if version == 0 else "P", version)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("kind", "raw", "field"),
    [
        (ev.INVITE, {"version": "1"}, "call_id"),
        (ev.INVITE, {"call_id": 7}, "call_id"),
        (ev.INVITE, {"call_id": "b" * 256}, "call_id"),
        (ev.INVITE, {"call_id": "\ud800"}, "call_id"),
        (ev.INVITE, content(), "offer.sdp"),
        (ev.INVITE, content(offer="v=0"), "offer.sdp"),
        (ev.INVITE, content(offer={"sdp": "v" * 70_000}), "offer.sdp"),
        (ev.INVITE, content(**OFFER, lifetime="soon"), "lifetime"),
        (ev.INVITE, content(**OFFER, lifetime=-1), "lifetime"),
        (ev.INVITE, content(**OFFER, lifetime=True), "lifetime"),
        (ev.INVITE, content(**OFFER, invitee=3), "invitee"),
        (ev.INVITE, {"call_id": "b", "version": "1", "party_id": {}}, "party_id"),
        (ev.ANSWER, content(answer={}), "answer.sdp"),
        (ev.SELECT, content(), "selected_party_id"),
        (ev.NEGOTIATE, content(), "description.type"),
        (ev.NEGOTIATE, content(description={"type": "offer"}), "description.sdp"),
        (ev.NEGOTIATE, content(description={"type": "rollback", "sdp": "v=0"}), "description.type"),
    ],
)
def test_what_cannot_be_read_is_named(kind: str, raw: dict[str, Any], field: str) -> None:
    with pytest.raises(BadInput) as bad:
        ev.parse(kind, ev.parse_head(raw), raw)
    assert bad.value.field == field


def test_what_we_send_is_what_we_can_read() -> None:
    head = Head("b", None, "1")
    for kind, sent in (
        ev.invite(head, OURS, "v=0", BOT),
        ev.answer(head, OURS, "v=0"),
        ev.negotiate(head, OURS, "v=0"),
    ):
        event = ev.parse(kind, ev.parse_head(sent), sent)
        assert event is not None
        assert event.head == Head("b", OURS, "1")
        assert event.sdp == "v=0"  # type: ignore[union-attr]
        assert event.muted is False  # type: ignore[union-attr]
    assert ev.parse(ev.CANDIDATES, head, content(candidates=[])) is None
