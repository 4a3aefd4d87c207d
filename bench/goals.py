"""The goals, and what of one run stands beside them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from bench.measure import Row

Scenes = Mapping[str, Mapping[str, Any]]


class Goal(NamedTuple):
    """``found`` is None where the run did not measure it."""

    what: str
    wanted: str
    found: float | None
    reached: bool
    about: str

    @property
    def verdict(self) -> str:
        return "not measured" if self.found is None else "reached" if self.reached else "missed"


def in_full(row: Row) -> bool:
    """Whether every listener got all the sound there was: CPU can be compared even if a busy machine made it late."""
    wanted = 0.95 * 1000 / row.packet_ms * (1 if row.server.startswith("Eyvan") else row.talkers)
    return row.loss < 0.001 and row.more.get("packets_per_listener_second", 0.0) > wanted


def best(rows: Sequence[Row], server: str, packet_ms: int, talkers: int = 1) -> Row | None:
    """The row with the most listeners who all got everything."""
    fit = [each for each in rows if (each.server, each.packet_ms, each.talkers) == (server, packet_ms, talkers)]
    return max((each for each in fit if in_full(each)), key=lambda each: each.listeners, default=None)


def row_of(rows: Sequence[Row], server: str, packet_ms: int, listeners: int) -> Row | None:
    wanted = (server, packet_ms, listeners, 1)
    found = (each for each in rows if (each.server, each.packet_ms, each.listeners, each.talkers) == wanted)
    return next((each for each in found if "error" not in each.more), None)


def _at_most(what: str, limit: float, unit: str, found: float | None, about: str) -> Goal:
    return Goal(what, f"≤ {limit:g} {unit}", found, found is not None and found <= limit, about)


def _at_least(what: str, limit: float, unit: str, found: float | None, about: str) -> Goal:
    return Goal(what, f"≥ {limit:g} {unit}", found, found is not None and found >= limit, about)


def goals(rows: Sequence[Row], scenes: Scenes) -> list[Goal]:
    return [*_cost(rows), *_in_time(rows), *_peer(rows), *_scenes(scenes)]


def _said(row: Row | None) -> str:
    return "" if row is None else f"{row.listeners:,} listeners"


def _cost(rows: Sequence[Row]) -> Iterator[Goal]:
    wanted = (("Eyvan, C", 60, 160), ("Eyvan, C", 20, 500), ("Eyvan, Python", 60, 230), ("Eyvan, Python", 20, 600))
    for server, packet_ms, limit in wanted:
        row = best(rows, server, packet_ms)
        found = None if row is None else row.us
        yield _at_most(f"a listener at {packet_ms} ms, {server.split(', ')[1]}", limit, "µs/l·s", found, _said(row))
    row = best(rows, "Eyvan, C", 60)
    yield _at_most("an idle listener", 90, "µs/l·s", None if row is None else row.idle_us, _said(row))
    yield _at_most("memory of a listener", 60, "kB", None if row is None else row.kb_per_listener, _said(row))
    yield _at_least("joins", 300, "a second", None if row is None else row.joins_per_s, "clients on the same cores")
    yield _at_most("CPU of a join", 2.5, "ms", None if row is None else row.join_cpu_ms, _said(row))


def _in_time(rows: Sequence[Row]) -> Iterator[Goal]:
    for packet_ms, listeners, limit in ((20, 1000, 20), (60, 4000, 10)):
        row = row_of(rows, "Eyvan, C", packet_ms, listeners)
        found = None if row is None or row.loss else row.late_p99_ms
        about = "" if row is None else f"loss {100 * row.loss:.3f} %"
        yield _at_most(f"{listeners:,} listeners at {packet_ms} ms: late p99, no loss", limit, "ms", found, about)


def _peer(rows: Sequence[Row]) -> Iterator[Goal]:
    ours, at_20 = best(rows, "Eyvan, C", 60), best(rows, "Eyvan, C", 20)
    for peer, factor in (
        ("aiortc MediaRelay", 150),
        ("Janus audiobridge", 50),
        ("Janus videoroom, 2 loops", 8),
        ("Pion forwarder", 4),
        ("LiveKit", 0),
    ):
        theirs = best(rows, peer, 20)
        found = None if ours is None or theirs is None else theirs.us / ours.us
        about = "" if theirs is None else f"at its {theirs.listeners}: {theirs.us:,.0f} µs/l·s"
        yield _at_least(f"cheaper for a listener than {peer}", factor, "×", found, about)
    theirs = best(rows, "Pion forwarder", 20)
    ratio = None if at_20 is None or theirs is None else theirs.us_per_packet / at_20.us_per_packet
    yield _at_least("cheaper for a packet of 20 ms than Pion forwarder", 2, "×", ratio, _said(theirs))


def _scenes(scenes: Scenes) -> Iterator[Goal]:
    def of(scene: str, figure: str) -> float | None:
        found = scenes.get(scene, {}).get(figure)
        return float(found) if isinstance(found, int | float) else None

    def listed(scene: str, figure: str, at: int) -> float | None:
        found = scenes.get(scene, {}).get(figure)
        return float(found[at]) if isinstance(found, list) else None

    check: Callable[..., Goal] = _at_most
    bad, at = "speaker's bad path", "loss 5 %, jitter 50 ms"
    yield _at_least("5 % loss, 50 ms jitter at a speaker: time heard", 99.5, "%", listed(bad, at, 0), "simulated path")
    yield check("5 % loss, 50 ms jitter at a speaker: longest stall", 60, "ms", listed(bad, at, 1), "simulated path")
    for percent, most in ((5, 1), (10, 3)):
        found = of("lossy link, Chromium", f"concealed_at_{percent}_percent")
        yield check(f"{percent} % loss at a listener: concealed", most, "%", found, "Chromium, each packet twice")
    yield check("mouth to ear, added, who may speak", 60, "ms", of("mouth to ear", "speaker_p50_ms"), "median")
    yield check("mouth to ear, added, who listens", 140, "ms", of("mouth to ear", "listener_p50_ms"), "median")
    yield check("role at the relay's port → gate, p99", 10, "ms", of("gate", "p99_ms"), "500 listeners served")
    yield check("20 who talk at once", 25, "% of a core", of("twenty talk", "percent_of_a_core"), "with all their ears")
    yield _at_least("joins of a storm of 2,000", 200, "a second", of("storm", "joins_per_s"), "a second: 10 s in all")
