"""STUN as an ICE-lite agent needs it: read a Binding request or response, write ours (RFC 8489, RFC 8445).

A message without a right MESSAGE-INTEGRITY and FINGERPRINT gives None; nothing is kept of it.

Our ufrags begin with the number of the media worker that made them, in two hexadecimal digits, and go on with twelve
random ones (RFC 8445 §5.3 wants 24 bits). So whoever takes a connection knows from its first check alone, before any
secret, whose it is: ``new_ufrag`` and ``worker_of`` are the only places that know the form.
"""

from __future__ import annotations

import binascii
import hmac
import os
import secrets
import socket
import struct
from typing import NamedTuple

COOKIE = 0x2112_A442
_REQUEST, _RESPONSE, _ERROR = 0x0001, 0x0101, 0x0111
_USERNAME, _INTEGRITY, _ERROR_CODE, _XOR_MAPPED = 0x0006, 0x0008, 0x0009, 0x0020
_PRIORITY, _USE_CANDIDATE, _FINGERPRINT, _CONTROLLED, _CONTROLLING = 0x0024, 0x0025, 0x8028, 0x8029, 0x802A
_FINGERPRINT_XOR = 0x5354_554E
_KINDS = (_REQUEST, _RESPONSE, _ERROR)
_HEAD, _ATTRIBUTE = struct.Struct("!HHI"), struct.Struct("!HH")
MAX_SIZE = 1280
"""Bytes; a longer STUN message than a minimum-MTU packet is no connectivity check."""

Address = tuple[str, int] | tuple[str, int, int, int] | tuple[str, int, int]
"""UDP over IPv4, UDP over IPv6, or (host, port, number) of a TCP connection."""


MAX_WORKERS = 64
"""Of one relay: the form leaves room for more."""


def new_ufrag(worker: int) -> str:
    """A fresh ufrag of this worker (0 … 63)."""
    return f"{worker:02x}{secrets.token_hex(6)}"


def worker_of(ufrag: str) -> int | None:
    """The number of the worker that made a ufrag; None for one that none of ours can have made. ``username`` of a
    check to us may be given whole: ours is its first part (RFC 8445 §7.2.2)."""
    ours = ufrag.partition(":")[0]
    if len(ours) != 14 or any(each not in "0123456789abcdef" for each in ours):
        return None
    number = int(ours[:2], 16)
    return number if number < MAX_WORKERS else None


class Message(NamedTuple):
    """A STUN message whose FINGERPRINT is right. ``integrity_at``: where MESSAGE-INTEGRITY begins."""

    kind: int
    transaction: bytes
    username: str
    use_candidate: bool
    controlled: bool
    integrity_at: int
    data: bytes

    @property
    def is_request(self) -> bool:
        return self.kind == _REQUEST

    @property
    def is_response(self) -> bool:
        return self.kind == _RESPONSE

    def signed_by(self, password: bytes) -> bool:
        """Whether MESSAGE-INTEGRITY holds (RFC 8489 §14.5: the length counts up to its end)."""
        at = self.integrity_at
        text = self.data[:2] + struct.pack("!H", at + 24 - 20) + self.data[4:at]
        return hmac.compare_digest(hmac.digest(password, text, "sha1"), self.data[at + 4 : at + 24])


def parse(data: bytes) -> Message | None:
    """A Binding message with FINGERPRINT and MESSAGE-INTEGRITY in place, else None."""
    length = len(data)
    if not 28 <= length <= MAX_SIZE or length % 4:
        return None
    kind, told, cookie = _HEAD.unpack_from(data)
    if cookie != COOKIE or told != length - 20 or kind not in _KINDS:
        return None
    # FINGERPRINT is the last attribute: what has none, or a wrong one, is not looked at further
    name, size, crc = _HEAD.unpack_from(data, length - 8)
    if (name, size) != (_FINGERPRINT, 4) or crc != binascii.crc32(data[:-8]) ^ _FINGERPRINT_XOR:
        return None
    username, use_candidate, controlled, integrity_at = "", False, False, 0
    at, end = 20, length - 8
    while at < end:
        name, size = _ATTRIBUTE.unpack_from(data, at)
        if at + 4 + size > end:
            return None
        if name == _FINGERPRINT:
            return None  # RFC 8489 §14.7: there is one, at the end
        if not integrity_at:  # what follows MESSAGE-INTEGRITY is not covered by it and is ignored
            if name == _INTEGRITY and size == 20:
                integrity_at = at
            elif name == _USERNAME:
                username = data[at + 4 : at + 4 + size].decode("ascii", "replace")
            elif name == _USE_CANDIDATE:
                use_candidate = True
            elif name == _CONTROLLED:
                controlled = True
        at += 4 + size + -size % 4
    if at != end or not integrity_at:
        return None
    return Message(kind, data[8:20], username, use_candidate, controlled, integrity_at, data)


def _attribute(name: int, value: bytes) -> bytes:
    return struct.pack("!HH", name, len(value)) + value + bytes(-len(value) % 4)


def _message(kind: int, transaction: bytes, attributes: bytes, password: bytes) -> bytes:
    head = struct.pack("!HHI", kind, len(attributes) + 24, COOKIE) + transaction + attributes
    signature = hmac.digest(password, head, "sha1")
    size = len(attributes) + 24 + 8
    head = b"".join((head[:2], size.to_bytes(2, "big"), head[4:], _ATTRIBUTE.pack(_INTEGRITY, 20), signature))
    return head + _HEAD.pack(_FINGERPRINT, 4, binascii.crc32(head) ^ _FINGERPRINT_XOR)


def success(request: Message, source: Address, password: bytes) -> bytes:
    """The answer to a check that holds, with the address it came from."""
    host, port = source[0], source[1] ^ COOKIE >> 16
    if ":" in host:
        packed = socket.inet_pton(socket.AF_INET6, host.split("%", 1)[0])
        mask = COOKIE.to_bytes(4, "big") + request.transaction
        masked = int.from_bytes(packed, "big") ^ int.from_bytes(mask, "big")
        mapped = _ATTRIBUTE.pack(2, port) + masked.to_bytes(16, "big")
    else:
        mapped = _HEAD.pack(1, port, int.from_bytes(socket.inet_aton(host), "big") ^ COOKIE)
    return _message(_RESPONSE, request.transaction, _attribute(_XOR_MAPPED, mapped), password)


def role_conflict(request: Message, password: bytes) -> bytes:
    """RFC 8445 §7.3.1.1: we are lite, so we stay controlled and the other side must control."""
    reason = struct.pack("!HBB", 0, 4, 87) + b"Role Conflict"
    return _message(_ERROR, request.transaction, _attribute(_ERROR_CODE, reason), password)


def binding_request(username: str, password: bytes, *, controlling: bool = False, nominate: bool = False) -> bytes:
    """A check of our own. We send one only to learn whether a new address wants what we send."""
    attributes = _attribute(_USERNAME, username.encode())
    attributes += _attribute(_CONTROLLING if controlling else _CONTROLLED, os.urandom(8))
    attributes += _attribute(_PRIORITY, (0x6E7F_FFFF).to_bytes(4, "big"))
    attributes += _attribute(_USE_CANDIDATE, b"") if nominate else b""
    return _message(_REQUEST, os.urandom(12), attributes, password)
