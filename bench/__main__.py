"""``make bench``: the fan-out beside its peers, in one run on this machine.

    python -m bench [--listeners 100 1000 …] [--seconds 5] [--host ADDRESS] [--only NAME …]

Writes bench/results.json and the table in docs/performance.md. Compare ratios of one run: microseconds belong to the
machine and to what else it did; CPU time, not wall time, is told, and the load average stands beside it.
"""

from __future__ import annotations

import argparse
import asyncio
import dataclasses
import json
import os
import platform
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from bench import report, servers
from bench.measure import WINDOWS, Row, floor, measure
from bridge.media.udp import addresses_of_interfaces

HERE = Path(__file__).parent


@dataclasses.dataclass(frozen=True)
class Series:
    """One server with more and more listeners, as far as it holds."""

    name: str
    packet_ms: int
    listeners: Sequence[int]
    make: Callable[[], servers.Server]


def series(pion: Path | None, many: Sequence[int]) -> list[Series]:
    few = [number for number in many if number <= 1000]
    found = [
        Series("Eyvan, C", 60, many, lambda: servers.Eyvan("c", 60)),
        Series("Eyvan, C", 20, many, lambda: servers.Eyvan("c", 20)),
    ]
    if pion is not None:
        found.append(Series("Pion forwarder", 20, (200, 500, 1000), lambda: servers.pion(pion)))
    return [
        *found,
        Series("aiortc MediaRelay", 20, (10, 20), servers.media_relay),
        Series("Eyvan, Python", 60, few, lambda: servers.Eyvan("python", 60)),
        Series("Eyvan, Python", 20, few, lambda: servers.Eyvan("python", 20)),
    ]


def build_pion(directory: Path) -> Path | None:
    """The forwarder's binary, or None where there is no Go or its modules cannot be had."""
    if shutil.which("go") is None:
        return None
    target = directory / "pion"
    result = subprocess.run(["go", "build", "-o", target, "."], cwd=HERE / "pion", capture_output=True, check=False)
    return target if result.returncode == 0 else None


async def run(given: argparse.Namespace, pion: Path | None, keep: Callable[[Sequence[Row]], None]) -> None:
    """``keep`` is called after each row with all so far: a run that is stopped has told what it found."""
    rows: list[Row] = []
    for each in series(pion, given.listeners):
        if given.only and not any(name in f"{each.name} {each.packet_ms}" for name in given.only):
            continue
        for listeners in each.listeners:
            row = Row(each.name, each.packet_ms, listeners)
            try:
                await measure(each.make(), row, given.host, given.seconds, idle=each.name.startswith("Eyvan"))
            except (TimeoutError, ConnectionError, OSError, ExceptionGroup) as error:
                row.more["error"] = f"{type(error).__name__}: {error}"
            rows.append(row)
            print(report.line(row), flush=True)
            if each.name == "Eyvan, C" and row.datagram:
                at = Row("kernel floor", each.packet_ms, listeners, datagram=row.datagram)
                rows.append(await floor(at, given.host, given.seconds / 2))
                print(report.line(rows[-1]), flush=True)
            keep(rows)
            if row.loss > 0.01:  # a row that is only late, on a busy machine, is told as such and the next is tried
                break


def settings(given: argparse.Namespace, pion: Path | None) -> dict[str, Any]:
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False)
    model = next((line for line in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in line), ":")
    return {
        "when": time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()),
        "commit": commit.stdout.strip(),
        "cpu": f"{os.cpu_count()} × {model.partition(':')[2].strip()}",
        "kernel": platform.release(),
        "python": platform.python_version(),
        "windows": f"median of {WINDOWS} windows of {given.seconds:g} s",
        "sound": "one talker, mono, 48 kbit/s",
        "pion": "built" if pion else "not built (no Go, or no modules)",
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--listeners", type=int, nargs="*", default=[100, 500, 1000, 2000], help="numbers to try")
    parser.add_argument("--seconds", type=float, default=5.0, help="length of one window")
    parser.add_argument("--host", default=addresses_of_interfaces()[0], help="address for clients and servers")
    parser.add_argument("--only", nargs="*", default=[], help='series whose "name packet" contains one of these')
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        pion = build_pion(Path(directory))
        facts = settings(given, pion)
        print(json.dumps(facts, indent=1), flush=True)

        def keep(rows: Sequence[Row]) -> None:
            result = {"settings": facts, "rows": [dataclasses.asdict(row) for row in rows]}
            (HERE / "results.json").write_text(json.dumps(result, indent=1) + "\n")
            report.write(facts, rows)

        asyncio.run(run(given, pion, keep))


if __name__ == "__main__":
    main()
