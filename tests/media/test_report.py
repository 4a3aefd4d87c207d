"""Loss and round trip of all peers in the metrics."""

from __future__ import annotations

from bridge.media.counters import PeerStats, Stats, WorkerCounters
from bridge.media.report import publish
from bridge.telemetry import metrics


def test_loss_and_round_trip_are_told() -> None:
    peers = {
        str(number): PeerStats("s", connected=True, remote_loss=number / 100, rtt_s=number / 10, copies=number > 18)
        for number in range(1, 21)
    }
    peers["new"] = PeerStats("s")
    publish(Stats(WorkerCounters(), peers))
    text = metrics.render()
    for line in (
        'eyvan_peers_loss{quantile="0.5"} 0.1',
        'eyvan_peers_loss{quantile="0.95"} 0.19',
        'eyvan_peers_loss{quantile="1"} 0.2',
        'eyvan_peers_rtt_seconds{quantile="0.5"} 1',
        "eyvan_peers_copies 2",
    ):
        assert f"\n{line}" in text, text
    publish(Stats(WorkerCounters(), {}))
    assert '\neyvan_peers_loss{quantile="1"} 0' in metrics.render()
