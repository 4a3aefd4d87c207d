"""The bench, so that it does not rot: one small row of each of our packet lengths, a scene, and the page it writes."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

import bench.__main__ as command
from bench import janus, report, servers
from bench.goals import best, goals
from bench.measure import Row
from bench.plan import Measured, Peers, Played, Step, steps

NOBODY = Peers(None, None, {})


@pytest.fixture
def page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """docs/performance.md of another place; results too."""
    copy = tmp_path / "performance.md"
    copy.write_text(report.PAGE.read_text())
    monkeypatch.setattr(report, "PAGE", copy)
    monkeypatch.setattr(report, "RESULTS", tmp_path / "results.json")
    return copy


async def test_a_run_measures_goes_on_after_a_failure_and_writes_the_page(page: Path) -> None:
    given = command.parsed(["--seconds", "0.5", "--write"])

    async def fails(host: str, seconds: float) -> Mapping[str, Any]:
        raise ValueError("no such thing")

    def missing() -> servers.Server:
        raise FileNotFoundError("janus")

    small: list[Step] = [
        Measured("Janus audiobridge", 20, 3, 1, missing),
        Measured("Eyvan, C", 60, 3, 1, lambda: servers.Eyvan("c", 60)),
        Played("a scene that fails", fails),
    ]
    run = command.Run({"commit": "this"}, given)
    await run.go(small)
    failed, ours, floor = run.rows
    assert "FileNotFoundError" in failed.more["error"]
    assert "error" not in ours.more, ours.more
    assert ours.more["profiles"] == ["SRTP_AEAD_AES_128_GCM"]
    assert ours.datagram > 150, "three frames of 20 ms; no figure of time is asserted here: the machine may be busy"
    assert min(ours.us, ours.us_per_packet, ours.join_cpu_ms, ours.joins_per_s, floor.us) > 0
    assert "ValueError" in run.scenes["a scene that fails"]["error"]

    check_page(page, ours)

    again = command.Run({"commit": "this"}, given)
    again.resume()
    assert [each.server for each in again.rows] == ["Eyvan, C", "kernel floor"], "what failed is tried again"
    await again.go([small[1]])
    assert len(again.rows) == 2, "what is there is not measured again"
    other = command.Run({"commit": "another"}, given)
    other.resume()
    assert other.rows == []


def check_page(page: Path, ours: Row) -> None:
    written = page.read_text()
    assert report.line(ours) in written
    assert written.startswith("# Performance")
    assert written.rstrip().endswith(report.PAGE.read_text().rstrip()[-80:])
    assert "<polyline" in (page.parent / "performance-late.svg").read_text()


async def test_what_there_is_no_time_for_is_named(page: Path) -> None:
    given = command.parsed(["--minutes", "0.000001", "--write"])
    run = command.Run({"commit": "this"}, given)
    await run.go(steps(NOBODY, "127.0.0.1", quick=False))
    assert run.rows == []
    left = json.loads(report.RESULTS.read_text())["settings"]["left out, as time was up"]
    assert "Eyvan, C 60 ms 1000 × 1" in left
    assert "worker killed" in left


def test_a_plan_names_each_step_once_and_a_quick_one_is_a_part(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(janus, "missing", lambda: "")
    all_there = Peers(Path("/pion"), Path("/livekit"), {})
    full = [each.name for each in steps(all_there, "127.0.0.1", quick=False)]
    assert len(full) == len(set(full))
    for peer in ("Pion", "LiveKit", "Janus audiobridge", "Janus videoroom", "Janus streaming", "aiortc", "Python"):
        assert any(peer in name for name in full), peer
    quick = steps(all_there, "127.0.0.1", quick=True)
    assert 8 < len(quick) < 15
    monkeypatch.setattr(janus, "missing", lambda: "not installed")
    assert {each.series[0] for each in steps(NOBODY, "127.0.0.1", quick=True) if isinstance(each, Measured)} == {
        "Eyvan, C",
        "aiortc MediaRelay",
    }


def test_goals_are_told_as_missed_reached_or_not_measured() -> None:
    def row(server: str, packet_ms: int, listeners: int, us: float, late: float = 5.0) -> Row:
        packets = {"packets_per_listener_second": 1000 / packet_ms}
        return Row(server, packet_ms, listeners, us=us, us_per_packet=us / 50, loss=0, late_p99_ms=late, more=packets)

    rows = [
        row("Eyvan, C", 60, 1000, 190),
        row("Eyvan, C", 60, 2000, 150),
        row("Eyvan, C", 20, 1000, 300, late=25),
        row("Pion forwarder", 20, 500, 900),
    ]
    starved = row("Eyvan, C", 60, 8000, 10)
    starved.more["packets_per_listener_second"] = 5.0
    assert best([*rows, starved], "Eyvan, C", 60) is rows[1]
    verdicts = {goal.what: (goal.verdict, goal.found) for goal in goals(rows, {"gate": {"p99_ms": 12.0}})}
    assert verdicts["a listener at 60 ms, C"] == ("reached", 150)
    assert verdicts["1,000 listeners at 20 ms: late p99, no loss"] == ("missed", 25)
    assert verdicts["cheaper for a listener than Pion forwarder"] == ("reached", 6)
    assert verdicts["cheaper for a packet of 20 ms than Pion forwarder"] == ("reached", 3)
    assert verdicts["cheaper for a listener than Janus audiobridge"] == ("not measured", None)
    assert verdicts["role at the relay's port → gate, p99"] == ("missed", 12)
    assert verdicts["20 who talk at once"] == ("not measured", None)
