"""``make bench``: the fan-out beside its peers, in one run on this machine.

    make bench                        all of it, at most 20 minutes
    make bench ARGS="--quick"         the main rows and a few scenes, at most 3 minutes
    make bench ARGS="--minutes 10"    stops beginning anything new then; says what was left out
    make bench ARGS="--resume"        goes on with a run of the same commit that was stopped

Writes bench/results.json after each step, and from it the tables and pictures of docs/performance.md (a quick run, and
one with --only, write nothing unless --write is given). Compare ratios of one run: microseconds belong to the machine
and to what else it did; CPU time, not wall time, is told, and the load average stands beside it. What fails is told in
its row, and the run goes on.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import dataclasses
import json
import os
import platform
import resource
import shutil
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bench import janus, livekit, report
from bench.measure import WINDOWS, Row, floor, measure
from bench.plan import Measured, Peers, Played, Step, steps
from bridge.media.udp import addresses_of_interfaces

HERE = Path(__file__).parent
_STEP_S = 150.0
"""No step may take longer: a peer that hangs costs its row."""


class Run:
    """The results so far; ``keep`` writes them."""

    def __init__(self, facts: Mapping[str, Any], given: argparse.Namespace) -> None:
        self.facts, self._given = dict(facts), given
        self._ends = time.monotonic() + 60 * given.minutes
        self.rows: list[Row] = []
        self.scenes: dict[str, Mapping[str, Any]] = {}
        self._fell: set[tuple[str, int, int]] = set()
        self._left: list[str] = []

    def resume(self) -> None:
        """Take over what a run of the same commit has found; a row that failed is tried again."""
        found = json.loads(report.RESULTS.read_text()) if report.RESULTS.exists() else {}
        if found.get("settings", {}).get("commit") == self.facts["commit"]:
            self.rows = [Row(**each) for each in found["rows"] if "error" not in each["more"]]
            self.scenes = {name: each for name, each in found["scenes"].items() if "error" not in each}

    async def go(self, plan: Sequence[Step]) -> None:
        for step in plan:
            if self._given.only and not any(each in step.name for each in self._given.only):
                continue
            if self._is_done(step):
                continue
            if time.monotonic() > self._ends:
                self._left.append(step.name)
                continue
            await (self._measure(step) if isinstance(step, Measured) else self._play(step))
            self.keep()
        if self._left:
            self.facts["left out, as time was up"] = ", ".join(self._left)
        self.facts["load average at the end"] = round(os.getloadavg()[0], 1)
        self.keep()

    def _is_done(self, step: Step) -> bool:
        if isinstance(step, Played):
            return step.name in self.scenes
        if step.series in self._fell:
            return True
        key = (step.server, step.packet_ms, step.listeners, step.talkers)
        return any((each.server, each.packet_ms, each.listeners, each.talkers) == key for each in self.rows)

    async def _measure(self, step: Measured) -> None:
        row = Row(step.server, step.packet_ms, step.listeners, step.talkers)
        try:
            async with asyncio.timeout(_STEP_S):
                await measure(step.make(), row, self._given.host, self._given.seconds, idle=step.ours)
        except Exception as error:  # a peer that cannot serve so many is a result, whatever it raised
            row.more["error"] = f"{type(error).__name__}: {error}"
        self._say(row)
        if step.server == "Eyvan, C" and step.talkers == 1 and row.datagram:
            await self._floor(row)
        if row.loss > 0.01:  # a row that is only late, on a busy machine, is told as such and the next is tried
            self._fell.add(step.series)

    async def _floor(self, row: Row) -> None:
        under = Row("kernel floor", row.packet_ms, row.listeners, datagram=row.datagram)
        with contextlib.suppress(TimeoutError, OSError):
            async with asyncio.timeout(_STEP_S):
                self._say(await floor(under, self._given.host, self._given.seconds / 2))

    def _say(self, row: Row) -> None:
        self.rows.append(row)
        print(report.line(row), flush=True)

    async def _play(self, step: Played) -> None:
        try:
            async with asyncio.timeout(_STEP_S):
                self.scenes[step.name] = await step.scene(self._given.host, self._given.seconds)
        except Exception as error:
            self.scenes[step.name] = {"error": f"{type(error).__name__}: {error}"}
        print(f"{step.name}: {json.dumps(self.scenes[step.name])}", flush=True)

    def keep(self) -> None:
        if not self._given.write:
            return
        rows = [dataclasses.asdict(row) for row in self.rows]
        result = {"settings": self.facts, "rows": rows, "scenes": self.scenes}
        fresh = report.RESULTS.with_suffix(".new")
        fresh.write_text(json.dumps(result, indent=1) + "\n")
        fresh.replace(report.RESULTS)
        report.write(self.facts, self.rows, self.scenes)


def build(directory: Path) -> Peers:
    """Build what has to be built. The first time it takes minutes; Go keeps what it compiled."""
    pion, why = None, {"pion": "not built (no Go)"}
    if shutil.which("go") is not None:
        command = ["go", "build", "-o", str(directory / "pion"), "."]
        made = subprocess.run(command, cwd=HERE / "pion", capture_output=True, text=True, check=False)
        pion = directory / "pion" if made.returncode == 0 else None
        why["pion"] = "built" if pion else f"not built ({(made.stderr.strip().splitlines() or ['?'])[-1][:80]})"
    binary, why["livekit"] = livekit.build(directory)
    why["livekit"] = why["livekit"] or livekit.MODULE.rpartition("@")[2]
    why["janus"] = janus.missing() or janus.version()
    why["icecast"] = "there" if shutil.which("icecast2") else "not installed (Debian: icecast2)"
    return Peers(pion, binary, why)


def commit() -> str:
    """Of what is measured; what a run itself writes does not count as a change."""

    def git(*command: str) -> str:
        return subprocess.run(["git", *command], cwd=HERE, capture_output=True, text=True, check=False).stdout.strip()

    return git("rev-parse", "--short", "HEAD") + (" and changes" if git("status", "--porcelain", "../bridge") else "")


def settings(given: argparse.Namespace, peers: Peers) -> dict[str, Any]:
    model = next((line for line in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in line), ":")
    return {
        "when": time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()),
        "commit": commit(),
        "cpu": f"{os.cpu_count()} × {model.partition(':')[2].strip()}",
        "kernel": platform.release(),
        "python": platform.python_version(),
        "windows": f"median of {WINDOWS} windows of {given.seconds:g} s",
        "sound": "mono, 48 kbit/s",
        **peers.why,
        "load average at the start": round(os.getloadavg()[0], 1),
    }


def parsed(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="the main rows and a few scenes; writes nothing")
    parser.add_argument("--minutes", type=float, help="begin nothing new after so many; 20, quick: 3")
    parser.add_argument("--seconds", type=float, help="length of one window; 3, quick: 2")
    parser.add_argument("--host", default=addresses_of_interfaces()[0], help="address for clients and servers")
    parser.add_argument("--only", nargs="*", default=[], help="steps whose name contains one of these; writes nothing")
    parser.add_argument("--resume", action="store_true", help="keep what a stopped run of this commit found")
    parser.add_argument("--write", action=argparse.BooleanOptionalAction, help="write results and page, or not")
    parser.add_argument("--list", action="store_true", help="say what would be done")
    given = parser.parse_args(arguments)
    given.minutes = given.minutes or (2.2 if given.quick else 20)
    given.seconds = given.seconds or (2 if given.quick else 3)
    if given.write is None:
        given.write = not (given.quick or given.only)
    return given


def main() -> None:
    given = parsed()
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(
        resource.RLIMIT_NOFILE, (most, most)
    )  # each listener of the load is a socket; children inherit it
    with tempfile.TemporaryDirectory() as directory:
        peers = build(Path(directory))
        plan = steps(peers, given.host, quick=given.quick)
        if given.list:
            print("\n".join(step.name for step in plan))
            return
        run = Run(settings(given, peers), given)
        print(json.dumps(run.facts, indent=1, ensure_ascii=False), flush=True)
        if given.resume:
            run.resume()
        asyncio.run(run.go(plan))
        print("\n".join(["", *report.goal_lines(run.rows, run.scenes)]))


if __name__ == "__main__":
    main()
