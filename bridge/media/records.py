"""What is left of a DTLS 1.2 association once SRTP has its keys: its records, without OpenSSL's object.

That object keeps 70 kB, of which nobody needs a byte again: after the handshake a browser sends an alert when it goes,
or its last flight again where ours was lost. So the keys of the records are derived here as well (RFC 5246 §6.3), and
OpenSSL's object is given back. For AES_128_GCM alone, which all browsers negotiate; others keep the object.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Iterator
from typing import NamedTuple

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

HEAD = 13
"""Bytes of a record's header: type, version, epoch, sequence number, length (RFC 6347 §4.1)."""
ALERT, HANDSHAKE = 21, 22
_DTLS_1_2 = 0xFEFD
_KEY, _SALT, _EXPLICIT, _TAG = 16, 4, 8, 16
_PROTECTED = 1  # the epoch after the one and only change of keys
_FATAL, _CLOSE_NOTIFY = 2, 0
_CLOSE = bytes((1, _CLOSE_NOTIFY))  # warning, close_notify: RFC 5246 §7.2.1


class Record(NamedTuple):
    """One record as it stands in a datagram. ``number``: epoch and sequence number in one, 64 bits."""

    kind: int
    version: int
    number: int
    body: bytes

    @property
    def epoch(self) -> int:
        return self.number >> 48


def split(datagram: bytes) -> Iterator[Record]:
    """The records of a datagram; what is cut short is left out."""
    at = 0
    while at + HEAD <= len(datagram):
        end = at + HEAD + int.from_bytes(datagram[at + 11 : at + HEAD], "big")
        if end > len(datagram):
            return
        number = int.from_bytes(datagram[at + 3 : at + 11], "big")
        version = int.from_bytes(datagram[at + 1 : at + 3], "big")
        yield Record(datagram[at], version, number, datagram[at + HEAD : end])
        at = end


def _expand(secret: bytes, seed: bytes, size: int) -> bytes:
    """P_SHA256 of RFC 5246 §5."""
    made, link = b"", seed
    while len(made) < size:
        link = hmac.digest(secret, link, hashlib.sha256)
        made += hmac.digest(secret, link + seed, hashlib.sha256)
    return made[:size]


class ServerRecords:
    """Reads and writes the records of epoch 1, as the server. Owned by one association, called in one loop.

    Nothing is kept of what was read: an alert says no more when it is replayed, and a replayed Finished gets from us a
    flight of about its own size."""

    __slots__ = ("_explicit", "_keys", "_number")

    def __init__(self, master: bytes, client_random: bytes, server_random: bytes, last_flight: bytes) -> None:
        """``last_flight``: what we sent last; it ends with our Finished, whose numbers ours follow.

        Raises ValueError where there is no such record in it."""
        finished = [each for each in split(last_flight) if (each.kind, each.epoch) == (HANDSHAKE, _PROTECTED)]
        if not finished or finished[-1].version != _DTLS_1_2:
            raise ValueError("no Finished of DTLS 1.2 in the last flight")
        self._number = finished[-1].number
        self._explicit = int.from_bytes(finished[-1].body[:_EXPLICIT], "big")
        seed = b"key expansion" + server_random + client_random
        self._keys = _expand(master, seed, 2 * (_KEY + _SALT))

    def read(self, record: Record) -> bytes | None:
        """The content of a record of the client's, None where it is not authentic (RFC 5288 §3)."""
        if (record.version, record.epoch) != (_DTLS_1_2, _PROTECTED) or len(record.body) < _EXPLICIT + _TAG:
            return None
        key, salt = self._keys[:_KEY], self._keys[2 * _KEY : 2 * _KEY + _SALT]
        about = _about(record.number, record.kind, len(record.body) - _EXPLICIT - _TAG)
        try:
            return AESGCM(key).decrypt(salt + record.body[:_EXPLICIT], record.body[_EXPLICIT:], about)
        except InvalidTag:
            return None

    def close_notify(self) -> bytes:
        """The record that ends the association, as a datagram."""
        self._number += 1
        self._explicit = (self._explicit + 1) % (1 << 64)  # no nonce is used twice with one key
        key, salt = self._keys[_KEY : 2 * _KEY], self._keys[2 * _KEY + _SALT :]
        explicit = self._explicit.to_bytes(_EXPLICIT, "big")
        sealed = AESGCM(key).encrypt(salt + explicit, _CLOSE, _about(self._number, ALERT, len(_CLOSE)))
        return _head(self._number, ALERT, _EXPLICIT + len(sealed)) + explicit + sealed


def is_end(alert: bytes) -> bool:
    """Whether an alert ends the association: close_notify, or a fatal one (RFC 5246 §7.2)."""
    return len(alert) == 2 and (alert[0] == _FATAL or alert[1] == _CLOSE_NOTIFY)


def _about(number: int, kind: int, size: int) -> bytes:
    """The additional data of RFC 5246 §6.2.3.3; epoch and sequence number stand for seq_num (RFC 6347 §4.1.2.1)."""
    return number.to_bytes(8, "big") + bytes((kind,)) + _DTLS_1_2.to_bytes(2, "big") + size.to_bytes(2, "big")


def _head(number: int, kind: int, size: int) -> bytes:
    return bytes((kind,)) + _DTLS_1_2.to_bytes(2, "big") + number.to_bytes(8, "big") + size.to_bytes(2, "big")
