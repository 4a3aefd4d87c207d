"""Where else a stage's sound goes. A sink lives in the worker, where the frames are."""

from __future__ import annotations

from typing import Protocol

from bridge.media.mixer import Frame


class FrameSink(Protocol):
    """Made for one stage and owned by its worker, which calls everything here from its one loop.

    ``start`` once, then ``write`` at each tick, then ``close``, which always closes and is harmless twice."""

    def start(self) -> None: ...

    def write(self, frame: Frame, tick: int) -> None:
        """The 20 ms of this tick, as encoded for all who are silent. Never waits and never raises for want of room:
        what the other side does not take in time is dropped and counted by the sink."""

    def close(self) -> None: ...
