"""What a stage cannot read back from room state, as JSON and back: hands, invitations, the card, cuts under way.

Loading is total: what cannot be read (written by another version) counts as absent."""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Mapping
from typing import Any

from bridge.errors import BadInput
from bridge.ids import EventId, StageId, UserId, parse_user
from bridge.live.ports import JsonObject
from bridge.rules.content import Via
from bridge.rules.cut import CutKind
from bridge.rules.inputs import Restored
from bridge.rules.state import Cut, Hand, StageState


def dump(state: StageState) -> dict[str, Any]:
    return {
        "stage_id": state.kept_for,
        "hands": [dataclasses.asdict(hand) for hand in state.hands],
        "invitations": dict(state.invitations),
        "hand_events": dict(state.hand_events),
        "card": state.card,
        "seq": state.seq,
    }


def cut_json(cut: Cut) -> dict[str, Any]:
    return dataclasses.asdict(cut)


def load(kept: JsonObject | None, cuts: list[tuple[str, JsonObject]]) -> Restored:
    kept = kept or {}
    listed, found, stage = kept.get("hands"), kept.get("card"), kept.get("stage_id")
    hands = [_hand(each) for each in listed] if isinstance(listed, list) else []
    return Restored(
        hands=tuple(hand for hand in hands if hand is not None),
        invitations={UserId(u): UserId(by) for u, by in _texts(kept.get("invitations")).items()},
        hand_events={UserId(u): EventId(e) for u, e in _texts(kept.get("hand_events")).items()},
        card=EventId(found) if isinstance(found, str) else None,
        seq=_number(kept.get("seq")),
        cuts=tuple(cut for _, raw in cuts if (cut := _cut(raw)) is not None),
        stage_id=StageId(stage) if isinstance(stage, str) else None,
    )


def _hand(raw: object) -> Hand | None:
    if not isinstance(raw, Mapping) or raw.get("via") not in typing.get_args(Via):
        return None
    try:
        user = parse_user(raw.get("user"))
    except BadInput:
        return None
    note, event = raw.get("note"), raw.get("event_id")
    return Hand(
        user,
        _number(raw.get("ts")),
        raw["via"],
        note if isinstance(note, str) else "",
        EventId(event) if isinstance(event, str) else None,
    )


def _cut(raw: object) -> Cut | None:
    """A cut that cannot be read is let go: what it says may be anything."""
    if not isinstance(raw, Mapping) or raw.get("kind") not in typing.get_args(CutKind):
        return None
    texts = [raw.get(name) for name in ("cut_id", "by", "stage_id", "via")]
    if not all(isinstance(text, str) for text in texts):
        return None
    try:
        user = None if raw.get("user") is None else parse_user(raw["user"])
    except BadInput:
        return None
    if user is None and raw["kind"] != "end":
        return None
    reason, seen = raw.get("reason"), raw.get("seen")
    return Cut(
        cut_id=raw["cut_id"],
        kind=raw["kind"],
        user=user,
        by=UserId(raw["by"]),
        via=raw["via"],
        stage_id=StageId(raw["stage_id"]),
        at_ms=_number(raw.get("at_ms")),
        reason=reason if isinstance(reason, str) else "",
        seen=EventId(seen) if isinstance(seen, str) else None,
    )


def _number(value: object) -> int:
    return value if isinstance(value, int) and not isinstance(value, bool) else 0


def _texts(value: object) -> dict[str, str]:
    if not isinstance(value, Mapping):
        return {}
    return {k: v for k, v in value.items() if isinstance(k, str) and isinstance(v, str)}
