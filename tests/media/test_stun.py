"""STUN by bytes: the published vectors of RFC 5769, aioice's parser, and any bytes at all."""

from __future__ import annotations

import binascii
import os

import pytest
from aioice import stun as theirs
from hypothesis import given
from hypothesis import strategies as st

from bridge.media import stun

# RFC 5769 §2.1: sample request; user "evtj:h6vY", password below.
PASSWORD = b"VOkJxbRl1RmTxUk/WvJxBt"
SAMPLE = bytes.fromhex(
    "000100582112a442b7e7a701bc34d686fa87dfae"
    "802200105354554e207465737420636c69656e74"
    "002400046e0001ff80290008932ff9b151263b36"
    "000600096576746a3a6836765920202000080014"
    "9aeaa70cbfd8cb56781ef2b5b2d3f249c1b571a2"
    "80280004e57a3bcf"
)


def test_the_rfc_sample() -> None:
    message = stun.parse(SAMPLE)
    assert message is not None
    assert message.is_request
    assert message.username == "evtj:h6vY"
    assert message.controlled
    assert not message.use_candidate
    assert message.signed_by(PASSWORD)
    assert not message.signed_by(PASSWORD + b"x")


@pytest.mark.parametrize("at", range(len(SAMPLE)))
def test_one_wrong_bit_anywhere_is_noticed(at: int) -> None:
    changed = bytearray(SAMPLE)
    changed[at] ^= 0x10
    assert stun.parse(bytes(changed)) is None  # FINGERPRINT covers all before it, and itself


@pytest.mark.parametrize("address", [("192.0.2.9", 4711), ("2001:db8::9", 4711, 0, 0), ("fe80::1%eth0", 1, 0, 3)])
def test_our_answer_as_aioice_reads_it(address: stun.Address) -> None:
    request = stun.parse(stun.binding_request("a:b", b"secret", controlling=True, nominate=True))
    assert request is not None
    assert request.use_candidate
    response = theirs.parse_message(stun.success(request, address, b"secret"))
    assert response.check_message_integrity(b"secret")
    assert response.message_class is theirs.Class.RESPONSE
    assert response.transaction_id == request.transaction
    assert response.attributes["XOR-MAPPED-ADDRESS"] == (address[0].split("%")[0], address[1])
    conflict = theirs.parse_message(stun.role_conflict(request, b"secret"))
    assert conflict.check_message_integrity(b"secret")
    assert conflict.attributes["ERROR-CODE"] == (487, "Role Conflict")


def test_what_aioice_asks_we_read() -> None:
    message = theirs.Message(theirs.Method.BINDING, theirs.Class.REQUEST)
    message.attributes["USERNAME"] = "ours:theirs"
    message.attributes["PRIORITY"] = 1
    message.attributes["ICE-CONTROLLING"] = 1
    message.attributes["USE-CANDIDATE"] = None
    message.add_message_integrity(b"secret")
    read = stun.parse(bytes(message))
    assert read is not None
    assert (read.username, read.use_candidate, read.controlled) == ("ours:theirs", True, False)
    assert read.signed_by(b"secret")


def test_attributes_after_the_integrity_do_not_count() -> None:
    """RFC 8489 §14.5: else anyone on the path could nominate."""
    request = stun.binding_request("a:b", b"secret", controlling=True)
    body = request[20:-8] + b"\x00\x25\x00\x00"
    head = request[:2] + (len(body) + 8).to_bytes(2, "big") + request[4:20]
    crc = binascii.crc32(head + body) ^ 0x5354554E
    read = stun.parse(head + body + b"\x80\x28\x00\x04" + crc.to_bytes(4, "big"))
    assert read is not None
    assert not read.use_candidate
    assert read.signed_by(b"secret")


@given(st.binary(max_size=120))
def test_any_bytes_are_survived(data: bytes) -> None:
    stun.parse(data)
    stun.parse(SAMPLE[:20] + data)
    assert stun.parse(data + SAMPLE) is None or not data


def test_no_more_than_a_small_packet() -> None:
    assert stun.parse(SAMPLE[:20] + os.urandom(2000)) is None


@pytest.mark.parametrize("worker", [0, 9, 10, 63])
def test_a_ufrag_says_whose_it_is(worker: int) -> None:
    ufrag = stun.new_ufrag(worker)
    assert 4 <= len(ufrag) <= 256
    assert ufrag.isalnum()
    assert ufrag != stun.new_ufrag(worker)
    assert stun.worker_of(ufrag) == worker
    assert stun.worker_of(f"{ufrag}:theirs") == worker


@pytest.mark.parametrize(
    "foreign", ["", ":", "nobody", "nobody:00a1b2c3d4e5f6", "4000000000000000"[:14], "0" * 15, "0G" + "0" * 12]
)
def test_a_foreign_ufrag_is_nobodys(foreign: str) -> None:
    assert stun.worker_of(foreign) is None
