"""A stage's frames for the control process, which serves them to those who listen by stream.

Frames are handed over in batches, one message each, so that a stage costs five messages a second however many
listen. There is no second encode. In silence a frame goes out all the same: a player that gets nothing stalls.
"""

from __future__ import annotations

import binascii
from collections.abc import Callable

from bridge.media.control import Frames
from bridge.media.mixer import Frame

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
