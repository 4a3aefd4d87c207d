"""The worker's log into a pipe that nobody reads."""

from __future__ import annotations

import contextlib
import logging
import os

from bridge.media.lossy_log import LossyHandler


def test_a_log_that_nobody_reads_holds_up_nobody() -> None:
    reader, writer = os.pipe()
    with os.fdopen(writer, "w") as stream, os.fdopen(reader) as far_end:
        handler = LossyHandler(stream, most=50)
        log = logging.getLogger("test.lossy")
        log.propagate = False
        log.addHandler(handler)
        count = 0
        while handler.dropped < 100:  # a pipe takes 64 KiB; without the thread this would never end
            count += 1
            log.error("%06d %s", count, "x" * 1000)
        assert count >= 150
        for expected in range(1, 11):
            assert far_end.readline().startswith(f"{expected:06d} ")
        while handler.dropped:  # there is room again
            log.error("later")
            far_end.readline()
        log.error("last")
        handler.close()
        handler.close()
        log.removeHandler(handler)
        stream.close()
        rest = far_end.read()
    assert "lines of the log were dropped" in rest
    assert rest.endswith("last\n")


def test_a_bad_record_is_told_and_a_closed_stream_is_no_fault() -> None:
    reader, writer = os.pipe()
    stream = os.fdopen(writer, "w")
    os.close(reader)
    handler = LossyHandler(stream)
    log = logging.getLogger("test.lossy.closed")
    log.propagate = False
    log.addHandler(handler)
    log.error("nobody")
    handler.close()
    log.removeHandler(handler)
    assert not handler._thread.is_alive()
    with contextlib.suppress(BrokenPipeError):
        stream.close()
