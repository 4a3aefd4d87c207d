"""A log that never makes its writer wait: the media loop must not stand still because nobody reads its log."""

from __future__ import annotations

import contextlib
import logging
import queue
import threading
from typing import TextIO

_CLOSE_S = 1.0


class LossyHandler(logging.Handler):
    """Formats in the caller and writes in a thread of its own. At most ``most`` lines wait for the stream; what comes
    then is dropped, and the next line that has room says how many were.

    Owns the thread; ``close`` gives it a second for what waits, and is harmless twice."""

    def __init__(self, stream: TextIO, most: int = 1000) -> None:
        super().__init__()
        self.dropped = 0
        self._stream = stream
        self._lines: queue.Queue[str | None] = queue.Queue(most)
        self._thread = threading.Thread(target=self._write, name="log", daemon=True)
        self._thread.start()

    def emit(self, record: logging.LogRecord) -> None:
        try:
            line = self.format(record)
        except Exception:
            self.handleError(record)
            return
        try:
            if self.dropped:
                self._lines.put_nowait(f"({self.dropped} lines of the log were dropped: it is not read)")
                self.dropped = 0
            self._lines.put_nowait(line)
        except queue.Full:
            self.dropped += 1

    def _write(self) -> None:
        while (line := self._lines.get()) is not None:
            with contextlib.suppress(OSError, ValueError):  # nobody reads it any more
                self._stream.write(line + "\n")
                self._stream.flush()

    def close(self) -> None:
        with contextlib.suppress(queue.Full):
            self._lines.put(None, timeout=_CLOSE_S)
        self._thread.join(_CLOSE_S)
        super().close()
