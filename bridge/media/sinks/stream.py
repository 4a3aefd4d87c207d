"""A stage's frames for the control process, which serves them to those who listen by stream.

Frames are handed over in batches, one message each, so that a stage costs five messages a second however many
listen. There is no second encode. In silence a frame goes out all the same: a player that gets nothing stalls.
"""

from __future__ import annotations

import binascii
from collections.abc import Callable, Container

from bridge.media.control import Frames
from bridge.media.mixer import QUIET, Frame

BATCH = 10
"""Frames: 200 ms, which become one Ogg page."""
SILENCE = b"\xf8\xff\xfe"
"""20 ms of digital silence: CELT, full band, mono (RFC 6716 §3.1), its silence flag set (§4.3). The one byte that
stands for silence in RTP is "a lost packet" to some file players."""


class StreamSink:
    """``bridge.media.sinks.base.FrameSink``. Bound: one batch; ``emit`` is told nothing while ``has_room`` is False,
    and what it would have got is dropped: ``dropped`` counts frames."""

    def __init__(self, stage: str, emit: Callable[[Frames], None], has_room: Callable[[], bool]) -> None:
        self._stage, self._emit, self._has_room = stage, emit, has_room
        self._batch: list[bytes] = []
        self._first = 0
        self._closed = False
        self.dropped = 0

    def start(self) -> None:
        self._batch.clear()

    def write(self, frame: Frame, tick: int) -> None:
        if self._closed:
            return
        if self._batch and tick != self._first + len(self._batch):
            self._flush()  # ticks were skipped: a batch holds consecutive ones
        if not self._batch:
            self._first = tick
        self._batch.append(frame.payload if frame.sounding else SILENCE)
        if len(self._batch) == BATCH:
            self._flush()

    def _flush(self) -> None:
        batch, self._batch = self._batch, []
        if not self._has_room():
            self.dropped += len(batch)
            return
        frames = tuple(binascii.b2a_base64(each, newline=False).decode() for each in batch)
        self._emit(Frames(self._stage, self._first, frames))

    def close(self) -> None:
        self._closed = True
        self._batch.clear()


class StreamSinks:
    """The streams of a worker's stages: one for each that somebody listens to by stream. Owned by the worker."""

    def __init__(self, emit: Callable[[Frames], None]) -> None:
        self._emit = emit
        self._sinks: dict[str, StreamSink] = {}
        self._dropped_before = 0
        self.has_room: Callable[[], bool] = lambda: True
        """Whether the control process takes what may be dropped; set by the worker's root."""

    @property
    def dropped(self) -> int:
        """Frames that the control process did not take in time, since the worker's start."""
        return self._dropped_before + sum(each.dropped for each in self._sinks.values())

    def switch(self, stage: str, on: bool) -> None:
        """Harmless twice."""
        if on and stage not in self._sinks:
            sink = self._sinks[stage] = StreamSink(stage, self._emit, lambda: self.has_room())
            sink.start()
        elif not on and stage in self._sinks:
            gone = self._sinks.pop(stage)
            gone.close()
            self._dropped_before += gone.dropped

    def write(self, stage: str, frame: Frame, tick: int) -> None:
        sink = self._sinks.get(stage)
        if sink is not None:
            sink.write(frame, tick)

    def write_rest(self, mixed: Container[str], tick: int) -> None:
        """Silence for the stages that nobody is connected to: their streams go on all the same."""
        for stage, sink in self._sinks.items():
            if stage not in mixed:
                sink.write(QUIET, tick)

    def close(self) -> None:
        for stage in list(self._sinks):
            self.switch(stage, on=False)
