"""A worker's counters as metrics. Sums are over the peers connected now, so they fall when one goes: gauges."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

from bridge.media.counters import Stats
from bridge.telemetry import metrics

_OF_PEERS = {
    "packets_in": "RTP packets that passed authentication",
    "gated": "Of these, dropped because the sender may not speak",
    "decoded": "Packets decoded",
    "lost": "Packets missing at their turn, concealed or recovered",
    "recovered": "Of these, recovered by in-band FEC",
    "restored": "Packets whose copy in a later one came before them, or instead",
    "late": "Packets that came after their turn",
    "refused": "Packets that failed authentication, or were replayed",
    "packets_out": "RTP packets sent",
    "bytes_out": "Bytes of RTP sent",
}
_NOT_SHOWN = {"pid", "port", "fan_out"}
_QUANTILES = {"0.5": 0.5, "0.95": 0.95, "1": 1.0}


def publish(stats: Stats) -> None:
    """Set the metrics ``eyvan_peers_*``, and ``eyvan_worker_*`` of each worker (label ``worker``: its number)."""
    for name, text in _OF_PEERS.items():
        total = sum(getattr(peer, name) for peer in stats.peers.values())
        metrics.gauge(f"eyvan_peers_{name}", f"{text}, of the peers connected now").set(total)
    copies = metrics.gauge("eyvan_peers_copies", "Peers whose link is lossy: they get each packet twice")
    copies.set(sum(peer.copies for peer in stats.peers.values()))
    loss = [peer.remote_loss for peer in stats.peers.values() if peer.connected]
    rtt = [peer.rtt_s for peer in stats.peers.values() if peer.rtt_s is not None]
    _quantiles("eyvan_peers_loss", "Fraction of our packets that peers last reported as lost", loss)
    _quantiles("eyvan_peers_rtt_seconds", "Round trip to the peers, from their last reports", rtt)
    metrics.gauge("eyvan_workers_running", "Media workers that run now").set(len(stats.workers))
    for field in dataclasses.fields(stats.worker):
        if field.name not in _NOT_SHOWN:
            gauge = metrics.gauge(f"eyvan_worker_{field.name}", "Of a media worker since its start")
            for number, counters in stats.workers.items():
                gauge.set(getattr(counters, field.name), worker=number)


def _quantiles(name: str, text: str, values: Sequence[float]) -> None:
    """One gauge of three (label ``quantile``), by nearest rank; 0 where there is no value."""
    gauge, ranked = metrics.gauge(name, text), sorted(values)
    for label, quantile in _QUANTILES.items():
        gauge.set(ranked[math.ceil(quantile * len(ranked)) - 1] if ranked else 0.0, quantile=label)
