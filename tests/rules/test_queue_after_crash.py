"""The queue in room state follows the hands that were kept, also where a crash came between keeping and writing."""

from __future__ import annotations

from bridge.rules import content as c
from bridge.rules.inputs import Restored
from bridge.rules.state import Hand
from tests.rules.room import BEN, BOT, CYD, S1, S2, Hall, Watcher, hall, watch, writes

HANDS = (Hand(BEN, 5, "web"), Hand(CYD, 6, "event", "a question"))


def restarted(room: Hall, hands: tuple[Hand, ...]) -> list[dict[str, object]]:
    """The queues that a bridge writes which finds these hands in its store."""
    watcher = Watcher()
    watcher.tell(Restored(hands=hands, stage_id=S1, seq=7))
    return [dict(write.content) for write in writes(watcher.tell(room.read()), c.QUEUE)]


def test_hands_that_were_kept_and_not_written_are_written() -> None:
    room = hall()
    (queue,) = restarted(room, HANDS)
    assert queue == c.queue_content(S1, 8, [(h.user, h.ts, h.via, h.note) for h in HANDS])
    room.put(c.QUEUE, "", queue, BOT)
    assert restarted(room, HANDS) == []


def test_hands_that_were_lowered_leave_the_queue() -> None:
    room = hall()
    room.put(c.QUEUE, "", c.queue_content(S1, 3, [(BEN, 5, "web", "")]), BOT)
    (queue,) = restarted(room, ())
    assert queue["hands"] == []


def test_a_queue_of_another_stage_is_left_where_nobody_asks() -> None:
    room = hall()
    room.put(c.QUEUE, "", c.queue_content(S2, 3, [(BEN, 5, "web", "")]), BOT)
    assert restarted(room, ()) == []
    assert [queue["stage_id"] for queue in restarted(room, HANDS)] == [S1]


def test_nothing_is_written_where_no_stage_is_live() -> None:
    assert writes(watch(hall(stage=False)).said, c.QUEUE) == []
