"""All stages at one worker: opened by the first peer, run at each tick, told what other workers send."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator

from bridge.media.control import Home, Hush, LevelsNow, Message, Sound, Tune, WorkerSettings
from bridge.media.counters import VoiceStats
from bridge.media.fanout import Engine
from bridge.media.mixer import Output
from bridge.media.peer import Peer
from bridge.media.sinks.stream import StreamSinks
from bridge.media.stage import Stage
from bridge.media.trunk import Spoken, Trunk


class Stages:
    """``bridge.media.trunk.TrunkEnd``. Owned by the worker, called in its one loop; owns the trunk and the streams for
    players. ``defect`` is called in a handler of whatever was raised, with a word about where."""

    def __init__(
        self,
        settings: WorkerSettings,
        engine: Engine,
        emit: Callable[[Message], None],
        clock: Callable[[], float],
        defect: Callable[[str], None],
        adopt: Callable[[socket.socket], None],
    ) -> None:
        """``clock``: seconds, as the loop has them. ``adopt`` takes a TCP connection that was handed to us."""
        self._settings, self._engine = settings, engine
        self._emit, self._clock, self._defect, self._adopt = emit, clock, defect, adopt
        self._stages: dict[str, Stage] = {}
        self._encodes_gone = 0
        self._tick = 0
        self.trunk = Trunk(self)
        self.streams = StreamSinks(emit)
        self.late = 0  # frames and voices of other workers that were of no use any more

    def __len__(self) -> int:
        return len(self._stages)

    def __getitem__(self, name: str) -> Stage:
        return self._stages[name]

    def __iter__(self) -> Iterator[Stage]:
        return iter(list(self._stages.values()))

    @property
    def encodes(self) -> int:
        return self._encodes_gone + sum(each.mixer.encodes for each in self)

    def voices(self) -> tuple[VoiceStats, ...]:
        """Of peers at other workers."""
        return tuple(each for stage in self for each in stage.far_stats())

    def close(self) -> None:
        """Harmless twice."""
        self.streams.close()
        self.trunk.close()

    # -- what the control process asks -----------------------------------------------------------

    def open(self, name: str, home: int, sound: Sound = "voice") -> Stage:
        """The stage; a new one where there is none yet."""
        if name not in self._stages:
            number, bitrate = self._settings.number, self._settings.bitrate
            self._stages[name] = Stage(name, number, home, bitrate, self._engine.stage(), self.trunk, sound)
        return self._stages[name]

    def peers_of(self, name: str) -> list[Peer]:
        return list(self._stages[name].peers.values()) if name in self._stages else []

    def settle(self, request: Home) -> None:
        if request.stage not in self._stages and (request.home != self._settings.number or not request.others):
            return  # our first peer of it, if one comes, tells who is home
        stage = self.open(request.stage, request.home)
        encodes = stage.mixer.encodes
        if stage.settle(request.home, request.others, self._clock()):
            self._encodes_gone += encodes
            if stage.is_home:
                self._emit(LevelsNow(stage.name, {}))  # what the former home told last is not so any more
        self._drop_if_empty(stage)

    def tune(self, request: Tune) -> None:
        if request.stage in self._stages:
            self._stages[request.stage].tune(request.sound, frozenset(map(frozenset, request.ears)))

    def hush(self, request: Hush) -> None:
        self.trunk.drain()  # what its worker sent before it told of the shut gate comes first
        if request.stage in self._stages:
            self._stages[request.stage].hush(request.csrc, self._clock())

    def remove(self, peer: Peer) -> None:
        """Its gate was shut before. Harmless twice."""
        stage = self._stages.get(peer.stage)
        if stage is not None:
            stage.remove(peer)
            self._drop_if_empty(stage)

    def _drop_if_empty(self, stage: Stage) -> None:
        if stage.is_empty:
            self._encodes_gone += stage.mixer.encodes
            del self._stages[stage.name]

    # -- TrunkEnd: what other workers send -------------------------------------------------------

    def on_frames(self, worker: int, stage: str, tick: int, output: Output) -> None:
        found = self._stages.get(stage)
        if found is None or not found.on_frames(worker, tick, output):
            self.late += 1

    def on_voice(self, worker: int, stage: str, spoken: Spoken) -> None:
        found = self._stages.get(stage)
        if found is None or not found.on_voice(worker, spoken, self._clock()):
            self.late += 1

    def on_shut(self, worker: int, stage: str, csrc: int, gone: bool) -> None:
        if stage in self._stages:
            self._stages[stage].hush(csrc, self._clock(), gone=gone)

    def on_fec(self, worker: int, stage: str) -> None:
        if stage in self._stages:
            self._stages[stage].want_fec(self._tick)

    def on_connection(self, connection: socket.socket) -> None:
        self._adopt(connection)

    def on_cut(self, worker: int) -> None:
        for stage in self:
            stage.on_cut(worker, self._clock())

    def on_defect(self, worker: int) -> None:
        self._defect(f"what worker {worker} sent")

    # -- the tick --------------------------------------------------------------------------------

    def run(self, now: float, tick: int) -> None:
        """Mix and send 20 ms of each stage."""
        self._tick = tick
        self.trunk.drain()  # after a stall of ours, frames that came in time are not late
        for stage in self:
            try:
                self._mix(stage, now, tick)
            except Exception:
                self._defect(f"stage {stage.name}")
        self.trunk.retry()
        self.streams.write_rest(self._stages, tick)

    def _mix(self, stage: Stage, now: float, tick: int) -> None:
        output = stage.tick(now, tick)
        if output is None:
            return
        self.streams.write(stage.name, output.shared, tick)
        levels = stage.levels()
        if levels is not None:
            self._emit(LevelsNow(stage.name, {str(csrc): level for csrc, level in levels.items()}))
