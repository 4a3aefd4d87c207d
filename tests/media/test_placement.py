"""Where peers and mixes go: by load, sticky, and what moves when a worker dies. Histories of joins and deaths."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.media.placement import Placement, Route


def running(*workers: int) -> Placement:
    placement = Placement()
    for worker in workers:
        placement.came(worker)
    return placement


def at(placement: Placement, peer: str) -> int:
    seat = placement.seat(peer)
    assert seat is not None
    return seat.worker


def test_listeners_spread_and_who_may_speak_weighs_more() -> None:
    placement = running(0, 1, 2)
    placement.join("s", "host", speak=True)
    assert placement.route("s") == Route(0)
    for number in range(61):
        placement.join("s", f"l{number}", speak=False)
    count = [sum(at(placement, f"l{number}") == worker for number in range(61)) for worker in range(3)]
    assert count[1] == count[2]
    assert count[0] == count[1] - 3 - 20  # the host there, and its voice to mix
    assert placement.route("s") == Route(0, (1, 2))


def test_equal_load_goes_to_the_home() -> None:
    placement = running(0, 1)
    placement.join("other", "x", speak=False)
    placement.join("s", "a", speak=False)
    assert (at(placement, "x"), at(placement, "a")) == (0, 1)
    placement.join("s", "b", speak=False)
    assert at(placement, "b") == 1


def test_nobody_moves_while_the_worker_lives() -> None:
    placement = running(0, 1)
    first = placement.join("s", "a", speak=False)
    assert first is not None
    for number in range(9):
        placement.join("s", f"p{number}", speak=False)
    placement.gate("a", speak=True)
    assert placement.join("s", "a", speak=True) is first
    assert first.csrc


def test_a_dead_home_is_followed_by_one_that_has_peers() -> None:
    placement = running(0, 1, 2)
    placement.join("s", "a", speak=True)
    placement.join("s", "b", speak=False)
    placement.join("t", "c", speak=False)
    assert (at(placement, "a"), at(placement, "b"), at(placement, "c")) == (0, 1, 2)
    lost, touched = placement.died(0)
    assert (lost, touched) == (["a"], ["s"])
    assert placement.route("s") == Route(1)
    assert placement.seat("a") is None
    placement.came(0)
    placement.join("s", "a", speak=True)
    assert placement.route("s") == Route(1, (0,))  # it stays where it is now


def test_a_stream_alone_keeps_a_home_and_waits_for_one() -> None:
    placement = running(0, 1)
    placement.tap("s", on=True)
    assert placement.route("s") == Route(0)
    assert placement.died(0) == ([], ["s"])
    assert placement.route("s") == Route(1)
    placement.died(1)
    assert placement.route("s") == Route(None)
    assert placement.join("s", "a", speak=False) is None
    assert placement.came(0) == ["s"]
    assert placement.route("s") == Route(0)
    placement.tap("s", on=False)
    assert placement.route("s") == Route(None)


step = st.one_of(
    st.tuples(st.just("join"), st.integers(0, 3), st.integers(0, 9), st.booleans()),
    st.tuples(st.just("leave"), st.integers(0, 9)),
    st.tuples(st.just("gate"), st.integers(0, 9), st.booleans()),
    st.tuples(st.sampled_from(["died", "came"]), st.integers(0, 2)),
    st.tuples(st.just("tap"), st.integers(0, 3), st.booleans()),
)


@given(st.lists(step, max_size=60))
def test_any_history_adds_up(history: list[tuple[Any, ...]]) -> None:
    placement, alive = running(0, 1, 2), {0, 1, 2}
    for name, *values in history:
        peer = f"p{values[-2] if name == 'gate' else values[1] if name == 'join' else values[0]}"
        match name:
            case "join":
                placement.join(f"s{values[0]}", peer, speak=bool(values[2]))
            case "leave":
                placement.leave(peer)
            case "gate" if placement.seat(peer):
                placement.gate(peer, speak=bool(values[1]))
            case "died" if values[0] in alive:
                alive.discard(values[0])
                placement.died(values[0])
            case "came" if values[0] not in alive:
                alive.add(values[0])
                placement.came(values[0])
            case "tap":
                placement.tap(f"s{values[0]}", on=bool(values[1]))
    seats = {f"p{each}": seat for each in range(10) if (seat := placement.seat(f"p{each}"))}
    assert len(placement) == len(seats)
    wanted = dict.fromkeys(alive, 0)
    for stage in {f"s{each}" for each in range(4)}:
        here = [seat for seat in seats.values() if seat.stage == stage]
        route = placement.route(stage)
        assert set(route.all) <= alive
        assert {seat.worker for seat in here} <= set(route.all)
        assert len({seat.csrc for seat in here}) == len(here)
        if here:
            assert route.home is not None
            wanted[route.home] += 20 * sum(seat.speak for seat in here)
    for seat in seats.values():
        wanted[seat.worker] += 3 if seat.speak else 1
    assert placement._load == wanted


@pytest.mark.parametrize("peer", ["nobody"])
def test_who_was_never_there_leaves_without_harm(peer: str) -> None:
    assert running(0).leave(peer) is None
