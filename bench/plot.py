"""Two small pictures of one run, as SVG of our own: no library, readable on light and dark pages."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from xml.sax.saxutils import escape

from bench.measure import Row

_WIDTH, _HEIGHT, _LEFT, _RIGHT, _TOP, _BOTTOM = 780, 400, 60, 250, 34, 44
_COLOURS = {
    "Eyvan, C": "#2f7d6b",
    "Eyvan, Python": "#5fb49c",
    "kernel floor": "#9a9a9a",
    "Pion forwarder": "#1f78b4",
    "LiveKit": "#c2571a",
    "Janus audiobridge": "#cc4a7b",
    "Janus videoroom": "#b08fe8",
    "Janus videoroom, 2 loops": "#7a5cc0",
    "Janus streaming, 2 loops": "#4d4d9f",
    "aiortc MediaRelay": "#b8860b",
}
_OTHER = "#8c5a3c"
_STYLE = "text{font:12px system-ui,sans-serif;fill:#808080}line.grid{stroke:#80808040}text.title{font-weight:600}"


def curves(rows: Sequence[Row], figure: Callable[[Row], float], title: str, limit: float | None = None) -> str:
    """A line for each server and packet length (dashed: longer than 20 ms) over the number of listeners, both axes
    logarithmic. A server has the same colour in every picture."""
    lines: dict[tuple[str, int], list[tuple[float, float]]] = {}
    for row in sorted(rows, key=lambda each: each.listeners):
        value = figure(row)
        if row.talkers == 1 and value > 0 and "error" not in row.more:
            lines.setdefault((row.server, row.packet_ms), []).append((row.listeners, value))
    if not lines:
        return ""
    points = [point for line in lines.values() for point in line]
    x = _scale([each for each, _ in points], _LEFT, _WIDTH - _RIGHT)
    y = _scale([each for _, each in points] + ([limit] if limit else []), _HEIGHT - _BOTTOM, _TOP)
    parts = [f'<text class="title" x="{_LEFT}" y="18">{escape(title)}</text>', *_grid(points, x, y, limit)]
    for number, ((server, ms), line) in enumerate(sorted(lines.items(), key=lambda each: -each[1][-1][1])):
        colour = _COLOURS.get(server, _OTHER)
        dashes = "" if ms == 20 else ' stroke-dasharray="6 3"'
        path = " ".join(f"{x(a):.1f},{y(b):.1f}" for a, b in line)
        parts.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"{dashes}/>')
        parts += [f'<circle cx="{x(a):.1f}" cy="{y(b):.1f}" r="3" fill="{colour}"/>' for a, b in line]
        at = _TOP + 8 + 18 * number
        key = f'x1="{_WIDTH - _RIGHT + 14}" y1="{at - 3}" x2="{_WIDTH - _RIGHT + 38}" y2="{at - 3}"'
        parts.append(f'<line {key} stroke="{colour}" stroke-width="2"{dashes}/>')
        parts.append(f'<text x="{_WIDTH - _RIGHT + 46}" y="{at + 1}">{escape(f"{server}, {ms} ms")}</text>')
    body = "\n".join(parts)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img">'
        f"<title>{escape(title)}</title><style>{_STYLE}</style>\n{body}\n</svg>\n"
    )


def _scale(values: Sequence[float], start: float, end: float) -> Callable[[float], float]:
    low, high = math.log10(min(values)), math.log10(max(values))
    low, high = low - 0.05, max(high, low + 0.3) + 0.05
    return lambda value: start + (math.log10(value) - low) / (high - low) * (end - start)


def _grid(
    points: Sequence[tuple[float, float]], x: Callable[[float], float], y: Callable[[float], float], limit: float | None
) -> list[str]:
    right, bottom = _WIDTH - _RIGHT, _HEIGHT - _BOTTOM
    made = [f'<text x="{(_LEFT + right) / 2}" y="{_HEIGHT - 8}" text-anchor="middle">listeners</text>']
    for value in _ticks([each for each, _ in points]):
        made.append(f'<line class="grid" x1="{x(value):.1f}" y1="{_TOP}" x2="{x(value):.1f}" y2="{bottom}"/>')
        made.append(f'<text x="{x(value):.1f}" y="{bottom + 16}" text-anchor="middle">{value:,.0f}</text>')
    for value in _ticks([each for _, each in points]):
        made.append(f'<line class="grid" x1="{_LEFT}" y1="{y(value):.1f}" x2="{right}" y2="{y(value):.1f}"/>')
        made.append(f'<text x="{_LEFT - 6}" y="{y(value) + 4:.1f}" text-anchor="end">{value:,g}</text>')
    if limit:
        at = f'x1="{_LEFT}" y1="{y(limit):.1f}" x2="{right}" y2="{y(limit):.1f}"'
        made.append(f'<line {at} stroke="#cc4a4a" stroke-dasharray="5 4"/>')
    return made


def _ticks(values: Sequence[float]) -> list[float]:
    low, high = min(values), max(values)
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    found = [step * 10.0**decade for decade in decades for step in (1, 2, 5)]
    return [each for each in found if low * 0.9 <= each <= high * 1.1]


def write(rows: Sequence[Row], folder: Path, in_full: Callable[[Row], bool]) -> list[str]:
    """The Markdown lines that show what was drawn; ``folder`` is that of the page."""
    shown = [each for each in rows if each.server != "kernel floor"]
    floor = [each for each in rows if each.server == "kernel floor"]
    pictures = {
        "performance-cost.svg": (
            "CPU for one listener for one second, µs (less is better)",
            curves([*filter(in_full, shown), *floor], lambda row: row.us, "µs of CPU for one listener for one second"),
        ),
        "performance-late.svg": (
            "late packets, p99 in ms; above the dashed line a server no longer holds",
            curves(shown, lambda row: row.late_p99_ms, "p99 of lateness, ms", limit=50),
        ),
    }
    lines = []
    for name, (about, svg) in pictures.items():
        if svg:
            (folder / name).write_text(svg)
            lines.append(f"![{about}]({name})")
    return lines
