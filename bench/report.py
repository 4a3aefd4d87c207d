"""The table: rows of one run as Markdown, put between two marks in docs/performance.md."""

from __future__ import annotations

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
        _share(row) if row.holds else "(does not hold)",
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
    return head + f"| {row.us:.0f} | " + " | ".join(cells) + " |"


def _share(row: Row) -> str:
    return f"{1e6 / row.us:,.0f}" if row.us else ""


def ratios(rows: Sequence[Row]) -> list[str]:
    """Each peer at the largest number it holds, against ours at its largest."""
    best: dict[tuple[str, int], Row] = {}
    for row in rows:
        if row.us and (row.server == "kernel floor" or row.holds):
            best[row.server, row.packet_ms] = row
    lines = []
    for ours in ((name, ms) for name in ("Eyvan, C", "Eyvan, Python") for ms in (60, 20)):
        if ours not in best:
            continue
        mine = best[ours]
        parts = [f"{mine.us / best['kernel floor', ours[1]].us:.2f} × the kernel's floor"] * (
            ("kernel floor", ours[1]) in best
        )
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
