"""Which media worker serves which peer, and which one mixes which stage. Pure: no I/O, no clock.

A stage has one *home*, which mixes; peers of it may sit on every worker. A new peer goes to the least loaded worker,
where two are equal to the stage's home. It stays where it is as long as that worker lives: a promotion, a fresh
connection and an ICE restart move nobody. A home stays home until its stage is empty or it dies.
"""

from __future__ import annotations

import secrets
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

_LISTENER, _SPEAKER = 1, 3
"""Load on the peer's worker: packets sent a second, in those of 60 ms."""
_MIXED = 20
"""Load on the home for each who may speak: decoding, mixing, an encode of their own while they talk."""


@dataclass(slots=True)
class Seat:
    """Where a peer is. ``csrc``: the number of its voice, unique in its stage (RFC 3550 §5.1)."""

    stage: str
    worker: int
    csrc: int
    speak: bool

    @property
    def load(self) -> int:
        return _SPEAKER if self.speak else _LISTENER


@dataclass(slots=True)
class _Stage:
    home: int | None  # None: no worker runs
    peers: dict[str, Seat] = field(default_factory=dict)
    at: Counter[int] = field(default_factory=Counter)  # peers on each worker
    speakers: int = 0
    csrcs: set[int] = field(default_factory=set)
    is_tapped: bool = False


@dataclass(frozen=True, slots=True)
class Route:
    """Who mixes a stage, and which other workers have peers of it."""

    home: int | None
    others: tuple[int, ...] = ()

    @property
    def all(self) -> tuple[int, ...]:
        return self.others if self.home is None else (self.home, *self.others)


class Placement:
    """Owned by ``Workers``, which tells it which workers run."""

    def __init__(self) -> None:
        self._load: dict[int, int] = {}  # of those that run
        self._stages: dict[str, _Stage] = {}
        self._seats: dict[str, Seat] = {}

    def __len__(self) -> int:
        return len(self._seats)

    def seat(self, peer: str) -> Seat | None:
        return self._seats.get(peer)

    def counts(self) -> list[tuple[str, int, int]]:
        """Of each stage: its name, how many peers may speak, and how many others it has."""
        return [(name, each.speakers, len(each.peers) - each.speakers) for name, each in self._stages.items()]

    def peers_of(self, stage: str) -> list[str]:
        return list(self._stages[stage].peers) if stage in self._stages else []

    def route(self, stage: str) -> Route:
        found = self._stages.get(stage)
        if found is None:
            return Route(None)
        return Route(found.home, tuple(sorted(each for each in found.at if each != found.home)))

    # -- workers ---------------------------------------------------------------------------------

    def came(self, worker: int) -> list[str]:
        """A worker runs. The stages that it is home of from now on, because none ran before."""
        self._load[worker] = 0
        waiting = [name for name, stage in self._stages.items() if stage.home is None]
        for name in waiting:
            self._settle(self._stages[name], worker)
        return waiting

    def died(self, worker: int) -> tuple[list[str], list[str]]:
        """Its peers, which are gone; and the stages whose route has changed. Those it was home of are mixed by the
        least loaded of the workers that have peers of them."""
        self._load.pop(worker, None)
        lost = [peer for peer, seat in self._seats.items() if seat.worker == worker]
        touched = {self._seats[peer].stage: None for peer in lost}
        touched |= {name: None for name, stage in self._stages.items() if stage.home == worker}
        for peer in lost:
            self._take_out(peer)
        for name in touched:
            stage = self._stages[name]
            if stage.home == worker:
                self._settle(stage, self._least(stage.at or self._load))
            self._forget_if_empty(name)
        return lost, list(touched)

    def _settle(self, stage: _Stage, home: int | None) -> None:
        stage.home = home
        if home is not None:
            self._load[home] += _MIXED * stage.speakers

    def _least(self, among: Iterable[int], first: int | None = None) -> int | None:
        return min(among, key=lambda each: (self._load[each], each != first, each), default=None)

    # -- peers and streams -----------------------------------------------------------------------

    def join(self, stage: str, peer: str, *, speak: bool) -> Seat | None:
        """A seat for a peer: the one it has in the stage, or a new one where it has none at all; None where no worker
        runs."""
        seat = self._seats.get(peer)
        if seat is not None or not self._load:
            return seat
        if stage not in self._stages:
            self._stages[stage] = _Stage(self._least(self._load))
        found = self._stages[stage]
        worker = self._least(self._load, first=found.home)
        assert worker is not None
        csrc = 0
        while csrc == 0 or csrc in found.csrcs:
            csrc = secrets.randbits(32)
        seat = self._seats[peer] = found.peers[peer] = Seat(stage, worker, csrc, speak=False)
        found.csrcs.add(csrc)
        found.at[worker] += 1
        self._load[worker] += seat.load
        self.gate(peer, speak=speak)
        return seat

    def gate(self, peer: str, *, speak: bool) -> None:
        seat = self._seats[peer]
        if seat.speak == speak:
            return
        stage = self._stages[seat.stage]
        self._load[seat.worker] -= seat.load
        seat.speak = speak
        self._load[seat.worker] += seat.load
        change = 1 if speak else -1
        stage.speakers += change
        if stage.home is not None:
            self._load[stage.home] += change * _MIXED

    def leave(self, peer: str) -> Seat | None:
        """The seat it had; None where it had none."""
        seat = self._seats.get(peer)
        if seat is not None:
            self._take_out(peer)
            self._forget_if_empty(seat.stage)
        return seat

    def _take_out(self, peer: str) -> None:
        seat = self._seats.pop(peer)
        stage = self._stages[seat.stage]
        del stage.peers[peer]
        stage.csrcs.discard(seat.csrc)
        stage.speakers -= seat.speak
        stage.at[seat.worker] -= 1
        if not stage.at[seat.worker]:
            del stage.at[seat.worker]
        if seat.worker in self._load:
            self._load[seat.worker] -= seat.load
        if stage.home in self._load:
            self._load[stage.home] -= _MIXED * seat.speak

    def tap(self, stage: str, *, on: bool) -> None:
        """A stage that somebody listens to by stream has a home even with no peers."""
        if on and stage not in self._stages:
            self._stages[stage] = _Stage(self._least(self._load))
        if stage in self._stages:
            self._stages[stage].is_tapped = on
            self._forget_if_empty(stage)

    def _forget_if_empty(self, name: str) -> None:
        stage = self._stages[name]
        if not stage.peers and not stage.is_tapped:
            del self._stages[name]
