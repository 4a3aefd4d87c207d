"""What is counted of peers and workers, and how the counts of several workers become those of the relay."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class PeerStats:
    """Counters of one peer since it joined; times in seconds, rates none."""

    stage: str = ""
    csrc: int = 0
    connected: bool = False
    hear: bool = False
    speak: bool = False
    packets_in: int = 0  # RTP that passed SRTP authentication
    bytes_in: int = 0  # of these packets, as received
    gated: int = 0  # authenticated, then dropped because the gate was shut
    decoded: int = 0  # packets given to the decoder
    lost: int = 0  # packets missing at their turn: hidden by FEC or concealment
    recovered: int = 0  # of these, by in-band FEC
    late: int = 0  # came after their turn
    ignored: int = 0  # another payload type, or a source we do not take
    restored: int = 0  # packets whose copy in a later one came before them, or instead (RFC 2198); these are not lost
    refused: int = 0  # SRTP or SRTCP that failed authentication or was a replay
    messages: int = 0  # that came by data channels
    jitter_target_ms: float = 0.0
    packets_out: int = 0
    bytes_out: int = 0
    copies: bool = False  # whether it gets each packet's sound a second time in the next one
    remote_loss: float = 0.0  # fraction, as the last receiver report told (RFC 3550 §6.4.1)
    rtt_s: float | None = None
    srtp_profile: str = ""
    path: str = ""  # "udp" or "tcp": how what we send goes


@dataclass(frozen=True, slots=True)
class WorkerCounters:
    """Counters of a worker since its start."""

    pid: int = 0
    port: int = 0
    peers: int = 0
    stages: int = 0
    ticks: int = 0
    ticks_skipped: int = 0  # after a stall of more than three ticks
    late_p50_ms: float = 0.0  # how late a tick began, over the last 3,000
    late_p99_ms: float = 0.0
    tick_errors: int = 0
    encodes: int = 0
    stream_dropped: int = 0  # frames that the control process did not take in time
    stun_refused: int = 0  # no such ufrag, bad MESSAGE-INTEGRITY or FINGERPRINT, not a Binding request
    junk: int = 0  # datagrams of no known kind, or from an address that passed no check
    send_errors: int = 0
    out_mbit: float = 0.0  # of sound, in the last second, with RTP, UDP and IP headers
    fan_out: str = ""  # the engine: "C" or "Python"
    cpu_s: float = 0.0
    streams: int = 0  # TCP connections now
    streams_refused: int = 0  # closed without a check that holds: junk, silence, no place
    stream_drops: int = 0  # packets that TCP connections were too slow for
    moved_to_tcp: int = 0  # connected peers whose path went from UDP to TCP …
    moved_to_udp: int = 0  # … and back
    restarts: int = 0  # how often the worker in this place was started again; filled in by the control process
    trunk_dropped: int = 0  # frames and voices that another worker did not take in time, or had no trunk to
    trunk_late: int = 0  # … that came from another worker too late, or for a stage that it has given up


@dataclass(frozen=True, slots=True)
class VoiceStats:
    """What the home of a stage counts of a speaker whose peer is at another worker; fields as in PeerStats."""

    stage: str
    csrc: int
    counts: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Stats:
    """Of one worker, or of all: then ``worker`` is the first that runs, and ``workers`` has each by its number."""

    worker: WorkerCounters
    peers: Mapping[str, PeerStats]
    voices: tuple[VoiceStats, ...] = ()
    workers: Mapping[int, WorkerCounters] = field(default_factory=dict)


def stats_from(values: Mapping[str, Any]) -> Stats:
    """Of what came through the socket."""
    peers = {peer: PeerStats(**each) for peer, each in values["peers"].items()}
    voices = tuple(VoiceStats(**each) for each in values["voices"])
    workers = {int(number): WorkerCounters(**each) for number, each in values["workers"].items()}
    return Stats(WorkerCounters(**values["worker"]), peers, voices, workers)


def merged(found: Mapping[int, Stats]) -> Stats:
    """The stats of several workers (at least one) as those of the relay. A speaker's voice is counted where it is
    mixed, everything else of the peer where the peer is."""
    peers = {peer: each for stats in found.values() for peer, each in stats.peers.items()}
    by_voice = {(each.stage, each.csrc): peer for peer, each in peers.items()}
    for voice in [each for stats in found.values() for each in stats.voices]:
        peer = by_voice.get((voice.stage, voice.csrc))
        if peer is not None:
            peers[peer] = dataclasses.replace(peers[peer], **voice.counts)
    workers = {number: found[number].worker for number in sorted(found)}
    return Stats(next(iter(workers.values())), peers, (), workers)
