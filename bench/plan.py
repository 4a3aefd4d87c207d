"""What a run does, in order: what matters most first, so that a run that is stopped has told it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench import janus, scenes, servers
from bench.janus import Janus
from bench.livekit import LiveKit
from bench.servers import Server

Scene = Callable[[str, float], Awaitable[Mapping[str, Any]]]
"""(host, seconds of one window) → figures."""


@dataclass(frozen=True)
class Measured:
    """One row of the tables: a server, so many listeners, so many who talk."""

    server: str
    packet_ms: int
    listeners: int
    talkers: int
    make: Callable[[], Server]

    @property
    def name(self) -> str:
        return f"{self.server} {self.packet_ms} ms {self.listeners} × {self.talkers}"

    @property
    def series(self) -> tuple[str, int, int]:
        return self.server, self.packet_ms, self.talkers

    @property
    def ours(self) -> bool:
        return self.server.startswith("Eyvan")


@dataclass(frozen=True)
class Played:
    """One scene: figures of Eyvan alone, or of the stream beside Icecast."""

    name: str
    scene: Scene


Step = Measured | Played


@dataclass(frozen=True)
class Peers:
    """Paths of what was built, None for what is not there; ``why`` says why not."""

    pion: Path | None
    livekit: Path | None
    why: Mapping[str, str]


def steps(peers: Peers, host: str, *, quick: bool) -> list[Step]:
    played = {name: Played(name, scene) for name, scene in scenes.ALL.items()}
    if quick:
        return [*_quick(peers, host), *(played[name] for name in scenes.QUICK)]
    short = [each for name, each in played.items() if name not in scenes.LONG]
    return [*_main(peers, host), *short, *_more(peers, host), *(played[name] for name in scenes.LONG)]


def _eyvan(fan_out: str, packet_ms: int, *numbers: int, talkers: int = 1) -> Iterator[Measured]:
    name = "Eyvan, C" if fan_out == "c" else "Eyvan, Python"
    for number in numbers:
        yield Measured(name, packet_ms, number, talkers, lambda: servers.Eyvan(fan_out, packet_ms))


def _others(peers: Peers, host: str, numbers: Mapping[str, Sequence[int]], talkers: int = 1) -> Iterator[Measured]:
    """Of each server named in ``numbers`` that is there."""
    makers: dict[str, Callable[[], Server]] = {"aiortc MediaRelay": servers.media_relay}
    if peers.pion is not None:
        pion = peers.pion
        makers["Pion forwarder"] = lambda: servers.pion(pion)
    if peers.livekit is not None:
        livekit = peers.livekit
        makers["LiveKit"] = lambda: LiveKit(livekit, host)
    if not janus.missing():
        makers["Janus videoroom, 2 loops"] = lambda: Janus("videoroom", host, event_loops=2)
        makers["Janus videoroom"] = lambda: Janus("videoroom", host)
        makers["Janus audiobridge"] = lambda: Janus("audiobridge", host)
        makers["Janus streaming, 2 loops"] = lambda: Janus("streaming", host, event_loops=2)
    for name, each in numbers.items():
        for number in each if name in makers else ():
            yield Measured(name, 20, number, talkers, makers[name])


def _quick(peers: Peers, host: str) -> Iterator[Measured]:
    yield from _eyvan("c", 60, 500)
    yield from _eyvan("c", 20, 500)
    few = {"Pion forwarder": (200,), "Janus audiobridge": (30,), "Janus videoroom, 2 loops": (100,), "LiveKit": (100,)}
    yield from _others(peers, host, few | {"aiortc MediaRelay": (10,)})


def _main(peers: Peers, host: str) -> Iterator[Measured]:
    yield from _eyvan("c", 60, 1000, 2000, 4000, 6000)
    yield from _eyvan("c", 20, 500, 1000, 2000)
    forwarders = {
        "Pion forwarder": (100, 200, 500, 1000),
        "LiveKit": (100, 200, 500),
        "Janus videoroom, 2 loops": (100, 200, 500),
    }
    yield from _others(peers, host, forwarders)
    yield from _others(peers, host, {"Janus audiobridge": (20, 50, 100), "aiortc MediaRelay": (5, 10, 20)})
    yield from _eyvan("c", 60, 500, talkers=10)
    ten = {"Pion forwarder": (50, 100), "LiveKit": (50, 100), "Janus videoroom, 2 loops": (50,)}
    yield from _others(peers, host, ten, talkers=10)
    yield from _eyvan("python", 60, 1000)
    yield from _eyvan("python", 20, 500)


def _more(peers: Peers, host: str) -> Iterator[Measured]:
    """What fills the curves."""
    yield from _others(peers, host, {"Janus streaming, 2 loops": (100, 200, 500), "Janus videoroom": (100, 200)})
    yield from _eyvan("c", 60, 100, 500)
    yield from _eyvan("c", 20, 100)
    yield from _eyvan("python", 60, 500)
