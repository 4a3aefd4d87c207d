"""The page's tables and pictures: one run, put between two marks in docs/performance.md."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from bench import plot
from bench.goals import Scenes, goals, in_full
from bench.measure import Row

PAGE = Path(__file__).parent.parent / "docs" / "performance.md"
RESULTS = Path(__file__).parent / "results.json"
_BEGIN, _END = "<!-- made by make bench: begin -->", "<!-- end -->"
_HEAD = (
    "| server | packet ms | listeners | µs/l·s | a core serves | µs/packet | idle µs/l·s | loss % | late p50 / p99 ms "
    "| kB/listener | joins/s | join CPU ms | Mbit/s | load |"
)


def line(row: Row) -> str:
    """One row of the table."""
    head = f"| {row.server} | {row.packet_ms} | {row.listeners} "
    if "error" in row.more:
        return head + f"| fell behind: {row.more['error'][:60]} " + "|" * 11
    if row.server == "kernel floor":
        cells = [_share(row), f"{row.us_per_packet:.1f}", *[""] * 8, f"{row.load_average:.1f}"]
        return head + f"| {row.us:.0f} | " + " | ".join(cells) + " |"
    cells = [
        _share(row) if row.holds else "(late)",
        f"{row.us_per_packet:.1f}",
        f"{row.idle_us:.0f}" if row.idle_us is not None else "",
        f"{100 * row.loss:.2f}",
        f"{row.late_p50_ms:.1f} / {row.late_p99_ms:.1f}",
        f"{row.kb_per_listener:.0f}",
        f"{row.joins_per_s:.0f}",
        f"{row.join_cpu_ms:.1f}",
        f"{row.mbit:.1f}",
        f"{row.load_average:.1f}",
    ]
    us = f"{row.us:.0f}" if in_full(row) else "(starved)"
    return head + f"| {us} | " + " | ".join(cells) + " |"


def _share(row: Row) -> str:
    return f"{1e6 / row.us:,.0f}" if row.us else ""


def _table(rows: Sequence[Row]) -> Iterator[str]:
    yield _HEAD
    yield "|" + "---|" * 14
    yield from map(line, rows)


def goal_lines(rows: Sequence[Row], scenes: Scenes) -> Iterator[str]:
    yield "| goal | wanted | measured | | |"
    yield "|---|---|---|---|---|"
    for goal in goals(rows, scenes):
        found = "" if goal.found is None else f"{goal.found:,.0f}" if goal.found >= 100 else f"{goal.found:.1f}"
        wanted = "" if goal.wanted.startswith("≥ 0 ") else goal.wanted
        verdict = goal.verdict if wanted or goal.found is None else ""
        yield f"| {goal.what} | {wanted} | {found} | {verdict} | {goal.about} |"


def _holds(rows: Sequence[Row]) -> Iterator[str]:
    """The largest number each server was shown to hold."""
    yield "| server | packet ms | tracks | most listeners held |"
    yield "|---|---|---|---|"
    series = dict.fromkeys(
        (each.server, each.packet_ms, each.talkers) for each in rows if each.server != "kernel floor"
    )
    for server, packet_ms, talkers in series:
        fit = [each for each in rows if (each.server, each.packet_ms, each.talkers) == (server, packet_ms, talkers)]
        held = max((each.listeners for each in fit if each.holds and in_full(each)), default=0)
        tried = max(each.listeners for each in fit)
        tracks = 1 if server.startswith("Eyvan") else talkers
        yield f"| {server} | {packet_ms} | {tracks} | {held or 'none tried'}{' (all tried)' if held == tried else ''} |"


def _scenes(scenes: Scenes) -> Iterator[str]:
    yield "| scene | figures |"
    yield "|---|---|"
    for name, figures in scenes.items():
        told = "; ".join(f"{key.replace('_', ' ')}: {_short(value)}" for key, value in figures.items() if key != "runs")
        yield f"| {name} | {told} |"


def _short(value: object) -> str:
    if isinstance(value, float):
        return f"{value:,.1f}"
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {_short(each)}" for key, each in value.items() if key != "runs")
    if isinstance(value, list):
        return " / ".join(map(_short, value))
    return str(value).replace("|", "/")


def _settings(rows: Sequence[Row]) -> Iterator[str]:
    for server, said in dict.fromkeys((each.server, each.more.get("settings", "")) for each in rows):
        if said:
            yield f"- {server}: {said}."


def lines(facts: Mapping[str, Any], rows: Sequence[Row], scenes: Scenes, pictures: Sequence[str]) -> Iterator[str]:
    """What stands between the marks."""
    yield "_" + "; ".join(f"{name}: {value}" for name, value in facts.items()) + "_"
    yield from ("", "### Goals", "", *goal_lines(rows, scenes))
    yield from ("", "### One who talks: every server sends one track", "", *_table([r for r in rows if r.talkers == 1]))
    yield from ("", *pictures)
    several = [each for each in rows if each.talkers > 1]
    if several:
        number = several[0].talkers
        yield from (
            "",
            f"### {number} who talk: Eyvan sends one mix, a forwarder {number} tracks",
            "",
            *_table(several),
        )
    yield from ("", "### What each was shown to hold (loss < 0.1 %, late p99 < 50 ms)", "", *_holds(rows))
    if scenes:
        yield from ("", "### Scenes", "", *_scenes(scenes))
    yield from ("", "### Settings", "", *_settings(rows))


def write(facts: Mapping[str, Any], rows: Sequence[Row], scenes: Scenes) -> None:
    """Replace what stands between the marks, and the pictures beside the page."""
    made = "\n".join(lines(facts, rows, scenes, plot.write(rows, PAGE.parent, in_full)))
    before, rest = PAGE.read_text().split(_BEGIN)
    PAGE.write_text(f"{before}{_BEGIN}\n\n{made}\n\n{_END}{rest.split(_END)[1]}")


if __name__ == "__main__":  # the page again, from the results that are there
    found = json.loads(RESULTS.read_text())
    write(found["settings"], [Row(**each) for each in found["rows"]], found.get("scenes", {}))
