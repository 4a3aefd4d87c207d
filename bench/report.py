"""The table: rows of one run as Markdown, put between two marks in docs/performance.md."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bench.measure import Row

PAGE = Path(__file__).parent.parent / "docs" / "performance.md"
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
        cells = [_share(row), f"{row.us_per_packet:.1f}", *[""] * 7, f"{row.load_average:.1f}"]
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
    us = f"{row.us:.0f}" if _in_full(row) else "(starved)"
    return head + f"| {us} | " + " | ".join(cells) + " |"


def _share(row: Row) -> str:
    return f"{1e6 / row.us:,.0f}" if row.us else ""


def _in_full(row: Row) -> bool:
    """Whether every listener got all the sound there was: CPU can be compared even if a busy machine made it late."""
    got = row.more.get("packets_per_listener_second", 0.0)
    return row.loss < 0.001 and got > 0.95 * 1000 / row.packet_ms


def ratios(rows: Sequence[Row]) -> list[str]:
    """Each peer at the largest number it serves in full, against ours at its largest."""
    best: dict[tuple[str, int], Row] = {}
    for row in rows:
        if row.server == "kernel floor" or _in_full(row):
            best[row.server, row.packet_ms] = row
    lines = []
    for ours in ((name, ms) for name in ("Eyvan, C", "Eyvan, Python") for ms in (60, 20)):
        if ours not in best:
            continue
        mine = best[ours]
        floor = next((row for row in rows if row.server == "kernel floor" and row.packet_ms == ours[1]), None)
        parts = [f"{mine.us / floor.us:.2f} × the kernel's floor"] if floor is not None else []
        for peer in (("Pion forwarder", 20), ("aiortc MediaRelay", 20)):
            if peer in best:
                per_packet = best[peer].us_per_packet / mine.us_per_packet
                parts.append(
                    f"{best[peer].us / mine.us:.1f} times less than {peer[0]} at {best[peer].listeners} "
                    f"({per_packet:.1f} per packet)"
                )
        lines.append(f"- **{ours[0]}, {ours[1]} ms**, {mine.listeners} listeners: " + "; ".join(parts) + ".")
    return lines


def write(facts: Mapping[str, Any], rows: Sequence[Row]) -> None:
    """Replace what stands between the marks."""
    table = [_HEAD, "|" + "---|" * 14, *map(line, rows)]
    facts_line = "; ".join(f"{name}: {value}" for name, value in facts.items())
    made = "\n".join([_BEGIN, "", f"_{facts_line}_", "", *ratios(rows), "", *table, "", _END])
    text = PAGE.read_text()
    before, rest = text.split(_BEGIN)
    PAGE.write_text(before + made + rest.split(_END)[1])


if __name__ == "__main__":  # the table again, from the results that are there
    found = json.loads((Path(__file__).parent / "results.json").read_text())
    write(found["settings"], [Row(**each) for each in found["rows"]])
