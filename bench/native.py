"""The C loops of the load client (sink.c), compiled when first needed, by ctypes."""

from __future__ import annotations

import ctypes
import functools
import os
import shlex
import subprocess
import tempfile
from pathlib import Path

SOURCES = 12
"""SSRCs counted for one listener; packets of more are told as others."""


class Source(ctypes.Structure):
    """``struct source``. Sequence numbers are unwrapped: highest − first + 1 packets were sent."""

    _fields_ = tuple((name, ctypes.c_uint32) for name in ("ssrc", "packets", "first", "highest"))


class Count(ctypes.Structure):
    """``struct count``."""

    _fields_ = (
        ("packets", ctypes.c_uint32),
        ("other", ctypes.c_uint32),
        ("bytes", ctypes.c_uint64),
        ("sources", ctypes.c_uint32),
        ("unused", ctypes.c_uint32),
        ("source", Source * SOURCES),
    )

    @property
    def expected(self) -> int:
        return sum(each.highest - each.first + 1 for each in self.source[: self.sources])


class Sample(ctypes.Structure):
    """``struct sample``."""

    _fields_ = (("at_ns", ctypes.c_int64), ("flow", ctypes.c_uint32), ("timestamp", ctypes.c_uint32))


class Upkeep(ctypes.Structure):
    """``struct upkeep``."""

    _fields_ = (
        ("data", ctypes.c_char_p),
        ("sizes", ctypes.POINTER(ctypes.c_int32)),
        ("stride", ctypes.c_int32),
        ("rounds", ctypes.c_int32),
        ("every_ns", ctypes.c_int64),
    )


@functools.cache
def library() -> ctypes.CDLL:
    """Raises CalledProcessError where it does not compile."""
    source = Path(__file__).with_name("sink.c")
    with tempfile.TemporaryDirectory() as directory:
        target = Path(directory) / "sink.so"
        compiler = shlex.split(os.environ.get("CC", "cc"))
        subprocess.run([*compiler, "-O2", "-std=gnu11", "-fPIC", "-shared", source, "-o", target], check=True)
        loaded = ctypes.CDLL(str(target))
    pointer, number, small = ctypes.c_void_p, ctypes.c_int64, ctypes.c_int32
    loaded.drain.argtypes = [pointer, small, pointer, pointer, small, pointer, number, small, number]
    loaded.drain.restype = number
    loaded.flood.argtypes = [ctypes.c_int, pointer, small, small, small, number, number, ctypes.POINTER(number)]
    loaded.flood.restype = number
    return loaded
