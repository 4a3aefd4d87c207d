"""What a stage cannot read back from room state, as JSON and back: hands, invitations, the card, cuts under way.

Loading is total: what cannot be read (written by another version) counts as absent."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from bridge.ids import EventId, UserId
from bridge.live.ports import JsonObject
from bridge.rules.inputs import Restored
from bridge.rules.state import Cut, Hand, StageState


def dump(state: StageState) -> dict[str, Any]:
    return {
        "stage_id": state.stage.stage_id if state.stage else None,
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
    hands = [_build(Hand, each) for each in kept.get("hands", ())]
    seq, found = kept.get("seq", 0), kept.get("card")
    return Restored(
        hands=tuple(hand for hand in hands if hand is not None),
        invitations={UserId(u): UserId(by) for u, by in _texts(kept.get("invitations")).items()},
        hand_events={UserId(u): EventId(e) for u, e in _texts(kept.get("hand_events")).items()},
        card=EventId(found) if isinstance(found, str) else None,
        seq=seq if isinstance(seq, int) else 0,
        cuts=tuple(cut for _, raw in cuts if (cut := _build(Cut, raw)) is not None),
    )


def _build(cls: Any, raw: object) -> Any:
    if not isinstance(raw, Mapping):
        return None
    names = {each.name for each in dataclasses.fields(cls)}
    try:
        return cls(**{name: value for name, value in raw.items() if name in names})
    except TypeError:
        return None


def _texts(value: object) -> dict[str, str]:
    if not isinstance(value, Mapping):
        return {}
    return {k: v for k, v in value.items() if isinstance(k, str) and isinstance(v, str)}
