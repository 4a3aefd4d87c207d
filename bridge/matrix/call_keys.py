"""What the keys 1 and 3 of a call do; 2 is the line's own microphone, 0 a sentence."""

from __future__ import annotations

from typing import Any, Protocol

from bridge.ids import UserId, new_txn_id
from bridge.matrix.call_seat import Leg
from bridge.rules.inputs import ActName, Asked


class Tell(Protocol):
    async def __call__(self, key: str, **args: Any) -> None:
        """A sentence for the chat."""


async def move_hand(leg: Leg, user: UserId, tell: Tell) -> None:
    """Up, or down again; and with an invitation open, up to the stage. Raises Unavailable and Full."""
    state = leg.stage.state
    act: ActName = "raise"
    if user in state.invitations:
        act = "accept"
    elif state.hand_of(user) is not None:
        act = "lower"
    outcome = await leg.stage.ask(Asked(user, act, "call", f"call {new_txn_id()}"))
    await tell(outcome.text, **outcome.args)


async def count(leg: Leg, tell: Tell) -> None:
    view = leg.view
    if view is not None:
        await tell("call-count", listeners=view.audience.count, hands=view.audience.hands)
