"""What a line has in a stage: the seat of its call, an offer that nobody has answered yet, stages to choose from."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from bridge.ids import new_session_id
from bridge.live.seats import Offered
from bridge.live.stage import LiveStage
from bridge.live.view import Me, View
from bridge.matrix.call_state import Outcome

if TYPE_CHECKING:
    from bridge.matrix.call_line import Line

TOLD = {
    "to_stage": "call-to-stage",
    "to_audience": "call-to-audience",
    "muted": "call-muted",
    "unmuted": "call-unmuted",
    "invited": "call-invited",
    "hand_not_now": "call-hand-not-now",
}
BYES = {
    "ended": "call-over-ended",
    "removed": "call-over-removed",
    "left_room": "call-over-removed",
    "expired": "call-over-removed",
    "restart": "call-over-restart",
}
RANG: dict[Outcome, str] = {"declined": "ring-declined", "busy": "ring-busy", "unanswered": "ring-no-answer"}
"""What a page is told, or why its seat ends (`bridge.live.ports.Page`) → the sentence for the chat; what came of
ringing → that for the room."""


@dataclass(frozen=True, slots=True)
class Several:
    """The live stages of a caller who named none; may be none."""

    stages: tuple[LiveStage, ...]


@dataclass(frozen=True, slots=True)
class Ringing:
    """A call that we placed, as long as nobody has answered."""

    stage: LiveStage
    offered: Offered
    told: Callable[[str], None]


class Leg:
    """The call's seat (`bridge.live.ports.Page` and ``Keypad``). Each method only queues with its line."""

    def __init__(self, line: Line, stage: LiveStage) -> None:
        self.stage, self.session = stage, new_session_id()
        self._line = line
        self.view: View | None = None
        self.me: Me | None = None

    def show(self, view: View, me: Me) -> None:
        self.view, self.me = view, me

    def levels(self, levels: Mapping[int, int]) -> None:
        """A telephone shows none."""

    def notice(self, key: str, by_name: str) -> None:
        self._line.happened(lambda: self._line.told(self, key, by_name))

    def sound_lost(self) -> None:
        self._line.must(lambda: self._line.lost(self))

    def bye(self, reason: str) -> None:
        self._line.must(lambda: self._line.put_out(self, reason))

    def pressed(self, key: str) -> None:
        self._line.happened(lambda: self._line.pressed(self, key))
