"""The fan-out in C (fanout.c), by ctypes: one call a tick and stage.

It is there where the package was built with a C compiler, and usable where the machine has OpenSSL's libcrypto;
``open_engine`` says why not, and the caller takes the engine in Python.
"""

from __future__ import annotations

import ctypes
from pathlib import Path

from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from bridge.media.dtls import Keys
from bridge.media.fanout import PythonStage, Send, Sender
from bridge.media.mixer import Frame, Output

LIBRARY = Path(__file__).with_name("_fanout.so")
_VERSION = 3  # of fanout.c
_TO_STREAM = ctypes.CFUNCTYPE(None, ctypes.c_uint64, ctypes.POINTER(ctypes.c_uint8), ctypes.c_size_t)
_LIBCRYPTO = ("libcrypto.so.3", "libcrypto.so.1.1", "libcrypto.so")
_SENDERS, _STREAMS = 16, 4  # room for so many at first, doubled when needed; a stream takes some 8 kB


class NotThere(Exception):
    """The C fan-out cannot be used here, and why."""


def _library() -> ctypes.CDLL:
    try:
        library = ctypes.CDLL(str(LIBRARY))
    except OSError:
        raise NotThere("the package was built without a C compiler (with one: python tools/build_fanout.py)") from None
    pointer, size, number = ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int64
    byte, text = ctypes.c_uint8, ctypes.c_char_p
    library.eyvan_sender_size.restype = library.eyvan_stream_size.restype = size
    if (library.eyvan_version(), library.eyvan_sender_size()) != (_VERSION, ctypes.sizeof(Sender)):
        raise NotThere("it was built from another version of fanout.c; install the package again")
    library.eyvan_load.argtypes = [text]
    library.eyvan_new.argtypes = [ctypes.c_int, ctypes.c_int, _TO_STREAM]
    library.eyvan_new.restype = pointer
    library.eyvan_free.argtypes = [pointer]
    library.eyvan_free.restype = None
    library.eyvan_errors.argtypes = [pointer]
    library.eyvan_errors.restype = ctypes.c_uint64
    library.eyvan_arm.argtypes = [pointer, text]
    library.eyvan_frame.argtypes = [pointer, number, text, ctypes.c_uint16, byte, byte, text, text, byte]
    library.eyvan_frame.restype = None
    library.eyvan_fan_out.argtypes = [pointer, pointer, size, pointer, number]
    library.eyvan_fan_out.restype = None
    if all(library.eyvan_load(name.encode()) for name in _LIBCRYPTO):
        raise NotThere("OpenSSL's libcrypto was not found (Debian: libssl3)")
    return library


def session_keys(master: bytes) -> tuple[bytes, bytes]:
    """Session key (16 bytes) and salt (12 bytes) of AEAD_AES_128_GCM for RTP, from master key and salt one after the
    other (28 bytes): RFC 3711 §4.3 with a key derivation rate of 0, RFC 7714 §11 (the salt ends in two zero bytes)."""
    key, salt = master[:16], master[16:28] + bytes(2)

    def derived(label: int, size: int) -> bytes:
        start = bytearray(salt + bytes(2))
        start[7] ^= label
        stream = Cipher(algorithms.AES(key), modes.CTR(bytes(start))).encryptor()
        return stream.update(bytes(size))

    return derived(0x00, 16), derived(0x02, 12)


class NativeEngine:
    """Owns the batch buffers. ``v4`` and ``v6``: file descriptors of the port's UDP sockets, -1 for none; what goes
    by TCP, and to whom C does not serve, is given to ``send``."""

    name = "C"

    def __init__(self, v4: int, v6: int, send: Send) -> None:
        """Raises NotThere."""
        self._library = _library()
        self._send = send
        self._to_stream = _TO_STREAM(self._to)  # C keeps no reference
        self._engine = self._library.eyvan_new(v4, v6, self._to_stream)
        if not self._engine:
            raise NotThere("there is no memory for it")
        self._errors = 0

    @property
    def errors(self) -> int:
        if self._engine:
            self._errors = int(self._library.eyvan_errors(self._engine))
        return self._errors

    def _to(self, number: int, datagram: ctypes._Pointer[ctypes.c_uint8], size: int) -> None:
        self._send(ctypes.string_at(datagram, size), ("", 0, number))

    def stage(self) -> NativeStage:
        return NativeStage(self._library, self._engine, self._send)

    def close(self) -> None:
        """Harmless twice; no stage of it may be used after it."""
        if self._engine:
            self._errors = self.errors
            self._library.eyvan_free(self._engine)
            self._engine = None


class NativeStage(PythonStage):
    """Listeners with AEAD_AES_128_GCM are served in C; those with AES_CM_128_HMAC_SHA1_80 as in Python.

    Owns the block of streams and the array of senders that C reads; keeps every sender in it alive."""

    def __init__(self, library: ctypes.CDLL, engine: int, send: Send) -> None:
        super().__init__(send)
        self._library, self._engine = library, engine
        self._armed: list[Sender] = []
        self._at: dict[Sender, int] = {}  # in both arrays
        self._pointers = (ctypes.c_void_p * _SENDERS)()
        self._stream_size = int(library.eyvan_stream_size())
        self._block = ctypes.create_string_buffer(_STREAMS * self._stream_size)
        self._block_at = ctypes.addressof(self._block)
        self._told: dict[int, str] = {}  # streams whose last tick is in the block, and their keys

    def connect(self, sender: Sender, keys: Keys) -> None:
        if "GCM" not in keys.profile.name:
            super().connect(sender, keys)
            return
        key, salt = session_keys(keys.outgoing)
        ctypes.memmove(sender.salt, salt, len(salt))
        if self._library.eyvan_arm(ctypes.byref(sender), key):
            super().connect(sender, keys)
            return
        sender.done = self._now
        at = self._at[sender] = len(self._armed)
        self._armed.append(sender)
        if at == len(self._pointers):
            larger = (ctypes.c_void_p * (2 * at))()
            ctypes.memmove(larger, self._pointers, ctypes.sizeof(self._pointers))
            self._pointers = larger
        self._pointers[at] = ctypes.addressof(sender)

    def remove(self, sender: Sender) -> None:
        at = self._at.pop(sender, None)
        if at is not None:
            last = self._armed.pop()
            if last is not sender:
                self._armed[at], self._at[last] = last, at
                self._pointers[at] = ctypes.addressof(last)
            self._library.eyvan_arm(ctypes.byref(sender), None)
        super().remove(sender)

    def tick(self, output: Output, tick: int) -> None:
        self._remember(output, tick)
        if not self._armed:
            self._told = {}
        else:
            self._tell(output, tick)
            self._library.eyvan_fan_out(self._engine, self._pointers, len(self._armed), self._block_at, tick)
        if self._served:
            self._serve(tick)

    def _tell(self, output: Output, tick: int) -> None:
        """This tick's frame of each stream; all three ticks' of one that is new."""
        streams = {0: "", 1: "", **self._keys}
        for stream, key in streams.items():
            if stream * self._stream_size >= len(self._block):
                larger = ctypes.create_string_buffer(2 * stream * self._stream_size)
                ctypes.memmove(larger, self._block, len(self._block))
                self._block, self._block_at = larger, ctypes.addressof(larger)
            if self._told.get(stream) == key:
                self._say(stream, self._frame(stream, output), tick)
            else:
                for at, each in self._history:
                    self._say(stream, self._frame(stream, each), at)
        self._told = streams

    def _say(self, stream: int, frame: Frame, tick: int) -> None:
        where = self._block_at + stream * self._stream_size
        csrcs = b"".join(csrc.to_bytes(4, "big") for csrc, _ in frame.csrcs)
        levels = bytes(level for _, level in frame.csrcs)
        self._library.eyvan_frame(
            where, tick, frame.payload, len(frame.payload), frame.sounding, frame.level, csrcs, levels, len(levels)
        )
